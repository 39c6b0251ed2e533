//! Tests that no verdict is given during an outage of the store (R13), and that no change is made
//! if the audit cannot be written (R14). The tests break the store with SQL, then repair it.

use std::time::Duration;

use tonic::Code;

use crate::support::{
    Client, TestServer,
    clients::{details, reason},
    database::DirectConnection,
    introspect_request, issue_request, now,
    requests::{
        Issued, get_request, list_request, outcome, refused, rename_request, revoke_request,
        set_expiry_request,
    },
};

/// Returns the outcomes of all calls that need the store.
async fn outcomes(server: &TestServer, token: &Issued) -> Vec<String> {
    let (stack, uid) = (&server.stack, &token.uid);
    let (mut owner, mut service) = (server.owner().await, server.service().await);
    let tokens = &mut owner.tokens;
    let question = introspect_request(stack, &token.secret, &["entry.read"]);
    vec![
        outcome(&service.introspection.introspect(question).await),
        outcome(&tokens.get(get_request(stack, uid)).await),
        outcome(&tokens.list(list_request(stack)).await),
        outcome(&tokens.update(rename_request(stack, uid, "renamed")).await),
        outcome(
            &tokens
                .set_expiry(set_expiry_request(stack, uid, now()))
                .await,
        ),
        outcome(&tokens.revoke(revoke_request(stack, uid, "")).await),
        outcome(&tokens.issue(issue_request(stack, "another")).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_unavailable_and_never_a_verdict() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let outside = server.outside().await;
    outside.corrupt().await;
    let told = outcomes(&server, &token).await;
    assert_eq!(told, ["Unavailable STORE_UNAVAILABLE"; 7]);
    let mut service = server.service().await;
    for secret in [
        token.secret.as_str(),
        "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy",
    ] {
        let question = introspect_request(&server.stack, secret, &[]);
        let status = service
            .introspection
            .introspect(question)
            .await
            .unwrap_err();
        assert_eq!(reason(&status), "STORE_UNAVAILABLE");
        let details = details(&status);
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(5),
            "{wait:?}"
        );
        assert!(!details.request_info().unwrap().request_id.is_empty());
        assert!(
            !status.message().contains("TABEL"),
            "the cause is only logged"
        );
    }
    outside.restore().await;
    assert_eq!(
        server.verdict(&token.secret).await,
        "OK",
        "the repaired store is used again"
    );
    server.revoke(&token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lacks_a_table_is_a_fault_and_never_a_verdict() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    for table in ["tokens", "token_secrets", "stacks"] {
        // The token was not introspected before, so the verdict needs the store.
        let token = server.token(table).await;
        outside
            .run(&format!("ALTER TABLE {table} RENAME TO elsewhere"))
            .await;
        let question = introspect_request(&server.stack, &token.secret, &["entry.read"]);
        let mut service = server.service().await;
        let status = service
            .introspection
            .introspect(question)
            .await
            .unwrap_err();
        assert_eq!(
            refused(&status),
            (Code::Internal, "INTERNAL".into()),
            "{table}"
        );
        assert!(!status.message().contains(table), "{}", status.message());
        outside
            .run(&format!("ALTER TABLE elsewhere RENAME TO {table}"))
            .await;
        assert_eq!(server.verdict(&token.secret).await, "OK", "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_does_not_parse_is_a_fault_and_never_a_verdict() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let outside = server.outside().await;
    for permissions in [
        "",
        "{}",
        r#"{"access":"ALL"}"#,
        r#"{"access":"READ","modules":[]}"#,
    ] {
        outside
            .run(&format!("UPDATE tokens SET permissions = '{permissions}'"))
            .await;
        let question = introspect_request(&server.stack, &token.secret, &[]);
        let mut service = server.service().await;
        let told = outcome(&service.introspection.introspect(question).await);
        assert_eq!(told, "Internal INTERNAL", "{permissions:?}");
    }
}

async fn rows(outside: &DirectConnection) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in [
        "tokens",
        "token_secrets",
        "changes",
        "audit_events",
        "stacks",
        "stack_members",
    ] {
        counts.push(
            outside
                .number(&format!("SELECT COUNT(*) FROM {table}"))
                .await,
        );
    }
    counts
}

async fn stack_changes(server: &TestServer, operator: &mut Client) -> Vec<String> {
    use stacktoken::grpc::pb::admin::v1::{
        RegisterRequest, RemoveMemberRequest, SetMemberRequest, SetTokenLimitRequest,
        SuspendRequest, TransferOwnershipRequest,
    };

    use stacktoken::grpc::pb::v1::Role;

    use crate::support::person;

    let stack_api_key = server.stack.clone();
    let stacks = &mut operator.stacks;
    let registered = RegisterRequest {
        name: "Another".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let member = Some(person("newcomer"));
    let suspended = SuspendRequest {
        stack_api_key: stack_api_key.clone(),
        reason: String::new(),
        validate_only: false,
    };
    let set = SetMemberRequest {
        stack_api_key: stack_api_key.clone(),
        member: member.clone(),
        role: Role::Admin.into(),
        validate_only: false,
    };
    let removed = RemoveMemberRequest {
        stack_api_key: stack_api_key.clone(),
        member: Some(person("admin")),
        validate_only: false,
    };
    let transferred = TransferOwnershipRequest {
        stack_api_key: stack_api_key.clone(),
        new_owner: member,
        validate_only: false,
    };
    let limited = SetTokenLimitRequest {
        stack_api_key,
        max_tokens: Some(3),
        reason: "a test".into(),
        validate_only: false,
    };
    vec![
        outcome(&stacks.register(registered).await),
        outcome(&stacks.set_member(set).await),
        outcome(&stacks.remove_member(removed).await),
        outcome(&stacks.transfer_ownership(transferred).await),
        outcome(&stacks.set_token_limit(limited).await),
        outcome(&stacks.suspend(suspended).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_audit_cannot_be_written_nothing_is_changed() {
    const AUDIT: &str = "Unavailable AUDIT_UNAVAILABLE";
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let before = server.see(&token.uid).await;
    let outside = server.outside().await;
    let rows_before = rows(&outside).await;
    outside
        .run(
            "CREATE TRIGGER full BEFORE INSERT ON audit_events \
             BEGIN SELECT RAISE(ABORT, 'the archive is full'); END",
        )
        .await;
    let told = outcomes(&server, &token).await;
    assert_eq!(
        told[..3],
        ["OK"; 3],
        "reads and verdicts do not need the audit"
    );
    assert_eq!(told[3..], [AUDIT; 4]);
    let told = stack_changes(&server, &mut server.operator().await).await;
    assert_eq!(told, [AUDIT; 6]);
    assert_eq!(rows(&outside).await, rows_before);
    let mut unused = server.see(&token.uid).await;
    unused.last_used_at = None;
    for secret in &mut unused.secrets {
        secret.first_used_at = None;
    }
    assert_eq!(unused, before);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let request = revoke_request(&server.stack, &token.uid, "");
    let status = server
        .owner()
        .await
        .tokens
        .revoke(request)
        .await
        .unwrap_err();
    assert!(details(&status).retry_info().is_some());
    assert!(!status.message().contains("archive"));
    outside.run("DROP TRIGGER full").await;
    server.revoke(&token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_changed_if_the_change_log_cannot_be_written() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let outside = server.outside().await;
    let rows_before = rows(&outside).await;
    outside
        .run("CREATE TRIGGER full BEFORE INSERT ON changes BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    let told = outcomes(&server, &token).await;
    assert_eq!(told[3..], ["Internal INTERNAL"; 4]);
    assert_eq!(
        rows(&outside).await,
        rows_before,
        "a change that failed has no audit row"
    );
    assert_eq!(server.verdict(&token.secret).await, "OK");
}
