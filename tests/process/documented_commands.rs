//! Tests that every command line that `dev` prints works when it is pasted, and so does every one
//! in the README and in the manuals for `dev`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use stacktoken::grpc::pb::v1;

use crate::program::{Dev, PROGRAM, folder, has_tool, run_by, text};

fn paste(folder: &Path, line: &str) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("sh")
        .arg("-c")
        .arg(line)
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .unwrap()
}

fn printed(folder: &Path) -> Vec<String> {
    let welcome = fs::read_to_string(folder.join("stdout")).unwrap();
    let commands = welcome
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("grpcurl ") || line.contains(" issue --server "));
    commands.map(str::to_owned).collect()
}

/// Returns the printed lines that issue a token: the one with grpcurl if grpcurl is installed, and
/// the one without it. Also runs the line before them, which lists the services.
fn lines_that_issue(folder: &Path) -> Vec<String> {
    let lines = printed(folder);
    let [list, with_exchange, with_grpcurl, with_verbs] = &lines[..] else {
        panic!("{lines:#?}");
    };
    if has_tool(&["grpcurl"]).is_none() {
        return vec![with_exchange.clone(), with_verbs.clone()];
    }
    let listed = text(&paste(folder, list).stdout);
    assert!(listed.contains("stacktoken.v1.TokenService"), "{listed}");
    vec![
        with_exchange.clone(),
        with_grpcurl.clone(),
        with_verbs.clone(),
    ]
}

async fn live(dev: &Dev) -> Vec<v1::Token> {
    let mut owner = dev.client("owner_jwt").await;
    let request = v1::ListRequest {
        stack_api_key: dev.get("stack_api_key").to_owned(),
        states: vec![v1::TokenState::Active.into()],
        ..Default::default()
    };
    owner
        .tokens
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .tokens
}

