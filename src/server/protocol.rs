//! Checks that a request on the gRPC port is a gRPC call, by its method, its content type and the
//! encoding of its messages. A request that is not a gRPC call gets an HTTP status and no gRPC
//! status, because its sender would not read one.
//!
//! The path needs no check here, because the rule for an RPC matches the path exactly. Before that,
//! the `http` crate cuts off a fragment (`#...`), so `/service/method#x` is the RPC
//! `/service/method`. No client sends a fragment, and a proxy that compares paths must cut it off
//! too.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;

use crate::{domain::text, grpc::status::Failure, metrics::CallLabels};

/// The content types of gRPC calls, without and with the only message format that is served.
const TYPES: [&str; 2] = ["application/grpc", "application/grpc+proto"];
/// The encoding of messages that are not compressed.
const IDENTITY: &str = "identity";
/// Maximum length in bytes of an encoding's name that an error repeats.
const MAX_NAME: usize = 32;

/// Why a request is not a gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotGrpc {
    /// The method is not POST.
    Method,
    /// The content type is not one of gRPC.
    ContentType,
}

/// Checks that a request is a gRPC call.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), NotGrpc> {
    if request.method() != Method::POST {
        return Err(NotGrpc::Method);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    if content_type.is_some_and(is_grpc) {
        Ok(())
    } else {
        Err(NotGrpc::ContentType)
    }
}

/// Returns whether a content type is one of gRPC, regardless of its parameters.
fn is_grpc(content_type: &str) -> bool {
    let name = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_end();
    TYPES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

impl NotGrpc {
    /// Builds the response to the request.
    pub(super) fn response(self) -> Response<Body> {
        let (status, name, value, text) = match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                header::ALLOW,
                "POST",
                "this port serves gRPC, which uses POST only\n",
            ),
            Self::ContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                header::ACCEPT,
                TYPES[0],
                "this port serves gRPC: send the content type application/grpc\n",
            ),
        };
        let mut response = Response::new(Body::new(text.to_owned()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        response
    }

    /// Returns the labels under which the request is counted. Their status is the one that a gRPC
    /// client would derive from this HTTP status.
    pub(super) const fn labels(self) -> CallLabels {
        CallLabels {
            rpc_method: "_OTHER",
            rpc_response_status_code: "UNKNOWN",
            error_type: Some(match self {
                Self::Method => "HTTP_405",
                Self::ContentType => "HTTP_415",
            }),
        }
    }
}

/// Checks that the messages of a call are not compressed.
pub(super) fn require_readable(headers: &HeaderMap) -> Result<(), Failure> {
    let mut encodings = headers.get_all("grpc-encoding").iter();
    let Some(other) = encodings.find(|encoding| encoding.as_bytes() != IDENTITY.as_bytes()) else {
        return Ok(());
    };
    let name = other.to_str().ok().filter(|name| is_name(name));
    let name = name.map(str::to_owned);
    Err(Failure::EncodingUnsupported { name })
}

/// Returns whether a string can be the name of an encoding. The error does not repeat any other
/// string.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits) && !text::holds_credential(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_content_type_of_grpc_is_one() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC",
            "application/grpc;charset=utf-8",
            "application/grpc ; charset=utf-8",
        ] {
            assert!(is_grpc(grpc), "{grpc}");
        }
        for other in [
            "",
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/grpcx",
            " application/grpc",
            "text/plain;application/grpc",
        ] {
            assert!(!is_grpc(other), "{other}");
        }
    }
}
