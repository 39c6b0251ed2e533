//! What the connections of all ports share, including the limits on their number.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    Tls,
    connections::{Connections, Protocol, limiter::PortLimits},
};
use crate::{auth::Authenticator, config::Tuning, domain::entropy::Entropy, metrics::Metrics};

/// What the connections of all ports share.
pub(super) struct PortParts {
    pub tls: Option<Arc<Tls>>,
    pub authenticator: Arc<Authenticator>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<Metrics>,
    pub tuning: Tuning,
    pub limits: PortLimits,
    /// Cancelled when the process begins to drain.
    pub draining: CancellationToken,
}

impl PortParts {
    /// Returns the state for the connections of one port.
    pub fn connections<S>(&self, answering: Arc<S>, protocol: Protocol) -> Connections<S> {
        Connections {
            answering,
            protocol,
            limiter: Arc::new(self.limits.of_port()),
            tls: self.tls.clone(),
            authenticator: self.authenticator.clone(),
            entropy: self.entropy.clone(),
            metrics: self.metrics.clone(),
            tuning: self.tuning.clone(),
            draining: self.draining.clone(),
        }
    }
}
