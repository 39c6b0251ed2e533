//! The verdict, computed from facts about a token, a question and the current time. The computation
//! is pure, so that tests, fuzzers and client libraries run exactly the same code as the service.
//! The contract defines the order of the checks. The first reason that applies is reported, and
//! every denial takes precedence over an allow.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use crate::{
    catalogue::{Action, ActionAccess, Catalogue, Fact, Module, Rule},
    id::{StackUid, TokenUid},
    labels::Labels,
    permissions::{Access, Permissions},
    timestamp::Timestamp,
};

/// Why a token is not recognized or is inactive, or why an action is denied. New reasons may be
/// added. A reason never allows anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract documents each; see reason.proto")]
pub enum Reason {
    NotRecognized,
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
    /// A reason that only newer servers know. [`evaluate`] never returns it.
    Unknown,
}

impl Reason {
    /// Returns the name of the reason in the contract, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRecognized => "NOT_RECOGNIZED",
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
            Self::Unknown => "UNKNOWN",
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
    /// The permissions of the secret. For the secret of a session, these are the permissions of the
    /// token, narrowed by those of the session.
    pub permissions: Permissions,
    /// The session to which the secret belongs. `None` unless the token is federated.
    pub session: Option<Box<SessionFacts>>,
}

/// Facts about a session of a federated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// The workload that started the session.
    pub subject: String,
    /// When the session was started.
    pub issued_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
    /// Whether the session was ended before `expires_at`.
    pub ended: bool,
}

impl Facts {
    /// Returns when the token expires, or its session if that is sooner. Returns `None` if neither
    /// expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let session = self.session.as_ref().map(|session| session.expires_at);
        [self.token.expires_at, session].into_iter().flatten().min()
    }
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
    /// The token's labels.
    pub labels: Labels,
    /// The generation of the secret that was presented.
    pub generation: u32,
    /// Whether a newer secret has replaced the presented one.
    pub superseded: bool,
    /// When the presented secret stops being valid because it was rotated. It can end earlier, at
    /// the first use of the new secret.
    pub ends_at: Option<Timestamp>,
    /// Whether the first use of the secret is recorded. Until it is, no answer may say that the
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
    /// The stack's API key.
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
/// if all of them are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionQuestion {
    /// The name of the action, `module.verb`. The action does not have to exist.
    pub name: String,
    /// The branch on which the request operates.
    pub branch: Option<String>,
    /// The branch alias that the request uses.
    pub branch_alias: Option<String>,
    /// Facts about the request, as the caller states them.
    pub facts: BTreeMap<String, bool>,
}

/// The answer to a question about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No token with this secret exists in the stack with this key. Nothing more may be disclosed.
    NotRecognized,
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
    /// `Ok` if the action is allowed. Otherwise the reason for the denial, and what is missing.
    pub denial: Result<(), Denial>,
}

/// Why an action is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason for the denial.
    pub reason: Reason,
    /// What would have to be granted or stated to allow the action. `None` if nothing would help.
    pub missing: Option<Missing>,
}

/// The first requirement that a denied action does not meet. There may be more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The maximum access of the token must be at least this access.
    Access(Access),
    /// The token must be granted this access to this module.
    Grant {
        /// The name of the module.
        module: Cow<'static, str>,
        /// The access to the module.
        access: Access,
    },
    /// The token must be granted this branch.
    Branch(String),
    /// The token must be granted this branch alias.
    BranchAlias(String),
    /// The question must name a branch or a branch alias.
    AnyBranch,
    /// The question must state this fact.
    Fact {
        /// The name of the fact.
        name: Cow<'static, str>,
        /// The value that the fact must have.
        value: bool,
    },
}

/// Formats the requirement for human-readable messages.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(access) => write!(f, "access:{}", access.name()),
            Self::Grant { module, access } => write!(f, "{module}:{}", access.name()),
            Self::Branch(name) => write!(f, "branch:{name}"),
            Self::BranchAlias(name) => write!(f, "branch_alias:{name}"),
            Self::AnyBranch => f.write_str("a branch or branch_alias in the question"),
            Self::Fact { name, value } => write!(f, "fact:{name}={value}"),
        }
    }
}

