//! Lists tokens with filters and in a chosen order. Pages stay stable while tokens are added and
//! removed.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _, Select, SelectModel, Selector,
    sea_query::{Expr, ExprTrait as _, SimpleExpr},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    caller::Call,
    page,
    stack::{StackKey, TokenLimit},
    timestamp::Timestamp,
    token::Token,
};
use crate::store::{
    Error, Store,
    entity::{stack, token},
    last_used::last_used,
    stack::access::RemovedStacks,
    token::{filter::TokenFilter, rows::TokenWithLastUse, secrets, state::soonest},
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

/// The tokens to list, their order, and the page.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only tokens of this stack. `None` selects the tokens of all stacks that are not removed.
    pub stack_key: Option<StackKey>,
    /// Only tokens that match this filter.
    pub filter: TokenFilter,
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
    /// The number of live tokens of the stack, and its limit (R6). `None` for a list over all
    /// stacks.
    pub limit: Option<TokenLimit>,
    /// The instant for which the states of the tokens are computed.
    pub listed_at: Timestamp,
}

impl TokenCursor {
    /// Returns whether this is a position in a list with this order. A page token can be forged,
    /// and PostgreSQL refuses to compare a number with a string.
    #[must_use]
    pub const fn is_in(&self, order: Order) -> bool {
        let by_text = matches!(self.by, SortKey::Text(_));
        by_text == matches!(order, Order::Name)
    }
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
    /// Returns a page of the tokens of one stack or of all stacks, live and dead.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn list(&self, call: &Call, query: &ListQuery) -> Result<TokenPage, Error> {
        read_tx!(self, call, "list", |tx| {
            // The filter, the count and the returned states must all use the same instant.
            let now = self.clock.now();
            let stack = if let Some(key) = &query.stack_key {
                let which = RemovedStacks::Exclude;
                Some(self.load_stack(tx, call, key, which).await?)
            } else {
                call.requirement.check(&call.caller, None)?;
                None
            };
            let of_stacks = match &stack {
                Some(stack) => token::Column::StackUid.eq(stack.uid.into_untyped_uuid()),
                None => in_kept_stack(),
            };
            let select = token::Entity::find()
                .filter(of_stacks)
                .filter(query.filter.condition(self.dialect(), now));
            let mut rows = query.page(select).all(tx).await?;
            let next = page::cut(&mut rows, query.size, |used| query.order.cursor(&used.row));
            let tokens = match &query.stack_key {
                Some(key) => secrets::tokens_of(tx, rows, key).await?,
                None => secrets::tokens_of_any(tx, rows).await?,
            };
            let limit = match stack {
                Some(stack) => Some(TokenLimit {
                    used: self.count_live(tx, stack.uid, now).await?,
                    max: stack.max_tokens(),
                }),
                None => None,
            };
            Ok(TokenPage {
                tokens,
                next,
                limit,
                listed_at: now,
            })
        })
    }
}

impl ListQuery {
    /// Returns the query for the rows of the page and one more row, in order.
    fn page(&self, mut select: Select<token::Entity>) -> Selector<SelectModel<TokenWithLastUse>> {
        if let Some(cursor) = &self.after {
            select = select.filter(self.order.beyond(cursor));
        }
        select
            .order_by(self.order.expression(), self.order.direction())
            .order_by(token::Column::Uid, self.order.direction())
            .limit(self.size + 1)
            .expr_as(last_used(), "last_used_at")
            .into_model()
    }
}

/// Returns the condition for tokens of stacks that are not removed. The condition uses a count,
/// which the planner evaluates token by token in the order of the list. EXISTS or IN could be
/// planned as a sort of all tokens.
fn in_kept_stack() -> SimpleExpr {
    let of_token = Expr::col((stack::Entity, stack::Column::Uid))
        .equals((token::Entity, token::Column::StackUid));
    let count = stack::Entity::find()
        .select_only()
        .expr(stack::Column::Uid.count())
        .filter(of_token)
        .filter(stack::Column::RemovedAt.is_null())
        .into_query();
    SimpleExpr::from(count).gt(0)
}
