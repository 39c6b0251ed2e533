//! Tests which rule sets are accepted.

use super::*;

fn rule(path: &str, matches: ClaimMatch) -> ClaimRule {
    let names = path.split(" > ").map(str::to_owned);
    ClaimRule {
        path: names.collect(),
        matches,
    }
}

fn equals(path: &str, value: &str) -> ClaimRule {
    rule(path, ClaimMatch::Equals(value.to_owned()))
}

fn prefix(path: &str, value: &str) -> ClaimRule {
    rule(path, ClaimMatch::Prefix(value.to_owned()))
}

fn faults_of(provider: Provider, rules: Vec<ClaimRule>) -> Vec<(String, String)> {
    let federation = Federation {
        issuer: "x".to_owned(),
        rules,
        session_for: DEFAULT_SESSION_FOR,
    };
    let Err(faults) = federation.check(provider) else {
        return Vec::new();
    };
    let faults = faults.as_slice().iter();
    faults
        .map(|fault| (fault.field.clone(), fault.problem.to_string()))
        .collect()
}

fn github(more: Vec<ClaimRule>) -> Vec<ClaimRule> {
    let ids = vec![
        equals("repository_id", "1"),
        equals("repository_owner_id", "2"),
    ];
    ids.into_iter().chain(more).collect()
}

#[test]
fn the_example_of_every_provider_is_accepted_and_needs_every_rule() {
    for provider in Provider::ALL {
        let example = provider.example();
        assert_eq!(faults_of(provider, example.clone()), [], "{provider:?}");
        for index in 0..example.len() {
            let mut rules = example.clone();
            let removed = rules.remove(index);
            let faults = faults_of(provider, rules);
            let [(field, problem)] = &faults[..] else {
                panic!("{provider:?} {faults:?}");
            };
            assert_eq!(field, "rules");
            assert!(problem.contains(&shown(&removed.path)), "{problem}");
            assert!(problem.contains(provider.name()), "{problem}");
            assert!(problem.contains("because"), "{problem}");
        }
    }
}

#[test]
fn github_needs_an_environment_or_a_ref_with_a_workflow_at_its_ref() {
    let main = || equals("ref", "refs/heads/main");
    let workflow = "o/r/.github/workflows/deploy.yml";
    let at = |end: &str| format!("{workflow}{end}");
    for (rules, accepted) in [
        (vec![], false),
        (vec![equals("environment", "production")], true),
        (vec![main()], false),
        (vec![equals("workflow_ref", &at("@refs/heads/main"))], false),
        (
            vec![main(), equals("workflow_ref", &at("@refs/heads/main"))],
            true,
        ),
        (
            vec![main(), equals("job_workflow_ref", &at("@refs/tags/v1"))],
            true,
        ),
        (vec![main(), equals("workflow_ref", workflow)], false),
        (vec![main(), equals("workflow_ref", &at("@"))], false),
        (vec![main(), prefix("workflow_ref", &at("@"))], false),
        (vec![main(), prefix("workflow_ref", "o/r/")], false),
        (
            vec![main(), prefix("workflow_ref", &at("@refs/heads/"))],
            false,
        ),
        (
            vec![main(), prefix("workflow_ref", &at("@refs/tags/"))],
            true,
        ),
        (
            vec![
                prefix("ref", "refs/heads/release/"),
                prefix("workflow_ref", &at("@refs/heads/release/")),
            ],
            true,
        ),
        (
            vec![
                prefix("ref", "refs/heads/"),
                equals("workflow_ref", &at("@refs/heads/main")),
            ],
            false,
        ),
        (
            vec![
                prefix("ref", "refs/"),
                equals("workflow_ref", &at("@refs/heads/main")),
            ],
            false,
        ),
    ] {
        let faults = faults_of(Provider::GithubActions, github(rules.clone()));
        assert_eq!(faults.is_empty(), accepted, "{rules:?} {faults:?}");
    }
}

#[test]
fn gitlab_needs_a_protected_ref_or_environment() {
    for (rule, accepted) in [
        (equals("ref_protected", "true"), true),
        (equals("environment_protected", "true"), true),
        (equals("ref_protected", "false"), false),
        (equals("ref_protected", "True"), false),
        (equals("ref", "main"), false),
    ] {
        let rules = vec![equals("project_id", "1"), equals("namespace_id", "2"), rule];
        let faults = faults_of(Provider::GitlabCi, rules.clone());
        assert_eq!(faults.is_empty(), accepted, "{rules:?} {faults:?}");
    }
}

#[test]
fn spiffe_needs_the_whole_id() {
    for (rule, accepted) in [
        (equals("sub", "spiffe://example.org/a"), true),
        (equals("sub", "spiffe://"), false),
        (equals("sub", "example.org/a"), false),
        (prefix("sub", "spiffe://example.org/"), false),
    ] {
        let faults = faults_of(Provider::Spiffe, vec![rule.clone()]);
        assert_eq!(faults.is_empty(), accepted, "{rule:?} {faults:?}");
    }
}

#[test]
fn an_id_is_compared_by_equals_only() {
    for provider in Provider::ALL {
        for required in provider.required() {
            let claims = required.any_of.iter().flat_map(|set| set.iter());
            for claim in claims.filter(|claim| !claim.pinned.admits_prefix()) {
                let rule = prefix(&claim.path.join(" > "), "12/");
                let faults = faults_of(provider, vec![rule]);
                let (field, problem) = &faults[0];
                assert_eq!(field, "rules[0].prefix", "{claim:?}");
                assert!(problem.contains("use equals"), "{problem}");
            }
        }
    }
}

#[test]
fn a_rule_that_could_match_what_nobody_meant_is_refused_at_its_field() {
    let long = "x".repeat(1025);
    let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    for (rule, field, words) in [
        (prefix("workflow", ""), "prefix", "would match every value"),
        (prefix("workflow", "org/app"), "prefix", "org/app-evil"),
        (prefix("workflow", "org/*/"), "prefix", "contains *"),
        (equals("workflow", "*"), "equals", "contains *"),
        (equals("workflow", ""), "equals", "is empty"),
        (equals("workflow", &long), "equals", "1024"),
        (equals("workflow", secret), "equals", "credential"),
        (equals("workflow", "a\u{200b}b"), "equals", "does not print"),
        (equals("", "a"), "path", "1 to 8 names"),
        (
            equals("a > b > c > d > e > f > g > h > i", "a"),
            "path",
            "1 to 8 names",
        ),
        (equals("environment", "other"), "path", "another rule"),
    ] {
        let more = vec![equals("environment", "production"), rule.clone()];
        let faults = faults_of(Provider::GithubActions, github(more));
        let [(found, problem)] = &faults[..] else {
            panic!("{rule:?} {faults:?}");
        };
        assert_eq!(*found, format!("rules[3].{field}"), "{rule:?}");
        assert!(problem.contains(words), "{problem}");
        assert!(!problem.contains("stk1_"), "{problem}");
    }
    let many = (0..21).map(|index| equals(&format!("c{index}"), "x"));
    let faults = faults_of(Provider::Generic, many.collect());
    assert!(faults[0].1.contains("at most 20"), "{faults:?}");
}

#[test]
fn a_session_lives_between_a_minute_and_an_hour() {
    for (seconds, accepted) in [
        (0, false),
        (59, false),
        (60, true),
        (3600, true),
        (3601, false),
    ] {
        let checked = check_session_for(Duration::from_secs(seconds));
        assert_eq!(checked.is_ok(), accepted, "{seconds}");
    }
    assert_eq!(DEFAULT_SESSION_FOR, Duration::from_mins(15));
}
