//! Tests the commands for the owner of a stack (list, get, set-expiry, rotate, end-overlap and
//! revoke), with output for people and for scripts.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::program::{Dev, folder, program, text};

/// The output and the exit code of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub output: String,
    pub error: String,
}

impl CommandOutput {
    /// Returns the output, after asserting that the command has succeeded.
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.output
    }

    pub fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}

pub fn end(command: &mut Command, input: &str) -> CommandOutput {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = streams.stderr(Stdio::piped()).spawn().unwrap();
    // The write may fail, because a command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    CommandOutput {
        code: done.status.code(),
        output: text(&done.stdout),
        error: text(&done.stderr),
    }
}

/// Runs a command line as this user of `dev`. Within an argument, a `_` stands for a space.
fn run(dev: &Dev, jwt: &str, line: &str) -> CommandOutput {
    end(&mut command(dev, jwt, line), "")
}

pub fn command(dev: &Dev, jwt: &str, line: &str) -> Command {
    let mut command = program();
    command
        .args(line.split(' ').map(|word| word.replace('_', " ")))
        .env("STACKTOKEN_SERVER", dev.get("grpc_address"))
        .env("STACKTOKEN_STACK", dev.get("stack_api_key"))
        .env("STACKTOKEN_JWT", dev.get(jwt));
    command
}

pub fn owner(dev: &Dev, line: &str) -> CommandOutput {
    run(dev, "owner_jwt", line)
}

/// Introspects a secret. Returns the response.
fn introspect(dev: &Dev, secret: &str) -> Value {
    let ended = end(&mut command(dev, "service_jwt", "introspect"), secret);
    serde_json::from_str(&ended.output).unwrap()
}

pub fn issue(dev: &Dev, name: &str, more: &str) -> String {
    let line = format!("issue --name {name} --access read-write --expires 90d{more}");
    owner(dev, &line).done().trim().to_owned()
}

pub fn token(dev: &Dev, name: &str) -> Value {
    owner(dev, &format!("get --name {name} --output json")).json()["token"].clone()
}

