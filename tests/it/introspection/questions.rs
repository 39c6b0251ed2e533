//! Tests which callers may call `Introspect`, and how it validates its input.

use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::support::{
    TestServer,
    clients::fields,
    introspect_request,
    requests::{outcome, refused},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_services_with_the_role_introspect() {
    const ROLE: &str = "PermissionDenied ROLE_REQUIRED";
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let gateway = server.issuer.service("gateway-7", server.clock.seconds());
    let posing = server.issuer.user("content-api", server.clock.seconds());
    let bearer = |jwt: String| format!("Bearer {jwt}");
    for (name, client, expected) in [
        ("service", server.service().await, "OK"),
        (
            "gateway",
            server.with_authorization(bearer(gateway)).await,
            "OK",
        ),
        ("mere service", server.service_without_role().await, ROLE),
        (
            "user of that name",
            server.with_authorization(bearer(posing)).await,
            ROLE,
        ),
        ("owner", server.owner().await, ROLE),
        ("operator", server.operator().await, ROLE),
        (
            "nobody",
            server.anonymous().await,
            "Unauthenticated CREDENTIAL_MISSING",
        ),
        (
            "the token itself",
            server
                .with_authorization(bearer(token.secret.clone()))
                .await,
            "Unauthenticated TOKEN_NOT_ACCEPTED_HERE",
        ),
    ] {
        let request = introspect_request(&server.stack, &token.secret, &[]);
        let told = outcome(&client.clone().introspection.introspect(request).await);
        assert_eq!(told, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_authenticated_caller_may_read_the_catalogue() {
    let server = TestServer::start().await;
    for (client, expected) in [
        (server.stranger().await, "OK"),
        (server.service_without_role().await, "OK"),
        (server.operator().await, "OK"),
        (
            server.anonymous().await,
            "Unauthenticated CREDENTIAL_MISSING",
        ),
    ] {
        let listed = client
            .clone()
            .actions
            .list_actions(v1::ListActionsRequest {})
            .await;
        assert_eq!(outcome(&listed), expected);
        let Ok(listed) = listed else { continue };
        let listed = listed.into_inner();
        assert!(!listed.version.is_empty());
        assert!(
            listed
                .actions
                .iter()
                .all(|action| action.name.starts_with(&action.module))
        );
    }
}

fn question(name: &str) -> v1::ActionQuestion {
    v1::ActionQuestion {
        name: name.into(),
        ..Default::default()
    }
}

fn with_facts(facts: &[(&str, bool)]) -> v1::ActionQuestion {
    let owned = |(name, value): &(&str, bool)| ((*name).to_owned(), *value);
    v1::ActionQuestion {
        facts: facts.iter().map(owned).collect(),
        ..question("publish_rule.create")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspect_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let asked = |actions: Vec<v1::ActionQuestion>| v1::IntrospectRequest {
        actions,
        ..introspect_request(&server.stack, &token.secret, &[])
    };
    let including = |include: &[i32]| v1::IntrospectRequest {
        include: include.to_vec(),
        ..introspect_request(&server.stack, &token.secret, &[])
    };
    let many: Vec<String> = (0..17).map(|n| format!("fact{n:02}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), true)).collect();
    let (name64, name65) = ("x".repeat(64), "x".repeat(65));
    let verb = |length: usize| question(&format!("entry.{}", "x".repeat(length - 6)));
    let on = |branch: &str, alias: &str| v1::ActionQuestion {
        branch: branch.into(),
        branch_alias: alias.into(),
        ..question("entry.read")
    };
    let shaped = [
        "x",
        "",
        ".",
        "entry.",
        ".update",
        "Entry.update",
        "entry update",
        "a.b.c",
        "1a.b",
    ];
    let mut table: Vec<(v1::IntrospectRequest, Vec<&str>)> = vec![
        (v1::IntrospectRequest::default(), vec![]),
        (
            introspect_request("", "", &["nope"]),
            vec!["actions[0].name"],
        ),
        (asked(vec![question("entry.read"); 20]), vec![]),
        (asked(vec![question("entry.read"); 21]), vec!["actions"]),
        (asked(vec![verb(64)]), vec![]),
        (asked(vec![verb(65)]), vec!["actions[0].name"]),
        (asked(vec![on(&name64, &name64)]), vec![]),
        (
            asked(vec![question("entry.read"), on(&name65, &name65)]),
            vec!["actions[1].branch", "actions[1].branch_alias"],
        ),
        (asked(vec![with_facts(&many[..16])]), vec![]),
        (asked(vec![with_facts(&many)]), vec!["actions[0].facts"]),
        (asked(vec![with_facts(&[(&name64, true)])]), vec![]),
        (
            asked(vec![with_facts(&[(&name65, true)])]),
            vec!["actions[0].facts"],
        ),
        (
            asked(vec![with_facts(&[("", true)])]),
            vec!["actions[0].facts"],
        ),
        (including(&[1, 2, 3, 3]), vec![]),
        (including(&[1; 17]), vec!["include"]),
        (
            including(&[2, 0, 99, 1, -1]),
            vec!["include[1]", "include[2]", "include[4]"],
        ),
    ];
    table.extend(shaped.map(|name| (asked(vec![question(name)]), vec!["actions[0].name"])));
    let mut service = server.service().await;
    for (request, expected) in table {
        let words = format!("{request:?}");
        match service.introspection.introspect(request).await {
            Ok(_) => assert!(expected.is_empty(), "{words}"),
            Err(status) => {
                assert_eq!(
                    refused(&status),
                    (Code::InvalidArgument, "INVALID_FIELD".into())
                );
                assert_eq!(fields(&status), expected, "{words}");
            }
        }
    }
}
