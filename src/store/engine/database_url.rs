//! The location of the store. Its `Display` shows only the kind, host and name, because a URL can
//! contain a password.

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};

/// How long a call waits for a connection before the store counts as unreachable. This is shorter
/// than the time limit of a read, so that a busy pool is not mistaken for a dead connection.
const ACQUIRE_FOR: Duration = Duration::from_millis(500);
/// The maximum to which `ACQUIRE_FOR` is raised if connecting is slow.
const LONGEST_ACQUIRE_FOR: Duration = Duration::from_secs(10);

/// The parameters that the driver knows. It logs any other parameter together with its value, so
/// others are rejected.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// The parameters that name a file with a private key.
const KEY_FILES: [&str; 2] = ["sslkey", "ssl-key"];
/// The parameters that name a file with certificates.
const FILES: [&str; 5] = [
    "sslcert",
    "ssl-cert",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
];

/// The location of a store.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file, used by only one process.
    Sqlite(PathBuf),
    /// A PostgreSQL database, which several replicas can share.
    Postgres(PostgresUrls),
}

/// The URLs of a PostgreSQL database. They are never printed. All clones share the URLs, so a
/// rotated password applies to all connections that are made afterwards.
#[derive(Clone)]
pub struct PostgresUrls {
    urls: Arc<ArcSwap<Urls>>,
    /// How long to wait for a connection, in milliseconds.
    acquire_for: Arc<AtomicU64>,
}

#[derive(PartialEq, Eq)]
struct Urls {
    /// The URL for calls. It may lead to a pooler.
    url: String,
    /// The URL that bypasses any pooler, for LISTEN, the change log and migrations. `None` if there
    /// is no pooler.
    direct: Option<String>,
    /// Whether connections made with either URL are safe from eavesdropping and impersonation.
    private: bool,
}

impl PostgresUrls {
    fn new(url: &str, direct: Option<&str>) -> Self {
        let urls = Urls {
            url: url.to_owned(),
            direct: direct.map(ToOwned::to_owned),
            private: is_private(url) && direct.is_none_or(is_private),
        };
        let millis = u64::try_from(ACQUIRE_FOR.as_millis()).unwrap_or_default();
        Self {
            urls: Arc::new(ArcSwap::from_pointee(urls)),
            acquire_for: Arc::new(AtomicU64::new(millis)),
        }
    }

    /// Returns the URL for calls.
    pub(in crate::store) fn url(&self) -> String {
        self.urls.load().url.clone()
    }

    /// Returns the URL that bypasses any pooler.
    pub(in crate::store) fn direct(&self) -> String {
        let urls = self.urls.load();
        urls.direct.as_ref().unwrap_or(&urls.url).clone()
    }

    /// Returns how long a call waits for a connection.
    pub(in crate::store) fn acquire_for(&self) -> Duration {
        Duration::from_millis(self.acquire_for.load(Ordering::Relaxed))
    }

    /// Records how long it took to connect. If connecting is slow, calls wait longer from now on.
    /// Otherwise every attempt would be cancelled before it could succeed.
    pub(in crate::store) fn note_connected(&self, took: Duration) {
        let wait = (2 * took).clamp(ACQUIRE_FOR, LONGEST_ACQUIRE_FOR);
        let millis = u64::try_from(wait.as_millis()).unwrap_or_default();
        self.acquire_for.fetch_max(millis, Ordering::Relaxed);
    }
}

impl PartialEq for PostgresUrls {
    fn eq(&self, other: &Self) -> bool {
        **self.urls.load() == **other.urls.load()
    }
}

impl Eq for PostgresUrls {}

/// An error in a database URL. The message repeats nothing from the URL, because even the name of a
/// parameter can be part of a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The URL does not have an accepted form.
    #[error(
        "expected sqlite:PATH, such as sqlite:/var/lib/stacktoken/stacktoken.db, or \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Form,
    /// The URL has an unknown parameter, or a password that is not percent-encoded.
    #[error(
        "it has a parameter that is not known, or a password with characters such as ? # / @ that \
         are not percent-encoded; the known parameters are {}",
        PARAMETERS.join(", ")
    )]
    Parameter,
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> Result<Self, LocationError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return parse_path(path);
        }
        check_postgres(url)?;
        Ok(Self::Postgres(PostgresUrls::new(url, None)))
    }
}

