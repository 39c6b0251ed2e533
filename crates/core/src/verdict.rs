//! The verdict, computed from facts about a token, a question and an instant. The computation is
//! pure, so that tests, fuzzing and client libraries can exercise exactly what the service does.
//! The contract defines the order of the checks: the first match wins, and deny takes precedence
//! over allow.

use std::collections::BTreeMap;

use crate::{
    catalogue::{self, Action, ActionAccess, Fact, Module, Rule},
    id::{StackUid, TokenUid},
    permissions::{Access, Permissions},
    timestamp::Timestamp,
};

/// Why a verdict is not simply "active and allowed". The set is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract documents each; see reason.proto")]
pub enum Reason {
    NotRecognised,
    StackSuspended,
    Revoked,
    Expired,
    Superseded,
    NeverAllowed,
    ActionUnknown,
    FactMissing,
    ReadOnly,
    ModuleNotGranted,
    BranchNotGranted,
}

impl Reason {
    /// Returns the name in the contract, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRecognised => "NOT_RECOGNISED",
            Self::StackSuspended => "STACK_SUSPENDED",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Superseded => "SUPERSEDED",
            Self::NeverAllowed => "NEVER_ALLOWED",
            Self::ActionUnknown => "ACTION_UNKNOWN",
            Self::FactMissing => "FACT_MISSING",
            Self::ReadOnly => "READ_ONLY",
            Self::ModuleNotGranted => "MODULE_NOT_GRANTED",
            Self::BranchNotGranted => "BRANCH_NOT_GRANTED",
        }
    }
}

/// What the store knows about a presented secret: facts, never a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The token.
    pub token: TokenFacts,
    /// The stack it belongs to.
    pub stack: StackFacts,
    /// What it may do.
    pub permissions: Permissions,
}

/// Facts about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold or not, each by itself"
)]
pub struct TokenFacts {
    /// Its id.
    pub uid: TokenUid,
    /// Its name.
    pub name: String,
    /// The generation of the secret that was presented.
    pub generation: u32,
    /// Whether a newer secret has replaced the one presented.
    pub superseded: bool,
    /// The instant from which, at the latest, a newer secret replaces the one presented.
    pub ends_at: Option<Timestamp>,
    /// Whether the first use of the secret is recorded; until then no answer may say that it is
    /// active.
    pub used: bool,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Whether its expiry was applied, which is final (R8).
    pub ended: bool,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Facts about the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFacts {
    /// Its id.
    pub uid: StackUid,
    /// Its public key.
    pub key: String,
    /// The organization.
    pub organization_uid: String,
    /// Its name.
    pub name: String,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Whether it was removed.
    pub removed: bool,
}

/// A question about one action. All actions that are asked about must be allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionQuestion {
    /// `module.verb`, known or not.
    pub name: String,
    /// The branch that the request works on.
    pub branch: Option<String>,
    /// The branch alias that the request named.
    pub branch_alias: Option<String>,
    /// Facts about the request.
    pub facts: BTreeMap<String, bool>,
}

/// The answer to a question about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no such token with this stack key; nothing more may be disclosed.
    NotRecognised,
    /// The token is inactive. The caller has proved possession of it, so the reason is precise.
    Inactive(Reason),
    /// The token is live; there is one result per action asked.
    Active(Vec<ActionResult>),
}

/// The answer for one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// The name asked.
    pub name: String,
    /// `Ok` if the action is allowed; otherwise why it is denied and what is missing.
    pub denial: Result<(), Denial>,
}

/// Why an action is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason.
    pub reason: Reason,
    /// What would have to be granted or stated; empty if nothing would help.
    pub missing: String,
}

impl Verdict {
    /// Returns why the verdict is not a plain allow: for an active token, the reason of the first
    /// denied action.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::NotRecognised => Some(Reason::NotRecognised),
            Self::Inactive(reason) => Some(*reason),
            Self::Active(results) => results
                .iter()
                .find_map(|result| result.denial.as_ref().err())
                .map(|denial| denial.reason),
        }
    }
}

