//! From start to end: how soon it serves, how it stops, and what it leaves behind.

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
    assert_eq!(micros(&seen.unwrap()), used[1], "not only its first use");
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
    assert!(
        told.contains("stacktoken.db is in use by another stacktoken process"),
        "{told}"
    );
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
    let told = text(&second.stderr);
    assert_eq!(
        (second.status.code(), told.lines().count()),
        (Some(1), 1),
        "{told}"
    );
    assert!(
        told.contains("--listen") && told.contains("cannot listen"),
        "{told}"
    );
}

#[test]
fn dev_listens_on_loopback_only() {
    for flag in ["--listen", "--admin-listen"] {
        let refused = run(&["dev", flag, "0.0.0.0:0"]);
        let told = text(&refused.stderr);
        assert_eq!(
            (refused.status.code(), told.lines().count()),
            (Some(1), 1),
            "{told}"
        );
        assert!(told.contains(flag) && told.contains("loopback"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_is_logged_with_who_asked_for_it() {
    let folder = folder();
    let mut dev = Dev::start(folder.path());
    let mut owner = dev.client("owner_jwt").await;
    let report = v1::ReportLeakedRequest::default();
    let refused = owner.tokens.report_leaked(report).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Lines are written behind the calls, and all of them at the end.
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let log = fs::read_to_string(folder.path().join("stderr")).unwrap();
    let line = log.lines().find(|line| line.contains("/ReportLeaked\""));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for wanted in ["PERMISSION_DENIED", "kind=\"USER\"", "subject=\"owner\""] {
        assert!(line.contains(wanted), "{line}");
    }
}
