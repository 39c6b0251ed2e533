//! Determines which tokens of a stack are live. Counts live tokens, checks that a name is free, and
//! records the end of expired tokens (R8).

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, Func},
};

use uuid::Uuid;

use crate::domain::{
    id::{StackUid, TokenUid},
    refusal::Refusal,
    text::TokenName,
    timestamp::Timestamp,
    token::TokenState,
};
use crate::store::{
    Error, Store, engine::transaction::Transaction, entity::token, stack::access::LockedStack,
};

impl Store {
    /// Counts the live tokens of the stack at `now` (R6).
    pub(in crate::store) async fn count_live(
        &self,
        tx: &Transaction,
        stack: StackUid,
        now: Timestamp,
    ) -> Result<u32, Error> {
        let live = token::Entity::find()
            .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
            .filter(in_state(TokenState::Active, now));
        Ok(u32::try_from(live.count(tx).await?).unwrap_or(u32::MAX))
    }

    /// Records the end of every expired token of the stack. From now on the expiry is final for
    /// every replica, whatever its clock says (R8), and the names of these tokens can be used
    /// again.
    pub(in crate::store) async fn end_expired(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
    ) -> Result<(), Error> {
        let expired = token::Entity::find()
            .filter(token::Column::StackUid.eq(stack.row.uid))
            .filter(token::Column::EndedAt.is_null())
            .filter(in_state(TokenState::Expired, stack.at))
            .all(tx)
            .await?;
        let uid = |row: token::Model| TokenUid::from_untyped_uuid(row.uid);
        self.end(tx, stack, expired.into_iter().map(uid).collect())
            .await
    }

    /// Records the end of these expired tokens, and appends a change log row for each.
    pub(in crate::store) async fn end(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        tokens: Vec<TokenUid>,
    ) -> Result<(), Error> {
        for uid in tokens {
            token::Entity::update_many()
                .col_expr(token::Column::EndedAt, Expr::value(stack.at.as_micros()))
                .filter(token::Column::Uid.eq(uid.into_untyped_uuid()))
                .exec(tx)
                .await?;
            self.record_expiry(tx, (stack, uid)).await?;
        }
        Ok(())
    }
}

/// Returns the condition for tokens that are in this state at this instant.
pub(in crate::store) fn in_state(state: TokenState, now: Timestamp) -> Condition {
    let revoked = token::Column::RevokedAt.is_not_null();
    let reached = token::Column::ExpiresAt.lte(now.as_micros());
    let expired = Condition::any()
        .add(token::Column::EndedAt.is_not_null())
        .add(reached);
    match state {
        TokenState::Revoked => Condition::all().add(revoked),
        TokenState::Expired => Condition::all()
            .add(token::Column::RevokedAt.is_null())
            .add(expired),
        TokenState::Active => Condition::all()
            .add(token::Column::RevokedAt.is_null())
            .add(token::Column::EndedAt.is_null())
            .add(unexpired(now)),
    }
}

/// Returns the condition for tokens that are neither revoked nor ended, for queries by uid. Its
/// form deliberately does not match the predicate of a partial index. Without statistics,
/// PostgreSQL assumes that a partial index is tiny, and scans it instead of using the primary key.
pub(in crate::store) fn neither_revoked_nor_ended() -> Expr {
    let column = |column| Expr::col((token::Entity, column));
    let ended = [token::Column::RevokedAt, token::Column::EndedAt].map(column);
    Expr::from(Func::coalesce(ended)).is_null()
}

/// Returns the condition for tokens that are live at this instant, for queries by uid.
pub(in crate::store) fn still_live(now: Timestamp) -> Condition {
    let ended = neither_revoked_nor_ended();
    Condition::all().add(ended).add(unexpired(now))
}

fn unexpired(now: Timestamp) -> Condition {
    Condition::any()
        .add(token::Column::ExpiresAt.is_null())
        .add(token::Column::ExpiresAt.gt(now.as_micros()))
}

/// Checks that no live token of the stack has this name, except the token `but`. Call `end_expired`
/// first, so that expired tokens do not keep their names.
pub(in crate::store) async fn require_free_name(
    tx: &Transaction,
    stack: StackUid,
    name: &TokenName,
    but: Option<TokenUid>,
) -> Result<(), Error> {
    let mut holders = token::Entity::find()
        .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
        .filter(token::Column::Name.eq(name.as_str()))
        .filter(token::Column::RevokedAt.is_null())
        .filter(token::Column::EndedAt.is_null());
    if let Some(uid) = but {
        holders = holders.filter(token::Column::Uid.ne(uid.into_untyped_uuid()));
    }
    let holder: Option<Uuid> = holders
        .select_only()
        .column(token::Column::Uid)
        .into_tuple()
        .one(tx)
        .await?;
    match holder {
        None => Ok(()),
        Some(uid) => {
            let token_uid = TokenUid::from_untyped_uuid(uid);
            Err(Refusal::NameTaken { token_uid }.into())
        }
    }
}

/// Returns an SQL expression for sorting tokens by expiry. Tokens that never expire come last.
pub(in crate::store) fn soonest() -> Expr {
    Func::coalesce([
        Expr::col((token::Entity, token::Column::ExpiresAt)),
        Expr::val(i64::MAX),
    ])
    .into()
}
