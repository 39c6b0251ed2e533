//! Converts Envoy's description of a request to a question. A fault in the description is caused by
//! the client or by the configuration of a route. The request is then denied. An error is not
//! returned, because Envoy may be configured to let requests pass after an error.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use zeroize::Zeroizing;

use super::{
    headers::{HeaderValue, Headers},
    refusal::{self, Refused},
};
use crate::{
    app::{Included, Question},
    domain::{
        catalogue::{self, Catalogue, Rule},
        routes::{self, Query, QueryFault, RouteTable},
        secret,
        stack::StackKey,
        text,
        verdict::ActionQuestion,
    },
};

const MAX_ACTIONS: usize = 20;
const MAX_FACTS: usize = 16;
const MAX_NAME: usize = 64;

/// A route's `context_extensions`.
struct Route {
    actions: Option<Vec<String>>,
    facts: BTreeMap<String, bool>,
}

/// Builds the question for a request, or returns the reason to deny the request.
pub(super) fn question(
    message: CheckRequest,
    table: &RouteTable,
    catalogue: &Catalogue,
) -> Result<Question, Refused> {
    let attributes = message.attributes.unwrap_or_default();
    let request = attributes.request.unwrap_or_default();
    let mut http = request.http.unwrap_or_default();
    let headers = Headers::take(&mut http);
    let token = token(&headers)?;
    let stack_api_key = stack_key(&headers)?;
    let branch = branch(&headers)?;
    if headers.any(routes::is_override) {
        return Err(refusal::overridden());
    }
    let (path, query) = routes::split_query(&http.path);
    if !routes::is_canonical(path) {
        return Err(refusal::path_not_canonical());
    }
    let route = route(attributes.context_extensions)?;
    let names = match route.actions {
        Some(names) => Some(names),
        None => table.actions(&http.method, path).map(<[String]>::to_vec),
    };
    let asked = match (routes::check_query(query.unwrap_or_default()), &names) {
        (Ok(asked), _) => asked,
        // No token may perform this action, whatever the query is, so the verdict's reason takes
        // precedence over the fault of the query.
        (Err(_), Some(names)) if names.iter().any(|name| is_never(catalogue, name)) => {
            Query::default()
        }
        (Err(fault), _) => return Err(refused(fault)),
    };
    let names = names.ok_or_else(refusal::route_unknown)?;
    let first = Place {
        branch: branch.unwrap_or(table.default_branch()),
        // The value of the header is either a branch or an alias. Both share one namespace.
        alias: branch,
    };
    let in_query = asked.branches.iter().map(|name| Place {
        branch: name,
        alias: Some(name),
    });
    let places: Vec<_> = std::iter::once(first).chain(in_query).collect();
    let extra = asked.actions.iter().map(|name| (*name).to_owned());
    let actions = extra.chain(names).flat_map(|name| {
        let facts = &route.facts;
        places.iter().map(move |place| place.question(&name, facts))
    });
    Ok(Question {
        token,
        stack_api_key,
        actions: actions.collect(),
        min_revision: None,
        include: Included::default(),
    })
}

/// A branch that the request affects. `alias` is set if the name may also be that of an alias.
struct Place<'a> {
    branch: &'a str,
    alias: Option<&'a str>,
}

impl Place<'_> {
    fn question(&self, name: &str, facts: &BTreeMap<String, bool>) -> ActionQuestion {
        ActionQuestion {
            name: name.to_owned(),
            branch: Some(self.branch.to_owned()),
            branch_alias: self.alias.map(str::to_owned),
            facts: facts.clone(),
        }
    }
}

fn is_never(catalogue: &Catalogue, name: &str) -> bool {
    catalogue
        .find(name)
        .is_some_and(|action| action.rule == Rule::Never)
}

fn refused(fault: QueryFault) -> Refused {
    match fault {
        QueryFault::Ambiguous => refusal::query_ambiguous(),
        QueryFault::People => refusal::query_refused(),
        QueryFault::Branch => refusal::query_branch_invalid(),
    }
}

/// Returns the token from the `authorization` header. `Bearer` and one space before the token are
/// optional.
fn token(headers: &Headers) -> Result<Zeroizing<String>, Refused> {
    let value = match headers.only("authorization") {
        HeaderValue::Absent => return Err(refusal::credential_missing()),
        HeaderValue::Invalid => return Err(refusal::credential_invalid()),
        HeaderValue::Once(value) => value,
    };
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        Some(_) => return Err(refusal::credential_invalid()),
        None => value,
    };
    let is_one_word = !token.is_empty() && !token.contains(|c: char| c.is_whitespace());
    if !is_one_word || headers.any(routes::is_credential) {
        return Err(refusal::credential_invalid());
    }
    Ok(Zeroizing::new(token.to_owned()))
}

fn stack_key(headers: &Headers) -> Result<String, Refused> {
    match headers.only("api_key") {
        HeaderValue::Absent => Err(refusal::stack_key_missing()),
        HeaderValue::Once(value) if StackKey::parse(value).is_ok() => Ok(value.to_owned()),
        HeaderValue::Once(_) | HeaderValue::Invalid => Err(refusal::stack_key_invalid()),
    }
}

fn branch(headers: &Headers) -> Result<Option<&str>, Refused> {
    match headers.only("branch") {
        HeaderValue::Absent if headers.any(|name| name == "branch") => {
            Err(refusal::branch_invalid())
        }
        HeaderValue::Absent => Ok(None),
        HeaderValue::Once(value) if text::parse_slug(value).is_ok() => Ok(Some(value)),
        HeaderValue::Once(_) | HeaderValue::Invalid => Err(refusal::branch_invalid()),
    }
}

/// Parses `context_extensions`, which may contain `actions` and facts named `fact.NAME`. Unknown
/// keys are rejected, because ignoring a mistyped key would weaken what the route requires.
fn route(extensions: HashMap<String, String>) -> Result<Route, Refused> {
    let mut route = Route {
        actions: None,
        facts: BTreeMap::new(),
    };
    for (key, value) in extensions {
        let understood = match key.strip_prefix("fact.") {
            Some(name) => fact(name, &value).map(|(name, value)| {
                route.facts.insert(name, value);
            }),
            None if key == "actions" => actions(&value).map(|names| {
                route.actions = Some(names);
            }),
            None => None,
        };
        if understood.is_none() || route.facts.len() > MAX_FACTS {
            // A route's configuration may contain anything, even a secret, which must not be logged
            // (R9). Logs only at debug level, because clients determine how often this happens. A
            // metric counts every occurrence.
            let key = if secret::is_within(&key) { "" } else { &key };
            tracing::debug!(?key, "context_extensions of a route cannot be read");
            return Err(refusal::route_misconfigured());
        }
    }
    Ok(route)
}

fn actions(list: &str) -> Option<Vec<String>> {
    let names: Vec<_> = list.split(',').map(str::trim).collect();
    let fit = names.len() <= MAX_ACTIONS
        && names
            .iter()
            .all(|name| catalogue::check_shape(name).is_ok());
    fit.then(|| names.into_iter().map(str::to_owned).collect())
}

fn fact(name: &str, value: &str) -> Option<(String, bool)> {
    let fit = (1..=MAX_NAME).contains(&name.len()) && !secret::is_within(name);
    let value = match value {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    fit.then(|| (name.to_owned(), value))
}
