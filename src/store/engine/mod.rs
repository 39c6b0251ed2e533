//! The database engine: location, connections, transactions, errors, the identity of the database,
//! and most of the code that differs between SQLite and PostgreSQL. The rest of that code is in
//! `store/mod.rs`, `change_log`, `lookup` and the migrations.

pub(in crate::store) mod clocks;
pub(in crate::store) mod database_url;
pub(in crate::store) mod dialect;
pub(in crate::store) mod drift;
pub(in crate::store) mod embedded;
pub(in crate::store) mod error;
pub(in crate::store) mod evidence;
pub(in crate::store) mod operation;
pub(in crate::store) mod origin;
pub(in crate::store) mod permit_queues;
pub(in crate::store) mod pool;
pub(in crate::store) mod reach;
pub(in crate::store) mod read_limits;
pub(in crate::store) mod renewals;
pub(in crate::store) mod schema;
pub(in crate::store) mod statements;
pub(in crate::store) mod transaction;
pub(in crate::store) mod trust;
pub(in crate::store) mod writable;
