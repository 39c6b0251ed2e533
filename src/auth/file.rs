//! Parses the issuers file, which configures how callers are authenticated: by JWT or by client
//! certificate. This module does not open the file.

use std::path::Path;

use toml::{Table, Value};

use super::{
    certificates::CertificateEntry,
    entry::{Entry, IssuersError},
    issuers::IssuerEntry,
    workloads,
};

const ISSUERS: &str = "issuers";
const MTLS: &str = "mtls";

/// The entries of the issuers file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Issuers whose JWTs authenticate callers.
    pub issuers: Vec<IssuerEntry>,
    /// Callers that are authenticated by client certificate.
    pub certificates: Vec<CertificateEntry>,
}

/// Parses the text of an issuers file. Relative paths in the file are relative to `base`, the
/// folder of the file.
///
/// # Errors
/// [`IssuersError`] for the first error in the file.
pub fn parse(text: &str, base: &Path) -> Result<Entries, IssuersError> {
    let file: Table = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
    if let Some(key) = file
        .keys()
        .find(|key| ![ISSUERS, MTLS].contains(&key.as_str()))
    {
        return Err(IssuersError(format!(
            "unknown key `{key}`: the file has [[issuers]] and [[mtls]] entries only, remove it"
        )));
    }
    let issuers = section(&file, ISSUERS)?;
    let certificates = section(&file, MTLS)?;
    if issuers.is_empty() && certificates.is_empty() {
        return Err(IssuersError(
            "no [[issuers]] or [[mtls]] entry: add one, or nobody can call".to_owned(),
        ));
    }
    let issuers = issuers.iter().map(|entry| entry.issuer_entry(base));
    let certificates = certificates.iter().map(Entry::certificate_entry);
    let issuers = issuers.collect::<Result<Vec<_>, _>>()?;
    workloads::check(&issuers)?;
    Ok(Entries {
        issuers,
        certificates: certificates.collect::<Result<_, _>>()?,
    })
}

/// Returns the entries of a list of tables; empty if the file does not contain the list.
fn section<'a>(file: &'a Table, name: &'static str) -> Result<Vec<Entry<'a>>, IssuersError> {
    let entries = match file.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            return Err(IssuersError(format!(
                "`{name}` is not a list of tables: write [[{name}]] with two brackets"
            )));
        }
    };
    let numbered = entries.iter().zip(1..);
    numbered
        .map(|(entry, number)| Entry::new(name, number, entry))
        .collect()
}

fn not_toml(text: &str, error: &toml::de::Error) -> IssuersError {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let words: Vec<_> = error.message().lines().collect();
    IssuersError(format!("line {line} is not TOML: {}", words.join(", ")))
}
