//! Group commit on SQLite. There is one writing connection, so changes run one after the other.
//! A change that arrives while another runs joins its transaction. One COMMIT, and so one fsync,
//! then makes all of them durable, because the fsync costs more than the statements. Each change has a savepoint, so a change that fails
//! undoes only its own writes. Each change is answered only after the COMMIT, because it may have
//! read what another change of the group wrote. If the COMMIT fails, all changes of the group fail.
//! If SQLite rolls everything back because of one change, as on a full disk, the other changes are
//! retried, for a while each in its own transaction.
//!
//! A group consists of the changes that were waiting when its first change was done. Later changes
//! form the next group, so a group always ends. A change behind which no other waits is committed
//! at once, with the same statements as without groups.

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

/// The maximum number of changes in one group, so that no change waits long for the others.
const MOST: usize = 32;

/// Reports the result of the COMMIT to a finished change.
type Done = oneshot::Sender<Result<(), Error>>;

/// The changes that are committed together.
#[derive(Default)]
struct Group {
    /// The connection with the open transaction and its savepoint, while no change runs. `None`
    /// while a change runs, or if there is no transaction.
    connection: Option<PooledConnection>,
    changes: ChangeSet,
    /// The finished changes that wait for the COMMIT.
    done: Vec<Done>,
    /// Whether a task is waiting to commit this group.
    closes: bool,
}

/// The queue of changes in front of the connection that writes, and the open group.
#[derive(Clone, Default)]
pub(in crate::store) struct Groups {
    group: Arc<Mutex<Group>>,
    waiting: Arc<AtomicUsize>,
    /// How many of the next changes are committed alone, because a group has failed.
    alone: Arc<AtomicUsize>,
}

/// The turn of a change on the writing connection. Dropping it undoes the change.
pub(super) struct Turn {
    pub connection: PooledConnection,
    /// `None` once the turn has ended.
    group: Option<OwnedMutexGuard<Group>>,
    groups: Groups,
    outcomes: Arc<Outcomes>,
    /// Whether the transaction has a savepoint that was set before this change.
    has_savepoint: bool,
}

/// Counts a change that waits for its turn, until this value is dropped. So a change whose caller
/// gives up is no longer counted.
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
        if open.is_none() {
            // If the group still has changes, the connection with their transaction is gone.
            // Dropping them reports that their outcome is unknown.
            *group = Group::default();
        }
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

    /// Commits the open group once every change that is waiting now has had its turn.
    async fn close(self, outcomes: Arc<Outcomes>) {
        let mut group = self.group.clone().lock_owned().await;
        let mut open = std::mem::take(&mut *group);
        if let Some(connection) = open.connection.take() {
            self.commit(open, connection, outcomes).await;
        }
        drop(group);
    }

    /// Commits a group. The caller must hold the lock of the group meanwhile.
    async fn commit(&self, open: Group, connection: PooledConnection, outcomes: Arc<Outcomes>) {
        let Group { changes, done, .. } = open;
        let committed = outcomes
            .commit_here(connection, Dialect::Sqlite, changes)
            .await;
        match &committed {
            // Each of these changes may fit on the disk without the others.
            // The guard refuses only those that take something away.
            Err(error @ (Error::Full(_) | Error::GuardUnavailable)) if done.len() > 1 => {
                self.fail(done, None, error);
            }
            committed => {
                for done in done {
                    let _ = done.send(committed.as_ref().map_err(again).map(|&()| ()));
                }
            }
        }
    }

    /// Fails the changes of a group that was rolled back. The change that caused the rollback gets
    /// the error. The others get a conflict, so that they are retried.
    fn fail(&self, others: Vec<Done>, own: Option<Done>, error: &Error) {
        self.alone.store(MOST, Ordering::Relaxed);
        for other in others {
            let _ = other.send(Err(conflict(error)));
        }
        if let Some(own) = own {
            let _ = own.send(Err(again(error)));
        }
    }

    /// Returns whether the next change must be committed alone, and counts it if so.
    fn is_alone(&self) -> bool {
        let fewer = |alone: usize| alone.checked_sub(1);
        let counted = self
            .alone
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        counted.is_ok()
    }
}

impl Turn {
    /// Keeps what the change wrote, and waits until it is committed, even if the caller gives up.
    pub async fn commit(self, changes: ChangeSet) -> Result<(), Error> {
        self.end(Ok(changes)).await
    }

