//! Builds the headers of an RPC that is called for an HTTP request. Only the credential, the
//! request id and the trace context are forwarded.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::REQUEST_ID;
use crate::grpc::status::ReceivedError;

/// Headers of the trace context, which are forwarded with all their values.
static TRACED: [HeaderName; 2] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// Header in which clients of the CMS send the stack key.
pub(super) const API_KEY: &str = "api_key";
/// Header in which clients of the CMS send a person's JWT.
pub(super) static AUTHTOKEN: HeaderName = HeaderName::from_static("authtoken");

/// Returns the headers of an RPC for a request with these headers. Forwards all credentials; the
/// authenticator refuses a request with more than one.
///
/// # Errors
/// The request has the header `origin` but no credential in a header. A client certificate is not
/// enough, because a browser attaches it even to requests from a page of another origin.
pub(super) fn headers(sent: &HeaderMap, request_id: &str) -> Result<HeaderMap, ReceivedError> {
    let mut headers = traced(sent, request_id);
    for value in sent.get_all(header::AUTHORIZATION) {
        headers.append(header::AUTHORIZATION, value.clone());
    }
    for jwt in sent.get_all(&AUTHTOKEN) {
        let value = [b"Bearer ", jwt.as_bytes()].concat();
        let value = HeaderValue::from_bytes(&value).map_err(|_| ReceivedError::no_credential())?;
        headers.append(header::AUTHORIZATION, value);
    }
    if sent.contains_key(header::ORIGIN) && !headers.contains_key(header::AUTHORIZATION) {
        return Err(ReceivedError::no_credential());
    }
    Ok(headers)
}

/// Returns the headers of an RPC whose credential is not in the headers of the request, but in its
/// body. `origin` is not checked, because a page of another origin does not know the credential.
pub(super) fn headers_as(credential: HeaderValue, sent: &HeaderMap, request_id: &str) -> HeaderMap {
    let mut headers = traced(sent, request_id);
    headers.insert(header::AUTHORIZATION, credential);
    headers
}

fn traced(sent: &HeaderMap, request_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    for name in &TRACED {
        for value in sent.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers
}

/// Returns the value of a header that may be sent at most once.
///
/// # Errors
/// Returns what is wrong with the header.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("is sent twice: send it once");
    }
    let text = value.to_str().map_err(|_| "is not ASCII text")?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}
