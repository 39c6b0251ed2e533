//! Tests help texts, completions, the precedence of settings, and that credentials on the command
//! line are never printed. `wrong_lines` tests invalid command lines.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{
    program::{ChildGuard, folder, program, run, text},
    support::database::eventually,
};

const SECRET: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";

/// Runs a command. Returns its exit code and the one line that it prints to standard error.
fn run_command(arguments: &[&str]) -> (Option<i32>, String) {
    let done = run(arguments);
    let run_serve = text(&done.stderr);
    assert_eq!(
        run_serve.lines().count(),
        1,
        "{arguments:?} printed:\n{run_serve}"
    );
    (done.status.code(), run_serve.trim().to_owned())
}

#[test]
fn what_serve_needs_is_asked_for() {
    let (code, line) = run_command(&["serve"]);
    assert_eq!(code, Some(2));
    assert!(
        line.contains("--issuers is required") && line.contains("STACKTOKEN_ISSUERS"),
        "{line}"
    );
    let (_, line) = run_command(&["serve", "--issuers", "x.toml"]);
    assert!(line.contains("--database-url is required"), "{line}");
    let both = ["--database-url", "sqlite:x", "--database-url-file", "y"];
    let (_, line) = run_command(&[&["serve", "--issuers", "x.toml"][..], &both].concat());
    assert!(
        line.contains("--database-url and --database-url-file are both set"),
        "{line}"
    );
}

#[test]
fn a_password_in_a_url_is_never_printed() {
    for url in [
        "mysql://user:hunter2@host/db",
        "postgres://user:hunter2@127.0.0.1:1/db",
        "postgres://user:hunter2@127.0.0.1:notaport/db",
        "hunter2",
    ] {
        for arguments in [
            vec!["migrate", "status", "--database-url", url],
            vec![
                "migrate",
                "up",
                "--database-url",
                "postgres://x@127.0.0.1:1/y",
                "--database-direct-url",
                url,
            ],
        ] {
            let done = run(&arguments);
            let run_serve = format!("{}{}", text(&done.stdout), text(&done.stderr));
            let is_reachable = ["hunter2", "mysql:", "notaport"];
            let is_wrong = is_reachable
                .iter()
                .any(|part| url.starts_with(part) || url.contains(":notaport"));
            let code = if is_wrong { 2 } else { 1 };
            assert_eq!(done.status.code(), Some(code), "{run_serve}");
            assert!(!run_serve.contains("hunter2"), "{run_serve}");
            assert!(run_serve.contains("--database"), "{run_serve}");
        }
    }
}

