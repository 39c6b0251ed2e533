//! Every command line that `dev` prints, and every one of the README's walk and of the manuals'
//! lines for `dev`, works when it is pasted.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::program::{Dev, PROGRAM, folder, has_tool, text};

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
        .filter(|line| line.starts_with("grpcurl ") || line.contains(" issue --server "));
    commands.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_that_dev_prints_works() {
    let folder = folder();
    let _dev = Dev::start(folder.path());
    let lines = printed(folder.path());
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let has_grpcurl = has_tool(&["grpcurl"]).is_some();
    for line in lines
        .iter()
        .filter(|line| has_grpcurl || !line.starts_with("grpcurl"))
    {
        let done = paste(folder.path(), line);
        let told = text(&done.stdout);
        assert!(
            done.status.success(),
            "{line}\n{told}\n{}",
            text(&done.stderr)
        );
        if !line.ends_with(" list") {
            assert!(
                told.contains("\"active\": true") && told.contains("DECISION_ALLOW"),
                "{line}\n{told}"
            );
        } else {
            assert!(told.contains("stacktoken.v1.TokenService"), "{told}");
        }
    }
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
            "Makes a token and shows its secret",
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

/// The blocks to paste of one section of a document, with the address of this test.
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
}

/// The README's section on a token's life.
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
    // The one that was reported is dead by then.
    assert!(preview.contains("\"count\": 1"), "{preview}");
    assert!(!preview.contains("\"revision\""), "{preview}");
    assert!(revoked.contains("\"count\": 1"), "{revoked}");
    assert!(revoked.contains("\"revision\""), "{revoked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_in_the_readme_works() {
    if has_tool(&["grpcurl"]).is_none() {
        return;
    }
    let folder = folder();
    let dev = Dev::start(folder.path());
    let server = format!(
        "export STACKTOKEN_SERVER=http://{}\n",
        dev.get("grpc_address")
    );
    // The lines ask for a day in so many months of the machine's clock; midnight can pass.
    let day = || text(&paste(folder.path(), "date -u -d '+6 months' +%FT00:00:00Z").stdout);
    let before = day();
    let done = paste(folder.path(), &format!("{server}{}", walk(&dev)));
    let days = [before, day()];
    let told = text(&done.stdout);
    let dated = days.map(|day| format!("\"expiresAt\": \"{}\"", day.trim()));
    assert!(dated.iter().any(|field| told.contains(field)), "{told}");
    for expected in [
        "\"decision\": \"DECISION_ALLOW\"",
        "\"generation\": 1",
        "\"generation\": 2",
        "REASON_SUPERSEDED",
        "\"impact\": {",
        "\"services\": [",
        "TOKEN_STATE_REVOKED",
        "REASON_REVOKED",
    ] {
        assert!(
            told.contains(expected),
            "no {expected} in\n{told}\n{}",
            text(&done.stderr)
        );
    }
}
