//! Tests requests through a real Envoy. Each row has one request, and checks the response to the
//! client and what the upstream receives.

use crate::{envoy::Answer, fixture::MeshFixture};

pub const ENTRIES: &str = "/v3/content_types/blog/entries";
const ENTRY: &str = "/v3/content_types/blog/entries/e1";
const PUBLISH: &str = "/v3/content_types/blog/entries/e1/publish";
pub const RULES: &str = "/v3/workflows/publishing_rules";
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
const STACK: &str = "$stack";
const SECOND: &str = "$second";

/// The method, the path, the headers and the expected outcome. In a header, `$name` is replaced by
/// the secret of a token or the key of a stack.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

/// The headers of a request with a token (without `Bearer`) and the key of the first stack.
macro_rules! as_ {
    ($token:literal $(, $name:literal = $value:expr)*) => {
        &[("authorization", $token), ("api_key", STACK) $(, ($name, $value))*]
    };
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Requests that are allowed.
    ("GET", ENTRIES, as_!("$live"), "200"),
    ("GET", "/v3/content_types/blog/entries?locale=en-us&limit=1", as_!("$live"), "200"),
    ("HEAD", ENTRIES, as_!("$reader"), "200"),
    ("GET", ENTRIES, as_!("Bearer $reader"), "200"),
    ("PUT", ENTRY, as_!("bearer $live"), "200"),
    ("POST", PUBLISH, as_!("$live"), "200"),
    ("GET", "/v3/assets", as_!("$assets"), "200"),
    ("GET", ENTRIES, as_!("$develop", "branch" = "develop"), "200"),
    // Routes that set the actions themselves. One of them needs a fact that no route of the
    // documented configuration sets.
    ("GET", "/graphql", as_!("$reader"), "200"),
    ("GET", "/graphql", as_!("$assets"), "403 MODULE_NOT_GRANTED"),
    ("POST", RULES, as_!("$live"), "403 FACT_MISSING"),
    // Faults of the credential.
    ("GET", ENTRIES, &[("api_key", STACK)], "401 CREDENTIAL_MISSING"),
    ("GET", ENTRIES, as_!(""), "401 CREDENTIAL_MISSING"),
    ("GET", ENTRIES, as_!("Basic $live"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, &[("authorization", UNKNOWN), ("api_key", STACK)], "401 NOT_RECOGNIZED"),
    ("GET", ENTRIES, as_!("$revoked"), "401 REVOKED"),
    ("GET", ENTRIES, as_!("$expired"), "401 EXPIRED"),
    ("GET", ENTRIES, &[("authorization", "$live"), ("api_key", SECOND)], "401 NOT_RECOGNIZED"),
    ("GET", ENTRIES, &[("authorization", "$suspended"), ("api_key", SECOND)], "403 STACK_SUSPENDED"),
    // Faults of the stack key.
    ("GET", ENTRIES, &[("authorization", "$live")], "412 STACK_KEY_MISSING"),
    ("GET", ENTRIES, &[("authorization", "$live"), ("api_key", "blt")], "412 STACK_KEY_INVALID"),
    // Missing permissions.
    ("POST", ENTRIES, as_!("$reader"), "403 READ_ONLY"),
    ("POST", PUBLISH, as_!("$reader"), "403 READ_ONLY"),
    ("GET", ENTRIES, as_!("$assets"), "403 MODULE_NOT_GRANTED"),
    ("GET", ENTRIES, as_!("$develop"), "403 BRANCH_NOT_GRANTED"),
    ("GET", ENTRIES, as_!("$develop", "branch" = "main"), "403 BRANCH_NOT_GRANTED"),
    ("POST", "/v3/stacks/management_tokens", as_!("$live"), "403 NEVER_ALLOWED"),
    ("POST", "/v3/stacks/branches", as_!("$live"), "403 NEVER_ALLOWED"),
    // Faults of the method or the path.
    ("GET", "/v3/nowhere", as_!("$live"), "403 ROUTE_UNKNOWN"),
    ("OPTIONS", ENTRIES, as_!("$live"), "403 ROUTE_UNKNOWN"),
    ("PATCH", ENTRY, as_!("$live"), "403 ROUTE_UNKNOWN"),
    ("GET", "/v3/assets/", as_!("$live"), "403 PATH_NOT_CANONICAL"),
    ("GET", "/v3//assets", as_!("$live"), "403 PATH_NOT_CANONICAL"),
    ("GET", "/v3/assets;x=1", as_!("$live"), "403 PATH_NOT_CANONICAL"),
    ("GET", "/v3/roles%252fx", as_!("$live"), "403 PATH_NOT_CANONICAL"),
    // Envoy itself normalizes or refuses these requests before it asks stacktoken.
    ("GET", "/public/../v3/stacks/management_tokens", as_!("$live"), "403 NEVER_ALLOWED"),
    ("GET", "/public/%2e%2e/v3/stacks/management_tokens", as_!("$live"), "403 NEVER_ALLOWED"),
    ("GET", "/public/..%2fv3/assets", as_!("$live"), "400"),
    ("GET", "/v3/assets?branch=develop", as_!("$develop"), "403 QUERY_AMBIGUOUS"),
    ("GET", "/v3/assets?%5Bbranch%5D=develop", as_!("$develop"), "403 QUERY_AMBIGUOUS"),
    ("GET", "/v3/stacks?include_collaborators=true", as_!("$live"), "403 QUERY_REFUSED"),
    ("GET", ENTRIES, as_!("$live", "x-http-method-override" = "DELETE"), "403 REQUEST_OVERRIDDEN"),
    ("GET", ENTRIES, as_!("$live", "x-original-uri" = "/v3/stacks"), "403 REQUEST_OVERRIDDEN"),
    ("POST", "/v3/releases/r/deploy", as_!("$assets"), "403 MODULE_NOT_GRANTED"),
    // Repeated headers and second credentials.
    ("GET", ENTRIES, as_!("$live", "authorization" = "$live"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "Authorization" = "$reader"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live,$live"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "authtoken" = "a-session"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "access_token" = "a-session"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "x-auth-token" = "a-session"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "cookie" = "a-session", "proxy-authorization" = "Basic x"), "200"),
    ("GET", ENTRIES, as_!("$live", "api_key" = STACK), "412 STACK_KEY_INVALID"),
    ("GET", ENTRIES, as_!("$live", "branch" = "a", "branch" = "b"), "403 BRANCH_INVALID"),
    // Bytes that are not UTF-8.
    ("GET", ENTRIES, as_!("$live\u{ff}"), "401 CREDENTIAL_INVALID"),
    ("GET", ENTRIES, as_!("$live", "x-note" = "\u{ff}"), "200"),
];

/// Returns the outcome of a request, in the format that the rows use.
pub fn outcome(answer: &Answer) -> String {
    match answer.header("x-stacktoken-reason") {
        "" => answer.status.to_string(),
        reason => format!("{} {reason}", answer.status),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_through_envoy_comes_to_what_its_row_says() {
    let Some(fixture) = MeshFixture::start(|config| config).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let fill = |text: &str| {
        let text = text
            .replace(STACK, fixture.dev.get("stack_api_key"))
            .replace(SECOND, fixture.dev.get("second_stack_api_key"));
        tokens.iter().fold(text, |text, (name, token)| {
            text.replace(&format!("${name}"), &token.secret)
        })
    };
    let mut faults = Vec::new();
    for (method, path, headers, wanted) in ROWS {
        let filled: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, fill(value)))
            .collect();
        let sent: Vec<_> = filled
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = fixture.envoy.send(method, path, &sent).await;
        let came = outcome(&answer);
        if came != *wanted {
            faults.push(format!("{method} {path} {headers:?}: {came}, not {wanted}"));
        }
        require_form(&answer, method);
        let text = answer.text();
        let leaks = tokens.values().any(|token| text.contains(&token.secret));
        assert!(!leaks, "{method} {path} {headers:?}: {text}");
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Asserts what must be true of every response.
fn require_form(answer: &Answer, method: &str) {
    match answer.status {
        200 if method != "HEAD" => {
            for name in ["authorization", "cookie", "proxy-authorization"] {
                assert_eq!(answer.upstream_got(name), Vec::<String>::new(), "{name}");
            }
            for name in ["stack", "token", "access"] {
                let got = answer.upstream_got(&format!("x-stacktoken-{name}"));
                assert_eq!(got.len(), 1, "{name}");
            }
        }
        401 | 403 | 412 => {
            assert_eq!(answer.header("content-type"), "application/json");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(body["error_message"].is_string() && body["error_code"].is_u64());
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge == "Bearer", answer.status == 401);
        }
        _ => {}
    }
}

/// Every spelling of an identity header that some server accepts.
const SPOOFED: [(&str, &str); 14] = [
    ("x-stacktoken-stack", "blt0000000000000000"),
    ("X-Stacktoken-Stack", "blt1111111111111111"),
    ("x-stacktoken-token", "evil"),
    ("x-stacktoken-token", "evil too"),
    ("x-stacktoken-access", "READ_WRITE"),
    ("x_stacktoken_stack", "evil"),
    ("x_stacktoken_token", "evil"),
    ("x_stacktoken_access", "READ_WRITE"),
    ("x-stacktoken_stack", "evil"),
    ("x-stacktoken_token", "evil"),
    ("x-stacktoken_access", "READ_WRITE"),
    ("x_stacktoken-stack", "evil"),
    ("X_Stacktoken-Token", "evil"),
    ("x_stacktoken-access", "READ_WRITE"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_a_request_is_from_cannot_be_spoofed() {
    let Some(fixture) = MeshFixture::start(|config| config).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let (reader, stack) = (&tokens["reader"], fixture.dev.get("stack_api_key"));
    let mut sent = SPOOFED.to_vec();
    sent.extend([
        ("authorization", reader.secret.as_str()),
        ("api_key", stack),
    ]);
    let answer = fixture.envoy.send("GET", ENTRIES, &sent).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.upstream_got("x-stacktoken-stack"), [stack]);
    assert_eq!(
        answer.upstream_got("x-stacktoken-token"),
        [reader.uid.as_str()]
    );
    assert_eq!(answer.upstream_got("x-stacktoken-access"), ["READ"]);
    assert_eq!(answer.upstream_got("authorization"), Vec::<String>::new());
    assert_eq!(answer.upstream_got("api-key"), [stack]);
    // This route has no check, so the route configuration removes the identity headers.
    let answer = fixture.envoy.send("GET", "/public/x", &SPOOFED).await;
    assert_eq!(answer.status, 200);
    for name in ["stack", "token", "access"] {
        let got = answer.upstream_got(&format!("x-stacktoken-{name}"));
        assert_eq!(got, Vec::<String>::new(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_header_is_no_way_past_the_check_of_a_lenient_envoy() {
    let lenient = |config: String| {
        let stated = "max_request_headers_kb: 60";
        assert!(config.contains(stated));
        let config = config.replacen(stated, "max_request_headers_kb: 4096", 1);
        // A lenient Envoy lets a request pass if its check exceeds the timeout, which could happen
        // on a busy machine. So the timeout is raised.
        let timeout = "timeout: 1s\n                initial_metadata:";
        assert!(config.contains(timeout));
        let patient = timeout.replacen("1s", "10s", 1);
        let config = config.replacen(timeout, &patient, 1);
        config.replacen("failure_mode_allow: false", "failure_mode_allow: true", 1)
    };
    let Some(fixture) = MeshFixture::start(lenient).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let (live, stack) = (&tokens["live"], fixture.dev.get("stack_api_key"));
    for (secret, kib, wanted) in [
        (live.secret.as_str(), 500, "200"),
        (UNKNOWN, 500, "401 NOT_RECOGNIZED"),
        (UNKNOWN, 1500, "403 REQUEST_UNREADABLE"),
        (live.secret.as_str(), 1500, "403 REQUEST_UNREADABLE"),
    ] {
        let large = "a".repeat(kib * 1024);
        let sent = [
            ("authorization", secret),
            ("api_key", stack),
            ("x-large", &large),
        ];
        let answer = fixture.envoy.send("GET", ENTRIES, &sent).await;
        assert_eq!(outcome(&answer), wanted, "{kib} KiB");
    }
}
