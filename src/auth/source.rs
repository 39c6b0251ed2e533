//! Where an issuer's keys come from: an address or a file, from the issuers file alone, never
//! from a credential. Reads nothing itself.

use std::{fmt, net::IpAddr, path::PathBuf};

use http::Uri;

/// One place of keys. Entries that name the same place share what is loaded from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// An address that serves a JWK set.
    Url {
        /// https, or http to this host.
        url: Uri,
        /// PEM certificates to trust there in place of the system's.
        ca: Option<PathBuf>,
    },
    /// A file that holds a JWK set.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    /// For logs: the address without its query, which may hold a secret.
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

/// An address that keys may be fetched from.
///
/// # Errors
/// What is wrong with it and what to do; never quotes it, since it may hold a password.
pub(super) fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text
        .parse()
        .map_err(|_| "is not a URL: write one such as https://login.example.com/keys")?;
    let authority = url
        .authority()
        .ok_or("names no host: write a full URL such as https://login.example.com/keys")?;
    if authority.as_str().contains('@') {
        return Err("holds a user name or password: remove it, key sets are public");
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(authority.host()) => Ok(url),
        _ => Err("must be https (http only to a loopback host): change the scheme"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
