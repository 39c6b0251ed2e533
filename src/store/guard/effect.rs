//! What the journal says of a change. The match over all kinds is exhaustive, and every row of the
//! change log is written together with the result, so no kind of change can be left out.

use super::line::{Effect, Secret, TokenAfter};
use crate::domain::{
    audit::{AuditAction, Change, Snapshot},
    stack::StackState,
    timestamp::Timestamp,
    token::Token,
};
use crate::store::change_log::append::Kind;

/// Returns what a change takes away. Returns `None` for a change that only gives.
pub(in crate::store) fn of(kind: Kind, action: AuditAction, change: &Change) -> Option<Effect> {
    match kind {
        Kind::Issued | Kind::Exchanged | Kind::Registered | Kind::LimitChanged => None,
        Kind::MembersChanged => Some(Effect::Members),
        Kind::Expired => Some(Effect::Expired),
        Kind::SessionsEnded => Some(Effect::SessionsEnded),
        Kind::Superseded => token(change).or_else(|| secrets(action, change)),
        // Only a repeated exchange has no token in its record. It replaces the secret of a session.
        Kind::Rotated => token(change).or(Some(Effect::SessionsEnded)),
        Kind::Updated | Kind::Redated | Kind::Revoked => token(change),
        Kind::Suspended | Kind::Resumed | Kind::Removed => stack(change),
    }
}

fn token(change: &Change) -> Option<Effect> {
    let Some(Snapshot::Token(after)) = &change.after else {
        return None;
    };
    let before = match &change.before {
        Some(Snapshot::Token(before)) => Some(before),
        _ => None,
    };
    let sessions_ended = before.is_some_and(|before| before.federation != after.federation);
    Some(Effect::Token(Box::new(token_after(after, sessions_ended))))
}

fn token_after(token: &Token, sessions_ended: bool) -> TokenAfter {
    let secrets = token.secrets.all().iter();
    let secrets = secrets.filter(|secret| !secret.superseded);
    TokenAfter {
        revoked: token.revocation.is_some(),
        ended: token.ended_at.is_some(),
        expires_at: token.expires_at.map(Timestamp::as_micros),
        permissions: token.permissions.draft(),
        generation: token.generation,
        secrets: secrets
            .map(|secret| Secret {
                generation: secret.generation,
                ends_at: secret.ending.map(|ending| ending.at.as_micros()),
                until_first_use: secret.ending.is_some_and(|ending| ending.on_first_use),
            })
            .collect(),
        sessions_ended,
    }
}

/// Returns which secrets a use or a presentation has ended. Its record has the generation of the
/// secret that was presented.
fn secrets(action: AuditAction, change: &Change) -> Option<Effect> {
    let generation = change.details.get("generation")?.parse().ok()?;
    Some(match action {
        AuditAction::TokenFirstUse => Effect::SecretsEndedBefore(generation),
        _ => Effect::SecretsEnded(vec![generation]),
    })
}

fn stack(change: &Change) -> Option<Effect> {
    let Some(Snapshot::Stack(after)) = &change.after else {
        return None;
    };
    Some(Effect::Stack {
        suspended: matches!(after.state, StackState::Suspended { .. }),
        removed: matches!(after.state, StackState::Removed { .. }),
    })
}
