//! `stacktoken serve`: runs the server on a migrated store, with the configured issuers.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Args;

use super::{database, settings};
use crate::{
    app::Safeguards,
    config::{DatabaseFlags, Listen, TlsFlags, Tuning},
    domain::{clock::SystemClock, entropy::OsEntropy},
    server::{self, Back, Front, Listeners},
};

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    database: DatabaseFlags,
    /// TOML file with the issuers whose credentials are accepted
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
    let authenticator = Arc::new(authenticator);
    let tls = settings::tls(&command.tls, &authenticator, clock.clone()).await?;
    let front = Front {
        authenticator,
        clock: clock.clone(),
        entropy: entropy.clone(),
        tls,
    };
    let Listen {
        listen,
        admin_listen,
    } = command.listen;
    let listeners = Listeners::bind(listen, admin_listen).await?;
    let mut ports = listeners.open(front, tuning);
    let size = settings::pool_size(&command.database);
    let opening = database::open(&location, size, (clock, entropy));
    let store = tokio::select! {
        store = ports.answer_while(opening) => Arc::new(store??),
        () = stop.cancelled() => {
            ports.close().await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    tracing::info!(%listen, %admin_listen, store = %location, "starting");
    let following = database::follow(command.database, location, store.clone());
    let back = Back {
        store: store.clone(),
        routes,
        safeguards: Safeguards::default(),
    };
    let serving = server::run_behind(ports, back, || tracing::info!("serving"), stop);
    tokio::select! {
        served = serving => served?,
        () = following => {}
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
