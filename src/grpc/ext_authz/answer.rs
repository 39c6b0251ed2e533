//! Builds the responses to Envoy. A response either allows the request and adds headers, or denies
//! the request and contains the response for the client.

use std::sync::LazyLock;

use envoy_types::{
    ext_authz::v3::pb::{
        CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
        HttpResponse, HttpStatus, OkHttpResponse,
    },
    pb::google::rpc,
};
use prost::{Message as _, encoding::encode_varint};
use serde_json::json;
use tonic::Code;

use super::refusal::{Kind, Refused};
use crate::domain::verdict::Facts;

/// Headers that identify the caller to the upstream service.
const STACK: &str = "x-stacktoken-stack";
const TOKEN: &str = "x-stacktoken-token";
const ACCESS: &str = "x-stacktoken-access";
/// Headers that could make the upstream service attribute the request to someone else.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// The encoded fields that are the same in every response that allows a request. They are encoded
/// only once and appended to the other fields, because encoded fields of a message can be
/// concatenated.
static SAME: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let same = OkHttpResponse {
        headers_to_remove: removed(),
        ..OkHttpResponse::default()
    };
    same.encode_to_vec()
});
/// The encoded field `CheckResponse.status` with the code OK, and the field key of
/// `CheckResponse.ok_response`.
const STATUS_OK: [u8; 3] = [1 << 3 | 2, 0, 3 << 3 | 2];

/// Builds the response that allows the request. Envoy then adds headers that identify the caller,
/// and removes the credential.
pub(super) fn allowed(facts: &Facts) -> CheckResponse {
    let ok = OkHttpResponse {
        headers_to_remove: removed(),
        ..identified(facts)
    };
    response(Code::Ok, HttpResponse::OkResponse(ok))
}

/// Returns the same response as [`allowed`], but encoded.
pub(super) fn allowed_encoded(facts: &Facts) -> Vec<u8> {
    let (identified, same) = (identified(facts), &*SAME);
    let length = identified.encoded_len() + same.len();
    // A varint takes at most ten bytes.
    let mut encoded = Vec::with_capacity(STATUS_OK.len() + 10 + length);
    encoded.extend(STATUS_OK);
    encode_varint(length as u64, &mut encoded);
    identified.encode_raw(&mut encoded);
    encoded.extend(same);
    encoded
}

/// Returns the headers that identify the caller.
fn identified(facts: &Facts) -> OkHttpResponse {
    let uid = facts.token.uid.to_string();
    OkHttpResponse {
        headers: vec![
            header(STACK, &facts.stack.key),
            header(TOKEN, &uid),
            header(ACCESS, facts.permissions.access().name()),
        ],
        ..OkHttpResponse::default()
    }
}

/// Builds the response that denies the request. It contains the response that Envoy sends to the
/// client.
pub(super) fn denied(refused: &Refused) -> CheckResponse {
    let kind = refused.kind;
    let body = json!({
        "error_message": kind.headline(),
        "error_code": kind.error_code(),
        "errors": { refused.field: [refused.problem] },
    });
    let mut headers = vec![
        header("content-type", "application/json"),
        header("x-stacktoken-reason", refused.reason),
    ];
    if kind == Kind::Credential {
        headers.push(header("www-authenticate", "Bearer"));
    }
    let status = HttpStatus {
        code: kind.http().into(),
    };
    let denied = DeniedHttpResponse {
        status: Some(status),
        headers,
        body: body.to_string(),
    };
    response(kind.code(), HttpResponse::DeniedResponse(denied))
}

fn response(code: Code, http: HttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(rpc::Status {
            code: code.into(),
            ..rpc::Status::default()
        }),
        http_response: Some(http),
        ..CheckResponse::default()
    }
}

/// Builds a header that replaces any existing header with the same name.
fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// Returns the headers that Envoy must remove: credentials, and other spellings of our own headers
/// that some servers treat as equal. The canonical spelling must not be in this list, because Envoy
/// removes headers after it adds them.
fn removed() -> Vec<String> {
    let spelled = [STACK, TOKEN, ACCESS].into_iter().flat_map(|name| {
        let parts: Vec<_> = name.split('-').collect();
        ["__", "_-", "-_"].map(|joints| {
            let mut spelled = parts[0].to_owned();
            for (joint, part) in joints.chars().zip(&parts[1..]) {
                spelled.push(joint);
                spelled.push_str(part);
            }
            spelled
        })
    });
    CREDENTIALS
        .map(str::to_owned)
        .into_iter()
        .chain(spelled)
        .collect()
}
