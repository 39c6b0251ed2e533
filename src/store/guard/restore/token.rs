//! Ends again what had ended of one token.

use std::collections::BTreeSet;

use newtype_uuid::GenericUuid as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::Expr};

use super::{details, reason};
use crate::{
    domain::{
        audit::AuditAction,
        caller::Call,
        permissions::Permissions,
        rotation::SecretEnd,
        timestamp::Timestamp,
        token::{Token, TokenState},
    },
    store::{
        Error, Store,
        audit::append::Record,
        change_log::append::Kind,
        engine::transaction::Transaction,
        entity::{session, token_secret},
        guard::{fold::TokenFold, line::TokenAfter},
        session::live::is_live,
        stack::access::LockedStack,
        token::change::{UpdateGuard, update_token},
        token::rows::corrupt,
        token::secrets,
    },
};

/// The transaction of a restore, and the stack that it has locked.
pub(super) struct Restoring<'a> {
    pub store: &'a Store,
    pub tx: &'a Transaction,
    pub call: &'a Call,
    pub stack: &'a LockedStack,
}

impl Restoring<'_> {
    /// Ends again what had ended of a token. Returns what it ended.
    pub async fn end(
        &self,
        mut token: Token,
        fold: &TokenFold,
    ) -> Result<BTreeSet<&'static str>, Error> {
        let mut ended = BTreeSet::new();
        if token.state(self.stack.at) != TokenState::Active {
            return Ok(ended);
        }
        if fold.revoked {
            self.revoke(token).await?;
            ended.insert("revoked");
            return Ok(ended);
        }
        if self.end_sessions(&token, fold).await? {
            ended.insert("sessions ended");
        }
        if let Some(after) = fold.after()
            && self.narrow(&mut token, after).await?
        {
            ended.insert("permissions narrowed");
        }
        if self.end_secrets(&mut token, fold).await? {
            ended.insert("secret ended");
        }
        // Comes last, because what has expired cannot be changed.
        if self.bring_expiry_forward(token, fold).await? {
            ended.insert("expiry brought forward");
        }
        Ok(ended)
    }

    async fn record(
        &self,
        both: (AuditAction, Kind),
        (before, after): (&Token, &Token),
    ) -> Result<(), Error> {
        let record = Record::changed(before, after).with(details());
        let about = (self.stack, Some(after.uid));
        let recorded = self
            .store
            .record_change(self.tx, self.call, both, about, record);
        recorded.await.map(drop)
    }

    async fn revoke(&self, before: Token) -> Result<(), Error> {
        let by = self.call.caller.actor.clone();
        let after = before.clone().revoke(by, reason()?, self.stack.at);
        update_token(self.tx, &after, UpdateGuard::Live).await?;
        let both = (AuditAction::TokenRevoke, Kind::Revoked);
        self.record(both, (&before, &after)).await
    }

    /// Narrows the permissions to what the last change has left. What was permitted when that
    /// change was made stays permitted only if this database permits it too.
    async fn narrow(&self, token: &mut Token, last: &TokenAfter) -> Result<bool, Error> {
        let wrong = |_| corrupt("guard", "permissions", token.uid.into_untyped_uuid());
        let wanted = Permissions::try_from(last.permissions.clone()).map_err(wrong)?;
        let common = token.permissions.cut_by(&wanted);
        if common == token.permissions {
            return Ok(false);
        }
        let before = token.clone();
        // Permissions of a token cannot be empty.
        token.permissions = if common.permits_nothing() {
            wanted
        } else {
            common
        };
        update_token(self.tx, token, UpdateGuard::Live).await?;
        let both = (AuditAction::TokenUpdate, Kind::Updated);
        self.record(both, (&before, token)).await?;
        Ok(true)
    }

    async fn end_secrets(&self, token: &mut Token, fold: &TokenFold) -> Result<bool, Error> {
        let before = token.clone();
        let live: Vec<_> = before.secrets.live(self.stack.at).cloned().collect();
        for secret in live {
            if fold.has_ended(secret.generation) {
                self.end_secret(token, secret.generation).await?;
                continue;
            }
            let Some(ending) = end_of(fold, secret.generation) else {
                continue;
            };
            let known = secret.ending.unwrap_or(ending);
            let earlier = SecretEnd {
                at: known.at.min(ending.at),
                on_first_use: known.on_first_use || ending.on_first_use,
            };
            if secret.ending != Some(earlier) {
                let which = (token.uid, secret.generation);
                secrets::set_end(self.tx, which, earlier).await?;
                token.secrets.set_end(secret.generation, earlier);
            }
        }
        if *token == before {
            return Ok(false);
        }
        let both = (AuditAction::TokenEndOverlap, Kind::Superseded);
        self.record(both, (&before, token)).await?;
        Ok(true)
    }

    async fn end_secret(&self, token: &mut Token, generation: u32) -> Result<(), Error> {
        let now = self.stack.at.as_micros();
        token_secret::Entity::update_many()
            .col_expr(token_secret::Column::SupersededAt, Expr::value(now))
            .filter(token_secret::Column::TokenUid.eq(token.uid.into_untyped_uuid()))
            .filter(token_secret::Column::Generation.eq(secrets::column(generation)))
            .filter(token_secret::Column::SupersededAt.is_null())
            .exec(self.tx)
            .await?;
        token.secrets.end(generation);
        Ok(())
    }

    async fn end_sessions(&self, token: &Token, fold: &TokenFold) -> Result<bool, Error> {
        let Some(until) = fold.sessions_until else {
            return Ok(false);
        };
        let now = self.stack.at;
        let done = session::Entity::update_many()
            .col_expr(session::Column::EndedAt, Expr::value(now.as_micros()))
            .filter(session::Column::TokenUid.eq(token.uid.into_untyped_uuid()))
            .filter(session::Column::IssuedAt.lte(until))
            .filter(is_live(now))
            .exec(self.tx)
            .await?;
        if done.rows_affected == 0 {
            return Ok(false);
        }
        let both = (AuditAction::TokenEndSessions, Kind::SessionsEnded);
        let mut details = details();
        details.insert("ended".into(), done.rows_affected.to_string());
        let record = Record::from(details);
        let about = (self.stack, Some(token.uid));
        let recorded = self
            .store
            .record_change(self.tx, self.call, both, about, record);
        recorded.await.map(drop)?;
        Ok(true)
    }

    async fn bring_expiry_forward(&self, before: Token, fold: &TokenFold) -> Result<bool, Error> {
        let now = self.stack.at;
        let wanted = fold.after().and_then(|after| after.expires_at);
        let wanted = wanted.and_then(Timestamp::from_micros);
        let is_earlier = |wanted: &Timestamp| before.expires_at.is_none_or(|at| at > *wanted);
        let ended = fold.ended || fold.after().is_some_and(|after| after.ended);
        let mut after = before.clone();
        after.expires_at = wanted.filter(is_earlier).or(before.expires_at);
        if ended {
            after.expires_at = Some(after.expires_at.map_or(now, |at| at.min(now)));
        }
        if after.expires_at == before.expires_at {
            return Ok(false);
        }
        after.ended_at = after.expires_at.filter(|at| *at <= now).map(|_| now);
        update_token(self.tx, &after, UpdateGuard::Live).await?;
        let both = (AuditAction::TokenSetExpiry, Kind::Redated);
        self.record(both, (&before, &after)).await?;
        Ok(true)
    }
}

/// Returns the end of a secret that was in an overlap.
fn end_of(fold: &TokenFold, generation: u32) -> Option<SecretEnd> {
    let mut secrets = fold.after()?.secrets.iter();
    let secret = secrets.find(|secret| secret.generation == generation)?;
    Some(SecretEnd {
        at: Timestamp::from_micros(secret.ends_at?)?,
        on_first_use: secret.until_first_use,
    })
}
