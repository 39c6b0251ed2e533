//! The CMS's own routes for management tokens, so that its SDKs and front ends work with another
//! address alone. The stack key is in the header `api_key`. The JWT of a person is a Bearer token or
//! in the header `authtoken`.

mod change;
mod error;
mod expiry;
mod input;
mod list;
mod lookup;
mod scope;
mod shape;

use http::HeaderMap;

pub(super) use self::{
    change::{create, delete, update},
    error::CmsError,
    list::list,
    lookup::fetch,
};
use super::forward;

/// Header with the stack key.
const API_KEY: &str = "api_key";

/// Returns the stack key of a request.
///
/// # Errors
/// The header is missing or sent twice.
fn stack_key(headers: &HeaderMap) -> Result<String, CmsError> {
    match forward::single(headers, API_KEY) {
        Ok(Some(key)) => Ok(key.to_owned()),
        Ok(None) => Err(CmsError::stack_key(
            "is required: send the stack API key in the header api_key",
        )),
        Err(problem) => Err(CmsError::stack_key(problem)),
    }
}
