//! Opens the store for `serve`. Waits while the database is unavailable, and adopts a rotated
//! password without a restart.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use anyhow::Context as _;

use super::settings;
use crate::{
    config::DatabaseFlags,
    domain::{clock::Clock, entropy::Entropy},
    store::{Error, GuardError, Location, OpenError, PoolSize, SchemaError, Store},
};

/// Interval between two attempts to connect to an unavailable database.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the files that contain database URLs are polled.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// How the store is opened.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// The size of its pools.
    pub size: PoolSize,
    /// Its restore guard.
    pub guard: Option<&'a settings::GuardSettings>,
}

/// Why the store could not be opened.
enum Missing {
    /// The database is unavailable, so opening the store is retried.
    Away(String),
    /// A retry does not help: a setting or the schema must be changed first.
    Wrong(anyhow::Error),
    /// The same, for the restore guard.
    Guard(anyhow::Error),
}

/// Opens the store. Fails if its schema is not current. While the database is unavailable, waits,
/// and logs each cause once.
pub async fn open(
    location: &Location,
    how: How<'_>,
    ambient: (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> anyhow::Result<Store> {
    let mut printed = BTreeSet::new();
    loop {
        match try_open(location, how, ambient.clone()).await {
            Ok(store) => return Ok(store),
            Err(Missing::Wrong(error)) => return Err(error.context("--database-url")),
            Err(Missing::Guard(error)) => return Err(error.context("--guard")),
            Err(Missing::Away(cause)) => {
                if printed.insert(cause.clone()) {
                    tracing::warn!(cause, "not serving: waiting for the database");
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn try_open(
    location: &Location,
    how: How<'_>,
    ambient: (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> Result<Store, Missing> {
    if let Err(unreachable) = location.reach(ambient.0.as_ref()).await {
        return Err(if unreachable.may_pass() {
            Missing::Away(unreachable.to_string())
        } else {
            Missing::Wrong(unreachable.into())
        });
    }
    settings::require_file(location).map_err(Missing::Wrong)?;
    let shared = matches!(location, Location::Postgres(_));
    let store = match Store::open(location, how.size, ambient.clone()).await {
        Ok(store) => store,
        Err(error @ OpenError::Database { .. }) if shared => {
            return Err(Missing::Away(format!("{:#}", anyhow::Error::from(error))));
        }
        Err(error) => return Err(Missing::Wrong(error.into())),
    };
    match store.require_current_schema().await {
        Ok(()) => {}
        Err(SchemaError::Store(error)) if shared => return Err(Missing::Away(error.to_string())),
        Err(error) => return Err(Missing::Wrong(error.into())),
    }
    match store.require_home().await {
        Ok(()) => guarded(store, how, &ambient).await,
        Err(error @ Error::Foreign) if how.guard.is_some() => {
            let store = guarded(store, how, &ambient).await?;
            // `restore apply` also makes the rows those of this database.
            if store.is_restored_from_past() {
                return Ok(store);
            }
            Err(Missing::Wrong(error.into()))
        }
        Err(error @ Error::Foreign) => Err(Missing::Wrong(error.into())),
        Err(error) => Err(Missing::Away(error.to_string())),
    }
}

/// Compares the store with its guard, if it has one.
async fn guarded(
    store: Store,
    how: How<'_>,
    (clock, entropy): &(Arc<dyn Clock>, Arc<dyn Entropy>),
) -> Result<Store, Missing> {
    let Some(settings) = how.guard else {
        return Ok(store);
    };
    let guard = settings.open((clock.clone(), entropy.as_ref()));
    let store = store.guarded(guard.map_err(Missing::Guard)?);
    match store.check_guard().await {
        Ok(()) => Ok(store),
        Err(error @ GuardError::Store(Error::OtherGuard)) => Err(Missing::Guard(error.into())),
        Err(GuardError::Store(error)) => Err(Missing::Away(error.to_string())),
        Err(error) => Err(Missing::Guard(error.into())),
    }
}

/// Polls the files that contain the database URLs and never returns. After a password is rotated,
/// new connections use the new password.
pub async fn follow(flags: DatabaseFlags, location: Location, store: Arc<Store>) {
    let files = [
        flags.database_url_file.clone(),
        flags.database_direct_url_file.clone(),
    ];
    let read = || files.each_ref().map(|file| fs::read(file.as_ref()?).ok());
    let mut seen = read();
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = read();
        if now == seen {
            continue;
        }
        match settings::location(&flags).context("the database URL has changed") {
            Ok(changed) if location.follow(&changed) => {
                tracing::info!("the database URL was reloaded; reconnecting");
                store.warn_unless_private();
                store.replace_connections().await;
            }
            Ok(changed) if changed == location => {}
            Ok(_) => tracing::warn!("the database URL names another database: restart to use it"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(%error, "the database URL cannot be reloaded: keeping the previous one");
            }
        }
        seen = now;
    }
}
