//! Previews each change and then makes it, on any server. Asserts that the preview changes no row,
//! and that it returns the same result as the change.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use stacktoken::grpc::pb::v1;
use tonic::{Status, transport::Channel};

use super::{
    at,
    clients::details,
    clock::FAR,
    raw::{self, Metadata, TestCaller, methods, path_of},
    reason,
};

/// A server whose tables the test can read.
pub trait InspectTables {
    /// Whether a preview and its change see the same time. They do if only the test moves the
    /// clock.
    const EXACT: bool;

    async fn channel(&self) -> Channel;

    fn jwt(&self, part: TestCaller) -> String;

    /// Returns every row, except the heartbeat and the refusals, which are written asynchronously.
    async fn dump(&self) -> String;

    /// Returns the time of the server's clock, in seconds.
    fn seconds(&self) -> i64;

    /// Advances the clock if the test controls it, and otherwise does nothing.
    fn pass(&self, seconds: u64);

    /// Returns an expiry in one minute.
    fn soon(&self) -> v1::Expiry {
        at(self.seconds() + 60)
    }
}

/// Makes changes, and makes a preview before each one.
pub struct Rehearsal<'a, W> {
    pub world: &'a W,
    channel: Channel,
    methods: Vec<MethodDescriptor>,
}

impl<'a, W: InspectTables> Rehearsal<'a, W> {
    pub async fn of(world: &'a W) -> Self {
        Self {
            world,
            channel: world.channel().await,
            methods: methods(),
        }
    }

    fn method(&self, rpc: &str) -> &MethodDescriptor {
        let found = self.methods.iter().find(|m| path_of(m).ends_with(rpc));
        found.unwrap_or_else(|| panic!("no {rpc}"))
    }

    async fn ask(&self, part: TestCaller, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let sent = Metadata::bearer(&self.world.jwt(part));
        raw::call(&self.channel, path, sent, message).await
    }

    /// Makes a preview without the change, and asserts that no table changes.
    pub async fn preview<A: Message + Default>(
        &self,
        (part, rpc): (TestCaller, &str),
        request: &impl Message,
    ) -> Result<A, Status> {
        let (shown, _) = self.show((part, rpc), &request.encode_to_vec()).await;
        shown.map(|bytes| A::decode(bytes.as_slice()).unwrap())
    }

    /// Calls the RPC with `validate_only`, and asserts that no table changes. Returns the result
    /// and a dump of the tables.
    async fn show(
        &self,
        (part, rpc): (TestCaller, &str),
        request: &[u8],
    ) -> (Result<Vec<u8>, Status>, String) {
        let method = self.method(rpc);
        let mut asked = DynamicMessage::decode(method.input(), request).unwrap();
        asked.set_field_by_name("validate_only", Value::Bool(true));
        let before = self.world.dump().await;
        let path = path_of(method);
        let shown = self.ask(part, &path, asked.encode_to_vec()).await;
        let after = self.world.dump().await;
        assert_eq!(after, before, "{rpc}: the preview changed a table");
        (shown, before)
    }

    /// Previews a change and then makes it. Asserts that both give the same result, and returns
    /// this result.
    pub async fn make<A: Message + Default>(
        &self,
        (part, rpc): (TestCaller, &str),
        request: &impl Message,
    ) -> Result<A, String> {
        let request = request.encode_to_vec();
        let (shown, before) = self.show((part, rpc), &request).await;
        let method = self.method(rpc);
        let done = self.ask(part, &path_of(method), request.clone()).await;
        match (shown, done) {
            (Ok(shown), Ok(done)) => {
                let after = self.world.dump().await;
                let idle = ["TokenService/EndOverlap", "TokenService/Update"].contains(&rpc);
                assert!(idle || after != before, "{rpc}: the change wrote no row");
                let read = |bytes: &[u8]| DynamicMessage::decode(method.output(), bytes).unwrap();
                require_alike::<W>(rpc, read(&shown), read(&done));
                Ok(A::decode(done.as_slice()).unwrap())
            }
            (Err(shown), Err(done)) => {
                assert_eq!(refusal_text(&shown), refusal_text(&done), "{rpc}");
                Err(reason(&done))
            }
            (shown, done) => {
                panic!("{rpc} by {part:?}: the preview returned {shown:?}, the change {done:?}")
            }
        }
    }

    /// Asserts that the preview and the change are both refused with the reason `expected`.
    pub async fn refuse(&self, at: (TestCaller, &str), request: &impl Message, expected: &str) {
        let done = self.make::<()>(at, request).await;
        assert_eq!(done, Err(expected.to_owned()), "{at:?}");
    }
}

/// Formats everything that a refusal reveals, except the request id.
fn refusal_text(status: &Status) -> String {
    let details = details(status);
    let info = details.error_info().unwrap();
    let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
    format!(
        "{:?} {} {} {:?} {:?} {:?} {:?}",
        status.code(),
        status.message(),
        info.reason,
        metadata,
        details.bad_request(),
        details.quota_failure(),
        details.retry_info(),
    )
}

fn text(message: &DynamicMessage, field: &str) -> String {
    match message.get_field_by_name(field) {
        Some(value) => value.as_str().unwrap().to_owned(),
        None => String::new(),
    }
}

