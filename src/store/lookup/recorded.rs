//! Whether a database has the change that a revision names.

use sea_orm::Statement;

use crate::{
    domain::origin::Origin,
    store::{Error, Store, engine::evidence::first, engine::origin::origin_of},
};

/// The result of looking for a change.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Whether it has the change, or has purged it.
    pub found: bool,
    /// The database that answered.
    pub origin: Origin,
}

/// Returns the statement. It looks for the row, since the id alone proves nothing: a former primary
/// may have given the same id to a transaction that its successor never had.
pub(in crate::store) fn on_postgres(origin: &str) -> String {
    format!(
        "SELECT {origin}, \
         (EXISTS (SELECT 1 FROM changes WHERE changes.xid = $1::text::xid8) \
          OR $2 <= (SELECT value FROM meta WHERE name = 'purged')) AS found"
    )
}

impl Store {
    /// Looks for the change at a position. On PostgreSQL only: on SQLite no id is assigned twice.
    ///
    /// # Errors
    /// [`Error`] if the primary cannot be read.
    pub async fn find_change(&self, position: i64) -> Result<Recorded, Error> {
        let values = [position.to_string().into(), position.into()];
        let sql = &self.statements.find_change;
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let reader = self.pools.load().reader.clone();
        let rows = self.read_evidence(&reader, statement).await?;
        let row = first(&rows)?;
        Ok(Recorded {
            found: row.try_get("", "found")?,
            origin: origin_of(row)?,
        })
    }
}
