//! The store. Each method is one complete transaction, and callers have no access to tables. Every
//! change writes its audit row in the same transaction. A change that can alter a verdict also
//! writes its change log row in that transaction (R12, R14). Only this module uses sea-orm.

#[macro_use]
mod macros;

mod audit;
mod change_log;
mod engine;
mod entity;
mod guard;
mod inspect;
mod last_used;
mod lookup;
mod migration;
mod purge;
mod record;
mod replay;
mod session;
mod stack;
mod token;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sea_orm::{DatabaseConnection, DbBackend, EntityTrait as _};

use crate::domain::{
    caller::{Actor, Mode},
    clock::Clock,
    entropy::Entropy,
};
use stacktoken_core::facts_cache::Cache;

pub use self::{
    audit::list::{AuditActor, AuditCursor, AuditFilter, AuditPage},
    audit::refusals::{Hidden, RefusalNote, RefusedCall},
    change_log::poll::{Change, Cursor, History, Listener, Lost},
    engine::database_url::{Location, LocationError},
    engine::error::Error,
    engine::origin::Heartbeat,
    engine::pool::{OpenError, PoolSize},
    engine::reach::Unreachable,
    engine::schema::{Schema, SchemaError},
    engine::writable::Unwritable,
    guard::{
        Ended, Guard, GuardError, GuardHealth, GuardLocation, GuardLocationError, GuardMode,
        JournalReport, JournalStats, RestorePlan, RestorePreview, Restored, Unknown,
    },
    inspect::{pooling::Pooling, postgres::PostgresFacts},
    last_used::Use,
    lookup::{Lookup, many::Lookups, recorded::Recorded},
    purge::{Batch, Next, Retention},
    session::assertions::SingleUse,
    session::candidates::{Candidates, SessionsNow},
    session::end::EndSessions,
    session::exchange::{StartSession, StartedSession},
    stack::list_members::{MemberCursor, MemberPage},
    stack::list_own::OwnStackPage,
    stack::members::{MemberChange, MembersChanged},
    stack::register::{Register, Registered},
    stack::stacks::{StackCursor, StackPage, StackStep},
    token::end_overlap::MaybeChanged,
    token::expiry::{DAYS, Expiring},
    token::filter::TokenFilter,
    token::first_use::PresentedSecret,
    token::issue::{Issue, IssuedToken},
    token::listing::{ListQuery, Order, TokenCursor, TokenPage},
    token::revoke_all::{PreviewCursor, PreviewPage, RevokeAll, RevokedAll, TOKENS_LISTED},
    token::rotate::{Rotate, Rotated},
    token::secrets::NewSecret,
};
use self::{
    engine::dialect::Dialect,
    engine::evidence::Isolation,
    engine::origin::Sources,
    engine::permit_queues::{PermitQueues, StackRef},
    engine::pool::Embedded,
    engine::read_limits::{ReadLimits, ReadPermit},
    engine::renewals::Renewals,
    engine::statements::Statements,
    engine::transaction::{Access, Groups, Outcomes, Transaction},
    engine::trust::Trust,
    engine::writable::Refused,
};

/// How many times a change retries to get a connection from a busy pool. A long queue of changes of
/// one stack does not mean that the store is unavailable.
const WAIT_AGAIN: usize = 4;

/// The pauses before the retries of a transaction that conflicted with another one.
const RETRY_AFTER: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
];

/// A store of stacks and tokens.
pub struct Store {
    location: Location,
    size: PoolSize,
    pools: Arc<ArcSwap<Pools>>,
    outcomes: Arc<Outcomes>,
    /// The groups in which changes on SQLite are committed together.
    groups: Groups,
    permit_queues: PermitQueues,
    /// The queues of strangers, in front of `permit_queues`.
    stranger_queues: PermitQueues,
    read_limits: ReadLimits,
    renewals: Renewals,
    refused: Refused,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// The permitted clock skew in microseconds (R8).
    max_skew_micros: AtomicU64,
    /// The freshness bound in microseconds: how long another replica may take to apply a change.
    freshness_micros: AtomicU64,
    /// Whether the time of a change comes from this process's clock. True on SQLite, and in tests
    /// with a fixed clock.
    own_clock_decides: bool,
    epoch: AtomicI64,
    /// The statements whose rows also identify the database.
    statements: Statements,
    trust: Trust,
    isolation: Isolation,
    /// `None` if the store is not guarded against a restore from the past.
    guard: Option<Arc<Guard>>,
    /// Declared after the pools, so that it is dropped after them and the file lock outlives every
    /// connection.
    embedded: Option<Embedded>,
}

