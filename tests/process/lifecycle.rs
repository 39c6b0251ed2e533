//! Tests how fast the program starts, how it shuts down, and what it leaves behind.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stacktoken::grpc::pb::v1;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    program::{Dev, folder, micros, program, run, text},
    support::{
        introspect_request, issue_request,
        requests::{Issued, get_request},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_serves_soon_and_says_how() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    println!("dev: {:?} from start to SERVING", dev.took);
    let mode = fs::metadata(folder.path().join("ready.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for name in [
        "grpc_address",
        "admin_address",
        "stack_api_key",
        "second_stack_api_key",
        "owner_jwt",
        "admin_jwt",
        "developer_jwt",
        "stranger_jwt",
        "service_jwt",
        "operator_jwt",
        "workload_jwt",
    ] {
        assert!(!dev.get(name).is_empty());
    }
    let status = fs::read_to_string(format!("/proc/{}/status", dev.child.id())).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS"));
    println!("dev: {}", resident.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_outlives_a_restart_of_dev() {
    let folder = folder();
    let mut dev = Dev::start(folder.path());
    let stack = dev.get("stack_api_key").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    let issued = owner
        .tokens
        .issue(issue_request(&stack, "kept"))
        .await
        .unwrap()
        .into_inner();
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    drop(dev);
    let dev = Dev::start(folder.path());
    let mut service = dev.client("service_jwt").await;
    let question = introspect_request(&stack, &issued.secret, &[]);
    assert!(
        service
            .introspection
            .introspect(question)
            .await
            .unwrap()
            .into_inner()
            .active
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_uses_outlives_sigterm() {
    let folder = folder();
    let mut dev = Dev::start(folder.path());
    let stack = dev.get("stack_api_key").to_owned();
    let (mut owner, mut service) = (
        dev.client("owner_jwt").await,
        dev.client("service_jwt").await,
    );
    let issued = owner.tokens.issue(issue_request(&stack, "used")).await;
    let issued = Issued::from(issued.unwrap().into_inner());
    let mut used = Vec::new();
    for _ in 0..2 {
        let question = introspect_request(&stack, &issued.secret, &[]);
        let answer = service.introspection.introspect(question).await.unwrap();
        used.push(micros(&answer.into_inner().evaluated_at.unwrap()));
    }
    assert!(used[1] > used[0], "{used:?}");
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    drop(dev);
    let dev = Dev::start(folder.path());
    let mut owner = dev.client("owner_jwt").await;
    let seen = owner.tokens.get(get_request(&stack, &issued.uid)).await;
    let seen = seen.unwrap().into_inner().token.unwrap().last_used_at;
    assert_eq!(
        micros(&seen.unwrap()),
        used[1],
        "the last use, not only the first one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sigterm_it_stops_serving_first_and_still_answers() {
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command.args(["--drain-delay", "2s"]);
    });
    let mut health = HealthClient::new(dev.channel().await);
    let mut owner = dev.client("owner_jwt").await;
    let stack = dev.get("stack_api_key").to_owned();
    dev.signal(Signal::TERM);
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let asked = health
            .check(HealthCheckRequest {
                service: String::new(),
            })
            .await
            .unwrap();
        if asked.get_ref().status() == ServingStatus::NotServing {
            break;
        }
        assert!(Instant::now() < until, "still SERVING");
    }
    owner
        .tokens
        .issue(issue_request(&stack, "while draining"))
        .await
        .unwrap();
    assert!(dev.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command.env("STACKTOKEN_DRAIN_DELAY", "60s");
    });
    dev.signal(Signal::TERM);
    let mut health = HealthClient::new(dev.channel().await);
    while health
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .get_ref()
        .status()
        != ServingStatus::NotServing
    {}
    dev.signal(Signal::INT);
    assert_eq!(dev.child.wait().unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_file_is_refused_in_one_line() {
    let folder = folder();
    let _dev = Dev::start(folder.path());
    let second = program()
        .current_dir(folder.path())
        .args([
            "dev",
            "--data-dir",
            ".stacktoken",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let told = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(told.lines().count(), 1, "{told}");
    let said = "stacktoken.db is in use by another stacktoken process";
    assert!(told.starts_with("stacktoken: --data-dir: "), "{told}");
    assert!(told.contains(said), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_names_the_settings_that_differ_from_the_last_start_on_its_folder() {
    let folder = folder();
    let catalogue = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalogue.toml");
    let url = "http://127.0.0.1:9";
    let start = |settings: &[(&str, &str)]| {
        let mut dev = Dev::start_with(folder.path(), |command| {
            command.envs(settings.iter().copied());
        });
        dev.signal(Signal::TERM);
        assert!(dev.child.wait().unwrap().success());
        let told = fs::read_to_string(folder.path().join("stderr")).unwrap();
        let lines = told.lines().filter(|line| line.starts_with("--data-dir "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = [
        ("STACKTOKEN_FRESHNESS_BOUND", "2s"),
        ("STACKTOKEN_CATALOGUE", catalogue),
        ("STACKTOKEN_OTLP_ENDPOINT", url),
    ];
    assert!(start(&first).is_empty(), "a new folder");
    assert!(start(&first).is_empty(), "the same settings");
    let told = start(&[("STACKTOKEN_FRESHNESS_BOUND", "3s")]);
    let expected = format!(
        "--data-dir {}/.stacktoken was last used with other settings: \
         --catalogue (then {catalogue}, now not set), --freshness-bound (then 2s, now 3s)",
        folder.path().canonicalize().unwrap().display()
    );
    assert_eq!(told, [expected]);
    let kept = fs::read_to_string(folder.path().join(".stacktoken/settings.json")).unwrap();
    assert!(!kept.contains(url), "it may hold a credential: {kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_names_the_flag() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let other = crate::program::folder();
    let data = other.path().display().to_string();
    let second = run(&[
        "dev",
        "--data-dir",
        &data,
        "--listen",
        dev.get("grpc_address"),
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    let run_command = text(&second.stderr);
    assert_eq!(
        (second.status.code(), run_command.lines().count()),
        (Some(1), 1),
        "{run_command}"
    );
    assert!(
        run_command.contains("--listen") && run_command.contains("cannot listen"),
        "{run_command}"
    );
    let http = dev.get("http_address");
    let third = run(&[
        "dev",
        "--data-dir",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--http-listen",
        http,
    ]);
    let run_command = text(&third.stderr);
    assert_eq!(third.status.code(), Some(1), "{run_command}");
    assert!(
        run_command.contains("--http-listen: cannot listen"),
        "{run_command}"
    );
}

#[test]
fn dev_listens_on_loopback_only() {
    for flag in ["--listen", "--admin-listen", "--http-listen"] {
        let refused = run(&["dev", flag, "0.0.0.0:0"]);
        let run_command = text(&refused.stderr);
        assert_eq!(
            (refused.status.code(), run_command.lines().count()),
            (Some(2), 1),
            "{run_command}"
        );
        assert!(
            run_command.contains(flag) && run_command.contains("loopback"),
            "{run_command}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_is_logged_with_who_asked_for_it() {
    let folder = folder();
    let mut dev = Dev::start(folder.path());
    let mut owner = dev.client("owner_jwt").await;
    let report = v1::ReportLeakedRequest::default();
    let refused = owner.leaks.report_leaked(report).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Log lines are written asynchronously, so the program is stopped first, which writes the rest.
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let log = fs::read_to_string(folder.path().join("stderr")).unwrap();
    let line = log.lines().find(|line| line.contains("/ReportLeaked\""));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for wanted in ["PERMISSION_DENIED", "kind=\"USER\"", "subject=\"owner\""] {
        assert!(line.contains(wanted), "{line}");
    }
}

/// Returns the names of the threads on which the program serves connections.
fn connection_threads(dev: &Dev) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", dev.child.id())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    let mut names: Vec<_> = names
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("connections-"))
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_as_many_threads_as_the_operator_says() {
    for threads in [0, 3] {
        let folder = folder();
        let dev = Dev::start_with(folder.path(), |command| {
            command.env("STACKTOKEN_CONNECTION_THREADS", threads.to_string());
        });
        let wanted: Vec<_> = (0..threads)
            .map(|number| format!("connections-{number}"))
            .collect();
        assert_eq!(connection_threads(&dev), wanted);
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let issued = owner
            .tokens
            .issue(issue_request(&stack, "asked about"))
            .await;
        let secret = issued.unwrap().into_inner().secret;
        // Each of these clients has its own connection.
        for _ in 0..4 {
            let mut service = dev.client("service_jwt").await;
            let question = introspect_request(&stack, &secret, &[]);
            let answer = service.introspection.introspect(question).await.unwrap();
            assert!(answer.into_inner().active);
        }
    }
}
