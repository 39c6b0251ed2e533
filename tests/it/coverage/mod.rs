//! Calls every RPC in the descriptors of the contract. Tests which callers are refused, with which
//! error, and what a change writes to the audit log. An RPC that has no row in the table fails a
//! test.

mod callers;
mod credentials;
mod paths;
pub mod table;

use std::collections::BTreeSet;

use stacktoken::auth::policy::RULES;

use self::table::TABLE;
use crate::support::raw::{methods, path_of};

const OPEN: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.health.v1.Health/List",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// RPCs that are not in our own descriptors. The only one is `Check` of Envoy's `Authorization`.
const FOREIGN: [&str; 1] = ["/envoy.service.auth.v3.Authorization/Check"];

fn of_the_contract() -> BTreeSet<String> {
    methods().iter().map(path_of).collect()
}

/// Returns every RPC that needs a credential.
fn guarded() -> BTreeSet<String> {
    let foreign = FOREIGN.map(str::to_owned);
    of_the_contract().into_iter().chain(foreign).collect()
}

#[test]
fn every_rpc_of_the_contract_has_a_row_here() {
    let rows: BTreeSet<_> = TABLE.iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(rows, guarded());
    assert_eq!(rows.len(), TABLE.len(), "a row is duplicated");
}

#[test]
fn the_policy_has_exactly_the_rpcs_that_are_served() {
    let mut served = guarded();
    served.extend(OPEN.map(str::to_owned));
    let ruled: BTreeSet<_> = RULES.iter().map(|rule| rule.path.to_owned()).collect();
    assert_eq!(ruled, served);
    assert_eq!(ruled.len(), RULES.len(), "a rule is duplicated");
}

#[test]
fn the_policy_knows_which_rpcs_change_something() {
    for row in TABLE {
        let rule = stacktoken::auth::policy::rule(row.path).unwrap();
        assert_eq!(rule.changes, row.changes, "{}", row.path);
    }
}
