//! Handlers of `stacktoken.v1.IntrospectionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{batch, introspection as convert},
    pb::v1,
    status::{Failure, count_failure},
    watch,
};
use crate::{app::App, domain::caller::Call};

pub(super) struct Introspections(pub Arc<App>);

#[tonic::async_trait]
impl v1::introspection_service_server::IntrospectionService for Introspections {
    async fn introspect(
        &self,
        request: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        let parse = |message, _: &Call| convert::introspect(message);
        handle!(request, parse, |call, question| {
            Ok(convert::introspected(
                self.0.introspect(call, &question).await?,
            ))
        })
    }

    async fn batch_introspect(
        &self,
        request: Request<v1::BatchIntrospectRequest>,
    ) -> Result<Response<v1::BatchIntrospectResponse>, Status> {
        let app = &self.0;
        let parse = |message, _: &Call| batch::batch_introspect(message);
        handle!(request, parse, |call, asked| {
            let answers = app.batch_introspect(call, &asked.batch).await?;
            let request_id = || call.request_id.clone();
            let count = |failure: &Failure| count_failure(app.metrics(), failure);
            Ok(batch::batch_introspected(
                asked,
                answers,
                &request_id,
                count,
            ))
        })
    }

    type WatchStream = watch::ResponseStream;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<watch::ResponseStream>, Status> {
        watch::watch(&self.0, request).await
    }
}
