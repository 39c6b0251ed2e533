//! Tests a real file system that is full, and a real limit on the size of files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{book::AcknowledgedTokens, shim::PreloadedFaults};
use crate::{
    program::{Dev, folder},
    support::{reason, skips::found_or_skip},
};

/// A small tmpfs, which is unmounted after the test.
struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    /// Mounts a file system. Returns `None` if this process may not mount; the tests with the
    /// preloaded library cover the same faults.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at);
        let mounted = command.output().is_ok_and(|done| done.status.success());
        let small = mounted.then(|| Self(at.to_owned()));
        found_or_skip(small, "the right to mount a file system")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_filled_up_twice_loses_nothing() {
    let folder = folder();
    let Some(_small) = SmallFileSystem::mount(&folder.path().join(".stacktoken"), "16m") else {
        return;
    };
    let dev = Dev::start(folder.path());
    let mut book = AcknowledgedTokens::open(&dev).await;
    let ballast = folder.path().join(".stacktoken/ballast");
    for _ in 0..2 {
        // This fills the disk almost completely. The rest is too small for a commit.
        let _ = fs::write(&ballast, vec![1; 32 << 20]);
        let status = loop {
            if let Err(status) = book.issue().await {
                break status;
            }
        };
        assert_eq!(reason(&status), "STORAGE_FULL");
        fs::remove_file(&ballast).unwrap();
        let uid = book.issue().await.unwrap();
        book.revoke(&uid).await.unwrap();
    }
    for _ in 0..20 {
        let uid = book.issue().await.unwrap();
        assert!(book.is_active(&uid).await.unwrap());
    }
    book.check_by_the_file(dev).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writes_beyond_a_limit_far_apart_lose_nothing() {
    let folder = folder();
    // The library is preloaded only because it makes the process ignore SIGXFSZ; it gets no rules.
    let Some(shim) = PreloadedFaults::build(folder.path()) else {
        return;
    };
    let dev = shim.start(folder.path());
    let mut book = AcknowledgedTokens::open(&dev).await;
    let pid = Pid::from_raw(i32::try_from(dev.child.id()).unwrap());
    let limit = |bytes| {
        let maximum = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, maximum).unwrap();
    };
    for _ in 0..2 {
        limit(Some(1));
        let status = book.issue().await.unwrap_err();
        assert_eq!(reason(&status), "STORE_UNAVAILABLE");
        limit(None);
        for _ in 0..10 {
            let uid = book.issue().await.unwrap();
            book.revoke(&uid).await.unwrap();
        }
    }
    book.check_by_the_file(dev).await;
}
