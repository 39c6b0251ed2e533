//! Converts `StackService` messages to domain values and back.

use prost::Message as _;

use super::{instant, page_token, revision, tokens::limit};
use crate::{
    app::{MemberCursor, MemberPage, Register, Registered, StackCursor, StackPage},
    domain::{
        caller::{Call, CallerKind},
        field::{Problem, Violations},
        page,
        request::Request,
        stack::{
            DEFAULT_TOKEN_LIMIT, MAX_TOKEN_LIMIT, Member, Person, Role, Stack, StackKey, StackState,
        },
        text::{self, Email, Issuer, Reason, StackName, Subject},
    },
    grpc::pb::{admin::v1, v1 as shared},
};

/// Parses the stack key of a list request. Only an operator may omit it, to list the entries of all
/// stacks.
pub fn key_or_all(key: &str, call: &Call) -> Result<Option<StackKey>, Problem> {
    if key.is_empty() && call.caller.actor.kind == CallerKind::Operator {
        return Ok(None);
    }
    StackKey::parse(key).map(Some)
}

/// A parsed registration request. If it has no stack key, one must be generated.
pub struct RegisterDraft {
    /// The stack key, if the caller supplied one.
    pub stack_key: Option<StackKey>,
    name: StackName,
    organization_uid: String,
    owner: Person,
    token_limit: u32,
    request: Option<Request>,
}

impl RegisterDraft {
    /// Completes the registration with this stack key.
    pub fn command(self, stack_key: StackKey) -> Register {
        Register {
            stack_key,
            name: self.name,
            organization_uid: self.organization_uid,
            owner: self.owner,
            token_limit: self.token_limit,
            request: self.request,
        }
    }
}

pub fn register(mut message: v1::RegisterRequest, _: &Call) -> Result<RegisterDraft, Violations> {
    let mut faults = Violations::default();
    // A preview must have the same fingerprint as the request that it previews.
    message.validate_only = false;
    let id = std::mem::take(&mut message.request_id);
    let request = Request::parse(&id, &message.encode_to_vec());
    let brought =
        (!message.stack_api_key.is_empty()).then(|| StackKey::parse(&message.stack_api_key));
    let stack_key = faults.keep("stack_api_key", brought.transpose());
    let name = faults.keep("name", StackName::parse(&message.name));
    let organization = text::parse_slug(&message.organization_uid);
    let organization = faults.keep("organization_uid", organization);
    let owner = faults.nest("owner", person(message.owner));
    let token_limit = message
        .token_limit
        .map_or(Ok(DEFAULT_TOKEN_LIMIT), token_limit);
    let token_limit = faults.keep("token_limit", token_limit);
    let request = faults.keep("request_id", request);
    let parts = stack_key
        .zip(name)
        .zip(organization)
        .zip(owner)
        .zip(token_limit)
        .zip(request);
    faults.finish(parts.map(
        |(((((stack_key, name), organization_uid), owner), token_limit), request)| RegisterDraft {
            stack_key,
            name,
            organization_uid,
            owner,
            token_limit,
            request,
        },
    ))
}

/// Builds the response to a registration. The response to a preview omits the generated id and key,
/// because the registration itself will generate different ones. A preview of a repeated request
/// has both, because the stack already exists.
pub fn registered(registered: &Registered, call: &Call, brought: bool) -> v1::RegisterResponse {
    let mut stack = stack(&registered.stack);
    if call.previews() && !registered.again {
        stack.stack_uid.clear();
        if !brought {
            stack.stack_api_key.clear();
        }
    }
    v1::RegisterResponse {
        stack: Some(stack),
        revision: revision((!call.previews()).then_some(registered.revision)),
    }
}

pub fn get(message: v1::GetRequest, _: &Call) -> Result<StackKey, Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    faults.finish(key)
}

type ListQuestion = (Option<String>, u64, Option<StackCursor>);

