//! Compares the claims of a workload with the rules of a token. In case of doubt, a claim does not
//! match.

use serde_json::{Map, Value};

use super::{ClaimMatch, ClaimRule, provider::Provider};

/// The claim in which GitHub states the event that started a workflow.
const EVENT: &str = "event_name";

/// The result of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: ClaimRule,
    /// The claim as text. `None` if the claim is absent or of a type that no rule matches.
    pub presented: Option<String>,
    /// Whether the claim matches the rule.
    pub matched: bool,
}

/// The result of all rules of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The result of each rule, in the order of the token.
    pub outcomes: Vec<RuleOutcome>,
    /// The GitHub event because of which the workload is refused, although no rule compares it.
    /// Empty if the claim is missing.
    pub refused_event: Option<String>,
}

impl Evaluation {
    /// Returns whether the rules admit the workload. There must be at least one rule, and all rules
    /// must match.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.refused_event.is_none()
            && !self.outcomes.is_empty()
            && self.outcomes.iter().all(|outcome| outcome.matched)
    }
}

/// Compares claims with rules.
#[must_use]
pub fn evaluate(
    provider: Provider,
    rules: &[ClaimRule],
    claims: &Map<String, Value>,
) -> Evaluation {
    let outcomes = rules.iter().map(|rule| {
        let presented = text_at(claims, &rule.path);
        let matched = presented
            .as_deref()
            .is_some_and(|text| rule.matches.covers(text));
        RuleOutcome {
            rule: rule.clone(),
            presented,
            matched,
        }
    });
    Evaluation {
        outcomes: outcomes.collect(),
        refused_event: refused_event(provider, rules, claims),
    }
}

/// Returns the event if it is one for which a GitHub workload is refused and no rule compares the
/// claim. Returns an empty string if the claim is missing, because GitHub always sets it.
fn refused_event(
    provider: Provider,
    rules: &[ClaimRule],
    claims: &Map<String, Value>,
) -> Option<String> {
    let is_named = rules.iter().any(|rule| rule.path == [EVENT]);
    if provider != Provider::GithubActions || is_named {
        return None;
    }
    match claims.get(EVENT).and_then(Value::as_str) {
        Some(event) => provider.is_outside_event(event).then(|| event.to_owned()),
        None => Some(String::new()),
    }
}

