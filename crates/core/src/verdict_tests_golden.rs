//! Tests every row of the golden table. Also tests that the table covers every reason to deny an
//! action, and every action that is not simply grantable.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::super::catalogue::ACTIONS, *};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "about")]
    _about: Vec<String>,
    catalogue_version: String,
    permissions: BTreeMap<String, Draft>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    permissions: String,
    action: String,
    branch: Option<String>,
    branch_alias: Option<String>,
    #[serde(default)]
    facts: BTreeMap<String, bool>,
    #[serde(default)]
    allow: bool,
    reason: Option<String>,
    missing: Option<Value>,
}

impl Row {
    fn question(&self) -> ActionQuestion {
        ActionQuestion {
            name: self.action.clone(),
            branch: self.branch.clone(),
            branch_alias: self.branch_alias.clone(),
            facts: self.facts.clone(),
        }
    }

    /// Returns the expected reason and what is missing. Returns `None` if the action is allowed.
    fn expected(&self) -> Option<(&str, Option<Value>)> {
        let reason = self.reason.as_deref();
        assert_ne!(self.allow, reason.is_some(), "one answer: {self:?}");
        assert!(!self.allow || self.missing.is_none(), "{self:?}");
        reason.map(|reason| (reason, self.missing.clone()))
    }
}

/// Returns the requirement as JSON with the fields of `stacktoken.v1.ActionRequirement`.
fn json_of(missing: &Missing) -> Value {
    match missing {
        Missing::Access(access) => json!({ "access": access.name() }),
        Missing::Grant { module, access } => {
            json!({ "grant": { "module": module, "access": access.name() } })
        }
        Missing::Branch(name) => json!({ "branch": name }),
        Missing::BranchAlias(name) => json!({ "branch_alias": name }),
        Missing::AnyBranch => json!({ "any_branch": true }),
        Missing::Fact { name, value } => json!({ "fact": { "name": name, "value": value } }),
    }
}

fn table() -> Table {
    serde_json::from_str(include_str!("../tests/data/verdicts.json")).unwrap()
}

#[test]
fn every_golden_row_holds() {
    let table = table();
    for row in &table.rows {
        let denial = answer(&table.permissions[&row.permissions], &row.question()).err();
        let actual = denial.as_ref().map(|denial| {
            let missing = denial.missing.as_ref().map(json_of);
            (contract_name(denial.reason), missing)
        });
        assert_eq!(actual, row.expected(), "{row:?}");
    }
}

#[test]
fn golden_table_asks_each_question_once_and_uses_every_set() {
    let table = table();
    assert!(table.rows.len() >= 60, "{} rows", table.rows.len());
    assert_eq!(table.catalogue_version, BUILTIN.version());
    let mut asked = BTreeSet::new();
    for row in &table.rows {
        let question = format!("{} {:?}", row.permissions, row.question());
        assert!(asked.insert(question), "asked twice: {row:?}");
    }
    let used: BTreeSet<_> = table.rows.iter().map(|row| &row.permissions).collect();
    assert_eq!(used, table.permissions.keys().collect());
}

#[test]
fn golden_table_has_every_reason_that_an_action_can_have() {
    let rows = table().rows;
    let given: BTreeSet<_> = rows
        .iter()
        .filter_map(|row| row.reason.as_deref())
        .collect();
    let possible = [
        Reason::NeverAllowed,
        Reason::ActionUnknown,
        Reason::FactMissing,
        Reason::ReadOnly,
        Reason::ModuleNotGranted,
        Reason::BranchNotGranted,
    ];
    assert_eq!(given, possible.map(contract_name).into());
}

#[test]
fn golden_table_has_every_action_that_is_not_plainly_grantable() {
    let rows = table().rows;
    let has = |action: &Action, reason: Option<&str>| {
        rows.iter()
            .any(|row| row.action == *action.name && row.reason.as_deref() == reason)
    };
    for action in ACTIONS {
        let complete = match action.rule {
            Rule::Grantable => true,
            Rule::Never => has(action, Some("NEVER_ALLOWED")),
            Rule::Conditional(_) => {
                let outcomes = [None, Some("NEVER_ALLOWED"), Some("FACT_MISSING")];
                outcomes.into_iter().all(|reason| has(action, reason))
            }
        };
        assert!(complete, "{}", action.name);
    }
}
