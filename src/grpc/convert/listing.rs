//! Converts the messages of `TokenService.List`.

use super::{incidents::issued_by, named, parse_instant, permissions, stacks, tokens};
use crate::{
    app::{ListQuery, Order, TokenCursor, TokenFilter, TokenPage},
    domain::{
        caller::Call,
        field::{Problem, Violations},
        labels::Labels,
        page,
        permissions::Access,
        secret,
        text::{NamePart, TokenName},
        timestamp::Timestamp,
        token::TokenState,
    },
    grpc::pb::v1,
};

pub fn list(message: v1::ListRequest, call: &Call) -> Result<ListQuery, Violations> {
    let mut faults = Violations::default();
    let stack_key = faults.keep(
        "stack_api_key",
        stacks::key_or_all(&message.stack_api_key, call),
    );
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let order = order(message.order).and_then(|order| match stack_key {
        Some(None) => by_issue(order),
        _ => Ok(order),
    });
    let order = faults.keep("order", order);
    let page_token = message.page_token.clone();
    let filter = faults.nest("", filter(message));
    let query = stack_key.zip(size).zip(order).zip(filter);
    let Some((((stack_key, size), order), filter)) = query else {
        faults.keep("page_token", page::check_form(&page_token));
        return faults.finish(None);
    };
    let mut query = ListQuery {
        stack_key,
        filter,
        order,
        size,
        after: None,
    };
    let after = page::open(&question(&query), &page_token);
    let after = after.and_then(|after: Option<TokenCursor>| match after {
        Some(cursor) if !cursor.is_in(query.order) => Err(page::not_a_token()),
        after => Ok(after),
    });
    query.after = faults.keep("page_token", after).flatten();
    faults.finish(Some(query))
}

/// Rejects a sort order that no index supports across stacks: the database would have to sort the
/// tokens of all stacks for each page.
fn by_issue(order: Order) -> Result<Order, Problem> {
    match order {
        Order::NewestFirst | Order::OldestFirst => Ok(order),
        Order::ExpiresFirst | Order::Name => Err(Problem::new(
            "is for the tokens of one stack: over all stacks, use TOKEN_ORDER_NEWEST_FIRST or \
             TOKEN_ORDER_OLDEST_FIRST, or give stack_api_key",
        )),
    }
}

fn filter(message: v1::ListRequest) -> Result<TokenFilter, Violations> {
    let mut faults = Violations::default();
    let states = states(&mut faults, &message.states);
    let issued = period(
        &mut faults,
        ("issued_from", message.issued_from),
        ("issued_before", message.issued_before),
    );
    let expires = period(
        &mut faults,
        ("expires_from", message.expires_from),
        ("expires_before", message.expires_before),
    );
    let name = named(&message.name, TokenName::parse);
    let part = named(&message.name_contains, NamePart::parse);
    let hint = named(&message.secret_hint, secret::parse_hint);
    let by = message.issued_by.map(issued_by).transpose();
    let filter = TokenFilter {
        states,
        name: faults.keep("name", name).flatten(),
        name_contains: faults.keep("name_contains", part).flatten(),
        secret_hint: faults.keep("secret_hint", hint).flatten(),
        issued_by: faults.nest("issued_by", by).flatten(),
        access: faults.keep("access", access(message.access)).flatten(),
        labels: faults
            .nest("labels", Labels::parse(message.labels))
            .unwrap_or_default(),
        issued_from: issued.0,
        issued_before: issued.1,
        expires_from: expires.0,
        expires_before: expires.1,
        unused_since: instant(&mut faults, "unused_since", message.unused_since),
    };
    faults.finish(Some(filter))
}

/// Parses the start and the end of a period. Both are optional. A period that contains no instant
/// is a violation.
fn period(
    faults: &mut Violations,
    (from_field, from): (&str, Option<prost_types::Timestamp>),
    (before_field, before): (&str, Option<prost_types::Timestamp>),
) -> (Option<Timestamp>, Option<Timestamp>) {
    let from = instant(faults, from_field, from);
    let before = instant(faults, before_field, before);
    if from
        .zip(before)
        .is_some_and(|(from, before)| from >= before)
    {
        let empty = format!("must be after {from_field}: otherwise no token can match");
        faults.add(before_field, Problem::new(empty));
    }
    (from, before)
}

fn instant(
    faults: &mut Violations,
    field: &str,
    at: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let parsed = at.map(parse_instant).transpose();
    faults.keep(field, parsed).flatten()
}

fn access(access: i32) -> Result<Option<Access>, Problem> {
    v1::Access::try_from(access)
        .map(permissions::access)
        .map_err(|_| Problem::new("is not an access: use ACCESS_READ or ACCESS_READ_WRITE"))
}

/// Returns the values to which a page token is bound: all list parameters except the start and the
/// size of the page.
fn question(query: &ListQuery) -> impl serde::Serialize {
    (
        query.stack_key.as_ref().map(ToString::to_string),
        format!("{:?}", query.order),
        format!("{:?}", query.filter),
    )
}

pub fn listed(query: &ListQuery, page: TokenPage) -> v1::ListResponse {
    let next = page.next.map(|cursor| page::seal(&question(query), cursor));
    v1::ListResponse {
        tokens: page
            .tokens
            .iter()
            .map(|listed| tokens::token(listed, page.listed_at))
            .collect(),
        next_page_token: next.unwrap_or_default(),
        limit: page.limit.map(tokens::limit),
    }
}

fn states(faults: &mut Violations, asked: &[i32]) -> Vec<TokenState> {
    let mut states = Vec::new();
    for (at, state) in asked.iter().enumerate() {
        match v1::TokenState::try_from(*state) {
            Ok(v1::TokenState::Active) => states.push(TokenState::Active),
            Ok(v1::TokenState::Expired) => states.push(TokenState::Expired),
            Ok(v1::TokenState::Revoked) => states.push(TokenState::Revoked),
            Ok(v1::TokenState::Unspecified) | Err(_) => {
                let choices = "is not a state: use TOKEN_STATE_ACTIVE, _EXPIRED or _REVOKED";
                faults.add(format!("states[{at}]"), Problem::new(choices));
            }
        }
    }
    states
}

fn order(order: i32) -> Result<Order, Problem> {
    match v1::TokenOrder::try_from(order) {
        Ok(v1::TokenOrder::Unspecified | v1::TokenOrder::NewestFirst) => Ok(Order::NewestFirst),
        Ok(v1::TokenOrder::OldestFirst) => Ok(Order::OldestFirst),
        Ok(v1::TokenOrder::ExpiresFirst) => Ok(Order::ExpiresFirst),
        Ok(v1::TokenOrder::Name) => Ok(Order::Name),
        Err(_) => Err(Problem::new("is not an order: see TokenOrder")),
    }
}
