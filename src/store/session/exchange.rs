//! Exchanges a workload's assertion for a session of a federated token.

use std::time::Duration;

use newtype_uuid::GenericUuid as _;
use sea_orm::{EntityTrait as _, Set};

use super::{
    assertions::{self, SingleUse},
    live::count_live,
};
use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    federation::{
        Federation, Obstacle,
        session::{SessionLimits, end_of_session, permitted},
    },
    id::{StackUid, TokenUid},
    permissions::Permissions,
    refusal::Refusal,
    revision::Revision,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::session,
    record::{Changed, Proof},
    stack::access::LockedStack,
    token::{
        rows::{corrupt, permissions_of, written},
        secrets::NewSecret,
    },
};

/// A request for a session.
pub struct StartSession {
    /// The stack.
    pub stack: StackUid,
    /// The federated token.
    pub token: TokenUid,
    /// The federation against which the assertion was checked. If the issuer or the rules of the
    /// token have changed since then, the exchange is refused.
    pub federation: Federation,
    /// The workload, identified by ids that its issuer assigned.
    pub subject: String,
    /// The requested maximum duration of the session.
    pub session_for: Option<Duration>,
    /// The permissions to which the session is limited. `None` for all permissions of the token.
    pub narrow: Option<Permissions>,
    /// The assertion, if it is valid for only one exchange.
    pub once: Option<SingleUse>,
    /// The limits on the number of live sessions.
    pub limits: SessionLimits,
}

/// A session that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedSession {
    /// The token.
    pub token: TokenUid,
    /// When the session ends.
    pub expires_at: Timestamp,
    /// The permissions of the session when it was started.
    pub permissions: Permissions,
}

impl Store {
    /// Starts a session. Everything that may have changed since the tokens of the stack were read
    /// is checked again under the lock of the stack. The lock also makes the limits on live
    /// sessions exact.
    ///
    /// # Errors
    /// Returns [`Refusal::ExchangeRefused`], [`Refusal::SessionLimit`], or another [`Error`] if the
    /// store fails.
    pub async fn exchange(
        &self,
        call: &Call,
        command: &StartSession,
        secret: &NewSecret,
    ) -> Result<(StartedSession, Revision), Error> {
        change_tx!(self, (command.stack), "exchange", |tx| {
            let stack = self.locked(tx, command.stack).await?;
            let token = self.token_to_exchange(tx, &stack, command).await?;
            let seen = match &command.once {
                Some(once) => assertions::find(tx, once.key).await?,
                None => None,
            };
            if let (Some(seen), Some(once)) = (seen, &command.once) {
                let session = assertions::session_to_resume(tx, &seen, token.uid, stack.at)
                    .await?
                    .filter(|_| seen.is_about(once));
                let session = session.ok_or(Refusal::ExchangeRefused(Obstacle::JwtReplayed))?;
                let again = resumed(&session, &token)?;
                // A refusal commits the transaction, so nothing may be written before the last
                // refusal.
                assertions::renew(tx, seen, secret).await?;
                let kind = Kind::Rotated;
                return self
                    .record_session(tx, call, (&stack, kind), command, again)
                    .await;
            }
            require_below_limits(tx, command, stack.at).await?;
            let permissions = permitted(&token.permissions, command.narrow.as_ref());
            let permissions = permissions.map_err(Refusal::ExchangeRefused)?;
            let started = StartedSession {
                token: token.uid,
                expires_at: end_of_session(
                    token.federation.as_ref().unwrap_or(&command.federation),
                    command.session_for,
                    token.expires_at,
                    stack.at,
                ),
                permissions,
            };
            // This is the last refusal. A refusal commits the transaction, so the session must not
            // be written before it.
            if let Some(once) = &command.once
                && !assertions::record(tx, once, secret, stack.at).await?
            {
                return Err(Refusal::ExchangeRefused(Obstacle::JwtReplayed).into());
            }
            insert(tx, command, &started, secret, stack.at).await?;
            let kind = Kind::Exchanged;
            self.record_session(tx, call, (&stack, kind), command, started)
                .await
        })
    }

