//! Group commit on SQLite. Changes run one after the other on the one connection that writes. Those
//! that wait for it meanwhile join the open transaction, and one COMMIT with one sync of the disk
//! ends all of them. Each has a savepoint, so one that fails undoes only what it wrote itself. Each
//! is answered only after the COMMIT, because what it has read may be a change of the same group.
//! If the COMMIT fails, it fails for all of them.
//!
//! A group is the changes that waited when its first one was done. Later ones are in the next group,
//! so a group always ends. A change that nobody waits behind is committed at once, with the same
//! statements as without groups.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use sea_orm::{ConnAcquireErr, DatabaseConnection, DbErr};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::timeout,
};

use super::{
    Access,
    connection::PooledConnection,
    outcome::{ChangeSet, Outcomes, unknown},
};
use crate::{
    store::{
        Error,
        engine::{dialect::Dialect, pool::sqlite::ACQUIRE_FOR},
    },
    telemetry::context,
};

/// The largest number of changes in one group, so that none waits long for the others.
const MOST: usize = 64;

/// The changes that are committed together.
#[derive(Default)]
struct Group {
    /// The open transaction between two changes, with a savepoint. `None` if there is none, and
    /// while a change runs.
    connection: Option<PooledConnection>,
    changes: ChangeSet,
    /// Where the changes that are done wait for the COMMIT.
    done: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Whether a task waits to commit this group.
    closes: bool,
}

/// The queue of changes in front of the connection that writes, and the open group.
#[derive(Clone, Default)]
pub(in crate::store) struct Groups {
    group: Arc<Mutex<Group>>,
    waiting: Arc<AtomicUsize>,
}

/// A change that has its turn on the connection. Dropping it undoes the change.
pub(super) struct Turn {
    pub connection: PooledConnection,
    /// `None` once the turn has ended.
    group: Option<OwnedMutexGuard<Group>>,
    groups: Groups,
    outcomes: Arc<Outcomes>,
    /// Whether the transaction has a savepoint from before this change.
    has_savepoint: bool,
}

/// Counts a change that waits for its turn, also if its caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Groups {
    /// Waits for the turn of a change, and begins a transaction unless one is open.
    pub(super) async fn begin(
        &self,
        pool: &DatabaseConnection,
        outcomes: &Arc<Outcomes>,
    ) -> Result<Turn, DbErr> {
        let waiting = Waiting::new(&self.waiting);
        let turn = timeout(ACQUIRE_FOR, self.group.clone().lock_owned()).await;
        drop(waiting);
        let mut group = turn.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        let open = group.connection.take();
        let has_savepoint = open.is_some();
        let connection = match open {
            Some(connection) => connection,
            None => PooledConnection::begin(pool, Access::Write, "").await?.0,
        };
        Ok(Turn {
            connection,
            group: Some(group),
            groups: self.clone(),
            outcomes: outcomes.clone(),
            has_savepoint,
        })
    }

    /// Commits the open group once every change that waits now has had its turn.
    async fn close(self, outcomes: Arc<Outcomes>) {
        let mut group = self.group.lock_owned().await;
        if let Some(connection) = group.connection.take() {
            commit(group, connection, outcomes).await;
        }
    }
}

impl Turn {
    /// Keeps what the change wrote, and waits until it is committed, even if the caller gives up.
    pub async fn commit(self, changes: ChangeSet) -> Result<(), Error> {
        self.end(Ok(changes)).await
    }

