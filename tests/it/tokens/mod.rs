//! Tests `TokenService`. Each RPC has its own file, and so have rules that apply to several RPCs.

mod access;
mod death;
mod etag;
mod get;
mod get_usage;
mod given_up;
mod instant;
mod issue;
mod labels;
mod limit;
mod list;
mod list_stacks;
mod overlap;
mod people;
mod retry;
mod revoke;
mod rotate;
mod set_expiry;
mod together;
mod update;
