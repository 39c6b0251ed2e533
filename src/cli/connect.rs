//! A connection to a running server, over TLS where the URL says https.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Which server, and how to know it.
#[derive(Args)]
pub struct Server {
    /// The server to call
    #[arg(
        long = "server",
        env = "STACKTOKEN_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    url: String,
    /// With https: the CA that signed the server's certificate, in PEM; without it those that
    /// this machine trusts
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
    /// The key of that certificate, in PEM
    #[arg(
        long,
        env = "STACKTOKEN_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,
}

impl Server {
    /// Whether a client certificate says who calls.
    pub fn has_certificate(&self) -> bool {
        self.client_cert.is_some()
    }

    /// Connects.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        let named = || format!("--server {}", self.url);
        let endpoint = self.endpoint().with_context(named)?;
        endpoint.connect().await.with_context(named)
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.url.clone())?;
        if endpoint.uri().scheme_str() != Some("https") {
            if self.ca.is_some() || self.client_cert.is_some() {
                bail!("--ca and --client-cert are for https:// only");
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

fn read(flag: &str, path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}
