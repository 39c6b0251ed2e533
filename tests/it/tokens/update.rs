use std::time::Duration;

use stacktoken::grpc::pb::v1::{
    self,
    Access::{Read, ReadWrite},
};

use super::labels::labels;
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
        secrets: vec![v1::TokenSecret::default()],
        expires_at: None,
        stack_api_key: "blt0000000000000000".into(),
        labels: labels(&[("team", "shop")]),
        ..words("renamed", "described")
    };
    let mut expected = before;
    for path in ["description", "name", "permissions", "labels"] {
        match path {
            "name" => expected.name = "renamed".into(),
            "labels" => expected.labels = labels(&[("team", "shop")]),
            "description" => expected.description = "described".into(),
            _ => expected.permissions = Some(permissions(Read)),
        }
        let request = update_request(&server.stack, &token.uid, &[path], everything.clone());
        let changed = owner.tokens.update(request).await.unwrap().into_inner();
        let changed = changed.token.unwrap();
        assert_ne!(changed.etag, expected.etag, "{path}");
        expected.etag = changed.etag.clone();
        assert_eq!(changed, expected, "{path}");
        assert_eq!(server.see(&token.uid).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_that_names_nothing_or_anything_else_is_refused() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let before = server.see(&token.uid).await;
    let mut owner = server.owner().await;
    let table: [(&[&str], &[&str]); 11] = [
        (&[], &["update_mask"]),
        (&[""], &["update_mask.paths[0]"]),
        (&["*"], &["update_mask.paths[0]"]),
        (&["name", "expires_at"], &["update_mask.paths[1]"]),
        (&["state"], &["update_mask.paths[0]"]),
        (&["token.name"], &["update_mask.paths[0]"]),
        (&["permissions.modules.grants"], &["update_mask.paths[0]"]),
        (&["permissions."], &["update_mask.paths[0]"]),
        (
            &["etag", "name", "secrets"],
            &["update_mask.paths[0]", "update_mask.paths[2]"],
        ),
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
            "token.name",
            "token.description",
            "token.permissions.modules.grants[0].access",
            "token.permissions.modules.grants[1].module",
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
        ["token.name", "token.permissions"]
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
    assert_eq!(rename("mine").await, "OK", "a token may keep its own name");
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
        "the expired name is free, even if no change has recorded the expiry"
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

fn parts(paths: &[&str], server: &TestServer, uid: &str, to: v1::Permissions) -> v1::UpdateRequest {
    let token = v1::Token {
        permissions: Some(to),
        ..Default::default()
    };
    update_request(&server.stack, uid, paths, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_reaches_into_permissions_and_leaves_their_other_parts() {
    let server = TestServer::start().await;
    let mut expected = modules(ReadWrite, &[("entry", ReadWrite)]);
    expected.branches = branches(ReadWrite, &["main"], &["live"]).branches;
    let token = server.token_with("deploy", expected.clone()).await;
    let mut owner = server.owner().await;
    let everything = v1::Permissions {
        branches: branches(Read, &["dev"], &[]).branches,
        ..modules(Read, &[("asset", Read)])
    };
    for (paths, change) in [
        (&["permissions.branches"][..], "branches"),
        (&["permissions.modules"], "modules"),
        (&["permissions.access"], "access"),
    ] {
        let request = parts(paths, &server, &token.uid, everything.clone());
        let changed = owner.tokens.update(request).await.unwrap().into_inner();
        match change {
            "branches" => expected.branches = everything.branches.clone(),
            "modules" => expected.modules = everything.modules.clone(),
            _ => expected.access = everything.access,
        }
        let changed = changed.token.unwrap();
        assert_eq!(changed.permissions.as_ref(), Some(&expected), "{paths:?}");
        assert_eq!(server.see(&token.uid).await, changed);
    }
    // If the mask names a restriction that has no value, this restriction is removed, and no other.
    for path in ["permissions.modules", "permissions.branches"] {
        let nothing = update_request(&server.stack, &token.uid, &[path], words("", ""));
        let changed = owner.tokens.update(nothing).await.unwrap().into_inner();
        match path {
            "permissions.modules" => expected.modules = None,
            _ => expected.branches = None,
        }
        assert_eq!(changed.token.unwrap().permissions.as_ref(), Some(&expected));
    }
    // The path of a message includes the paths of its fields.
    let both = ["permissions.access", "permissions", "name"];
    let mut request = parts(&both, &server, &token.uid, everything.clone());
    request.token.as_mut().unwrap().name = "renamed".into();
    let changed = owner.tokens.update(request).await.unwrap().into_inner();
    let changed = changed.token.unwrap();
    assert_eq!(changed.permissions, Some(everything));
    assert_eq!(changed.name, "renamed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_permissions_is_checked_with_the_parts_that_the_token_has() {
    let server = TestServer::start().await;
    let read = server.token_with("read", permissions(Read)).await;
    let granted = modules(ReadWrite, &[("entry", ReadWrite), ("asset", Read)]);
    let write = server.token_with("write", granted.clone()).await;
    let mut owner = server.owner().await;
    let grants = modules(ReadWrite, &[("asset", Read), ("entry", ReadWrite)]);
    let table: [(&str, &[&str], v1::Permissions, &[&str]); 6] = [
        (
            &read.uid,
            &["permissions.modules"],
            grants.clone(),
            &["token.permissions.modules.grants[1].access"],
        ),
        (
            &write.uid,
            &["permissions.access"],
            permissions(Read),
            &["token.permissions.access"],
        ),
        (
            &write.uid,
            &["permissions.access", "permissions.modules"],
            v1::Permissions {
                access: Read.into(),
                ..grants.clone()
            },
            &["token.permissions.modules.grants[1].access"],
        ),
        (
            &write.uid,
            &["permissions.access", "permissions.modules"],
            modules(v1::Access::Unspecified, &[("nope", Read)]),
            &[
                "token.permissions.access",
                "token.permissions.modules.grants[0].module",
            ],
        ),
        (
            &write.uid,
            &["permissions.modules", "permissions.branches"],
            v1::Permissions {
                branches: branches(Read, &[], &[]).branches,
                ..modules(Read, &[])
            },
            &[
                "token.permissions.modules.grants",
                "token.permissions.branches",
            ],
        ),
        (
            &write.uid,
            &["permissions.access"],
            v1::Permissions::default(),
            &["token.permissions.access"],
        ),
    ];
    let before = server.see(&write.uid).await;
    for (uid, paths, to, expected) in table {
        for validate_only in [true, false] {
            let request = v1::UpdateRequest {
                validate_only,
                ..parts(paths, &server, uid, to.clone())
            };
            let status = owner.tokens.update(request).await.unwrap_err();
            assert_eq!(fields(&status), expected, "{paths:?} {to:?}");
        }
    }
    let status = parts(
        &["permissions.access"],
        &server,
        &write.uid,
        permissions(Read),
    );
    let status = owner.tokens.update(status).await.unwrap_err();
    assert!(status.message().contains("entry"), "{}", status.message());
    assert_eq!(server.see(&write.uid).await, before);
    let lowered = modules(Read, &[("entry", Read)]);
    let both = ["permissions.modules", "permissions.access"];
    let request = parts(&both, &server, &write.uid, lowered.clone());
    let changed = owner.tokens.update(request).await.unwrap().into_inner();
    assert_eq!(changed.token.unwrap().permissions, Some(lowered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_changes_nothing_is_ok_and_leaves_no_row() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let described = update_request(&server.stack, &token.uid, &["description"], words("", "x"));
    let changed = owner.tokens.update(described.clone()).await.unwrap();
    let changed = changed.into_inner();
    let before = server.outside().await.dump().await;
    for paths in [
        &["description"][..],
        &[
            "name",
            "description",
            "permissions.access",
            "permissions.modules",
        ],
        &["permissions"],
    ] {
        let same = changed.token.clone().unwrap();
        let request = update_request(&server.stack, &token.uid, paths, same);
        let again = owner.tokens.update(request).await.unwrap().into_inner();
        assert_eq!(again, changed, "{paths:?}");
    }
    assert_eq!(server.outside().await.dump().await, before);
}
