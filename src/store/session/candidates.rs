//! Reads the federated tokens of a stack without a lock, so that an exchange that no token would
//! accept causes no write.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use crate::domain::{
    caller::Call,
    id::{StackUid, TokenUid},
    request::Fingerprint,
    stack::StackKey,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, Store,
    entity::{stack, token},
    session::{assertions, live::count_live},
    stack::access::RemovedStacks,
    token::{secrets, state::in_state},
};

/// The federated tokens that a workload may have meant.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The stack.
    pub stack: StackUid,
    /// All live federated tokens of the stack, or only the token that the workload named, live or
    /// dead.
    pub tokens: Vec<Token>,
}

/// The state, apart from the rules, on which the result of an exchange depends.
#[derive(Clone, Copy, Debug)]
pub struct SessionsNow {
    /// Whether the stack is suspended.
    pub suspended: bool,
    /// Whether the assertion was exchanged before.
    pub exchanged: bool,
    /// The end of the session that would be resumed if the same assertion were exchanged again with
    /// the same request. `None` if there is no such session.
    pub resumes_until: Option<Timestamp>,
    /// The number of live sessions of the token.
    pub of_token: u32,
    /// The number of live sessions of the token that belong to the workload.
    pub of_subject: u32,
}

impl Store {
    /// Returns the federated tokens of a stack. Returns `None` if the stack does not exist or has
    /// none.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be read.
    pub async fn federated_tokens(
        &self,
        call: &Call,
        (key, uid): (&StackKey, Option<TokenUid>),
        now: Timestamp,
    ) -> Result<Option<Candidates>, Error> {
        read_tx!(self, call, "federated_tokens", |tx| {
            let stack = stack::Entity::find()
                .filter(stack::Column::Key.eq(key.as_str()))
                .filter(stack::Column::RemovedAt.is_null())
                .one(tx)
                .await?;
            let Some(stack) = stack else {
                return Ok(None);
            };
            let found = token::Entity::find()
                .filter(token::Column::StackUid.eq(stack.uid))
                .filter(token::Column::Federation.is_not_null());
            let found = match uid {
                Some(uid) => found.filter(token::Column::Uid.eq(uid.into_untyped_uuid())),
                None => found.filter(in_state(TokenState::Active, now)),
            };
            let rows = found.all(tx).await?.into_iter().map(Into::into);
            let tokens = secrets::tokens_of(tx, rows.collect(), key).await?;
            let candidates = Candidates {
                stack: StackUid::from_untyped_uuid(stack.uid),
                tokens,
            };
            Ok(Some(candidates).filter(|found| !found.tokens.is_empty()))
        })
    }

    /// Returns the state on which an exchange by this workload would depend. For an owner or admin
    /// who wants an explanation of it.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn sessions_now(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
        (assertion, subject): (Option<Fingerprint>, &str),
        now: Timestamp,
    ) -> Result<SessionsNow, Error> {
        read_tx!(self, call, "sessions_now", |tx| {
            let stack = self
                .load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let seen = match assertion {
                Some(key) => assertions::find(tx, key).await?,
                None => None,
            };
            let resumes = match &seen {
                Some(seen) => assertions::session_to_resume(tx, seen, uid, now).await?,
                None => None,
            };
            Ok(SessionsNow {
                suspended: stack.row.suspended_at.is_some(),
                exchanged: seen.is_some(),
                resumes_until: resumes
                    .and_then(|session| Timestamp::from_micros(session.expires_at)),
                of_token: count_live(tx, uid, None, now).await?,
                of_subject: count_live(tx, uid, Some(subject), now).await?,
            })
        })
    }

    /// Checks that the caller may read data of this stack.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn require_access(&self, call: &Call, key: &StackKey) -> Result<(), Error> {
        read_tx!(self, call, "require_access", |tx| {
            self.load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            Ok(())
        })
    }
}