impl Location {
    /// Returns the same location with a second URL, which bypasses the pooler.
    ///
    /// # Errors
    /// Returns [`LocationError`] if `direct` is not a PostgreSQL URL, or this location is not
    /// PostgreSQL.
    pub fn with_direct(self, direct: &str) -> Result<Self, LocationError> {
        check_postgres(direct)?;
        match self {
            Self::Postgres(urls) => {
                Ok(Self::Postgres(PostgresUrls::new(&urls.url(), Some(direct))))
            }
            Self::Sqlite(_) => Err(LocationError::Form),
        }
    }

    /// Takes over the URLs of another location for connections made from now on, if both are the
    /// same database. Returns whether the URLs changed.
    #[must_use]
    pub fn follow(&self, other: &Self) -> bool {
        let (Self::Postgres(own), Self::Postgres(theirs)) = (self, other) else {
            return false;
        };
        let changed = own != theirs && self.to_string() == other.to_string();
        if changed {
            own.urls.store(theirs.urls.load_full());
        }
        changed
    }

    /// Returns the files that the URLs name for TLS, and whether each is a private key.
    #[must_use]
    pub fn tls_files(&self) -> Vec<(PathBuf, bool)> {
        let Self::Postgres(urls) = self else {
            return Vec::new();
        };
        let urls = urls.urls.load();
        let each = std::iter::once(&urls.url).chain(&urls.direct);
        let pairs = each.filter_map(|url| Some(url.split_once('?')?.1));
        let pairs = pairs.flat_map(|query| form_urlencoded::parse(query.as_bytes()));
        let files = pairs.filter(|(key, _)| KEY_FILES.contains(&&**key) || FILES.contains(&&**key));
        files
            .map(|(key, path)| (path.as_ref().into(), KEY_FILES.contains(&&*key)))
            .collect()
    }

    /// Returns whether connections are safe from eavesdropping and impersonation. This requires a
    /// file, a socket, `localhost`, a loopback address, or TLS with a verified certificate and host
    /// name. `verify-ca` is not enough: the driver trusts the public CAs in addition to
    /// `sslrootcert`, and anyone can get a certificate from one of those.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(urls) => urls.urls.load().private,
        }
    }
}

fn is_private(url: &str) -> bool {
    let Ok(options) = url.parse::<PgConnectOptions>() else {
        return false;
    };
    let host = options.get_host();
    let local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    local || verified || options.get_socket().is_some()
}

fn parse_path(path: &str) -> Result<Location, LocationError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains(['?', '#']) || path.contains(":memory:") {
        return Err(LocationError::Form);
    }
    Ok(Location::Sqlite(PathBuf::from(path)))
}

fn check_postgres(url: &str) -> Result<(), LocationError> {
    let schemes = ["postgres://", "postgresql://"];
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or(LocationError::Form)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    // If the password contains `/`, `?` or `#` without percent-encoding, a parser ends the host at
    // that character. It reads the rest of the password as the database name or a parameter, so
    // errors and logs would contain it.
    let name = place.split_once('/').map_or("", |(_, name)| name);
    if url.contains('#') || name.contains(['@', '/']) {
        return Err(LocationError::Parameter);
    }
    let mut keys = query.split('&').filter(|pair| !pair.is_empty());
    let known = |pair: &str| {
        let key = pair.split('=').next().unwrap_or_default();
        PARAMETERS.contains(&key) || key.starts_with("options[") && key.ends_with(']')
    };
    if !keys.all(known) {
        return Err(LocationError::Parameter);
    }
    match url.parse::<PgConnectOptions>() {
        Ok(_) => Ok(()),
        Err(_) => Err(LocationError::Form),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "SQLite file {}", path.display()),
            Self::Postgres(urls) => match urls.url().parse::<PgConnectOptions>() {
                Ok(options) => {
                    let database = options.get_database().unwrap_or_default();
                    let (host, port) = (options.get_host(), options.get_port());
                    write!(f, "PostgreSQL database {database} on {host}:{port}")
                }
                Err(_) => f.write_str("PostgreSQL"),
            },
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
