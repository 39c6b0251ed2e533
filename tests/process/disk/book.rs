//! Records what the program has acknowledged, to compare this with the program and its file.

use std::collections::BTreeMap;

use rustix::process::Signal;
use stacktoken::grpc::pb::{admin, v1};
use tonic::Status;

use crate::{
    program::Dev,
    support::{Client, introspect_request, issue_request, requests::revoke_request},
};

/// A token, and what its callers know about it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub secret: String,
    /// `None` if a revoke failed, because the revoke may have been made anyway.
    pub revoked: Option<bool>,
}

/// A stack with its callers, and the acknowledged state of its tokens.
pub struct AcknowledgedTokens {
    pub stack: String,
    pub owner: Client,
    pub service: Client,
    pub operator: Client,
    pub entries: BTreeMap<String, Entry>,
    issued: u32,
}

impl AcknowledgedTokens {
    /// Registers a stack that may have many tokens.
    pub async fn open(dev: &Dev) -> Self {
        let mut operator = dev.client("operator_jwt").await;
        let request = admin::v1::RegisterRequest {
            name: "Disk".into(),
            organization_uid: "demo".into(),
            owner: Some(admin::v1::Person {
                issuer: "https://dev.stacktoken.invalid".into(),
                subject: "owner".into(),
                email: String::new(),
            }),
            token_limit: Some(1000),
            ..Default::default()
        };
        let registered = operator.stacks.register(request).await.unwrap();
        Self {
            stack: registered.into_inner().stack.unwrap().stack_api_key,
            owner: dev.client("owner_jwt").await,
            service: dev.client("service_jwt").await,
            operator,
            entries: BTreeMap::new(),
            issued: 0,
        }
    }

    /// Issues a token and returns its id.
    pub async fn issue(&mut self) -> Result<String, Status> {
        self.issued += 1;
        let name = format!("t{}", self.issued);
        let issued = self.owner.tokens.issue(issue_request(&self.stack, &name));
        let issued = issued.await?.into_inner();
        let uid = issued.token.unwrap().token_uid;
        let entry = Entry {
            secret: issued.secret,
            revoked: Some(false),
        };
        self.entries.insert(uid.clone(), entry);
        Ok(uid)
    }

    pub async fn revoke(&mut self, uid: &str) -> Result<(), Status> {
        let request = revoke_request(&self.stack, uid, "");
        let revoked = self.owner.tokens.revoke(request).await.map(drop);
        let entry = self.entries.get_mut(uid).unwrap();
        entry.revoked = match (&revoked, entry.revoked) {
            (Ok(()), _) | (Err(_), Some(true)) => Some(true),
            (Err(_), _) => None,
        };
        revoked
    }

    /// Previews a revoke of the token.
    pub async fn preview(&mut self, uid: &str) -> Result<(), Status> {
        let mut request = revoke_request(&self.stack, uid, "");
        request.validate_only = true;
        self.owner.tokens.revoke(request).await.map(drop)
    }

    pub async fn is_active(&mut self, uid: &str) -> Result<bool, Status> {
        let request = introspect_request(&self.stack, &self.entries[uid].secret, &[]);
        let answer = self.service.introspection.introspect(request).await;
        Ok(answer?.into_inner().active)
    }

    /// Returns all tokens of the stack, as the program lists them.
    pub async fn listed(&mut self) -> BTreeMap<String, v1::Token> {
        let mut found = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListRequest {
                stack_api_key: self.stack.clone(),
                page_size: 100,
                page_token,
                ..Default::default()
            };
            let page = self.owner.tokens.list(request).await.unwrap().into_inner();
            let tokens = page.tokens.into_iter();
            found.extend(tokens.map(|token| (token.token_uid.clone(), token)));
            if page.next_page_token.is_empty() {
                return found;
            }
            page_token = page.next_page_token;
        }
    }

    /// Asserts that every acknowledged change is listed, and that verdicts agree with the list.
    pub async fn check(&mut self) {
        let listed = self.listed().await;
        for (uid, entry) in self.entries.clone() {
            let token = listed.get(&uid).unwrap_or_else(|| panic!("{uid} is lost"));
            let revoked = token.state() == v1::TokenState::Revoked;
            if let Some(acknowledged) = entry.revoked {
                assert_eq!(revoked, acknowledged, "the revoke of {uid} is lost");
            }
            assert_eq!(self.is_active(&uid).await.unwrap(), !revoked, "{uid}");
        }
    }

    /// Stops the program cleanly and starts it again on the same file. Asserts that the stored
    /// state matches the earlier answers.
    pub async fn check_by_the_file(mut self, mut dev: Dev) {
        self.check().await;
        let before = self.listed().await;
        let folder = dev.folder.clone();
        dev.signal(Signal::TERM);
        let ended = dev.child.wait().unwrap();
        assert!(ended.success(), "{ended}");
        drop(dev);
        let store = folder.join(".stacktoken/stacktoken.db");
        assert_eq!(crate::support::database::integrity(&store).await, "ok");
        let dev = Dev::start(&folder);
        let (owner, service) = (
            dev.client("owner_jwt").await,
            dev.client("service_jwt").await,
        );
        (self.owner, self.service) = (owner, service);
        let uses = |token: &mut v1::Token| token.last_used_at = None;
        let (mut before, mut after) = (before, self.listed().await);
        before.values_mut().for_each(uses);
        after.values_mut().for_each(uses);
        assert_eq!(before, after, "the stored state differs from the answers");
        self.check().await;
    }
}
