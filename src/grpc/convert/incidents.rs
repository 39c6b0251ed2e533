//! Converts the messages for incident response: `TokenService.RevokeAll` and
//! `LeakService.ReportLeaked`.

use prost::Message as _;
use zeroize::Zeroizing;

use super::{instant, page_token, parse_instant, revision};
use crate::{
    app::{LeakReport, RevokeAll, RevokedAll, TOKENS_LISTED},
    domain::{
        caller::{Call, CallerKind},
        field::{Problem, Violations},
        incident::{FoundAt, IssuedBy, PreviewHash, RevokeFilter},
        page,
        request::Request,
        stack::StackKey,
        text::{Issuer, Reason, Subject},
        timestamp::Timestamp,
        token::Token,
    },
    grpc::pb::v1,
};

pub fn revoke_all(message: v1::RevokeAllRequest, call: &Call) -> Result<RevokeAll, Violations> {
    let mut faults = Violations::default();
    let request = request(&message);
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let filter = faults.nest("filter", filter(message.filter, call.received_at));
    let reason = faults.keep("reason", reason(&message.reason));
    let previewed = previewed(&message.preview_hash, call.previews());
    let previewed = faults.keep("preview_hash", previewed);
    let request = faults.keep("request_id", request);
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let command = stack_key
        .zip(filter)
        .zip(reason)
        .zip(previewed)
        .zip(request)
        .zip(size);
    let mut command = command.map(
        |(((((stack_key, filter), reason), previewed), request), size)| RevokeAll {
            stack_key,
            filter,
            reason,
            previewed,
            request,
            size,
            after: None,
        },
    );
    if call.previews() {
        match command.as_mut() {
            Some(command) => {
                command.after = page_token(&mut faults, question(command), &message.page_token);
            }
            None => drop(faults.keep("page_token", page::check_form(&message.page_token))),
        }
    }
    faults.finish(command)
}

/// Parses the idempotency key. The fingerprint does not include fields that do not affect the
/// change, such as the page.
fn request(message: &v1::RevokeAllRequest) -> Result<Option<Request>, Problem> {
    let content = v1::RevokeAllRequest {
        request_id: String::new(),
        validate_only: false,
        page_size: 0,
        page_token: String::new(),
        ..message.clone()
    };
    Request::parse(&message.request_id, &content.encode_to_vec())
}

/// Returns the values to which a page token is bound.
fn question(command: &RevokeAll) -> impl serde::Serialize {
    let key = command.stack_key.to_string();
    ("revoke_all", key, command.filter.audit_details())
}

fn reason(text: &str) -> Result<Reason, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::new(
            "is required: give a reason of 1 to 500 characters for the revocation",
        ));
    }
    Reason::parse(text)
}

fn previewed(text: &str, previews: bool) -> Result<Option<PreviewHash>, Problem> {
    match (text.is_empty(), previews) {
        (true, true) => Ok(None),
        (true, false) => Err(Problem::new(
            "is required: call with validate_only first, check the response, and send its preview_hash",
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
        (true, true) => Some("combines all with another criterion: choose one"),
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
            "is in the future, so it would match every token: choose all, or an instant that has passed",
        )),
        at => Ok(at),
    }
}

pub fn issued_by(message: v1::Actor) -> Result<IssuedBy, Violations> {
    let mut faults = Violations::default();
    let kind = match v1::CallerKind::try_from(message.kind) {
        Ok(v1::CallerKind::Unspecified) => Ok(None),
        Ok(v1::CallerKind::User) => Ok(Some(CallerKind::User)),
        Ok(v1::CallerKind::Service) => Ok(Some(CallerKind::Service)),
        Ok(v1::CallerKind::Operator) => Ok(Some(CallerKind::Operator)),
        Ok(v1::CallerKind::Workload) => Ok(Some(CallerKind::Workload)),
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

pub fn revoked_all(command: &RevokeAll, revoked: &RevokedAll) -> v1::RevokeAllResponse {
    let listed = revoked.tokens.iter().take(TOKENS_LISTED);
    let next = revoked.page.next.as_ref();
    let next = next.map(|cursor| page::seal(&question(command), cursor));
    v1::RevokeAllResponse {
        count: u32::try_from(revoked.count).unwrap_or(u32::MAX),
        token_uids: listed.map(ToString::to_string).collect(),
        preview_hash: revoked.preview.to_string(),
        revision: revision(revoked.revision),
        tokens: revoked.page.tokens.iter().map(previewed_token).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

fn previewed_token(token: &Token) -> v1::PreviewedToken {
    v1::PreviewedToken {
        token_uid: token.uid.to_string(),
        name: token.name.as_str().to_owned(),
        last_used_at: token.last_used_at.map(instant),
    }
}

/// Parses a leak report. Any text is accepted as the secret. Only the URL at which it was found can
/// be invalid.
pub fn report_leaked(message: v1::ReportLeakedRequest, _: &Call) -> Result<LeakReport, Violations> {
    let mut faults = Violations::default();
    let secret = Zeroizing::new(message.secret);
    let found_at = faults.keep("url", FoundAt::parse(&message.url));
    faults.finish(found_at.map(|found_at| LeakReport { secret, found_at }))
}
