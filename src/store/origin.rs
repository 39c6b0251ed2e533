//! The identity of the database that answers, asked for in the same statement as the answer.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement};

use super::{Error, Store, error::code_of, migration::TABLE_IDS, transaction::Transaction};
use crate::domain::{origin::Origin, timestamp::Timestamp};

/// A heartbeat that was committed.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Which database it was committed on.
    pub origin: Origin,
    /// What time it was there, by its own clock.
    pub clock: Timestamp,
}

/// What a database says of itself, where this role may ask: a managed service can refuse it.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a service refuses each on its own"
)]
pub(super) struct Sources {
    /// The name of the database cluster.
    system: bool,
    timeline: bool,
    started: bool,
    /// Off only in a negative control.
    incarnation: bool,
    /// Off only in a negative control.
    tables: bool,
}

const SYSTEM: &str = "(SELECT system_identifier FROM pg_control_system())";
/// Not `pg_control_checkpoint()`, which lags behind a promotion.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() \
    THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) ELSE '' END";
const STARTED: &str = "(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint";
/// The clock of the database, which is read anew within one transaction.
pub(super) const CLOCK: &str = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint";

impl Sources {
    /// What SQLite has of all this.
    pub const NONE: Self = Self {
        system: false,
        timeline: false,
        started: false,
        incarnation: false,
        tables: false,
    };

    /// Finds out what this role may ask, and names what it may not.
    pub async fn of(connection: &DatabaseConnection) -> Result<Self, DbErr> {
        Ok(Self {
            system: may_ask(connection, SYSTEM).await?,
            timeline: may_ask(connection, TIMELINE).await?,
            started: may_ask(connection, STARTED).await?,
            incarnation: true,
            tables: true,
        })
    }

    /// Without the one or the other.
    pub const fn without(self, incarnation: bool, system: bool) -> Self {
        Self {
            system: self.system && !system,
            started: self.started && !incarnation,
            incarnation: !incarnation,
            tables: self.tables && !system,
            ..self
        }
    }

    /// What each statement asks for that somebody believes something by.
    pub fn columns(self) -> String {
        let timeline = if self.timeline { TIMELINE } else { "''" };
        let started = if self.started { STARTED } else { "0::bigint" };
        let incarnation = if self.incarnation {
            "(SELECT nonce FROM incarnation)"
        } else {
            "0::bigint"
        };
        let tables = if self.tables { TABLE_IDS } else { "0::bigint" };
        format!(
            "(pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on') AS standby, \
             {timeline} AS timeline, {started} AS started, \
             {incarnation} AS incarnation, {tables} AS tables, \
             current_setting('transaction_isolation') = 'read committed' AS up_to_date, \
             (SELECT value FROM meta WHERE name = 'epoch') AS epoch"
        )
    }

    /// The same, and what costs the reading of a file.
    pub fn all_columns(self) -> String {
        let system = if self.system { SYSTEM } else { "NULL::bigint" };
        let home_tables = if self.tables {
            "(SELECT value FROM meta WHERE name = 'tables')"
        } else {
            "NULL::bigint"
        };
        let columns = self.columns();
        format!(
            "{columns}, {system} AS system, \
             (SELECT value FROM meta WHERE name = 'system') AS home, {home_tables} AS home_tables"
        )
    }
}

/// The same on SQLite, where there is one store and nobody to take its place.
pub(super) const ON_SQLITE: &str = "\
    FALSE AS standby, '' AS timeline, 0 AS started, 0 AS incarnation, 0 AS tables, \
    TRUE AS up_to_date, \
    (SELECT value FROM meta WHERE name = 'epoch') AS epoch";
pub(super) const ALL_ON_SQLITE: &str = "NULL AS system, NULL AS home, NULL AS home_tables";

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

/// Insufficient privilege, no such function, or not supported.
fn refuses(error: &DbErr) -> bool {
    let codes = ["42501", "42883", "0A000"];
    code_of(error).is_some_and(|code| codes.contains(&code.as_str()))
}

