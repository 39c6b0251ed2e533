//! Converts rows to domain values and back. If a row cannot be parsed, an error names its table,
//! column and id. Invalid rows never cause a panic.

use newtype_uuid::GenericUuid as _;
use sea_orm::FromQueryResult;
use uuid::Uuid;

use crate::domain::{
    caller::{Actor, CallerKind},
    federation::Federation,
    id::{StackUid, TokenUid},
    labels::Labels,
    permissions::{Draft, Permissions},
    stack::{Member, Person, Role, Stack, StackKey, StackState, TokenLimit},
    text::{Description, Email, Issuer, Reason, StackName, Subject, TokenName},
    timestamp::Timestamp,
    token::{Revocation, Token},
    token_secret::TokenSecrets,
};
use crate::store::{
    Error,
    entity::{member, stack, token},
};

/// Returns the error for a row that cannot be parsed.
pub(in crate::store) fn corrupt(table: &'static str, column: &'static str, id: Uuid) -> Error {
    Error::Corrupt {
        table,
        column,
        id: id.to_string(),
    }
}

/// Returns the person in a member's row.
pub(in crate::store) fn person_of(row: &member::Model) -> Result<Person, Error> {
    let wrong = |column| move |_| corrupt("stack_members", column, row.stack_uid);
    Ok(Person {
        issuer: Issuer::parse(&row.issuer).map_err(wrong("issuer"))?,
        subject: Subject::parse(&row.subject).map_err(wrong("subject"))?,
        email: row
            .email
            .as_deref()
            .map(Email::parse)
            .transpose()
            .map_err(wrong("email"))?,
    })
}

impl TryFrom<member::Model> for Member {
    type Error = Error;

    fn try_from(row: member::Model) -> Result<Self, Error> {
        let wrong = |column| corrupt("stack_members", column, row.stack_uid);
        Ok(Self {
            person: person_of(&row)?,
            role: Role::from_name(&row.role).ok_or_else(|| wrong("role"))?,
            added_at: Timestamp::from_micros(row.added_at).ok_or_else(|| wrong("added_at"))?,
        })
    }
}

/// Converts a row to a stack. The caller supplies the owner and the number of live tokens, which
/// come from other tables.
pub(in crate::store) fn stack(
    row: stack::Model,
    owner: &member::Model,
    used: u32,
) -> Result<Stack, Error> {
    let wrong = |column| corrupt("stacks", column, row.uid);
    let registered_at = Timestamp::from_micros(row.registered_at);
    Ok(Stack {
        uid: StackUid::from_untyped_uuid(row.uid),
        key: StackKey::parse(&row.key).map_err(|_| wrong("key"))?,
        name: StackName::parse(&row.name).map_err(|_| wrong("name"))?,
        state: stack_state(&row)?,
        owner: person_of(owner)?,
        limit: TokenLimit {
            used,
            max: u32::try_from(row.token_limit).map_err(|_| wrong("token_limit"))?,
        },
        registered_at: registered_at.ok_or_else(|| wrong("registered_at"))?,
        organization_uid: row.organization_uid,
    })
}

/// Returns the state of the stack in a row.
pub(in crate::store) fn stack_state(row: &stack::Model) -> Result<StackState, Error> {
    let instant = |micros, column| {
        Timestamp::from_micros(micros).ok_or_else(|| corrupt("stacks", column, row.uid))
    };
    Ok(match (row.removed_at, row.suspended_at) {
        (Some(at), _) => StackState::Removed {
            at: instant(at, "removed_at")?,
        },
        (None, Some(at)) => StackState::Suspended {
            at: instant(at, "suspended_at")?,
        },
        (None, None) => StackState::Active,
    })
}

/// Serializes permissions for the column in which they are stored.
pub(in crate::store) fn written(permissions: &Permissions) -> String {
    serde_json::to_string(&permissions.draft()).unwrap_or_default()
}

/// Parses permissions from the column in which they are stored. Returns `None` if they cannot be
/// parsed.
pub(in crate::store) fn permissions_of(text: &str) -> Option<Permissions> {
    let draft: Draft = serde_json::from_str(text).ok()?;
    Permissions::try_from(draft).ok()
}

