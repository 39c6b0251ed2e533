//! Tests which actions a request requires. They come from the context_extensions of its route, or
//! from the route table.

use super::ENTRIES;
use crate::support::{TestServer, permissions};
use stacktoken::grpc::pb::v1::Access::Read;

const MISCONFIGURED: &str = "403 ROUTE_MISCONFIGURED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_table_does_not_know_is_denied() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    for (method, path, wanted) in [
        ("GET", "/v3/stacks", "OK"),
        ("GET", "/v3/stacks?locale=en-us&query={\"a\":1}", "OK"),
        ("GET", "/v3/stacks?", "OK"),
        ("GET", "/v3/nowhere", "403 ROUTE_UNKNOWN"),
        ("OPTIONS", "/v3/stacks", "403 ROUTE_UNKNOWN"),
        ("PATCH", "/v3/stacks", "403 ROUTE_UNKNOWN"),
        ("get", "/v3/stacks", "403 ROUTE_UNKNOWN"),
        ("", "/v3/stacks", "403 ROUTE_UNKNOWN"),
        ("GET", "/v3/Stacks", "403 ROUTE_UNKNOWN"),
        ("GET", "", "403 PATH_NOT_CANONICAL"),
        ("GET", "*", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/stacks/", "403 PATH_NOT_CANONICAL"),
        ("GET", "//v3/stacks", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/../stacks", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/%2e%2e/stacks", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles%2fstacks", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/a;b", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/st%61cks", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/%20a", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/a.", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/+a", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/roles/a%2520", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/stacks#?x", "403 PATH_NOT_CANONICAL"),
        ("GET", "/v3/stacks?branch=main", "403 QUERY_AMBIGUOUS"),
        ("GET", "/v3/stacks?_method=DELETE", "403 QUERY_AMBIGUOUS"),
        ("GET", "/v3/stacks?api%5fkey=x", "403 QUERY_AMBIGUOUS"),
        ("GET", "/v3/stacks?[branch]=main", "403 QUERY_AMBIGUOUS"),
        ("GET", "/v3/stacks?a%00=1", "403 QUERY_AMBIGUOUS"),
        (
            "GET",
            "/v3/stacks?include_collaborators=true",
            "403 QUERY_REFUSED",
        ),
        ("GET", "/v3/stacks?include_collaborators=false", "OK"),
        (
            "GET",
            "/v3/stacks?include_discrete_variables=1",
            "403 NEVER_ALLOWED",
        ),
    ] {
        let asked = server.request(method, path, &token);
        assert_eq!(server.outcome_of(asked).await, wanted, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_another_method_or_path_is_denied() {
    let server = TestServer::start().await;
    let token = server.token_with("reader", permissions(Read)).await.secret;
    for name in [
        "x-http-method-override",
        "X-HTTP-Method-Override",
        "x_http_method_override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
        "X-Forwarded-Uri",
        "x-original-method",
        "x_forwarded_method",
        "http-method-override",
        "_method",
        "-Method",
        "http-method",
        "http_method",
        "x-method",
        "X_Method",
        "x-original-path",
        "x-forwarded-prefix",
        "x-forwarded-path",
    ] {
        let asked = server.request("GET", ENTRIES, &token).with(name, "DELETE");
        let told = server.outcome_of(asked.clone()).await;
        assert_eq!(told, "403 REQUEST_OVERRIDDEN", "{name}");
        let told = server.outcome_of(asked.raw().route("actions", "entry.read"));
        assert_eq!(told.await, "403 REQUEST_OVERRIDDEN", "{name}");
    }
    // Envoy also sends the pseudo-headers of HTTP/2. A header named `method` is not one of them and
    // is ignored.
    let asked = server.request("GET", ENTRIES, &token);
    let asked = asked.with(":method", "GET").with(":path", ENTRIES);
    assert_eq!(server.outcome_of(asked.with("method", "a")).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_a_query_names_must_be_covered_too() {
    let server = TestServer::start().await;
    let access = stacktoken::grpc::pb::v1::Access::ReadWrite;
    let narrow = crate::support::requests::branches(access, &["main", "dev"], &["live"]);
    let token = server.token_with("narrow", narrow).await.secret;
    let compare = "/v3/stacks/branches_compare/content_types";
    for (query, wanted) in [
        ("base_branch=main&compare_branch=dev", "OK"),
        ("base_branch=live&compare_branch=dev", "OK"),
        (
            "base_branch=main&compare_branch=other",
            "403 BRANCH_NOT_GRANTED",
        ),
        (
            "base_branch=other&compare_branch=dev",
            "403 BRANCH_NOT_GRANTED",
        ),
        (
            "base_branch=main&compare_branch=dev&compare-branch[]=other",
            "403 BRANCH_NOT_GRANTED",
        ),
        (
            "base_branch=main&compare_branch=a%20b",
            "403 BRANCH_INVALID",
        ),
        ("base_branch=main;&compare_branch=dev", "403 BRANCH_INVALID"),
    ] {
        let asked = server.request("GET", &format!("{compare}?{query}"), &token);
        assert_eq!(server.outcome_of(asked).await, wanted, "{query}");
    }
    let elsewhere = server.request("GET", &format!("{ENTRIES}?base_branch=other"), &token);
    assert_eq!(
        server.outcome_of(elsewhere).await,
        "403 BRANCH_NOT_GRANTED",
        "a named branch only adds to the branch of the header"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_route_says_goes_before_the_table() {
    let server = TestServer::start().await;
    let token = server.token_with("reader", permissions(Read)).await.secret;
    let asked = |path: &str, actions: &str| {
        let asked = server.request("GET", path, &token);
        asked.route("actions", actions)
    };
    for (path, actions, wanted) in [
        ("/graphql", "entry.read", "OK"),
        ("/graphql", "entry.read,asset.read", "OK"),
        ("/graphql", "entry.read, asset.read", "OK"),
        ("/graphql", "entry.read,entry.update", "403 READ_ONLY"),
        (ENTRIES, "entry.update", "403 READ_ONLY"),
        ("/graphql/../x", "entry.read", "403 PATH_NOT_CANONICAL"),
        ("/graphql", "entry.peel", "403 ACTION_UNKNOWN"),
        ("/graphql", "", MISCONFIGURED),
        ("/graphql", "entry.read,", MISCONFIGURED),
        ("/graphql", "entry.read;asset.read", MISCONFIGURED),
        ("/graphql", "read", MISCONFIGURED),
        ("/graphql", "Entry.Read", MISCONFIGURED),
        ("/graphql", &["entry.read"; 21].join(","), MISCONFIGURED),
    ] {
        let told = server.outcome_of(asked(path, actions)).await;
        assert_eq!(told, wanted, "{path} {actions}");
    }
    for (key, value) in [
        ("action", "entry.read"),
        ("Actions", "entry.read"),
        ("fact.", "true"),
        ("fact.has_approvers", "no"),
        ("fact.has_approvers", ""),
        ("facts", "has_approvers=false"),
        ("branch", "main"),
        ("", ""),
    ] {
        let asked = server.request("GET", ENTRIES, &token).route(key, value);
        assert_eq!(server.outcome_of(asked).await, MISCONFIGURED, "{key}");
    }
    let many = (0..17).fold(server.request("GET", ENTRIES, &token), |asked, at| {
        asked.route(&format!("fact.f{at}"), "true")
    });
    assert_eq!(server.outcome_of(many).await, MISCONFIGURED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_table_adds_to_the_built_in_one_or_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let text = "[[routes]]\nmethod = \"GET\"\npath = \"/v3/labels\"\n\
                actions = [\"label.update\"]\n";
    std::fs::write(&file, text).unwrap();
    let (path, set) = (
        file.clone(),
        |tuning: &mut stacktoken::config::Tuning, path| {
            tuning.rules.authz_routes = Some(path);
        },
    );
    let server = TestServer::start_with(|tuning| set(tuning, path)).await;
    let reader = server.token_with("reader", permissions(Read)).await.secret;
    for (path, wanted) in [("/v3/labels", "403 READ_ONLY"), ("/v3/labels/a", "OK")] {
        let asked = server.request("GET", path, &reader);
        assert_eq!(server.outcome_of(asked).await, wanted, "{path}");
    }
    let text = "builtin = false\ndefault_branch = \"trunk\"\n[[routes]]\nmethod = \"POST\"\n\
                path = \"/rpc/{method}\"\nactions = [\"entry.update\"]\n";
    std::fs::write(&file, text).unwrap();
    let server = TestServer::start_with(|tuning| set(tuning, file)).await;
    let narrow = |name: &str| {
        let access = stacktoken::grpc::pb::v1::Access::ReadWrite;
        crate::support::requests::branches(access, &[name], &[])
    };
    let trunk = server.token_with("trunk", narrow("trunk")).await.secret;
    let main = server.token_with("main", narrow("main")).await.secret;
    for (method, path, token, wanted) in [
        ("POST", "/rpc/x", &trunk, "OK"),
        ("POST", "/rpc/x", &main, "403 BRANCH_NOT_GRANTED"),
        ("GET", "/rpc/x", &trunk, "403 ROUTE_UNKNOWN"),
        ("GET", "/v3/stacks", &trunk, "403 ROUTE_UNKNOWN"),
    ] {
        let asked = server.request(method, path, token);
        assert_eq!(server.outcome_of(asked).await, wanted, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reaches_into_other_modules_needs_them_granted() {
    use crate::support::requests::{branches, modules};
    use stacktoken::grpc::pb::v1::Access::ReadWrite;
    let server = TestServer::start().await;
    let only = |module| modules(ReadWrite, &[(module, ReadWrite)]);
    let all = |granted: &[&str]| {
        let grants: Vec<_> = granted.iter().map(|module| (*module, ReadWrite)).collect();
        modules(ReadWrite, &grants)
    };
    let deploy = "/v3/releases/r/deploy";
    for (granted, method, path, wanted) in [
        (only("release"), "POST", deploy, "403 MODULE_NOT_GRANTED"),
        (
            all(&["release", "entry"]),
            "POST",
            deploy,
            "403 MODULE_NOT_GRANTED",
        ),
        (all(&["release", "entry", "asset"]), "POST", deploy, "OK"),
        (
            branches(ReadWrite, &["develop"], &[]),
            "POST",
            deploy,
            "403 BRANCH_NOT_GRANTED",
        ),
        (
            only("content_type"),
            "DELETE",
            "/v3/content_types/a",
            "403 MODULE_NOT_GRANTED",
        ),
        (only("content_type"), "PUT", "/v3/content_types/a", "OK"),
        (
            only("global_field"),
            "DELETE",
            "/v3/global_fields/a",
            "403 MODULE_NOT_GRANTED",
        ),
        (
            only("locale"),
            "DELETE",
            "/v3/locales/de",
            "403 MODULE_NOT_GRANTED",
        ),
        (
            only("environment"),
            "DELETE",
            "/v3/environments/a",
            "403 MODULE_NOT_GRANTED",
        ),
    ] {
        let issued = server.token_with("narrow", granted).await;
        let asked = server.request(method, path, &issued.secret);
        assert_eq!(server.outcome_of(asked).await, wanted, "{method} {path}");
        server.revoke(&issued.uid).await;
    }
}
