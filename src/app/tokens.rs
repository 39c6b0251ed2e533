//! The life of a token.

use super::{About, App, Error, Issue, ListQuery, Rotate, TokenPage};
use crate::{
    domain::{
        audit::Action,
        caller::Call,
        id::TokenUid,
        revision::Revision,
        secret::Secret,
        stack::StackKey,
        text::Reason,
        timestamp::Timestamp,
        token::{Edit, Token},
    },
    store::{self, Kept},
};

/// A token just issued, with its secret: the only time that it is shown (R9).
pub struct Issued {
    /// The token.
    pub token: Token,
    /// Its secret.
    pub secret: Secret,
    /// A point in the history that includes it.
    pub revision: Revision,
}

/// A token just rotated, with its new secret: the only time that it is shown (R9).
pub struct Rotated {
    /// The token, and when its former secret ends.
    pub rotated: store::Rotated,
    /// The new secret.
    pub secret: Secret,
    /// A point in the history that includes it.
    pub revision: Revision,
}

/// What is kept of a secret.
fn kept(secret: &Secret) -> Kept {
    Kept {
        digest: secret.digest(),
        hint: secret.hint().to_owned(),
    }
}

/// A token of a stack.
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
    /// [`Error`]; refused for the limit (R6), the name, or a suspended stack.
    pub async fn issue(&self, call: &Call, command: &Issue) -> Result<Issued, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.issue(call, command, &kept(&secret)).await;
        match &done {
            // Of a request that was repeated, a secret may be known already: the lost one.
            Ok((token, _)) if token.generation > 1 => self.apply_to_token(token.uid, &done),
            Ok((_, revision)) => self.note_own(*revision),
            Err(_) => {}
        }
        let about = about_stack(&command.stack_key);
        let (token, revision) = self.settle(call, (Action::TokenIssue, about), done)?;
        Ok(Issued {
            token,
            secret,
            revision,
        })
    }

    /// One token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, call: &Call, (stack, uid): Key<'_>) -> Result<Token, Error> {
        let done = self.store.get(call, stack, uid).await;
        self.settle(call, (Action::TokenGet, about((stack, uid))), done)
    }

    /// A page of tokens.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, call: &Call, query: &ListQuery) -> Result<TokenPage, Error> {
        let done = self.store.list(call, query).await;
        self.settle(
            call,
            (Action::TokenList, about_stack(&query.stack_key)),
            done,
        )
    }

    /// Changes words or permissions.
    ///
    /// # Errors
    /// [`Error`]; refused where the token is dead (R8).
    pub async fn update(
        &self,
        call: &Call,
        key: Key<'_>,
        edit: &Edit,
    ) -> Result<(Token, Revision), Error> {
        let done = self.store.update(call, key, edit).await;
        self.apply_to_token(key.1, &done);
        self.settle(call, (Action::TokenUpdate, about(key)), done)
    }

    /// Changes the expiry.
    ///
    /// # Errors
    /// [`Error`]; refused where the token is dead (R8).
    pub async fn set_expiry(
        &self,
        call: &Call,
        key: Key<'_>,
        expires_at: Option<Timestamp>,
    ) -> Result<(Token, Revision), Error> {
        let done = self.store.set_expiry(call, key, expires_at).await;
        self.apply_to_token(key.1, &done);
        self.settle(call, (Action::TokenSetExpiry, about(key)), done)
    }

    /// Gives a token a new secret.
    ///
    /// # Errors
    /// [`Error`]; refused where the token is dead (R8) or its stack suspended.
    pub async fn rotate(&self, call: &Call, command: &Rotate) -> Result<Rotated, Error> {
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self.store.rotate(call, command, &kept(&secret)).await;
        self.apply_to_token(command.token_uid, &done);
        let key = (&command.stack_key, command.token_uid);
        let (rotated, revision) = self.settle(call, (Action::TokenRotate, about(key)), done)?;
        Ok(Rotated {
            rotated,
            secret,
            revision,
        })
    }

    /// Revokes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(
        &self,
        call: &Call,
        key: Key<'_>,
        reason: &Reason,
    ) -> Result<(Token, Revision), Error> {
        let done = self.store.revoke(call, key, reason).await;
        self.apply_to_token(key.1, &done);
        self.settle(call, (Action::TokenRevoke, about(key)), done)
    }
}
