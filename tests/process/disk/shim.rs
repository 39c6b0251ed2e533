//! The program with a library before libc that fails or delays its calls by rules of the test.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::program::{Dev, has_tool};

/// Errors by number, as on Linux.
pub const EIO: i32 = 5;
pub const ENOMEM: i32 = 12;
pub const ENOSPC: i32 = 28;

/// What a rule is about. A commit writes to the write-ahead log and syncs it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `write`, `read`, `sync` or `malloc`.
    pub call: &'static str,
    /// A part of the file's path.
    pub path: &'static str,
    /// What the call fails with; 0: it does not.
    pub error: i32,
    /// How many go through first.
    pub skip: u32,
    /// How many are hit then; 0: all.
    pub count: u32,
    /// How long those wait, in milliseconds.
    pub delay: u32,
}

impl Rule {
    /// This many calls fail.
    pub fn fails(call: &'static str, path: &'static str, error: i32, count: u32) -> Self {
        let (skip, delay) = (0, 0);
        Self {
            call,
            path,
            error,
            skip,
            count,
            delay,
        }
    }
}

/// The library, built for one test, and its rules.
pub struct Shim {
    library: PathBuf,
    rules: PathBuf,
    file: File,
    generation: AtomicU64,
}

impl Shim {
    /// `None` where there is no C compiler and need not be one.
    pub fn build(folder: &Path) -> Option<Self> {
        let compiler = has_tool(&["cc"])?;
        let library = folder.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/disk/shim.c");
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let built = command.arg(&library).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success());
        let rules = folder.join("rules");
        std::fs::write(&rules, [0; 4096]).unwrap();
        let file = File::options().write(true).open(&rules).unwrap();
        Some(Self {
            library,
            rules,
            file,
            generation: AtomicU64::new(0),
        })
    }

    /// The program under this shim.
    pub fn start(&self, folder: &Path) -> Dev {
        self.start_with(folder, |_| {})
    }

    /// The same with further settings.
    pub fn start_with(&self, folder: &Path, set: impl FnOnce(&mut Command)) -> Dev {
        Dev::start_with(folder, |command| {
            command
                .env("LD_PRELOAD", &self.library)
                .env("FAULT_RULES", &self.rules);
            set(command);
        })
    }

    /// From now on these rules hold, and no others.
    pub fn set(&self, rules: &[Rule]) {
        let lines = rules.iter().map(|rule| {
            let Rule {
                call,
                path,
                error,
                skip,
                count,
                delay,
            } = rule;
            format!("{call} {path} {error} {skip} {count} {delay}\n")
        });
        let mut text = lines.collect::<String>().into_bytes();
        text.resize(4000, 0);
        // The rules first and their number after, so that no old rule is read under a new one.
        self.file.write_all_at(&text, 20).unwrap();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let head = format!("{generation:19}\n");
        self.file.write_all_at(head.as_bytes(), 0).unwrap();
    }

    /// No rules any more.
    pub fn clear(&self) {
        self.set(&[]);
    }
}