#[test]
fn completions_are_there() {
    let done = run(&["completions", "bash"]);
    assert!(done.status.success());
    assert!(text(&done.stdout).contains("_stacktoken"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = program().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(
            (done.status.code(), text(&done.stderr).as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_reader_of_completions_that_takes_one_line_ends_them_quietly() {
    let script = "set -o pipefail; \"$1\" completions bash | head -1 >/dev/null";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash", crate::program::PROGRAM]);
    let done = shell.output().unwrap();
    assert_eq!(
        (done.status.code(), text(&done.stderr).as_str()),
        (Some(0), "")
    );
}

#[test]
fn without_a_command_the_commands_are_listed() {
    for (arguments, code, listed) in [
        (&[][..], 2, "set-expiry"),
        (&["migrate"], 2, "new-epoch"),
        (&["stacks"], 2, "list"),
        (&["help"], 0, "set-expiry"),
        (&["--help"], 0, "set-expiry"),
        (&["help", "serve"], 0, "--issuers"),
    ] {
        let done = run(arguments);
        let (output, error) = (text(&done.stdout), text(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "{arguments:?} {error}");
        let (run_command, other) = if code == 0 {
            (&output, &error)
        } else {
            (&error, &output)
        };
        assert!(
            run_command.contains("Usage: ") && run_command.contains(listed),
            "{arguments:?} {run_command}"
        );
        assert_eq!(other, "", "{arguments:?}");
    }
}

#[test]
fn the_help_of_serve_has_its_flags_under_headings_and_an_example() {
    let help = text(&run(&["serve", "--help"]).stdout);
    for heading in [
        "Addresses:",
        "TLS:",
        "Store:",
        "Cache and freshness:",
        "Limits:",
        "Connections:",
        "Rules:",
        "Retention:",
        "Traces:",
        "Logging:",
        "Example",
    ] {
        let count = help
            .lines()
            .filter(|line| line.starts_with(heading))
            .count();
        assert_eq!(count, 1, "{heading}\n{help}");
    }
    let (_, options) = help.split_once("\nOptions:\n").unwrap();
    let options = options
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with(' '));
    let flags: Vec<_> = options
        .filter(|line| line.trim_start().starts_with('-'))
        .collect();
    assert_eq!(flags.len(), 2, "only --issuers and --help: {flags:#?}");
}

/// clap applies a heading to all flags after it, so the command's own flags must be defined first.
#[test]
fn the_help_of_a_client_command_has_its_own_flags_apart_from_the_connection() {
    let help = text(&run(&["rotate", "--help"]).stdout);
    let (own, connection) = help.split_once("\nConnection:\n").unwrap();
    for flag in [
        "--stack",
        "--name",
        "--overlap",
        "--etag",
        "--request-id",
        "--output",
    ] {
        assert!(own.contains(&format!("      {flag}")), "{flag}\n{help}");
    }
    for flag in ["--server", "--timeout", "--jwt-file"] {
        assert!(
            connection.contains(&format!("      {flag}")),
            "{flag}\n{help}"
        );
    }
}

/// Tries a secret in every position of the command line: as it is, percent-encoded once and twice,
/// and within other text.
#[test]
fn a_secret_in_any_place_of_a_command_line_is_refused_and_not_repeated() {
    let encoded = SECRET.replace('_', "%5F").replace('z', "%7A");
    let twice = encoded.replace('%', "%25");
    let embedded = format!("Bearer={SECRET}&x");
    for secret in [SECRET, &encoded, &twice, &embedded] {
        let flag = format!("--name={secret}");
        let as_flag = format!("--{secret}");
        let server = format!("http://{secret}@127.0.0.1:1");
        for arguments in [
            vec![secret],
            vec!["introspect", secret],
            vec!["introspect", "--stack", secret],
            vec!["introspect", "--stack", "x", "--jwt-file", secret],
            vec!["introspect", "--stack", "x", "--", secret],
            vec!["get", "--stack", "x", &flag],
            vec!["get", &as_flag],
            vec!["list", "--server", &server],
            vec!["serve", "--issuers", secret],
            vec!["dev", "--data-dir", secret],
            vec!["completions", secret],
            vec!["migrate", "up", "--database-url", secret],
            vec!["help", secret],
            vec!["--log", secret, "serve"],
        ] {
            let done = run(&arguments);
            let run_serve = text(&done.stderr);
            assert_eq!(done.status.code(), Some(2), "{arguments:?} {run_serve}");
            assert_eq!(run_serve.lines().count(), 1, "{arguments:?} {run_serve}");
            assert!(
                run_serve.contains("on standard input"),
                "{arguments:?} {run_serve}"
            );
            assert!(done.stdout.is_empty(), "{arguments:?}");
            for piece in ["zzzz", "%7A%7A", "%257A", "batYO"] {
                assert!(!run_serve.contains(piece), "{arguments:?} {run_serve}");
            }
        }
    }
}

#[test]
fn a_credential_in_a_variable_or_a_jwt_in_the_wrong_place_is_not_repeated() {
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvd25lciIsImlzcyI6IngifQ.c2lnbmF0dXJl";
    for credential in [SECRET, jwt] {
        for (variable, arguments) in [
            ("STACKTOKEN_JWT_FILE", &["stacks", "list"][..]),
            ("STACKTOKEN_SERVER", &["healthcheck"]),
            ("STACKTOKEN_TIMEOUT", &["healthcheck"]),
            ("STACKTOKEN_STACK", &["list"]),
            (
                "STACKTOKEN_ISSUERS",
                &["serve", "--database-url", "sqlite:x"],
            ),
            ("STACKTOKEN_DATABASE_URL_FILE", &["migrate", "up"]),
            ("STACKTOKEN_LISTEN", &["serve"]),
            ("STACKTOKEN_LOG", &["migrate", "up"]),
        ] {
            let mut command = program();
            let done = command.args(arguments).env(variable, credential).output();
            let run_serve = text(&done.unwrap().stderr);
            assert_eq!(run_serve.lines().count(), 1, "{variable}: {run_serve}");
            let piece = &credential[credential.len() - 12..];
            assert!(!run_serve.contains(piece), "{variable}: {run_serve}");
        }
    }
    for arguments in [
        &["introspect", jwt][..],
        &["list", "--jwt-file", jwt],
        &["get", "--jwt", "x"],
    ] {
        let (code, run_serve) = run_command(arguments);
        assert_eq!(code, Some(2), "{run_serve}");
        assert!(
            run_serve.contains("--jwt-file") && !run_serve.contains("eyJ"),
            "{run_serve}"
        );
    }
}

#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    for value in [
        "postgres://user:hunter2@host/db",
        "postgres://user:a hunter2@host/db",
        "host=x password=hunter2",
        "http://user:hunter2@host",
    ] {
        for arguments in [
            &["migrate", "up", value][..],
            &["serve", "--listen", value],
            &["healthcheck", "--server", value],
            &["healthcheck", "--timeout", value],
            &[value],
        ] {
            let (code, run_serve) = run_command(arguments);
            assert_eq!(code, Some(2), "{run_serve}");
            assert!(!run_serve.contains("hunter2"), "{arguments:?} {run_serve}");
        }
    }
}

#[test]
fn a_flag_beats_a_variable_for_the_same_thing() {
    for (flag, variable) in [
        (
            ["--database-url", "sqlite:flag.db"],
            ["STACKTOKEN_DATABASE_URL", "sqlite:other.db"],
        ),
        (
            ["--database-url", "sqlite:flag.db"],
            ["STACKTOKEN_DATABASE_URL_FILE", "other"],
        ),
        (
            ["--database-url-file", "flag"],
            ["STACKTOKEN_DATABASE_URL", "sqlite:other.db"],
        ),
        (
            ["--database-url-file", "flag"],
            ["STACKTOKEN_DATABASE_URL_FILE", "other"],
        ),
    ] {
        for arguments in [
            [&["migrate"][..], &flag, &["up"]].concat(),
            [&["migrate", "up"][..], &flag].concat(),
        ] {
            let folder = folder();
            for name in ["flag", "other"] {
                fs::write(folder.path().join(name), format!("sqlite:{name}.db")).unwrap();
            }
            let mut command = program();
            command.current_dir(folder.path()).args(&arguments);
            let done = command.env(variable[0], variable[1]).output().unwrap();
            let run_serve = text(&done.stderr);
            assert!(
                done.status.success(),
                "{arguments:?} {variable:?}: {run_serve}"
            );
            assert!(
                folder.path().join("flag.db").exists(),
                "{arguments:?} {variable:?}"
            );
            assert!(
                !folder.path().join("other.db").exists(),
                "{arguments:?} {variable:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_listens_on_a_name_and_is_called_without_a_scheme() {
    let folder = folder();
    let mut command = program();
    command
        .current_dir(folder.path())
        .args(["dev", "--listen", "localhost:0"])
        .args(["--admin-listen", "localhost:0", "--ready-file", "ready"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _dev = ChildGuard(command.spawn().unwrap());
    let ready = eventually("dev serves", async || {
        let text = fs::read(folder.path().join("ready")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    })
    .await;
    let address = ready["grpc_address"].as_str().unwrap();
    let port = address.strip_prefix("127.0.0.1:").unwrap();
    for server in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let (code, output) = {
            let done = run(&["healthcheck", "--server", &server]);
            (done.status.code(), text(&done.stdout))
        };
        assert_eq!((code, output.as_str()), (Some(0), "SERVING\n"), "{server}");
    }
}
