//! The caller's own credential: had anew for every call, since JWTs expire and whoever renews
//! one replaces the file.

use std::{error::Error as Cause, path::PathBuf};

use tonic::metadata::{Ascii, MetadataValue};

use super::Error;

/// Answers a JWT.
type Source = dyn Fn() -> Result<String, Box<dyn Cause + Send + Sync>> + Send + Sync;

/// Where the bearer token comes from.
#[derive(Default)]
pub(super) enum Credential {
    /// A client certificate says who calls.
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Read for every call.
    File(PathBuf),
    /// Asked for every call.
    From(Box<Source>),
}

impl Credential {
    pub fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The value of `authorization`, if there is one.
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
            Error::Credential("the JWT holds characters that cannot be sent".into())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
