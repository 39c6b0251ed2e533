//! The CMS's own routes for management tokens. The SDKs and front ends of the CMS can use this
//! service if only their base URL is changed. The stack key is in the header `api_key`. A person's
//! JWT is sent as a Bearer token or in the header `authtoken`.

mod change;
mod error;
mod expiry;
mod input;
mod list;
mod lookup;
mod scope;
mod shape;
mod two_changes;
mod update;

use axum::extract::{Path, rejection::PathRejection};
use http::HeaderMap;

pub(super) use self::{
    change::{create, delete},
    error::CmsError,
    list::list,
    lookup::fetch,
    update::update,
};
use super::forward;

/// The uid in a path, or the reason why the path cannot be decoded.
type UidInPath = Result<Path<String>, PathRejection>;

/// Returns the uid in a path.
///
/// # Errors
/// The path is not UTF-8, so no token has this uid.
fn uid(in_path: UidInPath) -> Result<String, CmsError> {
    match in_path {
        Ok(Path(uid)) => Ok(uid),
        Err(_) => Err(CmsError::no_token()),
    }
}

/// Returns the stack key of a request.
///
/// # Errors
/// The header is missing or sent more than once.
fn stack_key(headers: &HeaderMap) -> Result<String, CmsError> {
    match forward::single(headers, forward::API_KEY) {
        Ok(Some(key)) => Ok(key.to_owned()),
        Ok(None) => Err(CmsError::stack_key(
            "is required: send the stack API key in the header api_key",
        )),
        Err(problem) => Err(CmsError::stack_key(problem)),
    }
}