pub fn list(message: v1::ListRequest, _: &Call) -> Result<ListQuestion, Violations> {
    let mut faults = Violations::default();
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let named =
        (!message.organization_uid.is_empty()).then(|| text::parse_slug(&message.organization_uid));
    let organization = faults.keep("organization_uid", named.transpose()).flatten();
    let question = question(organization.as_deref());
    let after = page_token(&mut faults, question, &message.page_token);
    faults.finish(size.map(|size| (organization, size, after)))
}

fn question(organization: Option<&str>) -> impl serde::Serialize {
    ("stacks", organization.map(str::to_owned))
}

pub fn listed(organization: Option<&str>, page: StackPage) -> v1::ListResponse {
    let next = page
        .next
        .map(|cursor| page::seal(&question(organization), cursor));
    v1::ListResponse {
        stacks: page.stacks.iter().map(stack).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

type ListMembersQuestion = (StackKey, u64, Option<MemberCursor>);

pub fn list_members(
    message: v1::ListMembersRequest,
    _: &Call,
) -> Result<ListMembersQuestion, Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let question = members_of(&message.stack_api_key);
    let after = page_token(&mut faults, question, &message.page_token);
    faults.finish(key.zip(size).map(|(key, size)| (key, size, after)))
}

fn members_of(key: &str) -> impl serde::Serialize {
    ("members", key.to_owned())
}

pub fn listed_members(key: &StackKey, page: &MemberPage) -> v1::ListMembersResponse {
    let next = page.next.as_ref();
    let next = next.map(|cursor| page::seal(&members_of(key.as_str()), cursor));
    v1::ListMembersResponse {
        members: page.members.iter().map(member).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

pub fn set_member(
    message: v1::SetMemberRequest,
    _: &Call,
) -> Result<(StackKey, Person, Role), Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let person = faults.nest("member", person(message.member));
    let role = faults.keep("role", role(message.role));
    faults.finish(
        key.zip(person)
            .zip(role)
            .map(|((key, person), role)| (key, person, role)),
    )
}

fn role(role: i32) -> Result<Role, Problem> {
    match shared::Role::try_from(role) {
        Ok(shared::Role::Admin) => Ok(Role::Admin),
        Ok(shared::Role::Developer) => Ok(Role::Developer),
        Ok(shared::Role::ContentManager) => Ok(Role::ContentManager),
        Ok(shared::Role::Owner) => Err(Problem::new(
            "cannot be ROLE_OWNER, because a stack has exactly one owner: use TransferOwnership",
        )),
        Ok(shared::Role::Unspecified) | Err(_) => Err(Problem::new(
            "must be ROLE_ADMIN, ROLE_DEVELOPER or ROLE_CONTENT_MANAGER",
        )),
    }
}

pub fn remove_member(
    message: v1::RemoveMemberRequest,
    _: &Call,
) -> Result<(StackKey, Person), Violations> {
    about_person(&message.stack_api_key, "member", message.member)
}

pub fn transfer_ownership(
    message: v1::TransferOwnershipRequest,
    _: &Call,
) -> Result<(StackKey, Person), Violations> {
    about_person(&message.stack_api_key, "new_owner", message.new_owner)
}

fn about_person(
    key: &str,
    field: &str,
    message: Option<v1::Person>,
) -> Result<(StackKey, Person), Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(key));
    let person = faults.nest(field, person(message));
    faults.finish(key.zip(person))
}

pub fn set_token_limit(
    message: v1::SetTokenLimitRequest,
    _: &Call,
) -> Result<(StackKey, u32, Reason), Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let required = || Problem::new(format!("is required: 0 to {MAX_TOKEN_LIMIT}"));
    let max = message
        .max_tokens
        .ok_or_else(required)
        .and_then(token_limit);
    let max = faults.keep("max_tokens", max);
    let reason = faults.keep("reason", Reason::parse(&message.reason));
    if message.reason.is_empty() {
        faults.add(
            "reason",
            Problem::new("is required: why the limit changes, for the audit"),
        );
    }
    faults.finish(
        key.zip(max)
            .zip(reason)
            .map(|((key, max), reason)| (key, max, reason)),
    )
}

