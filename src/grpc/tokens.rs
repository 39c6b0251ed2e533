//! Handlers of `stacktoken.v1.TokenService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert::{
        exchange, impact as impact_of, incidents, listing, own_stacks, revision as revision_of,
        rotation, tokens as convert, update, usage as usage_of,
    },
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
        let known = (self.0.catalogue(), self.0.federation_issuers());
        let parse = |message, call: &_| convert::issue(message, call, known);
        handle_change!(request, parse, |call, command| {
            let issued = self.0.issue(call, &command).await?;
            Ok(convert::issued(&issued, self.0.clock().now()))
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        handle!(request, convert::get, |call, (stack, uid)| {
            let (token, live_sessions) = self.0.get(call, (&stack, uid)).await?;
            Ok(v1::GetResponse {
                token: Some(convert::token(&token, self.0.clock().now())),
                live_sessions,
            })
        })
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        handle!(request, convert::get_usage, |call, (stack, uid)| {
            let usage = self.0.get_usage(call, (&stack, uid)).await?;
            Ok(usage_of(usage))
        })
    }

    async fn list_stacks(
        &self,
        request: Request<v1::ListStacksRequest>,
    ) -> Result<Response<v1::ListStacksResponse>, Status> {
        handle!(request, own_stacks::list, |call, page| {
            let page = self.0.list_own_stacks(call, page).await?;
            Ok(own_stacks::listed(&page))
        })
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        handle!(request, listing::list, |call, query| {
            let page = self.0.list(call, &query).await?;
            Ok(listing::listed(&query, page))
        })
    }

    async fn update(
        &self,
        request: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        let known = (self.0.catalogue(), self.0.federation_issuers());
        let parse = |message, call: &_| update::update(message, call, known);
        handle_change!(request, parse, |call, (target, edit)| {
            let (token, revision) = self.0.update(call, &target, &edit).await?;
            let impact = self.0.impact(call, &target).await?;
            Ok(v1::UpdateResponse {
                token: Some(convert::changed(&token, call, self.0.clock().now())),
                revision: revision_of(revision),
                impact: impact.map(impact_of),
            })
        })
    }

    async fn set_expiry(
        &self,
        request: Request<v1::SetExpiryRequest>,
    ) -> Result<Response<v1::SetExpiryResponse>, Status> {
        handle_change!(request, convert::set_expiry, |call, (target, expiry)| {
            let (token, revision) = self.0.set_expiry(call, &target, expiry).await?;
            let impact = self.0.impact(call, &target).await?;
            Ok(v1::SetExpiryResponse {
                token: Some(convert::changed(&token, call, self.0.clock().now())),
                revision: revision_of(revision),
                impact: impact.map(impact_of),
            })
        })
    }

    async fn rotate(
        &self,
        request: Request<v1::RotateRequest>,
    ) -> Result<Response<v1::RotateResponse>, Status> {
        handle_change!(request, rotation::rotate, |call, command| {
            let rotated = self.0.rotate(call, &command).await?;
            Ok(rotation::rotated(&rotated, self.0.clock().now()))
        })
    }

    async fn end_overlap(
        &self,
        request: Request<v1::EndOverlapRequest>,
    ) -> Result<Response<v1::EndOverlapResponse>, Status> {
        handle_change!(request, rotation::end_overlap, |call, target| {
            let (token, revision) = self.0.end_overlap(call, &target).await?;
            let impact = self.0.impact(call, &target).await?;
            Ok(v1::EndOverlapResponse {
                token: Some(convert::changed(&token, call, self.0.clock().now())),
                revision: revision_of(revision),
                impact: impact.map(impact_of),
            })
        })
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        handle_change!(request, convert::revoke, |call, (target, reason)| {
            let (token, revision) = self.0.revoke(call, &target, &reason).await?;
            let impact = self.0.impact(call, &target).await?;
            Ok(v1::RevokeResponse {
                token: Some(convert::changed(&token, call, self.0.clock().now())),
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
            Ok(incidents::revoked_all(&command, &revoked))
        })
    }

    async fn explain_exchange(
        &self,
        request: Request<v1::ExplainExchangeRequest>,
    ) -> Result<Response<v1::ExplainExchangeResponse>, Status> {
        handle!(request, exchange::explain, |call, command| {
            let explanation = self.0.explain_exchange(call, &command).await?;
            Ok(exchange::explained(explanation))
        })
    }

    async fn list_federation_issuers(
        &self,
        request: Request<v1::ListFederationIssuersRequest>,
    ) -> Result<Response<v1::ListFederationIssuersResponse>, Status> {
        handle!(request, exchange::list_issuers, |call, stack| {
            let issuers = self.0.list_federation_issuers(call, &stack).await?;
            Ok(exchange::listed_issuers(&issuers))
        })
    }

    async fn end_sessions(
        &self,
        request: Request<v1::EndSessionsRequest>,
    ) -> Result<Response<v1::EndSessionsResponse>, Status> {
        handle_change!(request, exchange::end_sessions, |call, command| {
            let (count, revision) = self.0.end_sessions(call, &command).await?;
            Ok(exchange::ended_sessions(count, revision))
        })
    }
}
