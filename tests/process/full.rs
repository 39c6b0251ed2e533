//! Tests a full disk. The store is on a file system of a few megabytes that only the program can
//! see.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::{
    program::{Dev, folder, run_by},
    support::{
        Client, clients::details, database::eventually, introspect_request, issue_request,
        raw::require_form, reason, requests::list_request, skips::found_or_skip,
    },
};

/// Returns the option of `unshare` that creates a mount namespace, or `None` if this host does not
/// permit one.
fn unshare() -> Option<&'static str> {
    let own = if rustix::process::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    };
    let tried = Command::new("unshare").args([own, "true"]).status();
    let allowed = tried.is_ok_and(|status| status.success());
    found_or_skip(allowed.then_some(own), "mount namespaces")
}

/// Starts `dev` with its data on a file system of 4 MiB.
fn on_a_small_disk(folder: &Path, own: &str) -> Dev {
    fs::create_dir(folder.join(".stacktoken")).unwrap();
    let mount = "mount -t tmpfs -o size=4m,mode=700 small .stacktoken && exec \"$0\" \"$@\"";
    Dev::start_with(folder, |command| {
        run_by(command, &["unshare", own, "sh", "-c", mount]);
    })
}

/// Fills the rest of the disk. Returns the file that must be removed to free the space.
fn fill(dev: &Dev) -> PathBuf {
    let inside = dev.folder.strip_prefix("/").unwrap();
    let root = PathBuf::from(format!("/proc/{}/root", dev.child.id()));
    let path = root.join(inside).join(".stacktoken/filler");
    let mut filler = File::create(&path).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    path
}

async fn issue(owner: &mut Client, stack: &str, name: &str) -> Result<v1::IssueResponse, Status> {
    let issued = owner.tokens.issue(issue_request(stack, name)).await;
    issued.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_changes_but_not_reads_until_space_is_freed() {
    let Some(own) = unshare() else { return };
    let folder = folder();
    let dev = on_a_small_disk(folder.path(), own);
    let stack = dev.get("stack_api_key").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    let mut service = dev.client("service_jwt").await;
    let mut is_active = async |secret: &str| {
        let question = introspect_request(&stack, secret, &[]);
        let answer = service.introspection.introspect(question).await;
        answer.unwrap().into_inner().active
    };
    let before = issue(&mut owner, &stack, "before").await.unwrap();
    assert!(is_active(&before.secret).await);

    let filler = fill(&dev);
    // Changes succeed as long as the write-ahead log has space left.
    let mut run_command = None;
    for at in 0..9 {
        if let Err(status) = issue(&mut owner, &stack, &format!("full {at}")).await {
            run_command = Some(status);
            break;
        }
    }
    let run_command = run_command.expect("the disk is full");
    assert_eq!(run_command.code(), Code::ResourceExhausted);
    assert_eq!(reason(&run_command), "STORAGE_FULL");
    require_form(&run_command, "Issue");
    let wait = details(&run_command)
        .retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert!(wait > Duration::ZERO, "{wait:?}");
    assert!(is_active(&before.secret).await, "answered from the cache");
    let listed = owner.tokens.list(list_request(&stack)).await.unwrap();
    let names = listed.into_inner().tokens;
    assert!(names.iter().any(|token| token.name == "before"));

    fs::remove_file(filler).unwrap();
    let after = eventually("a change succeeds again", async || {
        issue(&mut owner.clone(), &stack, "after").await.ok()
    })
    .await;
    assert!(is_active(&after.secret).await);
}
