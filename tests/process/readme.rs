//! Pastes every shell block of the README into one shell, in order, and then all of them again in
//! the same directory.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, fs::symlink, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    envoy, postgres,
    program::{Dev, PROGRAM, folder, has_tool, text},
};

const README: &str = include_str!("../../README.md");
const ENVOY_CONFIG: &str = include_str!("../../docs/envoy.yaml");

/// The ports that the blocks use, in addition to those of `dev` and PostgreSQL.
const PORTS: [&str; 6] = ["50061", "50062", "9471", "9472", "8080", "8081"];

/// Returns the blocks to paste. The first block is left out, because the test starts `dev` itself,
/// and the block would run this test again with `cargo test`.
fn blocks() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1);
    let blocks: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let (first, rest) = blocks.split_first().unwrap();
    assert_eq!(*first, "cargo run -- dev\ncargo test --all-features\n");
    rest.to_vec()
}

/// Replaces one port with another. Asserts that the text contains the port.
fn replace(text: &str, (from, to): (&str, &str)) -> String {
    let before = ["127.0.0.1:", "port_value: ", "http.server "];
    let mut replaced = text.to_owned();
    for before in before {
        replaced = replaced.replace(&format!("{before}{from}"), &format!("{before}{to}"));
    }
    assert_ne!(replaced, text, "no port {from} in\n{text}");
    replaced
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Makes the directory look like a checkout after `cargo build`, with Envoy in `bin`.
fn check_out(folder: &Path, envoy: &Path) {
    for inner in ["target/debug", "docs", "bin"] {
        fs::create_dir_all(folder.join(inner)).unwrap();
    }
    symlink(PROGRAM, folder.join("target/debug/stacktoken")).unwrap();
    // Other tests run Envoy at the same time, so each needs its own base id. Envoy does not start
    // with the preloaded library that sets the clock.
    let script = format!(
        "#!/bin/sh\nunset LD_PRELOAD\nexec {} --use-dynamic-base-id --concurrency 1 \"$@\"\n",
        envoy.display()
    );
    let file = folder.join("bin/envoy");
    fs::write(&file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The output of the shell, and the commands that have failed.
struct ShellOutput {
    told: String,
    failed: Vec<String>,
}

/// Runs the blocks until everything that they have started has ended, for at most two minutes.
fn paste(folder: &Path, blocks: &[String], dev: &str) -> ShellOutput {
    let script = format!(
        "trap 'echo \"@failed $? $BASH_COMMAND\"' ERR\n{}wait\necho @end\n",
        blocks.concat()
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(folder)
        .env("PATH", format!("{}/bin:{path}", folder.display()))
        .env("STACKTOKEN_SERVER", format!("http://{dev}"))
        .env("STACKTOKEN_DRAIN_DELAY", "100ms")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
    let done = shell.wait_with_output().unwrap();
    // If all blocks have worked, no process is left to kill.
    let _ = kill_process_group(group, Signal::KILL);
    let told = text(&done.stdout);
    let ended = told.ends_with("@end\n");
    assert!(
        ended,
        "the blocks did not end:\n{told}\n{}",
        text(&done.stderr)
    );
    let failed = told.lines().filter(|line| line.starts_with("@failed"));
    ShellOutput {
        failed: failed.map(str::to_owned).collect(),
        told,
    }
}

fn in_order(told: &str, expected: &[&str]) {
    let mut rest = told;
    for part in expected {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part} is missing or out of order in\n{told}"));
        rest = &rest[at + part.len()..];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_of_the_readme_works_in_order_and_once_more() {
    let (Some(envoy), Some(_)) = (envoy::binary(), has_tool(&["grpcurl"])) else {
        return;
    };
    let (Some(_), Some(_)) = (has_tool(&["curl"]), has_tool(&["python3"])) else {
        return;
    };
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("stacktoken");
    let folder = folder();
    check_out(folder.path(), &envoy);
    let ports = PORTS.map(|port| (port, free_port()));
    for _ in 0..2 {
        let dev = Dev::start(folder.path());
        let address = dev.get("grpc_address").to_owned();
        let (_, dev_port) = address.rsplit_once(':').unwrap();
        let mut all = replace(&blocks().join("@next\n"), ("50051", dev_port));
        all = replace(&all, ("5432", &postgres.port().to_string()));
        let (_, http_port) = dev.get("http_address").rsplit_once(':').unwrap();
        all = replace(&all, ("8466", http_port));
        let mut config = replace(ENVOY_CONFIG, ("50051", dev_port));
        config = replace(&config, ("9901", "0"));
        for (from, to) in &ports {
            all = replace(&all, (from, to));
            if from.starts_with("80") {
                config = replace(&config, (from, to));
            }
        }
        fs::write(folder.path().join("docs/envoy.yaml"), config).unwrap();
        let before = files(folder.path());
        let blocks: Vec<_> = all.split("@next\n").map(str::to_owned).collect();
        let ShellOutput { told, failed } = paste(folder.path(), &blocks, &address);
        // Only the introspection of a superseded and of a revoked secret fails.
        let codes = failed.iter().map(|line| line.split(' ').nth(1).unwrap());
        assert_eq!(codes.collect::<Vec<_>>(), ["4", "4"], "{failed:?}\n{told}");
        in_order(
            &told,
            &[
                "owner",
                "\"decision\": \"DECISION_ALLOW\"",
                ": expires at ",
                "deploy ",
                "first used never",
                "\"active\": true",
                "\"generation\": 1",
                "\"active\": true",
                "\"generation\": 2",
                "REASON_SUPERSEDED",
                "would revoke token ",
                "used in the last 30 days by content-api",
                "revoked token ",
                "REASON_REVOKED",
                "stacktoken.v1.TokenService",
                "rpc Issue",
                "SERVING",
                "SERVING",
                "\"decision\": \"DECISION_ALLOW\"",
                "HTTP/1.1 200 OK",
                "{\"entry\":{\"title\":\"Home\"}}",
                "revoked token ",
                "HTTP/1.1 401 Unauthorized",
            ],
        );
        assert_eq!(
            files(folder.path()),
            before,
            "the blocks removed all files that they created"
        );
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
