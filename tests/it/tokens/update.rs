use std::time::Duration;

use stacktoken::grpc::pb::v1::{
    self,
    Access::{Read, ReadWrite},
};

use crate::support::{
    TestServer, at,
    clients::fields,
    clock::START,
    now, permissions,
    requests::{branches, modules, outcome, permit_request, rename_request, update_request},
};

fn words(name: &str, description: &str) -> v1::Token {
    v1::Token {
        name: name.into(),
        description: description.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_mask_names_is_changed() {
    let server = TestServer::start().await;
    let token = server.token_until("deploy", at(START + 60)).await;
    let before = server.see(&token.uid).await;
    let mut owner = server.owner().await;
    let everything = v1::Token {
        permissions: Some(permissions(Read)),
        state: v1::TokenState::Revoked.into(),
        generation: 9,
        secret_hint: "xxxx".into(),
        expires_at: None,
        stack_api_key: "blt0000000000000000".into(),
        ..words("renamed", "described")
    };
    let mut expected = before;
    for path in ["description", "name", "permissions"] {
        match path {
            "name" => expected.name = "renamed".into(),
            "description" => expected.description = "described".into(),
            _ => expected.permissions = Some(permissions(Read)),
        }
        let request = update_request(&server.stack, &token.uid, &[path], everything.clone());
        let changed = owner.tokens.update(request).await.unwrap().into_inner();
        assert_eq!(changed.token.as_ref(), Some(&expected), "{path}");
        assert_eq!(server.see(&token.uid).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_that_names_nothing_or_anything_else_is_refused() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let before = server.see(&token.uid).await;
    let mut owner = server.owner().await;
    let table: [(&[&str], &[&str]); 9] = [
        (&[], &["update_mask"]),
        (&[""], &["update_mask.paths[0]"]),
        (&["*"], &["update_mask.paths[0]"]),
        (&["name", "expires_at"], &["update_mask.paths[1]"]),
        (&["state"], &["update_mask.paths[0]"]),
        (&["token.name"], &["update_mask.paths[0]"]),
        (&["permissions.access"], &["update_mask.paths[0]"]),
        (
            &["token_uid", "stack_api_key"],
            &["update_mask.paths[0]", "update_mask.paths[1]"],
        ),
        (&["Name"], &["update_mask.paths[0]"]),
    ];
    for (paths, expected) in table {
        let request = update_request(&server.stack, &token.uid, paths, words("renamed", ""));
        let status = owner.tokens.update(request).await.unwrap_err();
        assert_eq!(fields(&status), expected, "{paths:?}");
    }
    assert_eq!(server.see(&token.uid).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let status = owner.tokens.update(v1::UpdateRequest::default()).await;
    let expected = ["stack_api_key", "token", "update_mask"];
    assert_eq!(fields(&status.unwrap_err()), expected);
    let bad = v1::Token {
        permissions: Some(modules(Read, &[("entry", ReadWrite), ("nope", Read)])),
        ..words(&"x".repeat(51), &"x".repeat(501))
    };
    let all = ["permissions", "description", "name"];
    let status = owner
        .tokens
        .update(update_request("blt", "x", &all, bad))
        .await;
    assert_eq!(
        fields(&status.unwrap_err()),
        [
            "stack_api_key",
            "token.token_uid",
            "token.permissions.modules.grants[0].access",
            "token.permissions.modules.grants[1].module",
            "token.description",
            "token.name",
        ]
    );
    let status = owner
        .tokens
        .update(update_request(
            &server.stack,
            &token.uid,
            &all,
            words("", ""),
        ))
        .await;
    assert_eq!(
        fields(&status.unwrap_err()),
        ["token.permissions", "token.name"]
    );
    let longest = words(&"é".repeat(50), &"é".repeat(500));
    let both = ["name", "description"];
    let request = update_request(&server.stack, &token.uid, &both, longest);
    assert_eq!(outcome(&owner.tokens.update(request).await), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_unique_among_live_tokens_and_free_after_death() {
    const TAKEN: &str = "AlreadyExists NAME_TAKEN";
    let server = TestServer::start().await;
    let token = server.token("mine").await;
    let mut owner = server.owner().await;
    let mut rename = async |name: &str| {
        let request = rename_request(&server.stack, &token.uid, name);
        outcome(&owner.tokens.update(request).await)
    };
    let live = server.token("live").await;
    assert_eq!(rename("live").await, TAKEN);
    assert_eq!(rename("mine").await, "OK", "one's own name is no obstacle");
    server.revoke(&live.uid).await;
    assert_eq!(rename("live").await, "OK");
    let ended = server.token("ended").await;
    assert_eq!(rename("ended").await, TAKEN);
    server.set_expiry(&ended.uid, now()).await;
    assert_eq!(rename("ended").await, "OK");
    server.token_until("brief", at(START + 60)).await;
    assert_eq!(rename("brief").await, TAKEN);
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(
        rename("brief").await,
        "OK",
        "expired, though nothing met it since"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn widened_and_narrowed_permissions_count_in_the_very_next_verdict() {
    let server = TestServer::start().await;
    let token = server.token_with("deploy", permissions(Read)).await;
    let mut owner = server.owner().await;
    for (permissions, expected) in [
        (permissions(ReadWrite), "UNSPECIFIED"),
        (
            modules(ReadWrite, &[("asset", ReadWrite)]),
            "MODULE_NOT_GRANTED",
        ),
        (modules(ReadWrite, &[("entry", Read)]), "READ_ONLY"),
        (modules(ReadWrite, &[("entry", ReadWrite)]), "UNSPECIFIED"),
        (branches(ReadWrite, &["main"], &[]), "BRANCH_NOT_GRANTED"),
        (permissions(Read), "READ_ONLY"),
        (permissions(ReadWrite), "UNSPECIFIED"),
    ] {
        let request = permit_request(&server.stack, &token.uid, permissions.clone());
        let changed = owner.tokens.update(request).await.unwrap().into_inner();
        let changed = changed.token.unwrap().permissions.unwrap();
        assert_eq!(changed, permissions);
        let answer = server.introspect(&token.secret, &["entry.update"]).await;
        let reason = answer.reason().as_str_name().replace("REASON_", "");
        assert_eq!(reason, expected, "{permissions:?}");
        assert_eq!(answer.permissions.as_ref(), Some(&permissions));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_updated_in_a_suspended_stack() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.suspend().await;
    let mut owner = server.owner().await;
    let request = rename_request(&server.stack, &token.uid, "renamed");
    let told = outcome(&owner.tokens.update(request.clone()).await);
    assert_eq!(told, "FailedPrecondition STACK_SUSPENDED");
    assert_eq!(server.see(&token.uid).await.name, "deploy");
    server.resume().await;
    assert_eq!(outcome(&owner.tokens.update(request).await), "OK");
}
