//! The RPCs that the cache can answer. For each of them, the access rule and the histogram of
//! successful calls are looked up only once.

use std::sync::OnceLock;

use prometheus_client::metrics::histogram::Histogram;

use crate::{
    auth::policy::{self, Rule},
    grpc::from_cache::{CachedRpc, CachedVerdicts},
};

/// The verdicts in the cache, and the RPCs that they answer.
pub(super) struct CachedRpcs {
    pub verdicts: CachedVerdicts,
    rpcs: [Option<Served>; CachedRpc::ALL.len()],
}

/// An RPC with its access rule and the histogram of its successful calls.
pub(super) struct Served {
    pub rule: &'static Rule,
    pub succeeded: OnceLock<Histogram>,
}

impl CachedRpcs {
    pub fn new(verdicts: CachedVerdicts) -> Self {
        let served = |rpc: CachedRpc| {
            let rule = policy::rule(rpc.path())?;
            let succeeded = OnceLock::new();
            Some(Served { rule, succeeded })
        };
        Self {
            verdicts,
            rpcs: CachedRpc::ALL.map(served),
        }
    }

    /// Returns the access rule and the success histogram of an RPC, or `None` if the policy has no
    /// rule for it.
    pub fn served(&self, rpc: CachedRpc) -> Option<&Served> {
        self.rpcs.get(rpc as usize)?.as_ref()
    }
}
