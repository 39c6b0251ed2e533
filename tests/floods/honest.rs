//! A well-behaved client. The tests time its calls before and during a flood, and check the memory
//! of the program.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use stacktoken::grpc::pb::v1::{IntrospectInclude, IntrospectQuestion};

use crate::{
    program::{Dev, folder},
    support::{Client, introspect_request, issue_request},
};

/// How much the memory of the program may grow during a flood, in KiB.
const MEMORY_KIB: i64 = 64 * 1024;
/// The factor by which the 99th percentile of call durations may grow. A debug build processes
/// frames more slowly, so it gets a larger factor.
const SLOWER: f64 = if cfg!(debug_assertions) { 10.0 } else { 3.0 };
/// How many calls are timed in one window, and the minimum number of windows.
const CALLS: usize = 600;
const WINDOWS: usize = 3;

/// Returns how long each flood lasts.
pub fn flood_for() -> Duration {
    let set = std::env::var("STACKTOKEN_TEST_FLOOD_SECONDS").ok();
    Duration::from_secs(set.map_or(2, |text| text.parse().unwrap()))
}

/// Held during a flood, because two floods at the same time would distort each other's
/// measurements.
static FLOOD: Mutex<()> = Mutex::const_new(());

/// The program under a flood, and a well-behaved client that keeps calling it.
pub struct FloodedServer {
    pub dev: Dev,
    _alone: MutexGuard<'static, ()>,
    _folder: TempDir,
    client: Client,
    request: stacktoken::grpc::pb::v1::IntrospectRequest,
    memory: i64,
    calm: Duration,
}

impl FloodedServer {
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_as(|command| {
            command.args(arguments);
        })
        .await
    }

    /// Starts the program with settings that `set` changes.
    pub async fn start_as(set: impl FnOnce(&mut Command)) -> Self {
        // The lock is taken first, because starting the program could disturb the measurement of
        // another test.
        let alone = FLOOD.lock().await;
        let folder = folder();
        let dev = Dev::start_with(folder.path(), set);
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let issued = owner.tokens.issue(issue_request(&stack, "honest")).await;
        let secret = issued.unwrap().into_inner().secret;
        let client = dev.client("service_jwt").await;
        let mut flooded = Self {
            dev,
            _alone: alone,
            _folder: folder,
            client,
            request: introspect_request(&stack, &secret, &["entry.update"]),
            memory: 0,
            calm: Duration::ZERO,
        };
        // The first calls fill the caches, so they are not measured.
        flooded.slowest(CALLS).await;
        let mut calm = Vec::new();
        for _ in 0..WINDOWS {
            calm.push(flooded.slowest(CALLS).await);
        }
        calm.sort();
        flooded.calm = calm[WINDOWS / 2];
        flooded.memory = flooded.resident();
        flooded
    }

    pub fn address(&self) -> String {
        self.dev.get("grpc_address").to_owned()
    }

    /// Returns the question that the well-behaved client asks.
    pub fn question(&self) -> IntrospectQuestion {
        IntrospectQuestion {
            token: self.request.token.clone(),
            stack_api_key: self.request.stack_api_key.clone(),
            actions: self.request.actions.clone(),
            include: vec![IntrospectInclude::Permissions.into()],
        }
    }

    /// Makes this many calls and returns the 99th percentile of their durations. Asserts that every
    /// call succeeds.
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
                    .expect("a well-behaved client is answered")
                    .into_inner()
                    .active
            );
        }
        times.sort();
        times[calls - 1 - calls / 100]
    }

    /// Returns the resident memory of the program, in KiB.
    pub fn resident(&self) -> i64 {
        let path = format!("/proc/{}/status", self.dev.child.id());
        let status = fs::read_to_string(path).expect("the program has ended");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Asserts that during a flood the client's calls are not much slower and memory stays bounded.
    pub async fn assert_withstands(&mut self, flood: &str) {
        let (mut windows, mut most) = (0, 0);
        let (mut slow, mut ratio) = (Duration::MAX, f64::MAX);
        let began = Instant::now();
        // A flood slows every window, but other load on this machine slows only some. So the
        // fastest window counts, and more windows are measured while all are slow.
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
            "{flood}: calls are {ratio:.1} times slower"
        );
    }
}
