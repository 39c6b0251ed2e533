//! What Envoy is told: let it through with these headers, or answer the client with that.

use envoy_types::{
    ext_authz::v3::pb::{
        CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
        HttpResponse, HttpStatus, OkHttpResponse,
    },
    pb::google::rpc,
};
use serde_json::json;
use tonic::Code;

use super::refusal::{Kind, Refused};
use crate::domain::verdict::Facts;

/// The headers by which whoever is behind Envoy knows the caller.
const STACK: &str = "x-stacktoken-stack";
const TOKEN: &str = "x-stacktoken-token";
const ACCESS: &str = "x-stacktoken-access";
/// The headers that could make whoever is behind Envoy take the request for somebody else's.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// The request goes on, without the credential and with who it is from.
pub(super) fn allowed(facts: &Facts) -> CheckResponse {
    let uid = facts.token.uid.to_string();
    let ok = OkHttpResponse {
        headers: vec![
            header(STACK, &facts.stack.key),
            header(TOKEN, &uid),
            header(ACCESS, facts.permissions.access().name()),
        ],
        headers_to_remove: removed(),
        ..OkHttpResponse::default()
    };
    response(Code::Ok, HttpResponse::OkResponse(ok))
}

/// The client is answered, and the request goes nowhere.
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

/// A header that takes the place of any that is there.
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

/// What a credential can be in, and every spelling of the headers above that some servers take for them.
/// Not their own spelling: Envoy removes after it has set.
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
