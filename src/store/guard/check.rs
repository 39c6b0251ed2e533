//! Compares the database with the mark, and renews the mark. Only rows of the change log decide: a
//! revision that a client sends is never compared with the mark.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement};
use tokio::time::timeout;

use super::{
    Guard, GuardError, JournalStats,
    mark::{GuardFile, Mark, Row, STALE},
    tail,
};
use crate::{
    domain::origin::Origin,
    store::{Error, Store, engine::dialect::PerEngine},
};

/// How long the database may take to answer.
const ANSWER_FOR: Duration = Duration::from_secs(5);
/// The name of the guard's number in `meta`.
const NAME: &str = "guard";

/// The state of a guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct GuardHealth {
    /// Whether the database is behind the mark.
    pub restored: bool,
    /// The figures of the journal.
    pub journal: JournalStats,
}

/// What the database says of itself.
struct Standing {
    epoch: i64,
    guard: Option<i64>,
    /// Whether a row that was looked for is neither there nor purged.
    lacks_row: bool,
}

/// Whether a row of the mark `v` is in the change log.
const FOUND: PerEngine = PerEngine {
    sqlite: "SELECT 1 FROM changes WHERE changes.id = v.p AND changes.changed_at = v.t",
    postgres: "SELECT 1 FROM changes \
        WHERE changes.xid = v.p::text::xid8 AND changes.changed_at = v.t",
};

/// The newest rows.
const NEWEST: PerEngine = PerEngine {
    sqlite: "SELECT id AS position, changed_at, \
        (SELECT value FROM meta WHERE name = 'epoch') AS epoch FROM changes \
        ORDER BY changes.id DESC LIMIT 32",
    postgres: "SELECT changes.xid::text::bigint AS position, changes.changed_at, \
        (SELECT value FROM meta WHERE name = 'epoch') AS epoch FROM changes \
        ORDER BY changes.xid DESC, changes.id DESC LIMIT 32",
};

const STANDBY: PerEngine = PerEngine {
    sqlite: "FALSE",
    postgres: "pg_catalog.pg_is_in_recovery()",
};

/// Which marks to compare with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// That of this process.
    Own,
    /// Those of all replicas, and the ends of their journals.
    All,
}

