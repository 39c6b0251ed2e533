//! The threads that serve connections, called hosts. Each has a single-threaded runtime, so a call
//! that the cache can answer stays on one thread. A call wakes another thread only if it needs the
//! store.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Creates the future of a connection. It is called on the host of the connection, so that the
/// socket belongs to that host's runtime.
type Start = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The hosts of connections. Dropping them ends their threads, and with them all connections.
pub(super) struct Hosts {
    all: Vec<Host>,
    /// One task per host, which ends when its host ends.
    ended: JoinSet<()>,
    _stop: DropGuard,
}

/// One host, which serves the connections that are sent to it.
struct Host {
    connections: mpsc::UnboundedSender<Start>,
    open: Arc<AtomicUsize>,
}

/// Counts one connection of a host until this value is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hosts {
    /// Starts `threads` threads, whose names begin with `name`. If `threads` is 0, starts a single
    /// task on the current runtime instead.
    ///
    /// # Errors
    /// Returns the error of the operating system if a thread or its runtime cannot be created.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (mut hosts, mut ended) = (Vec::new(), JoinSet::new());
        for number in 0..threads {
            let (host, starting) = Host::new();
            let end = spawn_thread(&format!("{name}-{number}"), starting, stop.clone())?;
            ended.spawn(async move {
                // An error means that the thread has panicked.
                let _ = end.await;
            });
            hosts.push(host);
        }
        if threads == 0 {
            let (host, starting) = Host::new();
            ended.spawn(serve(starting));
            hosts.push(host);
        }
        Ok(Self {
            all: hosts,
            ended,
            _stop: stop.drop_guard(),
        })
    }

    /// Hands a connection over to the host with the fewest connections.
    pub fn hand_over<F>(&self, connection: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let open = |host: &&Host| host.open.load(Ordering::Relaxed);
        let Some(host) = self.all.iter().min_by_key(open) else {
            return;
        };
        host.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(host.open.clone());
        let start = move || -> BoxFuture<'static, ()> {
            let connection = connection();
            Box::pin(async move {
                let _counted = counted;
                connection.await;
            })
        };
        // This fails only if the host has ended, and then the process stops.
        let _ = host.connections.send(Box::new(start));
    }

    /// Waits until a host ends. Before [`Self::finish`], a host ends only if it has panicked.
    pub async fn next_end(&mut self) {
        self.ended.join_next().await;
    }

    /// Waits until all connections have ended, and then all hosts.
    pub async fn finish(mut self) {
        self.all.clear();
        while self.ended.join_next().await.is_some() {}
    }
}

impl Host {
    fn new() -> (Self, mpsc::UnboundedReceiver<Start>) {
        let (connections, starting) = mpsc::unbounded_channel();
        let open = Arc::default();
        (Self { connections, open }, starting)
    }
}

/// Starts a thread that serves connections until the channel is closed and all connections have
/// ended, or until `stop`. The returned receiver completes when the thread ends.
fn spawn_thread(
    name: &str,
    starting: mpsc::UnboundedReceiver<Start>,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let (ends, ended) = oneshot::channel();
    // The runtime is created after the thread. If the thread could not be created, a runtime
    // created earlier would be dropped here, where blocking is not allowed.
    let (runtimes, runtime) = std::sync::mpsc::channel::<Runtime>();
    let run = move || {
        let ends: oneshot::Sender<()> = ends;
        let Ok(runtime) = runtime.recv() else {
            return;
        };
        runtime.block_on(async {
            tokio::select! {
                () = serve(starting) => {}
                () = stop.cancelled() => {}
            }
        });
        // Drops the connections that are still open.
        drop(runtime);
        let _ = ends.send(());
    };
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run)?;
    // This fails only if the thread has ended, which `ended` reports.
    let _ = runtimes.send(Builder::new_current_thread().enable_all().build()?);
    Ok(ended)
}

/// Serves connections until the channel is closed and all connections have ended.
async fn serve(mut starting: mpsc::UnboundedReceiver<Start>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            start = starting.recv() => match start {
                Some(start) => {
                    open.spawn(start());
                }
                None => break,
            },
            Some(ended) = open.join_next() => note_end(ended),
        }
    }
    while let Some(ended) = open.join_next().await {
        note_end(ended);
    }
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        note_failure(&error);
    }
}

/// Logs that the task of a connection failed.
pub(super) fn note_failure(error: &JoinError) {
    tracing::error!(panicked = error.is_panic(), "a connection failed");
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        time::Duration,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A connection that sends the name of its thread when it starts, and stays open until `end`.
    fn connection(
        started: &Sender<Option<String>>,
        end: CancellationToken,
    ) -> impl FnOnce() -> BoxFuture<'static, ()> + Send + use<> {
        let started = started.clone();
        move || {
            let name = thread::current().name().map(str::to_owned);
            Box::pin(async move {
                started.send(name).unwrap();
                end.cancelled().await;
            })
        }
    }

    fn next(started: &Receiver<Option<String>>) -> Option<String> {
        started.recv_timeout(SOON).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_goes_to_the_thread_that_has_the_fewest() {
        let hosts = Hosts::start("test", 2).unwrap();
        let (started, threads) = channel();
        let ends = [(); 3].map(|()| CancellationToken::new());
        let mut seen = Vec::new();
        for end in &ends {
            hosts.hand_over(connection(&started, end.clone()));
            seen.push(next(&threads).unwrap());
        }
        assert_eq!(seen, ["test-0", "test-1", "test-0"]);
        ends[0].cancel();
        ends[2].cancel();
        while hosts.all[0].open.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        hosts.hand_over(connection(&started, ends[1].clone()));
        assert_eq!(next(&threads).unwrap(), "test-0");
        ends[1].cancel();
        tokio::time::timeout(SOON, hosts.finish()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dropping_the_hosts_ends_their_connections() {
        for threads in [0, 1] {
            let hosts = Hosts::start("test", threads).unwrap();
            let (started, seen) = channel();
            hosts.hand_over(connection(&started, CancellationToken::new()));
            next(&seen);
            drop((hosts, started));
            // The connection owns the last sender.
            let ended = tokio::task::spawn_blocking(move || seen.recv_timeout(SOON));
            let ended = ended.await.unwrap();
            assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_end_of_a_thread_is_reported_and_a_panic_of_a_connection_ends_none() {
        let mut hosts = Hosts::start("test", 2).unwrap();
        hosts.hand_over(|| async { panic!("a connection that panics") });
        let ended = tokio::time::timeout(Duration::from_millis(100), hosts.next_end()).await;
        assert!(ended.is_err());
        hosts.hand_over(|| -> BoxFuture<'static, ()> { panic!("a thread that panics") });
        let ended = tokio::time::timeout(SOON, hosts.next_end()).await;
        assert!(ended.is_ok());
    }
}