    /// Undoes what the change wrote, and waits until everything that it has read is committed.
    /// `cause` is the error with which the change failed, if it did.
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
    /// begins a transaction, whose type would contain this future again.
    fn finished(
        self,
        group: OwnedMutexGuard<Group>,
        kept: Result<ChangeSet, Option<DbErr>>,
        done: Option<Done>,
    ) -> BoxFuture<'static, ()> {
        self.finish(group, kept, done).boxed()
    }

    /// Commits the group, or leaves it open for the next change.
    async fn finish(
        mut self,
        mut group: OwnedMutexGuard<Group>,
        kept: Result<ChangeSet, Option<DbErr>>,
        done: Option<Done>,
    ) {
        // The group is taken out of the lock. So a panic drops its senders, and no later COMMIT is
        // mistaken for that of this group.
        let mut open = std::mem::take(&mut *group);
        let connection = self.connection.take();
        let prepared = match kept {
            Err(_) if open.done.is_empty() => {
                let undone = connection.rollback().await.map_err(Error::from);
                let _ = done.map(|done| done.send(undone));
                return;
            }
            Err(cause) => self.undo(connection, cause).await,
            Ok(changes) => {
                open.changes.add(changes);
                Ok(connection)
            }
        };
        let connection = match prepared {
            Ok(connection) => connection,
            Err(error) => return self.groups.fail(open.done, done, &error),
        };
        open.done.extend(done);
        if self.is_last(&open) {
            let outcomes = self.outcomes.clone();
            return self.groups.commit(open, connection, outcomes).await;
        }
        match prepare(connection, self.next_savepoint()).await {
            Ok(connection) => self.leave_open(group, open, connection),
            Err(error) => self.groups.fail(open.done, None, &error),
        }
    }

    const fn next_savepoint(&self) -> &'static str {
        if self.has_savepoint {
            "RELEASE change; SAVEPOINT change"
        } else {
            "SAVEPOINT change"
        }
    }

    fn is_last(&self, open: &Group) -> bool {
        self.groups.is_alone()
            || open.done.len() >= MOST
            || self.groups.waiting.load(Ordering::Relaxed) == 0
    }

    /// Undoes what this change wrote, but not what earlier changes wrote.
    async fn undo(
        &self,
        connection: PooledConnection,
        cause: Option<DbErr>,
    ) -> Result<PooledConnection, Error> {
        let undone = prepare(connection, "ROLLBACK TO change").await;
        // ROLLBACK TO fails if SQLite has already rolled back the whole transaction, as on a full
        // disk.
        undone.map_err(|error| cause.map_or(error, Error::from))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    fn leave_open(
        &self,
        mut group: OwnedMutexGuard<Group>,
        open: Group,
        connection: PooledConnection,
    ) {
        *group = open;
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

/// Runs a statement between two changes. If it fails, rolls the transaction back, and closes the
/// connection unless the rollback succeeds.
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

/// Returns a copy of the error for another change of the group.
fn again(error: &Error) -> Error {
    match error {
        Error::OutcomeUnknown(source) => Error::OutcomeUnknown(source.clone()),
        Error::Unavailable(source) => Error::Unavailable(source.clone()),
        Error::Conflict(source) => Error::Conflict(source.clone()),
        Error::Database(source) => Error::Database(source.clone()),
        Error::Full(source) => Error::Full(source.clone()),
        Error::ReadOnly => Error::ReadOnly,
        Error::GuardUnavailable => Error::GuardUnavailable,
        other => unknown(&other.to_string()),
    }
}

/// Returns the error of a change that was rolled back because another change failed. A conflict is
/// retried.
fn conflict(error: &Error) -> Error {
    match error {
        Error::Unavailable(source)
        | Error::Database(source)
        | Error::Full(source)
        | Error::AuditUnavailable(source) => Error::Conflict(source.clone()),
        Error::GuardUnavailable => Error::Conflict(DbErr::Custom(error.to_string())),
        other => again(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An issue that happens to be in the group of a revoke needs no guard.
    #[tokio::test]
    async fn a_change_beside_one_that_the_guard_refuses_is_made_again_alone() {
        let groups = Groups::default();
        let (done, told) = oneshot::channel();
        groups.fail(vec![done], None, &Error::GuardUnavailable);
        assert!(matches!(told.await.unwrap(), Err(Error::Conflict(_))));
        assert!(groups.is_alone());
    }
}
