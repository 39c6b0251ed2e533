//! `stacktoken.v1.IntrospectionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert::{batch, introspection as convert},
    open,
    pb::v1,
    status::{self, Failure},
    wide::LARGEST,
};
use crate::{app::App, domain::caller::Call};

pub(super) struct Introspections(pub Arc<App>);

impl Introspections {
    async fn batch(
        &self,
        call: &Call,
        message: v1::BatchIntrospectRequest,
    ) -> Result<v1::BatchIntrospectResponse, Failure> {
        let asked = batch::batch_introspect(message, call)?;
        let answers = self.0.batch_introspect(call, &asked).await?;
        Ok(batch::batch_introspected(answers, LARGEST)?)
    }
}

#[tonic::async_trait]
impl v1::introspection_service_server::IntrospectionService for Introspections {
    async fn introspect(
        &self,
        request: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        answer!(request, convert::introspect, |call, question| {
            Ok(convert::introspected(
                self.0.introspect(call, &question).await?,
            ))
        })
    }

    async fn batch_introspect(
        &self,
        request: Request<v1::BatchIntrospectRequest>,
    ) -> Result<Response<v1::BatchIntrospectResponse>, Status> {
        let (call, message) = open(request)?;
        let answered = self.batch(&call, message).await;
        answered
            .map(Response::new)
            .map_err(|failure| status::of(failure, &call.request_id))
    }

    async fn list_actions(
        &self,
        request: Request<v1::ListActionsRequest>,
    ) -> Result<Response<v1::ListActionsResponse>, Status> {
        answer!(request, convert::list_actions, |_call, ()| Ok(
            convert::catalogue()
        ))
    }
}
