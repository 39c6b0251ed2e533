//! Lists tokens with filters and in a chosen order. Pages stay stable while tokens are added and
//! removed.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, Func, SimpleExpr},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    caller::Call,
    stack::{StackKey, TokenLimit},
    text::NamePart,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, Store,
    entity::token,
    last_used::{last_used, unused_since},
    stack::access::RemovedStacks,
    token::rows::{TokenWithLastUse, token_of},
    token::state::{in_state, soonest},
};

/// The order of a list. Tokens with equal values are ordered by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By time of issue, newest first.
    #[default]
    NewestFirst,
    /// By time of issue, oldest first.
    OldestFirst,
    /// By expiry, soonest first. Tokens that never expire come last.
    ExpiresFirst,
    /// By name, comparing code points.
    Name,
}

/// Which tokens to list, and how. A filter that is `None` selects all tokens.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only tokens of this stack.
    pub stack_key: StackKey,
    /// Only tokens in one of these states. If empty, tokens in any state.
    pub states: Vec<TokenState>,
    /// Only tokens that expire before this instant.
    pub expires_before: Option<Timestamp>,
    /// Only tokens whose name contains this text.
    pub name_contains: Option<NamePart>,
    /// Only tokens that nobody has used since this instant.
    pub unused_since: Option<Timestamp>,
    /// The order of the list.
    pub order: Order,
    /// The maximum number of tokens on the page.
    pub size: u64,
    /// Only tokens after this position. `None` for the first page.
    pub after: Option<TokenCursor>,
}

/// The position of the last token on a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCursor {
    by: SortKey,
    uid: Uuid,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SortKey {
    Number(i64),
    Text(String),
}

/// A page of a list of tokens.
#[derive(Debug)]
pub struct TokenPage {
    /// The tokens of the page.
    pub tokens: Vec<Token>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<TokenCursor>,
    /// The number of live tokens of the stack, and the limit on it (R6).
    pub limit: TokenLimit,
    /// The instant for which the states of the tokens are computed.
    pub listed_at: Timestamp,
}

impl Order {
    fn expression(self) -> SimpleExpr {
        match self {
            Self::NewestFirst | Self::OldestFirst => column(token::Column::IssuedAt),
            Self::ExpiresFirst => soonest(),
            Self::Name => column(token::Column::Name),
        }
    }

    const fn direction(self) -> sea_orm::Order {
        match self {
            Self::NewestFirst => sea_orm::Order::Desc,
            Self::OldestFirst | Self::ExpiresFirst | Self::Name => sea_orm::Order::Asc,
        }
    }

    fn cursor(self, row: &token::Model) -> TokenCursor {
        let by = match self {
            Self::NewestFirst | Self::OldestFirst => SortKey::Number(row.issued_at),
            Self::ExpiresFirst => SortKey::Number(row.expires_at.unwrap_or(i64::MAX)),
            Self::Name => SortKey::Text(row.name.clone()),
        };
        TokenCursor { by, uid: row.uid }
    }

    /// Returns the condition for tokens that come after the cursor in this order.
    fn beyond(self, cursor: &TokenCursor) -> SimpleExpr {
        let value: SimpleExpr = match &cursor.by {
            SortKey::Number(number) => Expr::val(*number),
            SortKey::Text(text) => Expr::val(text.as_str()),
        };
        let (key, uid) = (self.expression(), column(token::Column::Uid));
        let last: SimpleExpr = Expr::val(cursor.uid);
        match self.direction() {
            sea_orm::Order::Desc => key
                .clone()
                .lt(value.clone())
                .or(key.eq(value).and(uid.lt(last))),
            _ => key
                .clone()
                .gt(value.clone())
                .or(key.eq(value).and(uid.gt(last))),
        }
    }
}

fn column(column: token::Column) -> SimpleExpr {
    Expr::col((token::Entity, column))
}

impl Store {
    /// Returns a page of the stack's tokens, live and dead.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn list(&self, call: &Call, query: &ListQuery) -> Result<TokenPage, Error> {
        read_tx!(self, call, "list", |tx| {
            // The filter, the count and the returned states must all use the same instant.
            let now = self.clock.now();
            let key = &query.stack_key;
            let stack = self
                .load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let mut select = token::Entity::find()
                .filter(token::Column::StackUid.eq(stack.uid.into_untyped_uuid()))
                .filter(self.filters(query, now));
            if let Some(cursor) = &query.after {
                select = select.filter(query.order.beyond(cursor));
            }
            let mut rows = select
                .order_by(query.order.expression(), query.order.direction())
                .order_by(token::Column::Uid, query.order.direction())
                .limit(query.size + 1)
                .expr_as(last_used(), "last_used_at")
                .into_model::<TokenWithLastUse>()
                .all(tx)
                .await?;
            let more = rows.len() as u64 > query.size;
            rows.truncate(usize::try_from(query.size).unwrap_or(usize::MAX));
            let next = rows
                .last()
                .filter(|_| more)
                .map(|used| query.order.cursor(&used.row));
            let tokens: Result<_, _> = rows.into_iter().map(|row| token_of(row, key)).collect();
            let used = self.count_live(tx, stack.uid, now).await?;
            let limit = TokenLimit {
                used,
                max: stack.max_tokens(),
            };
            Ok(TokenPage {
                tokens: tokens?,
                next,
                limit,
                listed_at: now,
            })
        })
    }

    fn filters(&self, query: &ListQuery, now: Timestamp) -> Condition {
        let mut filters = Condition::all();
        if !query.states.is_empty() {
            let any = query.states.iter().map(|state| in_state(*state, now));
            filters = filters.add(any.fold(Condition::any(), Condition::add));
        }
        let before = query
            .expires_before
            .map(|at| token::Column::ExpiresAt.lt(at.as_micros()));
        let part = query
            .name_contains
            .as_ref()
            .filter(|part| !part.as_str().is_empty());
        let find = if self.is_shared() { "STRPOS" } else { "INSTR" };
        // LIKE is not used. It would ignore letter case, and its wildcards would have to be
        // escaped.
        let contains = part.map(|part| {
            Func::cust(find)
                .arg(column(token::Column::Name))
                .arg(part.as_str())
                .gt(0)
        });
        let unused = query.unused_since.map(unused_since);
        filters
            .add_option(before)
            .add_option(contains)
            .add_option(unused)
    }
}
