//! The guard itself: it is lost, belongs to another database, is damaged, is slow, or is not there.

use std::fs;

use crate::{
    database_down::{DATABASE, wait_for_log},
    served::{IssuersFolder, RunningServer},
    support::{issue_request, reason, requests::revoke_request},
};

use super::{
    Site, WRITTEN,
    backup::{Backup, Database},
    changes::{Callers, End},
    stop,
};

async fn issued(served: &RunningServer) -> (Callers, String, String) {
    let mut callers = Callers::of(served).await;
    let stack = served.register().await;
    let request = issue_request(&stack, "one");
    let issued = callers.owner.tokens.issue(request).await.unwrap();
    let uid = issued.into_inner().token.unwrap().token_uid;
    (callers, stack, uid)
}

/// Issues a token under a strict guard, stops the process and makes a backup. Returns the place, the
/// backup, and the ids of the stack and the token.
async fn backed_up_with_a_token() -> (Site, Backup, (String, String)) {
    let mut site = Site::new(Database::file());
    site.mode = "strict";
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    let (_, stack, uid) = issued(&served).await;
    tokio::time::sleep(WRITTEN).await;
    stop(served);
    let backup = site.database.back_up();
    (site, backup, (stack, uid))
}

/// Waits until the process has ended because a flag is wrong. Returns its log.
async fn refuses_flag(served: RunningServer) -> String {
    ends(served, 2).await
}

/// Waits until the process has ended with a failure. Returns its log.
async fn fails(served: RunningServer) -> String {
    ends(served, 1).await
}

