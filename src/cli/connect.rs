//! Connects to a running server, over TLS if the URL is https, and enforces the time limit of a
//! client command.

use std::{error::Error, fs, future::Future, io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{
    exit::{ExitError, FAILURE, UNAVAILABLE},
    output::error_text,
};
use crate::config;

/// The server to call, and how to verify it.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct Server {
    /// URL of the server to call
    #[arg(
        long = "server",
        env = "STACKTOKEN_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_parser = url,
        value_name = "URL"
    )]
    url: String,
    /// Time limit of the command, from connecting to the answer
    #[arg(long, env = "STACKTOKEN_TIMEOUT", default_value = "5s", value_parser = config::call_timeout, value_name = "TIME")]
    timeout: Duration,
    /// With https: the CA that signed the server's certificate, in PEM. Default: the system's
    /// trusted CAs
    #[arg(long, env = "STACKTOKEN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https: the client's own certificate, in PEM
    #[arg(
        long,
        env = "STACKTOKEN_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_cert: Option<PathBuf>,
    /// Private key of the client's certificate, in PEM
    #[arg(
        long,
        env = "STACKTOKEN_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,
}

impl Server {
    /// Returns whether a client certificate identifies the caller.
    pub fn has_certificate(&self) -> bool {
        self.client_cert.is_some()
    }

    /// Returns the time limit of a command, from the start of connecting until the response.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs `work` and returns its output, or `None` if it takes longer than [`Self::timeout`].
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.timeout, work).await.ok()
    }

    /// Returns the error for a call that was not answered in time.
    pub fn no_answer(&self) -> ExitError {
        let time = humantime::format_duration(self.timeout);
        let message = format!("--server {}: no answer within --timeout {time}", self.url);
        ExitError::new(UNAVAILABLE, message)
    }

    /// Connects to the server.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = self.endpoint()?;
        let connected = endpoint.connect().await;
        connected.map_err(|error| self.not_connected(error).into())
    }

    /// Improves the error of a call that failed without an answer from the service. If the server
    /// uses a protocol other than gRPC, the error states this and reports that a retry does not
    /// help. Takes at most `left`.
    pub async fn explain(&self, failed: ExitError, left: Duration) -> ExitError {
        let probe = tokio::time::timeout(left, self.speaks_another_protocol());
        if !probe.await.unwrap_or_default() {
            return failed;
        }
        failed.into_failure().with_hint(&format!(
            "--server {} answers in another protocol than gRPC: check the port, and use https:// if \
             it speaks TLS",
            self.url
        ))
    }

    /// Returns whether the server uses a protocol other than HTTP/2, such as HTTP/1.1 or TLS. The
    /// library reports this case only as a broken connection, so this function examines the first
    /// byte of the server's answer. Returns `false` if the server closes the connection without an
    /// answer, because it may be down, and for https, because TLS has already negotiated the
    /// protocol.
    async fn speaks_another_protocol(&self) -> bool {
        let Some(address) = self.plain_address() else {
            return false;
        };
        for opening in [HTTP2, HTTP1] {
            if let Ok(byte) = first_byte(&address, opening).await {
                // Every HTTP/2 server begins with a SETTINGS frame (RFC 9113 §3.4). Its first byte
                // is the highest byte of its length, which is 0.
                return byte != 0;
            }
        }
        false
    }

    /// Returns the host and port of the URL; `None` if its scheme is not http.
    fn plain_address(&self) -> Option<(String, u16)> {
        let uri: http::Uri = self.url.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        let is_plain = uri.scheme_str() == Some("http");
        is_plain.then(|| (host.to_owned(), uri.port_u16().unwrap_or(80)))
    }

    fn not_connected(&self, error: transport::Error) -> ExitError {
        let code = if is_outage(&error) {
            UNAVAILABLE
        } else {
            FAILURE
        };
        let causes = error_text(&anyhow::Error::from(error));
        let failed = ExitError::new(code, format!("--server {}: {causes}", self.url));
        if code == FAILURE {
            return failed.with_hint(
                "check that the server speaks TLS on this port, and give the CA that signed its \
                 certificate with --ca",
            );
        }
        failed
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.url.clone())?;
        if endpoint.uri().scheme_str() != Some("https") {
            if self.ca.is_some() || self.client_cert.is_some() {
                let message = "--ca and --client-cert (also set by STACKTOKEN_CA and \
                               STACKTOKEN_CLIENT_CERT) are for https:// only: give --server an \
                               https:// URL, or leave them out";
                return Err(ExitError::usage(message).into());
            }
            return Ok(endpoint);
        }
        let mut tls = match &self.ca {
            Some(ca) => {
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca", ca)?))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) {
            let (cert, key) = (read("--client-cert", cert)?, read("--client-key", key)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(endpoint.tls_config(tls)?)
    }
}

/// Returns whether the error is that the server could not be reached. Returns `false` if the
/// server's certificate is not trusted or the server uses another protocol, because a retry does
/// not help then.
fn is_outage(error: &transport::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes
        .next()
        .is_some_and(|error| error.kind() != io::ErrorKind::InvalidData)
}

/// The HTTP/2 client preface with an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// An HTTP/1.1 request, which servers without HTTP/2 answer.
const HTTP1: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Sends `opening` on a new connection, and returns the first byte of the server's answer.
async fn first_byte(address: &(String, u16), opening: &[u8]) -> io::Result<u8> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(opening).await?;
    socket.read_u8().await
}

/// Parses the URL of a server. A URL without a scheme is treated as http.
fn url(text: &str) -> Result<String, &'static str> {
    let url = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None => format!("http://{text}"),
    };
    let uri: http::Uri = url.parse().map_err(|_| EXPECTED_URL)?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_user = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    let has_path = !["", "/"].contains(&uri.path()) || uri.query().is_some();
    if is_known && has_host && !has_user && !has_path {
        Ok(url)
    } else {
        Err(EXPECTED_URL)
    }
}

const EXPECTED_URL: &str =
    "expected a URL such as http://127.0.0.1:50051, without a user name and without a path";

fn read(flag: &str, path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}
