//! Converts flags to the values that the server needs. Every error names the setting that is wrong.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::ExitError;
use crate::{
    auth::{self, Authenticator, Entries, HttpFetcher},
    config::{
        CatalogueFlag, DatabaseFlags, GuardFlags, GuardPlace, GuardWaits, Rules, TlsFlags, Tuning,
    },
    domain::{
        catalogue::Catalogue, catalogue_file, clock::Clock, entropy::Entropy, routes::RouteTable,
    },
    server::{Tls, TlsFiles},
    store::{Guard, GuardLocation, GuardMode, Location, PoolSize, Store},
};

/// Returns the location of the store. Errors never contain the URL, which may contain a password.
pub fn location(flags: &DatabaseFlags) -> anyhow::Result<Location> {
    let url = secret(
        "--database-url",
        flags.database_url.as_ref(),
        flags.database_url_file.as_ref(),
    )?;
    let required = || {
        ExitError::usage(
            "--database-url is required (or STACKTOKEN_DATABASE_URL, or --database-url-file): sqlite:PATH or postgres://…",
        )
    };
    let url = url.ok_or_else(required)?;
    let location = url.trim().parse::<Location>();
    let location = location.map_err(|problem| wrong("--database-url", &problem))?;
    let direct = (
        flags.database_direct_url.as_ref(),
        flags.database_direct_url_file.as_ref(),
    );
    match secret("--database-direct-url", direct.0, direct.1)? {
        Some(direct) => location
            .with_direct(direct.trim())
            .map_err(|problem| wrong("--database-direct-url", &problem).into()),
        None => Ok(location),
    }
}

/// Creates the error for a wrong value of a setting. The error names the flag and its variable.
pub fn wrong(flag: &str, problem: &dyn fmt::Display) -> ExitError {
    let name = flag
        .trim_start_matches('-')
        .to_uppercase()
        .replace('-', "_");
    ExitError::usage(format!("{flag}: {problem} (also set by STACKTOKEN_{name})"))
}

/// Returns the value of a setting that can contain a secret. It is set either directly or with the
/// path of a file that contains it.
fn secret(
    flag: &str,
    value: Option<&String>,
    file: Option<&PathBuf>,
) -> anyhow::Result<Option<String>> {
    match (value, file) {
        (Some(_), Some(_)) => {
            let message = format!("{flag} and {flag}-file are both set: keep one");
            Err(ExitError::usage(message).into())
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(file)) => fs::read_to_string(file)
            .map(Some)
            .with_context(|| format!("{flag}-file: cannot read {}", file.display())),
        (None, None) => Ok(None),
    }
}

