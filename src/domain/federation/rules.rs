//! Checks a rule set against the requirements of its provider. Refuses a rule set that could admit
//! unintended workloads, and states which claim is missing and why it is required.

use std::{collections::HashSet, time::Duration};

use super::{
    ClaimMatch, ClaimRule, Federation,
    provider::{Claim, Pinned, Provider, RequiredClaims},
};
use crate::domain::{
    field::{Problem, Violations},
    text,
};

/// Lower bound of a token's maximum session lifetime.
pub const MIN_SESSION_FOR: Duration = Duration::from_mins(1);
/// Upper bound of a token's maximum session lifetime.
pub const MAX_SESSION_FOR: Duration = Duration::from_hours(1);
/// Maximum session lifetime of a token that does not set it.
pub const DEFAULT_SESSION_FOR: Duration = Duration::from_mins(15);
/// Maximum number of rules of a token.
pub const MAX_RULES: usize = 20;
/// Maximum number of names in the path of a rule.
const MAX_DEPTH: usize = 8;
/// Maximum length of a name in a path, in characters.
const MAX_NAME_CHARS: usize = 128;
/// Maximum length of the value of a rule, in characters. The `sub` of a workload is never longer.
const MAX_VALUE_CHARS: usize = 1024;
/// The characters with which a prefix must end. A prefix that ends inside a name would also match
/// longer names.
const ENDS: [char; 3] = ['/', ':', '@'];
/// Prefixes that match every branch.
const EVERY_BRANCH: [&str; 2] = ["refs/", "refs/heads/"];

/// Checks a maximum session lifetime.
///
/// # Errors
/// Returns a [`Problem`] that states the permitted range if the lifetime is outside of it.
pub fn check_session_for(session_for: Duration) -> Result<Duration, Problem> {
    if (MIN_SESSION_FOR..=MAX_SESSION_FOR).contains(&session_for) {
        return Ok(session_for);
    }
    Err(Problem::new(
        "must be between 1 minute and 1 hour: a session is short because nobody revokes it, and a \
         workload can exchange again",
    ))
}

impl Federation {
    /// Checks the claim rules against the requirements of the issuer's provider, and the maximum
    /// session lifetime. The field paths in the result are relative to `federation`.
    ///
    /// # Errors
    /// Returns a fault for each rule that is wrong and for each claim that is missing.
    pub fn check(&self, provider: Provider) -> Result<(), Violations> {
        let mut faults = Violations::default();
        if self.rules.len() > MAX_RULES {
            let problem = format!("has {} rules: give at most {MAX_RULES}", self.rules.len());
            faults.add("rules", Problem::new(problem));
            return Err(faults);
        }
        let mut paths = HashSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let field = format!("rules[{index}]");
            faults.nest(&field, rule.check(provider));
            if !paths.insert(&rule.path) {
                let problem =
                    "is the path of another rule: keep one of them, because all must match";
                faults.add(format!("{field}.path"), Problem::new(problem));
            }
        }
        // Required rules are looked for only if no rule is wrong, because a wrong rule may be meant
        // as the required one. Two errors about the same rule would be confusing.
        if faults.is_empty() {
            for required in provider.required() {
                if let Some(problem) = missing(provider, required, &self.rules) {
                    faults.add("rules", problem);
                }
            }
        }
        faults.keep("session_for", check_session_for(self.session_for));
        faults.finish(Some(()))
    }
}

impl ClaimRule {
    /// Checks the form of a rule.
    fn check(&self, provider: Provider) -> Result<(), Violations> {
        let mut faults = Violations::default();
        faults.keep("path", check_path(&self.path));
        match &self.matches {
            ClaimMatch::Equals(value) => faults.keep("equals", check_value(value)),
            ClaimMatch::Prefix(value) => faults.keep("prefix", self.check_prefix(provider, value)),
        };
        faults.finish(Some(()))
    }

