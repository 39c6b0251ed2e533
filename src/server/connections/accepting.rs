//! Accepts connections. If accepting fails, the error is logged and accepting goes on after a
//! pause. Exiting, or retrying without a pause, would let a client cause a denial of service.

use std::{io, time::Duration};

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};

use super::{
    admin_connections::{AdminConnection, AdminConnections},
    limiter::{ConnectionLimiter, ConnectionPermit},
};
use crate::metrics::Metrics;

/// Back-off after a failed accept, for example when file descriptors run out.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Accepts the next connection within the limits, and sets its TCP user timeout to `unheard`.
pub(super) async fn accept(
    listener: &TcpListener,
    limiter: &ConnectionLimiter,
    unheard: Duration,
) -> (TcpStream, ConnectionPermit) {
    loop {
        let free = limiter.acquire().await;
        match listener.accept().await {
            Ok((socket, address)) => {
                if let Some(permit) = limiter.take(free, address.ip()) {
                    prepare(&socket, unheard);
                    return (socket, permit);
                }
            }
            Err(error) => {
                limiter.note_failure(&error);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Accepts the next connection to the admin port. If the limit is reached, an old connection is
/// closed for it.
pub(in crate::server) async fn accept_admin(
    listener: &TcpListener,
    admin_connections: &AdminConnections,
    (metrics, unheard): (&Metrics, Duration),
) -> (TcpStream, AdminConnection) {
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let (guest, another_went) = admin_connections.admit(address.ip());
                if another_went {
                    metrics.refuse_connection("displaced");
                }
                prepare(&socket, unheard);
                return (socket, guest);
            }
            Err(error) => {
                metrics.refuse_connection("accept");
                tracing::warn!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Sets `TCP_NODELAY`, so that small responses are not delayed, and `TCP_USER_TIMEOUT`, so that the
/// kernel closes the connection of a client that never reads. HTTP/2 pings cannot detect such a
/// client, because its full send buffer has no space for them.
fn prepare(socket: &TcpStream, unheard: Duration) {
    let unheard = u32::try_from(unheard.as_millis()).unwrap_or(u32::MAX);
    let cut = set_tcp_user_timeout(socket, unheard).map_err(io::Error::from);
    if let Err(error) = socket.set_nodelay(true).and(cut) {
        tracing::debug!(%error, "a connection could not be prepared");
    }
}
