//! One file per RPC; beside them what holds of all of them at once.

mod access;
mod death;
mod get;
mod given_up;
mod instant;
mod issue;
mod limit;
mod list;
mod people;
mod retry;
mod revoke;
mod rotate;
mod set_expiry;
mod update;
