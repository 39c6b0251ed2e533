//! `stacktoken serve`: with a store that is migrated and issuers that are configured.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Args;

use super::settings;
use crate::{
    app::Safeguards,
    config::{DatabaseFlags, Listen, TlsFlags, Tuning},
    domain::{clock::SystemClock, entropy::OsEntropy},
    server::{self, Listeners, Parts},
};

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    database: DatabaseFlags,
    /// The issuers whose credentials are accepted: a TOML file
    #[arg(long, env = "STACKTOKEN_ISSUERS", value_name = "FILE")]
    issuers: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tuning: Tuning,
}

pub async fn run(command: Serve) -> anyhow::Result<ExitCode> {
    let issuers = command.issuers.as_deref();
    let issuers = issuers.context("--issuers is required (or STACKTOKEN_ISSUERS): a TOML file")?;
    let location = settings::location(&command.database)?;
    let stop = settings::stop_on_signal()?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let tuning = &command.tuning;
    let routes = settings::routes(tuning)?;
    let authenticator = settings::authenticator(issuers, tuning, clock.clone()).await?;
    let tls = settings::tls(&command.tls, &authenticator, clock.clone()).await?;
    let Listen {
        listen,
        admin_listen,
    } = command.listen;
    let listeners = Listeners::bind(listen, admin_listen).await?;
    let store = settings::open(&command.database, clock.clone(), entropy.clone()).await?;
    let store = Arc::new(store);
    store
        .require_current_schema()
        .await
        .context("--database-url")?;
    store.require_home().await.context("--database-url")?;
    tracing::info!(%listen, %admin_listen, store = %location, "starting");
    let authenticator = Arc::new(authenticator);
    let parts = Parts {
        store: store.clone(),
        authenticator,
        routes,
        clock,
        entropy,
        tls,
        safeguards: Safeguards::default(),
    };
    server::run(parts, tuning, listeners, || tracing::info!("serving"), stop).await?;
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
