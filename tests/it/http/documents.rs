//! Tests the documents that the HTTP port serves: OAuth metadata (RFC 8414) and OpenAPI.

use http::Method;
use serde_json::json;

use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_names_the_configured_address_whatever_the_host_is() {
    let server = TestServer::start().await;
    let call = server.http(Method::GET, "/.well-known/oauth-authorization-server");
    let call = call
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example");
    let metadata = call.send().await.json();
    let issuer = format!("http://{}", server.http_address);
    let wanted = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "token_endpoint_auth_methods_supported": ["none"],
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": ["Bearer", "none"],
        "response_types_supported": [],
    });
    assert_eq!(metadata, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_document_is_served_and_no_other() {
    let server = TestServer::start().await;
    let document = server
        .http(Method::GET, "/openapi.json")
        .send()
        .await
        .json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        document["servers"][0]["url"],
        format!("http://{}", server.http_address)
    );
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path
            .replace("{stack_api_key}", &server.stack)
            .replace("{uid}", "x");
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            let name = method.as_str().to_lowercase();
            let answer = server.http(method, &real).send().await;
            let is_documented = operations.get(&name).is_some();
            assert_eq!(
                answer.status != 405,
                is_documented,
                "{name} {path}: {answer:?}"
            );
            if is_documented {
                let status = answer.status.to_string();
                let responses = &operations[&name]["responses"];
                assert!(responses.get(&status).is_some(), "{name} {path}: {status}");
            }
        }
    }
}
