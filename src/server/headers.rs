//! Size limits on the headers of a call. They are checked right after the check that the request is
//! a gRPC call ([`Layer::HeaderSize`](super::layers::Layer)).

use http::{HeaderMap, header::HeaderName};

/// Maximum size of a `tracestate` that is passed on, in bytes. W3C Trace Context §3.3.1.5 requires
/// support for at least 512 bytes. A larger `tracestate` is dropped, but the call is not refused,
/// because Envoy copies its client's `tracestate` into its checks, and nothing that a client sends
/// may make these checks fail.
pub(super) const MAX_TRACE_STATE: usize = 4096;
/// Overhead in bytes that HTTP/2 counts for each header, in addition to its name and value (RFC
/// 9113 §6.5.2).
pub(super) const OVERHEAD: usize = 32;

static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// Removes a `tracestate` that is too large to be passed on.
pub(super) fn prune(headers: &mut HeaderMap) {
    let values = headers.get_all(&TRACE_STATE).iter();
    let size: usize = values.map(http::HeaderValue::len).sum();
    if size > MAX_TRACE_STATE {
        headers.remove(&TRACE_STATE);
    }
}

/// Returns whether the headers have at most `max` bytes, as HTTP/2 counts them.
pub(super) fn fit(headers: &HeaderMap, max: u32) -> bool {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD);
    sizes.sum::<usize>() <= max as usize
}
