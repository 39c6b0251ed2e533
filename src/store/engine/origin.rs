//! Identifies the database that answers. The identity is read in the same statement as the data.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement};

use crate::domain::{origin::Origin, timestamp::Timestamp};
use crate::store::{
    Error, Store, engine::error::code_of, engine::transaction::Transaction, migration,
};

/// A committed heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The database that committed the heartbeat.
    pub origin: Origin,
    /// The time of the heartbeat according to the database's clock.
    pub clock: Timestamp,
}

/// Which parts of the database's identity this role may read. A managed service can deny access to
/// some of them.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a service refuses each on its own"
)]
pub(in crate::store) struct Sources {
    /// The system identifier of the database cluster.
    system: bool,
    timeline: bool,
    started: bool,
    /// Whether the incarnation number is selected. Off only in a test that shows why it is needed.
    incarnation: bool,
    /// Whether the ids of the tables are selected. Off only in a test that shows why they are
    /// needed.
    tables: bool,
}

const SYSTEM: &str = "(SELECT system_identifier FROM pg_control_system())";
/// The current timeline. Not read with `pg_control_checkpoint()`, which lags behind a promotion.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() \
    THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) ELSE '' END";
const STARTED: &str = "(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint";
/// The database's clock, which also advances within a transaction.
pub(in crate::store) const CLOCK: &str =
    "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint";

impl Sources {
    /// The sources on SQLite, which has no cluster identifier, timeline or start time to select.
    pub const NONE: Self = Self {
        system: false,
        timeline: false,
        started: false,
        incarnation: false,
        tables: false,
    };

    /// Finds out which parts of the origin this role may read. Logs a warning for each part that it
    /// may not read.
    pub async fn of(connection: &DatabaseConnection) -> Result<Self, DbErr> {
        Ok(Self {
            system: may_ask(connection, SYSTEM).await?,
            timeline: may_ask(connection, TIMELINE).await?,
            started: may_ask(connection, STARTED).await?,
            incarnation: true,
            tables: true,
        })
    }

    /// Stops using the parts that identify the incarnation, or the parts that identify the database
    /// cluster and its tables.
    pub const fn without(self, incarnation: bool, system: bool) -> Self {
        Self {
            system: self.system && !system,
            started: self.started && !incarnation,
            incarnation: !incarnation,
            tables: self.tables && !system,
            ..self
        }
    }

    /// Returns the columns that identify the database. Every statement whose rows are evidence of
    /// freshness selects them.
    pub fn columns(self) -> String {
        self.columns_with(&migration::table_ids())
    }

    /// Returns the columns that identify the database, like [`Self::columns`], but with the tables
    /// that the `search_path` finds when the statement is executed. A statement that is parsed at
    /// that time uses the same tables.
    pub fn columns_now(self) -> String {
        self.columns_with(&migration::table_ids_now())
    }

    fn columns_with(self, table_ids: &str) -> String {
        let timeline = if self.timeline { TIMELINE } else { "''" };
        let started = if self.started { STARTED } else { "0::bigint" };
        let incarnation = if self.incarnation {
            "(SELECT nonce FROM incarnation)"
        } else {
            "0::bigint"
        };
        let tables = if self.tables { table_ids } else { "0::bigint" };
        format!(
            "(pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on') AS standby, \
             {timeline} AS timeline, {started} AS started, \
             {incarnation} AS incarnation, {tables} AS tables, \
             current_setting('transaction_isolation') = 'read committed' AS up_to_date, \
             (SELECT value FROM meta WHERE name = 'epoch') AS epoch"
        )
    }

    /// Returns [`Self::columns`] and the system identifier, and also `home` and `home_tables`, the
    /// recorded values with which the identifier and the tables are compared. Lookups leave these
    /// out, because PostgreSQL reads a file for the system identifier.
    pub fn all_columns(self) -> String {
        let system = if self.system { SYSTEM } else { "NULL::bigint" };
        let home_tables = if self.tables {
            format!(
                "(SELECT value FROM meta WHERE name = '{}')",
                migration::TABLE_IDS
            )
        } else {
            "NULL::bigint".to_owned()
        };
        let columns = self.columns();
        format!(
            "{columns}, {system} AS system, \
             (SELECT value FROM meta WHERE name = 'system') AS home, {home_tables} AS home_tables"
        )
    }
}

/// The columns that identify the database, for SQLite. Apart from the epoch they are constant,
/// because no other store can replace the file.
pub(in crate::store) const ON_SQLITE: &str = "\
    FALSE AS standby, '' AS timeline, 0 AS started, 0 AS incarnation, 0 AS tables, \
    TRUE AS up_to_date, \
    (SELECT value FROM meta WHERE name = 'epoch') AS epoch";
pub(in crate::store) const ALL_ON_SQLITE: &str =
    "NULL AS system, NULL AS home, NULL AS home_tables";

