//! Fixtures of the verdict tests: the facts of a live token, and helpers that evaluate questions
//! about it.

use std::sync::LazyLock;

use super::{
    super::{id, labels::Labels, permissions::Draft},
    *,
};

#[path = "verdict_tests_golden.rs"]
mod golden;
#[path = "verdict_tests_liveness.rs"]
mod liveness;
#[path = "verdict_tests_properties.rs"]
mod properties;

static BUILTIN: LazyLock<Catalogue> = LazyLock::new(Catalogue::builtin);

const KEY: &str = "blt00c0ffee00c0ffee";
const NOW: i64 = 1_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// Returns the facts of a live token in a live stack.
fn live(permissions: &Draft) -> Facts {
    Facts {
        token: TokenFacts {
            uid: id::parse("01890000-0000-7000-8000-000000000001").unwrap(),
            name: "ci".into(),
            labels: Labels::default(),
            generation: 1,
            superseded: false,
            ends_at: None,
            used: true,
            issued_at: at(0),
            expires_at: None,
            ended: false,
            revoked: false,
        },
        stack: StackFacts {
            uid: id::parse("01890000-0000-7000-8000-000000000002").unwrap(),
            key: KEY.into(),
            organization_uid: "org".into(),
            name: "Shop".into(),
            suspended: false,
            removed: false,
        },
        permissions: permissions.clone().try_into().unwrap(),
        session: None,
    }
}

fn unnarrowed(access: Access) -> Draft {
    Draft {
        access,
        modules: None,
        branches: None,
    }
}

fn ask(name: &str) -> ActionQuestion {
    ActionQuestion {
        name: name.into(),
        ..ActionQuestion::default()
    }
}

fn verdict(permissions: &Draft, questions: &[ActionQuestion]) -> Verdict {
    evaluate(&BUILTIN, Some(&live(permissions)), KEY, questions, at(NOW))
}

/// Returns why a live token with these permissions is denied an action, or `Ok` if it is allowed.
fn answer(permissions: &Draft, question: &ActionQuestion) -> Result<(), Denial> {
    match verdict(permissions, std::slice::from_ref(question)) {
        Verdict::Active(mut results) if results.len() == 1 => results.remove(0).denial,
        other => panic!("not one result of a live token: {other:?}"),
    }
}

/// Returns the name of the reason in the contract, without the prefix. It is written independently
/// of `Reason::name`.
const fn contract_name(reason: Reason) -> &'static str {
    match reason {
        Reason::NotRecognized => "NOT_RECOGNIZED",
        Reason::StackSuspended => "STACK_SUSPENDED",
        Reason::Revoked => "REVOKED",
        Reason::Expired => "EXPIRED",
        Reason::Superseded => "SUPERSEDED",
        Reason::NeverAllowed => "NEVER_ALLOWED",
        Reason::ActionUnknown => "ACTION_UNKNOWN",
        Reason::FactMissing => "FACT_MISSING",
        Reason::ReadOnly => "READ_ONLY",
        Reason::ModuleNotGranted => "MODULE_NOT_GRANTED",
        Reason::BranchNotGranted => "BRANCH_NOT_GRANTED",
        Reason::Unknown => panic!("no reason of the contract"),
    }
}
