//! `stacktoken dev`: runs the service on one machine without any configuration. This module creates
//! an issuer, users and stacks, and then starts the same server as `serve`.

mod given;
mod keys;
mod people;
mod seed;
mod welcome;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgMatches, Args};

use self::{
    keys::SigningKey,
    people::{Jwts, Renewal},
};
use super::settings;
use crate::{
    app::Safeguards,
    config::{self, Tuning},
    domain::{
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
    },
    server::{self, Listeners, ServerParts},
    store::{Location, PoolSize, Store},
    telemetry::output::print_error,
};

/// Default ports of `dev` for gRPC and HTTP.
const GRPC_PORT: u16 = 50051;
const HTTP_PORT: u16 = 8466;

#[derive(Args)]
pub struct Dev {
    /// Folder for the store, the signing key and the JWTs
    #[arg(
        long,
        env = "STACKTOKEN_DATA_DIR",
        default_value = ".stacktoken",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// Address of the gRPC port; loopback only
    #[arg(
        long,
        env = "STACKTOKEN_LISTEN",
        default_value = "127.0.0.1:50051",
        value_parser = config::address,
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// Address of the admin port, which serves metrics and probes; loopback only
    #[arg(
        long,
        env = "STACKTOKEN_ADMIN_LISTEN",
        default_value = "127.0.0.1:9464",
        value_parser = config::address,
        value_name = "ADDRESS"
    )]
    admin_listen: SocketAddr,
    /// Address of the HTTP port, which serves OAuth endpoints and the routes of the CMS; loopback
    /// only [default: 127.0.0.1:8466; any free port if --listen has another port than 50051]
    #[arg(
        long,
        env = "STACKTOKEN_HTTP_LISTEN",
        value_parser = config::address,
        value_name = "ADDRESS"
    )]
    http_listen: Option<SocketAddr>,
    /// URL at which clients reach the HTTP port, without a path [default: its address]
    #[arg(
        long,
        env = "STACKTOKEN_HTTP_PUBLIC_URL",
        value_parser = config::public_url,
        value_name = "URL"
    )]
    http_public_url: Option<String>,
    /// File to write addresses, stack keys and JWTs to, as JSON, once the server is ready
    #[arg(long, env = "STACKTOKEN_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) tuning: Tuning,
    /// The settings that flags or variables set.
    #[arg(skip)]
    given: given::Given,
}

impl Dev {
    /// Returns the address of the HTTP port. If the gRPC port is not the default, this is probably
    /// a second `dev` on the machine, and the default HTTP port is probably in use. Any free port
    /// is used then.
    fn http_address(&self) -> SocketAddr {
        let port = if self.listen.port() == GRPC_PORT {
            HTTP_PORT
        } else {
            0
        };
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.http_listen.unwrap_or(default)
    }

    /// Records which settings flags or variables set. `matches` must be those of this subcommand.
    pub(in crate::cli) fn note_given(&mut self, matches: &ArgMatches) {
        self.given = given::given(matches);
    }
}

pub async fn run(mut command: Dev) -> anyhow::Result<ExitCode> {
    for (flag, address) in [
        ("--listen", command.listen),
        ("--admin-listen", command.admin_listen),
        ("--http-listen", command.http_address()),
    ] {
        if !address.ip().is_loopback() {
            let problem = format!(
                "{address} is not on loopback: `dev` listens on loopback only, because its keys are for development; use `stacktoken serve` elsewhere"
            );
            return Err(settings::wrong(flag, &problem).into());
        }
    }
    // There is no load balancer that must notice the shutdown first, so Ctrl-C stops the server at
    // once, unless the flag is set.
    command.tuning.drain_delay.get_or_insert(Duration::ZERO);
    let rules = settings::rules(&command.tuning.rules)?;
    let stop = settings::stop_on_signal()?;
    let data_dir = make_private_folder(&command.data_dir)?;
    let listeners = Listeners::bind(command.listen, command.admin_listen).await?;
    let http = (command.http_address(), command.http_public_url.clone());
    let listeners = listeners.with_http(http.0, http.1).await?;
    let addresses = addresses(&listeners)?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let location = Location::Sqlite(data_dir.join("stacktoken.db"));
    let ambient = (
        clock.clone() as Arc<dyn Clock>,
        entropy.clone() as Arc<dyn Entropy>,
    );
    let store = Store::open(&location, PoolSize { connections: 1 }, ambient).await;
    let store = Arc::new(store.context("--data-dir")?);
    store.migrate().await.context("--data-dir")?;
    store.require_current_schema().await.context("--data-dir")?;
    if let Some(changes) = given::changes(&data_dir, &command.given)? {
        print_error(changes);
    }
    let issuers = write_issuers(&data_dir)?;
    let key = SigningKey::load_or_make(&data_dir).context("--data-dir")?;
    write_private(&data_dir.join("jwks.json"), &key.jwks()?)?;
    seed::seed(&store, clock.now()).await?;
    let authenticator = settings::authenticator(&issuers, &command.tuning, clock.clone()).await?;
    let signed_at = clock.now();
    let jwts = Jwts::sign(&key, signed_at)?;
    jwts.write(&data_dir)?;
    let renewal = Renewal {
        key,
        data_dir: data_dir.clone(),
        signed_at,
    };
    let renewing = renewal.run(clock.clone());
    let welcome = welcome::Welcome {
        addresses,
        jwts,
        data_dir,
    };
    let ready_file = command.ready_file;
    let serving = move || {
        if let Err(error) = welcome.print(ready_file.as_deref()) {
            tracing::error!("{error:#}");
        }
    };
    let authenticator = Arc::new(authenticator);
    let parts = ServerParts {
        store: store.clone(),
        authenticator,
        catalogue: rules.catalogue,
        routes: rules.routes,
        clock,
        entropy,
        tls: None,
        safeguards: Safeguards::default(),
    };
    tokio::select! {
        served = server::run(parts, &command.tuning, listeners, serving, stop) => served?,
        () = renewing => {}
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns the addresses to which the ports are bound.
fn addresses(listeners: &Listeners) -> io::Result<welcome::Addresses> {
    let http = listeners.http.as_ref();
    let http = http.map_or(Err(io::ErrorKind::NotConnected.into()), |http| {
        http.listener.local_addr()
    });
    Ok(welcome::Addresses {
        grpc: listeners.grpc.local_addr()?,
        admin: listeners.admin.local_addr()?,
        http: http?,
    })
}

/// Writes the issuers file of `dev`. It has the same format as the issuers file of `serve`, and
/// distinguishes the callers of one issuer by their claims.
fn write_issuers(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("issuers.toml");
    write_private(&path, people::ISSUERS_FILE)?;
    Ok(path)
}

/// Creates a folder that only its owner can read, and returns its absolute path.
fn make_private_folder(path: &Path) -> anyhow::Result<PathBuf> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.and_then(|()| fs::canonicalize(path))
        .with_context(|| format!("--data-dir {}", path.display()))
}

/// Writes a file that only its owner can read. An existing file is replaced atomically.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = (|| {
        let beside = path.with_extension("new");
        // A temporary file left behind by an earlier run may be readable by others.
        let _ = fs::remove_file(&beside);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(&beside, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}
