//! Converts a response message to the verdict and the facts from which the server built it.

use std::collections::BTreeMap;

use newtype_uuid::TypedUuidKind;

use super::Error;
use crate::pb::v1::{self, action_requirement::Requirement};
use stacktoken_core::{
    id::{self, TokenUid},
    labels::Labels,
    permissions::{Access, Draft, DraftBranches, DraftGrant, Permissions},
    timestamp::Timestamp,
    verdict::{
        ActionResult, Denial, Facts, Missing, Reason, SessionFacts, StackFacts, TokenFacts, Verdict,
    },
};

/// The content of a response.
pub(super) struct ParsedAnswer {
    pub verdict: Verdict,
    /// The facts about the token; `Some` only if it is active.
    pub facts: Option<Facts>,
    /// The instant at which the server evaluated the token, or `None` if it was not recognized.
    pub evaluated_at: Option<Timestamp>,
}

pub(super) fn answer(message: v1::IntrospectResponse) -> Result<ParsedAnswer, Error> {
    let why = reason(message.reason);
    let evaluated_at = message.evaluated_at.map(instant).transpose()?;
    let inactive = |verdict| ParsedAnswer {
        verdict,
        facts: None,
        evaluated_at,
    };
    match (message.active, why) {
        (false, Some(Reason::NotRecognized)) => Ok(inactive(Verdict::NotRecognized)),
        (false, Some(reason)) => Ok(inactive(Verdict::Inactive(reason))),
        (false, None) => Err(unreadable("reason")),
        (true, _) => {
            let results = message.results.into_iter().map(result);
            let verdict = Verdict::Active(results.collect::<Result<_, _>>()?);
            // If the reason is a denial that no result explains, it must not be lost.
            if verdict.reason() != why {
                return Err(unreadable("reason"));
            }
            let uid = uid(&message.token_uid)?;
            let expires_at = message.expires_at.map(instant).transpose()?;
            let token_message = message.token.ok_or(unreadable("token"))?;
            let facts = Facts {
                token: token(uid, expires_at, token_message, message.labels)?,
                stack: stack(message.stack.ok_or(unreadable("stack"))?)?,
                permissions: permissions(message.permissions)
                    .ok_or_else(|| unreadable("permissions"))?,
                session: message.session.map(session).transpose()?,
            };
            Ok(ParsedAnswer {
                verdict,
                facts: Some(facts),
                evaluated_at,
            })
        }
    }
}

const fn unreadable(what: &'static str) -> Error {
    Error::Unreadable { what }
}

fn instant(at: prost_types::Timestamp) -> Result<Timestamp, Error> {
    Timestamp::from_parts(at.seconds, at.nanos).ok_or_else(|| unreadable("an instant"))
}

fn uid<K: TypedUuidKind>(text: &str) -> Result<newtype_uuid::TypedUuid<K>, Error> {
    id::parse(text).map_err(|_| unreadable("an id"))
}

/// Converts the facts of an active token. The message has no fields for a revocation or an end,
/// because an active token is neither revoked nor ended.
fn token(
    uid: TokenUid,
    expires_at: Option<Timestamp>,
    message: v1::TokenFacts,
    labels: BTreeMap<String, String>,
) -> Result<TokenFacts, Error> {
    let issued_at = message.issued_at.map(instant).transpose()?;
    Ok(TokenFacts {
        uid,
        name: message.name,
        labels: Labels::unchecked(labels),
        generation: message.generation,
        superseded: false,
        ends_at: message.superseded_at.map(instant).transpose()?,
        used: true,
        issued_at: issued_at.ok_or(unreadable("issued_at"))?,
        expires_at,
        ended: false,
        revoked: false,
    })
}

