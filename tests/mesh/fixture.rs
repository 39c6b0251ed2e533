//! Everything that a request passes through: Envoy, the program and the upstream. Also creates
//! tokens in various states.

use std::collections::BTreeMap;

use rustix::process::Signal;
use stacktoken::grpc::pb::{
    admin::v1::SuspendRequest,
    v1::{Access, IssueRequest, Permissions},
};
use tempfile::TempDir;

use crate::{
    envoy::{Envoy, Upstreams, binary},
    program::{Dev, folder},
    support::{
        issue_request, now, permissions,
        requests::{Issued, branches, modules, revoke_request, set_expiry_request},
    },
    upstream::Upstream,
};

pub struct MeshFixture {
    pub envoy: Envoy,
    pub dev: Dev,
    pub upstream: Upstream,
    folder: TempDir,
}

impl MeshFixture {
    /// Starts the server, Envoy and the upstream. `change` is applied to the documented
    /// configuration. Returns `None` if Envoy is not installed.
    pub async fn start(change: impl FnOnce(String) -> String) -> Option<Self> {
        let binary = binary()?;
        let folder = folder();
        let dev = Dev::start(folder.path());
        let upstream = Upstream::start().await;
        let behind = Upstreams {
            stacktoken: dev.get("grpc_address"),
            jwt: dev.get("service_jwt"),
            upstream: upstream.address,
        };
        let envoy = Envoy::start(&binary, folder.path(), &behind, change).await;
        Some(Self {
            envoy,
            dev,
            upstream,
            folder,
        })
    }

    /// Kills the program.
    pub fn stop_stacktoken(&mut self) {
        self.dev.signal(Signal::KILL);
        self.dev.child.wait().unwrap();
    }

    async fn issue(&self, stack: &str, name: &str, allowed: Permissions) -> Issued {
        let mut owner = self.dev.client("owner_jwt").await;
        let request = IssueRequest {
            permissions: Some(allowed),
            ..issue_request(stack, name)
        };
        let issued = owner.tokens.issue(request).await.unwrap();
        issued.into_inner().into()
    }

    /// Issues tokens with various permissions and in various states. Returns them by name.
    pub async fn tokens(&self) -> BTreeMap<&'static str, Issued> {
        use Access::{Read, ReadWrite};
        let stack = self.dev.get("stack_api_key");
        let second = self.dev.get("second_stack_api_key");
        let only_assets = modules(ReadWrite, &[("asset", ReadWrite)]);
        let only_develop = branches(ReadWrite, &["develop"], &[]);
        let mut tokens = BTreeMap::new();
        for (name, stack, allowed) in [
            ("live", stack, permissions(ReadWrite)),
            ("reader", stack, permissions(Read)),
            ("assets", stack, only_assets),
            ("develop", stack, only_develop),
            ("revoked", stack, permissions(ReadWrite)),
            ("expired", stack, permissions(ReadWrite)),
            ("suspended", second, permissions(ReadWrite)),
        ] {
            tokens.insert(name, self.issue(stack, name, allowed).await);
        }
        let mut owner = self.dev.client("owner_jwt").await;
        let revoke = revoke_request(stack, &tokens["revoked"].uid, "");
        owner.tokens.revoke(revoke).await.unwrap();
        let expire = set_expiry_request(stack, &tokens["expired"].uid, now());
        owner.tokens.set_expiry(expire).await.unwrap();
        let suspend = SuspendRequest {
            stack_api_key: second.into(),
            reason: String::new(),
            validate_only: false,
        };
        let mut operator = self.dev.client("operator_jwt").await;
        operator.stacks.suspend(suspend).await.unwrap();
        tokens
    }
}