async fn ends(mut served: RunningServer, code: i32) -> String {
    let status = tokio::task::spawn_blocking(move || {
        let status = served.child.wait().unwrap();
        (status, served.log())
    });
    let (status, log) = status.await.unwrap();
    assert_eq!(status.code(), Some(code), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_guard_is_replaced_by_a_command_that_the_audit_records() {
    let mut site = Site::new(Database::file());
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    issued(&served).await;
    stop(served);
    site.guard = crate::program::folder();
    let log = fails(site.start(IssuersFolder::new())).await;
    assert!(log.contains("stacktoken restore new-guard"), "{log}");
    let (code, told) = site.restore(&["new-guard"]);
    assert_eq!(code, Some(0), "{told}");
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    let request = stacktoken::grpc::pb::audit::v1::ListRequest {
        methods: vec!["stacktoken.restore/NewGuard".to_owned()],
        ..Default::default()
    };
    let listed = callers.operator.audit.list(request).await.unwrap();
    assert_eq!(listed.into_inner().events.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_of_another_database_is_refused() {
    let site = Site::new(Database::file());
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    stop(served);
    let mut other = Site::new(Database::file());
    let served = other.start(IssuersFolder::new());
    served.serves().await;
    stop(served);
    other.guard = site.guard;
    let log = fails(other.start(IssuersFolder::new())).await;
    assert!(log.contains("the guard of another database"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_does_not_open_the_guard() {
    let site = Site::new(Database::file());
    let keys = crate::program::folder();
    let key = |name: &str, bytes: usize| {
        let file = keys.path().join(name);
        fs::write(&file, name.repeat(bytes / name.len())).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let guard = site.guard();
    let start = |key: &str| {
        site.start_with(IssuersFolder::new(), |command| {
            command.args(["--guard", &guard, "--guard-key-file", key]);
        })
    };
    let ours = key("ours", 32);
    let served = start(&ours);
    served.serves().await;
    stop(served);
    let log = fails(start(&key("else", 32))).await;
    assert!(log.contains("another --guard-key-file"), "{log}");
    let log = refuses_flag(start(&key("tiny", 4))).await;
    assert!(log.contains("fewer than 16 bytes"), "{log}");
    let served = start(&ours);
    served.serves().await;
    stop(served);
    // The key is lost: the files that it sealed are set aside.
    let other = key("else", 32);
    let command = [
        "restore",
        "new-guard",
        "--guard",
        &guard,
        "--guard-key-file",
        &other,
    ];
    let (code, told) = IssuersFolder::new().run_command(&site.database.url(), &command);
    assert_eq!(code, Some(0), "{told}");
    let served = start(&other);
    served.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_line_does_not_count_and_is_named() {
    let site = Site::new(Database::file());
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    let (mut callers, stack, uid) = issued(&served).await;
    let request = revoke_request(&stack, &uid, "");
    callers.owner.tokens.revoke(request).await.unwrap();
    tokio::time::sleep(WRITTEN).await;
    stop(served);
    let journal = journal(&site);
    let text = fs::read_to_string(&journal).unwrap();
    assert!(text.contains("\"revoked\":true"), "{text}");
    assert!(!text.contains("stk1_"), "a secret");
    fs::write(
        &journal,
        text.replace("\"revoked\":true", "\"revoked\":false"),
    )
    .unwrap();
    let (code, plan) = site.restore(&["plan"]);
    assert_eq!(code, Some(1));
    assert!(plan.contains("damaged journal-"), "{plan}");
    let (code, refused) = site.restore(&["apply"]);
    assert_eq!(code, Some(1));
    assert!(refused.contains("--accept-damage"), "{refused}");
}

fn journal(site: &Site) -> std::path::PathBuf {
    let files = fs::read_dir(site.guard.path()).unwrap().flatten();
    let mut files = files.filter(|file| file.file_name().to_string_lossy().starts_with("journal-"));
    files.next().unwrap().path()
}

/// A revoke that is acknowledged is lost before the mark is renewed, and the process is gone too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_younger_than_the_mark_is_noticed() {
    let (mut site, backup, (stack, uid)) = backed_up_with_a_token().await;
    let mut served = site.start(IssuersFolder::new());
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    let marks = marks(&site);
    let request = revoke_request(&stack, &uid, "");
    callers.owner.tokens.revoke(request).await.unwrap();
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    drop(served);
    // Whatever the mark says: it could have been written a moment earlier.
    for (path, content) in marks {
        fs::write(path, content).unwrap();
    }
    site.database.restore(&backup);
    let served = site.start(IssuersFolder::new());
    wait_for_log(&served, "stacktoken restore apply").await;
}

fn marks(site: &Site) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = fs::read_dir(site.guard.path()).unwrap().flatten();
    let files = files.filter(|file| file.file_name().to_string_lossy().starts_with("mark-"));
    let read = |file: fs::DirEntry| (file.path(), fs::read(file.path()).unwrap());
    files.map(read).collect()
}

/// `restore apply` with the directory of another service changes neither of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_of_another_service_is_not_applied_or_replaced() {
    let [one, mut other] = [(); 2].map(|()| Site::new(Database::file()));
    for site in [&one, &other] {
        let served = site.start(IssuersFolder::new());
        served.serves().await;
        stop(served);
    }
    let guards = || fs::read(one.guard.path().join("guard.json")).unwrap();
    let before = guards();
    let own = std::mem::replace(&mut other.guard, crate::program::folder());
    for step in ["plan", "apply", "new-guard"] {
        let guard = one.guard();
        let command = ["restore", step, "--guard", &guard];
        let (code, told) = IssuersFolder::new().run_command(&other.database.url(), &command);
        assert_eq!(code, Some(1), "{step}: {told}");
        assert!(
            told.contains("the guard of another database"),
            "{step}: {told}"
        );
    }
    assert_eq!(guards(), before);
    other.guard = own;
    for site in [&one, &other] {
        let served = site.start(IssuersFolder::new());
        served.serves().await;
    }
}

/// Without anything else that goes wrong, the cache would answer for a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_cache_does_not_answer_for_a_database_from_the_past() {
    let Some(database) = Database::dumped() else {
        return;
    };
    let site = Site::new(database);
    let guard = site.guard();
    let served = site.start_with(IssuersFolder::new(), |command| {
        command.args(["--guard", &guard, "--serve-stale-for", "60s"]);
    });
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    let held = callers.prepare(&served, 1).await;
    tokio::time::sleep(WRITTEN).await;
    callers.ask(&held[0]).await.unwrap();
    let Database::Dumped(postgres, _) = &site.database else {
        panic!("PostgreSQL");
    };
    postgres.run(DATABASE, "DELETE FROM changes");
    wait_for_log(&served, "stacktoken restore apply").await;
    let refused = callers.ask(&held[0]).await.unwrap_err();
    assert_eq!(reason(&refused), "RESTORED_FROM_PAST");
}

/// A process that is killed between a COMMIT and the outcome leaves an intent alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_unknown_outcome_waits_for_a_decision() {
    let (mut site, backup, (stack, uid)) = backed_up_with_a_token().await;
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    let request = revoke_request(&stack, &uid, "");
    callers.owner.tokens.revoke(request).await.unwrap();
    tokio::time::sleep(WRITTEN).await;
    stop(served);
    let text = fs::read_to_string(journal(&site)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [of, intent, _outcome] = lines[..] else {
        panic!("the guard, an intent and an outcome: {text}");
    };
    fs::write(journal(&site), format!("{of}\n{intent}\n")).unwrap();
    site.database.restore(&backup);
    let (code, plan) = site.restore(&["plan"]);
    assert_eq!(code, Some(1), "{plan}");
    let perhaps = format!("token {uid} perhaps would be revoked");
    assert!(plan.contains(&perhaps), "{plan}");
    let (code, refused) = site.restore(&["apply"]);
    assert_eq!(code, Some(1));
    assert!(refused.contains("--unknown=suspend"), "{refused}");
    let (code, applied) = site.restore(&["apply", "--unknown", "suspend"]);
    assert_eq!(code, Some(0), "{applied}");
    assert!(
        applied.contains(&format!("stack {stack} is suspended")),
        "{applied}"
    );
    let (code, applied) = site.restore(&["apply", "--unknown", "end"]);
    assert_eq!(code, Some(0), "{applied}");
    let ended = format!("token {uid} is revoked");
    assert!(applied.contains(&ended), "{applied}");
}

/// With `strict`, a change whose intent the guard cannot keep is not made. Without it, it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_strict_guard_that_fails_refuses_changes_and_verdicts_go_on() {
    for (mode, is_refused) in [("strict", true), ("background", false)] {
        let mut site = Site::new(Database::file());
        site.mode = mode;
        let served = site.start(IssuersFolder::new());
        served.serves().await;
        let mut callers = Callers::of(&served).await;
        let held = callers.prepare(&served, 1).await;
        let held = held.iter().find(|held| held.end == End::Revoked).unwrap();
        tokio::time::sleep(WRITTEN).await;
        let away = site.guard.path().with_extension("away");
        fs::rename(site.guard.path(), &away).unwrap();
        fs::write(site.guard.path(), "not a directory").unwrap();
        let revoke = || revoke_request(&held.stack, &held.uid, "");
        let done = callers.owner.tokens.revoke(revoke()).await;
        match done {
            Err(refused) => {
                assert!(is_refused, "{refused:?}");
                assert_eq!(reason(&refused), "STORE_UNAVAILABLE");
                assert!(refused.message().contains("the restore guard"));
                assert!(callers.ask(held).await.unwrap().active);
            }
            Ok(_) => {
                assert!(!is_refused);
                assert!(!callers.ask(held).await.unwrap().active);
            }
        }
        wait_for_log(&served, "the restore guard cannot be written").await;
        fs::remove_file(site.guard.path()).unwrap();
        fs::rename(&away, site.guard.path()).unwrap();
        wait_for_log(&served, "the restore guard is written again").await;
        tokio::time::sleep(WRITTEN).await;
        stop(served);
        // A change that was refused ends nothing.
        let (code, plan) = site.restore(&["plan"]);
        assert_eq!(code, Some(0), "{mode}: {plan}");
        let lines = fs::read_to_string(journal(&site)).unwrap();
        assert!(lines.contains(&held.uid), "{mode}: {lines}");
        assert!(
            lines.contains(&format!("\"committed\":{}", !is_refused)),
            "{lines}"
        );
    }
}
