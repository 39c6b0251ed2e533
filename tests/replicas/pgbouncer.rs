//! PgBouncer in front of a test server.

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
    postgres::{Postgres, postgres_user},
    support::skips::found_or_skip,
};

/// The parameter that the driver sends and PgBouncer refuses without this setting.
pub const IGNORED: &str = "ignore_startup_parameters = extra_float_digits";

pub struct Pooler {
    pub port: u16,
    child: Child,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists());
    found_or_skip(found, "PgBouncer")
}

/// Starts PgBouncer with this `pool_mode`, and further settings of one line each.
pub fn start(program: &PathBuf, postgres: &Postgres, mode: &str, more: &str) -> Pooler {
    let folder = TempDir::new().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
         {more}\nmax_client_conn = 200\n\
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
