//! Makes requests to the HTTP port with secrets where they belong and everywhere else.

use http::Method;
use serde_json::json;

use crate::{
    program::Dev,
    support::http::{HttpAnswer, HttpCall},
};

/// Makes the requests. Returns the secret of the token that one of them has created.
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

/// Exchanges a workload's JWT, successfully and not, and sends the JWT where it does not belong.
/// Returns the secret of the session.
pub async fn exchange(dev: &Dev, stack: &str, uid: &str) -> String {
    let jwt = dev.get("workload_jwt");
    let send = async |changes: &[(&str, &str)]| {
        let mut form = vec![
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", jwt),
            ("audience", stack),
            ("token_uid", uid),
        ];
        form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        form.extend(changes);
        let call = HttpCall::new(dev.get("http_address"), Method::POST, "/oauth2/token");
        call.form(&form).send().await
    };
    for changes in [
        [("audience", jwt)],
        [("token_uid", jwt)],
        [("scope", jwt)],
        [("grant_type", jwt)],
        [("subject_token_type", jwt)],
        [("requested_token_type", jwt)],
        [("actor_token", jwt)],
        [("client_secret", jwt)],
        [("subject_token", &jwt[..jwt.len() - 1])],
        [("subject_token", format!("{jwt}\u{0}").as_str())],
    ] {
        let refused = send(&changes).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        let text = format!("{refused:?}");
        assert!(!text.contains(&jwt[..20]), "an error repeats the JWT");
    }
    let both = HttpCall::new(dev.get("http_address"), Method::POST, "/oauth2/token");
    let both = both.header("authorization", &format!("Bearer {jwt}"));
    assert_eq!(both.form(&[]).send().await.status, 400);
    let answer = send(&[]).await.json();
    answer["access_token"].as_str().unwrap().to_owned()
}
