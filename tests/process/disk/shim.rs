//! Runs the program with a preloaded library that makes libc calls fail or wait, as the test's
//! rules say.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::program::{Dev, has_tool};

/// Error numbers on Linux.
pub const EIO: i32 = 5;
pub const ENOMEM: i32 = 12;
pub const ENOSPC: i32 = 28;

/// Which calls to fail or to delay. A commit writes to the write-ahead log and syncs it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `write`, `read`, `sync` or `malloc`.
    pub call: &'static str,
    /// A part of the path of the file.
    pub path: &'static str,
    /// The errno with which the call fails; 0 lets the call succeed.
    pub error: i32,
    /// How many matching calls succeed first.
    pub skip: u32,
    /// How many calls are affected after that; 0 means all.
    pub count: u32,
    /// The delay of each affected call, in milliseconds.
    pub delay: u32,
}

impl Rule {
    /// Returns a rule that makes this many calls fail; 0 means all.
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

/// The library, which is built for each test, and its rules.
pub struct PreloadedFaults {
    library: PathBuf,
    rules: PathBuf,
    file: File,
    generation: AtomicU64,
}

impl PreloadedFaults {
    /// Builds the library. Returns `None` if there is no C compiler and the test may be skipped.
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

    /// Starts the program with this library.
    pub fn start(&self, folder: &Path) -> Dev {
        self.start_with(folder, |_| {})
    }

    /// Starts the program with this library and with the settings that `set` changes.
    pub fn start_with(&self, folder: &Path, set: impl FnOnce(&mut Command)) -> Dev {
        Dev::start_with(folder, |command| {
            command
                .env("LD_PRELOAD", &self.library)
                .env("FAULT_RULES", &self.rules);
            set(command);
        })
    }

    /// Replaces the rules.
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
        // The generation is written after the rules, so that the program never takes old rules for
        // the new generation.
        self.file.write_all_at(&text, 20).unwrap();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let head = format!("{generation:19}\n");
        self.file.write_all_at(head.as_bytes(), 0).unwrap();
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.set(&[]);
    }
}
