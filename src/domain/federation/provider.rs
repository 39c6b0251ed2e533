//! Providers of workload identities. A provider determines which claims a rule set must pin,
//! whether an assertion may be exchanged more than once, and how a workload is described.

use super::{ClaimMatch, ClaimRule};

/// A kind of issuer of workload identities. The issuers file states it for each issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// A job of GitHub Actions.
    GithubActions,
    /// A job of GitLab CI/CD.
    GitlabCi,
    /// A Kubernetes pod, identified by its service account.
    Kubernetes,
    /// A job of Buildkite.
    Buildkite,
    /// A workload with a SPIFFE JWT-SVID.
    Spiffe,
    /// Any other issuer of JWTs.
    Generic,
}

/// How often an assertion may be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Once. The assertion must have a `jti`.
    Once,
    /// Any number of times until the assertion expires.
    Reusable,
}

/// How a required claim must be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// By `equals`, with any value.
    Equals,
    /// By `equals`, with exactly this value.
    EqualsTo(&'static str),
    /// By `equals`, with a value that starts with this text.
    EqualsBelow(&'static str),
    /// By `equals` or `prefix`, but the prefix must not match all branches.
    Ref,
    /// Like [`Self::Ref`], but for the part of the value after the last `@`, which must not be
    /// empty.
    AtRef,
}

/// A claim, and how a rule must compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Names of the members that lead to the claim, the outermost first.
    pub path: &'static [&'static str],
    /// How the claim must be compared.
    pub pinned: Pinned,
}

/// What a rule set must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredClaims {
    /// Alternative sets of claims. The rule set must contain all claims of at least one set.
    pub any_of: &'static [&'static [Claim]],
    /// Why the claims are required, as a clause that follows "because".
    pub reason: &'static str,
}

const fn claim(path: &'static [&'static str], pinned: Pinned) -> Claim {
    Claim { path, pinned }
}

const fn id(path: &'static [&'static str]) -> Claim {
    claim(path, Pinned::Equals)
}

const GITHUB_REF: Claim = claim(&["ref"], Pinned::Ref);

const GITHUB: &[RequiredClaims] = &[
    RequiredClaims {
        any_of: &[&[id(&["repository_id"])]],
        reason: "the name of a repository can pass to somebody else, its id cannot",
    },
    RequiredClaims {
        any_of: &[&[id(&["repository_owner_id"])]],
        reason: "the name of an account can pass to somebody else, and a repository can be \
                 transferred",
    },
    RequiredClaims {
        any_of: &[
            &[id(&["environment"])],
            &[GITHUB_REF, claim(&["workflow_ref"], Pinned::AtRef)],
            &[GITHUB_REF, claim(&["job_workflow_ref"], Pinned::AtRef)],
        ],
        reason: "without them, every workflow on every branch of the repository could exchange",
    },
];
const GITLAB: &[RequiredClaims] = &[
    RequiredClaims {
        any_of: &[&[id(&["project_id"])]],
        reason: "the path of a project can pass to somebody else, its id cannot",
    },
    RequiredClaims {
        any_of: &[&[id(&["namespace_id"])]],
        reason: "the path of a group can pass to somebody else, and a project can be transferred",
    },
    RequiredClaims {
        any_of: &[
            &[claim(&["ref_protected"], Pinned::EqualsTo("true"))],
            &[claim(&["environment_protected"], Pinned::EqualsTo("true"))],
        ],
        reason: "without it, everybody who can push a branch of the project could exchange",
    },
];
const KUBERNETES: &[RequiredClaims] = &[
    RequiredClaims {
        any_of: &[&[id(&["kubernetes.io", "namespace"])]],
        reason: "service accounts of other namespaces can have the same name",
    },
    RequiredClaims {
        any_of: &[&[id(&["kubernetes.io", "serviceaccount", "uid"])]],
        reason: "a service account that is deleted and created again has the same name, but \
                 another uid",
    },
];
const BUILDKITE: &[RequiredClaims] = &[
    RequiredClaims {
        any_of: &[&[id(&["organization_id"])]],
        reason: "the slug of an organization can pass to somebody else, its id cannot",
    },
    RequiredClaims {
        any_of: &[&[id(&["pipeline_id"])]],
        reason: "the slug of a pipeline can be used again, its id cannot",
    },
];
const SPIFFE: &[RequiredClaims] = &[RequiredClaims {
    any_of: &[&[claim(&["sub"], Pinned::EqualsBelow("spiffe://"))]],
    reason: "the SPIFFE id is the identity of the workload, and a part of it names many workloads",
}];
const GENERIC: &[RequiredClaims] = &[RequiredClaims {
    any_of: &[&[id(&["sub"])]],
    reason: "the subject is the only claim that identifies a caller at every issuer",
}];

