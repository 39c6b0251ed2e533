//! Applies the changes of one update: the change of the expiry and the change of the other fields.
//! If the update has both, previews both before it applies the first one.

use prost_types::Timestamp;
use tonic::Code;

use super::CmsError;
use crate::{
    grpc::{
        pb::v1::{
            SetExpiryRequest, SetExpiryResponse, Token, TokenState, UpdateRequest, UpdateResponse,
        },
        status::ReceivedError,
    },
    http::request::HttpRequest,
};

const UPDATE: &str = "/stacktoken.v1.TokenService/Update";
const SET_EXPIRY: &str = "/stacktoken.v1.TokenService/SetExpiry";

/// The changes of one update.
pub(super) struct Changes {
    /// The change of the name, the description and the permissions.
    pub update: Option<UpdateRequest>,
    /// The change of the expiry.
    pub set_expiry: Option<SetExpiryRequest>,
}

impl Changes {
    /// Applies the changes, and returns the resulting token.
    ///
    /// # Errors
    /// The message states if only the first of two changes was applied.
    pub async fn make(self, request: &HttpRequest, token: Token) -> Result<Token, CmsError> {
        match (self.update, self.set_expiry) {
            (None, None) => Ok(token),
            (Some(update), None) => Ok(call_update(request, &update).await?),
            (None, Some(set_expiry)) => Ok(call_set_expiry(request, &set_expiry).await?),
            (Some(update), Some(set_expiry)) => both(request, &token, update, set_expiry).await,
        }
    }

    /// Previews the changes without applying them. The result is ignored.
    pub async fn attempt(self, request: &HttpRequest) {
        if let Some(update) = self.update {
            let _ = call_update(request, &preview_of_update(&update)).await;
        }
        if let Some(set_expiry) = self.set_expiry {
            let _ = call_set_expiry(request, &preview_of_expiry(&set_expiry)).await;
        }
    }
}

/// Applies both changes. The second can fail because of the rate limit, an outage or the deadline.
/// If the expiry becomes earlier, it is changed first, so that access is reduced even if the second
/// change fails. An expiry that ends the token is changed last, because a dead token cannot be
/// updated.
async fn both(
    request: &HttpRequest,
    token: &Token,
    mut update: UpdateRequest,
    mut set_expiry: SetExpiryRequest,
) -> Result<Token, CmsError> {
    call_update(request, &preview_of_update(&update)).await?;
    let previewed = call_set_expiry(request, &preview_of_expiry(&set_expiry)).await?;
    let ends = previewed.state() != TokenState::Active;
    let is_earlier = is_before(previewed.expires_at.as_ref(), token.expires_at.as_ref());
    if is_earlier && !ends {
        update.etag = call_set_expiry(request, &set_expiry).await?.etag;
        let made = call_update(request, &update).await;
        made.map_err(|error| half_made(error, "expires_on was changed", "the other fields"))
    } else {
        set_expiry.etag = call_update(request, &update).await?.etag;
        let made = call_set_expiry(request, &set_expiry).await;
        made.map_err(|error| half_made(error, "The other fields were changed", "expires_on"))
    }
}

/// Returns whether `one` is an earlier expiry than `other`. `None` means that the token never
/// expires.
fn is_before(one: Option<&Timestamp>, other: Option<&Timestamp>) -> bool {
    match (one, other) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(one), Some(other)) => (one.seconds, one.nanos) < (other.seconds, other.nanos),
    }
}

/// Returns the error for an update whose second change failed. After an outage, it is unknown
/// whether the second change was applied.
fn half_made(error: ReceivedError, made: &str, rest: &str) -> CmsError {
    let is_unknown = matches!(
        error.code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown
    );
    let made = if is_unknown {
        format!("{made}; {rest} may not have been changed; send the same update again:")
    } else {
        format!("{made}, but not {rest}; send the same update again:")
    };
    CmsError::from(error).after_part(&made)
}

fn preview_of_update(update: &UpdateRequest) -> UpdateRequest {
    UpdateRequest {
        validate_only: true,
        ..update.clone()
    }
}

fn preview_of_expiry(set_expiry: &SetExpiryRequest) -> SetExpiryRequest {
    SetExpiryRequest {
        validate_only: true,
        ..set_expiry.clone()
    }
}

async fn call_update(
    request: &HttpRequest,
    update: &UpdateRequest,
) -> Result<Token, ReceivedError> {
    let made: UpdateResponse = request.call(UPDATE, update).await?;
    Ok(made.token.unwrap_or_default())
}

async fn call_set_expiry(
    request: &HttpRequest,
    set_expiry: &SetExpiryRequest,
) -> Result<Token, ReceivedError> {
    let made: SetExpiryResponse = request.call(SET_EXPIRY, set_expiry).await?;
    Ok(made.token.unwrap_or_default())
}
