//! Starts external programs as child processes of the test.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A temporary directory that belongs to PostgreSQL's user.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        own(folder.path());
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        own(&path);
        path
    }

    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        own(&path);
        path
    }
}

/// Returns the uid and gid to run PostgreSQL as, because PostgreSQL refuses to run as root.
fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect("a user named postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn own(path: &Path) {
    if let Some((uid, gid)) = postgres_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// A program that is killed when the test ends.
pub struct Program(Child);

impl Program {
    /// Starts an installed program and writes its output to a file.
    pub fn start(folder: &Folder, name: &str, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(find(program));
        command.args(arguments).env("HOME", folder.path());
        if let Some((uid, gid)) = postgres_user() {
            command.uid(uid).gid(gid);
        }
        Self::spawn(folder, name, command)
    }

    pub fn spawn(folder: &Folder, name: &str, mut command: Command) -> Self {
        let mut log = fs::OpenOptions::new();
        let path = folder.path().join(format!("{name}.log"));
        let log = log.create(true).append(true).open(path).unwrap();
        command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        send(i32::try_from(self.0.id()).unwrap(), signal);
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process. Errors are ignored, because the process may have just ended.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Returns the child processes of a process.
pub fn children(of: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the program's name in parentheses come its state and the parent's id.
        let after = stat.rsplit(')').next()?;
        after.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let mut found = folders.map(|folder| folder.join(program));
    let found = found.find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{program} is missing: apt-get install patroni etcd-server haproxy pgbouncer")
    })
}

/// Returns the directory with the programs of the newest PostgreSQL.
pub fn postgres_bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL");
    let mut bins: Vec<_> = versions.flatten().map(|version| version.path()).collect();
    bins.sort();
    bins.pop().expect("PostgreSQL").join("bin")
}

/// Returns a port that was just free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Sends one HTTP request. Returns the status and the body, or `None` if there is no response.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let wait = Some(Duration::from_secs(2));
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(wait).ok()?;
    socket.set_write_timeout(wait).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
