//! A proxy between a replica and the database, or between a client and a replica, that a test can
//! cut, slow down or turn into a black hole.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Data passes in both directions.
    Up,
    /// Connections stay open, but all data is dropped.
    BlackHole,
    /// Connections are closed, and new ones are refused.
    Cut,
    /// Data from the server is delayed by this much.
    Slow(Duration),
}

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    era: Arc<Mutex<LinkState>>,
}

/// The port to which new connections are forwarded, and the state of the link that they share.
struct LinkState {
    to: u16,
    link: watch::Sender<Link>,
    /// The links of connections that were opened before the address moved. These connections close
    /// when their sender is dropped.
    former: Vec<watch::Sender<Link>>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let era = Arc::new(Mutex::new(LinkState {
            to,
            link: watch::Sender::new(Link::Up),
            former: Vec::new(),
        }));
        let eras = era.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, link) = {
                    let era = eras.lock().unwrap();
                    (era.to, era.link.subscribe())
                };
                tokio::spawn(connect(client, to, link));
            }
        });
        Self { port, era }
    }

    /// Makes new connections lead to another port.
    pub fn point_to(&self, port: u16) {
        self.era.lock().unwrap().to = port;
    }

    /// Moves the address. New connections lead to `port` and have a new link. Existing connections
    /// keep their peer, and the state of their link becomes `standing`.
    pub fn move_to(&self, port: u16, standing: Link) {
        let mut era = self.era.lock().unwrap();
        era.to = port;
        let former = std::mem::replace(&mut era.link, watch::Sender::new(Link::Up));
        former.send_replace(standing);
        era.former.push(former);
    }

    pub fn set(&self, link: Link) {
        self.era.lock().unwrap().link.send_replace(link);
    }
}

async fn connect(client: TcpStream, to: u16, mut link: watch::Receiver<Link>) {
    if *link.borrow() == Link::Cut {
        return;
    }
    // If a connection is opened while the link is a black hole, it never gets through, not even
    // later.
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
