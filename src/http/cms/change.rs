//! Creating, updating and deleting tokens.

use axum::{body::Body, extract::Path, response::Response};
use http::StatusCode;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    CmsError, expiry,
    input::Sent,
    lookup, scope,
    shape::{OneToken, Shown},
    stack_key,
};
use crate::{
    grpc::pb::v1::{
        IssueRequest, IssueResponse, RevokeRequest, RevokeResponse, SetExpiryRequest,
        SetExpiryResponse, Token, UpdateRequest, UpdateResponse,
    },
    http::{error::json, query, request::HttpRequest},
};

const ISSUE: &str = "/stacktoken.v1.TokenService/Issue";
const UPDATE: &str = "/stacktoken.v1.TokenService/Update";
const SET_EXPIRY: &str = "/stacktoken.v1.TokenService/SetExpiry";
const REVOKE: &str = "/stacktoken.v1.TokenService/Revoke";

/// Creates a token. Neither its scope nor its expiry has a default (R3).
pub(in crate::http) async fn create(request: HttpRequest) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let sent = Sent::parse(&request)?;
    sent.require_new()?;
    let (name, description) = sent.texts()?;
    let expires_on = sent.expires_on.as_ref().ok_or_else(|| {
        CmsError::field(
            "expires_on",
            "is required, there is no default: a date, or null for never",
        )
    })?;
    let message = IssueRequest {
        stack_api_key: stack_key(&request.headers)?,
        name: name.unwrap_or_default().to_owned(),
        description: description.unwrap_or_default().to_owned(),
        permissions: Some(scope::parse(sent.scope.as_ref().unwrap_or(&Value::Null))?),
        expiry: Some(expiry::parse(expires_on)?),
        ..IssueRequest::default()
    };
    let issued: IssueResponse = request.call(ISSUE, &message).await?;
    let secret = Zeroizing::new(issued.secret);
    let token = issued.token.unwrap_or_default();
    let body = OneToken {
        notice: Some("Management Token created successfully."),
        token: Shown::new(&token, Some(&secret)),
    };
    Ok(json(StatusCode::CREATED, None, &body))
}

/// Updates a token. Fields that are not sent stay as they are. The RPCs change the expiry and the
/// other fields separately, so both are previewed before the first is made.
pub(in crate::http) async fn update(
    Path(uid): Path<String>,
    request: HttpRequest,
) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let sent = Sent::parse(&request)?;
    let mut token = lookup::get(&request, uid).await?;
    require_unchanged(&sent, &token)?;
    let update = update_of(&sent, &token)?;
    let set_expiry = set_expiry_of(&sent, &token)?;
    if let (Some(update), Some(set_expiry)) = (&update, &set_expiry) {
        let (mut update, mut set_expiry) = (update.clone(), set_expiry.clone());
        (update.validate_only, set_expiry.validate_only) = (true, true);
        let _: UpdateResponse = request.call(UPDATE, &update).await?;
        let _: SetExpiryResponse = request.call(SET_EXPIRY, &set_expiry).await?;
    }
    let is_first = update.is_none();
    if let Some(update) = update {
        let updated: UpdateResponse = request.call(UPDATE, &update).await?;
        token = updated.token.unwrap_or(token);
    }
    if let Some(mut set_expiry) = set_expiry {
        set_expiry.etag.clone_from(&token.etag);
        let made: Result<SetExpiryResponse, _> = request.call(SET_EXPIRY, &set_expiry).await;
        let made = made.map_err(|error| {
            let error = CmsError::from(error);
            if is_first {
                return error;
            }
            error.after_part(
                "The other fields were changed, expires_on was not: send the same update again.",
            )
        })?;
        token = made.token.unwrap_or(token);
    }
    let body = OneToken {
        notice: Some("Management Token updated successfully."),
        token: Shown::new(&token, None),
    };
    Ok(json(StatusCode::OK, None, &body))
}

/// Deletes a token: revokes it. It is no error if the token was deleted before.
pub(in crate::http) async fn delete(
    Path(uid): Path<String>,
    request: HttpRequest,
) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let message = RevokeRequest {
        stack_api_key: stack_key(&request.headers)?,
        token_uid: uid,
        ..RevokeRequest::default()
    };
    let _: RevokeResponse = request.call(REVOKE, &message).await?;
    let body = serde_json::json!({ "notice": "Management Token deleted successfully." });
    Ok(json(StatusCode::OK, None, &body))
}

/// Refuses changes of what the server makes. Clients send whole objects back, so what is unchanged is
/// accepted. Of a secret only the hint is known here, which is enough to notice another secret.
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

/// Returns the update of name, description and permissions; `None` if nothing of them changes.
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
    let update = UpdateRequest {
        stack_api_key: token.stack_api_key.clone(),
        token: Some(to_set),
        update_mask: Some(prost_types::FieldMask { paths }),
        etag: token.etag.clone(),
        validate_only: false,
    };
    let changes = update
        .update_mask
        .as_ref()
        .is_some_and(|mask| !mask.paths.is_empty());
    Ok(changes.then_some(update))
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
