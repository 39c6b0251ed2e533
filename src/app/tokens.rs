//! Use cases for the life cycle of a token.

use super::{About, App, Error, Issue, ListQuery, Rotate, TokenPage};
use crate::{
    domain::{
        audit::AuditAction,
        caller::Call,
        id::TokenUid,
        impact::Impact,
        revision::Revision,
        secret::Secret,
        stack::StackKey,
        text::Reason,
        timestamp::Timestamp,
        token::{Edit, Expiry, Token},
    },
    store::{self, Kept},
};

/// A newly issued token with its secret, which is shown only once (R9).
pub struct Issued {
    /// The token.
    pub token: Token,
    /// The secret of the token; `None` in a preview.
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
fn kept(secret: &Secret) -> Kept {
    Kept {
        digest: secret.digest(),
        hint: secret.hint().to_owned(),
    }
}

/// Identifies a token: the key of its stack and its id.
pub type Key<'a> = (&'a StackKey, TokenUid);

fn about((stack, uid): Key<'_>) -> About {
    About {
        stack_key: Some(stack.to_string()),
        token_uid: Some(uid.to_string()),
    }
}

fn about_stack(stack: &StackKey) -> About {
    About {
        stack_key: Some(stack.to_string()),
        token_uid: None,
    }
}

impl App {
    /// Issues a token.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the stack is at its token limit (R6) or suspended, or if
    /// the name is taken.
    pub async fn issue(&self, call: &Call, command: &Issue) -> Result<Issued, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.issue(call, command, &kept(&secret)).await;
        self.note_change(call, &done);
        let about = about_stack(&command.stack_key);
        let (token, revision) = self.settle_change(call, (AuditAction::TokenIssue, about), done)?;
        Ok(Issued {
            token: self.with_use(token),
            secret: (!call.previews()).then_some(secret),
            revision,
        })
    }

    /// Returns a token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, call: &Call, (stack, uid): Key<'_>) -> Result<Token, Error> {
        let done = self.store.get(call, stack, uid).await;
        let done = done.map(|token| self.with_use(token));
        self.settle(call, (AuditAction::TokenGet, about((stack, uid))), done)
    }

    /// Returns a page of tokens.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, call: &Call, query: &ListQuery) -> Result<TokenPage, Error> {
        let done = self.store.list(call, query).await;
        let done = done.map(|page| self.with_uses(page, query.unused_since));
        self.settle(
            call,
            (AuditAction::TokenList, about_stack(&query.stack_key)),
            done,
        )
    }

    /// Changes the name, description or permissions of a token.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8).
    pub async fn update(
        &self,
        call: &Call,
        key: Key<'_>,
        edit: &Edit,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.update(call, key, edit).await;
        self.note_change(call, &done);
        let (token, revision) =
            self.settle_change(call, (AuditAction::TokenUpdate, about(key)), done)?;
        Ok((self.with_use(token), revision))
    }

    /// Changes when a token expires.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8).
    pub async fn set_expiry(
        &self,
        call: &Call,
        key: Key<'_>,
        expiry: Expiry,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.set_expiry(call, key, expiry).await;
        self.note_change(call, &done);
        let (token, revision) =
            self.settle_change(call, (AuditAction::TokenSetExpiry, about(key)), done)?;
        Ok((self.with_use(token), revision))
    }

    /// Returns who would be affected by the change that this call previews; `None` if the call is
    /// not a preview.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn impact(&self, call: &Call, key: Key<'_>) -> Result<Option<Impact>, Error> {
        if !call.previews() {
            return Ok(None);
        }
        let on_record = self.store.impact(call, key).await?;
        Ok(Some(
            on_record.with(self.uses.uses(key.1), self.clock.now()),
        ))
    }

    /// Gives a token a new secret.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8) or its stack is suspended.
    pub async fn rotate(&self, call: &Call, command: &Rotate) -> Result<Rotated, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.rotate(call, command, &kept(&secret)).await;
        self.note_change(call, &done);
        let key = (&command.stack_key, command.token_uid);
        let place = (AuditAction::TokenRotate, about(key));
        let (mut rotated, revision) = self.settle_change(call, place, done)?;
        rotated.token = self.with_use(rotated.token);
        Ok(Rotated {
            rotated,
            secret: (!call.previews()).then_some(secret),
            revision,
        })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(
        &self,
        call: &Call,
        key: Key<'_>,
        reason: &Reason,
    ) -> Result<(Token, Option<Revision>), Error> {
        let done = self.store.revoke(call, key, reason).await;
        self.note_change(call, &done);
        let (token, revision) =
            self.settle_change(call, (AuditAction::TokenRevoke, about(key)), done)?;
        Ok((self.with_use(token), revision))
    }

    /// Sets the last use of a token to the one that this replica has recorded, if that is later
    /// than the one in the store.
    fn with_use(&self, mut token: Token) -> Token {
        token.last_used_at = token.last_used_at.max(self.uses.last_use(token.uid));
        token
    }

    /// Applies the uses that this replica has recorded to a page. If `unused_since` is given, drops
    /// the tokens that were used since then.
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
