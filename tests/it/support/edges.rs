//! Requests at the limits of what a field can hold. They are sent to servers on either engine.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};
use stacktoken::grpc::pb::{admin::v1 as admin, audit::v1 as audit, v1};
use tonic::{Code, Response, Status};

use super::{
    Client, ISSUER,
    clients::fields,
    issue_request, person, reason,
    requests::{EVERY_TOKEN, list_request, revoke_all_request},
};

/// An owner and an operator of a server, and two stacks of this owner.
pub struct Callers {
    pub owner: Client,
    pub operator: Client,
    pub stacks: [String; 2],
}

/// A list RPC with its stack, order or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Tokens(usize, v1::TokenOrder),
    Named(usize),
    OwnStacks,
    Stacks(&'static str),
    Members(usize),
    Audit(usize),
    Preview(usize),
}

const LISTS: [List; 14] = [
    List::Tokens(0, v1::TokenOrder::NewestFirst),
    List::Tokens(0, v1::TokenOrder::OldestFirst),
    List::Tokens(0, v1::TokenOrder::ExpiresFirst),
    List::Tokens(0, v1::TokenOrder::Name),
    List::Tokens(1, v1::TokenOrder::Name),
    List::Named(0),
    List::OwnStacks,
    List::Stacks(""),
    List::Stacks("org-1"),
    List::Members(0),
    List::Members(1),
    List::Audit(0),
    List::Audit(1),
    List::Preview(0),
];

impl Callers {
    /// Requests one entry of `list`, the one after `page_token` if the page token is not empty.
    /// Returns the next page token.
    async fn next(&mut self, list: List, page_token: &str) -> Result<String, Status> {
        let (page_size, page_token) = (1, page_token.to_owned());
        let stack = |at: usize| self.stacks[at].clone();
        match list {
            List::Tokens(at, order) => {
                let request = v1::ListRequest {
                    page_size,
                    page_token,
                    order: order.into(),
                    ..list_request(&stack(at))
                };
                next(self.owner.tokens.list(request).await, |page| {
                    page.next_page_token
                })
            }
            List::Named(at) => {
                let request = v1::ListRequest {
                    page_size,
                    page_token,
                    name_contains: "token".into(),
                    ..list_request(&stack(at))
                };
                next(self.owner.tokens.list(request).await, |page| {
                    page.next_page_token
                })
            }
            List::OwnStacks => {
                let request = v1::ListStacksRequest {
                    page_size,
                    page_token,
                };
                next(self.owner.tokens.list_stacks(request).await, |page| {
                    page.next_page_token
                })
            }
            List::Stacks(organization) => {
                let request = admin::ListRequest {
                    page_size,
                    page_token,
                    organization_uid: organization.into(),
                };
                next(self.operator.stacks.list(request).await, |page| {
                    page.next_page_token
                })
            }
            List::Members(at) => {
                let request = admin::ListMembersRequest {
                    stack_api_key: stack(at),
                    page_size,
                    page_token,
                };
                next(self.operator.stacks.list_members(request).await, |page| {
                    page.next_page_token
                })
            }
            List::Audit(at) => {
                let request = audit::ListRequest {
                    stack_api_key: stack(at),
                    page_size,
                    page_token,
                    ..Default::default()
                };
                next(self.operator.audit.list(request).await, |page| {
                    page.next_page_token
                })
            }
            List::Preview(at) => {
                let request = v1::RevokeAllRequest {
                    page_size,
                    page_token,
                    ..revoke_all_request(&stack(at), &EVERY_TOKEN, None)
                };
                next(self.owner.tokens.revoke_all(request).await, |page| {
                    page.next_page_token
                })
            }
        }
    }

    /// Issues three tokens and adds two members in each stack.
    async fn fill(&mut self) {
        for stack in self.stacks.clone() {
            for name in ["token a", "token b", "token c"] {
                let request = issue_request(&stack, name);
                self.owner.tokens.issue(request).await.unwrap();
            }
            let request = admin::SetMemberRequest {
                stack_api_key: stack,
                member: Some(person("second")),
                role: v1::Role::Developer.into(),
                validate_only: false,
            };
            self.operator.stacks.set_member(request).await.unwrap();
        }
    }
}