    fn check_prefix(&self, provider: Provider, value: &str) -> Result<(), Problem> {
        if value.is_empty() {
            return Err(Problem::new(
                "is empty and would match every value: name what the claim must start with, or use \
                 equals",
            ));
        }
        if provider.is_id(&self.path) {
            let problem = format!(
                "is not accepted for {}, which is compared only as a whole: use equals",
                shown(&self.path)
            );
            return Err(Problem::new(problem));
        }
        check_value(value)?;
        if value.ends_with(ENDS) {
            return Ok(());
        }
        Err(Problem::new(
            "must end in /, : or @, otherwise it also matches longer names, as org/app matches \
             org/app-evil: end it so, or use equals",
        ))
    }
}

fn check_path(path: &[String]) -> Result<(), Problem> {
    let is_name = |name: &String| {
        (1..=MAX_NAME_CHARS).contains(&name.chars().count())
            && !name.chars().any(text::is_unprintable)
            && !text::holds_credential(name)
    };
    if (1..=MAX_DEPTH).contains(&path.len()) && path.iter().all(is_name) {
        return Ok(());
    }
    Err(Problem::new(
        "must have 1 to 8 names of claims, one for each level, as in [\"repository_id\"] or \
         [\"kubernetes.io\", \"namespace\"]",
    ))
}

fn check_value(value: &str) -> Result<(), Problem> {
    let problem = if value.is_empty() {
        "is empty: give the value that the claim must have"
    } else if value.chars().count() > MAX_VALUE_CHARS {
        "is longer than 1024 characters: no claim of a provider is that long"
    } else if text::holds_credential(value) {
        "contains a credential: give the value of a claim"
    } else if value.chars().any(text::is_unprintable) {
        "contains a character that does not print: remove it"
    } else if value.contains('*') {
        "contains *, which has no special meaning and matches only itself: use prefix, ending in \
         /, : or @"
    } else {
        return Ok(());
    };
    Err(Problem::new(problem))
}

/// Returns a problem if the rules do not contain all claims of any of the alternative sets.
fn missing(provider: Provider, required: &RequiredClaims, rules: &[ClaimRule]) -> Option<Problem> {
    let has = |claim: &Claim| rules.iter().any(|rule| claim.is_pinned_by(rule));
    if required.any_of.iter().any(|set| set.iter().all(has)) {
        return None;
    }
    let sets = required.any_of.iter().map(|set| {
        let claims: Vec<_> = set.iter().map(Claim::described).collect();
        claims.join(" together with ")
    });
    let sets: Vec<_> = sets.collect();
    Some(Problem::new(format!(
        "must pin {}: {} requires it, because {}",
        sets.join(", or "),
        provider.name(),
        required.reason
    )))
}

impl Claim {
    fn is_pinned_by(&self, rule: &ClaimRule) -> bool {
        self.is_at(&rule.path)
            && match (&rule.matches, self.pinned) {
                (ClaimMatch::Equals(_), Pinned::Equals | Pinned::Ref) => true,
                (ClaimMatch::Equals(value), Pinned::EqualsTo(only)) => value == only,
                (ClaimMatch::Equals(value), Pinned::EqualsBelow(start)) => {
                    value.len() > start.len() && value.starts_with(start)
                }
                (ClaimMatch::Prefix(start), Pinned::Ref) => !EVERY_BRANCH.contains(&start.as_str()),
                (ClaimMatch::Equals(value), Pinned::AtRef) => {
                    after_at(value).is_some_and(|name| !name.is_empty())
                }
                (ClaimMatch::Prefix(start), Pinned::AtRef) => after_at(start)
                    .is_some_and(|name| !name.is_empty() && !EVERY_BRANCH.contains(&name)),
                (ClaimMatch::Prefix(_), _) => false,
            }
    }

    fn described(&self) -> String {
        let name = self.path.join(".");
        match self.pinned {
            Pinned::Equals => format!("{name} by equals"),
            Pinned::EqualsTo(value) => format!("{name} by equals {value}"),
            Pinned::EqualsBelow(start) => format!("the whole {name} ({start}...) by equals"),
            Pinned::Ref => format!("{name} (more than all branches)"),
            Pinned::AtRef => format!("{name} with its @ref"),
        }
    }
}

/// Returns the part of the value after the last `@`.
fn after_at(value: &str) -> Option<&str> {
    value.rsplit_once('@').map(|(_, name)| name)
}

/// Returns a path in dotted form, for messages.
pub(super) fn shown(path: &[String]) -> String {
    path.join(".")
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
