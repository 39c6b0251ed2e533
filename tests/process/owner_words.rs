//! Tests that `update` changes only the given parts of a token, that errors from the server name
//! the flags, and that input that is not a secret is rejected or noted.

use serde_json::Value;

use crate::{
    owner_verbs::{command, end, issue, owner, token, words},
    program::{Dev, folder},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_updated_in_the_parts_that_are_given() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    issue(
        &dev,
        "deploy",
        " --module entry:read --branch main --label a=1",
    );
    let before = token(&dev, "deploy");
    let (uid, etag) = (words(&before, "tokenUid"), words(&before, "etag"));
    let update = |flags: &str| owner(&dev, &format!("update --token {uid} {flags}"));
    let previewed = update("--new-name other --all-modules --validate-only").done();
    let said = format!("token {uid} would be:\ntoken:       {uid}\nname:        other\n");
    assert!(previewed.starts_with(&said), "{previewed}");
    assert!(
        previewed.contains("\npermissions: read-write --branch main\n"),
        "{previewed}"
    );
    assert!(previewed.contains("\nlast used: never\n"), "{previewed}");
    assert_eq!(token(&dev, "deploy"), before);
    let permissions = |access: &str, modules: Value, branches: Value| {
        let mut expected = serde_json::json!({ "access": access });
        for (part, value) in [("modules", modules), ("branches", branches)] {
            if !value.is_null() {
                expected[part] = value;
            }
        }
        expected
    };
    let (grants, main) = (
        serde_json::json!({ "grants": [{ "module": "entry", "access": "ACCESS_READ" }] }),
        serde_json::json!({ "branches": ["main"] }),
    );
    let others = serde_json::json!({ "branches": ["eu"], "aliases": ["live"] });
    for (flags, name, description, label, expected) in [
        (
            "--new-name other",
            "other",
            "",
            "1",
            permissions("ACCESS_READ_WRITE", grants.clone(), main.clone()),
        ),
        (
            "--description for_CI --label a=2",
            "other",
            "for CI",
            "2",
            permissions("ACCESS_READ_WRITE", grants.clone(), main.clone()),
        ),
        (
            "--access read --all-branches",
            "other",
            "for CI",
            "2",
            permissions("ACCESS_READ", grants, Value::Null),
        ),
        (
            "--all-modules --branch eu --alias live",
            "other",
            "for CI",
            "2",
            permissions("ACCESS_READ", Value::Null, others.clone()),
        ),
        (
            "--no-labels --description=",
            "other",
            "",
            "",
            permissions("ACCESS_READ", Value::Null, others),
        ),
    ] {
        let answer = update(&format!("{flags} --output json")).json();
        let after = &answer["token"];
        assert_eq!(after["name"], name, "{flags}");
        assert_eq!(
            after["description"].as_str().unwrap_or_default(),
            description,
            "{flags}"
        );
        assert_eq!(
            after["labels"]["a"].as_str().unwrap_or_default(),
            label,
            "{flags}"
        );
        assert_eq!(after["permissions"], expected, "{flags}");
    }
    let stale = update(&format!("--new-name third --etag {etag}"));
    assert_eq!(stale.code, Some(4), "{stale:?}");
    let done = update("--new-name third").done();
    assert!(
        done.starts_with(&format!("updated token {uid}\n")),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_faults_are_told_in_the_words_of_the_command_line() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    issue(&dev, "deploy", " --module entry:read-write --label a=1");
    let long = "x".repeat(64);
    for (line, said) in [
        (
            "issue --name x --access read --expires 1999-01-01 --module entry:read --module nope:read".to_owned(),
            &["--module (number 2) is not a known module: ", "; --expires is not in the future: "][..],
        ),
        (
            format!("issue --name x --access read --expires 1h --label a={long} --branch {}", long.repeat(4)),
            &["--label a has 64 characters", "--branch (number 1) "],
        ),
        (
            "issue --name x --access read --module entry:read-write --expires 40000d".to_owned(),
            &["raise `--access` or lower this", "--expires must be at most 36500 days"],
        ),
        (
            "update --name deploy --access read".to_owned(),
            &["--access is below what the token is granted on entry: give --module or --all-modules too"],
        ),
        (
            "list --issued-from 1h --issued-before 2h --page-token x".to_owned(),
            &["--issued-before must be after --issued-from", "--page-token is not a page token"],
        ),
        (
            "list --issued-by x_ y".to_owned(),
            &["--issued-by "],
        ),
    ] {
        let ended = owner(&dev, &line);
        assert_eq!(ended.code, Some(2), "{line}: {ended:?}");
        for said in said {
            assert!(ended.error.contains(said), "{line}: no {said} in {ended:?}");
        }
        let (_, words) = ended.error.split_once("INVALID_FIELD: ").unwrap();
        let (words, _) = words.split_once(" [request id").unwrap();
        assert!(words.starts_with("--"), "{line}: {words}");
        for field in ["expiry", "permissions", "update_mask", "issued_", "page_token"] {
            assert!(!words.contains(field), "{line}: {field} in {words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_certainly_no_secret_is_not_sent() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let key = dev.get("stack_api_key").to_owned();
    for (input, said) in [
        (
            dev.get("owner_jwt"),
            "contains a JWT, which belongs in --jwt-file",
        ),
        (
            &format!("Bearer {}", dev.get("owner_jwt")),
            "contains a JWT",
        ),
        (
            &key,
            "contains the API key of a stack, which belongs in --stack",
        ),
    ] {
        let ended = end(&mut command(&dev, "service_jwt", "introspect"), input);
        assert_eq!(
            (ended.code, ended.output.as_str()),
            (Some(2), ""),
            "{ended:?}"
        );
        let said = format!("stacktoken: standard input {said}");
        assert!(ended.error.starts_with(&said), "{ended:?}");
        assert!(ended.error.ends_with("; nothing was sent\n"), "{ended:?}");
        assert!(!ended.error.contains("eyJ"), "{ended:?}");
    }
    let secret = issue(&dev, "deploy", "");
    for (input, is_noted) in [("swordfish", true), (&secret[..50], true), (&secret, false)] {
        let ended = end(&mut command(&dev, "service_jwt", "introspect"), input);
        assert_eq!(ended.code, Some(if is_noted { 4 } else { 0 }), "{ended:?}");
        assert_eq!(
            ended
                .error
                .starts_with("note: standard input contains no secret"),
            is_noted,
            "{ended:?}"
        );
        assert!(!ended.error.contains(input), "{ended:?}");
    }
}