impl Verdict {
    /// Returns why the token is inactive, or why the first denied action is denied. Returns `None`
    /// if the token is active and all actions are allowed.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::NotRecognized => Some(Reason::NotRecognized),
            Self::Inactive(reason) => Some(*reason),
            Self::Active(results) => results
                .iter()
                .find_map(|result| result.denial.as_ref().err())
                .map(|denial| denial.reason),
        }
    }
}

/// Evaluates a presented secret, using the catalogue in effect. `facts` are the facts for the
/// secret's digest, or `None` if the digest is unknown.
#[must_use]
pub fn evaluate(
    catalogue: &Catalogue,
    facts: Option<&Facts>,
    stack_key: &str,
    questions: &[ActionQuestion],
    now: Timestamp,
) -> Verdict {
    let Some(facts) = facts.filter(|facts| facts.stack.key == stack_key) else {
        return Verdict::NotRecognized;
    };
    if let Some(reason) = why_inactive(facts, now) {
        return Verdict::Inactive(reason);
    }
    let result = |question: &ActionQuestion| ActionResult {
        name: question.name.clone(),
        denial: evaluate_action(catalogue, &facts.permissions, question),
    };
    Verdict::Active(questions.iter().map(result).collect())
}

fn why_inactive(facts: &Facts, now: Timestamp) -> Option<Reason> {
    let Facts { token, stack, .. } = facts;
    let session = facts.session.as_deref();
    if token.revoked || session.is_some_and(|session| session.ended) {
        Some(Reason::Revoked)
    } else if token.superseded || token.ends_at.is_some_and(|at| at <= now) {
        Some(Reason::Superseded)
    } else if token.ended || facts.expires_at().is_some_and(|at| at <= now) {
        Some(Reason::Expired)
    } else if stack.removed {
        Some(Reason::Revoked)
    } else if stack.suspended {
        Some(Reason::StackSuspended)
    } else {
        None
    }
}

fn evaluate_action(
    catalogue: &Catalogue,
    permissions: &Permissions,
    question: &ActionQuestion,
) -> Result<(), Denial> {
    let action = catalogue.find(&question.name).ok_or(Denial {
        reason: Reason::ActionUnknown,
        missing: None,
    })?;
    evaluate_rule(&action.rule, &question.facts)?;
    evaluate_access(permissions, action)?;
    evaluate_branch(permissions, action, question)
}

fn evaluate_rule(rule: &Rule, stated: &BTreeMap<String, bool>) -> Result<(), Denial> {
    let never = Denial {
        reason: Reason::NeverAllowed,
        missing: None,
    };
    match rule {
        Rule::Grantable => Ok(()),
        Rule::Never => Err(never),
        Rule::Conditional(Fact { name, value }) => match stated.get(name.as_ref()) {
            Some(stated) if stated == value => Ok(()),
            Some(_) => Err(never),
            None => Err(Denial {
                reason: Reason::FactMissing,
                missing: Some(Missing::Fact {
                    name: name.clone(),
                    value: *value,
                }),
            }),
        },
    }
}

fn evaluate_access(permissions: &Permissions, action: &Action) -> Result<(), Denial> {
    let needed = match action.access {
        ActionAccess::Read => Access::Read,
        ActionAccess::Write => Access::ReadWrite,
    };
    let grant = |module: &Module| Missing::Grant {
        module: module.to_name(),
        access: needed,
    };
    if permissions.access() < needed {
        return Err(Denial {
            reason: Reason::ReadOnly,
            missing: Some(Missing::Access(needed)),
        });
    }
    match permissions.access_to(&action.module) {
        None => Err(Denial {
            reason: Reason::ModuleNotGranted,
            missing: Some(grant(&action.module)),
        }),
        Some(access) if access < needed => Err(Denial {
            reason: Reason::ReadOnly,
            missing: Some(grant(&action.module)),
        }),
        Some(_) => Ok(()),
    }
}

fn evaluate_branch(
    permissions: &Permissions,
    action: &Action,
    question: &ActionQuestion,
) -> Result<(), Denial> {
    let (branch, alias) = (question.branch.as_deref(), question.branch_alias.as_deref());
    if !action.branch_bound || permissions.covers_branch(branch, alias) {
        return Ok(());
    }
    let missing = match (branch, alias) {
        (Some(name), _) => Missing::Branch(name.to_owned()),
        (None, Some(name)) => Missing::BranchAlias(name.to_owned()),
        (None, None) => Missing::AnyBranch,
    };
    Err(Denial {
        reason: Reason::BranchNotGranted,
        missing: Some(missing),
    })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
