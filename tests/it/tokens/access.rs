//! Tests access to tokens (R2): what each role may do, and that tokens cannot be accessed through
//! another stack.

use stacktoken::grpc::pb::v1;

use crate::support::{
    Client, TestServer, at,
    clock::START,
    issue_request, never, now,
    requests::{
        get_request, list_request, outcome, rename_request, revoke_request, set_expiry_request,
    },
};

const DAY: i64 = 86_400;

/// Calls each RPC as this caller, on a token that expires in ten days. Returns the outcomes.
async fn attempts(server: &TestServer, client: &mut Client, name: &str) -> Vec<String> {
    let stack = &server.stack;
    let subject = server
        .token_until(&format!("of {name}"), at(START + 10 * DAY))
        .await;
    let (uid, tokens) = (subject.uid.as_str(), &mut client.tokens);
    let issued = tokens.issue(issue_request(stack, name)).await;
    let renamed = rename_request(stack, uid, &format!("new {name}"));
    let earlier = set_expiry_request(stack, uid, at(START + DAY));
    let later = set_expiry_request(stack, uid, at(START + 20 * DAY));
    let outcomes = vec![
        outcome(&issued),
        outcome(&tokens.get(get_request(stack, uid)).await),
        outcome(&tokens.list(list_request(stack)).await),
        outcome(&tokens.update(renamed).await),
        outcome(&tokens.set_expiry(earlier).await),
        outcome(&tokens.set_expiry(later).await),
        outcome(&tokens.revoke(revoke_request(stack, uid, "")).await),
    ];
    let made = issued.ok().map(|issued| issued.into_inner().token.unwrap());
    for uid in [Some(subject.uid), made.map(|token| token.token_uid)]
        .into_iter()
        .flatten()
    {
        server.revoke(&uid).await;
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_and_admins_manage_tokens_operators_only_restrict_and_others_do_neither() {
    let server = TestServer::start().await;
    const OK: &str = "OK";
    const ROLE: &str = "PermissionDenied ROLE_REQUIRED";
    const STACK: &str = "NotFound STACK_NOT_FOUND";
    const NOBODY: &str = "Unauthenticated CREDENTIAL_MISSING";
    let owner_as_operator = server.issuer.operator("owner", START);
    let owner_as_operator = format!("Bearer {owner_as_operator}");
    let developer_as_operator = server.issuer.operator("developer", START);
    let developer_as_operator = format!("Bearer {developer_as_operator}");
    // The columns: Issue, Get, List, Update, SetExpiry earlier, SetExpiry later, Revoke.
    let shutting_off = [ROLE, OK, OK, ROLE, OK, ROLE, OK];
    let table = [
        ("owner", server.owner().await, [OK; 7]),
        ("admin", server.admin().await, [OK; 7]),
        ("developer", server.developer().await, [ROLE; 7]),
        ("manager", server.content_manager().await, [ROLE; 7]),
        ("stranger", server.stranger().await, [STACK; 7]),
        ("operator", server.operator().await, shutting_off),
        (
            "operator who is the owner too",
            server.with_authorization(owner_as_operator).await,
            [OK; 7],
        ),
        (
            "operator who is a developer too",
            server.with_authorization(developer_as_operator).await,
            shutting_off,
        ),
        ("service", server.service().await, [ROLE; 7]),
        (
            "mere service",
            server.service_without_role().await,
            [ROLE; 7],
        ),
        ("nobody", server.anonymous().await, [NOBODY; 7]),
    ];
    for (name, mut client, expected) in table {
        let outcomes = attempts(&server, &mut client, name).await;
        assert_eq!(outcomes, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_counts_only_while_one_has_it() {
    use stacktoken::grpc::pb::{
        admin::v1::{RemoveMemberRequest, SetMemberRequest},
        v1::Role,
    };

    let server = TestServer::start().await;
    let (mut admin, mut operator) = (server.admin().await, server.operator().await);
    let list = list_request(&server.stack);
    assert_eq!(outcome(&admin.tokens.list(list.clone()).await), "OK");
    let demote = SetMemberRequest {
        stack_api_key: server.stack.clone(),
        member: Some(crate::support::person("admin")),
        role: Role::Developer.into(),
        validate_only: false,
    };
    operator.stacks.set_member(demote).await.unwrap();
    assert_eq!(
        outcome(&admin.tokens.list(list.clone()).await),
        "PermissionDenied ROLE_REQUIRED"
    );
    let remove = RemoveMemberRequest {
        stack_api_key: server.stack.clone(),
        member: Some(crate::support::person("admin")),
        validate_only: false,
    };
    operator.stacks.remove_member(remove).await.unwrap();
    assert_eq!(
        outcome(&admin.tokens.list(list).await),
        "NotFound STACK_NOT_FOUND"
    );
}

/// Calls every RPC for this token with this stack API key. Returns the outcomes.
async fn by_uid(client: &mut Client, stack: &str, uid: &str) -> [String; 4] {
    let tokens = &mut client.tokens;
    [
        outcome(&tokens.get(get_request(stack, uid)).await),
        outcome(
            &tokens
                .update(rename_request(stack, uid, "taken over"))
                .await,
        ),
        outcome(
            &tokens
                .set_expiry(set_expiry_request(stack, uid, now()))
                .await,
        ),
        outcome(&tokens.revoke(revoke_request(stack, uid, "")).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_stack_is_not_found_by_any_rpc() {
    const TOKEN: &str = "NotFound TOKEN_NOT_FOUND";
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let other = server.register("Other stack").await;
    // Both stacks have the same owner and admins, so only the key in the request distinguishes the
    // stacks.
    let mut owner = server.owner().await;
    assert_eq!(by_uid(&mut owner, &other, &token.uid).await, [TOKEN; 4]);
    let unknown = "01890000-0000-7000-8000-000000000000";
    assert_eq!(
        by_uid(&mut owner, &server.stack, unknown).await,
        [TOKEN; 4],
        "an unknown id has the same outcome"
    );
    let seen = owner.tokens.list(list_request(&other)).await.unwrap();
    assert_eq!(seen.into_inner().tokens, []);
    let mut operator = server.operator().await;
    let outcomes = by_uid(&mut operator, &other, &token.uid).await;
    let role = "PermissionDenied ROLE_REQUIRED";
    assert_eq!(outcomes, [TOKEN, role, TOKEN, TOKEN]);
    let untouched = server.see(&token.uid).await;
    assert_eq!(untouched.name, "deploy");
    assert_eq!(untouched.state(), v1::TokenState::Active);
    assert_eq!(server.verdict(&token.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_one_has_no_part_in_is_not_found_just_like_one_that_is_not_there() {
    const STACK: &str = "NotFound STACK_NOT_FOUND";
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut stranger = server.stranger().await;
    let missing = "blt00000000deadbeef";
    for stack in [server.stack.as_str(), missing] {
        assert_eq!(by_uid(&mut stranger, stack, &token.uid).await, [STACK; 4]);
        let issued = stranger.tokens.issue(issue_request(stack, "mine")).await;
        let listed = stranger.tokens.list(list_request(stack)).await;
        assert_eq!([outcome(&issued), outcome(&listed)], [STACK; 2]);
    }
    let mut owner = server.owner().await;
    assert_eq!(by_uid(&mut owner, missing, &token.uid).await, [STACK; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_is_not_found_by_those_who_ran_it() {
    const STACK: &str = "NotFound STACK_NOT_FOUND";
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.remove().await;
    let mut owner = server.owner().await;
    let stack = &server.stack;
    assert_eq!(by_uid(&mut owner, stack, &token.uid).await, [STACK; 4]);
    let issued = owner.tokens.issue(issue_request(stack, "late")).await;
    let listed = owner.tokens.list(list_request(stack)).await;
    assert_eq!([outcome(&issued), outcome(&listed)], [STACK; 2]);
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_management_token_is_no_credential_for_managing_tokens() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut client = server
        .with_authorization(format!("Bearer {}", token.secret))
        .await;
    let outcomes = [
        outcome(&client.tokens.list(list_request(&server.stack)).await),
        outcome(&client.tokens.issue(issue_request(&server.stack, "x")).await),
        outcome(
            &client
                .tokens
                .set_expiry(set_expiry_request(&server.stack, &token.uid, never()))
                .await,
        ),
    ];
    assert_eq!(outcomes, ["Unauthenticated TOKEN_NOT_ACCEPTED_HERE"; 3]);
}
