//! Things that end after a backup was made, in every way in which something can end, and what a
//! service is told about them.

use serde_json::json;
use stacktoken::grpc::pb::{
    admin::v1 as admin,
    v1::{self, Access},
};
use tonic::Status;

use crate::{
    served::{RunningServer, now, register_as},
    support::{
        Client,
        federated::{exchange_request, federated_request, job},
        introspect_request, issue_request,
        requests::{
            EVERY_TOKEN, UNTIL_FIRST_USE, end_overlap_request, modules, overlap_for,
            permit_request, revoke_all_request, revoke_request, rotate_request, set_expiry_request,
        },
    },
};

/// What is done to a token after the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    None,
    /// A revoke that is only previewed.
    Previewed,
    Revoked,
    RevokedAll,
    Expired,
    Sooner,
    Leaked,
    Rotated,
    OverlapEnded,
    Overlaps,
    ReplacedByUse,
    Narrowed,
    Suspended,
    Removed,
    SessionsEnded,
    SessionLeaked,
}

pub const ALL: [End; 16] = [
    End::None,
    End::Previewed,
    End::Revoked,
    End::RevokedAll,
    End::Expired,
    End::Sooner,
    End::Leaked,
    End::Rotated,
    End::OverlapEnded,
    End::Overlaps,
    End::ReplacedByUse,
    End::Narrowed,
    End::Suspended,
    End::Removed,
    End::SessionsEnded,
    End::SessionLeaked,
];

impl End {
    /// Returns whether the change takes something away for good.
    pub fn takes_away(self) -> bool {
        !matches!(self, Self::None | Self::Previewed)
    }

    fn is_federated(self) -> bool {
        matches!(self, Self::SessionsEnded | Self::SessionLeaked)
    }
}

/// A secret that existed when the backup was made.
pub struct Held {
    pub end: End,
    pub stack: String,
    pub uid: String,
    pub secret: String,
}

/// What a service is told about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub active: bool,
    /// Whether the secret may change entries.
    pub writes: bool,
    /// When the token expires, in seconds; `i64::MAX` if never.
    pub expires_at: i64,
}

impl Told {
    /// Returns whether this permits something that `other` does not.
    pub fn exceeds(&self, other: &Self) -> bool {
        let is_later = self.active && self.expires_at > other.expires_at;
        (self.active && !other.active) || (self.writes && !other.writes) || is_later
    }
}

/// The callers of a server.
pub struct Callers {
    pub owner: Client,
    pub operator: Client,
    pub service: Client,
}

impl Callers {
    pub async fn of(served: &RunningServer) -> Self {
        Self {
            owner: served.user("owner").await,
            operator: served
                .client(served.issuer.operator("operator", now()))
                .await,
            service: served.service().await,
        }
    }

    pub async fn ask(&mut self, held: &Held) -> Result<Told, Status> {
        let question = introspect_request(&held.stack, &held.secret, &["entry.update"]);
        let answer = self.service.introspection.introspect(question).await?;
        let answer = answer.into_inner();
        let expires_at = answer.expires_at.map_or(i64::MAX, |at| at.seconds);
        Ok(Told {
            active: answer.active,
            writes: answer.active && answer.decision() == v1::Decision::Allow,
            expires_at,
        })
    }

