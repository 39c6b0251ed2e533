//! The issuers file, and the keys that it names.

use std::path::Path;

use super::{codes::Code, finding::Findings};
use crate::{
    auth::{Authenticator, Entries, InspectedKeys},
    cli::{output, settings},
    domain::caller::CallerKind,
};

/// Parses the issuers file.
pub fn entries(issuers: &Path, findings: &mut Findings) -> Option<Entries> {
    match settings::entries(issuers) {
        Ok(entries) => Some(entries),
        Err(error) => {
            let fix = "Correct the file as the message says; docs/operations.md#the-issuers-file has \
                       an example of each entry";
            findings.add(Code::IssuersFile, output::error_text(&error), fix);
            None
        }
    }
}

/// Loads the keys of each source, and compares them with the entries.
pub async fn check(entries: &Entries, authenticator: &Authenticator, findings: &mut Findings) {
    check_kinds(entries, findings);
    for keys in authenticator.inspect_keys().await {
        check_keys(&keys, findings);
    }
}

fn check_kinds(entries: &Entries, findings: &mut Findings) {
    let issuers = entries.issuers.iter().map(|entry| entry.caller);
    let certificates = entries.certificates.iter().map(|entry| entry.caller);
    let kinds: Vec<_> = issuers.chain(certificates).collect();
    if !kinds.contains(&CallerKind::User) {
        let problem = "no entry is for users, so that TokenService never becomes SERVING and nobody \
                       can manage tokens";
        let fix = "Add an [[issuers]] entry with `caller = \"user\"`";
        findings.add(Code::IssuersNoUsers, problem, fix);
    }
    if !kinds.contains(&CallerKind::Service) {
        let problem =
            "no entry is for services, so that IntrospectionService never becomes SERVING";
        let fix = "Add an [[issuers]] entry with `caller = \"service\"` and `subjects`, or an [[mtls]] \
                   entry with `caller = \"service\"` and `introspect = true`";
        findings.add(Code::IssuersNoServices, problem, fix);
    }
}

fn check_keys(keys: &InspectedKeys, findings: &mut Findings) {
    let (source, issuers) = (&keys.source, keys.issuers.join(", "));
    let loaded = match &keys.loaded {
        Ok(loaded) => loaded,
        Err(why) => {
            let problem = format!("the keys of {issuers} cannot be loaded: {source} {why}");
            let fix = "Fetch them by hand, `curl --fail --cacert CA URL`, and correct `jwks_url`, \
                       `jwks_ca`, `jwks_token_file` or `jwks_file`; in Kubernetes, check the network \
                       policy for egress";
            findings.add(Code::IssuersKeys, problem, fix);
            return;
        }
    };
    for (issuer, algorithms) in &loaded.keyless {
        let problem = format!(
            "{source} has no key for {algorithms}, so that every JWT of {issuer} is refused"
        );
        let fix = "Set `algorithms` of the entry to that of the issuer's keys: `curl URL | jq \
                   '.keys[].alg'`";
        findings.add(Code::IssuersKeyless, problem, fix);
    }
    for (issuer, algorithms) in &loaded.partly_keyless {
        let problem = format!("{source} has no key for {algorithms}, which {issuer} may use");
        let fix =
            format!("Remove {algorithms} from `algorithms` unless such a key will be published");
        findings.add(Code::IssuersAlgorithm, problem, fix);
    }
    for skipped in &loaded.skipped {
        let problem = format!("a key of {source} is not used: {skipped}");
        let fix = "Let the issuer publish a key that is accepted: RSA of at least 2048 bits, P-256, \
                   P-384 or Ed25519, with `use: sig`";
        findings.add(Code::IssuersKeySkipped, problem, fix);
    }
}
