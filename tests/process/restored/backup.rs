//! The databases of the drills, and their backups.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    database_down::{DATABASE, database},
    postgres::Postgres,
    program::folder,
    served::migrate,
};

/// A database, and how it is backed up.
pub enum Database {
    /// An SQLite file, copied while no process has it open.
    File(TempDir),
    /// PostgreSQL with `pg_dump`.
    Dumped(Postgres, String),
    /// PostgreSQL with a copy of its files, to which the server is set back as a whole, as with a
    /// snapshot of its disk or a recovery to an earlier point in time.
    Snapshot(Postgres, String),
}

/// A backup.
pub enum Backup {
    File(PathBuf),
    Dump(Vec<u8>),
    Files(TempDir),
}

impl Database {
    pub fn file() -> Self {
        let database = Self::File(folder());
        migrate(&database.url());
        database
    }

    pub fn dumped() -> Option<Self> {
        database().map(|(postgres, url)| Self::Dumped(postgres, url))
    }

    pub fn snapshot() -> Option<Self> {
        database().map(|(postgres, url)| Self::Snapshot(postgres, url))
    }

    pub fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite:{}", folder.path().join("store.db").display()),
            Self::Dumped(_, url) | Self::Snapshot(_, url) => url.clone(),
        }
    }

    /// Makes a backup. No process of the service runs.
    pub fn back_up(&mut self) -> Backup {
        match self {
            Self::File(folder) => {
                let copy = folder.path().join("backup.db");
                fs::copy(folder.path().join("store.db"), &copy).unwrap();
                Backup::File(copy)
            }
            Self::Dumped(postgres, _) => Backup::Dump(postgres.dump(DATABASE)),
            Self::Snapshot(postgres, _) => Backup::Files(postgres.copy_files()),
        }
    }

    /// Restores a backup. No process of the service runs.
    pub fn restore(&mut self, backup: &Backup) {
        match (self, backup) {
            (Self::File(folder), Backup::File(copy)) => {
                for ending in ["-wal", "-shm"] {
                    let _ = fs::remove_file(folder.path().join(format!("store.db{ending}")));
                }
                fs::copy(copy, folder.path().join("store.db")).unwrap();
            }
            (Self::Dumped(postgres, _), Backup::Dump(dump)) => {
                postgres.run(
                    "postgres",
                    &format!("DROP DATABASE {DATABASE} WITH (FORCE)"),
                );
                postgres.create(DATABASE);
                postgres.load(DATABASE, dump);
            }
            (Self::Snapshot(postgres, _), Backup::Files(files)) => postgres.replace_files(files),
            _ => panic!("a backup of another kind of database"),
        }
    }

    /// Overwrites the open SQLite file with a backup, as a person would who forgets to stop the
    /// service.
    pub fn overwrite(&self, backup: &Backup) {
        let (Self::File(folder), Backup::File(copy)) = (self, backup) else {
            panic!("only a file can be overwritten");
        };
        let done = Command::new("sh")
            .arg("-c")
            .arg("cat backup.db > store.db && : > store.db-wal")
            .current_dir(folder.path())
            .status();
        assert!(copy.exists() && done.unwrap().success());
    }
}