/// The origin in a row of a statement with [`Sources::columns`]; only a primary's is believed.
pub(super) fn origin_of(row: &QueryResult) -> Result<Origin, Error> {
    if row.try_get("", "standby")? {
        return Err(Error::NotPrimary);
    }
    let incarnation: Option<i64> = row.try_get("", "incarnation")?;
    Ok(Origin {
        system: None,
        timeline: row.try_get("", "timeline")?,
        epoch: row.try_get("", "epoch")?,
        // Until a heartbeat has written one, nobody can tell before a crash from after it.
        incarnation: incarnation.ok_or(Error::Nameless)?,
        tables: row.try_get("", "tables")?,
        started: row.try_get("", "started")?,
    })
}

/// The same of one with [`Sources::all_columns`].
pub(super) fn full_origin_of(row: &QueryResult) -> Result<Origin, Error> {
    let origin = origin_of(row)?;
    let (system, home): (Option<i64>, Option<i64>) =
        (row.try_get("", "system")?, row.try_get("", "home")?);
    let home_tables: Option<i64> = row.try_get("", "home_tables")?;
    let elsewhere =
        |is: Option<i64>, home: Option<i64>| is.zip(home).is_some_and(|(is, home)| is != home);
    if elsewhere(system, home) || elsewhere(Some(origin.tables), home_tables) {
        return Err(Error::Foreign);
    }
    Ok(Origin { system, ..origin })
}

impl Store {
    /// That the store can be written: commits a heartbeat, so that a full disk, a lock or a
    /// primary that was cut off shows here before it shows to a caller. Tells which database
    /// committed it, and what time it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like; [`Error::Foreign`].
    pub async fn beat(&self, now: Timestamp) -> Result<Beat, Error> {
        let beat = match self.try_beat(now).await {
            Err(Error::Nameless) => {
                self.name_incarnation().await?;
                self.try_beat(now).await
            }
            beat => beat,
        };
        self.note(&beat);
        if let Ok(beat) = &beat {
            self.trust(&beat.origin);
            self.renewals.beaten();
        }
        self.require_file()?;
        beat
    }

    /// One statement that commits by itself: a replica that is paused holds no lock.
    async fn try_beat(&self, now: Timestamp) -> Result<Beat, Error> {
        let pools = self.pools.load_full();
        let beat = format!(
            "UPDATE meta SET value = {} {}",
            now.as_micros(),
            self.statements.beat
        );
        if !self.is_shared() {
            pools.writer.execute_unprepared(&beat).await?;
            let origin = Origin::sole(self.epoch());
            return Ok(Beat { origin, clock: now });
        }
        let rows = Transaction::run_alone(&pools.control, &beat).await?;
        let row = rows.last().ok_or_else(|| missing("heartbeat"))?;
        let clock = Timestamp::from_micros(row.try_get("", "clock")?);
        Ok(Beat {
            origin: full_origin_of(row)?,
            clock: clock.unwrap_or(now),
        })
    }

    /// Crash recovery and promotion have emptied the table: whoever comes first names the new
    /// incarnation.
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

    /// That this is the database that the history was made by: a copy has other transaction
    /// ids, by which positions of the history mean something else.
    ///
    /// # Errors
    /// [`Error::Foreign`], which names the command to run.
    pub async fn require_home(&self) -> Result<(), Error> {
        if !self.is_shared() {
            return Ok(());
        }
        let columns = self.statements.sources.all_columns();
        let sql = format!("SELECT {columns}");
        let statement = Statement::from_string(self.backend(), sql);
        let row = self.pools.load().control.query_one_raw(statement).await?;
        match full_origin_of(&row.ok_or_else(|| missing("epoch"))?) {
            Err(Error::Foreign) => Err(Error::Foreign),
            // What else is missing is for the heartbeat to find.
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