fn token_limit(limit: i32) -> Result<u32, Problem> {
    let limit = u32::try_from(limit)
        .ok()
        .filter(|limit| *limit <= MAX_TOKEN_LIMIT);
    limit.ok_or_else(|| Problem::new(format!("must be 0 to {MAX_TOKEN_LIMIT}")))
}

pub fn suspend(message: v1::SuspendRequest, _: &Call) -> Result<(StackKey, Reason), Violations> {
    with_reason(&message.stack_api_key, &message.reason)
}

pub fn resume(message: v1::ResumeRequest, _: &Call) -> Result<(StackKey, Reason), Violations> {
    with_reason(&message.stack_api_key, &message.reason)
}

pub fn remove(message: v1::RemoveRequest, _: &Call) -> Result<(StackKey, Reason), Violations> {
    with_reason(&message.stack_api_key, &message.reason)
}

fn with_reason(key: &str, reason: &str) -> Result<(StackKey, Reason), Violations> {
    let mut faults = Violations::default();
    let key = faults.keep("stack_api_key", StackKey::parse(key));
    let reason = faults.keep("reason", Reason::parse(reason));
    faults.finish(key.zip(reason))
}

fn person(message: Option<v1::Person>) -> Result<Person, Violations> {
    let mut faults = Violations::default();
    let Some(message) = message else {
        faults.add(
            "",
            Problem::new("is required: `issuer` and `subject`, as in the user's credential"),
        );
        return faults.finish(None);
    };
    let issuer = faults.keep("issuer", Issuer::parse(&message.issuer));
    let subject = faults.keep("subject", Subject::parse(&message.subject));
    let email = faults.keep("email", Email::parse(&message.email));
    let email = email.filter(|email| !email.as_str().is_empty());
    faults.finish(issuer.zip(subject).map(|(issuer, subject)| Person {
        issuer,
        subject,
        email,
    }))
}

fn person_message(person: &Person) -> v1::Person {
    let email = person.email.as_ref().map(|email| email.as_str().to_owned());
    v1::Person {
        issuer: person.issuer.as_str().to_owned(),
        subject: person.subject.as_str().to_owned(),
        email: email.unwrap_or_default(),
    }
}

pub fn member(member: &Member) -> v1::Member {
    v1::Member {
        person: Some(person_message(&member.person)),
        role: role_message(member.role).into(),
        added_at: Some(instant(member.added_at)),
    }
}

pub const fn role_message(role: Role) -> shared::Role {
    match role {
        Role::Owner => shared::Role::Owner,
        Role::Admin => shared::Role::Admin,
        Role::Developer => shared::Role::Developer,
        Role::ContentManager => shared::Role::ContentManager,
    }
}

pub const fn state_message(state: StackState) -> shared::StackState {
    match state {
        StackState::Active => shared::StackState::Active,
        StackState::Suspended { .. } => shared::StackState::Suspended,
        StackState::Removed { .. } => shared::StackState::Removed,
    }
}

pub fn stack(stack: &Stack) -> v1::Stack {
    let (suspended_at, removed_at) = match stack.state {
        StackState::Active => (None, None),
        StackState::Suspended { at } => (Some(instant(at)), None),
        StackState::Removed { at } => (None, Some(instant(at))),
    };
    v1::Stack {
        stack_uid: stack.uid.to_string(),
        stack_api_key: stack.key.to_string(),
        name: stack.name.as_str().to_owned(),
        organization_uid: stack.organization_uid.clone(),
        state: state_message(stack.state).into(),
        owner: Some(person_message(&stack.owner)),
        limit: Some(limit(stack.limit)),
        registered_at: Some(instant(stack.registered_at)),
        suspended_at,
        removed_at,
    }
}
