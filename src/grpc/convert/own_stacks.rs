//! Converts the messages of `TokenService.ListStacks`.

use super::{
    page_token,
    stacks::{role_message, state_message},
};
use crate::{
    app::{OwnStackPage, StackCursor},
    domain::{caller::Call, field::Violations, page, stack::OwnStack},
    grpc::pb::v1,
};

/// The value to which a page token is bound. It does not include the caller, because a page token
/// only determines where to start in the list of the caller's own stacks.
const QUESTION: &str = "own stacks";

pub fn list(
    message: v1::ListStacksRequest,
    _: &Call,
) -> Result<(u64, Option<StackCursor>), Violations> {
    let mut faults = Violations::default();
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let after = page_token(&mut faults, QUESTION, &message.page_token);
    faults.finish(size.map(|size| (size, after)))
}

pub fn listed(page: &OwnStackPage) -> v1::ListStacksResponse {
    let next = page.next.map(|cursor| page::seal(&QUESTION, cursor));
    v1::ListStacksResponse {
        stacks: page.stacks.iter().map(own_stack).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

fn own_stack(stack: &OwnStack) -> v1::OwnStack {
    v1::OwnStack {
        stack_api_key: stack.key.to_string(),
        name: stack.name.as_str().to_owned(),
        organization_uid: stack.organization_uid.clone(),
        state: state_message(stack.state).into(),
        role: role_message(stack.role).into(),
    }
}
