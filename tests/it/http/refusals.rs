//! Tests requests that the HTTP port refuses before it calls an RPC, or without calling one.

use http::Method;

use crate::support::{TestServer, http::FORM, raw::TestCaller};

/// Paths of POST routes that accept a form.
const FORMS: [&str; 3] = [
    "/oauth2/introspect",
    "/oauth2/introspect/blt0123456789abcdef",
    "/oauth2/revoke",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_authenticated_as_on_the_grpc_port() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let token = server.issue("deploy").await.secret;
    for (path, without_role) in [(FORMS[0], 403), (FORMS[1], 403), (FORMS[2], 200)] {
        let call = || {
            let call = server.http(Method::POST, path);
            call.form(&[("token", "junk"), ("stack_api_key", "blt0123456789abcdef")])
        };
        // Without a credential, `/oauth2/revoke` ends sessions, see `revoke.rs`.
        if path != FORMS[2] {
            let none = call().send().await;
            assert_eq!(none.refusal(), (401, "invalid_client".into()));
            assert_eq!(none.header("www-authenticate"), "Bearer");
        }
        for value in [
            format!("Bearer {token}"),
            format!("Bearer {jwt}x"),
            "Bearer ".into(),
            "Basic Y2xpZW50OnNlY3JldA==".into(),
            jwt.clone(),
        ] {
            let answer = call().header("authorization", &value).send().await;
            assert_eq!(answer.status, 401, "{value}: {answer:?}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
            assert!(!String::from_utf8_lossy(&answer.body).contains("stk1_"));
        }
        let twice = call().bearer(&jwt).bearer(&jwt).send().await;
        assert_eq!(twice.status, 401, "{twice:?}");
        let role = server.issuer.service("mailer", server.clock.seconds());
        let answer = call().bearer(&role).send().await;
        assert_eq!(answer.status, without_role, "{answer:?}");
        let user = server.issuer.user("owner", server.clock.seconds());
        let answer = call().bearer(&user).send().await;
        assert_eq!(answer.refusal(), (403, "insufficient_scope".into()));
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer error=\"insufficient_scope\""
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_in_the_body_is_refused() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    for path in FORMS {
        for name in ["client_secret", "client_assertion", "access_token"] {
            let form = [
                ("token", "junk"),
                ("client_id", "api"),
                (name, jwt.as_str()),
            ];
            let both = server.http(Method::POST, path).bearer(&jwt).form(&form);
            assert_eq!(both.send().await.refusal(), (400, "invalid_request".into()));
            let alone = server.http(Method::POST, path).form(&form);
            assert_eq!(alone.send().await.refusal(), (401, "invalid_client".into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authtoken_is_a_credential_of_the_cms_routes_only() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let form = [("token", "junk"), ("stack_api_key", "blt0123456789abcdef")];
    for path in FORMS {
        let alone = || {
            let call = server.http(Method::POST, path).form(&form);
            call.header("authtoken", &jwt)
        };
        assert_eq!(
            alone().send().await.refusal(),
            (401, "invalid_client".into())
        );
        let both = alone().bearer(&jwt).send().await;
        assert_eq!(both.refusal(), (400, "invalid_request".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_is_refused_before_it_is_read_as_another() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let path = format!("/oauth2/introspect/{}", server.stack);
    for (encoding, status) in [
        ("gzip", 415),
        ("identity, br", 415),
        ("", 415),
        ("Identity", 200),
    ] {
        let call = server.http(Method::POST, &path).bearer(&jwt);
        let call = call.form(&[("token", "junk")]);
        let answer = call.header("content-encoding", encoding).send().await;
        assert_eq!(answer.status, status, "{encoding}: {answer:?}");
    }
    let json = serde_json::json!({ "token": { "name": "n" } });
    for (method, below) in [(Method::POST, ""), (Method::PUT, "/x")] {
        let call = server.cms(method, below).json(&json);
        let answer = call.header("content-encoding", "gzip").send().await;
        assert_eq!(
            (answer.status, &answer.json()["error_code"]),
            (415, &415.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_no_text_gets_the_error_of_its_family() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let call = server.http(Method::POST, "/oauth2/introspect/%ff");
    let call = call.bearer(&jwt).form(&[("token", "junk")]);
    assert_eq!(call.send().await.refusal(), (400, "invalid_request".into()));
    let json = serde_json::json!({ "token": { "name": "n" } });
    for call in [
        server.cms(Method::GET, "/%ff"),
        server.cms(Method::PUT, "/%ff").json(&json),
        server.cms(Method::DELETE, "/%ff"),
    ] {
        let answer = call.send().await;
        assert_eq!(
            (answer.status, &answer.json()["error_code"]),
            (404, &141.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_read_as_rfc_6749_says() {
    let server = TestServer::start().await;
    let secret = server.issue("deploy").await.secret;
    let jwt = TestCaller::Introspector.jwt(&server);
    let path = format!("/oauth2/introspect/{}", server.stack);
    let call = || server.http(Method::POST, &path).bearer(&jwt);
    let hinted = [
        ("token", secret.as_str()),
        ("token_type_hint", "access_token"),
        ("color", "red"),
    ];
    assert_eq!(call().form(&hinted).send().await.json()["active"], true);
    for repeated in ["token", "token_type_hint", "stack_api_key", "color"] {
        let form = [("token", secret.as_str()), (repeated, "a"), (repeated, "a")];
        let answer = call().form(&form).send().await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_request".into()),
            "{repeated}"
        );
    }
    for missing in [&[][..], &[("token", "")], &[("tok", "x")]] {
        let answer = call().form(missing).send().await;
        assert_eq!(answer.refusal(), (400, "invalid_request".into()));
    }
    for content_type in ["application/json", "text/plain", "", "multipart/form-data"] {
        let answer = call()
            .body(content_type, format!("token={secret}"))
            .send()
            .await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    let charset = format!("{FORM}; charset=utf-8");
    let answer = call()
        .body(&charset, format!("token={secret}"))
        .send()
        .await;
    assert_eq!(answer.json()["active"], true);
    let two = call()
        .body(FORM, format!("token={secret}"))
        .header("content-type", FORM);
    assert_eq!(two.send().await.status, 415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_parameter_and_no_credential_is_read_from_a_query() {
    let server = TestServer::start().await;
    let secret = server.issue("deploy").await.secret;
    let jwt = TestCaller::Introspector.jwt(&server);
    let path = format!("/oauth2/introspect/{}?token={secret}", server.stack);
    let answer = server
        .http(Method::POST, &path)
        .bearer(&jwt)
        .form(&[("token", &secret)]);
    assert_eq!(
        answer.send().await.refusal(),
        (400, "invalid_request".into())
    );
    let owner = server.issuer.user("owner", server.clock.seconds());
    for name in ["authtoken", "access_token", "api_key", "authorization"] {
        let path = format!("/v3/stacks/management_tokens?{name}={owner}");
        let call = server
            .http(Method::GET, &path)
            .header("api_key", &server.stack);
        let answer = call.send().await;
        assert!([401, 422].contains(&answer.status), "{answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(&owner));
    }
    let cookie = server.http(Method::GET, "/v3/stacks/management_tokens");
    let cookie = cookie
        .header("api_key", &server.stack)
        .header("cookie", &format!("authtoken={owner}"));
    let answer = cookie.send().await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("set-cookie"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_or_head_is_refused() {
    let server = TestServer::start_with(|tuning| tuning.max_header_bytes = 4096).await;
    let jwt = TestCaller::Introspector.jwt(&server);
    for path in [FORMS[0], "/v3/stacks/management_tokens"] {
        let large = server.http(Method::POST, path).bearer(&jwt);
        let answer = large.body(FORM, vec![b'a'; 64 * 1024 + 1]).send().await;
        assert_eq!(answer.status, 413, "{answer:?}");
        for size in [5_000, 50_000] {
            let head = server
                .http(Method::POST, path)
                .header("x-large", &"a".repeat(size));
            assert_eq!(head.body(FORM, "").send().await.status, 431);
        }
    }
    let mut many = server.http(Method::POST, FORMS[0]);
    for index in 0..80 {
        many = many.header(&format!("x-{index}"), "a");
    }
    assert_eq!(many.body(FORM, "").send().await.status, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_paths_and_methods_do_not_exist() {
    let server = TestServer::start().await;
    for path in [
        "/",
        "/oauth2/introspect/",
        "/oauth2/introspect/a/b",
        "//oauth2/introspect",
        "/OAUTH2/introspect",
        "/oauth2/tokens",
        "/oauth2/../oauth2/revoke",
        "/oauth2/./introspect",
        "/oauth2/%69ntrospect",
        "/oauth2%2fintrospect",
        "/oauth2/introspect%00",
        "/oauth2/introspect;x=1",
        "/v3//stacks/management_tokens",
        "/V3/stacks/management_tokens",
        "/v3/stacks/management_tokens;x=1",
        "/v3/stacks/management_tokens/../management_tokens",
        "/stacktoken.v1.IntrospectionService/Introspect",
        "/metrics",
        "/v3/stacks/management_tokens/",
        "/v3/stacks",
    ] {
        let answer = server
            .http(Method::POST, path)
            .form(&[("token", "x")])
            .send()
            .await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for (path, method, allowed) in [
        ("/oauth2/introspect", Method::GET, "POST"),
        ("/oauth2/revoke", Method::DELETE, "POST"),
        ("/oauth2/token", Method::GET, "POST"),
        ("/openapi.json", Method::POST, "GET,HEAD"),
        ("/v3/stacks/management_tokens", Method::PUT, "GET,HEAD,POST"),
        (
            "/v3/stacks/management_tokens/x",
            Method::PATCH,
            "GET,HEAD,PUT,DELETE",
        ),
        ("/oauth2/introspect", Method::OPTIONS, "POST"),
    ] {
        let answer = server.http(method, path).send().await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, allowed),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}