    /// Loads the token, and checks that it can still be exchanged.
    async fn token_to_exchange(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        command: &StartSession,
    ) -> Result<Token, Error> {
        let refused = |obstacle| Error::from(Refusal::ExchangeRefused(obstacle));
        if stack.row.removed_at.is_some() {
            return Err(refused(Obstacle::NoSuchToken));
        }
        let token = match self.token_to_change(tx, stack, command.token).await {
            Err(Error::Refused(Refusal::TokenNotFound)) => {
                return Err(refused(Obstacle::NoSuchToken));
            }
            found => found?,
        };
        match token.state(stack.at) {
            TokenState::Active => {}
            TokenState::Revoked => return Err(refused(Obstacle::TokenRevoked)),
            TokenState::Expired => return Err(refused(Obstacle::TokenExpired)),
        }
        if stack.row.suspended_at.is_some() {
            return Err(refused(Obstacle::StackSuspended));
        }
        match &token.federation {
            Some(federation) if federation.admits_as(&command.federation) => {}
            // An owner has just changed the rules.
            _ => return Err(refused(Obstacle::RuleNotMatched)),
        }
        Ok(token)
    }

    async fn record_session(
        &self,
        tx: &Transaction,
        call: &Call,
        (stack, kind): (&LockedStack, Kind),
        command: &StartSession,
        started: StartedSession,
    ) -> Result<Changed<(StartedSession, Revision)>, Error> {
        let mut details = Details::from([
            ("issuer".into(), command.federation.issuer.clone()),
            ("subject".into(), command.subject.clone()),
            ("expires_at".into(), started.expires_at.to_string()),
            ("again".into(), (kind == Kind::Rotated).to_string()),
        ]);
        if let Some(narrow) = &command.narrow {
            details.insert("narrow".into(), written(narrow));
        }
        let about = (stack, Some(started.token));
        let both = (AuditAction::TokenExchange, kind);
        let recorded = self.record_change(tx, call, both, about, Record::from(details));
        let (revision, proof): (_, Proof) = recorded.await?;
        Ok(proof.with((started, revision)))
    }
}

/// Returns the session that a repeated exchange continues.
fn resumed(session: &session::Model, token: &Token) -> Result<StartedSession, Error> {
    let wrong = |column| corrupt("sessions", column, session.token_uid);
    let expires_at = Timestamp::from_micros(session.expires_at);
    let narrow = session.narrow.as_deref();
    let narrow = narrow.map(|narrow| permissions_of(narrow).ok_or_else(|| wrong("narrow")));
    let narrow = narrow.transpose()?;
    let permissions = permitted(&token.permissions, narrow.as_ref());
    Ok(StartedSession {
        token: TokenUid::from_untyped_uuid(session.token_uid),
        expires_at: expires_at.ok_or_else(|| wrong("expires_at"))?,
        permissions: permissions.map_err(Refusal::ExchangeRefused)?,
    })
}

/// Checks that the token and the workload may have another session. Under the lock of the stack,
/// the counts are exact.
async fn require_below_limits(
    tx: &Transaction,
    command: &StartSession,
    now: Timestamp,
) -> Result<(), Error> {
    let SessionLimits {
        of_token,
        of_subject,
    } = command.limits;
    for (subject, max) in [
        (None, of_token),
        (Some(command.subject.as_str()), of_subject),
    ] {
        if count_live(tx, command.token, subject, now).await? >= max {
            return Err(Refusal::SessionLimit { max }.into());
        }
    }
    Ok(())
}

async fn insert(
    tx: &Transaction,
    command: &StartSession,
    started: &StartedSession,
    secret: &NewSecret,
    now: Timestamp,
) -> Result<(), Error> {
    let row = session::ActiveModel {
        digest: Set(secret.digest.as_bytes().to_vec()),
        token_uid: Set(started.token.into_untyped_uuid()),
        subject: Set(command.subject.clone()),
        narrow: Set(command.narrow.as_ref().map(written)),
        issued_at: Set(now.as_micros()),
        expires_at: Set(started.expires_at.as_micros()),
        first_used_at: Set(None),
        ended_at: Set(None),
    };
    session::Entity::insert(row)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}
