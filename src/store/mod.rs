//! The store: whole transactions, not table access. Every change leaves its audit row and,
//! where it can alter a verdict, its row of history in the same transaction (R12, R14).
//! The only room that knows sea-orm.

#[macro_use]
mod macros;

mod audit;
mod changes;
mod clocks;
mod connect;
mod embedded;
mod entity;
mod error;
mod evidence;
mod expiry;
mod feed;
mod impact;
mod issue;
mod leaked;
mod listing;
mod live;
mod location;
mod members;
mod migration;
mod origin;
mod purge;
mod reach;
mod renewals;
mod retry;
mod revoke_all;
mod room;
mod rotate;
mod rows;
mod schema;
mod secrets;
mod shares;
mod stacks;
mod standing;
mod statements;
mod tokens;
mod transaction;
mod trust;
mod turns;
mod usage;
mod uses;
mod verdicts;
mod writable;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use sea_orm::{DatabaseConnection, DbBackend, EntityTrait as _};
use tokio::sync::Notify;

use crate::{
    domain::{
        caller::{Actor, Mode},
        clock::Clock,
        entropy::Entropy,
        origin::Origin,
    },
    telemetry::traces::StoreSpan,
};
use stacktoken_core::facts_cache::Cache;

pub use self::{
    audit::{AuditCursor, AuditFilter, AuditPage, RefusalNote, RefusedCall},
    connect::{OpenError, PoolSize},
    error::Error,
    expiry::{DAYS, Expiring},
    feed::{Change, Cursor, History, Listener, Lost},
    issue::Issue,
    listing::{ListQuery, Order, TokenCursor, TokenPage},
    location::{Location, LocationError},
    members::{MemberChange, MembersChanged},
    origin::Beat,
    purge::{Batch, Keep, Next},
    reach::Unreachable,
    revoke_all::{RevokeAll, RevokedAll},
    rotate::{Rotate, Rotated},
    schema::{Schema, SchemaError},
    secrets::Kept,
    stacks::{Register, StackCursor, StackPage, StackStep, StackWithMembers},
    usage::Use,
    uses::Presented,
    verdicts::{Look, many::Looks, recorded::Recorded},
    writable::Unwritable,
};
use self::{
    connect::Embedded,
    evidence::Isolation,
    origin::Sources,
    renewals::Renewals,
    shares::{Share, Shares},
    statements::Statements,
    transaction::{Access, Outcomes, Transaction},
    trust::Checks,
    turns::Turns,
    writable::Refused,
};

/// How often a change waits again for a connection: many changes of one stack are a queue, and
/// not an outage.
const WAIT_AGAIN: usize = 4;

/// How long to wait before each further attempt at a transaction that was in another's way.
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
    turns: Turns,
    shares: Shares,
    renewals: Renewals,
    refused: Refused,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// By how much a clock may be behind the last change of a stack.
    max_skew_micros: AtomicU64,
    /// Whether changes are decided by this process's clock: on SQLite, and in a test whose
    /// clock stands still.
    own_clock_decides: bool,
    epoch: AtomicI64,
    /// Statements that ask the database who it is.
    statements: Statements,
    /// The database that committed the last heartbeat of this process.
    trusted: ArcSwapOption<Origin>,
    mistrusted: Notify,
    checks: Checks,
    isolation: Isolation,
    /// Dropped after the pools: the lock outlives every connection.
    embedded: Option<Embedded>,
}

struct Pools {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    control: DatabaseConnection,
}

