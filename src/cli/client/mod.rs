//! The client commands `issue`, `introspect` and `revoke`, so that a newcomer needs no other tool.
//! Secrets are read from standard input and written to standard output. They are never passed as
//! arguments.

mod introspect;
mod issue;
mod outcome;
mod revoke;
mod values;

use std::{fs, future::Future, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Channel};

pub use self::{
    introspect::{Introspect, introspect},
    issue::{Issue, issue},
    revoke::{Revoke, revoke},
};
use super::{connect::Server, exit::Failed, settings};
use crate::domain::{
    clock::{Clock as _, SystemClock},
    entropy::OsEntropy,
};

/// The server to call, the stack, and the caller's credential.
#[derive(Args)]
struct Connect {
    #[command(flatten)]
    server: Server,
    /// Public key of the stack
    #[arg(long, value_name = "KEY")]
    stack: String,
    /// The caller's JWT
    #[arg(long, env = "STACKTOKEN_JWT", hide_env_values = true, hide = true)]
    jwt: Option<String>,
    /// File that contains the caller's JWT. Alternatively, set STACKTOKEN_JWT to the JWT itself
    #[arg(long, env = "STACKTOKEN_JWT_FILE", value_name = "FILE")]
    jwt_file: Option<PathBuf>,
}

impl Connect {
    /// Makes one call with the caller's credential. The client generates the request id, so that
    /// the call can be found in the server's log even if no answer arrives.
    async fn call<T, R, F>(
        &self,
        message: T,
        rpc: impl FnOnce(Channel, Request<T>) -> F,
    ) -> anyhow::Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let clock = SystemClock::new();
        let began = clock.monotonic();
        let request_id = settings::random_id(&OsEntropy)?;
        let mut request = self.request(message)?;
        request
            .metadata_mut()
            .insert("x-request-id", request_id.parse()?);
        let calling = async {
            let channel = self.server.connect().await?;
            let taken = clock.monotonic().saturating_sub(began);
            request.set_timeout(self.server.timeout().saturating_sub(taken));
            anyhow::Ok(rpc(channel, request).await)
        };
        let Some(called) = self.server.in_time(calling).await else {
            return Err(self.no_answer(&request_id));
        };
        match called? {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if outcome::is_own_timeout(&status) => Err(self.no_answer(&request_id)),
            Err(status) => Err(outcome::failure(&status, &request_id).into()),
        }
    }

    fn no_answer(&self, request_id: &str) -> anyhow::Error {
        let failed = self.server.no_answer();
        failed.with_request_id(request_id).into()
    }

    fn request<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(jwt) = self.credential()? {
            let credential = MetadataValue::try_from(format!("Bearer {}", jwt.trim()));
            let credential = credential.context("the JWT holds characters that cannot be sent")?;
            request.metadata_mut().insert("authorization", credential);
        }
        Ok(request)
    }

    fn credential(&self) -> anyhow::Result<Option<String>> {
        match (&self.jwt, &self.jwt_file) {
            (Some(jwt), _) => Ok(Some(jwt.clone())),
            (None, Some(file)) => fs::read_to_string(file)
                .map(Some)
                .with_context(|| format!("--jwt-file: cannot read {}", file.display())),
            (None, None) if self.server.has_certificate() => Ok(None),
            (None, None) => {
                let message = "no credential: set STACKTOKEN_JWT, or give --jwt-file FILE";
                Err(Failed::usage(message).into())
            }
        }
    }
}
