//! The database engine: location, connections, transactions, errors, the identity of the database,
//! and everything that differs between SQLite and PostgreSQL.

pub(in crate::store) mod clocks;
pub(in crate::store) mod database_url;
pub(in crate::store) mod embedded;
pub(in crate::store) mod error;
pub(in crate::store) mod evidence;
pub(in crate::store) mod origin;
pub(in crate::store) mod pool;
pub(in crate::store) mod reach;
pub(in crate::store) mod renewals;
pub(in crate::store) mod schema;
pub(in crate::store) mod shares;
pub(in crate::store) mod statements;
pub(in crate::store) mod transaction;
pub(in crate::store) mod trust;
pub(in crate::store) mod turns;
pub(in crate::store) mod writable;
