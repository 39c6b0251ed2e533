//! Tests a change that arrives during a cache lookup.

use std::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
    time::Duration,
};

use stacktoken::domain::{clock::Clock, timestamp::Timestamp};
use stacktoken_client::{Client, Question};
use tokio::runtime::Handle;

use crate::{
    scripted::{KEY, Server, ask, at, secret, until},
    support::ManualClock,
};

type Interruption = Box<dyn FnOnce() + Send>;

/// A clock that runs a function once, the first time that a given thread reads the clock.
struct InterruptingClock {
    clock: Arc<ManualClock>,
    next: Mutex<Option<(ThreadId, Interruption)>>,
}

impl Clock for InterruptingClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        let mut next = self.next.lock().unwrap();
        let ours = next.take_if(|(thread, _)| *thread == thread::current().id());
        drop(next);
        if let Some((_, interrupt)) = ours {
            interrupt();
        }
        self.clock.monotonic()
    }
}

/// The lookup reads the cache before the change is applied, and the revision after it. The caller
/// requires the revision of the revoke, so it must not get the earlier answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_from_before_a_change_does_not_answer_a_caller_that_requires_it() {
    let mut server = Server::start().await;
    let clock = Arc::new(InterruptingClock {
        clock: server.clock.clone(),
        next: Mutex::default(),
    });
    let client = Client::builder(&server.address)
        .bearer("jwt")
        .clock(clock.clone())
        .build()
        .unwrap();
    let stream = server.watch(&client, 5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    assert_eq!(ask(&client, &secret).await, (true, true));
    let (runtime, watched) = (Handle::current(), client.clone());
    let asking = tokio::task::spawn_blocking(move || {
        let told = Box::new(move || {
            runtime.block_on(async {
                stream.send_token_change((6, 6)).await;
                until("it is evicted", || watched.entries() == 0).await;
            });
        });
        *clock.next.lock().unwrap() = Some((thread::current().id(), told));
        let revision = at(6);
        let question = Question::new(&secret, KEY).since(&revision);
        let answer = client.cached(&question).map(|answer| answer.active());
        let interrupted = clock.next.lock().unwrap().is_none();
        (interrupted, answer)
    });
    let (interrupted, answer) = asking.await.unwrap();
    assert!(interrupted, "the change did not arrive during the lookup");
    assert_eq!(answer, None, "the cached answer is older than the change");
}
