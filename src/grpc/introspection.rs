//! Handlers of `stacktoken.v1.IntrospectionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{batch, introspection as convert},
    pb::v1,
    watch,
};
use crate::app::App;

pub(super) struct Introspections(pub Arc<App>);

#[tonic::async_trait]
impl v1::introspection_service_server::IntrospectionService for Introspections {
    async fn introspect(
        &self,
        request: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        handle!(request, convert::introspect, |call, question| {
            Ok(convert::introspected(
                self.0.introspect(call, &question).await?,
            ))
        })
    }

    async fn batch_introspect(
        &self,
        request: Request<v1::BatchIntrospectRequest>,
    ) -> Result<Response<v1::BatchIntrospectResponse>, Status> {
        handle!(request, batch::batch_introspect, |call, asked| {
            Ok(batch::batch_introspected(
                self.0.batch_introspect(call, &asked).await?,
            ))
        })
    }

    async fn list_actions(
        &self,
        request: Request<v1::ListActionsRequest>,
    ) -> Result<Response<v1::ListActionsResponse>, Status> {
        handle!(request, convert::list_actions, |_call, ()| Ok(
            convert::catalogue()
        ))
    }

    type WatchStream = watch::Told;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<watch::Told>, Status> {
        watch::watch(&self.0, request).await
    }
}
