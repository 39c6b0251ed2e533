//! Builds the TLS configuration from the TLS files. Each error names its setting. The contents of
//! the files are never printed.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    time_provider::TimeProvider,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::TlsFiles;
use crate::domain::{clock::Clock, timestamp::Timestamp};

pub(super) const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";
pub(super) const CLIENT_CA: &str = "--tls-client-ca";

/// An error in the TLS files. Its text names the setting, the file, the problem and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting} {}: {source}", path.display())]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content of a file cannot be used.
    #[error("{setting} {}: {problem}", path.display())]
    Unusable {
        /// The setting that names the file.
        setting: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The problem, and how to fix it.
        problem: String,
    },
}

impl TlsError {
    /// Returns the setting that names the file.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::Unreadable { setting, .. } | Self::Unusable { setting, .. } => setting,
        }
    }
}

/// The contents of the TLS files.
pub(super) struct Material {
    pub cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    pub client_ca: Option<Vec<u8>>,
}

/// Properties of a usable set of TLS files.
pub(super) struct Usable {
    /// The digest of the contents of all files.
    pub digest: Vec<u8>,
    /// The expiry of the server certificate, in seconds since the Unix epoch.
    pub server_expires_at: i64,
    /// The expiry of the valid client CA that expires first, in seconds since the Unix epoch.
    pub client_ca_expires_at: Option<i64>,
}

/// The CAs in a file that are valid now.
struct ClientCas {
    valid: Vec<CertificateDer<'static>>,
    first_expires_at: i64,
}

impl Material {
    pub async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_ca = match &files.client_ca {
            Some(path) => Some(read(CLIENT_CA, path).await?),
            None => None,
        };
        Ok(Self {
            cert: read(CERT, &files.cert).await?,
            key: Zeroizing::new(read(KEY, &files.key).await?),
            client_ca,
        })
    }

    /// Removes the client CAs. Used when a CA has expired and the new files cannot be used.
    pub fn without_client_ca(self) -> Self {
        Self {
            client_ca: None,
            ..self
        }
    }

    /// Returns a digest of the contents of all files, to detect changes.
    pub fn digest(&self) -> Vec<u8> {
        let mut context = Context::new(&SHA256);
        let parts: [&[u8]; 3] = [
            &self.cert,
            &self.key,
            self.client_ca.as_deref().unwrap_or_default(),
        ];
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().to_vec()
    }

    pub fn build(
        &self,
        files: &TlsFiles,
        clock: &Arc<dyn Clock>,
    ) -> Result<(ServerConfig, Usable), TlsError> {
        let now = clock.now();
        let unusable = |setting, path: &Path, problem: &str| TlsError::Unusable {
            setting,
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let chain = certificates(&self.cert).ok_or_else(|| {
            unusable(CERT, &files.cert, "contains no certificate in PEM: write the server's certificate, then those that signed it")
        })?;
        let server_expires_at =
            valid_until(&chain[..1], now).map_err(|why| unusable(CERT, &files.cert, &why))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            unusable(KEY, &files.key, "contains no private key in PEM: write it as PKCS #8, PKCS #1 or SEC 1, without a passphrase")
        })?;
        let mut client_ca_expires_at = None;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_details(
            provider.clone(),
            Arc::new(ServiceTime(clock.clone())),
        );
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(CERT, &files.cert, &error.to_string()))?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let wrong = |why: &str| unusable(CLIENT_CA, path, why);
                let cas =
                    certificates(pem).ok_or_else(|| wrong("contains no certificate in PEM"))?;
                let cas = valid_now(cas, now).map_err(|why| wrong(&why))?;
                client_ca_expires_at = Some(cas.first_expires_at);
                builder.with_client_cert_verifier(
                    verifier(cas.valid, provider).map_err(|why| wrong(&why))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            unusable(
                KEY,
                &files.key,
                &format!("does not match --tls-cert: {error}"),
            )
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Session resumption is off. A resumed session would reuse a client certificate that was
        // verified against older CAs. Connections are long-lived, so resumption would gain little.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let usable = Usable {
            digest: self.digest(),
            server_expires_at,
            client_ca_expires_at,
        };
        Ok((config, usable))
    }
}

/// The time source for rustls. It is the same clock that the rest of the service uses.
struct ServiceTime(Arc<dyn Clock>);

impl fmt::Debug for ServiceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceTime")
    }
}

impl TimeProvider for ServiceTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

async fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        source,
    })
}

/// Parses PEM certificates; `None` if there are none or if one is malformed.
pub(super) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|chain| !chain.is_empty())
}

/// Builds a verifier for client certificates. Certificates are optional, because services may
/// authenticate with a certificate but front ends of users authenticate with a JWT. If a client
/// presents a certificate, it must be valid.
fn verifier(
    cas: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots
            .add(ca)
            .map_err(|error| format!("contains a certificate that cannot be a CA: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated();
    verifier.build().map_err(|error| error.to_string())
}

/// Returns the CAs that are valid now. Other CAs are left out, because verification ignores the
/// dates of a trust anchor. An old CA that was left in the file does not make the other CAs
/// unusable.
fn valid_now(cas: Vec<CertificateDer<'static>>, now: Timestamp) -> Result<ClientCas, String> {
    let mut counting = ClientCas {
        valid: Vec::new(),
        first_expires_at: i64::MAX,
    };
    let mut left_out = None;
    for ca in cas {
        match valid_until(std::slice::from_ref(&ca), now) {
            Ok(expires_at) => {
                counting.first_expires_at = counting.first_expires_at.min(expires_at);
                counting.valid.push(ca);
            }
            Err(why) => left_out = Some(why),
        }
    }
    match left_out {
        Some(why) if counting.valid.is_empty() => Err(why),
        Some(why) => {
            tracing::warn!(why, "a CA of --tls-client-ca is ignored: remove it");
            Ok(counting)
        }
        None => Ok(counting),
    }
}

/// Returns the earliest expiry of these certificates, in seconds since the Unix epoch. Fails if one
/// of them is not valid now.
pub(super) fn valid_until(
    certificates: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<i64, String> {
    let mut first = i64::MAX;
    for der in certificates {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|_| "contains a certificate that cannot be parsed: replace it".to_owned())?;
        let validity = certificate.validity();
        if validity.not_after.timestamp() <= now.seconds() {
            let at = validity.not_after;
            return Err(format!("expired at {at}: renew it"));
        }
        if validity.not_before.timestamp() > now.seconds() {
            let at = validity.not_before;
            return Err(format!(
                "is not valid before {at}: check the clock of this host"
            ));
        }
        first = first.min(validity.not_after.timestamp());
    }
    Ok(first)
}
