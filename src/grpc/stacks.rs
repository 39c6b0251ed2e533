//! Handlers of `stacktoken.admin.v1.StackService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert::{revision as revision_of, stacks as convert},
    pb::admin::v1,
};
use crate::app::{App, MemberChange, StackStep};

pub(super) struct Stacks(pub Arc<App>);

#[tonic::async_trait]
impl v1::stack_service_server::StackService for Stacks {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        handle_change!(request, convert::register, |call, draft| {
            let brought = draft.stack_key.is_some();
            let key = match draft.stack_key.clone() {
                Some(key) => key,
                None => self.0.new_stack_key()?,
            };
            let command = draft.command(key);
            let registered = self.0.register_stack(call, &command).await?;
            Ok(convert::registered(&registered, call, brought))
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        handle!(request, convert::get, |call, key| {
            let found = self.0.get_stack(call, &key).await?;
            Ok(v1::GetResponse {
                stack: Some(convert::stack(&found)),
            })
        })
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        handle!(
            request,
            convert::list_members,
            |call, (key, size, after)| {
                let page = (size, after.as_ref());
                let page = self.0.list_members(call, &key, page).await?;
                Ok(convert::listed_members(&key, &page))
            },
        )
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        handle!(
            request,
            convert::list,
            |call, (organization, size, after)| {
                let page = self
                    .0
                    .list_stacks(call, organization.as_deref(), (size, after))
                    .await?;
                Ok(convert::listed(organization.as_deref(), page))
            },
        )
    }

    async fn set_member(
        &self,
        request: Request<v1::SetMemberRequest>,
    ) -> Result<Response<v1::SetMemberResponse>, Status> {
        handle_change!(request, convert::set_member, |call, (key, person, role)| {
            let change = MemberChange::Set(person, role);
            let (changed, revision) = self.0.change_members(call, &key, &change).await?;
            Ok(v1::SetMemberResponse {
                member: changed.member.as_ref().map(convert::member),
                revision: revision_of(revision),
            })
        })
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        handle_change!(request, convert::remove_member, |call, (key, person)| {
            let change = MemberChange::Remove(person);
            let (_, revision) = self.0.change_members(call, &key, &change).await?;
            Ok(v1::RemoveMemberResponse {
                revision: revision_of(revision),
            })
        })
    }

    async fn transfer_ownership(
        &self,
        request: Request<v1::TransferOwnershipRequest>,
    ) -> Result<Response<v1::TransferOwnershipResponse>, Status> {
        handle_change!(
            request,
            convert::transfer_ownership,
            |call, (key, person)| {
                let change = MemberChange::TransferTo(person);
                let (changed, revision) = self.0.change_members(call, &key, &change).await?;
                Ok(v1::TransferOwnershipResponse {
                    stack: Some(convert::stack(&changed.stack)),
                    revision: revision_of(revision),
                })
            },
        )
    }

    async fn set_token_limit(
        &self,
        request: Request<v1::SetTokenLimitRequest>,
    ) -> Result<Response<v1::SetTokenLimitResponse>, Status> {
        handle_change!(
            request,
            convert::set_token_limit,
            |call, (key, max, reason)| {
                let (stack, revision) = self.0.set_token_limit(call, &key, (max, &reason)).await?;
                let stack = Some(convert::stack(&stack));
                Ok(v1::SetTokenLimitResponse {
                    stack,
                    revision: revision_of(revision),
                })
            },
        )
    }

    async fn suspend(
        &self,
        request: Request<v1::SuspendRequest>,
    ) -> Result<Response<v1::SuspendResponse>, Status> {
        handle_change!(request, convert::suspend, |call, (key, reason)| {
            let step = (StackStep::Suspend, &reason);
            let (stack, revision) = self.0.set_stack_state(call, &key, step).await?;
            let stack = Some(convert::stack(&stack));
            Ok(v1::SuspendResponse {
                stack,
                revision: revision_of(revision),
            })
        })
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        handle_change!(request, convert::resume, |call, (key, reason)| {
            let step = (StackStep::Resume, &reason);
            let (stack, revision) = self.0.set_stack_state(call, &key, step).await?;
            let stack = Some(convert::stack(&stack));
            Ok(v1::ResumeResponse {
                stack,
                revision: revision_of(revision),
            })
        })
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        handle_change!(request, convert::remove, |call, (key, reason)| {
            let step = (StackStep::Remove, &reason);
            let (stack, revision) = self.0.set_stack_state(call, &key, step).await?;
            let stack = Some(convert::stack(&stack));
            Ok(v1::RemoveResponse {
                stack,
                revision: revision_of(revision),
            })
        })
    }
}
