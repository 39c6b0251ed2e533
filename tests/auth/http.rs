//! Tests the real fetcher with files, and with servers that behave well or badly.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use stacktoken::{
    auth::{Authenticator, FetchError, HttpFetcher, KeyFetcher as _, KeySource, parse},
    domain::clock::SystemClock,
};

use crate::{corpus::Issuer, support::MAX_STALE};

const LIMIT: usize = 256 * 1024;

struct Server {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server that sends this response on every connection. It then closes the connection,
    /// or leaves it open without more data.
    fn start(answer: Vec<u8>, ends: bool, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.unwrap();
                // Errors are ignored, because in some tests the client closes the connection early.
                if let Some(config) = &tls {
                    let session = ServerConnection::new(Arc::clone(config)).unwrap();
                    let mut stream = StreamOwned::new(session, stream);
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(&answer);
                    let _ = stream.flush();
                } else {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(&answer);
                    if !ends {
                        open.push(stream);
                    }
                }
            }
        });
        Self { address, hits }
    }

    fn plain(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(answer.into(), true, None)
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn source(&self) -> KeySource {
        source(&format!("jwks_url = \"http://{}/keys\"", self.address))
    }
}

fn source(keys: &str) -> KeySource {
    let file = format!(
        "[[issuers]]\nissuer = \"a\"\naudience = \"b\"\n{keys}\nalgorithms = [\"RS256\"]\ncaller = \"user\""
    );
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/auth/tls");
    parse(&file, &tls).unwrap().issuers.remove(0).source
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn fetch(source: &KeySource) -> Result<Vec<u8>, FetchError> {
    HttpFetcher::within(Duration::from_secs(5))
        .fetch(source)
        .await
}

#[tokio::test]
async fn body_of_256_kib_is_read() {
    let body = vec![b' '; LIMIT];
    assert_eq!(
        fetch(&Server::plain(ok(&body)).source()).await.unwrap(),
        body
    );
}

#[tokio::test]
async fn larger_body_is_refused() {
    let large = vec![b' '; LIMIT + 1];
    let answer = fetch(&Server::plain(ok(&large)).source()).await;
    assert!(matches!(answer, Err(FetchError::TooLarge)), "{answer:?}");
}

#[tokio::test]
async fn body_without_end_is_refused_while_it_streams() {
    let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..300 {
        endless.extend_from_slice(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes());
    }
    let server = Server::start(endless, false, None);
    let answer = fetch(&server.source()).await;
    assert!(matches!(answer, Err(FetchError::TooLarge)), "{answer:?}");
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let target = Server::plain(ok(b"{\"keys\":[]}"));
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nlocation: http://{}/keys\r\ncontent-length: 0\r\n\r\n",
            target.address
        );
        let answer = fetch(&Server::plain(answer).source())
            .await
            .unwrap_err()
            .to_string();
        assert!(answer.contains("redirects are not followed"), "{answer}");
    }
    assert_eq!(target.hits(), 0);
}

