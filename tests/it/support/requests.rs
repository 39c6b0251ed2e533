//! Short constructors for requests, and helpers that extract values from responses.

use prost::Message as _;
use stacktoken::grpc::pb::{
    admin::v1 as admin,
    v1::{self, Overlap, batch_introspect_result::Result as Outcome, overlap::Ends},
};
use tonic::{Code, Response, Status};
use tonic_types::pb as rpc;

use super::{ISSUER, TestServer, issue_request, permissions, reason};

/// Selects all live tokens of a stack.
pub const EVERY_TOKEN: v1::RevokeFilter = v1::RevokeFilter {
    all: true,
    issued_by: None,
    unused_since: None,
};

/// Selects the tokens that this caller issued.
pub fn issued_by(subject: &str, kind: v1::CallerKind) -> v1::RevokeFilter {
    v1::RevokeFilter {
        issued_by: Some(v1::Actor {
            kind: kind.into(),
            issuer: ISSUER.into(),
            subject: subject.into(),
        }),
        ..Default::default()
    }
}

pub fn get_request(stack: &str, uid: &str) -> v1::GetRequest {
    v1::GetRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
    }
}

pub fn list_request(stack: &str) -> v1::ListRequest {
    v1::ListRequest {
        stack_api_key: stack.into(),
        ..Default::default()
    }
}

pub fn set_expiry_request(stack: &str, uid: &str, expiry: v1::Expiry) -> v1::SetExpiryRequest {
    v1::SetExpiryRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        expiry: Some(expiry),
        validate_only: false,
        etag: String::new(),
    }
}

pub fn revoke_request(stack: &str, uid: &str, reason: &str) -> v1::RevokeRequest {
    v1::RevokeRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        reason: reason.into(),
        validate_only: false,
        etag: String::new(),
    }
}

/// Returns a request for a new secret of the token.
pub fn rotate_request(stack: &str, uid: &str, overlap: Overlap) -> v1::RotateRequest {
    v1::RotateRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        overlap: Some(overlap),
        request_id: String::new(),
        validate_only: false,
        etag: String::new(),
    }
}

/// Returns an overlap that keeps the former secret valid for this long.
pub fn overlap_for(seconds: i64) -> Overlap {
    Overlap {
        ends: Some(Ends::OverlapFor(lasting(seconds))),
        at_most: None,
    }
}

/// An overlap that keeps the former secret valid until the new one is first used.
pub const UNTIL_FIRST_USE: Overlap = Overlap {
    ends: Some(Ends::UntilFirstUse(true)),
    at_most: None,
};

/// Returns an overlap that keeps the former secret valid until the new one is first used, but at
/// most for this long.
pub fn until_first_use_at_most(seconds: i64) -> Overlap {
    Overlap {
        at_most: Some(lasting(seconds)),
        ..UNTIL_FIRST_USE
    }
}

fn lasting(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// Returns a request to end the overlap in which the token's former secret is still valid.
pub fn end_overlap_request(stack: &str, uid: &str) -> v1::EndOverlapRequest {
    v1::EndOverlapRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        validate_only: false,
        etag: String::new(),
    }
}

/// Returns a request to set the fields in `paths` to their values in `token`.
pub fn update_request(
    stack: &str,
    uid: &str,
    paths: &[&str],
    token: v1::Token,
) -> v1::UpdateRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateRequest {
        stack_api_key: stack.into(),
        token: Some(v1::Token {
            token_uid: uid.into(),
            ..token
        }),
        update_mask: Some(prost_types::FieldMask { paths }),
        validate_only: false,
        etag: String::new(),
    }
}

/// Returns a request to rename the token.
pub fn rename_request(stack: &str, uid: &str, name: &str) -> v1::UpdateRequest {
    let token = v1::Token {
        name: name.into(),
        ..Default::default()
    };
    update_request(stack, uid, &["name"], token)
}

/// Returns a request to replace the permissions of the token.
pub fn permit_request(stack: &str, uid: &str, permissions: v1::Permissions) -> v1::UpdateRequest {
    let token = v1::Token {
        permissions: Some(permissions),
        ..Default::default()
    };
    update_request(stack, uid, &["permissions"], token)
}

