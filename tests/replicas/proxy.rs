//! A link between a replica and the database, or a client and a replica, that a test can cut
//! or let swallow everything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    Up,
    /// Connections stand, and nothing comes through: what is sent is lost.
    BlackHole,
    /// Connections end, and none begins.
    Cut,
    /// What the server answers arrives so much later.
    Slow(Duration),
}

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    link: Arc<watch::Sender<Link>>,
    to: Arc<AtomicU16>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = Arc::new(watch::Sender::new(Link::Up));
        let to = Arc::new(AtomicU16::new(to));
        let (states, target) = (link.clone(), to.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(
                    client,
                    target.load(Ordering::SeqCst),
                    states.subscribe(),
                ));
            }
        });
        Self { port, link, to }
    }

    /// Leads connections made from now on elsewhere.
    pub fn lead_to(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn connect(client: TcpStream, to: u16, mut link: watch::Receiver<Link>) {
    if *link.borrow() == Link::Cut {
        return;
    }
    // A connection made into a black hole never gets through, not even later.
    let swallowed = *link.borrow() == Link::BlackHole;
    let server = match swallowed {
        true => None,
        false => TcpStream::connect(("127.0.0.1", to)).await.ok(),
    };
    let Some(server) = server else {
        let _ = link.wait_for(|state| *state != Link::BlackHole).await;
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(client_read, server_write, link.clone(), false) => {}
        () = pump(server_read, client_write, link.clone(), true) => {}
        _ = link.wait_for(|state| *state == Link::Cut) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    link: watch::Receiver<Link>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        if *link.borrow() == Link::BlackHole {
            continue;
        }
        let state = *link.borrow();
        if let Link::Slow(by) = state
            && answers
        {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