/// Returns how often a line is pasted. This is more often than a stack may have live tokens.
fn pastes() -> u32 {
    let set = std::env::var("STACKTOKEN_TEST_PASTES");
    set.map_or(12, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_that_dev_prints_work_from_any_folder_and_any_number_of_times() {
    let folder = folder();
    // A shell would split this path at the space and take the apostrophe for a quote.
    let inner = folder.path().join("it's a folder");
    fs::create_dir(&inner).unwrap();
    let dev = Dev::start(&inner);
    for line in lines_that_issue(&inner) {
        for count in 1..=pastes() {
            let done = paste(Path::new("/"), &line);
            let (told, errors) = (text(&done.stdout), text(&done.stderr));
            assert!(done.status.success(), "{count}: {line}\n{told}\n{errors}");
            assert!(
                told.contains("\"active\": true") && told.contains("DECISION_ALLOW"),
                "{count}: {line}\n{told}\n{errors}"
            );
        }
        assert_eq!(live(&dev).await, [], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_of_dev_leaves_a_token_for_ten_minutes() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    for line in lines_that_issue(folder.path()) {
        let (interrupted, revoke) = line.rsplit_once("; ").unwrap();
        assert!(revoke.to_lowercase().contains("revoke"), "{line}");
        let done = paste(folder.path(), &format!("{interrupted})"));
        assert!(done.status.success(), "{}", text(&done.stderr));
        let tokens = live(&dev).await;
        let [token] = &tokens[..] else {
            panic!("{line}: {tokens:?}");
        };
        let instant = |at: &Option<prost_types::Timestamp>| at.as_ref().unwrap().seconds;
        let lives_for = instant(&token.expires_at) - instant(&token.issued_at);
        assert!((595..=600).contains(&lives_for), "{line}: {lives_for} s");
        let mut owner = dev.client("owner_jwt").await;
        let request = v1::RevokeRequest {
            stack_api_key: dev.get("stack_api_key").to_owned(),
            token_uid: token.token_uid.clone(),
            ..Default::default()
        };
        owner.tokens.revoke(request).await.unwrap();
    }
}

/// Removes the id and the expiry from a line, so that the line is the same in every run.
fn without_ids(line: &str) -> String {
    let line = line.split("; it expires at ").next().unwrap_or_default();
    let is_id = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let id = line.split([' ', ';', '"']).find(is_id);
    id.map_or_else(|| line.to_owned(), |id| line.replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_to_paste_prints_what_the_readme_shows() {
    let readme = include_str!("../../README.md");
    let (_, sample) = readme.split_once("```text\n").unwrap();
    let (sample, _) = sample.split_once("```").unwrap();
    let folder = folder();
    let _dev = Dev::start(folder.path());
    let line = printed(folder.path()).pop().unwrap();
    let done = paste(folder.path(), &line);
    let told = format!("{}{}", text(&done.stderr), text(&done.stdout));
    let mut lines = told.lines().map(without_ids);
    for shown in sample.lines().filter(|line| line.trim() != "...") {
        let shown = without_ids(shown);
        assert!(
            lines.any(|line| line == shown),
            "{shown} is missing or out of order:\n{told}"
        );
    }
    assert_eq!(lines.next(), None, "the sample ends before the output");
}

/// Returns how many rows the output takes on a terminal with 80 columns.
fn rows(output: &str) -> usize {
    let rows = |line: &str| line.chars().count().max(1).div_ceil(80);
    output.lines().map(rows).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_to_paste_is_the_last_on_a_screen_of_24_rows() {
    let folder = folder();
    let _dev = Dev::start_with(folder.path(), |command| {
        let both = "exec \"$@\" > screen 2>&1";
        run_by(command, &["sh", "-c", both, "sh"]);
    });
    let screen = fs::read_to_string(folder.path().join("screen")).unwrap();
    let at = screen.find("The same with nothing else installed").unwrap();
    let (before, end) = screen.split_at(at);
    assert_eq!(end.lines().count(), 3, "{screen}");
    assert!(end.contains(" issue --server "), "{screen}");
    // The cursor takes one more row, so the output must be shorter.
    assert!(rows(end) < 24, "{} rows:\n{screen}", rows(end));
    assert!(before.contains(".stacktoken/NAME.jwt"), "{screen}");
    assert!(!screen.contains("eyJ"), "a JWT is printed:\n{screen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_needs_no_files_of_ours() {
    if has_tool(&["grpcurl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let address = dev.get("grpc_address");
    for (what, expected) in [
        ("list", "stacktoken.audit.v1.AuditService"),
        (
            "describe stacktoken.v1.TokenService.Issue",
            "Issues a token. Its secret is returned only in this response",
        ),
        (
            "describe stacktoken.v1.IssueRequest",
            "string stack_api_key = 1;",
        ),
    ] {
        let done = paste(
            folder.path(),
            &format!("grpcurl -plaintext {address} {what}"),
        );
        assert!(
            text(&done.stdout).contains(expected),
            "{what}: {}",
            text(&done.stdout)
        );
    }
    let refused = paste(
        folder.path(),
        &format!("grpcurl -plaintext {address} stacktoken.v1.TokenService/Issue"),
    );
    assert!(
        text(&refused.stderr).contains("CREDENTIAL_MISSING"),
        "{}",
        text(&refused.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_probe_is_satisfied_for_all_three_names() {
    let Some(probe) = has_tool(&["grpc-health-probe", "grpc_health_probe"]) else {
        return;
    };
    let folder = folder();
    let dev = Dev::start(folder.path());
    let asked = |service: &str| {
        let mut command = Command::new(&probe);
        command.args(["-addr", dev.get("grpc_address"), "-service", service]);
        command.output().unwrap().status.code()
    };
    for service in [
        "",
        "stacktoken.v1.TokenService",
        "stacktoken.v1.IntrospectionService",
    ] {
        assert_eq!(asked(service), Some(0), "{service}");
    }
    assert_eq!(asked("stacktoken.v1.Nothing"), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preview_in_the_operations_manual_works() {
    if has_tool(&["grpcurl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let manual = fs::read_to_string(file).unwrap();
    let section = manual.split("## See before you change").nth(1).unwrap();
    let line = section.split("```sh\n").nth(1).unwrap();
    let line = line.split("```").next().unwrap();
    let line = line.replace("127.0.0.1:50051", dev.get("grpc_address"));
    let done = paste(folder.path(), &line);
    let told = text(&done.stdout);
    assert!(told.contains("STACK_STATE_SUSPENDED"), "{line}\n{told}");
    assert!(!told.contains("revision"), "{told}");
}

/// Returns the shell blocks in one section of a document, with the address of this `dev` filled in.
fn blocks(document: &str, title: &str, dev: &Dev) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(file).unwrap();
    let section = text.split(&format!("\n## {title}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap());
    let script: String = blocks.collect();
    script
        .replace("./target/debug/stacktoken", PROGRAM)
        .replace("127.0.0.1:50051", dev.get("grpc_address"))
        .replace("127.0.0.1:8466", dev.get("http_address"))
}

/// Runs the shell blocks of a section of docs/http.md, and returns what they print.
fn printed_by_blocks(folder: &Path, section: &str, dev: &Dev) -> String {
    let script = format!("set -e\n{}", blocks("docs/http.md", section, dev));
    let done = paste(folder, &script);
    let printed = text(&done.stdout);
    assert!(done.status.success(), "{printed}\n{}", text(&done.stderr));
    printed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_with_curl_work() {
    if has_tool(&["curl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let told = printed_by_blocks(folder.path(), "Try it", &dev);
    let lines: Vec<_> = told.lines().collect();
    let [active, updated, listed, inactive, metadata] = lines[..] else {
        panic!("{told}");
    };
    for part in [
        r#""active":true"#,
        r#""scope":"entry:READ_WRITE""#,
        r#""decision":"ALLOW""#,
    ] {
        assert!(active.contains(part), "{active}");
    }
    assert!(updated.contains("2120-12-31T00:00:00.000Z"), "{updated}");
    assert!(listed.contains(r#""count":1"#), "{listed}");
    assert_eq!(inactive, r#"{"active":false}"#);
    assert!(metadata.contains("/oauth2/introspect"), "{metadata}");
    assert!(!told.contains("stk1_"), "{told}");
    let readme = blocks("README.md", "A token's life", &dev);
    let (_, curl) = readme.split_once("curl -sS").unwrap();
    let done = paste(folder.path(), &format!("curl -sS{curl}"));
    assert_eq!(text(&done.stdout), r#"{"active":false}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_that_exchange_with_curl_work() {
    if has_tool(&["curl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let told = printed_by_blocks(folder.path(), "Token exchange", &dev);
    let lines: Vec<_> = told.lines().collect();
    let [active, ended] = lines[..] else {
        panic!("{told}");
    };
    for part in [r#""scope":"entry:READ_WRITE""#, r#""decision":"ALLOW""#] {
        assert!(active.contains(part), "{active}");
    }
    assert_eq!(ended, r#"{"active":false}"#);
}

/// Returns the shell blocks in the README's section on a token's life.
fn walk(dev: &Dev) -> String {
    blocks("README.md", "A token's life", dev)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_for_a_leak_kill_what_was_found_and_then_all() {
    if has_tool(&["grpcurl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let issue = |name: &str, file: &str| {
        let line = format!(
            "{PROGRAM} issue --server http://{} --stack blt00c0ffee00c0ffee --jwt-file .stacktoken/owner.jwt --name {name} --access read --expires never > {file}",
            dev.get("grpc_address")
        );
        assert!(paste(folder.path(), &line).status.success(), "{line}");
    };
    issue("found", "found");
    issue("other", "other");
    let script = blocks("docs/security.md", "When a secret leaked", &dev);
    let done = paste(folder.path(), &script);
    let told = text(&done.stdout);
    let told: Vec<_> = told.split("\n}\n").collect();
    let [report, preview, revoked, ""] = told[..] else {
        panic!("{script}\n{told:?}\n{}", text(&done.stderr));
    };
    assert!(report.contains("\"accepted\": true"), "{report}");
    // The reported token was revoked before, so only one token is left to revoke.
    assert!(preview.contains("\"count\": 1"), "{preview}");
    assert!(!preview.contains("\"revision\""), "{preview}");
    assert!(revoked.contains("\"count\": 1"), "{revoked}");
    assert!(revoked.contains("\"revision\""), "{revoked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_in_the_readme_works() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let server = format!("export STACKTOKEN_SERVER={}\n", dev.get("grpc_address"));
    let done = paste(folder.path(), &format!("{server}{}", walk(&dev)));
    let told = text(&done.stdout);
    for expected in [
        "blt00c0ffee00c0ffee  Demo",
        "\"decision\": \"DECISION_ALLOW\"",
        ": expires at ",
        "\"generation\": 1",
        "\"generation\": 2",
        "REASON_SUPERSEDED",
        "would revoke token ",
        "used in the last 30 days by content-api",
        "\nrevoked token ",
        "REASON_REVOKED",
    ] {
        assert!(
            told.contains(expected),
            "no {expected} in\n{told}\n{}",
            text(&done.stderr)
        );
    }
}
