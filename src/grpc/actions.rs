//! Handlers of `stacktoken.v1.ActionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert::actions as convert, pb::v1};
use crate::app::App;

/// Reads the catalogue directly instead of through a use case, because the catalogue does not
/// change while the program runs.
pub(super) struct Actions(pub Arc<App>);

#[tonic::async_trait]
impl v1::action_service_server::ActionService for Actions {
    async fn list_actions(
        &self,
        request: Request<v1::ListActionsRequest>,
    ) -> Result<Response<v1::ListActionsResponse>, Status> {
        handle!(request, convert::list_actions, |_call, ()| Ok(
            convert::catalogue(self.0.catalogue())
        ))
    }
}
