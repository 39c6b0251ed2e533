//! Handlers of `stacktoken.audit.v1.AuditService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert::audit as convert, pb::audit::v1};
use crate::app::App;

pub(super) struct Audits(pub Arc<App>);

#[tonic::async_trait]
impl v1::audit_service_server::AuditService for Audits {
    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        handle!(request, convert::list, |call, (filter, size, after)| {
            let page = self.0.list_audit(call, &filter, (size, after)).await?;
            Ok(convert::listed(&filter, page))
        })
    }
}
