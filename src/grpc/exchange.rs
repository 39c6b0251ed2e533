//! Handlers of `stacktoken.v1.ExchangeService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{pb::v1, status};
use crate::app::App;

pub(super) struct Exchanges(pub Arc<App>);

#[tonic::async_trait]
impl v1::exchange_service_server::ExchangeService for Exchanges {
    async fn exchange(
        &self,
        _request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let _ = &self.0;
        Err(status::of(status::Failure::RpcUnknown, ""))
    }
}
