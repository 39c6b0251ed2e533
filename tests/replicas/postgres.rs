//! A PostgreSQL server for a test. It listens on a free port and is removed after the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::skips::found_or_skip;

// The path is explicit, because other test programs include this file by its path too.
#[path = "postgres/standby.rs"]
mod standby;

pub struct Postgres {
    bin: PathBuf,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    /// The uid and gid of the server, because PostgreSQL refuses to run as root.
    user: Option<(u32, u32)>,
}

/// Starts a server. Returns `None` if PostgreSQL is not installed.
pub fn start() -> Option<Postgres> {
    found_or_skip(find(), "PostgreSQL").map(Postgres::make)
}

/// Starts a server with a different system identifier. All servers that [`start`] returns are
/// copies of one data directory and have the same identifier.
pub fn start_another_system() -> Option<Postgres> {
    let bin = found_or_skip(find(), "PostgreSQL")?;
    let mut postgres = Postgres::empty(bin);
    postgres.initialise();
    postgres.launch();
    Some(postgres)
}

/// Copies a directory with the owners and the modes of its files.
fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-aT").arg(from).arg(to).status();
    assert!(copied.unwrap().success(), "cp {from:?} {to:?}");
}

fn find() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = packaged.map(|version| version.path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found
        .into_iter()
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

impl Postgres {
    /// Creates a directory and chooses a port for a server that has no data yet.
    fn empty(bin: PathBuf) -> Self {
        let folder = TempDir::new().unwrap();
        let user = postgres_user();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self {
            bin,
            folder,
            port,
            server: None,
            user,
        }
    }

    /// Starts a server on a copy of an initialized data directory. Copying takes a tenth of the
    /// time that `initdb` takes.
    fn make(bin: PathBuf) -> Self {
        let mut postgres = Self::empty(bin);
        let kept = postgres.initialised();
        copy_folder(&kept, &postgres.data());
        postgres.launch();
        postgres
    }

    /// Returns the data directory to copy, and initializes it if necessary. It is kept below
    /// `target` for later runs.
    fn initialised(&self) -> PathBuf {
        let version = self.command("postgres").arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = format!("{} segments of 1 MB", version.trim());
        let kept = folder.join(name.replace(|c: char| !c.is_alphanumeric(), "-"));
        if kept.exists() {
            return kept;
        }
        let made = Self::empty(self.bin.clone());
        made.initialise();
        // The copy gets its name only when it is complete. Another test may have been faster.
        let copying = TempDir::new_in(folder).unwrap();
        copy_folder(&made.data(), &copying.path().join("data"));
        if let Err(error) = fs::rename(copying.path().join("data"), &kept) {
            assert!(kept.exists(), "{kept:?}: {error}");
        }
        kept
    }

    fn initialise(&self) {
        let made = self
            .command("initdb")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                // Each server copies the folder, and most of it would be one segment of 16 MB.
                "--wal-segsize=1",
                "-D",
            ])
            .arg(self.data())
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).env_remove("PGDATA");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts the server and waits until it accepts connections.
    pub fn launch(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=200",
            ])
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                self.folder.path().display()
            ))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        let until = Instant::now() + Duration::from_secs(20);
        while !self.is_ready() {
            assert!(
                Instant::now() < until,
                "PostgreSQL did not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the server's own file says that it accepts connections. Unlike [`Self::accepts`],
    /// this starts no program.
    fn is_ready(&self) -> bool {
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let pid = self.server.as_ref().map(|server| server.id().to_string());
        let mut lines = state.lines();
        lines.next() == pid.as_deref()
            && matches!(lines.next_back().map(str::trim), Some("ready" | "standby"))
    }

    pub fn accepts(&self) -> bool {
        let ready = self
            .command("pg_isready")
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status();
        ready.is_ok_and(|status| status.success())
    }

    /// Returns what the server has logged since it was last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the server. The server may read the files in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the uid and gid of the server, if they differ from those of the tests.
    pub fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// Makes the server require this role's password from now on.
    pub fn ask_for_passwords_of(&self, role: &str) {
        let file = self.data().join("pg_hba.conf");
        let trusting = fs::read_to_string(&file).unwrap();
        let asking = format!("host all {role} 127.0.0.1/32 scram-sha-256\n{trusting}");
        fs::write(file, asking).unwrap();
        self.run("postgres", "SELECT pg_reload_conf()");
    }

    /// Creates a database.
    pub fn create(&self, name: &str) {
        self.run("postgres", &format!("CREATE DATABASE {name}"));
    }

    pub fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
    }

    /// Runs a statement with psql and returns what psql prints.
    pub fn run(&self, database: &str, sql: &str) -> String {
        self.run_each(database, &[sql])
    }

    /// Runs several statements in one session, each in its own transaction.
    pub fn run_each(&self, database: &str, statements: &[&str]) -> String {
        let ran = self
            .command("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-XAtq",
            ])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database])
            .args(statements.iter().flat_map(|sql| ["-c", sql]))
            .output()
            .unwrap();
        assert!(
            ran.status.success(),
            "{statements:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8_lossy(&ran.stdout).trim().to_owned()
    }

    /// Runs statements in a transaction that stays open.
    pub fn hold(&self, database: &str, sql: &str) -> OpenTransaction {
        let mut session = self
            .command("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-XAtq",
            ])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = OpenTransaction {
            input: session.stdin.take(),
            session,
        };
        held.send(&format!("BEGIN; {sql}; SELECT 'held';"));
        let mut output = BufReader::new(held.session.stdout.as_mut().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held");
        held
    }

    /// Copies a database in its current state to another server.
    pub fn copy_to(&self, other: &Self, database: &str) {
        other.create(database);
        other.load(database, &self.dump(database));
    }

    fn address(&self) -> [String; 6] {
        let port = self.port.to_string();
        ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"].map(str::to_owned)
    }

    /// Returns a dump of a database.
    pub fn dump(&self, database: &str) -> Vec<u8> {
        let mut dumping = self.command("pg_dump");
        let dumped = dumping.args(self.address()).arg(database).output().unwrap();
        assert!(dumped.status.success(), "pg_dump");
        dumped.stdout
    }

    /// Loads a dump into an empty database.
    pub fn load(&self, database: &str, dump: &[u8]) {
        let mut restoring = self
            .command("psql")
            .args(self.address())
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = restoring.stdin.take().unwrap();
        input.write_all(dump).unwrap();
        drop(input);
        assert!(restoring.wait().unwrap().success(), "the restore failed");
    }

    /// Copies the files of the server, which is stopped meanwhile.
    pub fn copy_files(&mut self) -> TempDir {
        self.stop_cleanly();
        let copy = TempDir::new().unwrap();
        copy_folder(&self.data(), &copy.path().join("data"));
        self.launch();
        copy
    }

    /// Sets the server back to this copy of its files.
    pub fn replace_files(&mut self, copy: &TempDir) {
        self.stop_cleanly();
        fs::remove_dir_all(self.data()).unwrap();
        copy_folder(&copy.path().join("data"), &self.data());
        self.launch();
    }

    fn stop_cleanly(&mut self) {
        self.signal(Signal::INT);
        self.server.take().unwrap().wait().unwrap();
    }

    /// Shuts this server down cleanly and starts another server on a copy of its files. The copy
    /// has the same system identifier, the same timeline and even the same incarnation.
    pub fn cold_copy(&mut self) -> Self {
        self.stop_cleanly();
        let folder = TempDir::new().unwrap();
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        copy_folder(&self.data(), &folder.path().join("data"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut copy = Self {
            bin: self.bin.clone(),
            folder,
            port: free.local_addr().unwrap().port(),
            server: None,
            user: self.user,
        };
        drop(free);
        self.launch();
        copy.launch();
        copy
    }

    /// Freezes or resumes all processes of the server.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        for pid in self.processes() {
            // Errors are ignored, because a process may have just ended.
            let _ = kill_process(pid, signal);
        }
    }

    fn processes(&self) -> Vec<Pid> {
        let server = self.server.as_ref().unwrap().id();
        let children = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                // After the program's name in parentheses come its state and the parent's id.
                let parent: u32 = stat
                    .rsplit(')')
                    .next()?
                    .split_whitespace()
                    .nth(1)?
                    .parse()
                    .ok()?;
                (parent == server).then_some(pid)
            });
        // The postmaster comes first, so that it cannot start another process that is not in the
        // list.
        let all = std::iter::once(i32::try_from(server).unwrap()).chain(children);
        all.filter_map(Pid::from_raw).collect()
    }

    /// Stops the server immediately, as a crash would.
    pub fn stop(&mut self) {
        self.signal(Signal::QUIT);
        self.server.take().unwrap().wait().unwrap();
    }

    /// Stops the server immediately, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    fn signal(&self, signal: Signal) {
        if let Some(server) = &self.server {
            let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
            let _ = kill_process(pid, signal);
        }
    }
}

/// A transaction that is not committed yet.
pub struct OpenTransaction {
    input: Option<ChildStdin>,
    session: Child,
}

impl OpenTransaction {
    fn send(&mut self, sql: &str) {
        writeln!(self.input.as_mut().unwrap(), "{sql}").unwrap();
    }

    pub fn commit(mut self) {
        self.send("COMMIT;");
        drop(self.input.take());
        assert!(self.session.wait().unwrap().success());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.freeze(false);
            self.signal(Signal::QUIT);
            let _ = self.server.take().unwrap().wait();
        }
    }
}

/// Returns the uid and gid to run PostgreSQL as, or `None` if the tests do not run as root.
pub fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect("a user named postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
