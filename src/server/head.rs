//! The headers of a call, read in one pass.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::headers::{MAX_TRACE_STATE, OVERHEAD};

static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static REQUEST_ID: HeaderName = HeaderName::from_static(super::request_id::REQUEST_ID);
static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The headers of an ordinary unary call that the direct path needs.
#[derive(Default)]
pub(super) struct Head<'a> {
    /// The size of the headers as HTTP/2 counts it, in bytes.
    pub bytes: usize,
    pub authorization: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    /// Whether the client sent a request id.
    pub is_named: bool,
    /// Whether the client sent a trace context.
    pub is_traced: bool,
    trace_state_bytes: usize,
    /// Whether there is a header that only the ordinary path handles.
    is_unusual: bool,
}

impl<'a> Head<'a> {
    /// Reads the headers in one pass. Returns `None` if any header needs the ordinary path, for
    /// example a header that is forbidden or must not occur twice.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut head = Self::default();
        for (name, value) in headers {
            head.note(name, value);
        }
        let is_grpc = head
            .content_type
            .is_some_and(|content_type| content_type == "application/grpc");
        head.is_unusual |= head.trace_state_bytes > MAX_TRACE_STATE;
        (is_grpc && !head.is_unusual).then_some(head)
    }

    fn note(&mut self, name: &HeaderName, value: &'a HeaderValue) {
        self.bytes += name.as_str().len() + value.len() + OVERHEAD;
        if *name == header::AUTHORIZATION {
            self.is_unusual |= self.authorization.replace(value).is_some();
        } else if *name == header::CONTENT_TYPE {
            self.is_unusual |= self.content_type.replace(value).is_some();
        } else if *name == ENCODING {
            self.is_unusual = true;
        } else if *name == TRACE_STATE {
            self.trace_state_bytes += value.len();
        } else if *name == REQUEST_ID {
            self.is_named = true;
        } else if *name == TRACE_PARENT {
            self.is_traced = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::headers;

    /// Slightly more than half of [`MAX_TRACE_STATE`].
    const LARGE: &str = match str::from_utf8(&[b'a'; MAX_TRACE_STATE / 2 + 1]) {
        Ok(text) => text,
        Err(_) => "",
    };

    fn of(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_size_is_that_which_the_limit_counts() {
        let sent = of(&[
            ("content-type", "application/grpc"),
            ("authorization", "Bearer x"),
            ("x-other", "one"),
            ("x-other", "two"),
        ]);
        let bytes = Head::of(&sent).unwrap().bytes;
        let bytes = u32::try_from(bytes).unwrap();
        assert!(headers::fit(&sent, bytes) && !headers::fit(&sent, bytes - 1));
    }

    #[test]
    fn what_is_unusual_needs_the_ordinary_path() {
        let grpc = ("content-type", "application/grpc");
        let credential = ("authorization", "Bearer x");
        assert!(Head::of(&of(&[grpc, credential])).is_some());
        assert!(Head::of(&of(&[grpc])).unwrap().authorization.is_none());
        let state = ("tracestate", "a=b");
        assert!(Head::of(&of(&[grpc, credential, state])).is_some());
        let large = [("tracestate", LARGE); 2];
        assert!(Head::of(&of(&[grpc, large[0], large[1]])).is_none());
        for unusual in [
            &[credential][..],
            &[grpc, grpc],
            &[("content-type", "application/json")],
            &[grpc, credential, credential],
            &[grpc, ("grpc-encoding", "gzip")],
        ] {
            assert!(Head::of(&of(unusual)).is_none(), "{unusual:?}");
        }
    }
}
