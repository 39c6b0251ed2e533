//! Makes the calls of one command, with one connection, one credential and one time limit for all
//! of them.

use std::{error::Error as _, future::Future, time::Duration};

use anyhow::Context as _;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use super::{Connect, fields::Sent, outcome, repeat};
use crate::{
    cli::{connect::Server, settings},
    domain::{
        clock::{Clock as _, SystemClock},
        entropy::OsEntropy,
    },
};

/// A connection to the server that a command calls.
pub struct Session<'a> {
    server: &'a Server,
    credential: Option<MetadataValue<Ascii>>,
    clock: SystemClock,
    /// The channel, and the monotonic time at which connecting started. `None` before the session
    /// is connected.
    open: Option<(Channel, Duration)>,
}

impl<'a> Session<'a> {
    /// Creates a session with the caller's credential. Does not connect yet, because the command
    /// may first have to read its input.
    ///
    /// # Errors
    /// Returns an error if there is no credential, or if it cannot be read or sent.
    pub fn new(connect: &'a Connect) -> anyhow::Result<Self> {
        let credential = connect.credential()?;
        let credential = credential.map(|jwt| bearer(&jwt)).transpose()?;
        Ok(Self::with_credential(&connect.server, credential))
    }

    /// Creates a session with this JWT as its credential.
    ///
    /// # Errors
    /// Returns an error if the JWT cannot be sent.
    pub fn with_jwt(server: &'a Server, jwt: &str) -> anyhow::Result<Self> {
        Ok(Self::with_credential(server, Some(bearer(jwt)?)))
    }

    fn with_credential(server: &'a Server, credential: Option<MetadataValue<Ascii>>) -> Self {
        Self {
            server,
            credential,
            clock: SystemClock::new(),
            open: None,
        }
    }

    /// Connects to the server, unless the session is already connected.
    ///
    /// # Errors
    /// Returns an error that names `--server` if the server cannot be reached in time.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        if self.open.is_none() {
            let began = self.clock.monotonic();
            let server = self.server;
            let Some(channel) = server.in_time(server.connect()).await else {
                return Err(server.no_answer().into());
            };
            self.open = Some((channel?, began));
        }
        Ok(())
    }

    /// Makes one call with the caller's credential. The client generates the request id, so that
    /// the call can be found in the server's log even if no response arrives.
    ///
    /// # Errors
    /// Returns an error with the exit code of the call's outcome.
    pub async fn call<T: Sent, R, F>(
        &mut self,
        message: T,
        rpc: impl FnOnce(Channel, Request<T>) -> F,
    ) -> anyhow::Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.connect().await?;
        let (channel, began) = self.open.clone().context("not connected")?;
        let call_id = settings::random_id(&OsEntropy)?;
        let server = self.server;
        let time_left = || {
            let taken = self.clock.monotonic().saturating_sub(began);
            server.timeout().saturating_sub(taken)
        };
        let left = time_left();
        let request = self.request(message, &call_id, left)?;
        let no_answer = || {
            let failed = server.no_answer().with_request_id(&call_id);
            failed.with_unknown_outcome().into()
        };
        match tokio::time::timeout(left, rpc(channel, request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if !outcome::is_own_timeout(&status) => {
                let failed = outcome::failure::<T>(&status, &call_id);
                // A status with a source was created by the library and not sent by the server.
                Err(if status.source().is_some() {
                    server.explain(failed, time_left()).await.into()
                } else {
                    failed.into()
                })
            }
            _ => Err(no_answer()),
        }
    }

    /// Makes a call that changes this token and has no idempotency key.
    ///
    /// # Errors
    /// Like [`Session::call`]. If the outcome is unknown, the error also states how to check it.
    pub async fn change<T: Sent, R, F>(
        &mut self,
        token_uid: &str,
        message: T,
        rpc: impl FnOnce(Channel, Request<T>) -> F,
    ) -> anyhow::Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let called = self.call(message, rpc).await;
        called.map_err(|error| repeat::with_lookup_hint(error, token_uid))
    }

    fn request<T>(
        &self,
        message: T,
        call_id: &str,
        timeout: Duration,
    ) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let metadata = request.metadata_mut();
        metadata.insert("x-request-id", call_id.parse()?);
        if let Some(credential) = &self.credential {
            metadata.insert("authorization", credential.clone());
        }
        Ok(request)
    }
}

fn bearer(jwt: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    let credential = MetadataValue::try_from(format!("Bearer {}", jwt.trim()));
    let mut credential = credential.context("the JWT contains characters that cannot be sent")?;
    credential.set_sensitive(true);
    Ok(credential)
}