    /// Asks until there is an answer. While a replica begins to trust a database, a call can be
    /// refused.
    pub async fn ask_again(&mut self, held: &Held) -> Told {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match self.ask(held).await {
                Ok(told) => return told,
                Err(refused) => {
                    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
                    assert!(std::time::Instant::now() < until, "{refused:?}");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn stack(&mut self) -> String {
        let stack = register_as(self.operator.clone()).await;
        let request = admin::SetTokenLimitRequest {
            stack_api_key: stack.clone(),
            max_tokens: Some(1000),
            reason: "a drill".into(),
            validate_only: false,
        };
        self.operator.stacks.set_token_limit(request).await.unwrap();
        stack
    }

    /// Issues and uses this many tokens for each way in which they will end.
    pub async fn prepare(&mut self, served: &RunningServer, of_each: usize) -> Vec<Held> {
        let mut all = Vec::new();
        for end in ALL {
            let stack = self.stack().await;
            for number in 0..of_each {
                let name = format!("{end:?}-{number}");
                let held = if end.is_federated() {
                    self.session(served, (end, &stack), &name).await
                } else {
                    let request = issue_request(&stack, &name);
                    let issued = self.owner.tokens.issue(request).await.unwrap().into_inner();
                    Held {
                        end,
                        stack: stack.clone(),
                        uid: issued.token.unwrap().token_uid,
                        secret: issued.secret,
                    }
                };
                let told = self.ask(&held).await.unwrap();
                assert!(told.active && told.writes, "{end:?}: {told:?}");
                all.push(held);
            }
        }
        all
    }

    async fn session(
        &mut self,
        served: &RunningServer,
        (end, stack): (End, &str),
        name: &str,
    ) -> Held {
        let request = federated_request(stack, name);
        let issued = self.owner.tokens.issue(request).await.unwrap();
        let uid = issued.into_inner().token.unwrap().token_uid;
        let jwt = served.issuer.sign(&job(now(), json!({})));
        let mut workload = served.client(jwt).await;
        let exchanged = workload.exchange.exchange(exchange_request(stack, &uid));
        Held {
            end,
            stack: stack.to_owned(),
            uid,
            secret: exchanged.await.unwrap().into_inner().secret,
        }
    }

    /// Ends everything, each in its way.
    pub async fn end_all(&mut self, all: &[Held]) {
        for held in all {
            self.end(held).await;
        }
        for end in [End::RevokedAll, End::Suspended, End::Removed] {
            let held = all.iter().find(|held| held.end == end).unwrap();
            self.end_stack(end, &held.stack).await;
        }
    }

    async fn end(&mut self, held: &Held) {
        let Held {
            end,
            stack,
            uid,
            secret,
        } = held;
        let tokens = &mut self.owner.tokens;
        let expire = |expiry| {
            set_expiry_request(
                stack,
                uid,
                v1::Expiry {
                    expiry: Some(expiry),
                },
            )
        };
        match end {
            End::None | End::RevokedAll | End::Suspended | End::Removed => {}
            End::Previewed => {
                let request = v1::RevokeRequest {
                    validate_only: true,
                    ..revoke_request(stack, uid, "a drill")
                };
                tokens.revoke(request).await.unwrap();
            }
            End::Revoked => drop(
                tokens
                    .revoke(revoke_request(stack, uid, "a drill"))
                    .await
                    .unwrap(),
            ),
            End::Expired => {
                let request = expire(v1::expiry::Expiry::Now(true));
                tokens.set_expiry(request).await.unwrap();
            }
            End::Sooner => {
                let after = prost_types::Duration {
                    seconds: 3600,
                    nanos: 0,
                };
                let request = expire(v1::expiry::Expiry::After(after));
                tokens.set_expiry(request).await.unwrap();
            }
            End::Leaked | End::SessionLeaked => {
                let request = v1::ReportLeakedRequest {
                    secret: secret.clone(),
                    url: String::new(),
                };
                self.operator.leaks.report_leaked(request).await.unwrap();
            }
            End::Rotated => self.rotate(held, overlap_for(0)).await,
            End::Overlaps => self.rotate(held, overlap_for(2)).await,
            End::OverlapEnded => {
                self.rotate(held, overlap_for(3600)).await;
                let request = end_overlap_request(stack, uid);
                self.owner.tokens.end_overlap(request).await.unwrap();
            }
            End::ReplacedByUse => self.rotate(held, UNTIL_FIRST_USE).await,
            End::Narrowed => {
                let permissions = modules(Access::Read, &[]);
                let permissions = v1::Permissions {
                    modules: None,
                    ..permissions
                };
                let request = permit_request(stack, uid, permissions);
                tokens.update(request).await.unwrap();
            }
            End::SessionsEnded => {
                let request = v1::EndSessionsRequest {
                    stack_api_key: stack.clone(),
                    token_uid: uid.clone(),
                    ..Default::default()
                };
                tokens.end_sessions(request).await.unwrap();
            }
        }
    }

    /// Rotates a token, and uses its new secret.
    async fn rotate(&mut self, held: &Held, overlap: v1::Overlap) {
        let request = rotate_request(&held.stack, &held.uid, overlap);
        let rotated = self.owner.tokens.rotate(request).await.unwrap();
        let secret = rotated.into_inner().secret;
        let question = introspect_request(&held.stack, &secret, &[]);
        let answer = self.service.introspection.introspect(question).await;
        assert!(answer.unwrap().into_inner().active);
    }

    async fn end_stack(&mut self, end: End, stack: &str) {
        let (stack_api_key, reason) = (stack.to_owned(), "a drill".to_owned());
        match end {
            End::RevokedAll => {
                let preview = revoke_all_request(stack, &EVERY_TOKEN, None);
                let tokens = &mut self.owner.tokens;
                let preview = tokens.revoke_all(preview).await.unwrap().into_inner();
                let hash = Some(preview.preview_hash.as_str());
                let request = revoke_all_request(stack, &EVERY_TOKEN, hash);
                tokens.revoke_all(request).await.unwrap();
            }
            End::Suspended => {
                let request = admin::SuspendRequest {
                    stack_api_key,
                    reason,
                    validate_only: false,
                };
                self.operator.stacks.suspend(request).await.unwrap();
            }
            _ => {
                let request = admin::RemoveRequest {
                    stack_api_key,
                    reason,
                    validate_only: false,
                };
                self.operator.stacks.remove(request).await.unwrap();
            }
        }
    }

    /// Returns what a service is told about each secret.
    pub async fn ask_all(&mut self, all: &[Held]) -> Vec<Told> {
        let mut told = Vec::new();
        for held in all {
            told.push(self.ask(held).await.unwrap());
        }
        told
    }
}
