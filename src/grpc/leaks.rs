//! Handlers of `stacktoken.v1.LeakService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert::incidents as convert, pb::v1};
use crate::app::App;

pub(super) struct Leaks(pub Arc<App>);

#[tonic::async_trait]
impl v1::leak_service_server::LeakService for Leaks {
    async fn report_leaked(
        &self,
        request: Request<v1::ReportLeakedRequest>,
    ) -> Result<Response<v1::ReportLeakedResponse>, Status> {
        handle!(request, convert::report_leaked, |call, report| {
            self.0.report_leaked(call, &report).await?;
            // The response is identical for every outcome, so that it does not disclose whether the
            // secret is valid.
            Ok(v1::ReportLeakedResponse { accepted: true })
        })
    }
}
