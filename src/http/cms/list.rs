//! `GET /v3/stacks/management_tokens`. The CMS skips a number of tokens, but the RPC pages with
//! page tokens. So the skipped tokens are read and discarded, and `skip` and `limit` have maximums.

use std::{collections::HashSet, ops::Range};

use axum::{body::Body, response::Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{CmsError, shape::Shown, stack_key};
use crate::{
    grpc::pb::v1::{ListRequest, ListResponse, Token, TokenOrder, TokenState},
    http::{error::json, request::HttpRequest},
};

const RPC: &str = "/stacktoken.v1.TokenService/List";
/// Maximum page size of the RPC, and of a response.
const MAX_PAGE: usize = 100;
/// Maximum number of tokens that one request reads.
const MAX_READ: usize = 1100;

/// A response with a page of tokens.
#[derive(Serialize)]
struct Tokens<'a> {
    tokens: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

/// The parsed query parameters.
struct Question {
    skip: usize,
    limit: usize,
    order: TokenOrder,
    name: String,
    includes_count: bool,
    counts_only: bool,
}

/// The JSON value of the query parameter `query`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    name: String,
}

/// Lists the tokens of a stack, without deleted ones.
pub(in crate::http) async fn list(request: HttpRequest) -> Result<Response<Body>, CmsError> {
    let question = Question::parse(request.query.as_deref().unwrap_or_default())?;
    let stack_api_key = stack_key(&request.headers)?;
    let counts = question.includes_count || question.counts_only;
    let end = question.skip + question.limit;
    let (tokens, is_complete) = read(&request, stack_api_key, &question, counts, end).await?;
    if counts && !is_complete {
        return Err(CmsError::field(
            "include_count",
            format!(
                "is not possible with more than {MAX_READ} tokens: leave it out, or delete old tokens"
            ),
        ));
    }
    if question.counts_only {
        let body = serde_json::json!({ "tokens": tokens.len() });
        return Ok(json(StatusCode::OK, None, &body));
    }
    let page = tokens
        .get(page(&question, tokens.len()))
        .unwrap_or_default();
    let body = Tokens {
        tokens: page.iter().map(|token| Shown::new(token, None)).collect(),
        count: question.includes_count.then_some(tokens.len()),
    };
    Ok(json(StatusCode::OK, None, &body))
}

fn page(question: &Question, available: usize) -> Range<usize> {
    let start = question.skip.min(available);
    start..(start + question.limit).min(available)
}

/// Reads tokens up to `end`, or all tokens. Also returns whether the result contains all tokens.
async fn read(
    request: &HttpRequest,
    stack_api_key: String,
    question: &Question,
    all: bool,
    end: usize,
) -> Result<(Vec<Token>, bool), CmsError> {
    let wanted = if all { MAX_READ } else { end };
    let states = [TokenState::Active, TokenState::Expired];
    let mut message = ListRequest {
        stack_api_key,
        page_size: i32::try_from(wanted.clamp(1, MAX_PAGE)).unwrap_or(i32::MAX),
        states: states.map(Into::into).to_vec(),
        name: question.name.clone(),
        order: question.order.into(),
        ..ListRequest::default()
    };
    let mut tokens = Vec::new();
    loop {
        let page: ListResponse = request.call(RPC, &message).await?;
        tokens.extend(page.tokens);
        message.page_token = page.next_page_token;
        let is_complete = message.page_token.is_empty();
        if is_complete || tokens.len() >= wanted {
            return Ok((tokens, is_complete));
        }
    }
}

impl Question {
    fn parse(query: &str) -> Result<Self, CmsError> {
        let mut question = Self {
            skip: 0,
            limit: MAX_PAGE,
            order: TokenOrder::NewestFirst,
            name: String::new(),
            includes_count: false,
            counts_only: false,
        };
        let mut names = HashSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            question.set(&name, &value)?;
            // `asc` and `desc` both set the order, so only one of them may be sent.
            let place = if name == "desc" {
                "asc".into()
            } else {
                name.clone()
            };
            if !names.insert(place) {
                return Err(CmsError::field(
                    &name,
                    "is repeated, or stands beside another order: send it once",
                ));
            }
        }
        Ok(question)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), CmsError> {
        match name {
            "skip" => self.skip = number(name, value, 0..=MAX_READ - MAX_PAGE)?,
            "limit" => self.limit = number(name, value, 1..=MAX_PAGE)?,
            "include_count" => self.includes_count = flag(name, value)?,
            "count" => self.counts_only = flag(name, value)?,
            "asc" | "desc" => self.order = order(name, value)?,
            "query" => {
                let filter: Result<Filter, _> = serde_json::from_str(value);
                self.name = filter
                    .map_err(|_| CmsError::field(name, "filters by name only: {\"name\": \"…\"}"))?
                    .name;
            }
            _ => {
                return Err(CmsError::field(
                    "query",
                    "has an unknown parameter: known are skip, limit, include_count, count, asc, desc and query",
                ));
            }
        }
        Ok(())
    }
}

fn order(name: &str, value: &str) -> Result<TokenOrder, CmsError> {
    match (name, value) {
        ("asc", "created_at") => Ok(TokenOrder::OldestFirst),
        ("desc", "created_at") => Ok(TokenOrder::NewestFirst),
        ("asc", "expires_on") => Ok(TokenOrder::ExpiresFirst),
        ("asc", "name") => Ok(TokenOrder::Name),
        _ => Err(CmsError::field(
            name,
            "is not possible: known are asc=created_at, desc=created_at, asc=expires_on and asc=name",
        )),
    }
}

fn number(
    name: &str,
    value: &str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, CmsError> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        CmsError::field(name, format!("must be a number from {first} to {last}"))
    })
}

fn flag(name: &str, value: &str) -> Result<bool, CmsError> {
    value
        .parse()
        .map_err(|_| CmsError::field(name, "must be true or false"))
}
