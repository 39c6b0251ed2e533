//! The headers of a call, before anything else is read of it: how large they may be.

use http::{HeaderMap, header::HeaderName};

/// How much of a `tracestate` is passed on, in bytes; a larger one is as if it were not there
/// (W3C Trace Context §3.3.1.5 asks for 512 at least). Envoy puts its client's into its own
/// checks, and nothing of a client's may make those fail.
const MAX_TRACE_STATE: usize = 4096;
/// How much of a header HTTP/2 counts beside its name and value, in bytes (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// Takes out what is too large to be passed on.
pub(super) fn prune(headers: &mut HeaderMap) {
    let values = headers.get_all(&TRACE_STATE).iter();
    let size: usize = values.map(http::HeaderValue::len).sum();
    if size > MAX_TRACE_STATE {
        headers.remove(&TRACE_STATE);
    }
}

/// Whether they take no more than so many bytes.
pub(super) fn fit(headers: &HeaderMap, max: u32) -> bool {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD);
    sizes.sum::<usize>() <= max as usize
}
