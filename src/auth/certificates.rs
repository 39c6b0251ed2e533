//! Parses `[[mtls]]` entries, and identifies callers by the SPIFFE id or DNS name in their client
//! certificate. TLS has already verified the certificate; this module only parses it, and does not
//! depend on connections.

use std::sync::Arc;

use toml::Value;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::entry::{Entry, IssuersError};
use crate::domain::{
    caller::{Actor, Caller, CallerKind},
    timestamp::Timestamp,
};

const KEYS: [&str; 3] = ["identity", "caller", "introspect"];
const KINDS: [(&str, CallerKind); 2] = [
    ("service", CallerKind::Service),
    ("operator", CallerKind::Operator),
];
const SPIFFE: &str = "spiffe://";

/// The issuer that is recorded for callers who are identified by certificate.
pub const CERTIFICATE_ISSUER: &str = "mtls";

/// One `[[mtls]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEntry {
    /// The SPIFFE id, or the DNS name in lower case.
    pub identity: String,
    /// Kind of caller that the certificate identifies; never a user.
    pub caller: CallerKind,
    /// Whether the caller has the introspect role.
    pub introspects: bool,
}

/// A client certificate that TLS has verified, and the caller that it identifies.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The caller; `None` if the issuers file lists none of the names in the certificate.
    pub caller: Option<Arc<Caller>>,
    /// When the certificate expires.
    pub expires_at: Timestamp,
}

/// Returns the caller that a certificate identifies. This is the caller of the first entry whose
/// identity is one of the names in the certificate. A certificate that cannot be parsed identifies
/// no caller and counts as expired.
#[must_use]
pub(super) fn certify(entries: &[CertificateEntry], der: &[u8]) -> ClientCertificate {
    let nobody = ClientCertificate {
        caller: None,
        expires_at: Timestamp::EPOCH,
    };
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return nobody;
    };
    let expires_at = certificate.validity().not_after.timestamp();
    let Some(expires_at) = Timestamp::from_parts(expires_at, 0) else {
        return nobody;
    };
    let names = names(&certificate);
    let entry = entries.iter().find(|entry| names.contains(&entry.identity));
    ClientCertificate {
        caller: entry.map(|entry| Arc::new(caller(entry))),
        expires_at,
    }
}

/// Returns the SPIFFE id and the DNS names in a certificate. An X.509-SVID has exactly one URI
/// (SPIFFE X509-SVID §2), so if there are several URIs, all of them are ignored.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let (mut uris, mut names) = (Vec::new(), Vec::new());
    for name in &alternatives.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // A wildcard name never matches, because no entry can contain a wildcard.
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            _ => {}
        }
    }
    if let [uri] = uris.as_slice()
        && uri.starts_with(SPIFFE)
    {
        names.push((*uri).to_owned());
    }
    names
}

fn caller(entry: &CertificateEntry) -> Caller {
    Caller {
        introspects: entry.introspects,
        workload: None,
        stranger_in: None,
        actor: Actor {
            kind: entry.caller,
            issuer: CERTIFICATE_ISSUER.to_owned(),
            subject: entry.identity.clone(),
        },
    }
}

impl Entry<'_> {
    /// Parses this table as an `[[mtls]]` entry.
    pub fn certificate_entry(&self) -> Result<CertificateEntry, IssuersError> {
        self.only(&KEYS)?;
        let caller = self.caller(&KINDS)?;
        Ok(CertificateEntry {
            identity: self.identity()?,
            caller,
            introspects: self.introspects(caller)?,
        })
    }

    fn identity(&self) -> Result<String, IssuersError> {
        let text = self.text("identity")?;
        let fit = match text.strip_prefix(SPIFFE) {
            Some(rest) => is_spiffe(rest),
            None => is_dns_name(text),
        };
        if !fit {
            let problem = "must be one SPIFFE id, as in spiffe://example.org/content-api, or one DNS name without `*`";
            return Err(self.fault("identity", problem));
        }
        Ok(if text.starts_with(SPIFFE) {
            text.to_owned()
        } else {
            text.to_ascii_lowercase()
        })
    }

    fn introspects(&self, caller: CallerKind) -> Result<bool, IssuersError> {
        match self.get("introspect") {
            None => Ok(false),
            Some(Value::Boolean(_)) if caller != CallerKind::Service => {
                Err(self.fault("introspect", "is only for caller = \"service\": remove it"))
            }
            Some(Value::Boolean(introspects)) => Ok(*introspects),
            Some(_) => Err(self.fault("introspect", "must be true or false, without quotes")),
        }
    }
}

/// Returns whether the part of a SPIFFE id after the scheme is valid: a trust domain, and a path of
/// non-empty segments (SPIFFE-ID §2).
fn is_spiffe(rest: &str) -> bool {
    let Some((domain, path)) = rest.split_once('/') else {
        return false;
    };
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let segment =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(in_path);
    !domain.is_empty() && domain.bytes().all(letter) && path.split('/').all(segment)
}

fn is_dns_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |part: &str| !part.is_empty() && part.len() <= 63 && part.bytes().all(letter);
    text.len() <= 253 && text.split('.').all(label)
}