/// Returns the claim at a path as text. The path can lead only through objects. Returns `None` for
/// a claim that is absent, or is an object, an array, a fraction or `null`.
#[must_use]
pub fn text_at(claims: &Map<String, Value>, path: &[String]) -> Option<String> {
    let (first, within) = path.split_first()?;
    let mut value = claims.get(first)?;
    for name in within {
        value = value.as_object()?.get(name)?;
    }
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

impl ClaimMatch {
    /// Returns whether a text matches. Compares code points, so letter case matters and
    /// look-alike characters differ.
    #[must_use]
    pub fn covers(&self, text: &str) -> bool {
        match self {
            Self::Equals(value) => text == value,
            // The text must continue after the prefix.
            Self::Prefix(start) => text
                .strip_prefix(start.as_str())
                .is_some_and(|rest| !start.is_empty() && !rest.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Map<String, Value> {
        let claims = json!({
            "repository_id": "74", "run": 18_446_744_073_709_551_615_u64, "minus": -1,
            "protected": true, "rate": 1.5, "one": 1.0, "none": null, "list": ["74"],
            "object": {"74": "74"}, "repository": "org/app", "evil": "org/app-evil",
            "event_name": "push", "under": "org/app/x", "slash": "org/app/",
            "kubernetes.io": {"namespace": "cms", "serviceaccount": {"uid": "u1"}},
        });
        claims.as_object().unwrap().clone()
    }

    fn rule(path: &[&str], matches: ClaimMatch) -> ClaimRule {
        ClaimRule {
            path: path.iter().map(|name| (*name).to_owned()).collect(),
            matches,
        }
    }

    fn equals(value: &str) -> ClaimMatch {
        ClaimMatch::Equals(value.to_owned())
    }

    fn prefix(value: &str) -> ClaimMatch {
        ClaimMatch::Prefix(value.to_owned())
    }

    #[test]
    fn plain_values_are_compared_by_their_text_and_others_match_nothing() {
        for (path, matches, expected) in [
            (&["repository_id"][..], equals("74"), true),
            (&["repository_id"], equals("74 "), false),
            (&["repository_id"], equals("074"), false),
            (&["run"], equals("18446744073709551615"), true),
            (&["minus"], equals("-1"), true),
            (&["protected"], equals("true"), true),
            (&["protected"], equals("True"), false),
            (&["rate"], equals("1.5"), false),
            (&["one"], equals("1"), false),
            (&["one"], equals("1.0"), false),
            (&["none"], equals("null"), false),
            (&["list"], equals("74"), false),
            (&["list"], equals("[\"74\"]"), false),
            (&["list", "0"], equals("74"), false),
            (&["object"], equals("74"), false),
            (&["object", "74"], equals("74"), true),
            (&["absent"], equals(""), false),
            (&["kubernetes.io", "namespace"], equals("cms"), true),
            (&["kubernetes", "io", "namespace"], equals("cms"), false),
            (&["kubernetes.io.namespace"], equals("cms"), false),
            (
                &["kubernetes.io", "serviceaccount", "uid"],
                equals("u1"),
                true,
            ),
            (&["kubernetes.io", "serviceaccount"], equals("u1"), false),
            (&["repository_id", "x"], equals("74"), false),
            (&[], equals(""), false),
            (&["repository"], equals("Org/App"), false),
            (&["repository"], equals("org/\u{430}pp"), false),
            (&["under"], prefix("org/app/"), true),
            (&["slash"], prefix("org/app/"), false),
            (&["evil"], prefix("org/app/"), false),
            (&["repository"], prefix("org/app/"), false),
            (&["repository"], prefix(""), false),
        ] {
            let rules = [rule(path, matches.clone())];
            let evaluation = evaluate(Provider::Generic, &rules, &claims());
            assert_eq!(evaluation.admits(), expected, "{path:?} {matches:?}");
            assert_eq!(evaluation.outcomes[0].matched, expected, "{path:?}");
        }
    }

    #[test]
    fn all_rules_must_match_and_there_must_be_one() {
        let good = rule(&["repository_id"], equals("74"));
        let bad = rule(&["protected"], equals("false"));
        let admits = |rules: &[ClaimRule]| evaluate(Provider::Generic, rules, &claims()).admits();
        assert!(admits(std::slice::from_ref(&good)));
        assert!(!admits(&[good.clone(), bad.clone()]));
        assert!(!admits(&[bad, good]));
        assert!(!admits(&[]));
    }

    #[test]
    fn events_with_outsiders_are_refused_unless_a_rule_names_the_event() {
        let ids = rule(&["repository_id"], equals("74"));
        for (event, refused) in [
            (json!("push"), None),
            (json!("workflow_dispatch"), None),
            (json!("pull_request"), Some("pull_request")),
            (json!("pull_request_target"), Some("pull_request_target")),
            (json!("workflow_run"), Some("workflow_run")),
            (json!("issue_comment"), Some("issue_comment")),
            (json!("issues"), Some("issues")),
            (json!("discussion_comment"), Some("discussion_comment")),
            (json!("watch"), Some("watch")),
            (json!("gollum"), Some("gollum")),
            (json!("check_suite"), Some("check_suite")),
            (json!("status"), Some("status")),
            (json!(["push"]), Some("")),
            (Value::Null, Some("")),
        ] {
            let mut claims = claims();
            claims.insert("event_name".to_owned(), event.clone());
            let rules = [ids.clone()];
            let found = evaluate(Provider::GithubActions, &rules, &claims);
            assert_eq!(found.refused_event.as_deref(), refused, "{event}");
            assert_eq!(found.admits(), refused.is_none(), "{event}");
            assert!(evaluate(Provider::Generic, &rules, &claims).admits());
            let name = event.as_str().unwrap_or("push");
            let named = [ids.clone(), rule(&["event_name"], equals(name))];
            let found = evaluate(Provider::GithubActions, &named, &claims);
            assert_eq!(found.admits(), event.is_string(), "{event}");
        }
    }
}
