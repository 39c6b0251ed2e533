//! IntrospectionService.Watch: changes told as they come, and pings answered.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    pb::v1,
    status::{self, Failure},
};
use crate::app::App;

/// What a client is told.
pub(super) type Told = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

#[expect(clippy::unused_async, reason = "not there yet")]
pub(super) async fn watch(
    _: &Arc<App>,
    request: Request<Streaming<v1::WatchRequest>>,
) -> Result<Response<Told>, Status> {
    let (call, _) = super::open(request)?;
    Err(status::of(Failure::RpcUnknown, &call.request_id))
}
