//! Requests on the HTTP port with secrets where they belong and everywhere else.

use http::Method;
use serde_json::json;

use crate::{
    program::Dev,
    support::http::{HttpAnswer, HttpCall},
};

/// Makes the requests. Returns the secret of a token that one of them created.
pub async fn drive(dev: &Dev, stack: &str, secret: &str) -> String {
    let call = |method, path: &str, jwt: &str| {
        let call = HttpCall::new(dev.get("http_address"), method, path);
        call.header("authorization", &format!("Bearer {}", dev.get(jwt)))
    };
    let inspect = |form: &[(&str, &str)]| {
        let call = call(Method::POST, "/oauth2/introspect", "service_jwt");
        call.header("api_key", stack).form(form)
    };
    let asked = inspect(&[("token", secret)]).send().await;
    assert_eq!(asked.json()["active"], true);
    let mut refused: Vec<HttpAnswer> = Vec::new();
    for form in [
        [("token", secret), ("action", secret)],
        [("token", "x"), ("stack_api_key", secret)],
        [(secret, secret), (secret, secret)],
        [("token", secret), ("client_secret", secret)],
        [("token", secret), ("token", secret)],
    ] {
        refused.push(inspect(&form).send().await);
    }
    let basic = HttpCall::new(dev.get("http_address"), Method::POST, "/oauth2/revoke");
    let basic = basic.header("authorization", &format!("Basic {secret}"));
    refused.push(basic.form(&[("token", secret)]).send().await);
    let tokens = "/v3/stacks/management_tokens";
    let cms = |method, path: &str| call(method, path, "owner_jwt").header("api_key", stack);
    let scope = json!([{ "module": "$all", "acl": { "read": true } }]);
    let token = json!({ "name": "over http", "scope": scope, "expires_on": null });
    let created = cms(Method::POST, tokens).json(&json!({ "token": token }));
    let created = created.send().await.json()["token"].take();
    let made = created["token"].as_str().unwrap().to_owned();
    let one = format!("{tokens}/{}", created["uid"].as_str().unwrap());
    let whole = cms(Method::PUT, &one).json(&json!({ "token": created }));
    assert_eq!(whole.send().await.status, 200);
    for field in [
        "name",
        "description",
        "scope",
        "expires_on",
        "uid",
        "token",
        "color",
        secret,
    ] {
        let mut token = created.clone();
        token[field] = secret.into();
        let update = cms(Method::PUT, &one).json(&json!({ "token": token }));
        refused.push(update.send().await);
    }
    for path in [
        format!("{tokens}/{secret}"),
        format!("{tokens}?query={secret}"),
        format!("{tokens}?{secret}={secret}"),
        format!("/{secret}"),
    ] {
        refused.push(cms(Method::GET, &path).send().await);
    }
    let traced = cms(Method::GET, tokens).header("x-request-id", secret);
    let traced = traced
        .header("tracestate", &format!("v={secret}"))
        .send()
        .await;
    assert_eq!(traced.status, 200);
    refused.push(
        cms(Method::GET, tokens)
            .header("authtoken", secret)
            .send()
            .await,
    );
    for answer in refused {
        assert!((400..500).contains(&answer.status), "{answer:?}");
        let text = format!("{answer:?}");
        assert!(!text.contains(&secret[5..]), "an error repeats the secret");
    }
    made
}
