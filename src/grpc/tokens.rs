//! Handlers of `stacktoken.v1.TokenService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert::{impact as impact_of, incidents, revision as revision_of, tokens as convert},
    pb::v1,
};
use crate::app::App;

pub(super) struct Tokens(pub Arc<App>);

#[tonic::async_trait]
impl v1::token_service_server::TokenService for Tokens {
    async fn issue(
        &self,
        request: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        handle_change!(request, convert::issue, |call, command| {
            let issued = self.0.issue(call, &command).await?;
            Ok(convert::issued(&issued, self.0.clock().now()))
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        handle!(request, convert::get, |call, (stack, uid)| {
            let token = self.0.get(call, (&stack, uid)).await?;
            Ok(v1::GetResponse {
                token: Some(convert::token(&token, self.0.clock().now())),
            })
        })
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        handle!(request, convert::list, |call, query| {
            let page = self.0.list(call, &query).await?;
            Ok(convert::listed(&query, page))
        })
    }

    async fn update(
        &self,
        request: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        handle_change!(request, convert::update, |call, (stack, uid, edit)| {
            let (token, revision) = self.0.update(call, (&stack, uid), &edit).await?;
            let impact = self.0.impact(call, (&stack, uid)).await?;
            let token = Some(convert::token(&token, self.0.clock().now()));
            Ok(v1::UpdateResponse {
                token,
                revision: revision_of(revision),
                impact: impact.map(impact_of),
            })
        })
    }

    async fn set_expiry(
        &self,
        request: Request<v1::SetExpiryRequest>,
    ) -> Result<Response<v1::SetExpiryResponse>, Status> {
        handle_change!(
            request,
            convert::set_expiry,
            |call, (stack, uid, expiry)| {
                let (token, revision) = self.0.set_expiry(call, (&stack, uid), expiry).await?;
                let impact = self.0.impact(call, (&stack, uid)).await?;
                let token = Some(convert::token(&token, self.0.clock().now()));
                Ok(v1::SetExpiryResponse {
                    token,
                    revision: revision_of(revision),
                    impact: impact.map(impact_of),
                })
            },
        )
    }

    async fn rotate(
        &self,
        request: Request<v1::RotateRequest>,
    ) -> Result<Response<v1::RotateResponse>, Status> {
        handle_change!(request, convert::rotate, |call, command| {
            let rotated = self.0.rotate(call, &command).await?;
            Ok(convert::rotated(&rotated, self.0.clock().now()))
        })
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        handle_change!(request, convert::revoke, |call, (stack, uid, reason)| {
            let (token, revision) = self.0.revoke(call, (&stack, uid), &reason).await?;
            let impact = self.0.impact(call, (&stack, uid)).await?;
            let token = Some(convert::token(&token, self.0.clock().now()));
            Ok(v1::RevokeResponse {
                token,
                revision: revision_of(revision),
                impact: impact.map(impact_of),
            })
        })
    }

    async fn revoke_all(
        &self,
        request: Request<v1::RevokeAllRequest>,
    ) -> Result<Response<v1::RevokeAllResponse>, Status> {
        handle_change!(request, incidents::revoke_all, |call, command| {
            let revoked = self.0.revoke_all(call, &command).await?;
            Ok(incidents::revoked_all(&revoked))
        })
    }

    async fn report_leaked(
        &self,
        request: Request<v1::ReportLeakedRequest>,
    ) -> Result<Response<v1::ReportLeakedResponse>, Status> {
        handle!(request, incidents::report_leaked, |call, report| {
            self.0.report_leaked(call, &report).await?;
            // The response is identical for every outcome of the report.
            Ok(v1::ReportLeakedResponse { accepted: true })
        })
    }
}
