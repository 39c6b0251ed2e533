//! Converts `IntrospectionService.Watch` messages to domain values and back.

use super::introspection::duration;
use crate::{
    app::{EventRevisions, Subject, WatchEvent},
    domain::{
        field::{Problem, Violations},
        revision::Revision,
    },
    grpc::pb::v1::{
        WatchChanged, WatchPong, WatchRequest, WatchResponse, watch_changed, watch_response::Event,
    },
};

/// Parses the first request of a stream, which may contain a start revision and a ping.
pub fn first(message: &WatchRequest) -> Result<(Option<Revision>, Option<u64>), Violations> {
    let mut faults = Violations::default();
    let text = &message.from_revision;
    let from = (!text.is_empty()).then(|| Revision::parse(text));
    let from = faults.keep("from_revision", from.transpose()).flatten();
    let ping = message.ping.map(|ping| ping.nonce);
    faults.finish(Some((from, ping)))
}

/// Parses any later request of a stream, which must be a ping.
pub fn later(message: &WatchRequest) -> Result<u64, Violations> {
    let mut faults = Violations::default();
    if !message.from_revision.is_empty() {
        let problem = "belongs in the first request only: to begin elsewhere, open another stream";
        faults.add("from_revision", Problem::new(problem));
    }
    let ping = message.ping.ok_or_else(|| {
        Problem::new(
            "is required in every request but the first: the server answers it with a pong",
        )
    });
    let ping = faults.keep("ping", ping);
    faults.finish(ping.map(|ping| ping.nonce))
}

/// Builds the response that reports an event.
pub fn watch_response(watch_response: WatchEvent) -> WatchResponse {
    let event = match watch_response {
        WatchEvent::Changed(subject, points) => Event::Changed(changed(subject, points)),
        WatchEvent::Pong(nonce, staleness, points) => Event::Pong(WatchPong {
            nonce,
            staleness: Some(duration(staleness)),
            revision: points.resume.to_string(),
            min_revision: points.highest.to_string(),
        }),
    };
    WatchResponse { event: Some(event) }
}

fn changed(subject: Subject, points: EventRevisions) -> WatchChanged {
    let subject = match subject {
        Subject::Token(uid) => watch_changed::Subject::TokenUid(uid.to_string()),
        Subject::Stack(uid) => watch_changed::Subject::StackUid(uid.to_string()),
    };
    WatchChanged {
        subject: Some(subject),
        revision: points.resume.to_string(),
        min_revision: points.highest.to_string(),
    }
}
