//! The life of a token.

use super::{About, App, Error, Issue, ListQuery, TokenPage};
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
    store::Kept,
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
        let kept = Kept {
            digest: secret.digest(),
            hint: secret.hint().to_owned(),
        };
        let done = self.store.issue(call, command, &kept).await;
        let about = about_stack(&command.stack_key);
        let (token, revision) = self.settle(call, (Action::TokenIssue, about), done)?;
        self.freshness.note_own(revision.position);
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