/// The GitHub events that can involve code or text of an outsider. Checks and statuses are among them,
/// because commits of a fork have them, and so are changes of the wiki. Assertions of workflows that
/// such an event started are refused unless a rule compares `event_name`.
const OUTSIDE_EVENTS: [&str; 15] = [
    "pull_request",
    "pull_request_target",
    "pull_request_review",
    "pull_request_review_comment",
    "workflow_run",
    "issue_comment",
    "issues",
    "discussion",
    "discussion_comment",
    "fork",
    "watch",
    "gollum",
    "check_run",
    "check_suite",
    "status",
];

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 6] = [
        Self::GithubActions,
        Self::GitlabCi,
        Self::Kubernetes,
        Self::Buildkite,
        Self::Spiffe,
        Self::Generic,
    ];

    /// Returns the name in the issuers file and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GithubActions => "github-actions",
            Self::GitlabCi => "gitlab-ci",
            Self::Kubernetes => "kubernetes",
            Self::Buildkite => "buildkite",
            Self::Spiffe => "spiffe",
            Self::Generic => "generic",
        }
    }

    /// Returns the provider with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Returns how often an assertion may be exchanged by default. With Kubernetes and SPIFFE, a
    /// workload gets the same assertion repeatedly, so it must be reusable.
    #[must_use]
    pub const fn default_replay(self) -> Replay {
        match self {
            Self::Kubernetes | Self::Spiffe => Replay::Reusable,
            Self::GithubActions | Self::GitlabCi | Self::Buildkite | Self::Generic => Replay::Once,
        }
    }

    /// Returns what a rule set must contain.
    #[must_use]
    pub const fn required(self) -> &'static [RequiredClaims] {
        match self {
            Self::GithubActions => GITHUB,
            Self::GitlabCi => GITLAB,
            Self::Kubernetes => KUBERNETES,
            Self::Buildkite => BUILDKITE,
            Self::Spiffe => SPIFFE,
            Self::Generic => GENERIC,
        }
    }

    /// Returns whether this claim is an id, which a rule may compare only by `equals`.
    #[must_use]
    pub fn is_id(self, path: &[String]) -> bool {
        let claims = self.required().iter().flat_map(|required| required.any_of);
        let mut claims = claims.flat_map(|claims| claims.iter());
        claims.any(|claim| !claim.pinned.admits_prefix() && claim.is_at(path))
    }

    /// Returns whether an assertion with this event is refused unless a rule compares
    /// `event_name`.
    #[must_use]
    pub fn is_outside_event(self, event: &str) -> bool {
        self == Self::GithubActions && OUTSIDE_EVENTS.contains(&event)
    }

    /// Returns an example of a rule set that is valid for the provider.
    #[must_use]
    pub fn example(self) -> Vec<ClaimRule> {
        let rules: &[(&[&str], &str)] = match self {
            Self::GithubActions => &[
                (&["repository_id"], "123456789"),
                (&["repository_owner_id"], "987654"),
                (&["environment"], "production"),
            ],
            Self::GitlabCi => &[
                (&["project_id"], "22"),
                (&["namespace_id"], "72"),
                (&["ref_protected"], "true"),
            ],
            Self::Kubernetes => &[
                (&["kubernetes.io", "namespace"], "cms"),
                (
                    &["kubernetes.io", "serviceaccount", "uid"],
                    "3c2b6f0e-7b1d-4f4e-9f0a-5d2f3a1b4c5d",
                ),
            ],
            Self::Buildkite => &[
                (&["organization_id"], "0184990a-477b-4fa8-9968-496074483cee"),
                (&["pipeline_id"], "0184990a-4782-42b5-afc1-16715b10b8ff"),
            ],
            Self::Spiffe => &[(&["sub"], "spiffe://example.org/ns/cms/sa/publisher")],
            Self::Generic => &[(&["sub"], "publisher")],
        };
        let rule = |(path, value): &(&[&str], &str)| ClaimRule {
            path: path.iter().map(|name| (*name).to_owned()).collect(),
            matches: ClaimMatch::Equals((*value).to_owned()),
        };
        rules.iter().map(rule).collect()
    }
}

impl Replay {
    /// Returns the name in the issuers file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Reusable => "reusable",
        }
    }

    /// Returns the value with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Once, Self::Reusable];
        all.into_iter().find(|known| known.name() == name)
    }
}

impl Claim {
    /// Returns whether this is the claim at the path.
    #[must_use]
    pub fn is_at(&self, path: &[String]) -> bool {
        self.path.len() == path.len() && self.path.iter().zip(path).all(|(one, two)| one == two)
    }
}

impl Pinned {
    pub(super) const fn admits_prefix(self) -> bool {
        matches!(self, Self::Ref | Self::AtRef)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_and_replay_rules_have_the_names_of_the_issuers_file() {
        let names = Provider::ALL.map(Provider::name);
        let expected = [
            "github-actions",
            "gitlab-ci",
            "kubernetes",
            "buildkite",
            "spiffe",
            "generic",
        ];
        assert_eq!(names, expected);
        for provider in Provider::ALL {
            assert_eq!(Provider::from_name(provider.name()), Some(provider));
        }
        assert_eq!(Provider::from_name("github"), None);
        assert_eq!(Replay::from_name("once"), Some(Replay::Once));
        assert_eq!(Replay::from_name("reusable"), Some(Replay::Reusable));
        assert_eq!(Replay::from_name("twice"), None);
    }

    #[test]
    fn assertions_are_exchanged_once_except_where_they_are_reused_by_design() {
        for provider in Provider::ALL {
            let reused = [Provider::Kubernetes, Provider::Spiffe].contains(&provider);
            let once = provider.default_replay() == Replay::Once;
            assert_eq!(once, !reused, "{provider:?}");
        }
    }
}