/// Converts the facts of a session. It has not ended, because its token is active.
fn session(message: v1::SessionFacts) -> Result<Box<SessionFacts>, Error> {
    let issued_at = message.issued_at.map(instant).transpose()?;
    let expires_at = message.expires_at.map(instant).transpose()?;
    Ok(Box::new(SessionFacts {
        subject: message.subject,
        issued_at: issued_at.ok_or(unreadable("session.issued_at"))?,
        expires_at: expires_at.ok_or(unreadable("session.expires_at"))?,
        ended: false,
    }))
}

fn stack(message: v1::StackFacts) -> Result<StackFacts, Error> {
    Ok(StackFacts {
        uid: uid(&message.stack_uid)?,
        key: message.stack_api_key,
        organization_uid: message.organization_uid,
        name: message.name,
        suspended: false,
        removed: false,
    })
}

fn permissions(message: Option<v1::Permissions>) -> Option<Permissions> {
    let message = message?;
    let grants = message.modules.map(|modules| modules.grants);
    let grant = |grant: v1::ModuleGrant| DraftGrant {
        access: access(grant.access()),
        module: grant.module,
    };
    let draft = Draft {
        access: known_access(message.access)?,
        modules: grants.map(|grants| grants.into_iter().map(grant).collect()),
        branches: message.branches.map(|named| DraftBranches {
            branches: named.branches,
            aliases: named.aliases,
        }),
    };
    // The permissions of a session can contain an empty list of modules or branches if narrowing
    // left nothing, which is not valid for the permissions of a token.
    Permissions::effective(draft).ok()
}

const fn access(message: v1::Access) -> Option<Access> {
    match message {
        v1::Access::Unspecified => None,
        v1::Access::Read => Some(Access::Read),
        v1::Access::ReadWrite => Some(Access::ReadWrite),
    }
}

fn result(message: v1::ActionResult) -> Result<ActionResult, Error> {
    let denial = match (message.allowed, reason(message.reason)) {
        (true, None) => Ok(()),
        (false, Some(reason)) => Err(Denial {
            reason,
            missing: message.missing.and_then(missing),
        }),
        _ => return Err(unreadable("results")),
    };
    let name = message.name;
    Ok(ActionResult { name, denial })
}

/// Converts the missing requirement. Returns `None` for a kind of requirement that this version
/// does not know.
fn missing(message: v1::ActionRequirement) -> Option<Missing> {
    Some(match message.requirement? {
        Requirement::Access(level) => Missing::Access(known_access(level)?),
        Requirement::Grant(grant) => Missing::Grant {
            access: known_access(grant.access)?,
            module: grant.module.into(),
        },
        Requirement::Branch(name) => Missing::Branch(name),
        Requirement::BranchAlias(name) => Missing::BranchAlias(name),
        Requirement::AnyBranch(_) => Missing::AnyBranch,
        Requirement::Fact(fact) => Missing::Fact {
            name: fact.name.into(),
            value: fact.value,
        },
    })
}

fn known_access(value: i32) -> Option<Access> {
    v1::Access::try_from(value).ok().and_then(access)
}

/// Converts a reason. A reason that this version does not know becomes [`Reason::Unknown`], which
/// is a denial like any other.
fn reason(value: i32) -> Option<Reason> {
    let Ok(known) = v1::Reason::try_from(value) else {
        return Some(Reason::Unknown);
    };
    Some(match known {
        v1::Reason::Unspecified => return None,
        v1::Reason::NotRecognized => Reason::NotRecognized,
        v1::Reason::StackSuspended => Reason::StackSuspended,
        v1::Reason::Revoked => Reason::Revoked,
        v1::Reason::Expired => Reason::Expired,
        v1::Reason::Superseded => Reason::Superseded,
        v1::Reason::NeverAllowed => Reason::NeverAllowed,
        v1::Reason::ActionUnknown => Reason::ActionUnknown,
        v1::Reason::FactMissing => Reason::FactMissing,
        v1::Reason::ReadOnly => Reason::ReadOnly,
        v1::Reason::ModuleNotGranted => Reason::ModuleNotGranted,
        v1::Reason::BranchNotGranted => Reason::BranchNotGranted,
    })
}
