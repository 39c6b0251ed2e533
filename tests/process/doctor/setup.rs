//! A good set-up, in which `doctor` finds nothing, and its run.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::{
    program::{program, text},
    served::{IssuersFolder, migrate},
    support::{
        certificates::{Ca, CertifiedKey},
        issuer::ISSUERS_FILE,
    },
};

/// A password that no output may contain.
pub const PASSWORD: &str = "hunter2-is-a-secret";

/// An issuer that serves its keys over HTTP until it is closed.
pub struct KeyServer {
    pub url: String,
    closed: Arc<AtomicBool>,
}

impl KeyServer {
    fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let closed = Arc::new(AtomicBool::new(false));
        let ending = closed.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                if ending.load(Ordering::SeqCst) {
                    return;
                }
                let mut socket = socket.unwrap();
                let mut request = [0; 2048];
                let _ = socket.read(&mut request);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    keys.len()
                );
                let _ = socket.write_all((head + &keys).as_bytes());
            }
        });
        Self { url, closed }
    }

    /// Closes the port.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let address = self
            .url
            .trim_start_matches("http://")
            .trim_end_matches("/keys");
        // Wakes the thread, which drops the listener.
        drop(std::net::TcpStream::connect(address));
        while std::net::TcpStream::connect(address).is_ok() {
            thread::yield_now();
        }
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }
}

/// Files and arguments of a good set-up, to which a test adds one fault.
pub struct Setup {
    pub files: IssuersFolder,
    pub keys: KeyServer,
    pub ca: Ca,
    pub url: String,
    /// Flags and their values. A later one replaces an earlier one of the same name.
    pub flags: Vec<(String, String)>,
    pub variables: Vec<(String, String)>,
    /// What must live as long as the check runs.
    pub held: Vec<Box<dyn std::any::Any>>,
}

/// What `doctor` reported.
pub struct Report {
    pub exit_code: Option<i32>,
    pub output: Value,
}

impl Report {
    /// Returns the codes of the findings.
    pub fn codes(&self) -> Vec<&str> {
        let findings = self.output["findings"].as_array().unwrap();
        let codes = findings
            .iter()
            .map(|finding| finding["code"].as_str().unwrap());
        codes.collect()
    }

    /// Asserts that exactly these were found, see [`Self::fault`].
    pub fn is_exactly(&self, expected: &[&str]) {
        assert_eq!(self.fault(expected), None);
    }

    /// Returns what is wrong unless exactly these were found, each has a fix, and the exit code says
    /// whether one of them is an error.
    pub fn fault(&self, expected: &[&str]) -> Option<String> {
        let findings = self.output["findings"].as_array().unwrap();
        let is_told = |name: &str| {
            let texts = findings
                .iter()
                .map(|finding| finding[name].as_str().unwrap());
            texts.into_iter().all(|text| !text.is_empty())
        };
        let is_error = self.output["errors"].as_u64().unwrap() > 0;
        let is_right = self.codes() == expected
            && is_told("problem")
            && is_told("fix")
            && self.exit_code == Some(i32::from(is_error));
        (!is_right).then(|| format!("{expected:?}, exit {:?}: {:#}", self.exit_code, self.output))
    }
}

impl Setup {
    /// Creates a good set-up on a migrated SQLite file.
    pub fn on_sqlite() -> Self {
        let files = IssuersFolder::new();
        let url = files.sqlite();
        migrate(&url);
        Self::on(files, url)
    }

    /// Creates a good set-up on a migrated database: TLS, an issuer with a key file and one with an
    /// URL, and addresses on loopback.
    pub fn on(files: IssuersFolder, url: String) -> Self {
        let keys = KeyServer::start(files.issuer.jwks());
        let ca = Ca::new("test CA");
        let mut setup = Self {
            files,
            keys,
            ca,
            url,
            flags: Vec::new(),
            variables: Vec::new(),
            held: Vec::new(),
        };
        let sso = "issuer     = \"https://sso.test\"\naudience   = \"stacktoken\"\njwks_";
        let by_url = format!("{sso}url = \"{}\" #", setup.keys.url);
        let issuers = ISSUERS_FILE.replace(&format!("{sso}file"), &by_url);
        assert_ne!(issuers, ISSUERS_FILE);
        setup.write("issuers.toml", &issuers, 0o644);
        setup.flag("issuers", "issuers.toml");
        for port in ["listen", "admin-listen"] {
            setup.flag(port, "127.0.0.1:0");
        }
        // Within the limit of open files of any host.
        setup.flag("max-connections", "64");
        setup.tls(&setup.ca.server());
        setup
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.folder.path().join(name)
    }

    /// Writes a file with this mode.
    pub fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        set_mode(&self.path(name), mode);
    }

    /// Replaces a part of the issuers file, which must occur.
    pub fn issuers(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("issuers.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        self.write("issuers.toml", &text.replace(from, to), 0o644);
    }

    /// Sets a flag.
    pub fn flag(&mut self, name: &str, value: impl ToString) {
        self.without(name);
        self.flags.push((format!("--{name}"), value.to_string()));
    }

    /// Removes a flag.
    pub fn without(&mut self, name: &str) {
        self.flags.retain(|(flag, _)| *flag != format!("--{name}"));
    }

    /// Serves with this certificate and its key.
    pub fn tls(&mut self, pair: &CertifiedKey) {
        self.write("tls.crt", &pair.cert, 0o644);
        self.write("tls.key", &pair.key, 0o600);
        self.flag("tls-cert", "tls.crt");
        self.flag("tls-key", "tls.key");
    }

    pub fn command(&self, output: &str) -> Command {
        let mut command = program();
        command
            .current_dir(self.files.folder.path())
            .args(["doctor", "--output", output])
            .env("STACKTOKEN_DATABASE_URL", &self.url)
            .envs(self.variables.iter().cloned());
        for (flag, value) in &self.flags {
            command.args([flag, value]);
        }
        command
    }

    pub fn run(&self) -> Report {
        let done = self.command("json").output().unwrap();
        let (shown, errors) = (text(&done.stdout), text(&done.stderr));
        for printed in [&shown, &errors] {
            assert!(!printed.contains(PASSWORD), "{printed}");
        }
        let output = serde_json::from_str(&shown);
        Report {
            exit_code: done.status.code(),
            output: output.unwrap_or_else(|error| panic!("{error}: {shown} {errors}")),
        }
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
