//! The routes to the primary. HAProxy polls Patroni's REST API; some routes have PgBouncer in
//! front.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    patroni::Node,
    process::{Folder, Program, free_port},
};

pub struct Routing {
    /// The port of HAProxy, configured as recommended: a session ends when its server is no longer
    /// the primary.
    pub primary: u16,
    /// The port of a PgBouncer in session mode in front of `primary`.
    pub pooled: u16,
    /// The port of a PgBouncer in front of an HAProxy that lets such sessions continue.
    pub pooled_and_stuck: u16,
    programs: Vec<Program>,
}

pub fn start(folder: &Folder, nodes: &[Node]) -> Routing {
    let (primary, stuck) = (free_port(), free_port());
    let (pooled, pooled_and_stuck) = (free_port(), free_port());
    let mut programs = vec![haproxy(folder, nodes, (primary, stuck))];
    for (name, port, to) in [
        ("pooled", pooled, primary),
        ("stuck", pooled_and_stuck, stuck),
    ] {
        programs.push(pgbouncer(folder, name, (port, to)));
    }
    for port in [primary, pooled, pooled_and_stuck] {
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "a router did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Routing {
        primary,
        pooled,
        pooled_and_stuck,
        programs,
    }
}

fn haproxy(folder: &Folder, nodes: &[Node], (primary, stuck): (u16, u16)) -> Program {
    let mut text = HAPROXY.to_owned();
    for (name, port, ended) in [
        ("primary", primary, "on-marked-down shutdown-sessions"),
        ("stuck", stuck, ""),
    ] {
        text += &format!(
            "listen {name}\n  bind 127.0.0.1:{port}\n  option httpchk GET /primary\n  \
             http-check expect status 200\n  \
             default-server inter 500ms fastinter 200ms fall 2 rise 1 {ended}\n"
        );
        for node in nodes {
            let Node {
                name,
                port,
                rest_port,
                ..
            } = node;
            text += &format!("  server {name} 127.0.0.1:{port} check port {rest_port}\n");
        }
    }
    let file = folder.write("haproxy.cfg", &text);
    Program::start(
        folder,
        "haproxy",
        "haproxy",
        &["-db", "-f", file.to_str().unwrap()],
    )
}

const HAPROXY: &str = "\
global
  maxconn 2000
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 1s
";

fn pgbouncer(folder: &Folder, name: &str, (port, to): (u16, u16)) -> Program {
    let text = format!(
        "[databases]\ntokens = host=127.0.0.1 port={to} dbname=tokens user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = session\n\
         ignore_startup_parameters = extra_float_digits\nmax_client_conn = 400\n\
         default_pool_size = 60\nserver_login_retry = 1\n"
    );
    let file = folder.write(&format!("{name}.ini"), &text);
    Program::start(folder, name, "pgbouncer", &[file.to_str().unwrap()])
}
