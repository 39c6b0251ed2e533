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
    /// Its secret; `None` in a preview.
    pub secret: Option<Secret>,
    /// Revision that includes it; `None` in a preview.
    pub revision: Option<Revision>,
}

/// A newly rotated token with its new secret, which is shown only once (R9).
pub struct Rotated {
    /// The token, and when its former secret ends.
    pub rotated: store::Rotated,
    /// The new secret; `None` in a preview.
    pub secret: Option<Secret>,
    /// Revision that includes it; `None` in a preview.
    pub revision: Option<Revision>,
}

/// Returns what the store keeps of a secret.
fn kept(secret: &Secret) -> Kept {
    Kept {
        digest: secret.digest(),
        hint: secret.hint().to_owned(),
    }
}

/// Key of a token: its stack and its id.
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
    /// [`Error`]; refused because of the limit (R6), the name, or a suspended stack.
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

    /// Changes the name, description or permissions.
    ///
    /// # Errors
    /// [`Error`]; refused if the token is dead (R8).
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

    /// Changes the expiry.
    ///
    /// # Errors
    /// [`Error`]; refused if the token is dead (R8).
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

    /// Returns who would be affected by the change that this call previews; `None` if it is none.
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
    /// [`Error`]; refused if the token is dead (R8) or its stack suspended.
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

    /// Adds the last use that this replica has recorded and not yet written to the store.
    fn with_use(&self, mut token: Token) -> Token {
        token.last_used_at = token.last_used_at.max(self.uses.last_use(token.uid));
        token
    }

    /// Adds recorded uses to a page; drops tokens used since `unused_since`, if that is given.
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