/// Opens the store that the database flags specify.
pub async fn open(
    flags: &DatabaseFlags,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Store> {
    let location = location(flags)?;
    require_file(&location).context("--database-url")?;
    open_or_create(flags, &location, (clock, entropy)).await
}

/// Fails if the file of an SQLite store does not exist. Only `migrate up` and `dev` create the
/// file. Otherwise, a mistyped path would create an empty store.
pub fn require_file(location: &Location) -> anyhow::Result<()> {
    if let Location::Sqlite(path) = location
        && !path.exists()
    {
        bail!(
            "{location} does not exist: check the path, or create it with `stacktoken migrate up`"
        );
    }
    Ok(())
}

/// Opens the store, and creates the file of an SQLite store if it does not exist.
pub async fn open_or_create(
    flags: &DatabaseFlags,
    location: &Location,
    (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> anyhow::Result<Store> {
    location
        .reach(clock.as_ref())
        .await
        .context("--database-url")?;
    Store::open(location, pool_size(flags), (clock, entropy))
        .await
        .context("--database-url")
}

/// Returns the size of the connection pool that the database flags specify.
pub const fn pool_size(flags: &DatabaseFlags) -> PoolSize {
    PoolSize {
        connections: flags.database_connections,
    }
}

/// The shortest key of a guard, in bytes.
const GUARD_KEY: usize = 16;

/// The settings of the restore guard.
pub struct GuardSettings {
    location: GuardLocation,
    key: Option<Vec<u8>>,
    mode: GuardMode,
}

impl GuardSettings {
    /// Opens the guard.
    pub fn open(&self, ambient: (Arc<dyn Clock>, &dyn Entropy)) -> anyhow::Result<Guard> {
        let guard = Guard::open(&self.location, self.key.as_deref(), self.mode, ambient);
        guard.with_context(|| format!("{}", self.location))
    }
}

/// Returns the settings of the restore guard of a server, if it has one.
pub fn guard(flags: &GuardFlags) -> anyhow::Result<Option<GuardSettings>> {
    let mode = match flags.guard_mode {
        GuardWaits::Background => GuardMode::Background,
        GuardWaits::Strict => GuardMode::Strict,
    };
    if flags.place.guard.is_none() && mode == GuardMode::Strict {
        let message = "--guard is required (or STACKTOKEN_GUARD): --guard-mode strict has no effect without it";
        return Err(ExitError::usage(message).into());
    }
    guard_place(&flags.place, mode)
}

/// Returns the settings of the restore guard at this place, if one is named.
pub fn guard_place(place: &GuardPlace, mode: GuardMode) -> anyhow::Result<Option<GuardSettings>> {
    let Some(url) = &place.guard else {
        return Ok(None);
    };
    let location = url.parse().map_err(|problem| wrong("--guard", &problem))?;
    let key = match &place.guard_key_file {
        None => None,
        Some(file) => {
            let named = || format!("--guard-key-file: cannot read {}", file.display());
            let key = fs::read(file).with_context(named)?;
            if key.len() < GUARD_KEY {
                let short = format!("{} has fewer than {GUARD_KEY} bytes", file.display());
                return Err(wrong("--guard-key-file", &short).into());
            }
            Some(key)
        }
    };
    Ok(Some(GuardSettings {
        location,
        key,
        mode,
    }))
}

/// Creates the authenticator and loads the issuer keys that are stored in files.
pub async fn authenticator(
    issuers: &Path,
    tuning: &Tuning,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Authenticator> {
    let authenticator = authenticator_of(entries(issuers)?, tuning, clock);
    let loaded = authenticator.load_files().await;
    loaded.with_context(|| format!("--issuers {}", issuers.display()))?;
    Ok(authenticator)
}

/// Reads the issuers file.
pub fn entries(issuers: &Path) -> anyhow::Result<Entries> {
    let named = || format!("--issuers {}", issuers.display());
    let text = fs::read_to_string(issuers).with_context(named)?;
    let base = issuers.parent().unwrap_or(Path::new("."));
    auth::parse(&text, base).with_context(named)
}

/// Creates the authenticator of these entries, without keys.
pub fn authenticator_of(entries: Entries, tuning: &Tuning, clock: Arc<dyn Clock>) -> Authenticator {
    let fetcher = Arc::new(HttpFetcher::default());
    Authenticator::new(entries, fetcher, clock, tuning.jwks_max_stale)
}

/// Loads the TLS settings of the gRPC port, if TLS is requested.
pub async fn tls(
    flags: &TlsFlags,
    authenticator: &Authenticator,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Option<Tls>> {
    let client_ca = flags.tls_client_ca.clone();
    if client_ca.is_none() && authenticator.wants_certificates() {
        return Err(ExitError::usage(
            "--tls-client-ca is required (or STACKTOKEN_TLS_CLIENT_CA): the issuers file has [[mtls]] entries, and without it no client certificate is verified",
        )
        .into());
    }
    let (cert, key) = match (&flags.tls_cert, &flags.tls_key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (None, None) if client_ca.is_none() => return Ok(None),
        (Some(_), None) => {
            let message = "--tls-key is required (or STACKTOKEN_TLS_KEY): the key of --tls-cert";
            return Err(ExitError::usage(message).into());
        }
        (None, _) => {
            return Err(ExitError::usage(
                "--tls-cert is required (or STACKTOKEN_TLS_CERT): --tls-key and --tls-client-ca have no effect without it",
            )
            .into());
        }
    };
    let files = TlsFiles {
        cert,
        key,
        client_ca,
    };
    Ok(Some(Tls::load(files, clock).await?))
}

/// Returns a random id, such as the one that identifies this process in its spans.
pub fn random_id(entropy: &dyn Entropy) -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string())
}

/// The catalogue and the route table in effect.
pub struct EffectiveRules {
    /// The catalogue of actions.
    pub catalogue: Arc<Catalogue>,
    /// The route table, which maps the requests that Envoy checks to actions of the catalogue.
    pub routes: Arc<RouteTable>,
}

/// Loads the built-in catalogue and route table, with the additions in the operator's files.
pub fn rules(rules: &Rules) -> anyhow::Result<EffectiveRules> {
    let catalogue = catalogue(&rules.catalogue)?;
    let routes = routes(rules, &catalogue)?;
    Ok(EffectiveRules {
        catalogue: Arc::new(catalogue),
        routes: Arc::new(routes),
    })
}

/// Loads the catalogue of actions.
pub fn catalogue(flag: &CatalogueFlag) -> anyhow::Result<Catalogue> {
    let Some(path) = &flag.file else {
        return Ok(Catalogue::builtin());
    };
    let named = || format!("--catalogue {}", path.display());
    let text = fs::read_to_string(path).with_context(named)?;
    catalogue_file::parse(&text).with_context(named)
}

/// Loads the route table, whose actions must be in the catalogue.
fn routes(rules: &Rules, catalogue: &Catalogue) -> anyhow::Result<RouteTable> {
    let Some(path) = &rules.authz_routes else {
        return RouteTable::builtin().context("the built-in route table");
    };
    let named = || format!("--authz-routes {}", path.display());
    let text = fs::read_to_string(path).with_context(named)?;
    RouteTable::parse(&text, catalogue).with_context(named)
}

/// Returns a cancellation token that is cancelled by SIGTERM or SIGINT. A second signal ends the
/// process at once.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stopping = stop.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the process and holds nothing"
    )]
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                std::process::exit(1);
            }
            stopping.cancel();
        }
    });
    Ok(stop)
}
