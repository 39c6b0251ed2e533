//! The SQLite file that this process holds. The process locks the file, removes access for other
//! users, and checks repeatedly that the path still leads to this file.
//!
//! The lock is a `flock` on the database file itself, so symbolic links, hard links and removed
//! lock files do not affect it. `flock` and SQLite's own POSIX locks do not interact. But closing
//! *any* descriptor of a file drops all POSIX locks that the process holds on it. Therefore the
//! descriptor stays open until every connection is closed, and nothing else in the process may open
//! the file by itself. [`fs::metadata`] and [`fs::set_permissions`] do not open it.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io,
    os::{
        fd::IntoRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Location, OpenError};

/// Read and write access for the owner, and none for others. SQLite creates its `-wal` and `-shm`
/// files with the mode of the database file.
const PRIVATE: u32 = 0o600;

/// Which file was deleted or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum FileLoss {
    /// The database file was deleted or replaced.
    Database,
    /// The write-ahead log was deleted or replaced.
    Wal,
}

impl FileLoss {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database file",
            Self::Wal => "write-ahead log",
        }
    }
}

/// The identity of a file, which does not depend on its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A database file that this process has locked.
pub(in crate::store) struct HeldFile {
    /// The path as the operator wrote it. If the path is a symbolic link, it is also noticed when
    /// the link gets another target.
    path: PathBuf,
    /// The path of the write-ahead log. SQLite creates it next to the file to which `path`
    /// resolved.
    wal: PathBuf,
    shm: PathBuf,
    identity: Identity,
    wal_identity: OnceLock<Identity>,
    lost: Arc<AtomicBool>,
    /// Never read. Keeping it open holds the lock.
    _locked: File,
}

impl HeldFile {
    /// Creates the file if it does not exist, locks it, and removes access for others.
    pub fn open(location: &Location, path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::File {
            location: location.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(refused) => {
                // Another store in this process may hold the file, and closing this descriptor
                // would drop the POSIX locks of that store. So the descriptor is left open. The
                // process ends soon after this error anyway.
                let _left_open = file.into_raw_fd();
                return Err(match refused {
                    TryLockError::WouldBlock => OpenError::InUse(location.clone()),
                    TryLockError::Error(source) => failed(source),
                });
            }
        }
        let found = Self::of(file, path).map_err(failed)?;
        found.make_private();
        Ok(found)
    }

    fn of(file: File, path: &Path) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.nlink() > 1 {
            tracing::warn!(
                file = %path.display(),
                "the database file has several names (hard links), but its write-ahead log only \
                 belongs to one: open it by the same name always, and remove the others"
            );
        }
        let real = fs::canonicalize(path)?;
        let beside = |ending: &str| {
            let mut name = real.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        Ok(Self {
            path: path.to_owned(),
            wal: beside("-wal"),
            shm: beside("-shm"),
            identity: metadata.into(),
            wal_identity: OnceLock::new(),
            lost: Arc::default(),
            _locked: file,
        })
    }

    /// Removes access for other users, which an earlier version, a restore or a mount may have
    /// granted.
    fn make_private(&self) {
        for path in [&self.path, &self.wal, &self.shm] {
            let Ok(metadata) = fs::metadata(path) else {
                continue;
            };
            if metadata.mode() & 0o777 == PRIVATE {
                continue;
            }
            if let Err(error) = fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
                tracing::warn!(file = %path.display(), %error, "cannot set mode 0600");
            }
        }
    }

    /// Records which write-ahead log the open connections use, so that it can be compared later.
    pub fn note_wal(&self) -> io::Result<()> {
        let identity = fs::metadata(&self.wal)?.into();
        // The identity is set only once, because SQLite does not delete the write-ahead log while a
        // connection is open.
        let _ = self.wal_identity.set(identity);
        Ok(())
    }

    /// Checks that the paths still lead to the open files. Data committed to a deleted file is lost
    /// when the process ends.
    pub fn check(&self) -> Result<(), FileLoss> {
        let found = self.find();
        let lost = found.is_err();
        if self.lost.swap(lost, Ordering::AcqRel) != lost {
            self.report(found);
        }
        found
    }

    fn report(&self, found: Result<(), FileLoss>) {
        let file = self.path.display();
        let Err(lost) = found else {
            tracing::info!(%file, "the files are back");
            return;
        };
        tracing::error!(
            %file,
            "the {} was deleted or replaced under this process: nothing is answered or changed \
             until it is back; restore it, or restart the process",
            lost.name()
        );
    }

    fn find(&self) -> Result<(), FileLoss> {
        if identity(&self.path) != Some(self.identity) {
            return Err(FileLoss::Database);
        }
        match self.wal_identity.get() {
            Some(known) if identity(&self.wal) != Some(*known) => Err(FileLoss::Wal),
            _ => Ok(()),
        }
    }

    /// Returns a flag that is set if the last check failed.
    pub fn lost(&self) -> Arc<AtomicBool> {
        self.lost.clone()
    }
}

/// Returns the identity of the file at a path, or `None` if it cannot be read. The caller then
/// treats the file as lost.
fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(Identity::from)
}
