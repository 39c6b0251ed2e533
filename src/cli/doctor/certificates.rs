//! The TLS files: whether `serve` can use them, when they expire, and what clients may stumble over.

use std::sync::Arc;

use super::{codes::Code, finding::Findings};
use crate::{
    auth::Authenticator,
    cli::{exit::ExitError, output, settings},
    config::TlsFlags,
    domain::{
        clock::{Clock as _, SystemClock},
        timestamp::Timestamp,
    },
    server::{Tls, TlsError},
};

/// A certificate that expires within this time is reported: 14 days, as by the alert.
const SOON_SECONDS: i64 = 14 * 86_400;

/// How to check that a key belongs to a certificate, without showing the key.
const PAIR: &str = "Write the certificate and the key of the same pair; these two must print the same: \
                    `openssl x509 -in CERT -pubkey -noout`, `openssl pkey -in KEY -pubout`";

pub async fn check(
    flags: &TlsFlags,
    authenticator: &Authenticator,
    (clock, findings): (Arc<SystemClock>, &mut Findings),
) {
    match settings::tls(flags, authenticator, clock.clone()).await {
        Ok(None) => {}
        Ok(Some(tls)) => inspect(&tls, clock.now(), findings).await,
        Err(error) => {
            let (code, fix) = explain(&error);
            findings.add(code, output::error_text(&error), fix);
        }
    }
}

fn explain(error: &anyhow::Error) -> (Code, &'static str) {
    if error.downcast_ref::<ExitError>().is_some() {
        return (
            Code::TlsSettings,
            "Set --tls-cert, --tls-key and, for client certificates, --tls-client-ca together",
        );
    }
    match error.downcast_ref::<TlsError>().map(TlsError::setting) {
        Some("--tls-key") => (Code::TlsKey, PAIR),
        Some("--tls-client-ca") => (
            Code::TlsClientCa,
            "Write at least one CA certificate that is valid now, in PEM: `openssl x509 -in CA \
             -noout -subject -dates`",
        ),
        _ => (
            Code::TlsCertificate,
            "Renew the certificate, and write it in PEM before those that signed it: `openssl x509 \
             -in CERT -noout -subject -dates`",
        ),
    }
}

async fn inspect(tls: &Tls, now: Timestamp, findings: &mut Findings) {
    let inspected = match tls.inspect().await {
        Ok(inspected) => inspected,
        Err(error) => return findings.add(Code::TlsCertificate, error, "Read the files again"),
    };
    for (setting, expires_at) in inspected.expires_at {
        let left = expires_at.saturating_sub(now.seconds());
        if left < SOON_SECONDS {
            let (days, hours) = (left / 86_400, left % 86_400 / 3_600);
            let problem = format!("a certificate of {setting} expires in {days} d {hours} h");
            let fix = "Renew it, and replace the files by a rename: `serve` loads them within a second, \
                       without a restart";
            findings.add(Code::TlsExpiresSoon, problem, fix);
        }
    }
    for fault in inspected.chain_faults {
        let problem = format!("--tls-cert: {fault}");
        let fix = "Write the server's certificate first, with its host names as subject alternative \
                   names, and then each certificate that signed the one before it: `cat server.crt \
                   intermediate.crt > tls.crt`";
        findings.add(Code::TlsChain, problem, fix);
    }
    for ignored in inspected.ignored_cas {
        let problem = format!("--tls-client-ca: {ignored}");
        let fix = "Remove this CA from the file; its clients are refused";
        findings.add(Code::TlsCaIgnored, problem, fix);
    }
}
