//! Loads the server certificate and the client CAs, and reloads them when their files change. If
//! the new files cannot be used, the old certificates stay in use, and the log and a metric report
//! this.

mod inspect;
mod material;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::connections::Protocol;

use self::{
    material::{Material, Usable},
    watch::Watch,
};
use crate::{
    domain::clock::Clock,
    metrics::{CertificateLabel, Metrics},
};

pub use self::{inspect::TlsInspection, material::TlsError};

/// Interval at which the files are read even without a change notification. A mounted secret is
/// replaced by switching a symbolic link, which not every file system reports.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The paths of the server certificate, its key and the client CAs.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate chain in PEM. The server's own certificate comes first.
    pub cert: PathBuf,
    /// The private key of the server's own certificate, in PEM.
    pub key: PathBuf,
    /// The client CAs, in PEM. If `None`, clients are not asked for certificates.
    pub client_ca: Option<PathBuf>,
}

/// The paths of the TLS files, and the configuration that was loaded from these files.
pub struct Tls {
    files: TlsFiles,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Current>,
}

/// The configuration for new connections.
struct Current {
    /// For the gRPC port, which negotiates HTTP/2.
    config: Arc<ServerConfig>,
    /// The same configuration for the HTTP port, which negotiates HTTP/1.1.
    http1: Arc<ServerConfig>,
    usable: Usable,
}

impl Current {
    fn new(config: ServerConfig, usable: Usable) -> Self {
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            http1: Arc::new(http1),
            usable,
        }
    }
}

impl Tls {
    /// Loads the configuration from the current files.
    ///
    /// # Errors
    /// Returns [`TlsError`], which names the setting.
    pub async fn load(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let material = Material::read(&files).await?;
        let (config, usable) = material.build(&files, &clock)?;
        Ok(Self {
            files,
            clock,
            current: ArcSwap::from_pointee(Current::new(config, usable)),
        })
    }

    /// Returns the acceptor for the next connection of a port with this protocol.
    pub(super) fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        let current = self.current.load();
        let config = match protocol {
            Protocol::Http2 => &current.config,
            Protocol::Http1 => &current.http1,
        };
        TlsAcceptor::from(config.clone())
    }

    /// Returns whether clients are asked for certificates.
    pub(super) const fn asks_for_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Reloads the files whenever they change. Never returns.
    pub(super) async fn keep_fresh(&self, metrics: &Metrics) {
        let watch = Watch::over(&self.files);
        let mut failed = None;
        self.set_expiry_metric(metrics);
        loop {
            watch.changed_within(POLL_EVERY).await;
            failed = self.refresh(metrics, failed).await;
        }
    }

    /// Reloads changed files, and returns the error if they cannot be used. An error is reported
    /// only if it occurs twice in a row, because the first read can fall between the writes of two
    /// files.
    async fn refresh(&self, metrics: &Metrics, before: Option<String>) -> Option<String> {
        let error = match self.take().await {
            Ok(taken) => {
                metrics.tls_reload_failing.set(0);
                if taken {
                    self.set_expiry_metric(metrics);
                    tracing::info!("the TLS files have changed; new connections use them");
                }
                return None;
            }
            Err(error) => error.to_string(),
        };
        let again = before.as_ref() == Some(&error);
        if again && metrics.tls_reload_failing.get() == 0 {
            metrics.tls_reload_failing.set(1);
            metrics.tls_reload_failures.inc();
            tracing::error!(%error, "the new TLS files cannot be used; keeping the old ones");
        }
        Some(error)
    }

    /// Loads new files, or removes an expired CA. Returns whether the configuration has changed.
    async fn take(&self) -> Result<bool, TlsError> {
        let now = self.clock.now().seconds();
        let current = self.current.load();
        let expired = (current.usable.client_ca_expires_at).is_some_and(|at| at <= now);
        let material = Material::read(&self.files).await?;
        if !expired && material.digest() == current.usable.digest {
            return Ok(false);
        }
        match material.build(&self.files, &self.clock) {
            Ok(built) => {
                self.store(built);
                Ok(true)
            }
            Err(error) => {
                // An expired CA must not stay trusted, whatever else is wrong with the files.
                if expired
                    && let Ok(built) = material.without_client_ca().build(&self.files, &self.clock)
                {
                    self.store(built);
                }
                Err(error)
            }
        }
    }

    fn store(&self, (config, usable): (ServerConfig, Usable)) {
        self.current.store(Arc::new(Current::new(config, usable)));
    }

    #[expect(clippy::cast_precision_loss, reason = "whole seconds are exact")]
    fn set_expiry_metric(&self, metrics: &Metrics) {
        let usable = &self.current.load().usable;
        let tell = |certificate, expires_at: i64| {
            let gauge = metrics
                .tls_expiry
                .get_or_create(&CertificateLabel { certificate })
                .clone();
            gauge.set(expires_at as f64);
        };
        tell("server", usable.server_expires_at);
        if let Some(expires_at) = usable.client_ca_expires_at {
            tell("client_ca", expires_at);
        }
    }
}
