//! `IntrospectionService.Watch`: streams changes and answers pings. If the first request is
//! invalid, the call fails. If a later request is invalid, the stream ends with an error.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    convert::watch as convert,
    pb::v1,
    status::{self, Failure},
};
use crate::app::{self, App};

/// The response stream.
pub(super) type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

/// State of one bidirectional stream.
struct Session {
    app: Arc<App>,
    watch: app::Watch,
    /// `None` once the client has half-closed the stream.
    requests: Option<Streaming<v1::WatchRequest>>,
    request_id: String,
}

pub(super) async fn watch(
    app: &Arc<App>,
    request: Request<Streaming<v1::WatchRequest>>,
) -> Result<Response<ResponseStream>, Status> {
    let (call, mut requests) = super::open(request)?;
    let fail = |failure: Failure| status::of(failure, &call.request_id);
    let first = requests.message().await?;
    let (from, ping) = convert::first(&first.unwrap_or_default()).map_err(|it| fail(it.into()))?;
    let mut watch = app.watch(from).await.map_err(|error| fail(error.into()))?;
    if let Some(nonce) = ping {
        watch.ping(nonce);
    }
    let session = Session {
        app: app.clone(),
        watch,
        requests: Some(requests),
        request_id: call.request_id,
    };
    let events = stream::unfold(Some(session), async |session| Some(session?.step().await));
    Ok(Response::new(Box::pin(events)))
}

impl Session {
    /// Waits for the next response. Also returns the session, unless this response ends the stream.
    async fn step(mut self) -> (Result<v1::WatchResponse, Status>, Option<Self>) {
        match self.next().await {
            Ok(event) => (Ok(convert::watch_response(event)), Some(self)),
            Err(Ended::Unread(status)) => {
                // These codes mean that the connection is broken, so the client does not receive
                // this status, and the call counts as cancelled.
                let code = match status.code() {
                    Code::Unknown | Code::Unavailable => Code::Cancelled,
                    code => code,
                };
                let status = status::in_place_of(code, status.message(), &self.request_id);
                (Err(status), None)
            }
            Err(Ended::By(failure)) => {
                status::count_failure(self.app.metrics(), &failure);
                (Err(status::of(failure, &self.request_id)), None)
            }
        }
    }

    async fn next(&mut self) -> Result<app::WatchEvent, Ended> {
        loop {
            let request = async {
                match &mut self.requests {
                    Some(requests) => requests.message().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.app.watches_closed() => return Err(Ended::By(Failure::Draining)),
                request = request => match request.map_err(Ended::Unread)? {
                    Some(request) => {
                        let ping = convert::later(&request);
                        self.watch.ping(ping.map_err(|faults| Ended::By(faults.into()))?);
                    }
                    None => self.requests = None,
                },
                event = self.watch.next() => {
                    return event.map_err(|error| Ended::By(error.into()));
                }
            }
        }
    }
}

/// Why the stream ended.
enum Ended {
    /// A request could not be read.
    Unread(Status),
    By(Failure),
}
