//! What is worth knowing about TLS files that can be used: when they expire, and mistakes with
//! which the server starts but some clients fail.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    Tls, TlsError,
    material::{CERT, CLIENT_CA, Material, certificates, valid_until},
};
use crate::domain::timestamp::Timestamp;

/// The result of inspecting the TLS files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInspection {
    /// The setting of each certificate file, and when the first of its certificates in use expires,
    /// in seconds since the Unix epoch.
    pub expires_at: Vec<(&'static str, i64)>,
    /// Why a client may be unable to verify the server's chain.
    pub chain_faults: Vec<String>,
    /// Why client CAs of the file are ignored.
    pub ignored_cas: Vec<String>,
}

impl Tls {
    /// Inspects the files that were loaded.
    ///
    /// # Errors
    /// [`TlsError`] if a file can no longer be read.
    pub async fn inspect(&self) -> Result<TlsInspection, TlsError> {
        let material = Material::read(&self.files).await?;
        let usable = &self.current.load().usable;
        let chain = certificates(&material.cert).unwrap_or_default();
        let now = self.clock.now();
        let intermediates = valid_until(chain.get(1..).unwrap_or_default(), now);
        let first_expires_at = intermediates.map_or(usable.server_expires_at, |at| {
            at.min(usable.server_expires_at)
        });
        let mut expires_at = vec![(CERT, first_expires_at)];
        expires_at.extend(usable.client_ca_expires_at.map(|at| (CLIENT_CA, at)));
        let cas = material.client_ca.as_deref().and_then(certificates);
        Ok(TlsInspection {
            expires_at,
            chain_faults: chain_faults(&chain, now),
            ignored_cas: ignored(&cas.unwrap_or_default(), now),
        })
    }
}

fn ignored(cas: &[CertificateDer<'_>], now: Timestamp) -> Vec<String> {
    let faults = cas.iter().zip(1..).filter_map(|(ca, number)| {
        let why = valid_until(std::slice::from_ref(ca), now).err()?;
        Some(format!("certificate {number} {why}"))
    });
    faults.collect()
}

fn chain_faults(chain: &[CertificateDer<'_>], now: Timestamp) -> Vec<String> {
    let parsed = chain
        .iter()
        .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1));
    let parsed: Vec<_> = parsed.collect();
    let mut faults = Vec::new();
    let names = parsed.first().map(|leaf| leaf.subject_alternative_name());
    if matches!(names, Some(Ok(None))) {
        faults.push(
            "the certificate has no subject alternative name, and clients ignore its common name"
                .to_owned(),
        );
    }
    for (pair, number) in parsed.windows(2).zip(1..) {
        if let [one, next] = pair
            && one.issuer() != next.subject()
        {
            faults.push(format!(
                "certificate {number} is signed by \"{}\", but certificate {} is \"{}\"",
                one.issuer(),
                number + 1,
                next.subject()
            ));
        }
    }
    for (der, number) in chain.iter().zip(1..).skip(1) {
        if let Err(why) = valid_until(std::slice::from_ref(der), now) {
            faults.push(format!("certificate {number} {why}"));
        }
    }
    faults
}
