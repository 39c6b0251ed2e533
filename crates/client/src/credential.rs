//! The caller's own credential. It is read for every call, because a JWT expires and its file is
//! then replaced.

use std::{error::Error as Cause, path::PathBuf};

use tonic::metadata::{Ascii, MetadataValue};

use super::Error;

/// A function that returns a JWT.
type Source = dyn Fn() -> Result<String, Box<dyn Cause + Send + Sync>> + Send + Sync;

/// The source of the bearer token.
#[derive(Default)]
pub(super) enum Credential {
    /// No bearer token, because a client certificate identifies the caller.
    #[default]
    None,
    /// A JWT that never changes.
    Fixed(String),
    /// A file, read for every call.
    File(PathBuf),
    /// A function, called for every call.
    From(Box<Source>),
}

impl Credential {
    pub fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Returns the value of the `authorization` header, or `None` if there is no bearer token.
    pub async fn value(&self) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let jwt = match self {
            Self::None => return Ok(None),
            Self::Fixed(jwt) => jwt.clone(),
            Self::File(path) => tokio::fs::read_to_string(path).await.map_err(|error| {
                let named = format!("cannot read {}: {error}", path.display());
                Error::Credential(named.into())
            })?,
            Self::From(source) => source().map_err(Error::Credential)?,
        };
        let value = MetadataValue::try_from(format!("Bearer {}", jwt.trim()));
        let mut value = value.map_err(|_| {
            Error::Credential("the JWT contains characters that cannot be sent".into())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
