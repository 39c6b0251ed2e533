//! The source of an issuer's keys: a URL or a file. The source is set only by the issuers file,
//! never by a credential. This module does no I/O.

use std::{fmt, net::IpAddr, path::PathBuf};

use http::Uri;

/// The source of a key set. Entries with the same source share the loaded keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A URL that serves a JWK set.
    Url {
        /// The URL; its scheme is https, or http for a loopback host.
        url: Uri,
        /// PEM file with the CA certificates to trust instead of the system's.
        ca: Option<PathBuf>,
        /// File with the bearer credential for the fetch. It is read again for each fetch, because
        /// Kubernetes replaces it periodically.
        token: Option<PathBuf>,
    },
    /// A file that holds a JWK set.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    /// Formats the source for logs. Leaves out the query of a URL, because it may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => {
                let scheme = url.scheme_str().unwrap_or_default();
                write!(f, "{scheme}://{}", url.host().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(url.path())
            }
        }
    }
}

/// Parses a URL from which keys may be fetched.
///
/// # Errors
/// A message that says what is wrong and how to fix it. It never quotes the URL, because the URL
/// may contain a password.
pub(super) fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text
        .parse()
        .map_err(|_| "is not a URL: write one such as https://login.example.com/keys")?;
    let authority = url
        .authority()
        .ok_or("names no host: write a full URL such as https://login.example.com/keys")?;
    if authority.as_str().contains('@') {
        return Err("contains a user name or password: remove it, because key sets are public");
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(authority.host()) => Ok(url),
        _ => Err("must be https (http only to a loopback host): change the scheme"),
    }
}

/// Returns whether a credential may be sent to this URL. The URL must use https or have a loopback
/// host, and must not contain a user name.
#[must_use]
pub fn is_safe_url(url: &Uri) -> bool {
    parse_url(&url.to_string()).is_ok()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