fn next<T>(
    answered: Result<Response<T>, Status>,
    token: impl FnOnce(T) -> String,
) -> Result<String, Status> {
    answered.map(|page| token(page.into_inner()))
}

fn require_bad_page_token<T: std::fmt::Debug>(answered: Result<T, Status>, what: &str) {
    let status = answered.expect_err(what);
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    assert_eq!(reason(&status), "INVALID_FIELD", "{what}");
    assert_eq!(fields(&status), ["page_token"], "{what}");
}

/// Returns copies of a page token in which each leaf of the cursor is replaced in turn.
fn forged(token: &str, leaf: &Value) -> Vec<String> {
    let envelope: Value = serde_json::from_slice(&BASE64.decode(token).unwrap()).unwrap();
    let mut made = Vec::new();
    let mut paths = Vec::new();
    leaves(&envelope["c"], "/c", &mut paths);
    for path in paths {
        let mut forged = envelope.clone();
        *forged.pointer_mut(&path).unwrap() = leaf.clone();
        made.push(BASE64.encode(forged.to_string()));
    }
    made
}

fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                leaves(value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                leaves(value, &format!("{path}/{at}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Asserts that a list refuses malformed page tokens and page tokens of other lists. A forged page
/// token may work, or be refused as a bad page token or with `PREVIEW_CHANGED`.
pub async fn page_tokens(mut callers: Callers) {
    callers.fill().await;
    let mut tokens = Vec::new();
    for list in LISTS {
        let token = callers.next(list, "").await.unwrap();
        assert!(!token.is_empty(), "{list:?}");
        callers.next(list, &token).await.unwrap();
        tokens.push((list, token));
    }
    for (list, own) in &tokens {
        for (other, token) in tokens.iter().filter(|(other, _)| other != list) {
            let what = format!("{list:?}, the token of {other:?}");
            require_bad_page_token(callers.next(*list, token).await, &what);
        }
        let texts = [
            "{}",
            "[]",
            "null",
            "7",
            "\"\"",
            r#"{"q":"","c":null}"#,
            "\0",
        ];
        let mut junk: Vec<_> = texts.map(|text| BASE64.encode(text)).to_vec();
        junk.extend(["junk", "\0", "ÿ", " ", "%00", "="].map(str::to_owned));
        junk.extend(["A".repeat(60_000), format!("{own}="), own[1..].to_owned()]);
        junk.extend(forged(own, &json!(["a", {"b": 1}])));
        junk.extend(forged(own, &json!("a\0b")));
        for token in junk {
            let start: String = token.chars().take(40).collect();
            let what = format!("{list:?}, {start:?}");
            require_bad_page_token(callers.next(*list, &token).await, &what);
        }
        let leaves = [
            json!(""),
            json!("text"),
            json!("\u{10ffff}"),
            json!("x".repeat(40_000)),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(0.5),
            json!(true),
            Value::Null,
            json!("00000000-0000-0000-0000-000000000000"),
        ];
        for leaf in &leaves {
            for token in forged(own, leaf) {
                let answered = callers.next(*list, &token).await;
                let shown: String = leaf.to_string().chars().take(40).collect();
                // The cursor of a preview contains the previewed set, so a forged cursor can fail
                // with this reason.
                let is_changed = |status: &Status| reason(status) == "PREVIEW_CHANGED";
                if answered.as_ref().is_err_and(|status| !is_changed(status)) {
                    require_bad_page_token(answered, &format!("{list:?}, {shown}"));
                }
            }
        }
    }
}

/// Returns `chars` pseudo-random characters of four bytes each, which do not compress.
fn dense(chars: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from_u32(0x20000 + u32::try_from(state % 42_000).unwrap()).unwrap()
    };
    std::iter::repeat_with(next).take(chars).collect()
}

/// Returns texts that are neither a valid issuer nor a valid subject.
fn no_identities() -> Vec<String> {
    let short = [
        "a\0b",
        "\0",
        "a\u{7}b",
        "a\nb",
        "a\u{200b}b",
        "\u{301}a",
        "\u{3164}",
        "a\u{202e}b",
    ];
    let mut texts: Vec<_> = short.map(str::to_owned).to_vec();
    texts.extend(["x".repeat(10_000), dense(257), dense(10_000), String::new()]);
    texts
}

fn of(issuer: &str, subject: &str) -> admin::Person {
    admin::Person {
        issuer: issuer.into(),
        subject: subject.into(),
        email: String::new(),
    }
}

fn require_field<T: std::fmt::Debug>(answered: Result<Response<T>, Status>, field: &str) {
    let status = answered.expect_err(field);
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    assert!(
        fields(&status).iter().any(|named| named == field),
        "{field}: {status:?}"
    );
}

/// Asserts that every field for a person refuses an invalid issuer or subject and accepts the
/// longest valid one.
pub async fn identities(mut callers: Callers) {
    let stack = callers.stacks[0].clone();
    for text in no_identities() {
        for (which, issuer, subject) in [
            ("issuer", text.as_str(), "x"),
            ("subject", "x", text.as_str()),
        ] {
            // A filter with an empty subject is valid, because it matches every subject.
            let is_filter = !(which == "subject" && text.is_empty());
            refuse(&mut callers, &stack, (which, issuer, subject), is_filter).await;
        }
    }
    let longest = of(&dense(256), &dense(255));
    let set = admin::SetMemberRequest {
        stack_api_key: stack.clone(),
        member: Some(longest.clone()),
        role: v1::Role::Admin.into(),
        validate_only: false,
    };
    callers.operator.stacks.set_member(set).await.unwrap();
    let register = admin::RegisterRequest {
        name: "Of a very long owner".into(),
        organization_uid: "org-long".into(),
        owner: Some(longest.clone()),
        request_id: "r".repeat(64),
        ..Default::default()
    };
    callers.operator.stacks.register(register).await.unwrap();
    let filter = v1::ListRequest {
        issued_by: Some(v1::Actor {
            kind: 0,
            issuer: longest.issuer,
            subject: longest.subject,
        }),
        ..list_request(&stack)
    };
    callers.owner.tokens.list(filter).await.unwrap();
}

async fn refuse(
    callers: &mut Callers,
    stack: &str,
    (which, issuer, subject): (&str, &str, &str),
    is_filter: bool,
) {
    let (person, stack_api_key) = (Some(of(issuer, subject)), stack.to_owned());
    let actor = v1::Actor {
        kind: 0,
        issuer: issuer.into(),
        subject: subject.into(),
    };
    let member = format!("member.{which}");
    let set = admin::SetMemberRequest {
        stack_api_key: stack_api_key.clone(),
        member: person.clone(),
        role: v1::Role::Admin.into(),
        validate_only: false,
    };
    require_field(callers.operator.stacks.set_member(set).await, &member);
    let remove = admin::RemoveMemberRequest {
        stack_api_key: stack_api_key.clone(),
        member: person.clone(),
        validate_only: false,
    };
    require_field(callers.operator.stacks.remove_member(remove).await, &member);
    let transfer = admin::TransferOwnershipRequest {
        stack_api_key: stack_api_key.clone(),
        new_owner: person.clone(),
        validate_only: false,
    };
    let owner = format!("new_owner.{which}");
    require_field(
        callers.operator.stacks.transfer_ownership(transfer).await,
        &owner,
    );
    let register = admin::RegisterRequest {
        name: "x".into(),
        organization_uid: "org-1".into(),
        owner: person,
        ..Default::default()
    };
    require_field(
        callers.operator.stacks.register(register).await,
        &format!("owner.{which}"),
    );
    let list = v1::ListRequest {
        issued_by: Some(actor.clone()),
        ..list_request(stack)
    };
    require_field(
        callers.owner.tokens.list(list).await,
        &format!("issued_by.{which}"),
    );
    let filter = v1::RevokeFilter {
        issued_by: Some(actor),
        ..Default::default()
    };
    let all = revoke_all_request(stack, &filter, None);
    let field = format!("filter.issued_by.{which}");
    require_field(callers.owner.tokens.revoke_all(all).await, &field);
    let audit = audit::ListRequest {
        stack_api_key,
        actors: vec![audit::ActorFilter {
            issuer: issuer.into(),
            subject: subject.into(),
        }],
        ..Default::default()
    };
    if is_filter {
        require_field(
            callers.operator.audit.list(audit).await,
            &format!("actors[0].{which}"),
        );
    }
}

/// Returns the claims of a user with this `sub`.
pub fn claims_of(subject: &str, now: i64) -> Value {
    json!({
        "iss": ISSUER, "aud": "stacktoken", "sub": subject, "kind": "user",
        "iat": now, "exp": now + 3600,
    })
}

/// Returns invalid subjects and the longest valid subject.
pub fn subjects() -> (Vec<String>, String) {
    let mut bad = no_identities();
    // A longer subject would make the JWT exceed the limit on the headers of a call.
    bad.retain(|text| text.len() < 12_000);
    (bad, dense(255))
}

/// Asserts that equivalent spellings count as one name, and that names with invisible characters
/// are refused.
pub async fn names(mut callers: Callers) {
    let stack = callers.stacks[0].clone();
    let composed = issue_request(&stack, "caf\u{e9} \u{1ea5}");
    callers.owner.tokens.issue(composed).await.unwrap();
    for same in [
        "cafe\u{301} \u{1ea5}",
        "caf\u{e9} a\u{302}\u{301}",
        "cafe\u{301} \u{e2}\u{301}",
    ] {
        let status = callers
            .owner
            .tokens
            .issue(issue_request(&stack, same))
            .await;
        assert_eq!(reason(&status.unwrap_err()), "NAME_TAKEN", "{same:?}");
    }
    let unseen = [
        "\u{200b}",
        "\u{2060}",
        "\u{ad}",
        "\u{34f}",
        "\u{61c}",
        "\u{115f}",
        "\u{17b4}",
        "\u{180e}",
        "\u{200e}",
        "\u{202a}",
        "\u{202e}",
        "\u{2066}",
        "\u{2069}",
        "\u{2800}",
        "\u{3164}",
        "\u{fe0f}",
        "\u{feff}",
        "\u{ffa0}",
        "\u{fff0}",
        "\u{1d173}",
        "\u{e0001}",
        "\u{e0100}",
        "\0",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
    ];
    for character in unseen {
        for name in [
            format!("a{character}b"),
            character.to_owned(),
            format!("a{character}"),
        ] {
            let answered = callers
                .owner
                .tokens
                .issue(issue_request(&stack, &name))
                .await;
            require_field(answered, "name");
            let labelled = v1::IssueRequest {
                labels: BTreeMap::from([("team".to_owned(), name)]),
                ..issue_request(&stack, "labelled")
            };
            require_field(
                callers.owner.tokens.issue(labelled).await,
                "labels[\"team\"]",
            );
        }
    }
    for name in ["\u{301}a", "a \u{301}b", "\u{20dd}"] {
        let answered = callers
            .owner
            .tokens
            .issue(issue_request(&stack, name))
            .await;
        require_field(answered, "name");
    }
}

/// Returns a registration with this key.
fn register_request(key: &str) -> admin::RegisterRequest {
    admin::RegisterRequest {
        stack_api_key: key.into(),
        name: "Raced".into(),
        organization_uid: "org-raced".into(),
        owner: Some(person("owner")),
        ..Default::default()
    }
}

/// Asserts that exactly one of these concurrent registrations with the same key succeeds, and that
/// the others fail with STACK_KEY_TAKEN.
pub async fn registrations(operators: &[Client]) {
    for round in 0..20 {
        let key = format!("blt{round:016x}");
        let racing = operators.iter().cycle().take(8).map(|operator| {
            let (mut stacks, request) = (operator.stacks.clone(), register_request(&key));
            tokio::spawn(async move { stacks.register(request).await })
        });
        let mut registered = 0;
        for raced in racing.collect::<Vec<_>>() {
            match raced.await.unwrap() {
                Ok(_) => registered += 1,
                Err(status) => {
                    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
                    assert_eq!(reason(&status), "STACK_KEY_TAKEN");
                }
            }
        }
        assert_eq!(registered, 1, "{key}");
    }
}