/// Evaluates a presented secret. `facts` are those of its digest, or `None` if that is unknown.
#[must_use]
pub fn evaluate(
    facts: Option<&Facts>,
    stack_key: &str,
    questions: &[ActionQuestion],
    now: Timestamp,
) -> Verdict {
    let Some(facts) = facts.filter(|facts| facts.stack.key == stack_key) else {
        return Verdict::NotRecognised;
    };
    if let Some(reason) = why_inactive(facts, now) {
        return Verdict::Inactive(reason);
    }
    let result = |question: &ActionQuestion| ActionResult {
        name: question.name.clone(),
        denial: judge(&facts.permissions, question),
    };
    Verdict::Active(questions.iter().map(result).collect())
}

fn why_inactive(facts: &Facts, now: Timestamp) -> Option<Reason> {
    let Facts { token, stack, .. } = facts;
    if token.revoked {
        Some(Reason::Revoked)
    } else if token.superseded || token.ends_at.is_some_and(|at| at <= now) {
        Some(Reason::Superseded)
    } else if token.ended || token.expires_at.is_some_and(|at| at <= now) {
        Some(Reason::Expired)
    } else if stack.removed {
        Some(Reason::Revoked)
    } else if stack.suspended {
        Some(Reason::StackSuspended)
    } else {
        None
    }
}

fn judge(permissions: &Permissions, question: &ActionQuestion) -> Result<(), Denial> {
    let action = catalogue::find(&question.name).ok_or(Denial {
        reason: Reason::ActionUnknown,
        missing: String::new(),
    })?;
    judge_rule(action.rule, &question.facts)?;
    judge_access(permissions, action)?;
    judge_branch(permissions, action, question)
}

fn judge_rule(rule: Rule, stated: &BTreeMap<String, bool>) -> Result<(), Denial> {
    let never = Denial {
        reason: Reason::NeverAllowed,
        missing: String::new(),
    };
    match rule {
        Rule::Grantable => Ok(()),
        Rule::Never => Err(never),
        Rule::Conditional(Fact { name, value }) => match stated.get(name) {
            Some(stated) if *stated == value => Ok(()),
            Some(_) => Err(never),
            None => Err(Denial {
                reason: Reason::FactMissing,
                missing: format!("fact:{name}={value}"),
            }),
        },
    }
}

fn judge_access(permissions: &Permissions, action: &Action) -> Result<(), Denial> {
    let needed = match action.access {
        ActionAccess::Read => Access::Read,
        ActionAccess::Write => Access::ReadWrite,
    };
    let grant = |module: Module| format!("{}:{}", module.name(), needed.name());
    if permissions.access() < needed {
        return Err(Denial {
            reason: Reason::ReadOnly,
            missing: format!("access:{}", needed.name()),
        });
    }
    match permissions.access_to(action.module) {
        None => Err(Denial {
            reason: Reason::ModuleNotGranted,
            missing: grant(action.module),
        }),
        Some(access) if access < needed => Err(Denial {
            reason: Reason::ReadOnly,
            missing: grant(action.module),
        }),
        Some(_) => Ok(()),
    }
}

fn judge_branch(
    permissions: &Permissions,
    action: &Action,
    question: &ActionQuestion,
) -> Result<(), Denial> {
    let (branch, alias) = (question.branch.as_deref(), question.branch_alias.as_deref());
    if !action.branch_bound || permissions.covers_branch(branch, alias) {
        return Ok(());
    }
    let missing = match (branch, alias) {
        (Some(name), _) => format!("branch:{name}"),
        (None, Some(name)) => format!("branch_alias:{name}"),
        (None, None) => "a branch or branch_alias in the question".to_owned(),
    };
    Err(Denial {
        reason: Reason::BranchNotGranted,
        missing,
    })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