impl Store {
    /// Compares the database with the marks of all replicas. A database and a place that have no
    /// guard yet get one. If the database is behind a mark, nothing is answered or changed from now
    /// on, until it is not.
    ///
    /// # Errors
    /// Returns [`GuardError`] if the two do not belong together, or if one cannot be used.
    pub async fn check_guard(&self) -> Result<(), GuardError> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        self.compare_and_mark(guard, Marks::All).await
    }

    /// Compares the database with the mark of this process, and renews the mark. Call it every
    /// second. Returns `None` if the store has no guard.
    ///
    /// # Errors
    /// Returns [`GuardError`] if the mark could not be compared or renewed.
    pub async fn tend_guard(&self) -> Result<Option<GuardHealth>, GuardError> {
        let Some(guard) = &self.guard else {
            return Ok(None);
        };
        let marks = if guard.require_current().is_err() {
            Marks::All
        } else {
            Marks::Own
        };
        self.compare_and_mark(guard, marks).await?;
        Ok(self.guard_health())
    }

    /// The rows of the next mark are read before the comparison. If the database is restored in
    /// between, the comparison finds it behind the former mark, which then stays.
    async fn compare_and_mark(&self, guard: &Arc<Guard>, marks: Marks) -> Result<(), GuardError> {
        let (epoch, rows) = self.newest_rows().await?;
        match self.examine(guard, marks).await {
            // The rows were read before another epoch began, and may not exist in it.
            Ok(of) if epoch.is_some_and(|epoch| epoch != of.epoch) => Ok(()),
            Ok(of) => {
                let written_at = self.clock.now().as_micros();
                let mark = Mark {
                    of,
                    rows,
                    written_at,
                };
                renew_mark(guard, mark).await
            }
            Err(GuardError::Store(Error::RestoredFromPast)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the newest rows and the epoch in which they were read, which is `None` without rows.
    async fn newest_rows(&self) -> Result<(Option<i64>, Vec<Row>), Error> {
        let statement = Statement::from_string(self.backend(), self.dialect().pick(NEWEST));
        let control = self.pools.load().control.clone();
        let rows = answered(control.query_all_raw(statement)).await?;
        let row = |row: &QueryResult| -> Result<Row, Error> {
            let position = row.try_get("", "position")?;
            Ok((position, row.try_get("", "changed_at")?))
        };
        let epoch = rows.first().map(|row| row.try_get("", "epoch"));
        let read: Result<Vec<Row>, Error> = rows.iter().map(row).collect();
        Ok((epoch.transpose()?, read?))
    }

    /// Returns the state of the guard. `None` if the store has no guard.
    #[must_use]
    pub fn guard_health(&self) -> Option<GuardHealth> {
        let guard = self.guard.as_ref()?;
        Some(GuardHealth {
            restored: guard.require_current().is_err(),
            journal: guard.journal.stats(),
        })
    }

    /// Checks a database that has committed a heartbeat, before it is trusted. Without the place of
    /// the guard, no other database is trusted than the last one, because other replicas may know of
    /// rows that it lacks.
    pub(in crate::store) async fn require_not_restored(
        &self,
        origin: &Origin,
    ) -> Result<(), Error> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        let checked = guard.checked.load();
        if checked.as_ref().is_some_and(|checked| origin.is(checked)) {
            return guard.require_current();
        }
        match self.examine(guard, Marks::All).await {
            Ok(_) => {
                guard.checked.store(Some(Arc::new(origin.clone())));
                Ok(())
            }
            Err(GuardError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "another database cannot be compared with the guard");
                Err(Error::GuardUnavailable)
            }
        }
    }

    /// Compares the database with marks. Returns [`Error::RestoredFromPast`] if it is behind one.
    async fn examine(&self, guard: &Arc<Guard>, which: Marks) -> Result<GuardFile, GuardError> {
        let (file, rows) = read_place(guard, which).await?;
        let standing = self.standing(&rows).await?;
        let file = match (file, standing.guard) {
            (None, None) => return self.begin_guard(guard, standing.epoch).await,
            (None, Some(_)) => return Err(GuardError::Missing),
            (Some(file), Some(theirs)) if file.guard != theirs => {
                return Err(Error::OtherGuard.into());
            }
            (Some(file), _) => file,
        };
        let behind = file.epoch != standing.epoch || standing.lacks_row;
        guard.set_restored(behind);
        if behind {
            return Err(Error::RestoredFromPast.into());
        }
        // A database from before it was guarded is behind, unless it was not changed since.
        if standing.guard.is_none() {
            self.claim_for_guard(file.guard).await?;
        }
        guard.journal.belongs_to(file);
        Ok(file)
    }

    async fn standing(&self, rows: &[Row]) -> Result<Standing, Error> {
        let dialect = self.dialect();
        let listed = rows
            .iter()
            .map(|(position, at)| format!("({position}, {at})"));
        // The list must not be empty. Position 0 counts as purged.
        let listed: Vec<_> = listed.chain(["(0, 0)".to_owned()]).collect();
        let sql = format!(
            "WITH v (p, t) AS (VALUES {}) SELECT {} AS standby, \
             (SELECT value FROM meta WHERE name = 'epoch') AS epoch, \
             (SELECT value FROM meta WHERE name = '{NAME}') AS guard, \
             EXISTS (SELECT 1 FROM v WHERE v.p > \
             COALESCE((SELECT value FROM meta WHERE name = 'purged'), 0) \
             AND NOT EXISTS ({})) AS lacks_row",
            listed.join(", "),
            dialect.pick(STANDBY),
            dialect.pick(FOUND)
        );
        let row = self.ask_one(sql).await?;
        if row.try_get("", "standby")? {
            return Err(Error::NotPrimary);
        }
        Ok(Standing {
            epoch: row.try_get("", "epoch")?,
            guard: row.try_get("", "guard")?,
            lacks_row: row.try_get("", "lacks_row")?,
        })
    }

    async fn ask_one(&self, sql: String) -> Result<QueryResult, Error> {
        let statement = Statement::from_string(self.backend(), sql);
        let control = self.pools.load().control.clone();
        let row = answered(control.query_one_raw(statement)).await?;
        Ok(row.ok_or_else(|| DbErr::RecordNotFound("the meta table".to_owned()))?)
    }

    /// Begins a guard, unless another replica has meanwhile.
    async fn begin_guard(&self, guard: &Arc<Guard>, epoch: i64) -> Result<GuardFile, GuardError> {
        let file = self.new_guard_file(epoch)?;
        let creating =
            move |guard: &Guard| Ok::<_, GuardError>(file.create(&*guard.place, &guard.seal)?);
        guard.blocking(creating).await?;
        let Some(file) = read_place(guard, Marks::Own).await?.0 else {
            return Err(GuardError::Missing);
        };
        self.claim_for_guard(file.guard).await?;
        guard.journal.belongs_to(file);
        tracing::info!("the restore guard begins");
        Ok(file)
    }

    pub(super) fn new_guard_file(&self, epoch: i64) -> Result<GuardFile, Error> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        Ok(GuardFile {
            guard: i64::from_be_bytes(random),
            epoch,
        })
    }

    /// Returns the number of the guard that the database has.
    pub(super) async fn guard_of_database(&self) -> Result<Option<i64>, Error> {
        Ok(self.standing(&[]).await?.guard)
    }

    /// Records in the database which guard it has.
    pub(super) async fn claim_for_guard(&self, number: i64) -> Result<(), GuardError> {
        let insert = format!(
            "INSERT INTO meta (name, value) VALUES ('{NAME}', {number}) ON CONFLICT DO NOTHING"
        );
        let pools = self.pools.load_full();
        let claimed = pools.writer.execute_unprepared(&insert).await;
        claimed.map_err(Error::from)?;
        match self.standing(&[]).await?.guard {
            Some(found) if found == number => Ok(()),
            _ => Err(Error::OtherGuard.into()),
        }
    }
}

