//! `POST /oauth2/token` (RFC 8693): a workload exchanges its JWT for a session secret, through
//! `ExchangeService.Exchange`. The JWT is sent in the form and is the only credential. All refusals
//! have the same response, so that it does not disclose the cause.

use std::{collections::HashSet, sync::Arc};

use axum::{body::Body, extract::State, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::Code;
use zeroize::Zeroizing;

use super::{CREDENTIALS, OauthError, answer};
use crate::{
    domain::timestamp::Timestamp,
    grpc::{
        pb::v1::{
            Access, ExchangeRequest, ExchangeResponse, ModuleGrant, ModuleGrants, Permissions,
        },
        status::ReceivedError,
    },
    http::{Settings, body::Form, error::json, forward, query, request::HttpRequest},
};

const RPC: &str = "/stacktoken.v1.ExchangeService/Exchange";
/// The grant type of a token exchange (RFC 8693 §2.1), the only one that is supported.
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The accepted types of `subject_token`. An ID token is a JWT too (RFC 8693 §3).
const SUBJECT_TYPES: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
];
/// The type of the issued token.
const ISSUED_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Parameters of RFC 8693 that are not supported. They would change who acts or on which resource,
/// so they are refused instead of ignored.
const NOT_OFFERED: [&str; 3] = ["actor_token", "actor_token_type", "resource"];
/// The name in a scope that means all modules.
const ALL: &str = "*";

/// The response (RFC 8693 §2.2.1).
#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// Exchanges a workload's JWT.
pub(in crate::http) async fn token(
    State(settings): State<Arc<Settings>>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    query::require_none(request.query.as_ref())?;
    let form = Form::parse(&request.headers, &request.body)?;
    require_grant(&form)?;
    require_one_credential(&form, &request.headers)?;
    let exchange = parse(&form)?;
    let credential = credential(&form)?;
    let exchanged = request.call_as(credential, RPC, &exchange).await;
    let exchanged = exchanged.map_err(refused)?;
    Ok(respond(exchanged, settings.clock.now()))
}

fn require_grant(form: &Form) -> Result<(), OauthError> {
    match form.get("grant_type") {
        Some(GRANT_TYPE) => Ok(()),
        Some(_) => Err(OauthError::unsupported_grant_type(format!(
            "grant_type has another value than the only one that is offered: send {GRANT_TYPE}"
        ))),
        None => Err(OauthError::invalid_request(format!(
            "grant_type is required: send {GRANT_TYPE}"
        ))),
    }
}

