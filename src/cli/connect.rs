//! Connects to a running server, over TLS if the URL is https, and limits how long a client command
//! may take.

use std::{error::Error, fs, future::Future, io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::exit::{FAILURE, Failed, UNAVAILABLE};
use crate::config;

/// The server to call, and how to verify it.
#[derive(Args)]
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

    /// Returns how long a command may take from the start of connecting until the answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs `work` and returns its output, or `None` if it takes longer than [`Self::timeout`].
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.timeout, work).await.ok()
    }

    /// Returns the failure of a call that was not answered in time.
    pub fn no_answer(&self) -> Failed {
        let time = humantime::format_duration(self.timeout);
        let message = format!("--server {}: no answer within --timeout {time}", self.url);
        Failed::new(UNAVAILABLE, message)
    }

    /// Connects to the server.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = self.endpoint()?;
        let connected = endpoint.connect().await;
        connected.map_err(|error| self.not_connected(error).into())
    }

    fn not_connected(&self, error: transport::Error) -> Failed {
        let code = if is_outage(&error) {
            UNAVAILABLE
        } else {
            FAILURE
        };
        let causes = anyhow::Error::from(error);
        Failed::new(code, format!("--server {}: {causes:#}", self.url))
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.url.clone())?;
        if endpoint.uri().scheme_str() != Some("https") {
            if self.ca.is_some() || self.client_cert.is_some() {
                let message = "--ca and --client-cert are for https:// only";
                return Err(Failed::usage(message).into());
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

/// Returns whether the server could not be reached. If the server was reached but its certificate
/// is not trusted, or if it speaks another protocol, the result is `false` because a retry does not
/// help.
fn is_outage(error: &transport::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes
        .next()
        .is_some_and(|error| error.kind() != io::ErrorKind::InvalidData)
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
    if is_known && has_host {
        Ok(url)
    } else {
        Err(EXPECTED_URL)
    }
}

const EXPECTED_URL: &str = "expected a URL such as http://127.0.0.1:50051";

fn read(flag: &str, path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}
