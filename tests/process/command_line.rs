//! What is said about a wrong flag or variable: one line, which names it.

use crate::program::{program, run, text};

/// Exit code and the one line on standard error.
fn told(arguments: &[&str]) -> (Option<i32>, String) {
    let done = run(arguments);
    let said = text(&done.stderr);
    assert_eq!(said.lines().count(), 1, "{arguments:?} said:\n{said}");
    (done.status.code(), said.trim().to_owned())
}

#[test]
fn a_wrong_flag_is_named_in_one_line() {
    for (arguments, expected) in [
        (vec!["serve", "--nonsense"], "--nonsense"),
        (vec!["serve", "--listen", "here"], "--listen"),
        (vec!["serve", "--listen", "here"], "STACKTOKEN_LISTEN"),
        (vec!["serve", "--drain-delay", "soon"], "--drain-delay"),
        (vec!["serve", "--freshness-bound", "1ms"], "200ms"),
        (vec!["serve", "--changes-burst", "0"], "--changes-burst"),
        (vec!["serve", "--log-format", "xml"], "--log-format"),
        (vec!["serve", "--usage-flush-every", "0"], "from 1s to 10m"),
        (
            vec!["serve", "--usage-flush-every", "11m"],
            "from 1s to 10m",
        ),
        (
            vec!["serve", "--usage-flush-every=-1s"],
            "--usage-flush-every",
        ),
        (vec!["serve", "--token-retention", "59m"], "at least 1h"),
        (vec!["serve", "--audit-retention", "0s"], "at least 1h"),
        (
            vec!["serve", "--change-retention", "90"],
            "--change-retention",
        ),
        (
            vec!["serve", "--housekeeping-every", "0"],
            "from 100ms to 24h",
        ),
        (
            vec!["serve", "--housekeeping-every", "25h"],
            "from 100ms to 24h",
        ),
        (vec!["issue", "--stack", "x"], "--name"),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["introspct"], "'introspect'"),
        (vec!["healthcheck", "--timeout", "0"], "from 1ms to 1h"),
        (vec!["healthcheck", "--timeout", "2h"], "STACKTOKEN_TIMEOUT"),
        (vec!["healthcheck", "--server", "ftp://x"], "http://"),
        (
            vec!["healthcheck", "--server", "http://"],
            "STACKTOKEN_SERVER",
        ),
    ] {
        let (code, line) = told(&arguments);
        assert_eq!(code, Some(2), "{line}");
        assert!(line.contains(expected), "{line}");
    }
}

/// A client verb with all that it needs, and one wrong thing more.
#[test]
fn a_wrong_value_for_a_client_verb_is_named_before_anything_is_sent() {
    let issue = ["issue", "--stack", "x", "--name", "x", "--access", "read"];
    let introspect = ["introspect", "--stack", "x", "--jwt", "a.b.c"];
    let revoke = ["revoke", "--stack", "x", "--jwt", "a.b.c"];
    let uid = "019ecbf1-3c52-7a7d-9be6-6e0a5f2d7c11";
    let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    for (verb, wrong, expected) in [
        (&issue[..], &["--expires", "soon"][..], "such as 90d"),
        (&issue, &["--expires", "9999-02-29"], "YYYY-MM-DD"),
        (&issue, &["--expires", "1h"], "no credential"),
        (
            &issue,
            &["--expires", "1h", "--jwt", "a.b.c", "--ca", "x"],
            "https:// only",
        ),
        (&issue, &["--module", "entry:write"], "NAME:read-write"),
        (&introspect, &["--fact", "has_approvers"], "NAME=true"),
        (&introspect, &["--fact", secret], "standard input"),
        (&introspect, &[secret], "standard input"),
        (&revoke, &[], "--token <UID>|--name <NAME>"),
        (&revoke, &["--token", "x"], "is not a UUID"),
        (&revoke, &["--token", secret], "standard input"),
        (&revoke, &["--token", uid, "--name", "x"], "cannot be used"),
    ] {
        let mut command = program();
        command
            .args(verb)
            .args(wrong)
            .stdin(std::process::Stdio::piped());
        let mut child = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"secret");
        let done = child.wait_with_output().unwrap();
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{wrong:?} {said}");
        assert_eq!(said.lines().count(), 1, "{wrong:?} {said}");
        assert!(said.contains(expected), "{wrong:?} {said}");
        assert!(!said.contains("stk1_"), "{wrong:?} {said}");
    }
}

#[test]
fn a_wrong_variable_is_named_in_one_line() {
    let done = program()
        .arg("serve")
        .env("STACKTOKEN_MAX_CALLS", "many")
        .output()
        .unwrap();
    let said = text(&done.stderr);
    assert_eq!(
        (done.status.code(), said.lines().count()),
        (Some(2), 1),
        "{said}"
    );
    assert!(said.contains("STACKTOKEN_MAX_CALLS"), "{said}");
}

#[test]
fn what_serve_needs_is_asked_for() {
    let (code, line) = told(&["serve"]);
    assert_eq!(code, Some(1));
    assert!(
        line.contains("--issuers is required") && line.contains("STACKTOKEN_ISSUERS"),
        "{line}"
    );
    let (_, line) = told(&["serve", "--issuers", "x.toml"]);
    assert!(line.contains("--database-url is required"), "{line}");
    let both = ["--database-url", "sqlite:x", "--database-url-file", "y"];
    let (_, line) = told(&[&["serve", "--issuers", "x.toml"][..], &both].concat());
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
            let said = format!("{}{}", text(&done.stdout), text(&done.stderr));
            assert_eq!(done.status.code(), Some(1), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("--database"), "{said}");
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
