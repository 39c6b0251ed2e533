//! Everybody else: a client whose calls are timed before and during a flood, and the
//! program's memory.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    program::{Dev, folder},
    support::{Client, introspect_request, issue_request},
};

/// How much memory a flood may cost.
const MEMORY_KIB: i64 = 64 * 1024;
/// How many times slower the slowest hundredth of calls may get. Without optimisation a frame
/// costs the program about as many times more as the second figure is larger.
const SLOWER: f64 = if cfg!(debug_assertions) { 10.0 } else { 3.0 };
/// How many calls are timed each time, and how often at least.
const CALLS: usize = 600;
const WINDOWS: usize = 3;

/// For how long each flood goes on.
pub fn flood_for() -> Duration {
    let set = std::env::var("STACKTOKEN_TEST_FLOOD_SECONDS").ok();
    Duration::from_secs(set.map_or(2, |text| text.parse().unwrap()))
}

/// One flood at a time: they are measured.
static FLOOD: Mutex<()> = Mutex::const_new(());

/// The program under flood, and who goes on calling it.
pub struct Besieged {
    pub dev: Dev,
    _alone: MutexGuard<'static, ()>,
    _folder: TempDir,
    client: Client,
    request: stacktoken::grpc::pb::v1::IntrospectRequest,
    memory: i64,
    calm: Duration,
}

impl Besieged {
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_as(|command| {
            command.args(arguments);
        })
        .await
    }

    /// With a change to how the program is started.
    pub async fn start_as(set: impl FnOnce(&mut Command)) -> Self {
        // Before anything runs, since that would be measured too.
        let alone = FLOOD.lock().await;
        let folder = folder();
        let dev = Dev::start_with(folder.path(), set);
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let issued = owner.tokens.issue(issue_request(&stack, "honest")).await;
        let secret = issued.unwrap().into_inner().secret;
        let client = dev.client("service_jwt").await;
        let mut besieged = Self {
            dev,
            _alone: alone,
            _folder: folder,
            client,
            request: introspect_request(&stack, &secret, &["entry.update"]),
            memory: 0,
            calm: Duration::ZERO,
        };
        // The first calls warm what the later ones find warm.
        besieged.slowest(CALLS).await;
        let mut calm = Vec::new();
        for _ in 0..WINDOWS {
            calm.push(besieged.slowest(CALLS).await);
        }
        calm.sort();
        besieged.calm = calm[WINDOWS / 2];
        besieged.memory = besieged.resident();
        besieged
    }

    pub fn address(&self) -> String {
        self.dev.get("grpc_address").to_owned()
    }

    /// How slow the slowest hundredth of so many calls is. Every one must be answered.
    async fn slowest(&mut self, calls: usize) -> Duration {
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            let began = Instant::now();
            let answer = self
                .client
                .introspection
                .introspect(self.request.clone())
                .await;
            times.push(began.elapsed());
            assert!(
                answer
                    .expect("everybody else is answered")
                    .into_inner()
                    .active
            );
        }
        times.sort();
        times[calls - 1 - calls / 100]
    }

    /// Memory that the program has, in KiB.
    pub fn resident(&self) -> i64 {
        let path = format!("/proc/{}/status", self.dev.child.id());
        let status = fs::read_to_string(path).expect("the program is alive");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// While a flood goes on: others are answered, not much slower, and memory holds.
    pub async fn withstands(&mut self, flood: &str) {
        let (mut windows, mut most) = (0, 0);
        let (mut slow, mut ratio) = (Duration::MAX, f64::MAX);
        let began = Instant::now();
        // What a flood does it does all the time; the rest is whatever else this machine does,
        // so a bad window is looked at again for a while.
        while windows < WINDOWS
            || began.elapsed() < flood_for()
            || ratio > SLOWER && began.elapsed() < 5 * flood_for()
        {
            slow = slow.min(self.slowest(CALLS).await);
            ratio = slow.as_secs_f64() / self.calm.as_secs_f64();
            most = most.max(self.resident());
            windows += 1;
        }
        let grown = most - self.memory;
        println!(
            "{flood}: p99 {:?} -> {slow:?} ({ratio:.1} x), memory {grown:+} KiB",
            self.calm
        );
        assert!(grown <= MEMORY_KIB, "{flood}: memory grew by {grown} KiB");
        assert!(
            ratio <= SLOWER,
            "{flood}: others are {ratio:.1} times slower"
        );
    }
}