/// Returns permissions that are narrowed to modules.
pub fn modules(access: v1::Access, grants: &[(&str, v1::Access)]) -> v1::Permissions {
    let grant = |(module, access): &(&str, v1::Access)| v1::ModuleGrant {
        module: (*module).into(),
        access: (*access).into(),
    };
    v1::Permissions {
        modules: Some(v1::ModuleGrants {
            grants: grants.iter().map(grant).collect(),
        }),
        ..permissions(access)
    }
}

/// Returns permissions that are narrowed to branches and aliases.
pub fn branches(access: v1::Access, branches: &[&str], aliases: &[&str]) -> v1::Permissions {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    v1::Permissions {
        branches: Some(v1::BranchGrants {
            branches: owned(branches),
            aliases: owned(aliases),
        }),
        ..permissions(access)
    }
}

/// Returns `OK`, or the code and the reason of the error.
pub fn outcome<T>(answered: &Result<Response<T>, Status>) -> String {
    match answered {
        Ok(_) => "OK".into(),
        Err(status) => {
            let (code, why) = refused(status);
            format!("{code:?} {why}")
        }
    }
}

/// Returns the code and the reason of an error.
pub fn refused(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

/// The id and the secret of an issued token.
#[derive(Clone)]
pub struct Issued {
    pub uid: String,
    pub secret: String,
}

impl From<v1::IssueResponse> for Issued {
    fn from(answer: v1::IssueResponse) -> Self {
        Self {
            uid: answer.token.unwrap().token_uid,
            secret: answer.secret,
        }
    }
}

impl TestServer {
    async fn issue_by(&self, request: v1::IssueRequest) -> Issued {
        let issued = self.owner().await.tokens.issue(request).await.unwrap();
        issued.into_inner().into()
    }

    /// Issues a read-write token that never expires.
    pub async fn token(&self, name: &str) -> Issued {
        self.issue_by(issue_request(&self.stack, name)).await
    }

    /// Issues a read-write token with this expiry.
    pub async fn token_until(&self, name: &str, expiry: v1::Expiry) -> Issued {
        self.issue_by(v1::IssueRequest {
            expiry: Some(expiry),
            ..issue_request(&self.stack, name)
        })
        .await
    }

    /// Issues a token with these permissions that never expires.
    pub async fn token_with(&self, name: &str, permissions: v1::Permissions) -> Issued {
        self.issue_by(v1::IssueRequest {
            permissions: Some(permissions),
            ..issue_request(&self.stack, name)
        })
        .await
    }

    /// Returns the token as `Get` returns it to the owner.
    pub async fn see(&self, uid: &str) -> v1::Token {
        let request = get_request(&self.stack, uid);
        let seen = self.owner().await.tokens.get(request).await.unwrap();
        seen.into_inner().token.unwrap()
    }

    /// Revokes the token as the owner.
    pub async fn revoke(&self, uid: &str) {
        let request = revoke_request(&self.stack, uid, "");
        self.owner().await.tokens.revoke(request).await.unwrap();
    }

    /// Rotates the token as the owner.
    pub async fn rotate(&self, uid: &str, overlap: Overlap) -> v1::RotateResponse {
        let request = rotate_request(&self.stack, uid, overlap);
        let mut owner = self.owner().await;
        owner.tokens.rotate(request).await.unwrap().into_inner()
    }

    /// Changes the expiry as the owner.
    pub async fn set_expiry(&self, uid: &str, expiry: v1::Expiry) -> v1::Token {
        let request = set_expiry_request(&self.stack, uid, expiry);
        let mut owner = self.owner().await;
        let changed = owner.tokens.set_expiry(request).await.unwrap();
        changed.into_inner().token.unwrap()
    }

    /// Introspects the secret. Returns `OK`, or the reason why the token is not active.
    pub async fn verdict(&self, secret: &str) -> String {
        let answer = self.introspect(secret, &[]).await;
        match (answer.active, answer.reason()) {
            (true, v1::Reason::Unspecified) => "OK".into(),
            (false, reason) => reason.as_str_name().replace("REASON_", ""),
            (active, reason) => panic!("active={active} with {reason:?}"),
        }
    }

    /// Returns how many live tokens the stack has, and its token limit.
    pub async fn limit(&self) -> (u32, u32) {
        let request = list_request(&self.stack);
        let listed = self.owner().await.tokens.list(request).await.unwrap();
        let limit = listed.into_inner().limit.unwrap();
        (limit.used, limit.max)
    }

    /// Sets the token limit of the stack.
    pub async fn set_limit(&self, max_tokens: i32) {
        let request = admin::SetTokenLimitRequest {
            stack_api_key: self.stack.clone(),
            max_tokens: Some(max_tokens),
            reason: "a test".into(),
            validate_only: false,
        };
        let mut operator = self.operator().await;
        operator.stacks.set_token_limit(request).await.unwrap();
    }

    pub async fn suspend(&self) {
        let request = admin::SuspendRequest {
            stack_api_key: self.stack.clone(),
            reason: String::new(),
            validate_only: false,
        };
        let mut operator = self.operator().await;
        operator.stacks.suspend(request).await.unwrap();
    }

    pub async fn resume(&self) {
        let request = admin::ResumeRequest {
            stack_api_key: self.stack.clone(),
            reason: String::new(),
            validate_only: false,
        };
        let mut operator = self.operator().await;
        operator.stacks.resume(request).await.unwrap();
    }

    pub async fn remove(&self) {
        let request = admin::RemoveRequest {
            stack_api_key: self.stack.clone(),
            reason: String::new(),
            validate_only: false,
        };
        let mut operator = self.operator().await;
        operator.stacks.remove(request).await.unwrap();
    }
}

/// Everything that an introspection can include.
pub const INCLUDES: [v1::IntrospectInclude; 5] = [
    v1::IntrospectInclude::Permissions,
    v1::IntrospectInclude::Stack,
    v1::IntrospectInclude::Token,
    v1::IntrospectInclude::Labels,
    v1::IntrospectInclude::Session,
];

/// Returns a request to introspect these secrets with one stack key and no action.
pub fn batch_request(stack: &str, secrets: &[&str]) -> v1::BatchIntrospectRequest {
    let question = |secret: &&str| v1::IntrospectQuestion {
        token: (*secret).into(),
        stack_api_key: stack.into(),
        ..Default::default()
    };
    v1::BatchIntrospectRequest {
        questions: secrets.iter().map(question).collect(),
        min_revision: String::new(),
    }
}

/// Converts the error of one question in a batch to the error of a call.
fn status_of(error: &rpc::Status) -> Status {
    let code = Code::from_i32(error.code);
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}

/// Returns the answer or the error of each question in a batch.
pub fn results(
    response: &v1::BatchIntrospectResponse,
) -> Vec<Result<&v1::IntrospectResponse, Status>> {
    let results = response.results.iter().map(|one| match &one.result {
        Some(Outcome::Answer(answer)) => Ok(answer),
        Some(Outcome::Error(error)) => Err(status_of(error)),
        None => panic!("neither answer nor error: {response:?}"),
    });
    results.collect()
}

/// Returns the answers to a batch. Panics if one of the questions failed.
pub fn answers(response: &v1::BatchIntrospectResponse) -> Vec<&v1::IntrospectResponse> {
    results(response).into_iter().map(Result::unwrap).collect()
}

/// Formats the outcome of each question: `OK`, the reason in the answer, or the code and the reason
/// of the error.
pub fn outcomes(response: &v1::BatchIntrospectResponse) -> Vec<String> {
    let outcome = |result: Result<&v1::IntrospectResponse, Status>| match result {
        Ok(answer) => match answer.reason() {
            v1::Reason::Unspecified => "OK".to_owned(),
            reason => reason.as_str_name().replace("REASON_", ""),
        },
        Err(status) => {
            let (code, reason) = refused(&status);
            format!("{code:?} {reason}")
        }
    };
    results(response).into_iter().map(outcome).collect()
}

/// Returns a request to revoke the tokens that the filter selects, or to preview this if there is
/// no hash.
pub fn revoke_all_request(
    stack: &str,
    filter: &v1::RevokeFilter,
    previewed: Option<&str>,
) -> v1::RevokeAllRequest {
    v1::RevokeAllRequest {
        stack_api_key: stack.into(),
        filter: Some(filter.clone()),
        reason: "a breach".into(),
        validate_only: previewed.is_none(),
        preview_hash: previewed.unwrap_or_default().into(),
        ..Default::default()
    }
}
