//! The JSON form in which snapshots are stored. Its types are separate from the domain types, so
//! that the domain types can change while old rows stay readable. A new field needs a default.
//! Unknown fields, which a later version may have written, are ignored.

use std::collections::BTreeMap;

use newtype_uuid::GenericUuid as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    audit::Snapshot,
    caller::{Actor, CallerKind},
    federation::Federation,
    id::{StackUid, TokenUid},
    labels::Labels,
    permissions::{Draft, Permissions},
    rotation::SecretEnd,
    stack::{Member, Person, Role, Stack, StackKey, StackState, TokenLimit},
    text::{Description, Issuer, Reason, StackName, Subject, TokenName},
    timestamp::Timestamp,
    token::{Revocation, Token},
    token_secret::TokenSecret,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Token(Box<StoredToken>),
    Stack(Box<StoredStack>),
    Member(StoredMember),
}

#[derive(Serialize, Deserialize)]
struct StoredToken {
    uid: Uuid,
    stack_key: String,
    name: String,
    description: String,
    permissions: Draft,
    generation: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<StoredSecret>,
    issued_at: i64,
    issued_by: StoredActor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation: Option<StoredRevocation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    federation: Option<Federation>,
}

/// What is known about a secret, never the secret itself (R9).
#[derive(Serialize, Deserialize)]
struct StoredSecret {
    generation: u32,
    hint: String,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_used_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<i64>,
    #[serde(default)]
    until_first_use: bool,
    #[serde(default)]
    superseded: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredRevocation {
    at: i64,
    by: StoredActor,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct StoredActor {
    kind: String,
    issuer: String,
    subject: String,
}

#[derive(Serialize, Deserialize)]
struct StoredPerson {
    issuer: String,
    subject: String,
}

#[derive(Serialize, Deserialize)]
struct StoredStack {
    uid: Uuid,
    key: String,
    name: String,
    organization_uid: String,
    owner: StoredPerson,
    live_tokens: u32,
    max_tokens: u32,
    registered_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspended_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct StoredMember {
    person: StoredPerson,
    role: String,
    added_at: i64,
}

/// Serializes a snapshot.
pub(super) fn write(snapshot: &Snapshot) -> String {
    let stored = match snapshot {
        Snapshot::Token(token) => Stored::Token(Box::new(stored_token(token))),
        Snapshot::Stack(stack) => Stored::Stack(Box::new(stored_stack(stack))),
        Snapshot::Member(member) => Stored::Member(StoredMember {
            person: stored_person(&member.person),
            role: member.role.name().to_owned(),
            added_at: member.added_at.as_micros(),
        }),
    };
    serde_json::to_string(&stored).unwrap_or_default()
}

/// Parses a snapshot. Returns `None` if the text is not a stored snapshot.
pub(super) fn read(text: &str) -> Option<Snapshot> {
    Some(match serde_json::from_str(text).ok()? {
        Stored::Token(token) => Snapshot::Token(Box::new(token_of(*token)?)),
        Stored::Stack(stack) => Snapshot::Stack(Box::new(stack_of(*stack)?)),
        Stored::Member(member) => Snapshot::Member(Box::new(Member {
            person: person_of(&member.person)?,
            role: Role::from_name(&member.role)?,
            added_at: Timestamp::from_micros(member.added_at)?,
        })),
    })
}

fn stored_token(token: &Token) -> StoredToken {
    let revocation = token.revocation.as_ref();
    StoredToken {
        uid: token.uid.into_untyped_uuid(),
        stack_key: token.stack_key.to_string(),
        name: token.name.as_str().to_owned(),
        description: token.description.as_str().to_owned(),
        permissions: token.permissions.draft(),
        generation: token.generation,
        secrets: token.secrets.all().iter().map(stored_secret).collect(),
        issued_at: token.issued_at.as_micros(),
        issued_by: stored_actor(&token.issued_by),
        expires_at: token.expires_at.map(Timestamp::as_micros),
        ended_at: token.ended_at.map(Timestamp::as_micros),
        revocation: revocation.map(|revoked| StoredRevocation {
            at: revoked.at.as_micros(),
            by: stored_actor(&revoked.by),
            reason: revoked.reason.as_str().to_owned(),
        }),
        last_used_at: token.last_used_at.map(Timestamp::as_micros),
        labels: token.labels.to_map(),
        federation: token.federation.clone(),
    }
}

fn stored_secret(secret: &TokenSecret) -> StoredSecret {
    let ending = secret.ending;
    StoredSecret {
        generation: secret.generation,
        hint: secret.hint.clone(),
        created_at: secret.created_at.as_micros(),
        first_used_at: secret.first_used_at.map(Timestamp::as_micros),
        ends_at: ending.map(|ending| ending.at.as_micros()),
        until_first_use: ending.is_some_and(|ending| ending.on_first_use),
        superseded: secret.superseded,
    }
}

fn secret_of(stored: StoredSecret) -> Option<TokenSecret> {
    let on_first_use = stored.until_first_use;
    Some(TokenSecret {
        generation: stored.generation,
        hint: stored.hint,
        created_at: Timestamp::from_micros(stored.created_at)?,
        first_used_at: instant(stored.first_used_at)?,
        ending: instant(stored.ends_at)?.map(|at| SecretEnd { at, on_first_use }),
        superseded: stored.superseded,
    })
}

fn token_of(stored: StoredToken) -> Option<Token> {
    let secrets: Option<Vec<_>> = stored.secrets.into_iter().map(secret_of).collect();
    let revocation = match stored.revocation {
        None => None,
        Some(revoked) => Some(Revocation {
            at: Timestamp::from_micros(revoked.at)?,
            by: actor_of(revoked.by)?,
            reason: Reason::parse(&revoked.reason).ok()?,
        }),
    };
    Some(Token {
        uid: TokenUid::from_untyped_uuid(stored.uid),
        stack_key: StackKey::parse(&stored.stack_key).ok()?,
        name: TokenName::parse(&stored.name).ok()?,
        description: Description::parse(&stored.description).ok()?,
        permissions: Permissions::try_from(stored.permissions).ok()?,
        generation: stored.generation,
        secrets: secrets?.into(),
        issued_at: Timestamp::from_micros(stored.issued_at)?,
        issued_by: actor_of(stored.issued_by)?,
        expires_at: instant(stored.expires_at)?,
        ended_at: instant(stored.ended_at)?,
        revocation,
        last_used_at: instant(stored.last_used_at)?,
        labels: Labels::parse(stored.labels).ok()?,
        federation: stored.federation,
        issuer_configured: false,
    })
}

/// Converts an optional instant. The outer `None` means that the number is not an instant.
#[expect(clippy::option_option, reason = "absent is not the same as wrong")]
fn instant(micros: Option<i64>) -> Option<Option<Timestamp>> {
    micros.map_or(Some(None), |at| Timestamp::from_micros(at).map(Some))
}

fn stored_actor(actor: &Actor) -> StoredActor {
    StoredActor {
        kind: actor.kind.name().to_owned(),
        issuer: actor.issuer.clone(),
        subject: actor.subject.clone(),
    }
}

fn actor_of(stored: StoredActor) -> Option<Actor> {
    Some(Actor {
        kind: CallerKind::from_name(&stored.kind)?,
        issuer: stored.issuer,
        subject: stored.subject,
    })
}

fn stored_person(person: &Person) -> StoredPerson {
    StoredPerson {
        issuer: person.issuer.as_str().to_owned(),
        subject: person.subject.as_str().to_owned(),
    }
}

fn person_of(stored: &StoredPerson) -> Option<Person> {
    Some(Person {
        issuer: Issuer::parse(&stored.issuer).ok()?,
        subject: Subject::parse(&stored.subject).ok()?,
        email: None,
    })
}

fn stored_stack(stack: &Stack) -> StoredStack {
    let (suspended_at, removed_at) = match stack.state {
        StackState::Active => (None, None),
        StackState::Suspended { at } => (Some(at.as_micros()), None),
        StackState::Removed { at } => (None, Some(at.as_micros())),
    };
    StoredStack {
        uid: stack.uid.into_untyped_uuid(),
        key: stack.key.to_string(),
        name: stack.name.as_str().to_owned(),
        organization_uid: stack.organization_uid.clone(),
        owner: stored_person(&stack.owner),
        live_tokens: stack.limit.used,
        max_tokens: stack.limit.max,
        registered_at: stack.registered_at.as_micros(),
        suspended_at,
        removed_at,
    }
}

fn stack_of(stored: StoredStack) -> Option<Stack> {
    let state = match (instant(stored.removed_at)?, instant(stored.suspended_at)?) {
        (Some(at), _) => StackState::Removed { at },
        (None, Some(at)) => StackState::Suspended { at },
        (None, None) => StackState::Active,
    };
    Some(Stack {
        uid: StackUid::from_untyped_uuid(stored.uid),
        key: StackKey::parse(&stored.key).ok()?,
        name: StackName::parse(&stored.name).ok()?,
        organization_uid: stored.organization_uid,
        state,
        owner: person_of(&stored.owner)?,
        limit: TokenLimit {
            used: stored.live_tokens,
            max: stored.max_tokens,
        },
        registered_at: Timestamp::from_micros(stored.registered_at)?,
    })
}