#[tokio::test]
async fn other_status_is_refused() {
    for status in ["204 No Content", "206 Partial", "404 Not Found", "500 Oops"] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let answer = fetch(&Server::plain(answer).source()).await;
        assert!(matches!(answer, Err(FetchError::Status(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn slow_answer_is_refused() {
    for so_far in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
        let server = Server::start(so_far.into(), false, None);
        let fetcher = HttpFetcher::within(Duration::from_millis(100));
        let answer = fetcher.fetch(&server.source()).await;
        assert!(matches!(answer, Err(FetchError::TooSlow(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn broken_answer_is_an_error() {
    for broken in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let answer = fetch(&Server::plain(broken).source()).await;
        assert!(
            matches!(answer, Err(FetchError::Unreachable(_))),
            "{answer:?}"
        );
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = fetch(&source(&format!("jwks_url = \"http://{closed}/keys\""))).await;
    assert!(
        matches!(answer, Err(FetchError::Unreachable(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn own_certificate_authority_is_trusted_where_it_is_named() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/auth/tls");
    let chain = CertificateDer::from_pem_file(tls.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let server = Server::start(ok(b"{}"), true, Some(Arc::new(config)));
    let url = format!(
        "jwks_url = \"https://localhost:{}/keys\"",
        server.address.port()
    );
    let named = source(&format!("{url}\njwks_ca = \"ca.pem\""));
    assert_eq!(fetch(&named).await.unwrap(), b"{}");
    let answer = fetch(&source(&url)).await.unwrap_err().to_string();
    assert!(answer.contains("certificate"), "{answer}");
    let absent = source(&format!("{url}\njwks_ca = \"absent.pem\""));
    let answer = fetch(&absent).await.unwrap_err().to_string();
    assert!(answer.contains("absent.pem"), "{answer}");
    let empty = source(&format!("{url}\njwks_ca = \"README\""));
    let answer = fetch(&empty).await.unwrap_err().to_string();
    assert!(answer.contains("no usable PEM certificate"), "{answer}");
}

/// Creates an authenticator with the real fetcher, which reads the keys from this file.
fn with_file(path: &Path) -> Authenticator {
    let file = format!(
        "[[issuers]]\nissuer = \"a\"\naudience = \"b\"\njwks_file = \"{}\"\nalgorithms = [\"RS256\"]\ncaller = \"user\"",
        path.display()
    );
    Authenticator::new(
        parse(&file, Path::new("")).unwrap(),
        Arc::new(HttpFetcher::default()),
        Arc::new(SystemClock::new()),
        MAX_STALE,
    )
}

#[tokio::test]
async fn key_file_is_loaded_at_the_start_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let auth = with_file(&path);
    let absent = auth.load_files().await.unwrap_err().to_string();
    assert!(absent.contains("keys.json: cannot be read"), "{absent}");
    for (content, problem) in [
        ("nonsense", "is not a JWK set"),
        ("{\"keys\":[]}", "contains no usable key"),
        (&" ".repeat(LIMIT + 1), "is larger than 256 KiB"),
    ] {
        std::fs::write(&path, content).unwrap();
        let fault = with_file(&path).load_files().await.unwrap_err().to_string();
        assert!(
            fault.contains(problem) && fault.contains("keys.json"),
            "{fault}"
        );
    }
    std::fs::write(&path, Issuer::ours().jwks()).unwrap();
    auth.load_files().await.unwrap();
    assert!(auth.readiness().users);
}

#[tokio::test]
async fn unreachable_address_does_not_stop_the_start() {
    let server = Server::plain("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
    let KeySource::Url { url, .. } = server.source() else {
        unreachable!("the source is a URL");
    };
    let file = format!(
        "[[issuers]]\nissuer = \"a\"\naudience = \"b\"\njwks_url = \"{url}\"\nalgorithms = [\"RS256\"]\ncaller = \"user\""
    );
    let entries = parse(&file, Path::new("")).unwrap();
    let fetcher = Arc::new(HttpFetcher::default());
    let auth = Authenticator::new(entries, fetcher, Arc::new(SystemClock::new()), MAX_STALE);
    auth.load_files().await.unwrap();
    auth.refresh_due().await;
    assert_eq!(server.hits(), 1);
    assert!(!auth.readiness().users);
}

/// Fetches once, and returns the request as the server received it.
async fn asked(trace: Option<opentelemetry::Context>) -> String {
    asked_with("", trace).await
}

/// Like [`asked`], with additional keys in the entry of the issuers file.
async fn asked_with(keys: &str, trace: Option<opentelemetry::Context>) -> String {
    use opentelemetry::context::FutureExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        stream.write_all(answer).unwrap();
        String::from_utf8(head[..length].to_vec()).unwrap()
    });
    let source = source(&format!("jwks_url = \"http://{address}/keys\"\n{keys}"));
    let fetch = HttpFetcher::default().fetch(&source);
    match trace {
        Some(trace) => fetch.with_context(trace).await.unwrap(),
        None => fetch.await.unwrap(),
    };
    server.join().unwrap()
}

/// An API server of Kubernetes answers 406 if the media type of key sets is not accepted.
#[tokio::test]
async fn a_fetch_accepts_a_key_set_by_each_of_its_media_types() {
    let head = asked(None).await;
    let line = "accept: application/jwk-set+json, application/json\r\n";
    assert!(head.contains(line), "{head}");
}

#[tokio::test]
async fn a_fetch_within_a_trace_names_it() {
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId},
    };
    let span = SpanContext::new(
        TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").unwrap(),
        SpanId::from_hex("b7ad6b7169203331").unwrap(),
        TraceFlags::SAMPLED,
        true,
        Default::default(),
    );
    let head = asked(Some(Context::new().with_remote_span_context(span))).await;
    let named = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    assert!(head.contains(named), "{head}");
    assert!(!asked(None).await.contains("traceparent"));
}

#[tokio::test]
async fn the_credential_of_a_fetch_is_read_again_for_each_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let keys = format!("jwks_token_file = \"{}\"", file.display());
    for token in ["first.a.b", "second.a.b\n"] {
        std::fs::write(&file, token).unwrap();
        let head = asked_with(&keys, None).await;
        let line = format!("authorization: Bearer {}\r\n", token.trim());
        assert!(head.contains(&line), "{head}");
    }
    assert!(!asked(None).await.contains("authorization"));
    let source = source(&format!("jwks_url = \"http://127.0.0.1:1/keys\"\n{keys}"));
    for wrong in ["", " \n", "a\nb"] {
        std::fs::write(&file, wrong).unwrap();
        let error = fetch(&source).await.unwrap_err().to_string();
        assert!(
            error.starts_with("jwks_token_file ") && error.contains("one line"),
            "{error}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    let error = fetch(&source).await.unwrap_err().to_string();
    assert!(
        error.starts_with("jwks_token_file ") && error.contains("cannot be read"),
        "{error}"
    );
}
