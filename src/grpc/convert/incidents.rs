//! Converts the `TokenService` messages for incidents: `RevokeAll` and `ReportLeaked`.

use zeroize::Zeroizing;

use super::parse_instant;
use crate::{
    app::{LeakReport, RevokeAll, RevokedAll},
    domain::{
        caller::{Call, CallerKind},
        field::{Problem, Violations},
        incident::{FoundAt, IssuedBy, PreviewHash, RevokeFilter},
        stack::StackKey,
        text::{Issuer, Reason, Subject},
        timestamp::Timestamp,
    },
    grpc::pb::v1,
};

/// Maximum number of tokens listed in a response.
const NAMED: usize = 100;

pub fn revoke_all(message: v1::RevokeAllRequest, call: &Call) -> Result<RevokeAll, Violations> {
    let mut faults = Violations::default();
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let filter = faults.nest("filter", filter(message.filter, call.received_at));
    let reason = faults.keep("reason", reason(&message.reason));
    let previewed = previewed(&message.preview_hash, call.previews());
    let previewed = faults.keep("preview_hash", previewed);
    let command = stack_key.zip(filter).zip(reason).zip(previewed);
    faults.finish(
        command.map(|(((stack_key, filter), reason), previewed)| RevokeAll {
            stack_key,
            filter,
            reason,
            previewed,
        }),
    )
}

fn reason(text: &str) -> Result<Reason, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::new(
            "is required: say in 1 to 500 characters why these tokens die",
        ));
    }
    Reason::parse(text)
}

fn previewed(text: &str, previews: bool) -> Result<Option<PreviewHash>, Problem> {
    match (text.is_empty(), previews) {
        (true, true) => Ok(None),
        (true, false) => Err(Problem::new(
            "is required: call with validate_only first, look at what it answers, and send its preview_hash",
        )),
        (false, _) => PreviewHash::parse(text).map(Some),
    }
}

fn filter(message: Option<v1::RevokeFilter>, now: Timestamp) -> Result<RevokeFilter, Violations> {
    let mut faults = Violations::default();
    let message = message.unwrap_or_default();
    let others = message.issued_by.is_some() || message.unused_since.is_some();
    let wrong = match (message.all, others) {
        (false, false) => Some(
            "is required, there is no default: choose all, or one or both of issued_by and unused_since",
        ),
        (true, true) => Some("has all and something else: choose one"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        faults.add("", Problem::new(wrong));
    }
    let by = message.issued_by.map(issued_by).transpose();
    let issued_by = faults.nest("issued_by", by);
    let since = message.unused_since.map(|at| past(at, now)).transpose();
    let unused_since = faults.keep("unused_since", since);
    let filter = issued_by.zip(unused_since);
    faults.finish(filter.map(|(issued_by, unused_since)| {
        if message.all {
            RevokeFilter::All
        } else {
            RevokeFilter::Those {
                issued_by,
                unused_since,
            }
        }
    }))
}

fn past(at: prost_types::Timestamp, now: Timestamp) -> Result<Timestamp, Problem> {
    match parse_instant(at)? {
        at if at > now => Err(Problem::new(
            "is in the future, and would hold of every token: choose all, or an instant that has passed",
        )),
        at => Ok(at),
    }
}

fn issued_by(message: v1::Actor) -> Result<IssuedBy, Violations> {
    let mut faults = Violations::default();
    let kind = match v1::CallerKind::try_from(message.kind) {
        Ok(v1::CallerKind::Unspecified) => Ok(None),
        Ok(v1::CallerKind::User) => Ok(Some(CallerKind::User)),
        Ok(v1::CallerKind::Service) => Ok(Some(CallerKind::Service)),
        Ok(v1::CallerKind::Operator) => Ok(Some(CallerKind::Operator)),
        Err(_) => Err(Problem::new(
            "is not a kind of caller: see CallerKind, or leave it out",
        )),
    };
    let kind = faults.keep("kind", kind);
    let issuer = faults.keep("issuer", Issuer::parse(&message.issuer));
    let subject = faults.keep("subject", Subject::parse(&message.subject));
    let by = kind.zip(issuer).zip(subject);
    faults.finish(by.map(|((kind, issuer), subject)| IssuedBy {
        kind,
        issuer,
        subject,
    }))
}

pub fn revoked_all(revoked: &RevokedAll) -> v1::RevokeAllResponse {
    let named = revoked.tokens.iter().take(NAMED);
    v1::RevokeAllResponse {
        count: u32::try_from(revoked.tokens.len()).unwrap_or(u32::MAX),
        token_uids: named.map(ToString::to_string).collect(),
        preview_hash: revoked.preview.to_string(),
        revision: revoked
            .revision
            .map(|revision| revision.to_string())
            .unwrap_or_default(),
    }
}

/// Parses a leak report. Any text is accepted as the secret; only the URL at which it was found can
/// be invalid.
pub fn report_leaked(message: v1::ReportLeakedRequest, _: &Call) -> Result<LeakReport, Violations> {
    let mut faults = Violations::default();
    let secret = Zeroizing::new(message.secret);
    let found_at = faults.keep("url", FoundAt::parse(&message.url));
    faults.finish(found_at.map(|found_at| LeakReport { secret, found_at }))
}
