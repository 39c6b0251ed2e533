//! Tests the routes of the CMS.

use http::Method;
use serde_json::{Value, json};

use crate::support::{TestServer, http::HttpAnswer};

/// Returns the body of a request for a token, as the SDKs document it.
pub fn documented() -> Value {
    json!({ "token": {
        "name": "Test Token",
        "description": "This is a sample management token.",
        "scope": [
            { "module": "content_type", "acl": { "read": true, "write": true } },
            { "module": "branch", "branches": ["main", "development"], "acl": { "read": true } },
            { "module": "branch_alias", "branch_aliases": ["deploy"], "acl": { "read": true } },
        ],
        "expires_on": "2120-12-10",
        "is_email_notification_enabled": false,
    } })
}

pub async fn create(server: &TestServer, body: &Value) -> HttpAnswer {
    server.cms(Method::POST, "").json(body).send().await
}

/// Returns the status of an error, and the names of the fields that it reports.
fn faulty(answer: &HttpAnswer) -> (u16, Vec<String>) {
    let error = answer.json();
    assert!(
        error["error_message"].is_string() && error["error_code"].is_number(),
        "{error}"
    );
    let fields = error["errors"].as_object().unwrap();
    (answer.status, fields.keys().cloned().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_created_shown_updated_and_deleted() {
    let server = TestServer::start().await;
    let created = create(&server, &documented()).await;
    assert_eq!(created.status, 201, "{created:?}");
    let mut token = created.json()["token"].take();
    let secret = token["token"].as_str().unwrap().to_owned();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    let asked = [
        ("token", secret.as_str()),
        ("action", "content_type.update;branch=main"),
    ];
    let answer = server.ask(&asked).send().await.json();
    assert_eq!(answer["stacktoken"]["decision"], "ALLOW");

    // The CMS shows the secret at any time, but this service shows it only once.
    let fetched = server.cms(Method::GET, &below).send().await.json()["token"].take();
    token.as_object_mut().unwrap().remove("token");
    assert_eq!(fetched, token);
    assert_eq!(token["expires_on"], "2120-12-10T00:00:00.000Z");
    assert_eq!(token["created_by"], "owner");
    let listed = server
        .cms(Method::GET, "?include_count=true")
        .send()
        .await
        .json();
    assert_eq!(listed, json!({ "tokens": [token], "count": 1 }));

    // The client sends the whole object back, including the secret, with some fields changed.
    let mut whole = token.clone();
    whole["token"] = secret.clone().into();
    whole["name"] = "Renamed".into();
    whole["scope"] = json!([{ "module": "$all", "acl": { "read": true } }]);
    whole["expires_on"] = json!(null);
    let updated = server
        .cms(Method::PUT, &below)
        .json(&json!({ "token": whole }))
        .send()
        .await;
    assert_eq!(updated.status, 200, "{updated:?}");
    let updated = updated.json()["token"].take();
    let wanted = json!([{ "module": "$all", "acl": { "read": true, "write": false } }]);
    assert_eq!(
        (&updated["name"], &updated["scope"]),
        (&json!("Renamed"), &wanted)
    );
    assert_eq!(updated["expires_on"], json!(null));
    let answer = server.ask(&asked).send().await.json();
    assert_eq!(answer["stacktoken"]["reason"], "READ_ONLY");

    let deleted = server.cms(Method::DELETE, &below).send().await;
    assert_eq!(deleted.status, 200);
    assert!(deleted.json()["notice"].is_string());
    assert_eq!(server.verdict(&secret).await, "REVOKED");
    assert_eq!(server.cms(Method::GET, &below).send().await.status, 404);
    let listed = server.cms(Method::GET, "").send().await.json();
    assert_eq!(listed, json!({ "tokens": [] }));
    let text = format!("{:?}", server.audit().await);
    assert!(
        !text.contains(&secret) && !text.contains(&secret[5..]),
        "the audit holds a secret"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_sent_back_unchanged_changes_nothing() {
    let server = TestServer::start().await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    let before = server.audit().await.len();
    for _ in 0..2 {
        let answer = server
            .cms(Method::PUT, &below)
            .json(&json!({ "token": token }))
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(server.audit().await.len(), before);
    for (name, value) in [
        ("uid", json!("another")),
        ("api_key", json!("blt0000000000000000")),
        ("created_at", json!("2020-01-01T00:00:00.000Z")),
        ("created_by", json!("someone")),
        (
            "token",
            json!("stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy"),
        ),
        ("token", json!(1)),
    ] {
        let mut changed = token.clone();
        changed[name] = value;
        changed["name"] = "never set".into();
        let answer = server
            .cms(Method::PUT, &below)
            .json(&json!({ "token": changed }))
            .send()
            .await;
        assert_eq!(faulty(&answer), (422, vec![name.to_owned()]));
        assert!(!String::from_utf8_lossy(&answer.body).contains("stk1_"));
    }
    assert_eq!(server.audit().await.len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_names_its_field_and_nothing_is_made() {
    let server = TestServer::start().await;
    let secret = server.issue("other").await.secret;
    let before = server.audit().await.len();
    let all = json!([{ "module": "$all", "acl": { "read": true } }]);
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(1)),
        ("name", json!("other")),
        ("name", json!(secret)),
        ("description", json!("x".repeat(501))),
        ("description", json!([])),
        ("scope", json!([])),
        ("scope", json!("all")),
        (
            "scope",
            json!([{ "module": "nothing", "acl": { "read": true } }]),
        ),
        (
            "scope",
            json!([{ "module": "token", "acl": { "read": true } }]),
        ),
        ("scope", json!([{ "module": "entry", "acl": {} }])),
        (
            "scope",
            json!([{ "module": "entry", "acl": { "read": false, "write": true } }]),
        ),
        (
            "scope",
            json!([{ "module": "entry", "acl": { "read": true }, "more": 1 }]),
        ),
        (
            "scope",
            json!([{ "module": "entry", "branches": ["a"], "acl": { "read": true } }]),
        ),
        (
            "scope",
            json!([{ "module": "branch", "branches": [], "acl": { "read": true } }]),
        ),
        (
            "scope",
            json!([all[0], { "module": "entry", "acl": { "read": true } }]),
        ),
        ("scope", json!([all[0], all[0]])),
        ("expires_on", json!("tomorrow")),
        ("expires_on", json!("")),
        ("expires_on", json!(7)),
        ("expires_on", json!("2001-01-01")),
        ("is_email_notification_enabled", json!(true)),
        ("uid", json!("mine")),
        ("token", json!(secret)),
        ("color", json!("red")),
    ] {
        let mut body = documented();
        body["token"][field] = value.clone();
        let answer = create(&server, &body).await;
        assert_eq!(
            faulty(&answer),
            (422, vec![field.to_owned()]),
            "{value}: {answer:?}"
        );
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(&secret),
            "{answer:?}"
        );
    }
    for missing in ["name", "scope", "expires_on"] {
        let mut body = documented();
        body["token"].as_object_mut().unwrap().remove(missing);
        assert_eq!(
            faulty(&create(&server, &body).await),
            (422, vec![missing.to_owned()])
        );
    }
    // A refusal because the name is taken is audited, as it is over gRPC (R14).
    assert_eq!(server.audit().await.len(), before + 1);
    let listed = server.cms(Method::GET, "?count=true").send().await.json();
    assert_eq!(listed, json!({ "tokens": 1 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_with_one_fault_changes_nothing() {
    let server = TestServer::start().await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    for changes in [
        json!({ "name": "new", "expires_on": "not a date" }),
        json!({ "name": "new", "scope": [] }),
        json!({ "name": "", "expires_on": null }),
        json!({ "name": "new", "expires_on": "9999-12-31T23:59:59-18:00" }),
        json!({ "name": "new", "color": 1 }),
    ] {
        let answer = server
            .cms(Method::PUT, &below)
            .json(&json!({ "token": changes }))
            .send()
            .await;
        assert_eq!(answer.status, 422, "{changes}: {answer:?}");
        let fetched = server.cms(Method::GET, &below).send().await.json()["token"].take();
        assert_eq!(
            (&fetched["name"], &fetched["expires_on"]),
            (&token["name"], &token["expires_on"])
        );
    }
    let today = json!({ "token": { "expires_on": "2026-01-01" } });
    let answer = server.cms(Method::PUT, &below).json(&today).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let dead = server.verdict(token["token"].as_str().unwrap()).await;
    assert_eq!(dead, "EXPIRED");
    let back = json!({ "token": { "expires_on": null } });
    let answer = server.cms(Method::PUT, &below).json(&back).send().await;
    assert_eq!(answer.status, 422, "dead stays dead: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_is_ambiguous_or_of_another_type_is_refused() {
    let server = TestServer::start().await;
    for body in [
        "",
        "[]",
        "{}",
        "{\"token\": 1}",
        "{\"token\": {}, \"token\": {}}",
        "{\"token\": {\"name\": \"a\", \"name\": \"b\"}}",
        "{\"token\": {}, \"other\": 1}",
        r#"{"token": {"name": "n", "expires_on": null, "scope": [{"module": "entry", "acl": {"read": true, "write": false, "write": true}}]}}"#,
        r#"{"token": {"name": "n", "expires_on": null, "scope": [{"module": "entry", "module": "asset", "acl": {"read": true}}]}}"#,
        r#"{"token": {"name": "n", "expires_on": null, "scope": [{"module": "$all", "acl": {"read": true}, "acl": {"read": true}}]}}"#,
        r#"{"token": {"name": "n", "expires_on": null, "description": {"a": 1, "a": 1}, "scope": [{"module": "$all", "acl": {"read": true}}]}}"#,
        "{\"token\": {\"name\": \"a\"}} x",
        "{\"token\": \"stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy\"}",
        "{\"token\": {\"stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy\": 1}}",
    ] {
        let call = server
            .cms(Method::POST, "")
            .body("application/json", body.to_owned());
        let answer = call.send().await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("stk1_"),
            "{answer:?}"
        );
    }
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ] {
        let call = server
            .cms(Method::POST, "")
            .body(content_type, documented().to_string());
        assert_eq!(call.send().await.status, 415);
        let call = server
            .cms(Method::PUT, "/x")
            .body(content_type, documented().to_string());
        assert_eq!(call.send().await.status, 415);
    }
    let charset = "application/json; charset=UTF-8";
    let call = server
        .cms(Method::POST, "")
        .body(charset, documented().to_string());
    assert_eq!(call.send().await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_have_the_rights_that_they_have_over_grpc() {
    let server = TestServer::start().await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let path = "/v3/stacks/management_tokens";
    let one = format!("{path}/{}", token["uid"].as_str().unwrap());
    let body = documented();
    let calls = |jwt: Option<&str>, stack: &str| {
        let call = |method, path: &str| {
            let call = server.http(method, path).header("api_key", stack);
            match jwt {
                Some(jwt) => call.bearer(jwt),
                None => call,
            }
        };
        [
            call(Method::GET, path),
            call(Method::POST, path).json(&body),
            call(Method::GET, &one),
            call(Method::PUT, &one).json(&json!({ "token": { "name": "x" } })),
            call(Method::DELETE, &one),
        ]
    };
    let user = |subject| server.issuer.user(subject, server.clock.seconds());
    for (jwt, status) in [
        (Some(user("developer")), 403),
        (Some(user("stranger")), 412),
        (None, 401),
    ] {
        for call in calls(jwt.as_deref(), &server.stack) {
            let answer = call.send().await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.json()["error_code"].is_number());
        }
    }
    let other = server.register("Other").await;
    let owner = user("owner");
    for call in calls(Some(&owner), &other).into_iter().skip(2) {
        assert_eq!(call.send().await.status, 404);
    }
    for call in calls(Some(&owner), "blt-nothing") {
        assert_eq!(call.send().await.status, 412);
    }
    let without = server.http(Method::GET, path).bearer(&owner);
    assert_eq!(without.send().await.status, 412);
    let both = server.cms(Method::GET, "").bearer(&owner).send().await;
    assert_eq!(both.status, 401, "two credentials: {both:?}");
    let twice = server
        .cms(Method::GET, "")
        .header("api_key", &server.stack)
        .send()
        .await;
    assert_eq!(twice.status, 412);
    for valid_first in [true, false] {
        let (one, other) = if valid_first {
            (owner.as_str(), "junk")
        } else {
            ("junk", owner.as_str())
        };
        let call = server.http(Method::GET, path);
        let call = call.header("api_key", &server.stack);
        let twice = call.header("authtoken", one).header("authtoken", other);
        assert_eq!(twice.send().await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_leave_the_rows_in_the_audit_that_grpc_leaves() {
    let server = TestServer::start().await;
    let created = create(&server, &documented()).await;
    let token = created.json()["token"].take();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    let change = json!({ "token": { "name": "n", "expires_on": "2130-01-01" } });
    let updated = server.cms(Method::PUT, &below).json(&change).send().await;
    let deleted = server.cms(Method::DELETE, &below).send().await;
    let audit = server.audit().await;
    let rows = |answer: &HttpAnswer| -> Vec<&str> {
        let id = answer.header("x-request-id").to_owned();
        let rows = audit.iter().filter(|event| event.call_id == id);
        let methods = rows.map(|event| event.method.rsplit('/').next().unwrap());
        let mut methods: Vec<_> = methods.collect();
        methods.sort_unstable();
        methods
    };
    assert_eq!(rows(&created), ["Issue"]);
    assert_eq!(rows(&updated), ["SetExpiry", "Update"]);
    assert_eq!(rows(&deleted), ["Revoke"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_skips_and_limits() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        let mut body = documented();
        body["token"]["name"] = name.into();
        create(&server, &body).await;
        server.clock.advance(std::time::Duration::from_secs(1));
    }
    let names = async |query: &str| -> Vec<String> {
        let listed = server.cms(Method::GET, query).send().await;
        assert_eq!(listed.status, 200, "{listed:?}");
        let listed = listed.json();
        let tokens = listed["tokens"].as_array().unwrap().iter();
        tokens
            .map(|token| token["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("").await, ["c", "b", "a"]);
    assert_eq!(names("?limit=1&skip=1").await, ["b"]);
    assert_eq!(names("?skip=3").await, [""; 0]);
    assert_eq!(names("?asc=created_at&limit=2").await, ["a", "b"]);
    assert_eq!(names("?query=%7B%22name%22%3A%22b%22%7D").await, ["b"]);
    for query in [
        "?limit=0",
        "?limit=101",
        "?skip=-1",
        "?skip=x",
        "?skip=1001",
        "?include_count=2",
        "?color=red",
        "?desc=name",
        "?query=x",
        "?limit=1&limit=2",
        "?skip=0&skip=0",
        "?asc=created_at&desc=created_at",
        "?query=%7B%22name%22%3A%22b%22%2C%22name%22%3A%22c%22%7D",
    ] {
        assert_eq!(
            server.cms(Method::GET, query).send().await.status,
            422,
            "{query}"
        );
    }
}
