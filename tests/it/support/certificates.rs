//! Certificates of a test's own: a CA, what it signs, and files that are swapped the way a
//! mounted secret is.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use stacktoken::server::TlsFiles;
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A CA.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::until(name, 4_000_000_000)
    }

    /// One that is valid until then.
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

    pub fn sign(&self, set: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        set(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().to_vec(),
        }
    }

    /// For a server on localhost.
    pub fn server(&self) -> Pair {
        self.sign(|params| params.subject_alt_names = vec![dns("localhost")])
    }

    /// For a server, until then.
    pub fn server_until(&self, not_after: i64) -> Pair {
        self.sign(|params| {
            params.subject_alt_names = vec![dns("localhost")];
            params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        })
    }

    /// For a client with these names.
    pub fn client(&self, names: &[SanType]) -> Pair {
        self.client_until(names, 4_000_000_000)
    }

    /// The same, until then.
    pub fn client_until(&self, names: &[SanType], not_after: i64) -> Pair {
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

/// A folder in which files are replaced all at once, by one rename of a symbolic link, as
/// Kubernetes does with a mounted secret.
pub struct Mount {
    folder: TempDir,
    version: AtomicUsize,
}

impl Mount {
    pub fn new(pair: &Pair, client_cas: &[&Ca]) -> Self {
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

    pub fn swap(&self, pair: &Pair, client_cas: &[&Ca]) {
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

/// A fresh connection that trusts this CA, with a client certificate or without.
pub async fn connect(
    address: &str,
    trusted: &Ca,
    client: Option<&Pair>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.pem()))
        .domain_name("localhost");
    if let Some(Pair { cert, key, .. }) = client {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}
