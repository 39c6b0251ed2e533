//! Handlers of `stacktoken.v1.ExchangeService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert::exchange as convert, pb::v1};
use crate::app::App;

pub(super) struct Exchanges(pub Arc<App>);

#[tonic::async_trait]
impl v1::exchange_service_server::ExchangeService for Exchanges {
    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let parse = |message, call: &_| convert::exchange(message, call, self.0.catalogue());
        handle!(request, parse, |call, command| {
            let exchanged = self.0.exchange(call, &command).await?;
            Ok(convert::exchanged(&exchanged))
        })
    }

    async fn end_session(
        &self,
        request: Request<v1::EndSessionRequest>,
    ) -> Result<Response<v1::EndSessionResponse>, Status> {
        handle!(request, convert::end_session, |call, secret| {
            self.0.end_session(call, &secret).await?;
            // The response is identical for every outcome.
            Ok(v1::EndSessionResponse { ended: true })
        })
    }
}
