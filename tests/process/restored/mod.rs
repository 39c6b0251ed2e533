//! Restores of the database from a backup. Whatever had ended after the backup is ended again before
//! anything is answered. The drills make real changes of every kind, with real databases.
//!
//! `STACKTOKEN_TEST_DRILL` is the number of tokens for each kind of change (2 by default; 72 makes
//! 1,000 changes).

mod backup;
mod changes;
mod guarding;

use std::{env, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;
use tonic::Code;

use self::{
    backup::{Backup, Database},
    changes::{Callers, End, Held, Told},
};
use crate::{
    database_down::wait_for_log,
    program::{folder, signal_to},
    served::{IssuersFolder, RunningServer},
    support::{federated, issue_request, reason},
};

/// Enough time for the journal and the mark to be written in the background.
const WRITTEN: std::time::Duration = std::time::Duration::from_millis(2500);

/// A service with a database and a guard, as an operator has them.
struct Site {
    database: Database,
    guard: TempDir,
    mode: &'static str,
}

/// What there was to restore.
struct Drill {
    backup: Backup,
    held: Vec<Held>,
    /// What a service was told before the restore.
    told: Vec<Told>,
}

fn of_each() -> usize {
    let set = env::var("STACKTOKEN_TEST_DRILL").ok();
    set.map_or(2, |number| number.parse().unwrap())
}

impl Site {
    fn new(database: Database) -> Self {
        Self {
            database,
            guard: folder(),
            mode: "background",
        }
    }

    fn guard(&self) -> String {
        format!("file://{}", self.guard.path().display())
    }

    fn start(&self, issuers: IssuersFolder) -> RunningServer {
        let (guard, mode) = (self.guard(), self.mode);
        self.start_with(issuers, |command| {
            command.args(["--guard", &guard, "--guard-mode", mode]);
        })
    }

    fn start_with(&self, issuers: IssuersFolder, set: impl FnOnce(&mut Command)) -> RunningServer {
        issuers.append("issuers.toml", federated::ENTRIES);
        RunningServer::start_on(issuers, &self.database.url(), |command| {
            command
                .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
                .env("STACKTOKEN_CHANGES_BURST", "1000000");
            set(command);
        })
    }

    /// Runs a step of `stacktoken restore`. Returns the exit code and the output.
    fn restore(&self, step: &[&str]) -> (Option<i32>, String) {
        let guard = self.guard();
        let command = [&["restore"][..], step, &["--guard", &guard]].concat();
        IssuersFolder::new().run_command(&self.database.url(), &command)
    }

    /// Makes a backup, then ends everything, and stops the service.
    async fn drill(&mut self) -> Drill {
        let served = self.start(IssuersFolder::new());
        served.serves().await;
        let mut callers = Callers::of(&served).await;
        let held = callers.prepare(&served, of_each()).await;
        let issuers = stop(served);
        let backup = self.database.back_up();
        let served = self.start(issuers);
        served.serves().await;
        let mut callers = Callers::of(&served).await;
        callers.end_all(&held).await;
        // Longer than the overlap that is left to end by itself.
        tokio::time::sleep(WRITTEN).await;
        let told = callers.ask_all(&held).await;
        for (held, told) in held.iter().zip(&told) {
            let is_whole = told.active && told.writes && told.expires_at == i64::MAX;
            assert_eq!(is_whole, !held.end.takes_away(), "{:?}: {told:?}", held.end);
        }
        drop(stop(served));
        Drill { backup, held, told }
    }

    /// Starts the service, and checks that it refuses everything and names the command.
    async fn refuses(&self, held: &Held) -> RunningServer {
        let served = self.start(IssuersFolder::new());
        wait_for_log(&served, "stacktoken restore apply").await;
        served.is_ready(false).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let mut callers = Callers::of(&served).await;
        let until = std::time::Instant::now() + WRITTEN;
        while std::time::Instant::now() < until {
            let refused = callers.ask(held).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable);
            assert_eq!(reason(&refused), "RESTORED_FROM_PAST");
            assert!(refused.message().contains("stacktoken restore apply"));
            let issue = issue_request(&held.stack, "new");
            let refused = callers.owner.tokens.issue(issue).await.unwrap_err();
            assert_eq!(reason(&refused), "RESTORED_FROM_PAST");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        assert!(served.ready().await.contains("NOT_SERVING"));
        assert_eq!(served.counted("stacktoken_restored_from_past").await, 1);
        served
    }

    /// Ends again what had ended, and checks that nothing else has. Replicas that share the database
    /// run meanwhile, and serve again by themselves.
    async fn recover(&self, drill: &Drill, refusing: Option<RunningServer>) {
        let (code, plan) = self.restore(&["plan"]);
        assert_eq!(code, Some(1), "{plan}");
        for held in &drill.held {
            let is_listed = match held.end {
                End::Suspended | End::Removed => {
                    plan.contains(&format!("stack {} would", held.stack))
                }
                _ => plan.contains(&format!("token {} would", held.uid)),
            };
            assert_eq!(is_listed, held.end.takes_away(), "{:?}: {plan}", held.end);
        }
        let (code, applied) = self.restore(&["apply"]);
        assert_eq!(code, Some(0), "{applied}");
        let (code, again) = self.restore(&["plan"]);
        assert_eq!(code, Some(0), "nothing is left: {again}");
        let served = refusing.unwrap_or_else(|| self.start(IssuersFolder::new()));
        served.serves().await;
        let mut callers = Callers::of(&served).await;
        for (held, before) in drill.held.iter().zip(&drill.told) {
            let after = callers.ask_again(held).await;
            assert!(
                !after.exceeds(before),
                "{:?} came back: {after:?}",
                held.end
            );
            if !held.end.takes_away() {
                assert_eq!(&after, before, "{:?} was ended", held.end);
            }
        }
        self.is_audited(&mut callers, drill).await;
    }

    async fn is_audited(&self, callers: &mut Callers, drill: &Drill) {
        let revoked = drill
            .held
            .iter()
            .find(|held| held.end == End::Revoked)
            .unwrap();
        let request = stacktoken::grpc::pb::audit::v1::ListRequest {
            stack_api_key: revoked.stack.clone(),
            token_uids: vec![revoked.uid.clone()],
            page_size: 100,
            ..Default::default()
        };
        let listed = callers.operator.audit.list(request).await.unwrap();
        let events = listed.into_inner().events;
        let by_restore = events.iter().filter(|event| {
            let actor = event.actor.as_ref().unwrap();
            actor.issuer == "stacktoken" && actor.subject == "restore"
        });
        let methods: Vec<_> = by_restore.map(|event| event.method.as_str()).collect();
        assert_eq!(methods, ["stacktoken.v1.TokenService/Revoke"]);
    }
}

/// Stops a server gracefully. Returns its folder, so that the same keys can be used again.
fn stop(mut served: RunningServer) -> IssuersFolder {
    signal_to(&served.child, Signal::TERM);
    assert!(served.child.wait().unwrap().success(), "{}", served.log());
    IssuersFolder::new()
}

async fn nothing_comes_back(database: Option<Database>, mode: &'static str) {
    let Some(database) = database else {
        return;
    };
    let mut site = Site::new(database);
    site.mode = mode;
    let drill = site.drill().await;
    let Drill { backup, held, .. } = &drill;
    site.database.restore(backup);
    let refusing = site.refuses(&held[0]).await;
    let is_shared = !matches!(site.database, Database::File(_));
    site.recover(&drill, is_shared.then_some(refusing)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sqlite_file_copied_back_brings_nothing_back() {
    nothing_comes_back(Some(Database::file()), "background").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgresql_brings_nothing_back() {
    nothing_comes_back(Database::dumped(), "background").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_postgresql_brings_nothing_back() {
    nothing_comes_back(Database::snapshot(), "strict").await;
}

/// The control of the drills: without a guard, everything that had ended works again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_guard_a_restore_brings_everything_back() {
    let mut site = Site::new(Database::file());
    let drill = site.drill().await;
    site.database.restore(&drill.backup);
    let served = site.start_with(IssuersFolder::new(), |_| {});
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    for (held, before) in drill.held.iter().zip(&drill.told) {
        let after = callers.ask(held).await.unwrap();
        let came_back = after.exceeds(before);
        assert_eq!(
            came_back,
            held.end.takes_away(),
            "{:?}: {after:?}",
            held.end
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sqlite_file_overwritten_under_the_process_is_noticed() {
    let mut site = Site::new(Database::file());
    let drill = site.drill().await;
    let served = site.start(IssuersFolder::new());
    served.serves().await;
    let mut callers = Callers::of(&served).await;
    // From now on, the cache could answer.
    callers.ask_all(&drill.held).await;
    site.database.overwrite(&drill.backup);
    tokio::time::sleep(WRITTEN).await;
    for held in &drill.held {
        // Nothing is answered, whatever SQLite makes of the file.
        callers.ask(held).await.unwrap_err();
    }
    served.is_ready(false).await;
    drop(served);
    site.database.restore(&drill.backup);
    site.recover(&drill, None).await;
}
