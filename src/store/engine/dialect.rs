//! Selects SQL text by engine. Code that differs in more than SQL text matches on `Location`,
//! `Dialect` or `DbBackend` itself. To find out whether other processes write to the same store,
//! use `Store::has_other_writers` instead.

use sea_orm::{
    DatabaseConnection, DbBackend,
    sea_query::{Expr, ExprTrait as _, Func, SimpleExpr},
};

use super::database_url::Location;

/// The SQL dialect of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres,
}

/// SQL text that differs between the engines.
#[derive(Clone, Copy)]
pub(in crate::store) struct PerEngine {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl PerEngine {
    /// Returns SQL text that only PostgreSQL needs.
    pub const fn on_postgres(postgres: &'static str) -> Self {
        let sqlite = "";
        Self { sqlite, postgres }
    }
}

impl Dialect {
    pub const fn of(location: &Location) -> Self {
        match location {
            Location::Sqlite(_) => Self::Sqlite,
            Location::Postgres(_) => Self::Postgres,
        }
    }

    pub fn of_pool(pool: &DatabaseConnection) -> Self {
        match pool.get_database_backend() {
            DbBackend::Sqlite => Self::Sqlite,
            _ => Self::Postgres,
        }
    }

    pub const fn backend(self) -> DbBackend {
        match self {
            Self::Sqlite => DbBackend::Sqlite,
            Self::Postgres => DbBackend::Postgres,
        }
    }

    /// Returns the name of the database system in OpenTelemetry's conventions.
    pub const fn system_name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }

    /// Returns the text for this engine.
    pub const fn pick(self, text: PerEngine) -> &'static str {
        match self {
            Self::Sqlite => text.sqlite,
            Self::Postgres => text.postgres,
        }
    }

    /// Returns an expression that is true if a string contains `part`, case-sensitively. LIKE would
    /// ignore case, and its wildcards would have to be escaped.
    pub fn contains(self, text: SimpleExpr, part: &str) -> SimpleExpr {
        let find = self.pick(PerEngine {
            sqlite: "INSTR",
            postgres: "STRPOS",
        });
        Func::cust(find).arg(text).arg(part).gt(0)
    }

    /// Returns the expression for a string member of a JSON object in a text column. It is null if
    /// the object has no such member. `name` must not contain a double quote or a backslash.
    pub fn json_member(self, object: SimpleExpr, name: &str) -> SimpleExpr {
        match self {
            Self::Postgres => Func::cust("jsonb_extract_path_text")
                .arg(object.cast_as("jsonb"))
                .arg(name)
                .into(),
            Self::Sqlite => Func::cust("json_extract")
                .arg(object)
                .arg(Expr::val(format!("$.\"{name}\"")))
                .into(),
        }
    }
}
