//! Where the guard is kept: outside the database, so that no restore of the database sets it back.
//! There is one kind of place now, a directory. Another kind, such as an object store or a second
//! database, implements [`Place`].

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

/// A place of named files. Everything is durable when a method returns.
pub(super) trait Place: Send + Sync {
    /// Returns the names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading from its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead>>;
    /// Returns the content of a file, or `None` if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Returns the last bytes of a file, at most this many.
    fn tail(&self, name: &str, most: u64) -> io::Result<Vec<u8>>;
    /// Replaces the content of a file. A reader finds either the former or the new content.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Creates a file with this content. Returns `false` if there is one already.
    fn create(&self, name: &str, content: &[u8]) -> io::Result<bool>;
    /// Creates a file that only grows.
    fn begin(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Moves files into a new folder, where [`Self::names`] does not list them.
    fn set_aside(&self, folder: &str, names: &[String]) -> io::Result<()>;
}

/// A file that only grows.
pub(super) trait Growing: Send {
    /// Appends bytes, and returns when they are durable.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The location of a guard, as the operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardLocation {
    /// A directory, which must exist.
    Directory(PathBuf),
}

/// Why a text is not the location of a guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardLocationError {
    /// The URL has a scheme that is not supported.
    #[error("`{0}` is not supported: write a directory, as a path or as file:///path")]
    Scheme(String),
    /// The text names no directory.
    #[error("names no directory: write a path, or file:///path")]
    Empty,
}

impl FromStr for GuardLocation {
    type Err = GuardLocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => return Err(GuardLocationError::Empty),
            Some((scheme, _)) => return Err(GuardLocationError::Scheme(scheme.to_owned())),
            None => text,
        };
        if path.is_empty() {
            return Err(GuardLocationError::Empty);
        }
        Ok(Self::Directory(path.into()))
    }
}

impl fmt::Display for GuardLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Directory(path) = self;
        path.display().fmt(f)
    }
}

impl GuardLocation {
    /// `process` is a name that no other process has.
    pub(super) fn place(&self, process: &str) -> Box<dyn Place> {
        let Self::Directory(path) = self;
        Box::new(Directory {
            path: path.clone(),
            process: process.to_owned(),
            drafts: AtomicU64::new(0),
        })
    }
}

/// A directory. Its files are readable by their owner only.
struct Directory {
    path: PathBuf,
    /// Part of the names of drafts. The id of the process is not enough, because it is the same in
    /// every container.
    process: String,
    drafts: AtomicU64,
}

impl Directory {
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn open_new(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(path)
    }

    /// Writes a complete file that does not have its name yet. Returns its path.
    fn draft(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let drafts = self.path.join("drafts");
        create_folder(&drafts)?;
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = drafts.join(format!("{name}.{}-{number}", self.process));
        let mut file = Self::open_new(&path)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.map(|()| path)
    }
}

fn create_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Place for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead>> {
        let file = File::open(self.path.join(name))?;
        Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // If the directory itself is missing, nothing is known.
                fs::metadata(&self.path)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let draft = self.draft(name, content)?;
        fs::rename(draft, self.path.join(name))?;
        self.sync()
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        let draft = self.draft(name, content)?;
        // Unlike a renamed file, a link never replaces another file.
        let linked = fs::hard_link(&draft, self.path.join(name));
        fs::remove_file(draft)?;
        match linked {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn begin(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let file = Self::open_new(&self.path.join(name))?;
        self.sync()?;
        Ok(Box::new(GrowingFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn tail(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        let from = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn set_aside(&self, folder: &str, names: &[String]) -> io::Result<()> {
        let folder = self.path.join(folder);
        create_folder(&folder)?;
        for name in names {
            fs::rename(self.path.join(name), folder.join(name))?;
        }
        File::open(&folder)?.sync_all()?;
        self.sync()
    }
}

struct GrowingFile(File);

impl Growing for GrowingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_or_a_file_url() {
        let directory = |path: &str| GuardLocation::Directory(path.into());
        for text in ["/var/guard", "file:///var/guard"] {
            assert_eq!(
                text.parse::<GuardLocation>().unwrap(),
                directory("/var/guard")
            );
        }
        assert_eq!(
            "guard".parse::<GuardLocation>().unwrap(),
            directory("guard")
        );
        for wrong in ["", "file://", "file://host", "s3://bucket/guard"] {
            assert!(wrong.parse::<GuardLocation>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_told_from_a_directory_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let place = GuardLocation::Directory(folder.path().into()).place("a");
        assert!(place.read("guard.json").unwrap().is_none());
        assert!(place.create("guard.json", b"one").unwrap());
        assert!(!place.create("guard.json", b"other").unwrap());
        assert_eq!(place.read("guard.json").unwrap().unwrap(), b"one");
        place.replace("guard.json", b"two").unwrap();
        assert_eq!(place.read("guard.json").unwrap().unwrap(), b"two");
        let gone = GuardLocation::Directory(folder.path().join("gone")).place("a");
        assert!(gone.read("guard.json").is_err());
    }

    /// In containers, every process has the same id.
    #[test]
    fn processes_that_write_the_same_file_at_once_do_not_share_a_draft() {
        let folder = tempfile::tempdir().unwrap();
        let drafts = ["a", "b"].map(|process| {
            let directory = Directory {
                path: folder.path().into(),
                process: process.to_owned(),
                drafts: AtomicU64::new(0),
            };
            directory.draft("guard.json", process.as_bytes()).unwrap()
        });
        assert_eq!(fs::read(&drafts[0]).unwrap(), b"a");
        assert_eq!(fs::read(&drafts[1]).unwrap(), b"b");
        assert!(
            Directory::open_new(&drafts[0]).is_err(),
            "it was opened again"
        );
    }
}
