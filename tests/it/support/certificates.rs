//! Test certificates: a CA, certificates that it has signed, and a folder whose files are replaced
//! like those of a mounted Kubernetes secret.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
};
use stacktoken::{domain::clock::Clock as _, server::TlsFiles};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::{ManualClock, TestServer, clock::FAR};

/// A certificate authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct CertifiedKey {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl CertifiedKey {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::until(name, FAR)
    }

    /// Creates a CA whose certificate expires at `not_after`, in seconds since the Unix epoch.
    pub fn until(name: &str, not_after: i64) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn sign(&self, set: impl FnOnce(&mut CertificateParams)) -> CertifiedKey {
        let mut params = CertificateParams::default();
        set(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        CertifiedKey {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().to_vec(),
        }
    }

    /// Issues a server certificate for localhost.
    pub fn server(&self) -> CertifiedKey {
        self.sign(|params| params.subject_alt_names = vec![dns("localhost")])
    }

    /// Issues a server certificate for localhost that expires at `not_after`.
    pub fn server_until(&self, not_after: i64) -> CertifiedKey {
        self.sign(|params| {
            params.subject_alt_names = vec![dns("localhost")];
            params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        })
    }

    /// Issues a client certificate for these names.
    pub fn client(&self, names: &[SanType]) -> CertifiedKey {
        self.client_until(names, FAR)
    }

    /// Issues a client certificate for these names that expires at `not_after`.
    pub fn client_until(&self, names: &[SanType], not_after: i64) -> CertifiedKey {
        self.sign(|params| {
            params.subject_alt_names = names.to_vec();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        })
    }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A folder whose files are all replaced at once by renaming a symbolic link, as Kubernetes does
/// with a mounted secret.
pub struct Mount {
    folder: TempDir,
    version: AtomicUsize,
}

impl Mount {
    pub fn new(pair: &CertifiedKey, client_cas: &[&Ca]) -> Self {
        let mount = Self {
            folder: TempDir::new().unwrap(),
            version: AtomicUsize::new(0),
        };
        mount.swap(pair, client_cas);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn files(&self, with_client_ca: bool) -> TlsFiles {
        TlsFiles {
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: with_client_ca.then(|| self.path("ca.crt")),
        }
    }

    pub fn swap(&self, pair: &CertifiedKey, client_cas: &[&Ca]) {
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        let folder = format!("..{version}");
        fs::create_dir(self.path(&folder)).unwrap();
        let write = |name: &str, text: &str| {
            fs::write(self.path(&folder).join(name), text).unwrap();
        };
        write("tls.crt", &pair.cert);
        write("tls.key", &pair.key);
        let cas: String = client_cas.iter().map(|ca| ca.pem()).collect();
        write("ca.crt", &cas);
        symlink(&folder, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if version > 0 {
            fs::remove_dir_all(self.path(&format!("..{}", version - 1))).unwrap();
        }
    }
}

/// A TLS client that trusts one CA and uses the server's clock to verify certificates.
#[derive(Clone)]
pub struct TlsClient {
    address: String,
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Creates a client with this certificate, or without one.
    pub fn new(server: &TestServer, trusted: &Ca, client: Option<&CertifiedKey>) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let time = Arc::new(ServerTime(server.clock.clone()));
        let builder = ClientConfig::builder_with_details(Arc::new(provider), time)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            Some(pair) => builder
                .with_client_auth_cert(vec![pair.der.clone().into()], pair.key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            address: server.address.clone(),
            config: Arc::new(config),
        }
    }

    /// Changes the client so that it connects to the HTTP port.
    pub fn over_http(mut self, server: &TestServer) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.config = Arc::new(config);
        self.address.clone_from(&server.http_address);
        self
    }

    /// Connects and completes the TLS handshake, but makes no call.
    pub async fn handshake(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(name, socket).await
    }

    /// Opens a channel for calls.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let this = self.clone();
        // The URI has the scheme `http`, because the connector adds TLS.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let connector = tower::service_fn(move |_| {
            let this = this.clone();
            async move { this.handshake().await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await
    }
}

/// Gives rustls the time of the test server's clock.
struct ServerTime(Arc<ManualClock>);

impl std::fmt::Debug for ServerTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTime")
    }
}

impl TimeProvider for ServerTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