struct Pools {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    control: DatabaseConnection,
}

impl Store {
    /// Opens the store. Creates an SQLite file if it does not exist. Does not change the schema;
    /// see [`Self::migrate`] and [`Self::require_current_schema`].
    ///
    /// # Errors
    /// Returns [`OpenError`], for example if another process holds the file.
    pub async fn open(
        location: &Location,
        size: PoolSize,
        ambient: (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, OpenError> {
        let connections = engine::pool::open(location, size).await?;
        Self::of(location, size, connections, ambient).await
    }

    async fn of(
        location: &Location,
        size: PoolSize,
        connections: engine::pool::Connections,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, OpenError> {
        let engine::pool::Connections {
            writer,
            reader,
            control,
            readings,
            embedded,
        } = connections;
        let statements = match location {
            Location::Sqlite(_) => Statements::on_sqlite(),
            Location::Postgres(_) => {
                let sources = Sources::of(&control).await;
                let refused = |source| OpenError::Database {
                    location: location.clone(),
                    source,
                };
                Statements::on_postgres(sources.map_err(refused)?)
            }
        };
        let pools = Arc::new(ArcSwap::from_pointee(Pools {
            writer,
            reader,
            control,
        }));
        Ok(Self {
            location: location.clone(),
            size,
            outcomes: Arc::new(Outcomes::new(pools.clone())),
            pools,
            groups: Groups::default(),
            permit_queues: PermitQueues::of_changes(),
            stranger_queues: PermitQueues::of_strangers(),
            read_limits: ReadLimits::of(readings),
            renewals: Renewals::default(),
            refused: Refused::default(),
            clock,
            entropy,
            max_skew_micros: AtomicU64::new(engine::clocks::DEFAULT_MAX_SKEW_MICROS),
            freshness_micros: AtomicU64::new(0),
            own_clock_decides: matches!(location, Location::Sqlite(_)),
            epoch: AtomicI64::new(0),
            statements,
            trust: Trust::default(),
            isolation: Isolation::default(),
            guard: None,
            embedded,
        })
    }

    /// Registers a cache. The subjects of a change are barred from the cache from before COMMIT is
    /// sent until the outcome is known. By then, their facts have been evicted.
    pub fn bar_from(&self, cache: Arc<Cache>) {
        self.outcomes.bar_from(cache);
    }

    /// Disables checks of the origin, for tests that show why the checks are needed. With
    /// `incarnation`, crashes and promotions are not noticed. With `system`, a copy of the database
    /// in another cluster is not noticed.
    #[must_use]
    pub fn mistaking_origins(mut self, incarnation: bool, system: bool) -> Self {
        if self.dialect() == Dialect::Postgres {
            let sources = self.statements.sources.without(incarnation, system);
            self.statements = Statements::on_postgres(sources);
        }
        self
    }

    /// Returns whether connections to the database are safe from eavesdropping and impersonation.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.location.is_private()
    }

    /// Logs a warning unless connections are private (see [`Self::is_private`]).
    pub fn warn_unless_private(&self) {
        if !self.is_private() {
            tracing::warn!(
                "the database is not verified: set sslmode=verify-full and sslrootcert in its URL"
            );
        }
    }

    /// Returns whether other processes may also change this store.
    #[must_use]
    pub const fn has_other_writers(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }

    /// Returns the epoch of the change log that [`Self::require_current_schema`] read or
    /// [`Self::adopt_epoch`] set.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Sets the epoch of the change log that this process uses from now on.
    pub fn adopt_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Checks that the store can be read.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] or another [`Error`] if the store cannot be read.
    pub async fn probe_read(&self) -> Result<(), Error> {
        self.require_file()?;
        entity::meta::Entity::find_by_id("epoch")
            .one(&self.pools.load().reader)
            .await?;
        Ok(())
    }

    /// Closes all connection pools, and waits until the connections in use are returned.
    pub async fn close(&self) {
        let pools = self.pools.load_full();
        for pool in [&pools.control, &pools.reader, &pools.writer] {
            // An error does not matter here, because every acknowledged change is already on disk.
            let _ = pool.clone().close().await;
        }
        if let Some(embedded) = &self.embedded {
            let _ = embedded.anchor.clone().close().await;
        }
        if let Some(guard) = &self.guard {
            guard.close().await;
        }
    }

    const fn dialect(&self) -> Dialect {
        Dialect::of(&self.location)
    }

    const fn backend(&self) -> DbBackend {
        self.dialect().backend()
    }

    /// Begins a change. Retries while the pool is busy, and with new connections if the connection
    /// was dead, because after a restart of the database every connection in the pool is dead.
    /// Retrying is safe, because nothing was done yet.
    ///
    /// If the change concerns one stack, the stack is locked in the same round trip on PostgreSQL.
    async fn begin_write(&self, of: Option<&StackRef>) -> Result<Transaction, Error> {
        let mut begun = self.try_begin_write(of).await;
        for _ in 0..WAIT_AGAIN {
            let busy = begun.as_ref().is_err_and(Error::is_out_of_connections);
            if !busy && !self.renew_after_lost_connection(&begun).await {
                break;
            }
            begun = self.try_begin_write(of).await;
        }
        begun
    }

    async fn begin_read(&self, caller: &Actor) -> Result<Transaction, Error> {
        let mut read_permit = Some(self.read_limits.take(caller).await?);
        let begun = self.try_begin_read(&mut read_permit).await;
        if self.renew_after_lost_connection(&begun).await {
            self.try_begin_read(&mut read_permit).await
        } else {
            begun
        }
    }

    async fn try_begin_write(&self, of: Option<&StackRef>) -> Result<Transaction, Error> {
        self.require_file()?;
        let pools = self.pools.load();
        match (self.dialect(), of) {
            (Dialect::Postgres, Some(stack)) => {
                let lock = format!("; {}", stack::access::lock_of(stack));
                Transaction::begin_locking(&pools.writer, (stack.clone(), &lock)).await
            }
            (Dialect::Postgres, None) => Transaction::begin(&pools.writer, Access::Write).await,
            (Dialect::Sqlite, _) => {
                Transaction::begin_in_group(&self.groups, &pools.writer, &self.outcomes).await
            }
        }
    }

    async fn try_begin_read(
        &self,
        read_permit: &mut Option<ReadPermit>,
    ) -> Result<Transaction, Error> {
        self.require_file()?;
        let begun = Transaction::begin(&self.pools.load().reader, Access::Read).await?;
        Ok(begun.with(read_permit.take()))
    }
}

/// Ends a write transaction. An error or a preview rolls it back. A refusal commits it, because
/// nothing can have been written before a refusal except that expired tokens have ended, and that
/// is final (R8).
async fn settle<T>(
    store: &Store,
    tx: Transaction,
    mode: Mode,
    done: Result<T, Error>,
) -> Result<T, Error> {
    match (mode, &done) {
        (Mode::Apply, Ok(_) | Err(Error::Refused(_))) => {
            tx.commit(&store.outcomes).await?;
            store.renewals.answered();
            // The file is checked before the change is acknowledged, because data in a deleted file
            // is lost when the process ends.
            store.require_file()?;
        }
        // On SQLite, a preview may have read a change that is not committed yet. Its rollback waits
        // for that commit.
        (Mode::Preview, Ok(_) | Err(Error::Refused(_))) => tx.rollback().await?,
        // The result of the rollback is ignored. The first error matters more, and SQLite may
        // already have rolled back by itself.
        (Mode::Apply | Mode::Preview, Err(_)) => drop(tx.rollback().await),
    }
    done
}
