//! The verdict, computed from facts about a token, a question and the current time. The computation
//! is pure, so tests, fuzzers and client libraries run exactly the code that the service runs. The
//! contract defines the order of the checks. The first reason that applies is the answer, and every
//! denial takes precedence over an allow.

use std::collections::BTreeMap;

use crate::{
    catalogue::{self, Action, ActionAccess, Fact, Module, Rule},
    id::{StackUid, TokenUid},
    permissions::{Access, Permissions},
    timestamp::Timestamp,
};

/// Why a token is not recognised or is inactive, or why an action is denied. The set of reasons is
/// closed.
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
    /// Returns the name of the reason in the contract, without the prefix.
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

/// What the store knows about a presented secret. These are facts, not a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Facts about the token.
    pub token: TokenFacts,
    /// Facts about the stack to which the token belongs.
    pub stack: StackFacts,
    /// What the token may do.
    pub permissions: Permissions,
}

/// Facts about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold or not, each by itself"
)]
pub struct TokenFacts {
    /// The token's id.
    pub uid: TokenUid,
    /// The token's name.
    pub name: String,
    /// The generation of the secret that was presented.
    pub generation: u32,
    /// Whether a newer secret has replaced the presented one.
    pub superseded: bool,
    /// When the presented secret stops being valid because it was rotated. It can end earlier, at
    /// the first use of the new secret.
    pub ends_at: Option<Timestamp>,
    /// Whether the first use of the secret is recorded. Before that, no answer may say that the
    /// token is active.
    pub used: bool,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// When the token expires. `None` if it never expires.
    pub expires_at: Option<Timestamp>,
    /// Whether the token's expiry has been recorded, which makes it final (R8).
    pub ended: bool,
    /// Whether the token was revoked.
    pub revoked: bool,
}

/// Facts about the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFacts {
    /// The stack's id.
    pub uid: StackUid,
    /// The stack's public key.
    pub key: String,
    /// The organization that owns the stack.
    pub organization_uid: String,
    /// The stack's name.
    pub name: String,
    /// Whether the stack is suspended.
    pub suspended: bool,
    /// Whether the stack was removed.
    pub removed: bool,
}

/// A question whether one action is allowed. A request that needs several actions is allowed only
/// if all of them are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionQuestion {
    /// The name of the action, `module.verb`. The action need not exist.
    pub name: String,
    /// The branch on which the request works.
    pub branch: Option<String>,
    /// The branch alias that the request used.
    pub branch_alias: Option<String>,
    /// Facts about the request, as the caller states them.
    pub facts: BTreeMap<String, bool>,
}

/// The answer to a question about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No token with this secret exists in the stack with this key. Nothing more may be disclosed.
    NotRecognised,
    /// The token is inactive. The exact reason is disclosed, because the caller has proved
    /// possession of the secret.
    Inactive(Reason),
    /// The token is live. There is one result for each action in the question.
    Active(Vec<ActionResult>),
}

/// The result for one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// The name of the action, as in the question.
    pub name: String,
    /// `Ok` if the action is allowed. Otherwise, why it is denied and what is missing.
    pub denial: Result<(), Denial>,
}

/// Why an action is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason for the denial.
    pub reason: Reason,
    /// What would have to be granted or stated to allow the action. Empty if nothing would help.
    pub missing: String,
}

impl Verdict {
    /// Returns why the token is inactive, or why the first denied action is denied. Returns `None`
    /// if the token is active and all actions are allowed.
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

/// Evaluates a presented secret. `facts` are the facts for its digest, or `None` if the digest is
/// unknown.
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
