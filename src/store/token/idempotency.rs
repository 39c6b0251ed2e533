//! Handles repeated requests with an idempotency key, which are needed because a response can get
//! lost. A repeated request returns the same token with a new secret, which replaces the lost one.
//! So no token is left without a known secret, and no secret is stored in plain text.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ActiveModelTrait as _, EntityTrait as _, QueryTrait as _, Set};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::TokenUid,
    refusal::Refusal,
    request::{Fingerprint, RETRY_FOR, Request},
    revision::Revision,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::{Affects, Transaction},
    entity::request,
    record::Proof,
    stack::access::LockedStack,
    token::rows::{corrupt, written, written_federation, written_labels},
    token::secrets::{self, NewSecret},
};

/// The result of a repeated request.
pub(in crate::store) struct Replayed {
    pub token: Token,
    pub overlap_ends_at: Option<Timestamp>,
    pub revision: Revision,
    pub proof: Proof,
}

impl Store {
    /// Returns the stored row of an earlier request by this caller with the same id, if there is
    /// one. Must be called under the lock of the stack, and before other checks of the request.
    pub(in crate::store) async fn find_request(
        &self,
        tx: &Transaction,
        call: &Call,
        (stack, action): (&LockedStack, AuditAction),
        request: Option<&Request>,
    ) -> Result<Option<request::Model>, Error> {
        let Some(request) = request else {
            return Ok(None);
        };
        let actor = &call.caller.actor;
        let key = (
            stack.row.uid,
            actor.issuer.clone(),
            actor.subject.clone(),
            action.name().to_owned(),
            request.id.clone(),
        );
        Ok(request::Entity::find_by_id(key).one(tx).await?)
    }

    /// Records the request and its result.
    pub(in crate::store) async fn record_request(
        &self,
        tx: &Transaction,
        call: &Call,
        (stack, action): (&LockedStack, AuditAction),
        request: Option<&Request>,
        (token, overlap_ends_at): (&Token, Option<Timestamp>),
    ) -> Result<(), Error> {
        let Some(request) = request else {
            return Ok(());
        };
        let actor = &call.caller.actor;
        let row = request::Model {
            stack_uid: stack.row.uid,
            caller_issuer: actor.issuer.clone(),
            caller_subject: actor.subject.clone(),
            rpc: action.name().to_owned(),
            request_id: request.id.clone(),
            content: request.content.as_bytes().to_vec(),
            token_uid: token.uid.into_untyped_uuid(),
            generation: secrets::column(token.generation),
            token_state: state_of(token),
            overlap_ends_at: overlap_ends_at.map(Timestamp::as_micros),
            first_seen_at: stack.at.as_micros(),
        };
        let row = request::Entity::insert(request::ActiveModel::from(row).reset_all());
        Ok(tx.write(row.build(self.backend()), Affects::Any).await?)
    }

    /// Handles a repeated request. A new secret replaces the lost one if the repetition is
    /// identical to the first request and recent, its secret was never used, and its token is
    /// unchanged. Otherwise the request is refused.
    pub(in crate::store) async fn replay(
        &self,
        tx: &Transaction,
        call: &Call,
        (stack, action): (&LockedStack, AuditAction),
        (find_request, request): (request::Model, Option<&Request>),
        secret: &NewSecret,
    ) -> Result<Replayed, Error> {
        let uid = TokenUid::from_untyped_uuid(find_request.token_uid);
        let reused = || Error::from(Refusal::RequestIdReused { token_uid: uid });
        let wrong = |column| corrupt("requests", column, find_request.token_uid);
        let first_seen = Timestamp::from_micros(find_request.first_seen_at);
        let first_seen = first_seen.ok_or_else(|| wrong("first_seen_at"))?;
        let same = request
            .is_some_and(|request| find_request.content == request.content.as_bytes().as_slice());
        if !same || stack.at.since(first_seen) > RETRY_FOR {
            return Err(reused());
        }
        let before = self.token_to_change(tx, stack, uid).await?;
        let untouched = before.state(stack.at) == TokenState::Active
            && state_of(&before) == find_request.token_state;
        if before.federation.is_some() {
            return self.replay_secretless(tx, untouched, before).await;
        }
        if !untouched || !secrets::end_unused(tx, (uid, find_request.generation), stack.at).await? {
            return Err(reused());
        }
        let mut kept = before.clone();
        kept.secrets.end(kept.generation);
        let after = secrets::renew(tx, kept, secret, stack.at).await?;
        let overlap_ends_at = find_request
            .overlap_ends_at
            .map(|micros| Timestamp::from_micros(micros).ok_or_else(|| wrong("overlap_ends_at")));
        let overlap_ends_at = overlap_ends_at.transpose()?;
        let mut row = request::ActiveModel::from(find_request);
        row.generation = Set(secrets::column(after.generation));
        row.token_state = Set(state_of(&after));
        row.update(tx).await?;
        let details = Details::from([("again".into(), true.to_string())]);
        let record = Record::changed(&before, &after).asked_by(request);
        let about = (stack, Some(uid));
        let (revision, proof) = self
            .record_change(
                tx,
                call,
                (action, Kind::Rotated),
                about,
                record.with(details),
            )
            .await?;
        Ok(Replayed {
            token: after,
            overlap_ends_at,
            revision,
            proof,
        })
    }
}

impl Store {
    /// Handles a repeated Issue of a federated token, which has no secret that could be lost.
    async fn replay_secretless(
        &self,
        tx: &Transaction,
        untouched: bool,
        token: Token,
    ) -> Result<Replayed, Error> {
        if !untouched {
            let token_uid = token.uid;
            return Err(Refusal::RequestIdReused { token_uid }.into());
        }
        Ok(Replayed {
            token,
            overlap_ends_at: None,
            revision: self.current_revision(tx).await?,
            proof: Proof::nothing_changed(),
        })
    }
}

/// Returns a fingerprint of everything in a token that a change could alter. It is used only for
/// comparison.
fn state_of(token: &Token) -> Vec<u8> {
    let ordinary = (
        token.name.as_str(),
        token.description.as_str(),
        written(&token.permissions),
        written_labels(&token.labels),
        token.expires_at.map(Timestamp::as_micros),
        token.revocation.is_some() || token.ended_at.is_some(),
        token.generation,
    );
    // Another replica may run the previous version, so a token without a federation must have the
    // same fingerprint as in that version.
    let parts = match written_federation(token.federation.as_ref()) {
        None => serde_json::to_vec(&ordinary),
        federation => serde_json::to_vec(&(ordinary, federation)),
    };
    let parts = parts.unwrap_or_default();
    Fingerprint::of(&parts).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{federation::Federation, token::tests::token};

    #[test]
    fn an_ordinary_token_has_the_fingerprint_of_the_version_before_federated_tokens() {
        let mut token = token(None);
        let (permissions, labels) = (written(&token.permissions), written_labels(&token.labels));
        let former = ("ci", "", permissions, labels, None::<i64>, false, 1);
        let former = Fingerprint::of(&serde_json::to_vec(&former).unwrap());
        assert_eq!(state_of(&token), former.as_bytes());
        token.federation = Some(Federation {
            issuer: "ci".to_owned(),
            rules: Vec::new(),
            session_for: std::time::Duration::from_mins(15),
        });
        assert_ne!(state_of(&token), former.as_bytes());
    }
}
