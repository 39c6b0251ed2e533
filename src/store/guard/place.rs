//! Where the guard is kept: outside the database, so that no restore of the database sets it back.
//! There is one kind of place now, a directory. Another kind, such as an object store or a second
//! database, implements [`Place`].

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
    str::FromStr,
};

/// A place of named files. Everything is durable when a method returns.
pub(super) trait Place: Send + Sync {
    /// Returns the names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading from its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead>>;
    /// Returns the content of a file, or `None` if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Replaces the content of a file. A reader finds either the former or the new content.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Creates a file with this content. Returns `false` if there is one already.
    fn create(&self, name: &str, content: &[u8]) -> io::Result<bool>;
    /// Creates a file that only grows.
    fn begin(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
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
    pub(super) fn place(&self) -> Box<dyn Place> {
        let Self::Directory(path) = self;
        Box::new(Directory(path.clone()))
    }
}

/// A directory. Its files are readable by their owner only.
struct Directory(PathBuf);

impl Directory {
    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn open_new(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)
    }

    /// Writes a complete file that does not have its name yet. Returns its path.
    fn draft(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let drafts = self.0.join("drafts");
        match DirBuilder::new().mode(0o700).create(&drafts) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Another process may write a file of the same name.
        let path = drafts.join(format!("{name}.{}", process::id()));
        let mut file = Self::open_new(&path)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(path)
    }
}

impl Place for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead>> {
        let file = File::open(self.0.join(name))?;
        Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // If the directory itself is missing, nothing is known.
                fs::metadata(&self.0)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let draft = self.draft(name, content)?;
        fs::rename(draft, self.0.join(name))?;
        self.sync()
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        let draft = self.draft(name, content)?;
        // Unlike a renamed file, a link never replaces another file.
        let linked = fs::hard_link(&draft, self.0.join(name));
        fs::remove_file(draft)?;
        match linked {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn begin(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let file = Self::open_new(&self.0.join(name))?;
        self.sync()?;
        Ok(Box::new(GrowingFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
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
        let place = GuardLocation::Directory(folder.path().into()).place();
        assert!(place.read("guard.json").unwrap().is_none());
        assert!(place.create("guard.json", b"one").unwrap());
        assert!(!place.create("guard.json", b"other").unwrap());
        assert_eq!(place.read("guard.json").unwrap().unwrap(), b"one");
        place.replace("guard.json", b"two").unwrap();
        assert_eq!(place.read("guard.json").unwrap().unwrap(), b"two");
        let gone = GuardLocation::Directory(folder.path().join("gone")).place();
        assert!(gone.read("guard.json").is_err());
    }
}