async fn may_ask(connection: &DatabaseConnection, what: &str) -> Result<bool, DbErr> {
    let statement = Statement::from_string(
        connection.get_database_backend(),
        format!("SELECT {what} AS value"),
    );
    match connection.query_one_raw(statement).await {
        Ok(_) => Ok(true),
        Err(error) if refuses(&error) => {
            tracing::warn!(
                what,
                "the database does not say this of itself: a change of the database is noticed \
                 without it"
            );
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the error means that the role may not read the value: the privilege is missing,
/// or the function does not exist or is not supported.
fn refuses(error: &DbErr) -> bool {
    let codes = ["42501", "42883", "0A000"];
    code_of(error).is_some_and(|code| codes.contains(&code.as_str()))
}

/// Returns the origin from a row with [`Sources::columns`]. Fails if the row does not come from a
/// primary.
pub(in crate::store) fn origin_of(row: &QueryResult) -> Result<Origin, Error> {
    require_primary(row)?;
    let incarnation: Option<i64> = row.try_get("", "incarnation")?;
    Ok(Origin {
        system: None,
        timeline: row.try_get("", "timeline")?,
        epoch: row.try_get("", "epoch")?,
        // Without an incarnation number, data from before a crash cannot be distinguished from
        // newer data. The next heartbeat writes a new number.
        incarnation: incarnation.ok_or(Error::Nameless)?,
        tables: row.try_get("", "tables")?,
        started: row.try_get("", "started")?,
    })
}

/// Returns the origin from a row with [`Sources::all_columns`]. Fails if the row does not come from
/// a primary, or if another database wrote the data.
pub(in crate::store) fn full_origin_of(row: &QueryResult) -> Result<Origin, Error> {
    require_primary(row)?;
    let at = |name| row.try_get::<Option<i64>>("", name);
    let (system, home) = (at("system")?, at("home")?);
    let (tables, home_tables) = (at("tables")?, at("home_tables")?);
    let elsewhere =
        |is: Option<i64>, home: Option<i64>| is.zip(home).is_some_and(|(is, home)| is != home);
    // This check precedes the one of the incarnation, because a restored database is foreign even
    // if it has no incarnation number.
    if elsewhere(system, home) || elsewhere(tables, home_tables) {
        return Err(Error::Foreign);
    }
    let origin = origin_of(row)?;
    Ok(Origin { system, ..origin })
}

fn require_primary(row: &QueryResult) -> Result<(), Error> {
    if row.try_get("", "standby")? {
        return Err(Error::NotPrimary);
    }
    Ok(())
}

impl Store {
    /// Commits a heartbeat, so that a full disk, a lock or an isolated primary is detected before
    /// it makes a call fail. Returns which database committed the heartbeat, and the time of that
    /// database.
    ///
    /// # Errors
    /// Returns [`Error`] if the heartbeat does not count: it was not committed, its outcome is
    /// unknown, the stored data belongs to another database ([`Error::Foreign`]), the database is
    /// behind the mark of its guard ([`Error::RestoredFromPast`]), or the SQLite file was deleted or
    /// replaced ([`Error::FileLost`]).
    pub async fn beat(&self, now: Timestamp) -> Result<Heartbeat, Error> {
        let beat = match self.try_send_heartbeat(now).await {
            Err(Error::Nameless) => {
                self.name_incarnation().await?;
                self.try_send_heartbeat(now).await
            }
            beat => beat,
        };
        self.note(&beat);
        if beat.is_ok() {
            self.renewals.note_heartbeat(self.clock.monotonic());
        }
        self.require_file()?;
        if let Ok(beat) = &beat {
            self.require_not_restored(&beat.origin).await?;
        }
        beat
    }

    /// Commits the heartbeat with a single statement, so that a replica that is paused meanwhile
    /// does not hold a lock.
    async fn try_send_heartbeat(&self, now: Timestamp) -> Result<Heartbeat, Error> {
        let pools = self.pools.load_full();
        let beat = format!(
            "UPDATE meta SET value = {} {}",
            now.as_micros(),
            self.statements.beat
        );
        if !self.has_other_writers() {
            pools.writer.execute_unprepared(&beat).await?;
            let origin = Origin::sole(self.epoch());
            return Ok(Heartbeat { origin, clock: now });
        }
        let rows = Transaction::run_alone(&pools.control, &beat).await?;
        let row = rows.last().ok_or_else(|| missing("heartbeat"))?;
        let clock = Timestamp::from_micros(row.try_get("", "clock")?);
        Ok(Heartbeat {
            origin: full_origin_of(row)?,
            clock: clock.unwrap_or(now),
        })
    }

    /// Writes a random number as the incarnation number of the database, because crash recovery and
    /// promotion empty the table. If several replicas insert a number, the first one stays.
    async fn name_incarnation(&self) -> Result<(), Error> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        let sql = "INSERT INTO incarnation (nonce) VALUES ($1) ON CONFLICT DO NOTHING";
        let values = [i64::from_be_bytes(random).into()];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.pools
            .load_full()
            .control
            .execute_raw(statement)
            .await?;
        Ok(())
    }

    /// Checks that this database wrote the change log. A copied database assigns different
    /// transaction ids, so the positions in the log would be meaningless in it.
    ///
    /// # Errors
    /// Returns [`Error::Foreign`], whose message names the command to run.
    pub async fn require_home(&self) -> Result<(), Error> {
        if !self.has_other_writers() {
            return Ok(());
        }
        let columns = self.statements.sources.all_columns();
        let sql = format!("SELECT {columns}");
        let statement = Statement::from_string(self.backend(), sql);
        let row = self.pools.load().control.query_one_raw(statement).await?;
        match full_origin_of(&row.ok_or_else(|| missing("epoch"))?) {
            Err(Error::Foreign) => Err(Error::Foreign),
            // The heartbeat reports all other errors.
            _ => Ok(()),
        }
    }
}

fn missing(id: &str) -> Error {
    Error::Corrupt {
        table: "meta",
        column: "value",
        id: id.to_owned(),
    }
}
