//! Looks for the change to which a revision refers, to find out whether a database has it.

use crate::{
    domain::origin::Origin,
    store::{Error, Store, engine::evidence::first, engine::origin::origin_of},
};

/// The result of looking for a change.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Whether the database has the change, or has purged it.
    pub found: bool,
    /// The database that answered.
    pub origin: Origin,
}

/// Returns the statement for PostgreSQL. It looks for the row of the change, because the
/// transaction id alone proves nothing: a former primary may have assigned the same id to a
/// transaction that its successor never received.
pub(in crate::store) fn on_postgres(origin: &str) -> String {
    format!(
        "SELECT {origin}, \
         (EXISTS (SELECT 1 FROM changes WHERE changes.xid = $1::text::xid8) \
          OR $2 <= (SELECT value FROM meta WHERE name = 'purged')) AS found"
    )
}

impl Store {
    /// Looks for the change at a position. Only for PostgreSQL, because SQLite assigns no id twice.
    ///
    /// # Errors
    /// Returns [`Error`] if the primary cannot be read.
    pub async fn find_change(&self, position: i64) -> Result<Recorded, Error> {
        let values = || vec![position.to_string().into(), position.into()];
        let sql = &self.statements.find_change;
        let reader = self.pools.load().reader.clone();
        let rows = self.read_evidence(&reader, sql, values).await?;
        let row = first(&rows)?;
        Ok(Recorded {
            found: row.try_get("", "found")?,
            origin: origin_of(row)?,
        })
    }
}
