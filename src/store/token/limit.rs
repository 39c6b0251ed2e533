//! Enforces the limit on live tokens (R6). The count is exact even if calls race, because the
//! tokens are counted after `Store::lock_stack_for_change` has locked the stack. On PostgreSQL the
//! transaction is READ COMMITTED (`engine/transaction/connection.rs`), so the count sees everything
//! that was committed before the lock was granted. On SQLite the lock is BEGIN IMMEDIATE. Whether a
//! token is live is decided at `LockedStack::at`, an instant that never decreases within one stack
//! (R8). If the limit is reached, the refusal names tokens that could be revoked.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbErr, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Statement,
};
use uuid::Uuid;

use crate::domain::{
    id::{StackUid, TokenUid},
    refusal::{Candidate, Refusal, Why},
    stack::TokenLimit,
    text::TokenName,
    timestamp::Timestamp,
    token::TokenState,
};
use crate::store::{
    Error, Store,
    engine::transaction::Transaction,
    entity::token,
    last_used::last_used,
    stack::access::LockedStack,
    token::rows::corrupt,
    token::state::{in_state, require_free_name},
};

/// Counts the tokens of a stack that are neither revoked nor ended: those that are live at an
/// instant, those that have expired by then, and those that have a name. The condition is the same
/// as in the index of live names, so the index contains exactly these tokens.
const ROOM: &str = "\
    SELECT COUNT(*) FILTER (WHERE expires_at IS NULL OR expires_at > $2) AS live, \
    COUNT(*) FILTER (WHERE expires_at <= $2) AS expired, \
    COUNT(*) FILTER (WHERE name = $3) AS holders \
    FROM tokens WHERE stack_uid = $1 AND revoked_at IS NULL AND ended_at IS NULL";

/// The number of tokens that a refusal names.
const CANDIDATES: usize = 3;

impl Store {
    /// Checks that the stack may have another live token, and that no live token has this name.
    /// Records the end of expired tokens first.
    pub(in crate::store) async fn require_room(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        name: &TokenName,
    ) -> Result<(), Error> {
        let at = stack.at.as_micros();
        let values = [stack.row.uid.into(), at.into(), name.as_str().into()];
        let statement = Statement::from_sql_and_values(self.backend(), ROOM, values);
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))?;
        let count = |column| row.try_get::<i64>("", column);
        let (live, expired, holders) = (count("live")?, count("expired")?, count("holders")?);
        let is_free = expired == 0 && holders == 0 && live < i64::from(stack.max_tokens());
        if is_free {
            return Ok(());
        }
        // This is rare. Find the reason, in the order in which refusals take precedence.
        self.end_expired(tx, stack).await?;
        self.require_below_limit(tx, stack).await?;
        require_free_name(tx, stack.uid, name, None).await
    }

    /// Checks that the stack may have another live token.
    pub(in crate::store) async fn require_below_limit(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
    ) -> Result<(), Error> {
        let limit = TokenLimit {
            used: self.count_live(tx, stack.uid, stack.at).await?,
            max: stack.max_tokens(),
        };
        if limit.used < limit.max {
            return Ok(());
        }
        let candidates = candidates(tx, stack.uid, stack.at).await?;
        Err(Refusal::LimitReached { limit, candidates }.into())
    }
}

#[derive(FromQueryResult)]
struct Live {
    uid: Uuid,
    name: String,
    issued_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl Live {
    fn idle_since(&self) -> i64 {
        self.last_used_at.unwrap_or(self.issued_at)
    }

    fn why(&self, soonest: bool) -> Result<Why, Error> {
        let wrong = |column| move || corrupt("tokens", column, self.uid);
        let instant = |micros, column| Timestamp::from_micros(micros).ok_or_else(wrong(column));
        Ok(match (self.expires_at, self.last_used_at) {
            (Some(at), _) if soonest => Why::ExpiresSoonest(instant(at, "expires_at")?),
            (_, Some(at)) => Why::LastUsed(instant(at, "last_used_at")?),
            (_, None) => Why::NeverUsed(instant(self.issued_at, "issued_at")?),
        })
    }
}

/// Returns candidates for revocation. These are the live token that expires soonest, the oldest
/// token that was never used, and the token that has been unused for the longest time, as far as
/// they exist. Further candidates are the other tokens, longest unused first.
async fn candidates(
    tx: &Transaction,
    stack: StackUid,
    now: Timestamp,
) -> Result<Vec<Candidate>, Error> {
    // This loads all live tokens. There are about as many as the limit, and it happens only if the
    // limit is reached.
    let mut live = token::Entity::find()
        .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
        .filter(in_state(TokenState::Active, now))
        .order_by_asc(token::Column::IssuedAt)
        .order_by_asc(token::Column::Uid)
        .expr_as(last_used(), "last_used_at")
        .into_model::<Live>()
        .all(tx)
        .await?;
    let mut chosen = Vec::new();
    if let Some(at) = first(&live, |token| token.expires_at) {
        chosen.push((live.remove(at), true));
    }
    let never = |token: &Live| token.last_used_at.is_none().then_some(token.issued_at);
    if let Some(at) = first(&live, never) {
        chosen.push((live.remove(at), false));
    }
    if let Some(at) = first(&live, |token| token.last_used_at) {
        chosen.push((live.remove(at), false));
    }
    while chosen.len() < CANDIDATES {
        let Some(at) = first(&live, |token| Some(token.idle_since())) else {
            break;
        };
        chosen.push((live.remove(at), false));
    }
    let named = chosen.into_iter().map(|(token, soonest)| {
        Ok(Candidate {
            uid: TokenUid::from_untyped_uuid(token.uid),
            why: token.why(soonest)?,
            name: token.name,
        })
    });
    named.collect()
}

/// Returns the index of the token with the smallest value. Skips tokens without a value.
fn first(live: &[Live], of: impl Fn(&Live) -> Option<i64>) -> Option<usize> {
    let having = live
        .iter()
        .enumerate()
        .filter_map(|(at, token)| Some((of(token)?, at)));
    having.min().map(|(_, at)| at)
}