/// Applies `change` to a field of a message if the field is set.
fn within(message: &mut DynamicMessage, field: &str, change: impl FnOnce(&mut DynamicMessage)) {
    if message.has_field_by_name(field) {
        let part = message.get_field_by_name_mut(field).unwrap();
        change(part.as_message_mut().unwrap());
    }
}

fn require_alike<W: InspectTables>(rpc: &str, mut shown: DynamicMessage, mut done: DynamicMessage) {
    for never in ["revision", "secret"] {
        assert_eq!(text(&shown, never), "", "{rpc}: a preview has a {never}");
    }
    assert_ne!(text(&done, "revision"), "", "{rpc}");
    assert!(
        !done.has_field_by_name("impact"),
        "{rpc}: the change has an impact"
    );
    let refusal_text =
        ["/Update", "/SetExpiry", "/EndOverlap", "/Revoke"].map(|end| rpc.ends_with(end));
    let refusal_text = refusal_text.contains(&true) && rpc.starts_with("TokenService");
    assert_eq!(shown.has_field_by_name("impact"), refusal_text, "{rpc}");
    let made = !text(&done, "secret").is_empty();
    let mut unknown = Vec::new();
    within(&mut shown, "token", |token| {
        if made && text(token, "token_uid").is_empty() {
            unknown.push("token_uid");
        }
    });
    let again = |message: &DynamicMessage| {
        let token = message.get_field_by_name("token").unwrap();
        let generation = token.as_message().unwrap().get_field_by_name("generation");
        generation.unwrap().as_u32() != Some(1)
    };
    if made {
        let new = rpc.ends_with("Issue") && !again(&shown);
        let expected: &[_] = if new { &["token_uid"] } else { &[] };
        assert_eq!(unknown, expected, "{rpc}: unknown fields of the preview");
        within(&mut shown, "token", |token| {
            assert_eq!(
                clear_newest(token, "hint"),
                "",
                "{rpc}: a preview has a hint"
            );
        });
        within(&mut done, "token", |token| {
            assert_ne!(clear_newest(token, "hint"), "", "{rpc}");
        });
    }
    if rpc.ends_with("Register") {
        within(&mut shown, "stack", |stack| {
            assert_eq!(text(stack, "stack_uid"), "");
            unknown.push("stack_uid");
            if text(stack, "stack_api_key").is_empty() {
                unknown.push("stack_api_key");
            }
        });
    }
    within(&mut shown, "token", |token| {
        assert_eq!(text(token, "etag"), "", "{rpc}: a preview has an etag");
    });
    within(&mut done, "token", |token| {
        assert_ne!(text(token, "etag"), "", "{rpc}");
        token.clear_field_by_name("etag");
    });
    for message in [&mut shown, &mut done] {
        for field in ["revision", "secret", "impact"] {
            message.clear_field_by_name(field);
        }
        if !W::EXACT {
            message.clear_field_by_name("overlap_ends_at");
        }
        for part in ["token", "stack", "member"] {
            within(message, part, |part| {
                for field in &unknown {
                    part.clear_field_by_name(field);
                }
                for field in TIMES.iter().filter(|_| !W::EXACT) {
                    forget_recent(part, field);
                }
                for secret in secrets(part).iter_mut().filter(|_| !W::EXACT) {
                    let secret = secret.as_message_mut().unwrap();
                    for field in ["created_at", "first_used_at", "ends_at"] {
                        forget_recent(secret, field);
                    }
                }
            });
        }
    }
    assert_eq!(plain(&shown), plain(&done), "{rpc}");
}

/// Returns the live secrets of a token. Returns nothing if the message is not a token.
fn secrets(part: &mut DynamicMessage) -> &mut [Value] {
    match part.get_field_by_name_mut("secrets") {
        Some(Value::List(secrets)) => secrets,
        _ => &mut [],
    }
}

/// Clears a field of the newest secret, and returns the former value.
fn clear_newest(token: &mut DynamicMessage, field: &str) -> String {
    let newest = secrets(token)[0].as_message_mut().unwrap();
    let was = text(newest, field);
    newest.clear_field_by_name(field);
    was
}

const A_DAY: i64 = 86_400;

/// Clears an instant that was read from a clock. Instants that a test has set are kept; they are
/// within a day of [`FAR`].
fn forget_recent(part: &mut DynamicMessage, field: &str) {
    let mut recent = false;
    within(part, field, |at| {
        let seconds = at.get_field_by_name("seconds").unwrap();
        recent = seconds.as_i64().unwrap() < FAR - A_DAY;
    });
    if recent {
        part.clear_field_by_name(field);
    }
}

/// Formats the fields that are set, without the descriptors of their messages.
fn plain(message: &DynamicMessage) -> String {
    let fields = message.fields().map(|(field, value)| match value {
        Value::Message(part) => format!("{}: {}", field.name(), plain(part)),
        Value::List(parts) => format!("{}: {:?}", field.name(), listed(parts)),
        value => format!("{}: {value:?}", field.name()),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

fn listed(parts: &[Value]) -> Vec<String> {
    let part = |value: &Value| match value {
        Value::Message(part) => plain(part),
        value => format!("{value:?}"),
    };
    parts.iter().map(part).collect()
}

const TIMES: [&str; 7] = [
    "issued_at",
    "expires_at",
    "revoked_at",
    "added_at",
    "registered_at",
    "suspended_at",
    "removed_at",
];
