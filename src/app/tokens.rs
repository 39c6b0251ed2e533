//! Use cases for the life cycle of a token.

use super::{About, App, Error, Issue, ListQuery, Rotate, TokenPage};
use crate::{
    domain::{
        audit::AuditAction,
        caller::Call,
        edit::Edit,
        etag::Target,
        id::TokenUid,
        impact::Impact,
        request::Request,
        revision::Revision,
        secret::Secret,
        stack::StackKey,
        text::Reason,
        timestamp::Timestamp,
        token::{Expiry, Token},
    },
    store::{self, NewSecret},
};

/// A newly issued token with its secret, which is shown only once (R9).
pub struct Issued {
    /// The token.
    pub token: Token,
    /// Whether an earlier request with the same id issued the token.
    pub is_repetition: bool,
    /// The secret of the token; `None` in a preview, and if the token is federated.
    pub secret: Option<Secret>,
    /// Revision that includes this change; `None` in a preview.
    pub revision: Option<Revision>,
}

/// A token that was just rotated, with its new secret, which is shown only once (R9).
pub struct Rotated {
    /// The token, and when its former secret stops working.
    pub rotated: store::Rotated,
    /// The new secret; `None` in a preview.
    pub secret: Option<Secret>,
    /// Revision that includes this change; `None` in a preview.
    pub revision: Option<Revision>,
}

/// Returns the parts of a secret that the store keeps: the digest and the hint.
pub(super) fn new_secret(secret: &Secret) -> NewSecret {
    NewSecret {
        digest: secret.digest(),
        hint: secret.hint().to_owned(),
    }
}

/// Identifies a token: the key of its stack and its id.
pub type Key<'a> = (&'a StackKey, TokenUid);

const fn key_of(target: &Target) -> Key<'_> {
    (&target.stack_key, target.uid)
}

pub(super) fn about((stack, uid): Key<'_>) -> About {
    About {
        stack_key: Some(stack.to_string()),
        token_uid: Some(uid.to_string()),
        request_id: None,
    }
}

pub(super) fn about_stack(stack: &StackKey) -> About {
    About {
        stack_key: Some(stack.to_string()),
        ..About::default()
    }
}

fn id_of(request: Option<&Request>) -> Option<String> {
    request.map(|request| request.id.clone())
}

