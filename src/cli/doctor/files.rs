//! The modes of files and folders: who besides the user of `serve` can read a secret, or change what
//! decides who is trusted.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{Serve, codes::Code, finding::Findings};
use crate::{
    auth::{Entries, KeySource},
    store::Location,
};

/// Others may read, or write.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
/// In a folder with this bit, others cannot replace files that are not theirs.
const STICKY: u32 = 0o1000;

/// A file that a setting names.
struct Named {
    setting: &'static str,
    path: PathBuf,
    is_secret: bool,
}

pub fn check(
    serve: &Serve,
    entries: Option<&Entries>,
    location: Option<&Location>,
    findings: &mut Findings,
) {
    let mut files = of_settings(serve);
    files.extend(entries.into_iter().flat_map(of_entries));
    let of_database = location.map(Location::tls_files).unwrap_or_default();
    files.extend(of_database.into_iter().map(|(path, is_secret)| Named {
        setting: "--database-url",
        path,
        is_secret,
    }));
    for file in &files {
        check_file(file, findings);
    }
    if let Some(Location::Sqlite(path)) = location {
        check_store(path, findings);
    }
}

fn of_settings(serve: &Serve) -> Vec<Named> {
    let (database, tls, rules) = (&serve.database, &serve.tls, &serve.tuning.rules);
    let named = [
        ("--database-url-file", &database.database_url_file, true),
        (
            "--database-direct-url-file",
            &database.database_direct_url_file,
            true,
        ),
        ("--guard-key-file", &serve.guard.place.guard_key_file, true),
        ("--tls-key", &tls.tls_key, true),
        ("--tls-cert", &tls.tls_cert, false),
        ("--tls-client-ca", &tls.tls_client_ca, false),
        ("--catalogue", &rules.catalogue.file, false),
        ("--authz-routes", &rules.authz_routes, false),
        ("--issuers", &serve.issuers, false),
    ];
    let named = named.into_iter().filter_map(|(setting, path, is_secret)| {
        Some(Named {
            setting,
            path: path.clone()?,
            is_secret,
        })
    });
    named.collect()
}

/// Returns the files that the issuers file names, each once.
fn of_entries(entries: &Entries) -> Vec<Named> {
    let mut files: Vec<Named> = Vec::new();
    let mut add = |setting, path: &Path, is_secret| {
        if !files.iter().any(|file| file.path == path) {
            let path = path.to_owned();
            files.push(Named {
                setting,
                path,
                is_secret,
            });
        }
    };
    for entry in &entries.issuers {
        match &entry.source {
            KeySource::File(path) => add("jwks_file", path, false),
            KeySource::Url { ca, token, .. } => {
                if let Some(ca) = ca {
                    add("jwks_ca", ca, false);
                }
                if let Some(token) = token {
                    add("jwks_token_file", token, true);
                }
            }
        }
    }
    files
}

/// Checks one file. One that cannot be read is reported by what reads it.
fn check_file(file: &Named, findings: &mut Findings) {
    let Some(mode) = mode_of(&file.path) else {
        return;
    };
    let (setting, path) = (file.setting, file.path.display());
    if mode & OTHERS_WRITE != 0 {
        let problem = format!("{setting} {path} can be changed by every user of this host");
        findings.add(Code::FilesWritable, problem, format!("`chmod o-w {path}`"));
    }
    if file.is_secret && mode & OTHERS_READ != 0 {
        let problem =
            format!("{setting} {path} is secret, and every user of this host can read it");
        findings.add(
            Code::FilesReadable,
            problem,
            format!("`chmod o-rwx {path}`"),
        );
    }
}

/// Checks the file of an SQLite store and its folder.
fn check_store(path: &Path, findings: &mut Findings) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        check_file(
            &Named {
                setting: "--database-url",
                path: name.into(),
                is_secret: true,
            },
            findings,
        );
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1) {
        let path = path.display();
        let problem = format!(
            "the database file {path} has several names (hard links), but its write-ahead log belongs \
             to only one"
        );
        let fix = format!("Remove the other names: `find . -samefile {path}`");
        findings.add(Code::FilesHardLinks, problem, fix);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let is_open = |mode: u32| mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
    if mode_of(folder).is_some_and(is_open) {
        let folder = folder.display();
        let problem =
            format!("every user of this host can replace the database file in the folder {folder}");
        findings.add(
            Code::FilesFolderWritable,
            problem,
            format!("`chmod o-w {folder}`"),
        );
    }
}

fn mode_of(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode())
}
