//! The listening addresses: whether they are free, and who can reach them without a credential or
//! encryption.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Serve, codes::Code, finding::Findings};
use crate::server::Listeners;

/// How long a server that runs already may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The most of the answer that is read.
const ANSWER_BYTES: u64 = 4096;

pub async fn check(serve: &Serve, findings: &mut Findings) {
    check_free(serve, findings).await;
    check_exposure(serve, findings);
}

/// Binds the sockets as `serve` does, and closes them again.
async fn check_free(serve: &Serve, findings: &mut Findings) {
    let listen = serve.listen.clone();
    let bound = async {
        let listeners = Listeners::bind(listen.listen, listen.admin_listen).await?;
        match listen.http_listen {
            Some(address) => listeners.with_http(address, listen.http_public_url).await,
            None => Ok(listeners),
        }
    };
    let Err(error) = bound.await else {
        return;
    };
    if is_stacktoken(listen.admin_listen).await {
        let problem = format!("{error}: stacktoken runs here already, and was not checked");
        let fix = "Nothing, if this is a check beside a running server";
        findings.add(Code::ListenRunning, problem, fix);
    } else {
        let fix = "Stop the other program, `ss -ltnp` shows it, or choose another address";
        findings.add(Code::ListenTaken, error, fix);
    }
}

/// Returns whether the admin port of a running server answers at this address.
async fn is_stacktoken(admin: SocketAddr) -> bool {
    let asking = async {
        let mut socket = TcpStream::connect(admin).await?;
        let request = b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, asking).await;
    let answer = answered.ok().and_then(Result::ok).unwrap_or_default();
    String::from_utf8_lossy(&answer).contains("\"stacktoken\"")
}

fn check_exposure(serve: &Serve, findings: &mut Findings) {
    let exposed = |address: &SocketAddr| !address.ip().is_loopback();
    let listen = &serve.listen;
    let ports = [
        ("--listen", Some(listen.listen)),
        ("--http-listen", listen.http_listen),
    ];
    for (setting, address) in ports {
        let Some(address) = address
            .filter(exposed)
            .filter(|_| serve.tls.tls_cert.is_none())
        else {
            continue;
        };
        let problem = format!(
            "{setting} {address} takes credentials and shows secrets without TLS, beyond loopback"
        );
        let fix = "Set --tls-cert and --tls-key; or let a mesh or a proxy on this host encrypt the port, \
                   and listen on 127.0.0.1 where that is possible";
        findings.add(Code::ListenPlaintext, problem, fix);
    }
    if exposed(&listen.admin_listen) {
        let problem = format!(
            "--admin-listen {} answers metrics and probes without a credential, beyond loopback",
            listen.admin_listen
        );
        let fix = "Set --admin-listen 127.0.0.1:9464 if no probe comes from another host; otherwise \
                   restrict the port with a network policy or a firewall";
        findings.add(Code::ListenAdmin, problem, fix);
    }
    if serve.tuning.reflection && exposed(&listen.listen) {
        let problem = "reflection shows the contract to everyone who reaches --listen";
        findings.add(Code::ListenReflection, problem, "Set --reflection false");
    }
}