impl Store {
    /// Opens the store; makes an SQLite file if there is none. The schema is another matter:
    /// see [`Self::migrate`] and [`Self::require_current_schema`].
    ///
    /// # Errors
    /// [`OpenError`], among others where another process has the file.
    pub async fn open(
        location: &Location,
        size: PoolSize,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, OpenError> {
        let connect::Connections {
            writer,
            reader,
            control,
            readings,
            embedded,
        } = connect::open(location, size).await?;
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
            turns: Turns::of_changes(),
            shares: Shares::of(readings),
            renewals: Renewals::default(),
            refused: Refused::default(),
            clock,
            entropy,
            max_skew_micros: AtomicU64::new(clocks::DEFAULT_MAX_SKEW_MICROS),
            own_clock_decides: matches!(location, Location::Sqlite(_)),
            epoch: AtomicI64::new(0),
            statements,
            trusted: ArcSwapOption::empty(),
            mistrusted: Notify::new(),
            checks: Checks::ALL,
            isolation: Isolation::default(),
            embedded,
        })
    }

    /// Has the subject of every change barred from this cache from before its COMMIT is sent until
    /// its outcome is known, and evicted by then.
    pub fn bar_from(&self, cache: Arc<Cache>) {
        self.outcomes.bar_from(cache);
    }

    /// Without what tells a database before a crash from after it, or the database that wrote the
    /// rows from one that they were copied to: for negative controls. No setting does this.
    #[must_use]
    pub fn mistaking_origins(mut self, incarnation: bool, system: bool) -> Self {
        if self.is_shared() {
            let sources = self.statements.sources.without(incarnation, system);
            self.statements = Statements::on_postgres(sources);
        }
        self
    }

    /// Whether nobody on the way to the database can read along or pass for it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.location.is_private()
    }

    /// Logs a warning where somebody can.
    pub fn warn_unless_private(&self) {
        if !self.is_private() {
            tracing::warn!(
                "the database is not verified: set sslmode=verify-full and sslrootcert in its URL"
            );
        }
    }

    /// Whether other processes may change this store too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }

    /// Which history this is; known once the schema was found current.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The history that is trusted from now on.
    pub fn adopt_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// That the store can be read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like.
    pub async fn probe_read(&self) -> Result<(), Error> {
        self.require_file()?;
        entity::meta::Entity::find_by_id("epoch")
            .one(&self.pools.load().reader)
            .await?;
        Ok(())
    }

    /// Ends all connections, after those at work have finished.
    pub async fn close(&self) {
        let pools = self.pools.load_full();
        for pool in [&pools.control, &pools.reader, &pools.writer] {
            // Nothing is lost here: what was acknowledged is on disk already.
            let _ = pool.clone().close().await;
        }
        if let Some(embedded) = &self.embedded {
            let _ = embedded.anchor.clone().close().await;
        }
    }

    /// One use of the store, for the trace of the call that makes it.
    fn span(&self, operation: &'static str) -> StoreSpan {
        let system = if self.is_shared() {
            "postgresql"
        } else {
            "sqlite"
        };
        StoreSpan::begin(system, operation)
    }

    fn backend(&self) -> DbBackend {
        if self.is_shared() {
            DbBackend::Postgres
        } else {
            DbBackend::Sqlite
        }
    }

    /// Nothing was done yet, so a connection that turns out dead costs no more than another
    /// attempt on a new one: after a restart of the database all of a pool's are.
    async fn begin_write(&self) -> Result<Transaction, Error> {
        let mut begun = self.try_begin_write().await;
        for _ in 0..WAIT_AGAIN {
            let busy = begun.as_ref().is_err_and(Error::is_for_want_of_room);
            if !busy && !self.is_worth_renewing(&begun).await {
                break;
            }
            begun = self.try_begin_write().await;
        }
        begun
    }

    async fn begin_read(&self, caller: &Actor) -> Result<Transaction, Error> {
        let mut share = Some(self.shares.take(caller).await?);
        let begun = self.try_begin_read(&mut share).await;
        if self.is_worth_renewing(&begun).await {
            self.try_begin_read(&mut share).await
        } else {
            begun
        }
    }

    async fn try_begin_write(&self) -> Result<Transaction, Error> {
        self.require_file()?;
        Transaction::begin(&self.pools.load().writer, Access::Write).await
    }

    async fn try_begin_read(&self, share: &mut Option<Share>) -> Result<Transaction, Error> {
        self.require_file()?;
        let begun = Transaction::begin(&self.pools.load().reader, Access::Read).await?;
        Ok(begun.with(share.take()))
    }
}

/// Ends a transaction for writing. An error undoes it, and so does a preview; a refusal does
/// not, since all that may stand before one is the end of tokens found expired, and that is
/// final (R8).
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
            // Before it is acknowledged: a file that no path leads to is gone with the process.
            store.require_file()?;
        }
        // Why it failed is what matters: SQLite may have undone it by itself already.
        (_, Err(_)) => drop(tx.rollback().await),
        (Mode::Preview, Ok(_)) => tx.rollback().await?,
    }
    done
}
