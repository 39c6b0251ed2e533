//! The codes of the findings. A code keeps its name and its meaning; docs/doctor.md explains each.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `serve` does not start, does not become ready, or breaks a promise.
    Error,
    /// `serve` works, but less safely or for fewer callers than the settings suggest.
    Warning,
    /// Worth knowing. Nothing needs to be changed.
    Note,
}

impl Severity {
    /// Returns the word for this severity.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Defines the codes, each with its severity and its name.
macro_rules! codes {
    ($($code:ident: $severity:ident $name:literal,)*) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($code,)* }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// Returns the name of the code, such as `schema.pending`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// Returns the severity of every finding with this code.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    RulesInvalid: Error "rules.invalid",
    GuardKey: Error "guard.key",
    DatabaseUrl: Error "database.url",
    DatabaseFileMissing: Error "database.file-missing",
    DatabaseFileDenied: Error "database.file-denied",
    DatabaseUnusable: Error "database.unusable",
    DatabaseUnreachable: Error "database.unreachable",
    DatabaseRefused: Error "database.refused",
    DatabaseTls: Error "database.tls",
    DatabaseCredential: Error "database.credential",
    DatabaseMissing: Error "database.missing",
    DatabaseStandby: Error "database.standby",
    DatabaseReadOnly: Error "database.read-only",
    DatabaseTooOld: Error "database.too-old",
    DatabaseUnverified: Warning "database.unverified",
    DatabasePooler: Error "database.pooler",
    DatabasePoolerPrepares: Error "database.pooler-prepares",
    DatabaseDirectPooled: Error "database.direct-pooled",
    DatabaseDirectElsewhere: Error "database.direct-elsewhere",
    DatabaseEncoding: Error "database.encoding",
    DatabasePrivileges: Error "database.privileges",
    DatabaseSuperuser: Warning "database.superuser",
    DatabaseNotDurable: Error "database.not-durable",
    DatabaseAsynchronous: Warning "database.asynchronous",
    DatabaseStandbyMissing: Error "database.standby-missing",
    DatabaseCommitDefault: Note "database.commit-default",
    DatabaseIsolationDefault: Note "database.isolation-default",
    DatabaseSessionTimeout: Warning "database.session-timeout",
    DatabaseKeepalive: Note "database.keepalive",
    DatabaseConnections: Warning "database.connections",
    SchemaPending: Error "schema.pending",
    SchemaNewer: Error "schema.newer",
    SchemaDrifted: Error "schema.drifted",
    SchemaForeign: Error "schema.foreign",
    SchemaUnreadable: Error "schema.unreadable",
    ClockDatabase: Error "clock.database",
    ClockBehind: Error "clock.behind",
    ClockStepped: Error "clock.stepped",
    TlsSettings: Error "tls.settings",
    TlsCertificate: Error "tls.certificate",
    TlsKey: Error "tls.key",
    TlsClientCa: Error "tls.client-ca",
    TlsExpiresSoon: Warning "tls.expires-soon",
    TlsChain: Warning "tls.chain",
    TlsCaIgnored: Warning "tls.ca-ignored",
    IssuersFile: Error "issuers.file",
    IssuersKeys: Error "issuers.keys",
    IssuersKeyless: Error "issuers.keyless",
    IssuersAlgorithm: Note "issuers.algorithm",
    IssuersKeySkipped: Warning "issuers.key-skipped",
    IssuersNoUsers: Error "issuers.no-users",
    IssuersNoServices: Error "issuers.no-services",
    ListenTaken: Error "listen.taken",
    ListenRunning: Note "listen.running",
    ListenPlaintext: Warning "listen.plaintext",
    ListenAdmin: Note "listen.admin",
    ListenReflection: Note "listen.reflection",
    FilesReadable: Warning "files.readable",
    FilesWritable: Error "files.writable",
    FilesFolderWritable: Error "files.folder-writable",
    FilesHardLinks: Warning "files.hard-links",
    LimitsOpenFiles: Warning "limits.open-files",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_row_with_its_severity_in_the_manual() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for code in Code::ALL {
            let start = format!("| `{}` | {} |", code.name(), code.severity().name());
            let found = rows.iter().filter(|row| row.starts_with(&start));
            assert_eq!(found.count(), 1, "{start}");
        }
        assert_eq!(rows.len(), Code::ALL.len(), "a code that is gone");
    }
}