    /// Undoes what the change wrote, and waits until what it has read is committed. `cause` is why
    /// the change failed, if it did.
    pub async fn rollback(self, cause: Option<DbErr>) -> Result<(), Error> {
        self.end(Err(cause)).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    async fn end(mut self, kept: Result<ChangeSet, Option<DbErr>>) -> Result<(), Error> {
        let (done, committed) = oneshot::channel();
        if let Some(group) = self.group.take() {
            tokio::spawn(context::carried(self.finished(group, kept, Some(done))));
        }
        let lost = || unknown("the task that waited for the commit has ended");
        committed.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Ends the turn, see [`Self::finish`]. The type is erased, because a commit of unknown outcome
    /// begins a transaction, whose type contains this one.
    fn finished(
        self,
        group: OwnedMutexGuard<Group>,
        kept: Result<ChangeSet, Option<DbErr>>,
        done: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> BoxFuture<'static, ()> {
        self.finish(group, kept, done).boxed()
    }

    /// Commits the group, or leaves it open for the next change.
    async fn finish(
        mut self,
        mut group: OwnedMutexGuard<Group>,
        kept: Result<ChangeSet, Option<DbErr>>,
        done: Option<oneshot::Sender<Result<(), Error>>>,
    ) {
        let connection = self.connection.take();
        let prepared = match kept {
            Err(_) if group.done.is_empty() => {
                let undone = connection.rollback().await.map_err(Error::from);
                let _ = done.map(|done| done.send(undone));
                return;
            }
            Err(cause) => self.undo(connection, cause).await,
            Ok(changes) => {
                group.changes.add(changes);
                Ok(connection)
            }
        };
        group.done.extend(done);
        let prepared = match prepared {
            Ok(connection) if !self.is_last(&group) => {
                let savepoint = self.next_savepoint();
                prepare(connection, savepoint).await
            }
            Ok(connection) => {
                return commit(group, connection, self.outcomes.clone()).await;
            }
            failed => failed,
        };
        match prepared {
            Ok(connection) => self.leave_open(group, connection),
            Err(error) => group.fail(&error),
        }
    }

    const fn next_savepoint(&self) -> &'static str {
        if self.has_savepoint {
            "RELEASE change; SAVEPOINT change"
        } else {
            "SAVEPOINT change"
        }
    }

    fn is_last(&self, group: &Group) -> bool {
        group.done.len() >= MOST || self.groups.waiting.load(Ordering::Relaxed) == 0
    }

    /// Undoes what the change wrote, but not what the changes before it wrote.
    async fn undo(
        &self,
        connection: PooledConnection,
        cause: Option<DbErr>,
    ) -> Result<PooledConnection, Error> {
        let undone = prepare(connection, "ROLLBACK TO change").await;
        // SQLite has rolled back the whole transaction by itself, as on a full disk.
        undone.map_err(|error| cause.map_or(error, Error::from))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    fn leave_open(&self, mut group: OwnedMutexGuard<Group>, connection: PooledConnection) {
        group.connection = Some(connection);
        if !std::mem::replace(&mut group.closes, true) {
            tokio::spawn(self.groups.clone().close(self.outcomes.clone()));
        }
    }
}

impl Drop for Turn {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself; a process that ends before it takes the connection along"
    )]
    fn drop(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let turn = Self {
            connection: self.connection.take(),
            group: None,
            groups: self.groups.clone(),
            outcomes: self.outcomes.clone(),
            has_savepoint: self.has_savepoint,
        };
        tokio::spawn(turn.finished(group, Err(None), None));
    }
}

impl Group {
    /// Fails all changes of the group. The transaction has ended.
    fn fail(&mut self, error: &Error) {
        for done in std::mem::take(self).done {
            let _ = done.send(Err(again(error)));
        }
    }
}

/// Runs a statement between two changes. If it fails, the transaction is rolled back, and the
/// connection is closed unless that succeeds.
async fn prepare(
    mut connection: PooledConnection,
    statement: &str,
) -> Result<PooledConnection, Error> {
    match connection.execute_unprepared(statement).await {
        Ok(_) => Ok(connection),
        Err(error) => {
            let _ = connection.rollback().await;
            Err(error.into())
        }
    }
}

async fn commit(
    mut group: OwnedMutexGuard<Group>,
    connection: PooledConnection,
    outcomes: Arc<Outcomes>,
) {
    let Group { changes, done, .. } = std::mem::take(&mut *group);
    let committed = outcomes
        .commit_here(connection, Dialect::Sqlite, changes)
        .await;
    for done in done {
        let _ = done.send(committed.as_ref().map_err(again).map(|&()| ()));
    }
}

/// Returns the same error for another change of the group.
fn again(error: &Error) -> Error {
    match error {
        Error::OutcomeUnknown(source) => Error::OutcomeUnknown(source.clone()),
        Error::Unavailable(source) => Error::Unavailable(source.clone()),
        Error::Conflict(source) => Error::Conflict(source.clone()),
        Error::Database(source) => Error::Database(source.clone()),
        Error::Full(source) => Error::Full(source.clone()),
        Error::ReadOnly => Error::ReadOnly,
        other => unknown(&other.to_string()),
    }
}
