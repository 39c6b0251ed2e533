//! Tests how `Issue` validates its input: the exact limits of each field, and the error beyond
//! them.

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::support::{
    TestServer, after,
    clients::{details, fields},
    clock::START,
    issue_request, now, on_date, permissions,
    requests::{branches, get_request, modules, outcome, refused},
};

/// The longest relative expiry that is accepted, in seconds.
const LONGEST: i64 = 36_500 * 86_400;

fn expiry(choice: v1::expiry::Expiry) -> Option<v1::Expiry> {
    Some(v1::Expiry {
        expiry: Some(choice),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_and_expiry_have_no_default_and_the_refusal_names_the_choices() {
    use v1::expiry::Expiry::{Never, Now};

    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let good = || issue_request(&server.stack, "deploy");
    let unsaid = permissions(v1::Access::Unspecified);
    let cases = [
        (
            v1::IssueRequest {
                permissions: None,
                ..good()
            },
            "permissions",
            "access",
        ),
        (
            v1::IssueRequest {
                permissions: Some(unsaid),
                ..good()
            },
            "permissions.access",
            "ACCESS_READ or ACCESS_READ_WRITE",
        ),
        (
            v1::IssueRequest {
                expiry: None,
                ..good()
            },
            "expiry",
            "at, on_date, after or never",
        ),
        (
            v1::IssueRequest {
                expiry: Some(v1::Expiry { expiry: None }),
                ..good()
            },
            "expiry",
            "at, on_date, after or never",
        ),
        (
            v1::IssueRequest {
                expiry: expiry(Never(false)),
                ..good()
            },
            "expiry.never",
            "true",
        ),
        (
            v1::IssueRequest {
                expiry: expiry(Now(true)),
                ..good()
            },
            "expiry.now",
            "never",
        ),
        (
            v1::IssueRequest {
                expiry: expiry(Now(false)),
                ..good()
            },
            "expiry.now",
            "true",
        ),
    ];
    for (request, field, hint) in cases {
        let status = owner.tokens.issue(request).await.unwrap_err();
        assert_eq!(
            refused(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into())
        );
        assert_eq!(fields(&status), [field]);
        assert!(status.message().contains(hint), "{}", status.message());
    }
    assert_eq!(server.limit().await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_request_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let status = owner.tokens.issue(v1::IssueRequest::default()).await;
    let status = status.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert_eq!(
        fields(&status),
        ["stack_api_key", "name", "permissions", "expiry"]
    );
    let mut permissions = modules(
        v1::Access::Read,
        &[
            ("entry", v1::Access::ReadWrite),
            ("entries", v1::Access::Unspecified),
            ("asset", v1::Access::Read),
            ("asset", v1::Access::Read),
        ],
    );
    permissions.branches = branches(v1::Access::Read, &["a b", "main", "main"], &[""]).branches;
    let request = v1::IssueRequest {
        stack_api_key: "blt".into(),
        name: " x".into(),
        description: "x".repeat(501),
        permissions: Some(permissions),
        expiry: Some(on_date("2026-02-30")),
        request_id: "a b".into(),
        validate_only: false,
        labels: [("Team".to_owned(), "shop".to_owned())].into(),
        federation: None,
    };
    let status = owner.tokens.issue(request).await.unwrap_err();
    assert_eq!(
        fields(&status),
        [
            "stack_api_key",
            "name",
            "description",
            "permissions.modules.grants[0].access",
            "permissions.modules.grants[1].module",
            "permissions.modules.grants[1].access",
            "permissions.modules.grants[3].module",
            "permissions.branches.branches[0]",
            "permissions.branches.branches[2]",
            "permissions.branches.aliases[0]",
            "labels[\"Team\"]",
            "expiry.on_date",
            "request_id",
        ]
    );
    let words = details(&status)
        .bad_request()
        .unwrap()
        .field_violations
        .clone();
    assert!(
        words.iter().all(|fault| fault.description.len() > 10),
        "{words:?}"
    );
    let known = &words[4].description;
    assert!(
        known.contains("entry, asset") && known.contains("app"),
        "{known}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_keep_to_their_limits_to_the_character() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let (é50, é51) = ("é".repeat(50), "é".repeat(51));
    let (d500, d501) = ("ß".repeat(500), "ß".repeat(501));
    let table: [(&str, &str, &[&str]); 13] = [
        ("x", "", &[]),
        (&é50, &d500, &[]),
        ("inner blank", "two\nlines\tand a tab", &[]),
        ("", "", &["name"]),
        (&é51, "", &["name"]),
        ("y", &d501, &["description"]),
        (&é51, &d501, &["name", "description"]),
        (" leading", "", &["name"]),
        ("trailing ", "", &["name"]),
        ("two\nlines", "", &["name"]),
        ("turned \u{202e}round", "", &["name"]),
        ("nul\u{0}", "", &["name"]),
        ("z", "nul\u{0}", &["description"]),
    ];
    for (name, description, expected) in table {
        let request = v1::IssueRequest {
            description: description.into(),
            ..issue_request(&server.stack, name)
        };
        match owner.tokens.issue(request).await {
            Ok(issued) => {
                assert!(expected.is_empty(), "{name:?}");
                let token = issued.into_inner().token.unwrap();
                assert_eq!(
                    (token.name.as_str(), token.description.as_str()),
                    (name, description)
                );
            }
            Err(status) => assert_eq!(fields(&status), expected, "{name:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_keep_to_their_limits_to_the_entry() {
    use v1::Access::{Read, ReadWrite};

    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let catalogue = owner.actions.list_actions(v1::ListActionsRequest {}).await;
    let mut all: Vec<String> = catalogue
        .unwrap()
        .into_inner()
        .actions
        .into_iter()
        .filter(|action| action.rule() != v1::ActionRule::Never)
        .map(|action| action.module)
        .collect();
    all.dedup();
    let all: Vec<(&str, v1::Access)> = all.iter().map(|name| (name.as_str(), Read)).collect();
    assert_eq!(all.len(), 23);
    let mut one_more = all.clone();
    one_more.push(("entry", Read));
    let names: Vec<String> = (0..101).map(|n| format!("b{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let slug64 = "x".repeat(64);
    let slug65 = "x".repeat(65);
    let unknown_access = v1::Permissions {
        access: 7,
        modules: None,
        branches: None,
    };
    let mut unknown_grant = modules(ReadWrite, &[("entry", Read)]);
    unknown_grant.modules.as_mut().unwrap().grants[0].access = 9;
    let table: Vec<(v1::Permissions, &[&str])> = vec![
        (modules(Read, &all), &[]),
        (branches(Read, &names[..60], &names[60..100]), &[]),
        (branches(Read, &["main"], &["main"]), &[]),
        (branches(Read, &[&slug64], &[]), &[]),
        (
            modules(Read, &one_more),
            &["permissions.modules.grants[23].module"],
        ),
        (
            modules(
                Read,
                &[("entry", Read), ("token", Read), ("user_session", Read)],
            ),
            &[
                "permissions.modules.grants[1].module",
                "permissions.modules.grants[2].module",
            ],
        ),
        (modules(Read, &[]), &["permissions.modules.grants"]),
        (
            modules(Read, &[("Entry", Read)]),
            &["permissions.modules.grants[0].module"],
        ),
        (
            modules(Read, &[("asset", ReadWrite)]),
            &["permissions.modules.grants[0].access"],
        ),
        (branches(Read, &[], &[]), &["permissions.branches"]),
        (
            branches(Read, &names[..60], &names[60..101]),
            &["permissions.branches"],
        ),
        (
            branches(Read, &[&slug65], &[]),
            &["permissions.branches.branches[0]"],
        ),
        (
            branches(Read, &["main", "main"], &[]),
            &["permissions.branches.branches[1]"],
        ),
        (
            branches(Read, &[], &["live", "a/b", "live"]),
            &[
                "permissions.branches.aliases[1]",
                "permissions.branches.aliases[2]",
            ],
        ),
        (unknown_access, &["permissions.access"]),
        (unknown_grant, &["permissions.modules.grants[0].access"]),
    ];
    for (at, (permissions, expected)) in table.into_iter().enumerate() {
        let request = v1::IssueRequest {
            permissions: Some(permissions.clone()),
            ..issue_request(&server.stack, &format!("token {at}"))
        };
        match owner.tokens.issue(request).await {
            Ok(_) => assert!(expected.is_empty(), "{permissions:?}"),
            Err(status) => assert_eq!(fields(&status), expected, "{permissions:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_needs_an_expiry_in_the_future() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let instant = |seconds, nanos| expiry(v1::expiry::Expiry::At(Timestamp { seconds, nanos }));
    let table = [
        (instant(START, 1000), None),
        (Some(on_date("2026-11-25")), None),
        (instant(253_402_300_799, 999_999_999), None),
        (instant(START, 0), Some("expiry.at")),
        (instant(START, 999), Some("expiry.at")),
        (instant(START - 1, 0), Some("expiry.at")),
        (instant(i64::MIN, 0), Some("expiry.at")),
        (instant(i64::MAX, 0), Some("expiry.at")),
        (instant(253_402_300_800, 0), Some("expiry.at")),
        (instant(START + 60, -1), Some("expiry.at")),
        (instant(START + 60, 1_000_000_000), Some("expiry.at")),
        (Some(on_date("2026-11-24")), Some("expiry.on_date")),
        (Some(on_date("2026-11-23")), Some("expiry.on_date")),
        (Some(on_date("2026-13-01")), Some("expiry.on_date")),
        (Some(on_date("01/02/2027")), Some("expiry.on_date")),
        (Some(on_date("")), Some("expiry.on_date")),
        (Some(now()), Some("expiry.now")),
        (Some(after(0, 1000)), None),
        (Some(after(LONGEST, 999)), None),
        (Some(after(0, 0)), Some("expiry.after")),
        (Some(after(0, 999)), Some("expiry.after")),
        (Some(after(-1, 0)), Some("expiry.after")),
        (Some(after(0, -1)), Some("expiry.after")),
        (Some(after(1, -1)), Some("expiry.after")),
        (Some(after(-1, 1)), Some("expiry.after")),
        (Some(after(1, 1_000_000_000)), Some("expiry.after")),
        (Some(after(LONGEST, 1000)), Some("expiry.after")),
        (Some(after(i64::MAX, i32::MAX)), Some("expiry.after")),
        (Some(after(i64::MIN, i32::MIN)), Some("expiry.after")),
    ];
    for (at, (expiry, fault)) in table.into_iter().enumerate() {
        let request = v1::IssueRequest {
            expiry,
            ..issue_request(&server.stack, &format!("token {at}"))
        };
        match owner.tokens.issue(request).await {
            Ok(_) => assert_eq!(fault, None, "row {at}"),
            Err(status) => assert_eq!(fields(&status), Vec::from_iter(fault), "row {at}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_is_an_invalid_argument_and_changes_nothing() {
    use prost::Message as _;

    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let sized = |bytes: usize| {
        let mut request = get_request(&server.stack, "");
        let around = request.encoded_len() + 4;
        request.token_uid = "x".repeat(bytes - around);
        assert_eq!(request.encoded_len(), bytes);
        request
    };
    let at_the_limit = owner.tokens.get(sized(64 * 1024)).await.unwrap_err();
    assert_eq!(
        fields(&at_the_limit),
        ["token_uid"],
        "decoded, and refused for its content"
    );
    let above = owner.tokens.get(sized(64 * 1024 + 1)).await.unwrap_err();
    assert_eq!(
        refused(&above),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert!(above.message().contains("64 KiB"), "{}", above.message());
    assert!(details(&above).request_info().is_some());
    let request = v1::IssueRequest {
        description: "x".repeat(64 * 1024),
        ..issue_request(&server.stack, "deploy")
    };
    let issued = owner.tokens.issue(request).await;
    assert_eq!(outcome(&issued), "InvalidArgument INVALID_FIELD");
    assert_eq!(server.limit().await.0, 0);
}
