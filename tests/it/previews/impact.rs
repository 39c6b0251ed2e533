//! Tests the impact that previews show: the services that recently used the token.

use std::time::Duration;

use stacktoken::grpc::pb::v1::{self, CallerKind};

use crate::support::{
    ISSUER, TestServer,
    clock::START,
    introspect_request, now,
    requests::{Issued, rename_request, revoke_request, set_expiry_request},
};

const DAYS: Duration = Duration::from_secs(86_400);

/// Uses a secret as a service with the introspect role.
async fn used(server: &TestServer, subject: &str, secret: &str) {
    let jwt = server.issuer.service(subject, server.clock.seconds());
    let service = server.with_authorization(format!("Bearer {jwt}")).await;
    let request = introspect_request(&server.stack, secret, &[]);
    let answer = service.introspection.clone().introspect(request).await;
    assert!(answer.unwrap().into_inner().active);
}

/// Asserts that the three previews and `GetUsage` show the same impact, and returns it.
async fn impact(server: &TestServer, token: &Issued) -> v1::Impact {
    let (mut owner, stack, uid) = (server.owner().await, &server.stack, &token.uid);
    let update = v1::UpdateRequest {
        validate_only: true,
        ..rename_request(stack, uid, "renamed")
    };
    let redate = v1::SetExpiryRequest {
        validate_only: true,
        ..set_expiry_request(stack, uid, now())
    };
    let revoke = v1::RevokeRequest {
        validate_only: true,
        ..revoke_request(stack, uid, "")
    };
    let refusal_text = [
        owner
            .tokens
            .update(update)
            .await
            .unwrap()
            .into_inner()
            .impact,
        owner
            .tokens
            .set_expiry(redate)
            .await
            .unwrap()
            .into_inner()
            .impact,
        owner
            .tokens
            .revoke(revoke)
            .await
            .unwrap()
            .into_inner()
            .impact,
    ]
    .map(Option::unwrap);
    assert!(
        refusal_text.iter().all(|impact| *impact == refusal_text[0]),
        "{refusal_text:?}"
    );
    let request = v1::GetUsageRequest {
        stack_api_key: stack.clone(),
        token_uid: uid.clone(),
    };
    let read = owner.tokens.get_usage(request).await.unwrap().into_inner();
    assert_eq!(read.last_used_at, refusal_text[0].last_used_at);
    assert_eq!(read.services, refusal_text[0].services);
    refusal_text[0].clone()
}

fn services(impact: &v1::Impact) -> Vec<(String, i64)> {
    let refusal_text = impact.services.iter().map(|used| {
        let service = used.service.clone().unwrap();
        assert_eq!(service.kind(), CallerKind::Service);
        assert_eq!(service.issuer, ISSUER);
        (service.subject, used.last_used_at.unwrap().seconds)
    });
    refusal_text.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_never_used_has_no_impact() {
    let server = TestServer::start().await;
    let token = server.token("unused").await;
    assert_eq!(impact(&server, &token).await, v1::Impact::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_is_listed_for_thirty_days_and_later_only_as_the_last() {
    let server = TestServer::start().await;
    let token = server.token("used").await;
    used(&server, "content-api", &token.secret).await;
    let expected = vec![("content-api".to_owned(), START)];
    assert_eq!(services(&impact(&server, &token).await), expected);
    server.clock.advance(30 * DAYS);
    assert_eq!(services(&impact(&server, &token).await), expected);
    server.clock.advance(Duration::from_micros(1));
    let refusal_text = impact(&server, &token).await;
    assert_eq!(services(&refusal_text), []);
    assert_eq!(refusal_text.last_used_at.unwrap().seconds, START);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_services_the_hundred_latest_are_listed() {
    let server = TestServer::start().await;
    let (token, other) = (server.token("busy").await, server.token("other").await);
    let outside = server.outside().await;
    for (uid, name, count, since) in [
        (&token.uid, "service", 120, START - 1000),
        (&other.uid, "stranger", 3, START - 10),
    ] {
        for n in 0..count {
            let (uid, at) = (uid.replace('-', ""), (since + n) * 1_000_000);
            let sql = format!(
                "INSERT INTO token_usage VALUES (x'{uid}', '{ISSUER}', '{name}-{n}', {at})"
            );
            outside.run(&sql).await;
        }
    }
    let refusal_text = impact(&server, &token).await;
    let expected: Vec<_> = (20..120)
        .rev()
        .map(|n| (format!("service-{n}"), START - 1000 + n))
        .collect();
    assert_eq!(services(&refusal_text), expected);
    assert_eq!(refusal_text.last_used_at.unwrap().seconds, START - 881);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_previews_show_an_impact() {
    let server = TestServer::start().await;
    let token = server.token("used").await;
    used(&server, "content-api", &token.secret).await;
    let mut owner = server.owner().await;
    let rename = rename_request(&server.stack, &token.uid, "renamed");
    let renamed = owner.tokens.update(rename).await.unwrap().into_inner();
    assert_eq!(renamed.impact, None);
    let revoke = revoke_request(&server.stack, &token.uid, "");
    let revoked = owner.tokens.revoke(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.impact, None);
    assert_eq!(services(&impact_of_dead(&server, &token).await).len(), 1);
}

/// Returns the impact that a preview of revoking a dead token shows. Revoking a dead token is
/// permitted.
async fn impact_of_dead(server: &TestServer, token: &Issued) -> v1::Impact {
    let revoke = v1::RevokeRequest {
        validate_only: true,
        ..revoke_request(&server.stack, &token.uid, "")
    };
    let shown = server.owner().await.tokens.revoke(revoke).await.unwrap();
    let shown = shown.into_inner();
    assert_eq!(shown.token.unwrap().revoked_at.unwrap().seconds, START);
    shown.impact.unwrap()
}
