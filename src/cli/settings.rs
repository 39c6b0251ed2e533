//! From flags to what they mean, each failure naming its setting.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{self, Authenticator, HttpFetcher},
    config::{DatabaseFlags, Tuning},
    domain::clock::Clock,
    store::Location,
};

/// Where the store is; never prints the URL.
pub fn location(flags: &DatabaseFlags) -> anyhow::Result<Location> {
    let url = match (&flags.database_url, &flags.database_url_file) {
        (Some(_), Some(_)) => {
            bail!("--database-url and --database-url-file are both set: keep one")
        }
        (Some(url), None) => url.clone(),
        (None, Some(file)) => fs::read_to_string(file)
            .with_context(|| format!("--database-url-file: cannot read {}", file.display()))?,
        (None, None) => bail!(
            "--database-url is required (or STACKTOKEN_DATABASE_URL, or --database-url-file): sqlite:PATH"
        ),
    };
    url.trim().parse().context("--database-url")
}

/// Who tells callers apart, with the keys that stand in files loaded.
pub async fn authenticator(
    issuers: &Path,
    tuning: &Tuning,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Authenticator> {
    let named = || format!("--issuers {}", issuers.display());
    let text = fs::read_to_string(issuers).with_context(named)?;
    let base = issuers.parent().unwrap_or(Path::new("."));
    let entries = auth::parse(&text, base).with_context(named)?;
    let fetcher = Arc::new(HttpFetcher::default());
    let authenticator = Authenticator::new(entries, fetcher, clock, tuning.jwks_max_stale);
    authenticator.load_files().await.with_context(named)?;
    Ok(authenticator)
}

/// Cancelled by SIGTERM or SIGINT; the second of them exits at once.
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
