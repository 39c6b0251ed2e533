//! Tests TLS on the HTTP port, client certificates, and how connections end when the server stops.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    TestServer,
    certificates::{Ca, Mount, TlsClient, dns},
};

const ENTRIES: &str = r#"
[[mtls]]
identity   = "assets.cms.svc"
caller     = "service"
introspect = true
"#;

/// A form that asks about an unknown token of a stack.
const FORM: &str = "token=junk&stack_api_key=blt0123456789abcdef";

/// Sends a form with these headers, and returns the answer.
async fn ask(client: &TlsClient, headers: &str, body: &str) -> String {
    let mut socket = client.handshake().await.unwrap();
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let length = body.len();
    let request = format!(
        "POST /oauth2/introspect HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_alone_is_no_credential_of_a_browser() {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server(), &[&ca]);
    let server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
    let listed = ca.client(&[dns("assets.cms.svc")]);
    let client = TlsClient::new(&server, &ca, Some(&listed)).over_http(&server);
    let answer = ask(&client, "", FORM).await;
    assert!(answer.ends_with("{\"active\":false}"), "{answer}");
    let answer = ask(&client, "origin: https://evil.example\r\n", FORM).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let two = format!("{FORM}&client_secret=x");
    let answer = ask(&client, "", &two).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let unlisted = ca.client(&[dns("other.cms.svc")]);
    let client = TlsClient::new(&server, &ca, Some(&unlisted)).over_http(&server);
    let answer = ask(&client, "", FORM).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_does_not_delay_a_stop() {
    let server = TestServer::start().await;
    let mut socket = tokio::net::TcpStream::connect(&server.http_address)
        .await
        .unwrap();
    let request = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = [0; 4096];
    assert!(socket.read(&mut answer).await.unwrap() > 0);
    let address = server.http_address.clone();
    let stopped = tokio::time::timeout(Duration::from_secs(10), server.stop());
    stopped.await.expect("the server stops").unwrap();
    assert_eq!(socket.read(&mut answer).await.unwrap(), 0);
    let again = tokio::net::TcpStream::connect(&address).await;
    assert!(again.is_err(), "the port is still open");
}
