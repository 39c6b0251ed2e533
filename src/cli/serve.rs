//! `stacktoken serve`: runs the server on a migrated store, with the configured issuers.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;

use super::{database, exit::ExitError, settings};
use crate::{
    app::Safeguards,
    config::{DatabaseFlags, GuardFlags, Listen, TlsFlags, Tuning},
    domain::{clock::SystemClock, entropy::OsEntropy},
    server::{self, Listeners, PortDeps, ServiceDeps},
};

/// Example that is shown after the help.
pub const EXAMPLE: &str = "\
Example, with an issuers file that `stacktoken dev` left:
  export STACKTOKEN_DATABASE_URL=sqlite:stacktoken.db
  stacktoken migrate up
  stacktoken serve --issuers .stacktoken/issuers.toml --listen localhost:50051";

/// The settings of `serve`, which `doctor` checks.
#[derive(Args)]
pub struct Serve {
    /// TOML file with the issuers whose credentials are accepted
    #[arg(long, env = "STACKTOKEN_ISSUERS", value_name = "FILE")]
    pub(super) issuers: Option<PathBuf>,
    #[command(flatten)]
    pub(super) listen: Listen,
    #[command(flatten)]
    pub(super) tls: TlsFlags,
    #[command(flatten)]
    pub(super) database: DatabaseFlags,
    #[command(flatten)]
    pub(super) guard: GuardFlags,
    #[command(flatten)]
    pub(super) tuning: Tuning,
}

impl Serve {
    /// Returns the path of the issuers file, which is required.
    pub fn issuers(&self) -> Result<&Path, ExitError> {
        let required =
            || ExitError::usage("--issuers is required (or STACKTOKEN_ISSUERS): a TOML file");
        self.issuers.as_deref().ok_or_else(required)
    }
}

pub async fn run(command: Serve) -> anyhow::Result<ExitCode> {
    let issuers = command.issuers()?;
    let location = settings::location(&command.database)?;
    let guard = settings::guard(&command.guard)?;
    let stop = settings::stop_on_signal()?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let tuning = &command.tuning;
    let rules = settings::rules(&tuning.rules)?;
    let authenticator = settings::authenticator(issuers, tuning, clock.clone()).await?;
    let authenticator = Arc::new(authenticator);
    let tls = settings::tls(&command.tls, &authenticator, clock.clone()).await?;
    let front = PortDeps {
        authenticator,
        clock: clock.clone(),
        entropy: entropy.clone(),
        tls,
    };
    let Listen {
        listen,
        admin_listen,
        http_listen,
        http_public_url,
    } = command.listen;
    let mut listeners = Listeners::bind(listen, admin_listen).await?;
    if let Some(http_listen) = http_listen {
        listeners = listeners.with_http(http_listen, http_public_url).await?;
    }
    let mut ports = listeners.open(front, tuning);
    let how = database::How {
        size: settings::pool_size(&command.database),
        guard: guard.as_ref(),
    };
    let opening = database::open(&location, how, (clock, entropy));
    let store = tokio::select! {
        store = ports.answer_while(opening) => Arc::new(store??),
        () = stop.cancelled() => {
            ports.close().await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let catalogue = rules.catalogue.version();
    tracing::info!(%listen, %admin_listen, store = %location, catalogue, "starting");
    let following = database::follow(command.database, location, store.clone());
    let back = ServiceDeps {
        store: store.clone(),
        catalogue: rules.catalogue,
        routes: rules.routes,
        safeguards: Safeguards::default(),
    };
    let serving = server::run_on_ports(ports, back, || tracing::info!("serving"), stop);
    tokio::select! {
        served = serving => served?,
        () = following => {}
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