/// Refuses any credential other than the JWT, because it would be ambiguous which one counts.
fn require_one_credential(form: &Form, headers: &HeaderMap) -> Result<(), OauthError> {
    for name in [header::AUTHORIZATION, forward::AUTHTOKEN.clone()] {
        if headers.contains_key(&name) {
            return Err(OauthError::invalid_request(format!(
                "subject_token is the only credential of this request: send no header {name}"
            )));
        }
    }
    match CREDENTIALS.iter().find(|name| form.get(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(OauthError::invalid_request(format!(
            "subject_token is the only credential of this request: send no {name}"
        ))),
    }
}

/// Parses the form into a request. The RPC checks the stack key, the token id and the modules.
fn parse(form: &Form) -> Result<ExchangeRequest, OauthError> {
    if let Some(name) = NOT_OFFERED.iter().find(|name| form.get(name).is_some()) {
        return Err(OauthError::invalid_request(format!(
            "{name} is not offered: send the JWT of the workload as subject_token, and the stack key as audience"
        )));
    }
    let subject_type = form.get("subject_token_type");
    if !subject_type.is_some_and(|sent| SUBJECT_TYPES.contains(&sent)) {
        return Err(OauthError::invalid_request(format!(
            "subject_token_type must be {}",
            SUBJECT_TYPES.join(" or ")
        )));
    }
    let requested = form.get("requested_token_type");
    if requested.is_some_and(|sent| sent != ISSUED_TYPE) {
        return Err(OauthError::invalid_request(format!(
            "requested_token_type must be {ISSUED_TYPE}, or omitted"
        )));
    }
    let audience = form.get("audience").ok_or_else(|| {
        OauthError::invalid_request("audience is required: send the stack API key")
    })?;
    Ok(ExchangeRequest {
        stack_api_key: audience.to_owned(),
        token_uid: form.get("token_uid").unwrap_or_default().to_owned(),
        session_for: None,
        narrow: form.get("scope").map(narrowed).transpose()?,
    })
}

/// Returns the JWT as the credential of the RPC. Ignores white space around the JWT, such as the
/// newline at the end of a file.
fn credential(form: &Form) -> Result<HeaderValue, OauthError> {
    let jwt = form.get("subject_token").ok_or_else(|| {
        OauthError::invalid_request("subject_token is required: send the JWT of the workload")
    })?;
    let value = Zeroizing::new(format!("Bearer {}", jwt.trim_ascii()));
    let mut value = HeaderValue::from_str(&value).map_err(|_| refusal())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Parses `scope`, which has the same format as in introspection responses. It can restrict the
/// session to modules, but not to branches.
fn narrowed(scope: &str) -> Result<Permissions, OauthError> {
    let parts: Option<Vec<_>> = scope.split(' ').map(grant).collect();
    let grants = parts.filter(|grants| is_unambiguous(grants));
    let grants = grants.ok_or_else(|| {
        OauthError::invalid_request(
            "scope is a list of module:READ and module:READ_WRITE with one space between them, each module once, or *:READ or *:READ_WRITE alone",
        )
    })?;
    let writes = |grant: &ModuleGrant| grant.access() == Access::ReadWrite;
    let access = if grants.iter().any(writes) {
        Access::ReadWrite
    } else {
        Access::Read
    };
    let is_all = grants.iter().any(|grant| grant.module == ALL);
    Ok(Permissions {
        access: access.into(),
        modules: (!is_all).then_some(ModuleGrants { grants }),
        branches: None,
    })
}

fn grant(part: &str) -> Option<ModuleGrant> {
    let (module, access) = part.split_once(':')?;
    let access = match access {
        "READ" => Access::Read,
        "READ_WRITE" => Access::ReadWrite,
        _ => return None,
    };
    (!module.is_empty()).then(|| ModuleGrant {
        module: module.to_owned(),
        access: access.into(),
    })
}

/// Returns whether each module occurs only once, and `*` is the only entry if it occurs.
fn is_unambiguous(grants: &[ModuleGrant]) -> bool {
    let modules: HashSet<_> = grants.iter().map(|grant| grant.module.as_str()).collect();
    modules.len() == grants.len() && (grants.len() == 1 || !modules.contains(ALL))
}

/// Converts an error of the RPC. An outage must not look like a refusal (R13).
fn refused(error: ReceivedError) -> OauthError {
    let limit = error.reason == "SESSION_LIMIT";
    match error.code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal
        | Code::Unknown
        | Code::Unimplemented
        | Code::DataLoss => error.into(),
        Code::ResourceExhausted if !limit => error.into(),
        _ => refusal(),
    }
}

/// Returns the error that is used for every refusal (RFC 8693 §2.2.2).
fn refusal() -> OauthError {
    OauthError::invalid_request(
        "the exchange is refused: subject_token is not valid here, is used up or not admitted, or audience, token_uid or scope does not fit it; an owner or admin of the stack finds the cause with ExplainExchange",
    )
}

/// Builds the response, the only one that ever contains the secret (R9).
fn respond(mut exchanged: ExchangeResponse, now: Timestamp) -> Response<Body> {
    let ends = exchanged.expires_at.as_ref();
    let ends = ends.and_then(|at| Timestamp::from_parts(at.seconds, at.nanos));
    let answer = Answer {
        access_token: &exchanged.secret,
        issued_token_type: ISSUED_TYPE,
        // The secret is not a Bearer token of RFC 6750, because it is presented together with the
        // stack key.
        token_type: "N_A",
        expires_in: ends.map(|ends| ends.since(now).as_secs()),
        scope: exchanged.permissions.as_ref().map(answer::scope),
    };
    let mut response = json(StatusCode::OK, None, &answer);
    drop(Zeroizing::new(std::mem::take(&mut exchanged.secret)));
    // RFC 6749 §5.1 requires this header in addition to `Cache-Control`.
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::PRAGMA, no_cache);
    response
}
