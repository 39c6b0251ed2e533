//! `migrate up` that is killed while it works, and several at once: the next run completes what is
//! left, and nothing is applied twice.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::{
    postgres,
    program::program,
    served::{IssuersFolder, migrate},
};

/// How often the command is killed, at instants spread over the time that it takes.
const KILLS: u32 = 16;

fn begin(url: &str) -> Child {
    let mut command = program();
    command
        .args(["migrate", "up"])
        .env("STACKTOKEN_DATABASE_URL", url)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills `migrate up` on new stores, and completes each. Returns how often some migrations were
/// applied and others were not.
fn kill_on(mut new_store: impl FnMut(u32) -> String) -> u32 {
    let files = IssuersFolder::new();
    let url = new_store(0);
    let began = Instant::now();
    migrate(&url);
    let whole = began.elapsed();
    let mut halfway = 0;
    for round in 1..=KILLS {
        let url = new_store(round);
        let mut running = begin(&url);
        std::thread::sleep(whole * round / KILLS);
        // It may have ended by itself in the last rounds.
        let _ = running.kill();
        running.wait().unwrap();
        let (_, status) = files.run_command(&url, &["migrate", "status"]);
        let has = |word: &str| status.lines().any(|line| line.starts_with(word));
        assert!(
            !has("missing ") && !has("unknown "),
            "round {round}: {status}"
        );
        halfway += u32::from(has("applied ") && has("pending "));
        let (code, applied) = files.run_command(&url, &["migrate", "up"]);
        assert_eq!(code, Some(0), "round {round}: {applied}");
        let (code, status) = files.run_command(&url, &["migrate", "status"]);
        assert_eq!(code, Some(0), "round {round}: {status}");
    }
    halfway
}

#[test]
fn a_killed_migration_of_a_file_applied_all_or_nothing() {
    let files = IssuersFolder::new();
    let halfway = kill_on(|round| format!("{}-{round}", files.sqlite()));
    assert_eq!(halfway, 0);
}

#[test]
fn a_killed_migration_of_postgresql_is_completed_by_the_next_run() {
    let Some(server) = postgres::start() else {
        return;
    };
    let halfway = kill_on(|round| {
        let name = format!("killed{round}");
        server.create(&name);
        server.url(server.port(), &name)
    });
    println!("{halfway} of {KILLS} were killed halfway");
}

#[test]
fn of_five_migrators_of_which_two_are_killed_three_succeed() {
    let Some(server) = postgres::start() else {
        return;
    };
    for round in 0..4 {
        let name = format!("raced{round}");
        server.create(&name);
        let url = server.url(server.port(), &name);
        let mut running: Vec<_> = (0..5).map(|_| begin(&url)).collect();
        std::thread::sleep(Duration::from_millis(60 * (round + 1)));
        for killed in running.drain(..2) {
            let mut killed = killed;
            let _ = killed.kill();
            killed.wait().unwrap();
        }
        for mut one in running {
            assert!(one.wait().unwrap().success(), "round {round}");
        }
        let (code, status) = IssuersFolder::new().run_command(&url, &["migrate", "status"]);
        assert_eq!(code, Some(0), "round {round}: {status}");
    }
}
