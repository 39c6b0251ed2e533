//! `PUT /v3/stacks/management_tokens/{uid}`. The expiry and the other fields are changed by
//! different RPCs, so one request can result in two changes.

use std::panic;

use axum::{body::Body, response::Response};
use http::StatusCode;
use prost_types::{FieldMask, Timestamp};
use tokio::task::JoinError;

use super::{
    CmsError, UidInPath, expiry,
    input::Sent,
    lookup, scope,
    shape::{OneToken, Shown},
    two_changes::Changes,
    uid,
};
use crate::{
    grpc::pb::v1::{SetExpiryRequest, Token, UpdateRequest},
    http::{
        error::{Refusal, json},
        query,
        request::HttpRequest,
    },
};

/// Updates a token. Fields that are not sent stay as they are.
pub(in crate::http) async fn update(
    in_path: UidInPath,
    request: HttpRequest,
) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let uid = uid(in_path)?;
    let sent = Sent::parse(&request)?;
    let token = match lookup::get(&request, uid.clone()).await {
        Ok(token) => token,
        Err(error) => {
            if error.is_not_permitted() {
                attempt(&request, &sent, uid).await;
            }
            return Err(error);
        }
    };
    require_unchanged(&sent, &token)?;
    let changes = Changes::of(&sent, &token)?;
    let token = make(changes, request, token).await?;
    let body = OneToken {
        notice: Some("Management Token updated successfully."),
        token: Shown::new(&token, None),
    };
    Ok(json(StatusCode::OK, None, &body))
}

/// Applies the changes in a separate task, because a client that disconnects must not interrupt
/// them between the first and the second.
#[expect(
    clippy::disallowed_methods,
    reason = "ends with the deadline of its RPCs, which are supervised"
)]
async fn make(changes: Changes, request: HttpRequest, token: Token) -> Result<Token, CmsError> {
    let made = tokio::spawn(async move { changes.make(&request, token).await }).await;
    match made.map_err(JoinError::try_into_panic) {
        Ok(made) => made,
        Err(Ok(panicked)) => panic::resume_unwind(panicked),
        // The server is stopping.
        Err(Err(_)) => Err(Refusal::Overloaded.into()),
    }
}

/// Previews the changes for a caller who may not even read the token. The RPCs refuse the previews,
/// so that the audit has the attempted change (R14) and not only a refused read.
async fn attempt(request: &HttpRequest, sent: &Sent, token_uid: String) {
    let Ok(stack_api_key) = super::stack_key(&request.headers) else {
        return;
    };
    // The actual token is unknown. With this one, the fields that were sent count as changed.
    let unknown = Token {
        token_uid,
        stack_api_key,
        expires_at: Some(Timestamp::default()),
        ..Token::default()
    };
    if let Ok(changes) = Changes::of(sent, &unknown) {
        changes.attempt(request).await;
    }
}

/// Refuses changes to fields that the server sets. An unchanged value is accepted, because clients
/// send back whole objects. A secret is compared with the hints of the token's secrets, because the
/// server knows nothing else of a secret.
fn require_unchanged(sent: &Sent, token: &Token) -> Result<(), CmsError> {
    let shown = Shown::new(token, None);
    for (name, value) in sent.made() {
        let Some(value) = value else {
            continue;
        };
        let same = match name {
            "uid" => value == shown.uid,
            "api_key" => value == shown.api_key,
            "created_at" => value.as_str() == shown.created_at.as_deref(),
            "created_by" => value == shown.created_by,
            _ => value.as_str().is_some_and(|text| is_hinted(text, token)),
        };
        if !same {
            return Err(CmsError::field(
                name,
                "cannot be changed: leave it out, or send it as it was returned",
            ));
        }
    }
    Ok(())
}

fn is_hinted(text: &str, token: &Token) -> bool {
    let mut hints = token.secrets.iter().map(|secret| secret.hint.as_str());
    hints.any(|hint| !hint.is_empty() && text.ends_with(hint))
}

impl Changes {
    /// Returns the changes that set the fields of `token` to the values that were sent.
    fn of(sent: &Sent, token: &Token) -> Result<Self, CmsError> {
        Ok(Self {
            update: update_of(sent, token)?,
            set_expiry: set_expiry_of(sent, token)?,
        })
    }
}

/// Returns the change of the name, the description and the permissions; `None` if none of them
/// changes.
fn update_of(sent: &Sent, token: &Token) -> Result<Option<UpdateRequest>, CmsError> {
    let (name, description) = sent.texts()?;
    let scope = sent.scope.as_ref().map(scope::parse).transpose()?;
    let mut to_set = Token {
        token_uid: token.token_uid.clone(),
        ..Token::default()
    };
    let mut paths = Vec::new();
    if let Some(name) = name.filter(|name| *name != token.name) {
        name.clone_into(&mut to_set.name);
        paths.push("name".to_owned());
    }
    if let Some(description) = description.filter(|text| *text != token.description) {
        description.clone_into(&mut to_set.description);
        paths.push("description".to_owned());
    }
    let current = token.permissions.clone().unwrap_or_default();
    if let Some(scope) = scope.filter(|scope| !scope::means_the_same(scope, &current)) {
        to_set.permissions = Some(scope);
        paths.push("permissions".to_owned());
    }
    if paths.is_empty() {
        return Ok(None);
    }
    Ok(Some(UpdateRequest {
        stack_api_key: token.stack_api_key.clone(),
        token: Some(to_set),
        update_mask: Some(FieldMask { paths }),
        etag: token.etag.clone(),
        validate_only: false,
    }))
}

/// Returns the change of the expiry; `None` if it does not change.
fn set_expiry_of(sent: &Sent, token: &Token) -> Result<Option<SetExpiryRequest>, CmsError> {
    let shown = Shown::new(token, None).expires_on;
    let changed = sent.expires_on.as_ref();
    let changed = changed.filter(|sent| !expiry::is_unchanged(sent, shown.as_deref()));
    let expiry = changed.map(expiry::parse).transpose()?;
    Ok(expiry.map(|expiry| SetExpiryRequest {
        stack_api_key: token.stack_api_key.clone(),
        token_uid: token.token_uid.clone(),
        expiry: Some(expiry),
        etag: token.etag.clone(),
        validate_only: false,
    }))
}
