//! Tests PgBouncer in session mode between the replicas and PostgreSQL, with and without a direct
//! connection for the poller and LISTEN.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    postgres::{self, Postgres, postgres_user},
    support::skips::found_or_skip,
};

struct Pooler {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists());
    found_or_skip(found, "PgBouncer")
}

fn start(program: &PathBuf, postgres: &Postgres) -> Pooler {
    let folder = TempDir::new().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
         ignore_startup_parameters = extra_float_digits\nmax_client_conn = 200\n\
         default_pool_size = 60\n",
        postgres.port()
    );
    // With `any`, every client is connected as the same user.
    let settings = settings.replace("* = host", "tokens = user=postgres dbname=tokens host");
    let file = folder.path().join("pgbouncer.ini");
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(program);
    command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some((uid, gid)) = postgres_user() {
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    let child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "PgBouncer did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Pooler {
        port,
        child,
        _folder: folder,
    }
}

async fn revokes_are_seen(cluster: &Cluster) {
    for at in 0..5 {
        let issued = cluster.issue(&format!("pooled {at}")).await;
        cluster.b.warm(&cluster.stack, &issued.secret).await;
        cluster
            .revoke(&issued.token.unwrap().token_uid)
            .await
            .unwrap();
        let revoked = Instant::now();
        while cluster
            .b
            .introspect(&cluster.stack, &issued.secret)
            .await
            .unwrap()
            .active
        {
            assert!(
                revoked.elapsed() <= Duration::from_secs(1),
                "active past the bound"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_session_mode_revokes_are_seen_within_the_bound() {
    let Some(program) = find() else { return };
    for past_it in [true, false] {
        let Some(postgres) = postgres::start() else {
            return;
        };
        let pooler = start(&program, &postgres);
        let direct = if past_it {
            postgres.port()
        } else {
            pooler.port
        };
        let cluster = Cluster::start_through(postgres, (pooler.port, direct), |_| {}).await;
        revokes_are_seen(&cluster).await;
    }
}
