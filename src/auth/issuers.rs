//! Parses `[[issuers]]` entries: the trusted issuers, and the kind of caller that each issuer
//! authenticates. This module does not depend on JWTs.

use std::path::{Path, PathBuf};

use http::Uri;

use super::{
    algorithm::Algorithm,
    certificates::CERTIFICATE_ISSUER,
    entry::{Entry, IssuersError},
    source::{KeySource, parse_url},
};
use crate::domain::{
    caller::{CallerKind, SESSION_ISSUER},
    federation::{FederationIssuer, Provider},
    text::Issuer,
};

const KEYS: [&str; 14] = [
    "issuer",
    "audience",
    "jwks_url",
    "jwks_file",
    "jwks_ca",
    "algorithms",
    "caller",
    "required",
    "subjects",
    "jwks_token_file",
    "name",
    "provider",
    "stacks",
    "replay",
];

const KINDS: [(&str, CallerKind); 4] = [
    ("user", CallerKind::User),
    ("service", CallerKind::Service),
    ("operator", CallerKind::Operator),
    ("workload", CallerKind::Workload),
];

/// One `[[issuers]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerEntry {
    /// Value that the claim `iss` must have.
    pub issuer: String,
    /// Value that the claim `aud` must equal or contain.
    pub audience: String,
    /// Where the issuer's keys come from.
    pub source: KeySource,
    /// Signature algorithms that are accepted; there is at least one.
    pub algorithms: Vec<Algorithm>,
    /// Kind of caller that this issuer authenticates.
    pub caller: CallerKind,
    /// Claims that a JWT must have. All of them must match.
    pub required: Vec<RequiredClaim>,
    /// Services that have the introspect role. Empty if this issuer authenticates another kind of
    /// caller.
    pub subjects: Vec<SubjectPattern>,
    /// The issuer's settings for token exchange. `None` if this issuer authenticates another kind
    /// of caller.
    pub workload: Option<FederationIssuer>,
}

impl IssuerEntry {
    /// Returns whether this is a SPIFFE issuer, whose assertions may lack `iss`.
    pub(super) fn is_spiffe(&self) -> bool {
        let provider = self.workload.as_ref().map(|issuer| issuer.provider);
        provider == Some(Provider::Spiffe)
    }

    /// Returns whether the entry gives this subject the introspect role.
    #[must_use]
    pub fn may_introspect(&self, subject: &str) -> bool {
        self.caller == CallerKind::Service
            && self.subjects.iter().any(|pattern| pattern.covers(subject))
    }
}

/// A claim that a JWT must have, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// Names of the members that lead to the claim, the outermost first. There is at least one
    /// name. A name may contain dots.
    pub path: Vec<String>,
    /// Text that the claim must equal or, if the claim is a list, contain.
    pub value: String,
}

/// A pattern for subjects, parsed from an element of the list `subjects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectPattern {
    /// Matches exactly this subject.
    Exact(String),
    /// Matches all subjects with this prefix.
    Prefix(String),
}

impl SubjectPattern {
    fn parse(text: &str) -> Option<Self> {
        let (body, prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if text.is_empty() || body.contains('*') {
            return None;
        }
        Some(if prefix {
            Self::Prefix(body.to_owned())
        } else {
            Self::Exact(body.to_owned())
        })
    }

    fn covers(&self, subject: &str) -> bool {
        match self {
            Self::Exact(whole) => whole == subject,
            Self::Prefix(start) => subject.starts_with(start),
        }
    }
}

impl Entry<'_> {
    /// Parses this table as an `[[issuers]]` entry.
    pub fn issuer_entry(&self, base: &Path) -> Result<IssuerEntry, IssuersError> {
        self.only(&KEYS)?;
        let caller = self.caller(&KINDS)?;
        Ok(IssuerEntry {
            issuer: self.issuer()?,
            audience: self.text("audience")?.to_owned(),
            source: self.source(base)?,
            algorithms: self.algorithms()?,
            caller,
            required: self.required()?,
            subjects: self.subjects(caller)?,
            workload: self.workload(caller)?,
        })
    }

    fn issuer(&self) -> Result<String, IssuersError> {
        let text = self.text("issuer")?;
        Issuer::parse(text).map_err(|problem| self.fault("issuer", &problem.to_string()))?;
        if [CERTIFICATE_ISSUER, SESSION_ISSUER].contains(&text) {
            let problem = "is reserved for callers without a JWT: use the issuer's URL";
            return Err(self.fault("issuer", problem));
        }
        Ok(text.to_owned())
    }

    fn source(&self, base: &Path) -> Result<KeySource, IssuersError> {
        let ca = self.optional_text("jwks_ca")?;
        let token = self.optional_text("jwks_token_file")?;
        let places = (
            self.optional_text("jwks_url")?,
            self.optional_text("jwks_file")?,
        );
        match places {
            (Some(url), None) => {
                let files = [ca, token].map(|path| path.map(|path| base.join(path)));
                self.url(url, files)
            }
            (None, Some(_)) if ca.is_some() => {
                Err(self.fault("jwks_ca", "is for an https jwks_url: remove it"))
            }
            (None, Some(_)) if token.is_some() => {
                Err(self.fault("jwks_token_file", "is for a jwks_url: remove it"))
            }
            (None, Some(file)) => Ok(KeySource::File(base.join(file))),
            (Some(_), Some(_)) => Err(self.fault(
                "jwks_url",
                "and `jwks_file` are both given: keep exactly one of them",
            )),
            (None, None) => Err(self.fault(
                "jwks_url",
                "and `jwks_file` are both absent: give exactly one of them",
            )),
        }
    }

    fn url(
        &self,
        text: &str,
        [ca, token]: [Option<PathBuf>; 2],
    ) -> Result<KeySource, IssuersError> {
        let url: Uri = parse_url(text).map_err(|problem| self.fault("jwks_url", problem))?;
        if ca.is_some() && url.scheme_str() != Some("https") {
            return Err(self.fault("jwks_ca", "is for an https jwks_url: remove it"));
        }
        Ok(KeySource::Url { url, ca, token })
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, IssuersError> {
        let names = self.texts("algorithms")?.unwrap_or_default();
        let known: Vec<_> = Algorithm::ALL.iter().map(|known| known.name()).collect();
        let known = known.join(", ");
        if names.is_empty() {
            let problem = format!("is required: list at least one of {known}");
            return Err(self.fault("algorithms", &problem));
        }
        let parsed = names.into_iter().map(|name| {
            Algorithm::from_name(name).ok_or_else(|| {
                let problem =
                    format!("contains {name:?}, which is not supported: use only {known}");
                self.fault("algorithms", &problem)
            })
        });
        parsed.collect()
    }

    fn subjects(&self, caller: CallerKind) -> Result<Vec<SubjectPattern>, IssuersError> {
        let Some(texts) = self.texts("subjects")? else {
            return Ok(Vec::new());
        };
        if caller != CallerKind::Service {
            let problem = "is only for caller = \"service\": remove it";
            return Err(self.fault("subjects", problem));
        }
        let patterns = texts.into_iter().map(|text| {
            SubjectPattern::parse(text).ok_or_else(|| {
                let problem =
                    format!("contains {text:?}: write a subject, with `*` only at its end");
                self.fault("subjects", &problem)
            })
        });
        patterns.collect()
    }
}
