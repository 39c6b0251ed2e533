//! Changes that are first only shown and then made, over any server. Of each it is held that
//! the preview left every row as it was, and that it told what the change came to.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use stacktoken::grpc::pb::v1;
use tonic::{Status, transport::Channel};

use super::{
    at,
    clients::details,
    clock::FAR,
    raw::{self, Part, Sent, methods, path_of},
    reason,
};

/// A server, and a view of its tables.
pub trait World {
    /// Whether time stands still between two calls.
    const EXACT: bool;

    async fn channel(&self) -> Channel;

    fn jwt(&self, part: Part) -> String;

    /// Every row, but for the heartbeat and refusals: those are written after the fact.
    async fn dump(&self) -> String;

    /// The seconds of its clock.
    fn seconds(&self) -> i64;

    /// Lets time pass, if that is in its hands.
    fn pass(&self, seconds: u64);

    /// In a minute.
    fn soon(&self) -> v1::Expiry {
        at(self.seconds() + 60)
    }
}

/// Makes changes, each with a preview before it.
pub struct Rehearsal<'a, W> {
    pub world: &'a W,
    channel: Channel,
    methods: Vec<MethodDescriptor>,
}

impl<'a, W: World> Rehearsal<'a, W> {
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

    async fn ask(&self, part: Part, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let sent = Sent::bearer(&self.world.jwt(part));
        raw::call(&self.channel, path, sent, message).await
    }

    /// Only the preview; the tables stay as they are.
    pub async fn preview<A: Message + Default>(
        &self,
        (part, rpc): (Part, &str),
        request: &impl Message,
    ) -> Result<A, Status> {
        let (shown, _) = self.show((part, rpc), &request.encode_to_vec()).await;
        shown.map(|bytes| A::decode(bytes.as_slice()).unwrap())
    }

    /// What a preview tells, and the tables as they were and still are.
    async fn show(
        &self,
        (part, rpc): (Part, &str),
        request: &[u8],
    ) -> (Result<Vec<u8>, Status>, String) {
        let method = self.method(rpc);
        let mut asked = DynamicMessage::decode(method.input(), request).unwrap();
        asked.set_field_by_name("validate_only", Value::Bool(true));
        let before = self.world.dump().await;
        let path = path_of(method);
        let shown = self.ask(part, &path, asked.encode_to_vec()).await;
        let after = self.world.dump().await;
        assert_eq!(after, before, "{rpc}: a preview changed something");
        (shown, before)
    }

    /// Previews, makes the change, and answers what it came to.
    pub async fn make<A: Message + Default>(
        &self,
        (part, rpc): (Part, &str),
        request: &impl Message,
    ) -> Result<A, String> {
        let request = request.encode_to_vec();
        let (shown, before) = self.show((part, rpc), &request).await;
        let method = self.method(rpc);
        let done = self.ask(part, &path_of(method), request.clone()).await;
        match (shown, done) {
            (Ok(shown), Ok(done)) => {
                let after = self.world.dump().await;
                assert_ne!(after, before, "{rpc}: the change left no row");
                let read = |bytes: &[u8]| DynamicMessage::decode(method.output(), bytes).unwrap();
                require_alike::<W>(rpc, read(&shown), read(&done));
                Ok(A::decode(done.as_slice()).unwrap())
            }
            (Err(shown), Err(done)) => {
                assert_eq!(told(&shown), told(&done), "{rpc}");
                Err(reason(&done))
            }
            (shown, done) => panic!("{rpc}: {part:?} was shown {shown:?}, and then {done:?}"),
        }
    }

    /// That it is refused for this, in the preview as in earnest.
    pub async fn refuse(&self, at: (Part, &str), request: &impl Message, expected: &str) {
        let done = self.make::<()>(at, request).await;
        assert_eq!(done, Err(expected.to_owned()), "{at:?}");
    }
}

/// What a caller can tell from a refusal, less the id of the request.
fn told(status: &Status) -> String {
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

/// Changes a part of a message, if it is there.
fn within(message: &mut DynamicMessage, field: &str, change: impl FnOnce(&mut DynamicMessage)) {
    if message.has_field_by_name(field) {
        let part = message.get_field_by_name_mut(field).unwrap();
        change(part.as_message_mut().unwrap());
    }
}

fn require_alike<W: World>(rpc: &str, mut shown: DynamicMessage, mut done: DynamicMessage) {
    for never in ["revision", "secret"] {
        assert_eq!(text(&shown, never), "", "{rpc}: {never} of a preview");
    }
    assert_ne!(text(&done, "revision"), "", "{rpc}");
    assert!(!done.has_field_by_name("impact"), "{rpc}: not a preview");
    let told = ["/Update", "/SetExpiry", "/Revoke"].map(|end| rpc.ends_with(end));
    let told = told.contains(&true) && rpc.starts_with("TokenService");
    assert_eq!(shown.has_field_by_name("impact"), told, "{rpc}");
    let made = !text(&done, "secret").is_empty();
    let mut unknown = Vec::new();
    within(&mut shown, "token", |token| {
        for field in ["token_uid", "secret_hint"] {
            if made && text(token, field).is_empty() {
                unknown.push(field);
            }
        }
    });
    let again = |message: &DynamicMessage| {
        let token = message.get_field_by_name("token").unwrap();
        let generation = token.as_message().unwrap().get_field_by_name("generation");
        generation.unwrap().as_u32() != Some(1)
    };
    if made {
        let expected: &[_] = if rpc.ends_with("Issue") && !again(&shown) {
            &["token_uid", "secret_hint"]
        } else {
            &["secret_hint"]
        };
        assert_eq!(unknown, expected, "{rpc}: made up in a preview");
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
            });
        }
    }
    assert_eq!(plain(&shown), plain(&done), "{rpc}");
}

const A_DAY: i64 = 86_400;

/// Clears an instant that a clock gave; those that a test chose are within a day of [`FAR`].
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

/// The fields that are set, without what describes them.
fn plain(message: &DynamicMessage) -> String {
    let fields = message.fields().map(|(field, value)| match value {
        Value::Message(part) => format!("{}: {}", field.name(), plain(part)),
        value => format!("{}: {value:?}", field.name()),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
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