/// Serializes labels for the column in which they are stored.
pub(in crate::store) fn written_labels(labels: &Labels) -> String {
    serde_json::to_string(labels).unwrap_or_default()
}

/// Parses labels from the column in which they are stored. Returns `None` if they cannot be parsed.
pub(in crate::store) fn labels_of(text: &str) -> Option<Labels> {
    Labels::parse(serde_json::from_str(text).ok()?).ok()
}

/// Serializes the federation of a token for the column in which it is stored.
pub(in crate::store) fn written_federation(federation: Option<&Federation>) -> Option<String> {
    federation.map(|federation| serde_json::to_string(federation).unwrap_or_default())
}

/// Parses the federation of a token. Returns `None` if it cannot be parsed.
#[expect(clippy::option_option, reason = "absent is not the same as wrong")]
pub(in crate::store) fn federation_of(text: Option<&str>) -> Option<Option<Federation>> {
    text.map_or(Some(None), |text| serde_json::from_str(text).ok().map(Some))
}

/// The row of a token, and the time when the token was last used.
#[derive(FromQueryResult)]
pub(in crate::store) struct TokenWithLastUse {
    #[sea_orm(nested)]
    pub row: token::Model,
    pub last_used_at: Option<i64>,
}

impl From<token::Model> for TokenWithLastUse {
    /// Wraps the row of a new token, which was never used.
    fn from(row: token::Model) -> Self {
        Self {
            row,
            last_used_at: None,
        }
    }
}

/// Converts a row and the secrets of its token to a token of the stack with this key.
pub(in crate::store) fn token_of(
    row: impl Into<TokenWithLastUse>,
    secrets: TokenSecrets,
    key: &StackKey,
) -> Result<Token, Error> {
    let TokenWithLastUse { row, last_used_at } = row.into();
    let wrong = |column| move || corrupt("tokens", column, row.uid);
    let instant = |micros, column| Timestamp::from_micros(micros).ok_or_else(wrong(column));
    let optional = |micros: Option<i64>, column| micros.map(|at| instant(at, column)).transpose();
    let kind = |name: &str, column| CallerKind::from_name(name).ok_or_else(wrong(column));
    let revocation = match row.revoked_at {
        None => None,
        Some(at) => Some(Revocation {
            at: instant(at, "revoked_at")?,
            by: Actor {
                kind: kind(
                    row.revoked_by_kind.as_deref().unwrap_or_default(),
                    "revoked_by_kind",
                )?,
                issuer: row.revoked_by_issuer.clone().unwrap_or_default(),
                subject: row.revoked_by_subject.clone().unwrap_or_default(),
            },
            reason: Reason::parse(&row.revoke_reason)
                .ok()
                .ok_or_else(wrong("revoke_reason"))?,
        }),
    };
    Ok(Token {
        uid: TokenUid::from_untyped_uuid(row.uid),
        stack_key: key.clone(),
        name: TokenName::parse(&row.name).ok().ok_or_else(wrong("name"))?,
        description: Description::parse(&row.description)
            .ok()
            .ok_or_else(wrong("description"))?,
        permissions: permissions_of(&row.permissions).ok_or_else(wrong("permissions"))?,
        labels: labels_of(&row.labels).ok_or_else(wrong("labels"))?,
        generation: u32::try_from(row.generation)
            .ok()
            .ok_or_else(wrong("generation"))?,
        issued_at: instant(row.issued_at, "issued_at")?,
        issued_by: Actor {
            kind: kind(&row.issued_by_kind, "issued_by_kind")?,
            issuer: row.issued_by_issuer.clone(),
            subject: row.issued_by_subject.clone(),
        },
        expires_at: optional(row.expires_at, "expires_at")?,
        ended_at: optional(row.ended_at, "ended_at")?,
        revocation,
        last_used_at: optional(last_used_at, "last_used_at")?,
        secrets,
        federation: federation_of(row.federation.as_deref()).ok_or_else(wrong("federation"))?,
        issuer_configured: false,
    })
}
