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
mod turns;
mod usage;
mod uses;
mod verdicts;
mod writable;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sea_orm::{DatabaseConnection, DbBackend, EntityTrait as _};

use crate::{
    domain::{
        caller::{Actor, Mode},
        clock::Clock,
        entropy::Entropy,
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
    origin::Sources,
    shares::{Share, Shares},
    statements::Statements,
    transaction::{Access, Outcomes, Transaction},
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
/// How often suspect connections are given up for new ones, at most.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// A store of stacks and tokens.
pub struct Store {
    location: Location,
    size: PoolSize,
    pools: Arc<ArcSwap<Pools>>,
    outcomes: Arc<Outcomes>,
    turns: Turns,
    shares: Shares,
    /// When connections were last renewed, on the monotonic clock.
    renewed: Mutex<Option<Duration>>,
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
            renewed: Mutex::new(None),
            refused: Refused::default(),
            clock,
            entropy,
            max_skew_micros: AtomicU64::new(clocks::DEFAULT_MAX_SKEW_MICROS),
            own_clock_decides: matches!(location, Location::Sqlite(_)),
            epoch: AtomicI64::new(0),
            statements,
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

    /// Gives up connections that may lead nowhere, for new ones: a link that swallows packets
    /// cannot be told from a slow one, and a pool would hand it out again and again.
    pub async fn renew_connections(&self) {
        if self.may_renew() {
            self.renew().await;
        }
    }

    /// Gives up all connections, whenever that was done last: those at hand are known to be of no
    /// more use.
    pub async fn replace_connections(&self) {
        let now = self.clock.monotonic();
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.renew().await;
    }

    async fn renew(&self) {
        let Location::Postgres(urls) = &self.location else {
            return;
        };
        match connect::renew(urls, self.size).await {
            Ok((writer, reader, control)) => {
                tracing::warn!("connections to the store are given up for new ones");
                self.pools.store(Arc::new(Pools {
                    writer,
                    reader,
                    control,
                }));
            }
            Err(error) => tracing::warn!(%error, "connections could not be renewed"),
        }
    }

    fn may_renew(&self) -> bool {
        let now = self.clock.monotonic();
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let may = renewed.is_none_or(|at| now.saturating_sub(at) >= RENEW_EVERY);
        if may {
            *renewed = Some(now);
        }
        may
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

    /// Whether this failed for want of a connection, and there are new ones now.
    async fn is_worth_renewing<T>(&self, done: &Result<T, Error>) -> bool {
        let lost = self.is_shared() && done.as_ref().is_err_and(Error::is_lost_connection);
        if lost {
            self.renew_connections().await;
        }
        lost
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
            // Before it is acknowledged: a file that no path leads to is gone with the process.
            store.require_file()?;
        }
        // Why it failed is what matters: SQLite may have undone it by itself already.
        (_, Err(_)) => drop(tx.rollback().await),
        (Mode::Preview, Ok(_)) => tx.rollback().await?,
    }
    done
}
