//! A change told in the very moment in which memory is looked into.

use std::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
    time::Duration,
};

use stacktoken::domain::{clock::Clock, timestamp::Timestamp};
use stacktoken_client::{Client, Question};
use tokio::runtime::Handle;

use crate::{
    played::{KEY, Server, ask, at, secret, until},
    support::ManualClock,
};

type Interruption = Box<dyn FnOnce() + Send>;

/// A clock that does something once when a certain thread reads it.
struct Interrupting {
    clock: Arc<ManualClock>,
    next: Mutex<Option<(ThreadId, Interruption)>>,
}

impl Clock for Interrupting {
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

/// Memory was looked into before the change was applied, and the revision after: the caller
/// knows of the revoke, and must not be told what was before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_looked_up_before_a_change_is_no_answer_for_whoever_names_that_change() {
    let mut server = Server::start().await;
    let clock = Arc::new(Interrupting {
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
                stream.tell_token((6, 6)).await;
                until("it is forgotten", || watched.entries() == 0).await;
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
    assert!(interrupted, "no change came between");
    assert_eq!(answer, None, "memory from before the change was answered");
}