impl App {
    /// Issues a token.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the stack is at its token limit (R6) or suspended, or if
    /// the name is taken.
    pub async fn issue(&self, call: &Call, command: &Issue) -> Result<Issued, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.issue(call, command, &new_secret(&secret)).await;
        self.note_change(call, &done);
        let about = About {
            request_id: id_of(command.request.as_ref()),
            ..about_stack(&command.stack_key)
        };
        let (issued, revision) =
            self.settle_change(call, (AuditAction::TokenIssue, about), done)?;
        Ok(Issued {
            token: self.with_use(issued.token),
            is_repetition: issued.is_repetition,
            secret: (!call.previews() && command.federation.is_none()).then_some(secret),
            revision,
        })
    }

    /// Returns a token, and the number of its live sessions.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, call: &Call, (stack, uid): Key<'_>) -> Result<(Token, u32), Error> {
        let now = self.clock.now();
        let done = self.store.get_with_sessions(call, (stack, uid), now).await;
        let done = done.map(|(token, sessions)| (self.with_use(token), sessions));
        self.settle(call, (AuditAction::TokenGet, about((stack, uid))), done)
    }

    /// Returns a page of tokens.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, call: &Call, query: &ListQuery) -> Result<TokenPage, Error> {
        let done = self.store.list(call, query).await;
        let done = done.map(|page| self.with_uses(page, query.filter.unused_since));
        let about = query.stack_key.as_ref().map(about_stack);
        let place = (AuditAction::TokenList, about.unwrap_or_default());
        self.settle(call, place, done)
    }

    /// Changes the name, description, permissions, labels or federation of a token.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8), or has changed since the caller
    /// read it.
    pub async fn update(
        &self,
        call: &Call,
        target: &Target,
        edit: &Edit,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.update(call, target, edit).await;
        let place = (AuditAction::TokenUpdate, about(key_of(target)));
        let (token, revision) = self.settle_maybe_changed(call, place, done)?;
        Ok((self.with_use(token), revision))
    }

    /// Changes when a token expires.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8), or has changed since the caller
    /// read it.
    pub async fn set_expiry(
        &self,
        call: &Call,
        target: &Target,
        expiry: Expiry,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.set_expiry(call, target, expiry).await;
        self.note_change(call, &done);
        let place = (AuditAction::TokenSetExpiry, about(key_of(target)));
        let (token, revision) = self.settle_change(call, place, done)?;
        Ok((self.with_use(token), revision))
    }

    /// Returns which services would be affected by the change that this call previews; `None` if
    /// the call is not a preview.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn impact(&self, call: &Call, target: &Target) -> Result<Option<Impact>, Error> {
        if !call.previews() {
            return Ok(None);
        }
        let on_record = self.store.impact(call, key_of(target)).await?;
        Ok(Some(self.with_recent_uses(on_record, target.uid)))
    }

    /// Returns when a token was last used, and by which services.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_usage(&self, call: &Call, key: Key<'_>) -> Result<Impact, Error> {
        let done = self.store.impact(call, key).await;
        let done = done.map(|on_record| self.with_recent_uses(on_record, key.1));
        self.settle(call, (AuditAction::TokenGetUsage, about(key)), done)
    }

    /// Adds the uses that this replica has recorded but not yet written to the store.
    fn with_recent_uses(&self, on_record: Impact, uid: TokenUid) -> Impact {
        on_record.with(self.uses.uses(uid), self.clock.now())
    }

    /// Gives a token a new secret.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8) or its stack is suspended.
    pub async fn rotate(&self, call: &Call, command: &Rotate) -> Result<Rotated, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.rotate(call, command, &new_secret(&secret)).await;
        self.note_change(call, &done);
        let about = About {
            request_id: id_of(command.request.as_ref()),
            ..about(key_of(&command.target))
        };
        let place = (AuditAction::TokenRotate, about);
        let (mut rotated, revision) = self.settle_change(call, place, done)?;
        rotated.token = self.with_use(rotated.token);
        Ok(Rotated {
            rotated,
            secret: (!call.previews()).then_some(secret),
            revision,
        })
    }

    /// Ends the former secret of a token that was rotated, if it is still live.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8), or has changed since the caller
    /// read it.
    pub async fn end_overlap(
        &self,
        call: &Call,
        target: &Target,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.end_overlap(call, target).await;
        let place = (AuditAction::TokenEndOverlap, about(key_of(target)));
        let (token, revision) = self.settle_maybe_changed(call, place, done)?;
        Ok((self.with_use(token), revision))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(
        &self,
        call: &Call,
        target: &Target,
        reason: &Reason,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.revoke(call, target, reason).await;
        self.note_change(call, &done);
        let place = (AuditAction::TokenRevoke, about(key_of(target)));
        let (token, revision) = self.settle_change(call, place, done)?;
        Ok((self.with_use(token), revision))
    }

    /// Adds to the token what only this replica knows: a last use that is not in the store yet, and
    /// whether the issuer of a federated token is configured.
    pub(super) fn with_use(&self, mut token: Token) -> Token {
        token.last_used_at = token.last_used_at.max(self.uses.last_use(token.uid));
        let trusted = token.federation.as_ref();
        let issuer = trusted.and_then(|trusted| self.workloads.issuers.get(&trusted.issuer));
        token.issuer_configured = issuer.is_some_and(|issuer| issuer.serves(&token.stack_key));
        token
    }

    /// Adds the uses that this replica has recorded to a page of tokens. If `unused_since` is
    /// given, drops the tokens that were used since then.
    fn with_uses(&self, mut page: TokenPage, unused_since: Option<Timestamp>) -> TokenPage {
        let tokens = page.tokens.into_iter().map(|token| self.with_use(token));
        let unused = |token: &Token| {
            let used = token.last_used_at.unwrap_or(token.issued_at);
            unused_since.is_none_or(|at| used < at)
        };
        page.tokens = tokens.filter(unused).collect();
        page
    }
}