/// Waits for the database, but not for ever.
async fn answered<T>(query: impl Future<Output = Result<T, DbErr>>) -> Result<T, Error> {
    match timeout(ANSWER_FOR, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(DbErr::Custom("the database does not answer".to_owned()).into()),
    }
}

/// Writes the mark of this process if it has changed, or is about to become stale.
async fn renew_mark(guard: &Arc<Guard>, mark: Mark) -> Result<(), GuardError> {
    let former = guard.mark();
    let is_same = |former: &Mark| former.of == mark.of && former.rows == mark.rows;
    let is_recent = |former: &Mark| mark.written_at - former.written_at < STALE / 4;
    if former.is_some_and(|former| is_same(&former) && is_recent(&former)) {
        return Ok(());
    }
    guard.blocking(move |guard| guard.write_mark(mark)).await
}

impl Guard {
    fn write_mark(&self, mark: Mark) -> Result<(), GuardError> {
        let first = self.mark().is_none();
        mark.write(&*self.place, &self.seal, &self.replica)?;
        let stale = mark.written_at - STALE;
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
        if first {
            // The database was compared with all marks, so this one includes them.
            let marks = Mark::all(&*self.place, &self.seal)?;
            for (name, _) in marks.iter().filter(|(_, mark)| mark.written_at < stale) {
                self.place.remove(name)?;
            }
        }
        Ok(())
    }
}

/// Returns the guard of the place, and the rows that its database must have.
async fn read_place(
    guard: &Arc<Guard>,
    which: Marks,
) -> Result<(Option<GuardFile>, Vec<Row>), GuardError> {
    let read = move |guard: &Guard| {
        let mut marks: Vec<_> = guard.mark().into_iter().collect();
        if which == Marks::All {
            let all = Mark::all(&*guard.place, &guard.seal)?;
            marks.extend(all.into_iter().map(|(_, mark)| mark));
        }
        let Some(file) = guard.file()? else {
            return Ok((None, Vec::new()));
        };
        let marks = marks.into_iter().filter(|mark| mark.of == file);
        let mut rows: Vec<Row> = marks.flat_map(|mark| mark.rows).collect();
        rows.extend(guard.recent(file));
        if which == Marks::All {
            rows.extend(tail::rows(&*guard.place, &guard.seal, file)?);
        }
        Ok::<_, GuardError>((Some(file), rows))
    };
    guard.blocking(read).await
}

impl Guard {
    /// Runs what reads or writes the place on a thread for such work. One at a time, so that a place
    /// that hangs takes no more than one thread, however often the caller gives up.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, GuardError> + Send + 'static,
    ) -> Result<T, GuardError> {
        let turn = self.turn.clone().lock_owned().await;
        let guard = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&guard);
            drop(turn);
            done
        });
        let done = done.await;
        done.unwrap_or_else(|failed| Err(std::io::Error::other(failed).into()))
    }
}
