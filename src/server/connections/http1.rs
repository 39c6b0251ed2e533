//! Serves HTTP/1.1 connections of the HTTP port. hyper refuses requests whose length is ambiguous,
//! such as those with both `content-length` and `transfer-encoding`.

use std::{pin::pin, time::Duration};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::{Answer, Connections, PerConnection, socket::PrefaceSocket};

/// Maximum number of headers of a request. hyper responds with 431 if there are more.
const MAX_HEADERS: usize = 64;
/// hyper's smallest buffer for the head of a request, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

impl<S: Answer> Connections<S> {
    /// Builds the HTTP/1.1 settings. A request head that is larger than the buffer is refused with
    /// 431. The timeout for the head also closes idle connections, so it is as long as the time
    /// after which HTTP/2 closes a connection whose client does not reply.
    pub(super) fn http1(&self) -> http1::Builder {
        let tuning = &self.tuning;
        let head = usize::try_from(tuning.max_header_bytes).unwrap_or(usize::MAX);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(tuning.keepalive_interval + tuning.keepalive_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(head.max(MIN_BUFFER))
            .half_close(false);
        http1
    }

    /// Serves a connection. At its maximum age or on `stop`, it is closed after the response to the
    /// request in progress.
    pub(super) async fn keep_http1(
        &self,
        connection: http1::Connection<TokioIo<PrefaceSocket>, PerConnection<S>>,
        stop: CancellationToken,
    ) {
        let mut connection = pin!(connection);
        let mut grow_old = pin!(tokio::time::sleep(self.age()));
        let mut leave_by = pin!(tokio::time::sleep(Duration::MAX));
        let (mut closing, mut draining) = (false, false);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = &mut grow_old, if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    leave_by.set(tokio::time::sleep(self.tuning.max_connection_age_grace));
                }
                () = &mut leave_by, if closing && !draining => return,
                // The caller of `serve` enforces the drain grace.
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
