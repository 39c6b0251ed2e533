//! The federated tokens of a stack, read without a lock. So an exchange that no token would accept
//! costs no write.

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
    /// The tokens: the one that the workload named, live or not, or all live ones.
    pub tokens: Vec<Token>,
}

/// What an exchange depends on besides the rules.
#[derive(Clone, Copy, Debug)]
pub struct SessionsNow {
    /// Whether the stack is suspended.
    pub suspended: bool,
    /// Whether the assertion was exchanged before.
    pub exchanged: bool,
    /// When the session ends that an identical exchange with the same assertion would continue.
    pub resumes_until: Option<Timestamp>,
    /// The number of live sessions of the token.
    pub of_token: u32,
    /// The number of these sessions that belong to the workload.
    pub of_subject: u32,
}

impl Store {
    /// Returns the federated tokens of a stack. `None` if the stack does not exist or has none.
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

    /// Returns what an exchange by this workload would depend on, for an owner or admin who has it
    /// explained.
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

    /// Checks that the caller may read about this stack.
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
