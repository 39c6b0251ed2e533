//! Checks every row of the golden table. Also checks that the table covers every reason to deny an
//! action, and every action that is not plainly grantable.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::*;

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
    facts: BTreeMap<String, String>,
    #[serde(default)]
    allow: bool,
    reason: Option<String>,
    #[serde(default)]
    missing: String,
}

impl Row {
    fn question(&self) -> ActionQuestion {
        let facts = self.facts.iter();
        ActionQuestion {
            name: self.action.clone(),
            branch: self.branch.clone(),
            branch_alias: self.branch_alias.clone(),
            facts: facts
                .map(|(name, value)| (name.clone(), value.parse().unwrap()))
                .collect(),
        }
    }

    /// Returns the expected reason and what is missing. Returns `None` if the action is allowed.
    fn expected(&self) -> Option<(&str, &str)> {
        let reason = self.reason.as_deref();
        assert_ne!(self.allow, reason.is_some(), "one answer: {self:?}");
        assert!(!self.allow || self.missing.is_empty(), "{self:?}");
        reason.map(|reason| (reason, self.missing.as_str()))
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
        let actual = denial
            .as_ref()
            .map(|denial| (contract_name(denial.reason), denial.missing.as_str()));
        assert_eq!(actual, row.expected(), "{row:?}");
    }
}

#[test]
fn golden_table_asks_each_question_once_and_uses_every_set() {
    let table = table();
    assert!(table.rows.len() >= 60, "{} rows", table.rows.len());
    assert_eq!(table.catalogue_version, catalogue::VERSION);
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
            .any(|row| row.action == action.name && row.reason.as_deref() == reason)
    };
    for action in catalogue::ACTIONS {
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
