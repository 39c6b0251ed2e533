//! How many connections there may be: in all, and from one address. In all, the next one
//! waits in the kernel; from one address, the next one is closed, so that one client cannot
//! keep all others out.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::Tuning, metrics::Metrics};

/// Files that the process needs for itself: the store, the log, the admin port, keys.
const OWN_FILES: u64 = 96;

/// The room for connections.
pub(super) struct Room {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max_by_address: usize,
    metrics: Arc<Metrics>,
}

/// Room for one more, for whoever it is.
pub(super) struct Free {
    _permit: OwnedSemaphorePermit,
}

/// The room that one connection takes until this is dropped.
pub(super) struct Place {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    metrics: Arc<Metrics>,
    _free: Free,
}

impl Room {
    pub fn new(tuning: &Tuning, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(affordable(tuning.max_connections))),
            by_address: Arc::default(),
            max_by_address: tuning.max_connections_per_address,
            metrics,
        }
    }

    /// Waits until there is room.
    pub async fn free(&self) -> Free {
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.all.clone().acquire_owned().await {
                return Free { _permit: permit };
            }
        }
    }

    /// The place of a connection from here; `None` where this address has its share.
    pub fn take(&self, free: Free, address: IpAddr) -> Option<Place> {
        // Behind a dual-stack listener a client has one address, not two.
        let address = address.to_canonical();
        let mut open = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.max_by_address {
            self.metrics.refuse_connection("address");
            return None;
        }
        *count += 1;
        drop(open);
        self.metrics.connections.inc();
        Some(Place {
            address,
            by_address: self.by_address.clone(),
            metrics: self.metrics.clone(),
            _free: free,
        })
    }

    /// An accept that failed: the client's doing, or ours for want of something.
    pub fn note_failure(&self, error: &io::Error) {
        self.metrics.refuse_connection("accept");
        tracing::warn!(%error, "a connection could not be accepted");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
        drop(open);
        self.metrics.connections.dec();
    }
}

/// No more than there are files for: a process without files can reach no store either.
fn affordable(wanted: usize) -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let left = usize::try_from(files.saturating_sub(OWN_FILES).max(1)).unwrap_or(usize::MAX);
    if left < wanted {
        tracing::warn!(
            files,
            connections = left,
            "--max-connections is more than the limit of open files allows: raise it with `ulimit -n`"
        );
    }
    wanted.min(left)
}
