//! Short forms of what tests ask, and of what they read off an answer.

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    v1::{self, rotate_request::Overlap},
};
use tonic::{Code, Response, Status};

use super::{ISSUER, TestServer, issue_request, permissions, reason};

/// All live tokens of a stack.
pub const EVERY_TOKEN: v1::RevokeFilter = v1::RevokeFilter {
    all: true,
    issued_by: None,
    unused_since: None,
};

/// Those that somebody issued.
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
    }
}

pub fn revoke_request(stack: &str, uid: &str, reason: &str) -> v1::RevokeRequest {
    v1::RevokeRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        reason: reason.into(),
        validate_only: false,
    }
}

/// Gives the token a new secret.
pub fn rotate_request(stack: &str, uid: &str, overlap: Overlap) -> v1::RotateRequest {
    v1::RotateRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
        overlap: Some(overlap),
        request_id: String::new(),
        validate_only: false,
    }
}

/// The former secret lives on so long.
pub fn overlap_for(seconds: i64) -> Overlap {
    Overlap::OverlapFor(prost_types::Duration { seconds, nanos: 0 })
}

/// Changes what `paths` name, to what `token` holds.
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
    }
}

/// Gives the token another name.
pub fn rename_request(stack: &str, uid: &str, name: &str) -> v1::UpdateRequest {
    let token = v1::Token {
        name: name.into(),
        ..Default::default()
    };
    update_request(stack, uid, &["name"], token)
}

/// Gives the token other permissions.
pub fn permit_request(stack: &str, uid: &str, permissions: v1::Permissions) -> v1::UpdateRequest {
    let token = v1::Token {
        permissions: Some(permissions),
        ..Default::default()
    };
    update_request(stack, uid, &["permissions"], token)
}

/// Permissions narrowed to modules.
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

/// Permissions narrowed to branches and aliases.
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

/// `OK`, or the code and the reason.
pub fn outcome<T>(answered: &Result<Response<T>, Status>) -> String {
    match answered {
        Ok(_) => "OK".into(),
        Err(status) => {
            let (code, why) = refused(status);
            format!("{code:?} {why}")
        }
    }
}

/// The code and the reason of a failure.
pub fn refused(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

/// A token's id and secret.
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

    /// A read-write token that never expires.
    pub async fn token(&self, name: &str) -> Issued {
        self.issue_by(issue_request(&self.stack, name)).await
    }

    /// A read-write token with this expiry.
    pub async fn token_until(&self, name: &str, expiry: v1::Expiry) -> Issued {
        self.issue_by(v1::IssueRequest {
            expiry: Some(expiry),
            ..issue_request(&self.stack, name)
        })
        .await
    }

    /// A token with these permissions that never expires.
    pub async fn token_with(&self, name: &str, permissions: v1::Permissions) -> Issued {
        self.issue_by(v1::IssueRequest {
            permissions: Some(permissions),
            ..issue_request(&self.stack, name)
        })
        .await
    }

    /// The token as its owner sees it.
    pub async fn see(&self, uid: &str) -> v1::Token {
        let request = get_request(&self.stack, uid);
        let seen = self.owner().await.tokens.get(request).await.unwrap();
        seen.into_inner().token.unwrap()
    }

    /// Revokes as the owner.
    pub async fn revoke(&self, uid: &str) {
        let request = revoke_request(&self.stack, uid, "");
        self.owner().await.tokens.revoke(request).await.unwrap();
    }

    /// Rotates as the owner.
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

    /// Why the token is not active; `OK` if it is.
    pub async fn verdict(&self, secret: &str) -> String {
        let answer = self.introspect(secret, &[]).await;
        match (answer.active, answer.reason()) {
            (true, v1::Reason::Unspecified) => "OK".into(),
            (false, reason) => reason.as_str_name().replace("REASON_", ""),
            (active, reason) => panic!("active={active} with {reason:?}"),
        }
    }

    /// Live tokens of the stack, now and at most.
    pub async fn limit(&self) -> (u32, u32) {
        let request = list_request(&self.stack);
        let listed = self.owner().await.tokens.list(request).await.unwrap();
        let limit = listed.into_inner().limit.unwrap();
        (limit.used, limit.max)
    }

    /// Lets the stack have so many live tokens.
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

/// Asks about secrets with one stack key, and about no action.
pub fn batch_request(stack: &str, secrets: &[&str]) -> v1::BatchIntrospectRequest {
    let question = |secret: &&str| v1::IntrospectQuestion {
        token: (*secret).into(),
        stack_api_key: stack.into(),
        actions: Vec::new(),
    };
    v1::BatchIntrospectRequest {
        questions: secrets.iter().map(question).collect(),
        min_revision: String::new(),
    }
}

/// Revokes what the filter names; without a hash only shows it.
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
    }
}
