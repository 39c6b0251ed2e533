//! Tests that system calls may fail under SQLite at every point of a transaction.

use std::time::{Duration, Instant};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::{
    book::AcknowledgedTokens,
    shim::{EIO, ENOMEM, ENOSPC, PreloadedFaults, Rule},
};
use crate::{
    program::{Dev, folder},
    support::{database::DirectConnection, reason},
};

/// Returns how many rounds of random faults to run: FAULT_ROUNDS, or 40 by default.
fn rounds() -> u64 {
    let rounds = std::env::var("FAULT_ROUNDS").ok();
    rounds.map_or(40, |rounds| rounds.parse().unwrap())
}

/// Asserts that changes succeed again soon after the fault ends, without a restart.
async fn recover(book: &mut AcknowledgedTokens) {
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(status) = book.issue().await {
        assert!(Instant::now() < until, "no recovery: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn change(book: &mut AcknowledgedTokens) {
    for _ in 0..5 {
        let uid = book.issue().await.unwrap();
        assert!(book.is_active(&uid).await.unwrap());
        let uid = book.issue().await.unwrap();
        book.revoke(&uid).await.unwrap();
    }
}

/// Makes two commits fail, and asserts that changes that are acknowledged later are in the file.
async fn two_failures(call: &'static str, error: i32, expected: &str) {
    let folder = folder();
    let Some(shim) = PreloadedFaults::build(folder.path()) else {
        return;
    };
    let dev = shim.start(folder.path());
    let mut book = AcknowledgedTokens::open(&dev).await;
    let early = book.issue().await.unwrap();
    for _ in 0..2 {
        shim.set(&[Rule::fails(call, "-wal", error, 0)]);
        let status = book.issue().await.unwrap_err();
        assert_eq!(reason(&status), expected);
        let status = book.revoke(&early).await.unwrap_err();
        assert_eq!(reason(&status), expected);
        shim.clear();
        recover(&mut book).await;
    }
    change(&mut book).await;
    book.check_by_the_file(dev).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_two_full_disks_are_in_the_file() {
    two_failures("write", ENOSPC, "STORAGE_FULL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_two_failed_writes_are_in_the_file() {
    two_failures("write", EIO, "STORE_UNAVAILABLE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_two_failed_syncs_are_in_the_file() {
    two_failures("sync", EIO, "STORE_UNAVAILABLE").await;
}

/// Introspection writes too, because it records the first use of a secret. Two of these writes fail,
/// and later changes still reach the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_two_failed_first_uses_are_in_the_file() {
    let folder = folder();
    let Some(shim) = PreloadedFaults::build(folder.path()) else {
        return;
    };
    let dev = shim.start(folder.path());
    let mut book = AcknowledgedTokens::open(&dev).await;
    let mut unused = Vec::new();
    for _ in 0..4 {
        unused.push(book.issue().await.unwrap());
    }
    shim.set(&[Rule::fails("sync", "-wal", EIO, 0)]);
    for uid in &unused[..2] {
        let status = book.is_active(uid).await.unwrap_err();
        assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    }
    shim.clear();
    recover(&mut book).await;
    change(&mut book).await;
    for uid in &unused {
        assert!(book.is_active(uid).await.unwrap());
    }
    book.check_by_the_file(dev).await;
}

/// Draws a random fault of any kind and length. It may strike in BEGIN, a statement, COMMIT or
/// ROLLBACK, or while a connection is opened.
fn draw(random: &mut ChaCha20Rng) -> Rule {
    let mut below = |bound: u32| random.next_u32() % bound;
    let (call, error) = match below(8) {
        0 | 1 => ("write", ENOSPC),
        2 => ("write", EIO),
        3 | 4 => ("sync", EIO),
        5 => ("read", EIO),
        _ => ("malloc", ENOMEM),
    };
    Rule {
        skip: below(if call == "malloc" { 400 } else { 12 }),
        count: 1 + below(4),
        ..Rule::fails(call, "stacktoken.db", error, 0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_change_survives_every_disk_fault() {
    let folder = folder();
    let Some(shim) = PreloadedFaults::build(folder.path()) else {
        return;
    };
    let dev = shim.start(folder.path());
    let mut book = AcknowledgedTokens::open(&dev).await;
    let mut random = ChaCha20Rng::seed_from_u64(12);
    let (mut done, mut failed) = (0, 0);
    for _ in 0..rounds() {
        shim.set(&[draw(&mut random)]);
        for _ in 0..4 {
            let uids: Vec<_> = book.entries.keys().cloned().collect();
            let uid = uids.get(random.next_u32() as usize % uids.len().max(1));
            let outcome = match (random.next_u32() % 4, uid) {
                (0, Some(uid)) => book.revoke(uid).await,
                (1, Some(uid)) => book.preview(uid).await,
                (2, Some(uid)) => book.is_active(uid).await.map(drop),
                _ => book.issue().await.map(drop),
            };
            match outcome {
                Ok(()) => done += 1,
                Err(_) => failed += 1,
            }
        }
        shim.clear();
        recover(&mut book).await;
        book.check().await;
    }
    println!("{done} calls answered, {failed} failed, nothing lost");
    assert!(
        failed > rounds() / 4,
        "too few failures to prove anything: {failed}"
    );
    book.check_by_the_file(dev).await;
}

/// Another process holds the write lock for longer than any call's timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_another_program_held_the_file_are_in_it() {
    let folder = folder();
    let dev = Dev::start_with(folder.path(), |command| {
        command.env("STACKTOKEN_DEADLINE", "500ms");
    });
    let mut book = AcknowledgedTokens::open(&dev).await;
    let early = book.issue().await.unwrap();
    let outside = DirectConnection::of(&folder.path().join(".stacktoken/stacktoken.db")).await;
    for _ in 0..2 {
        outside.run("BEGIN IMMEDIATE").await;
        let status = book.issue().await.unwrap_err();
        assert_eq!(reason(&status), "DEADLINE");
        let status = book.revoke(&early).await.unwrap_err();
        assert_eq!(reason(&status), "DEADLINE");
        // Readers do not wait for the write lock.
        book.listed().await;
        outside.run("ROLLBACK").await;
        recover(&mut book).await;
    }
    drop(outside);
    change(&mut book).await;
    book.check_by_the_file(dev).await;
}
