//! Tests that every connection does a full handshake. A resumed session would restore a client
//! certificate that was verified against the CAs at an earlier time.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    client::{ClientSessionMemoryCache, Resumption},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    support::{
        TestServer,
        certificates::{Ca, Mount},
    },
    wire,
};

/// Creates a client configuration that resumes a session if the server permits it.
fn resuming(trusted: &Ca, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    Arc::new(config)
}

/// Opens a connection and returns the kind of its handshake. It also exchanges some data, so that
/// the server's session tickets have arrived.
async fn handshake(address: &str, config: &Arc<ClientConfig>) -> HandshakeKind {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(config.clone());
    let mut stream = connector.connect(name, socket).await.unwrap();
    let greeting = [wire::PREFACE, &wire::settings(), &wire::ping()].concat();
    stream.write_all(&greeting).await.unwrap();
    let mut heard = [0; 1024];
    let hearing = stream.read(&mut heard);
    let count = tokio::time::timeout(Duration::from_secs(10), hearing).await;
    assert!(count.unwrap().unwrap() > 0);
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_resumed_in_any_version_of_tls() {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server(), &[]);
    let server = TestServer::start_tls(mount.files(false), "", |_| {}).await;
    for version in [&TLS12, &TLS13] {
        let config = resuming(&ca, version);
        for _ in 0..3 {
            let kind = handshake(&server.address, &config).await;
            let anew = [
                HandshakeKind::Full,
                HandshakeKind::FullWithHelloRetryRequest,
            ];
            assert!(anew.contains(&kind), "{version:?}: {kind:?}");
        }
    }
}