pub fn words<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_listed_for_people_and_for_scripts() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let ended = owner(&dev, "list");
    assert_eq!(ended.error, "0 of at most 10 live tokens in the stack\n");
    let headings = "TOKEN  NAME  STATE  ACCESS  SECRETS  EXPIRES  LAST USED\n";
    assert_eq!(ended.done(), headings);
    let secret = issue(&dev, "one", " --label team=shop --label tier=1");
    issue(&dev, "two", " --label team=shop --module entry:read");
    issue(&dev, "three_more", "");
    introspect(&dev, &secret);
    let table = owner(&dev, "list --order oldest").done();
    let rows: Vec<_> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{table}");
    let hint = format!("…{}", &secret[47..]);
    assert!(
        rows[0].contains("  one         active  read-write              "),
        "{table}"
    );
    assert!(
        rows[0].contains(&hint) && !rows[0].ends_with("never"),
        "{table}"
    );
    assert!(rows[1].contains("  read-write, restricted  "), "{table}");
    assert!(
        rows[2].contains("  three more  ") && rows[2].ends_with("  never"),
        "{table}"
    );
    let count = |filter: &str| {
        let list = owner(&dev, &format!("list --output json {filter}")).json();
        list["tokens"].as_array().map_or(0, Vec::len)
    };
    for (filter, expected) in [
        ("--state active", 3),
        ("--state revoked --state expired", 0),
        ("--name one", 1),
        ("--name-contains o", 3),
        ("--label team=shop", 2),
        ("--label team=shop --label tier=1", 1),
        ("--access read", 0),
        ("--access read-write", 3),
        (&format!("--secret-hint {}", &secret[47..]), 1),
        ("--expires-before 89d", 0),
        ("--expires-before 91d", 3),
        ("--expires-from 91d", 0),
        ("--unused-since 1h", 0),
        ("--unused-since 9999-01-01", 3),
        ("--issued-from 1h", 3),
        ("--issued-by https://dev.stacktoken.invalid owner", 3),
        ("--issued-by https://dev.stacktoken.invalid admin", 0),
        ("--issued-before 1h", 0),
    ] {
        assert_eq!(count(filter), expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_one_document_or_a_page() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    for name in ["a", "b", "c"] {
        issue(&dev, name, "");
    }
    let list =
        |flags: &str| owner(&dev, &format!("list --order name --output json {flags}")).json();
    let names = |list: &Value| -> String {
        let tokens = list["tokens"].as_array().unwrap().iter();
        tokens
            .map(|token| words(token, "name").to_owned())
            .collect()
    };
    let all = list("--state active");
    assert_eq!(names(&all), "abc");
    assert_eq!(all["limit"], serde_json::json!({ "used": 3, "max": 10 }));
    assert_eq!(all.get("nextPageToken"), None);
    let first = list("--page-size 2");
    assert_eq!(names(&first), "ab");
    let token = words(&first, "nextPageToken");
    let last = list(&format!("--page-size 2 --page-token {token}"));
    assert_eq!(
        (names(&last), last.get("nextPageToken")),
        ("c".into(), None)
    );
    let told = owner(&dev, "list --order name --page-size 2").error;
    assert!(
        told.contains(&format!("there is a next page: --page-token {token}")),
        "{told}"
    );
}

/// More tokens are issued and revoked than fit on a page. Revoked tokens stay in the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pages_are_one_list() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let stack = dev.get("stack_api_key");
    let mut owner_client = dev.client("owner_jwt").await;
    for count in 0..101 {
        let request = crate::support::issue_request(stack, &format!("t{count}"));
        let issued = owner_client
            .tokens
            .issue(request)
            .await
            .unwrap()
            .into_inner();
        let uid = issued.token.unwrap().token_uid;
        let request = crate::support::requests::revoke_request(stack, &uid, "");
        owner_client.tokens.revoke(request).await.unwrap();
    }
    let table = owner(&dev, "list").done();
    assert_eq!(table.lines().count(), 1 + 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_and_its_expiry_set_for_its_etag() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    issue(&dev, "deploy", " --label team=shop --branch main");
    let shown = owner(&dev, "get --name deploy").done();
    for line in [
        "name:        deploy",
        "state:       active",
        "permissions: read-write --branch main",
        "labels:      team=shop",
        "last used:   never",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "no {line} in\n{shown}"
        );
    }
    let before = token(&dev, "deploy");
    let (uid, etag) = (words(&before, "tokenUid"), words(&before, "etag"));
    assert!(shown.contains(etag), "{shown}");
    let set = |flags: &str| owner(&dev, &format!("set-expiry --token {uid} {flags}"));
    let previewed = set("--expires never --validate-only").done();
    assert!(
        previewed.starts_with(&format!(
            "token {uid} would be: never expires\nlast used: never"
        )),
        "{previewed}"
    );
    assert_eq!(token(&dev, "deploy"), before);
    assert_eq!(
        set("--expires 9999-01-31").done(),
        format!("token {uid}: expires at 9999-01-31T00:00:00Z\n")
    );
    let refused = set(&format!("--expires never --etag {etag}"));
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(
        refused.error.contains("ABORTED/ETAG_MISMATCH"),
        "{refused:?}"
    );
    let answer = set("--expires never --output json").json();
    assert_eq!(answer["token"].get("expiresAt"), None, "{answer}");
    let ended = set("--expires now").done();
    assert!(
        ended.starts_with(&format!("token {uid}: expired at ")),
        "{ended}"
    );
    let dead = owner(&dev, &format!("get --token {uid}")).done();
    assert!(dead.contains("state:       expired\n"), "{dead}");
    let gone = owner(&dev, "get --name deploy");
    assert_eq!((gone.code, gone.output.as_str()), (Some(3), ""), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_prints_the_new_secret_alone() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let former = issue(&dev, "deploy", "");
    let before = token(&dev, "deploy");
    let uid = words(&before, "tokenUid");
    let previewed = owner(&dev, "rotate --name deploy --overlap 7d --validate-only").done();
    assert!(
        previewed.starts_with(&format!("would rotate token {uid} to generation 2; ")),
        "{previewed}"
    );
    assert_eq!(token(&dev, "deploy"), before);
    let rotated = owner(&dev, "rotate --name deploy --until-first-use --at-most 7d");
    let run_serve = format!(
        "rotated token {uid} to generation 2; this is the only time its secret is shown; the former secret works until the new one is used, and until "
    );
    assert!(rotated.error.starts_with(&run_serve), "{rotated:?}");
    assert!(!rotated.error.contains("stk1_"), "{rotated:?}");
    let newer = rotated.done();
    assert!(
        newer.lines().count() == 1 && newer.trim().len() == 51,
        "only the secret is printed"
    );
    for secret in [&former, &newer] {
        assert_eq!(introspect(&dev, secret)["active"], true);
    }
    assert_eq!(introspect(&dev, &former)["reason"], "REASON_SUPERSEDED");
    let third = owner(&dev, "rotate --name deploy --overlap 7d --output json").json();
    assert_eq!(
        third["token"]["generation"], 3,
        "the whole response is printed"
    );
    let secrets = third["token"]["secrets"].as_array().unwrap();
    assert_eq!(secrets.len(), 2, "{secrets:?}");
    let line = "end-overlap --name deploy --validate-only";
    let hint = |secret: &str| format!("…{} (generation", &secret.trim()[47..]);
    let (ends, stays) = (hint(&newer), hint(words(&third, "secret")));
    let previewed = owner(&dev, line).done();
    let said = [
        format!("would end the secret {ends} 2, first used 2"),
        format!("would leave token {uid} with only its newest secret: {stays} 3, "),
    ];
    for (line, said) in previewed.lines().zip(said) {
        assert!(line.starts_with(&said), "no {said} in {previewed}");
    }
    assert_eq!(introspect(&dev, &newer)["active"], true);
    let ended = owner(&dev, "end-overlap --name deploy").done();
    let said = format!("token {uid} now has only its newest secret: {stays} 3, ");
    assert!(ended.starts_with(&said), "{ended}");
    let nothing = owner(&dev, line).done();
    assert!(nothing.starts_with("would end no secret\n"), "{nothing}");
    assert_eq!(introspect(&dev, &newer)["reason"], "REASON_SUPERSEDED");
    assert_eq!(introspect(&dev, words(&third, "secret"))["active"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_answer_was_lost_is_repeated_by_its_id() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let lost = issue(&dev, "deploy", " --request-id issue-1");
    let again = issue(&dev, "deploy", " --request-id issue-1");
    assert_eq!(
        introspect(&dev, &lost)["active"],
        false,
        "the lost secret has ended"
    );
    assert_eq!(introspect(&dev, &again)["active"], true);
    let rotate = "rotate --name deploy --overlap 7d --request-id rotate-1";
    let lost = owner(&dev, rotate).done();
    let newer = owner(&dev, rotate).done();
    assert_eq!(
        introspect(&dev, &lost)["active"],
        false,
        "the lost secret has ended"
    );
    for secret in [&again, &newer] {
        assert_eq!(introspect(&dev, secret)["active"], true);
    }
    let other = owner(
        &dev,
        "rotate --name deploy --overlap 6d --request-id rotate-1",
    );
    assert_eq!(other.code, Some(4), "{other:?}");
    assert!(other.error.contains("REQUEST_ID_REUSED"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_changes_nothing_and_the_answers_are_those_of_the_contract() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let line = "issue --name deploy --access read --expires 1h";
    let previewed = owner(&dev, &format!("{line} --validate-only"));
    assert!(
        previewed.output.contains("name:        deploy\n"),
        "{previewed:?}"
    );
    assert_eq!(
        owner(&dev, "list").error,
        "0 of at most 10 live tokens in the stack\n"
    );
    let issued = owner(&dev, &format!("{line} --output json")).json();
    let uid = words(&issued["token"], "tokenUid").to_owned();
    let secret = words(&issued, "secret");
    assert_eq!(introspect(&dev, secret)["active"], true);
    let asked = end(
        &mut command(
            &dev,
            "service_jwt",
            "introspect --output text --include token",
        ),
        secret,
    );
    let told = asked.done();
    for line in [
        "verdict:     active",
        "name:        deploy",
        "generation:  1",
    ] {
        assert!(
            told.lines().any(|told| told == line),
            "no {line} in\n{told}"
        );
    }
    let previewed = owner(&dev, "revoke --name deploy --validate-only").done();
    let first = format!("would revoke token {uid}\nlast used: 2");
    assert!(previewed.starts_with(&first), "{previewed}");
    assert!(
        previewed.contains("\nused in the last 30 days by content-api 2"),
        "{previewed}"
    );
    assert_eq!(introspect(&dev, secret)["active"], true);
    let revoked = owner(&dev, "revoke --name deploy --reason moved --output json").json();
    assert_eq!(revoked["token"]["state"], "TOKEN_STATE_REVOKED");
    assert_eq!(revoked["token"]["revokeReason"], "moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stacks_are_listed_with_the_callers_role() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let table = owner(&dev, "stacks list").done();
    assert_eq!(
        table,
        "STACK                NAME    ORGANIZATION  STATE   ROLE\n\
         blt0000decade000000  Second  demo          active  owner\n\
         blt00c0ffee00c0ffee  Demo    demo          active  owner\n"
    );
    let developer = run(&dev, "developer_jwt", "stacks list --output json").json();
    assert_eq!(developer["stacks"][0]["role"], "ROLE_DEVELOPER");
    assert_eq!(
        run(&dev, "stranger_jwt", "stacks list --output json").json(),
        serde_json::json!({})
    );
    let page = owner(&dev, "stacks list --page-size 1 --output json").json();
    assert!(page.get("nextPageToken").is_some(), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lists_the_tokens_of_all_stacks() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    issue(&dev, "deploy", "");
    // The flag takes precedence over the variable that names a stack.
    let table = run(&dev, "operator_jwt", "list --all-stacks").done();
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].ends_with("  STACK"), "{table}");
    assert!(rows[1].ends_with("  blt00c0ffee00c0ffee"), "{table}");
    let refused = owner(&dev, "list --all-stacks");
    assert!(
        refused.code != Some(0) && refused.output.is_empty(),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_that_names_a_jwt_file_beats_the_variable_with_a_jwt() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let file = folder.path().join(".stacktoken/developer.jwt");
    let mut list = command(&dev, "owner_jwt", "stacks list --output json");
    list.arg("--jwt-file").arg(file);
    assert_eq!(
        end(&mut list, "").json()["stacks"][0]["role"],
        "ROLE_DEVELOPER"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_shows_the_data_that_its_message_refers_to() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    issue(&dev, "deploy", "");
    let before = token(&dev, "deploy");
    let (uid, etag) = (words(&before, "tokenUid"), words(&before, "etag"));
    let taken = owner(&dev, "issue --name deploy --access read --expires 1h");
    assert_eq!(taken.code, Some(4), "{taken:?}");
    let holder = format!("(token_uid {uid})");
    assert!(taken.error.contains(&holder), "{taken:?}");
    let stale = owner(&dev, &format!("revoke --token {uid} --etag other"));
    assert_eq!(stale.code, Some(4), "{stale:?}");
    assert!(stale.error.contains(&format!("(etag {etag})")), "{stale:?}");
    for number in 2..=10 {
        issue(&dev, &format!("deploy{number}"), "");
    }
    let full = owner(&dev, "issue --name eleventh --access read --expires 1h");
    assert_eq!(full.code, Some(4), "{full:?}");
    assert!(full.error.contains(&format!("(token:{uid}: ")), "{full:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_jwt_is_refused_before_it_is_sent() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let secret = issue(&dev, "deploy", "");
    for (content, told) in [
        ("", "is empty"),
        (secret.as_str(), "contains the secret of a management token"),
        ("Bearer a.b.c", "begins with the word Bearer"),
        ("a.b.c\nd.e.f", "contains no JWT"),
        ("host", "contains no JWT"),
    ] {
        let file = folder.path().join("credential");
        std::fs::write(&file, content).unwrap();
        let mut command = command(&dev, "owner_jwt", "list");
        command.env_remove("STACKTOKEN_JWT");
        let ended = end(command.arg("--jwt-file").arg(&file), "");
        assert_eq!(ended.code, Some(2), "{content}: {ended:?}");
        assert!(ended.error.contains(told), "{content}: {ended:?}");
        assert!(!ended.error.contains("stk1_"), "{ended:?}");
    }
}
