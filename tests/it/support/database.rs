//! Direct access to the SQLite file, to do what an operator with a shell could do to it.

use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};

use super::TestServer;

/// A separate connection to the database of a server.
pub struct DirectConnection(DatabaseConnection);

impl TestServer {
    /// Opens a separate connection to the server's database.
    pub async fn outside(&self) -> DirectConnection {
        DirectConnection::of(&self.database()).await
    }
}

impl DirectConnection {
    /// Opens a database that a server may have open too.
    pub async fn of(file: &std::path::Path) -> Self {
        let url = format!("sqlite://{}?mode=rw", file.display());
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        Self(Database::connect(options).await.unwrap())
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.0.close().await.unwrap();
    }

    /// Executes statements.
    pub async fn run(&self, sql: &str) {
        self.0.execute_unprepared(sql).await.unwrap();
    }

    /// Executes statements. Returns the error message if one of them fails.
    pub async fn try_run(&self, sql: &str) -> Result<(), String> {
        let done = self.0.execute_unprepared(sql).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Makes the schema unreadable to every other connection.
    pub async fn corrupt(&self) {
        self.run(
            "PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = 'CREATE TABEL' || substr(sql, 13) WHERE name = 'tokens'; \
             PRAGMA schema_version = 1000000;",
        )
        .await;
    }

    /// Makes the schema readable again.
    pub async fn restore(&self) {
        self.run(
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE' || substr(sql, 13) WHERE name = 'tokens'; \
             PRAGMA schema_version = 1000001; \
             PRAGMA writable_schema = OFF;",
        )
        .await;
    }

    /// Returns the first column of every row, as text.
    async fn texts(&self, sql: &str) -> Vec<String> {
        let statement = sea_orm::Statement::from_string(self.0.get_database_backend(), sql);
        let rows = self.0.query_all_raw(statement).await.unwrap();
        rows.iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect()
    }

    /// Returns every row of every table, except the heartbeat and the refusals, which are written
    /// asynchronously.
    pub async fn dump(&self) -> String {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' \
                   AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let mut dump = Vec::new();
        for table in self.texts(sql).await {
            let sql = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid");
            let columns = self.texts(&sql).await.into_iter();
            let columns: Vec<_> = columns.map(|name| format!("quote({name})")).collect();
            let but = match table.as_str() {
                "meta" => "WHERE name <> 'heartbeat'",
                "audit_events" => "WHERE refusal_reason IS NULL",
                _ => "",
            };
            let row = columns.join(" || ',' || ");
            let sql = format!("SELECT '{table}: ' || {row} AS row FROM {table} {but} ORDER BY 1");
            dump.extend(self.texts(&sql).await);
        }
        dump.join("\n")
    }

    /// Returns the first column of the first row, as a number.
    pub async fn number(&self, sql: &str) -> i64 {
        let backend = self.0.get_database_backend();
        let statement = sea_orm::Statement::from_string(backend, sql);
        let row = self.0.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }
}

/// Returns the result of `PRAGMA integrity_check`. It is `ok` if the file is intact.
pub async fn integrity(path: &std::path::Path) -> String {
    let url = format!("sqlite://{}?mode=rw", path.display());
    let database = Database::connect(url).await.unwrap();
    let backend = database.get_database_backend();
    let statement = sea_orm::Statement::from_string(backend, "PRAGMA integrity_check");
    let row = database.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

/// Polls until `look` returns a value. Used for work that the server does after it has responded.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("timed out waiting for: {what}");
}
