//! Derives from a workload's claims a description for people, which contains names, and the id of
//! the account to which limits apply.

use serde_json::{Map, Value};

use super::{evaluate::text_at, provider::Provider};
use crate::domain::text;

/// Maximum length of a description or account key, in characters.
const MAX_CHARS: usize = 255;
/// Replaces a claim that must not be shown.
const HIDDEN: &str = "(not shown)";

impl Provider {
    /// Describes a workload for the audit and for usage, such as `repo octo/app run 7`. Omits
    /// claims that are absent. The description never contains the assertion.
    #[must_use]
    pub fn subject_description(self, subject: &str, claims: &Map<String, Value>) -> String {
        let parts: &[(&str, &[&str])] = match self {
            Self::GithubActions => &[
                ("repo", &["repository"]),
                ("run", &["run_id"]),
                ("attempt", &["run_attempt"]),
            ],
            Self::GitlabCi => &[
                ("project", &["project_path"]),
                ("pipeline", &["pipeline_id"]),
                ("job", &["job_id"]),
            ],
            Self::Kubernetes => &[
                ("namespace", &["kubernetes.io", "namespace"]),
                (
                    "service account",
                    &["kubernetes.io", "serviceaccount", "name"],
                ),
                ("pod", &["kubernetes.io", "pod", "name"]),
            ],
            Self::Buildkite => &[
                ("organization", &["organization_slug"]),
                ("pipeline", &["pipeline_slug"]),
                ("build", &["build_number"]),
            ],
            Self::Spiffe | Self::Generic => &[],
        };
        let parts = parts.iter().filter_map(|(word, path)| {
            let value = claim(claims, path)?;
            Some(format!("{word} {}", printable(&value)))
        });
        let described: Vec<_> = parts.collect();
        let described = if described.is_empty() {
            printable(subject)
        } else {
            described.join(" ")
        };
        described.chars().take(MAX_CHARS).collect()
    }

    /// Returns the account to which limits on a workload apply. This is the owner's id at the
    /// provider and not the subject, because one account has many subjects. Returns an empty string
    /// if the claim is absent, so that all workloads without it share one account.
    #[must_use]
    pub fn account_key(self, subject: &str, claims: &Map<String, Value>) -> String {
        let account = match self {
            Self::GithubActions => claim(claims, &["repository_owner_id"]),
            Self::GitlabCi => claim(claims, &["namespace_id"]),
            Self::Kubernetes => claim(claims, &["kubernetes.io", "namespace"]),
            Self::Buildkite => claim(claims, &["organization_id"])
                .or_else(|| claim(claims, &["organization_slug"])),
            Self::Spiffe => trust_domain(subject).map(str::to_owned),
            Self::Generic => Some(subject.to_owned()),
        };
        account
            .unwrap_or_default()
            .chars()
            .take(MAX_CHARS)
            .collect()
    }
}

fn claim(claims: &Map<String, Value>, path: &[&str]) -> Option<String> {
    let path: Vec<_> = path.iter().map(|name| (*name).to_owned()).collect();
    text_at(claims, &path).filter(|text| !text.is_empty())
}

/// Returns the trust domain of a SPIFFE id.
fn trust_domain(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix("spiffe://")?;
    rest.split('/').next()
}

/// Returns a claim for display. Replaces unprintable characters, which could forge a line of a log,
/// and hides a claim that may contain a credential (R9).
fn printable(value: &str) -> String {
    if text::holds_credential(value) {
        return HIDDEN.to_owned();
    }
    let letters = value.chars();
    letters
        .map(|letter| {
            if text::is_unprintable(letter) {
                '?'
            } else {
                letter
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(provider: Provider, subject: &str, claims: &Value) -> (String, String) {
        let claims = claims.as_object().unwrap();
        let described = provider.subject_description(subject, claims);
        (described, provider.account_key(subject, claims))
    }

    #[test]
    fn a_workload_is_named_by_what_people_know_and_counted_by_its_owner() {
        for (provider, subject, claims, described, account) in [
            (
                Provider::GithubActions,
                "repo:octo/app:ref:refs/heads/main",
                json!({"repository": "octo/app", "run_id": "7", "run_attempt": "1",
                    "repository_owner_id": "65"}),
                "repo octo/app run 7 attempt 1",
                "65",
            ),
            (
                Provider::GitlabCi,
                "project_path:g/p:ref_type:branch:ref:main",
                json!({"project_path": "g/p", "pipeline_id": "646", "job_id": "12",
                    "namespace_id": "72"}),
                "project g/p pipeline 646 job 12",
                "72",
            ),
            (
                Provider::Kubernetes,
                "system:serviceaccount:cms:publisher",
                json!({"kubernetes.io": {"namespace": "cms", "pod": {"name": "p-1"},
                    "serviceaccount": {"name": "publisher"}}}),
                "namespace cms service account publisher pod p-1",
                "cms",
            ),
            (
                Provider::Buildkite,
                "organization:acme:pipeline:x",
                json!({"organization_slug": "acme", "pipeline_slug": "x", "build_number": 9}),
                "organization acme pipeline x build 9",
                "acme",
            ),
            (
                Provider::Spiffe,
                "spiffe://example.org/a",
                json!({}),
                "spiffe://example.org/a",
                "example.org",
            ),
            (Provider::Generic, "bot", json!({}), "bot", "bot"),
            (
                Provider::GithubActions,
                "repo:x",
                json!({"run_id": []}),
                "repo:x",
                "",
            ),
        ] {
            let found = of(provider, subject, &claims);
            assert_eq!(found, (described.to_owned(), account.to_owned()));
        }
    }

    #[test]
    fn claims_forge_no_line_and_show_no_credential() {
        let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
        let claims = json!({"repository": "a\nb\u{202e}", "run_id": secret,
            "run_attempt": "9".repeat(400)});
        let (described, _) = of(Provider::GithubActions, "x", &claims);
        assert!(
            described.starts_with("repo a?b? run (not shown) attempt 99"),
            "{described}"
        );
        assert_eq!(described.chars().count(), 255);
    }
}
