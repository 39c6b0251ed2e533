//! Filters for lists of tokens. They select the same tokens on both engines.

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    QueryTrait as _,
    sea_query::{Expr, ExprTrait as _, SimpleExpr},
};

use crate::domain::{
    incident::IssuedBy,
    labels::Labels,
    permissions::Access,
    text::{NamePart, TokenName},
    timestamp::Timestamp,
    token::TokenState,
};
use crate::store::{
    engine::dialect::Dialect,
    entity::{token, token_secret},
    last_used,
    token::{secrets::not_ended, state::in_state},
};

/// A filter for tokens. A token must match every field, but `None` matches every token.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Only tokens in one of these states. If empty, tokens in any state.
    pub states: Vec<TokenState>,
    /// Only tokens with this name.
    pub name: Option<TokenName>,
    /// Only tokens whose name contains this text.
    pub name_contains: Option<NamePart>,
    /// Only tokens with a valid secret that ends in these four characters.
    pub secret_hint: Option<String>,
    /// Only tokens that were issued by this caller.
    pub issued_by: Option<IssuedBy>,
    /// Only tokens with this access.
    pub access: Option<Access>,
    /// Only tokens that have all of these labels, with these values.
    pub labels: Labels,
    /// Only tokens that were issued at this instant or later.
    pub issued_from: Option<Timestamp>,
    /// Only tokens that were issued before this instant.
    pub issued_before: Option<Timestamp>,
    /// Only tokens that expire at this instant or later.
    pub expires_from: Option<Timestamp>,
    /// Only tokens that expire before this instant.
    pub expires_before: Option<Timestamp>,
    /// Only tokens that have not been used since this instant.
    pub unused_since: Option<Timestamp>,
}

impl TokenFilter {
    /// Returns the condition for the tokens that match. The states are those at `now`.
    pub(in crate::store) fn condition(&self, dialect: Dialect, now: Timestamp) -> Condition {
        use token::Column::{ExpiresAt, IssuedAt, Name};
        let labels = self.labels.iter();
        let labels = labels.map(|(key, value)| has_label(dialect, key, value));
        labels
            .fold(Condition::all(), Condition::add)
            .add_option(self.in_states(now))
            .add_option(self.name.as_ref().map(|name| Name.eq(name.as_str())))
            .add_option(self.name_contains(dialect))
            .add_option(self.secret_hint.as_ref().map(|hint| has_secret(hint, now)))
            .add_option(self.issued_by.as_ref().map(issued_by))
            .add_option(self.access.map(|access| has_access(dialect, access)))
            .add_option(self.issued_from.map(|at| IssuedAt.gte(at.as_micros())))
            .add_option(self.issued_before.map(|at| IssuedAt.lt(at.as_micros())))
            .add_option(self.expires_from.map(|at| ExpiresAt.gte(at.as_micros())))
            .add_option(self.expires_before.map(|at| ExpiresAt.lt(at.as_micros())))
            .add_option(self.unused_since.map(last_used::unused_since))
    }

    fn in_states(&self, now: Timestamp) -> Option<Condition> {
        let any = self.states.iter().map(|state| in_state(*state, now));
        (!self.states.is_empty()).then(|| any.fold(Condition::any(), Condition::add))
    }

    fn name_contains(&self, dialect: Dialect) -> Option<SimpleExpr> {
        let part = self.name_contains.as_ref().map(NamePart::as_str);
        let part = part.filter(|part| !part.is_empty())?;
        Some(dialect.contains(column(token::Column::Name), part))
    }
}

/// Returns the condition for tokens that this caller issued.
pub(in crate::store) fn issued_by(by: &IssuedBy) -> Condition {
    let kind = by
        .kind
        .map(|kind| token::Column::IssuedByKind.eq(kind.name()));
    Condition::all()
        .add(token::Column::IssuedByIssuer.eq(by.issuer.as_str()))
        .add(token::Column::IssuedBySubject.eq(by.subject.as_str()))
        .add_option(kind)
}

/// Returns the condition for tokens with a secret that has this hint, was not replaced and has not
/// ended at `now`.
fn has_secret(hint: &str, now: Timestamp) -> SimpleExpr {
    let of_hint = token_secret::Entity::find()
        .select_only()
        .column(token_secret::Column::TokenUid)
        .filter(token_secret::Column::Hint.eq(hint))
        .filter(not_ended(now))
        .into_query();
    token::Column::Uid.in_subquery(of_hint)
}

fn has_access(dialect: Dialect, access: Access) -> SimpleExpr {
    let permissions = column(token::Column::Permissions);
    dialect.json_member(permissions, "access").eq(access.name())
}

fn has_label(dialect: Dialect, key: &str, value: &str) -> SimpleExpr {
    let labels = column(token::Column::Labels);
    dialect.json_member(labels, key).eq(value)
}

fn column(column: token::Column) -> SimpleExpr {
    Expr::col((token::Entity, column))
}
