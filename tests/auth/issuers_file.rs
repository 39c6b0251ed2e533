//! The issuers file: what it may say, and one clear line for each thing that it may not.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use stacktoken::auth::{Algorithm, KeySource, SubjectPattern, parse};

const GOOD: &str = r#"
[[issuers]]
issuer     = "https://login.example.com"
audience   = "stacktoken"
jwks_url   = "https://login.example.com/keys?tenant=7"
algorithms = ["RS256", "ES256"]
caller     = "service"
required   = { groups = "cms", verified = true }
subjects   = ["system:serviceaccount:cms:*", "gateway"]
"#;

fn fault(file: &str) -> String {
    let fault = parse(file, Path::new("/etc/stacktoken"))
        .unwrap_err()
        .to_string();
    assert_eq!(fault.lines().count(), 1, "{fault}");
    fault
}

/// The fault of a good file in which one line is replaced.
fn with(key: &str, line: &str) -> String {
    let lines = GOOD
        .lines()
        .map(|old| if old.starts_with(key) { line } else { old });
    fault(&lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn good_file_is_read() {
    let entries = parse(GOOD, Path::new("/etc/stacktoken")).unwrap();
    let entry = &entries.issuers[0];
    assert_eq!(entry.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert_eq!(entry.required.len(), 2);
    assert_eq!(
        entry.subjects,
        [
            SubjectPattern::Prefix("system:serviceaccount:cms:".to_owned()),
            SubjectPattern::Exact("gateway".to_owned()),
        ]
    );
    // Its query may hold a secret.
    assert_eq!(entry.source.to_string(), "https://login.example.com/keys");
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let source = |line: &str| {
        let file = GOOD.replace(
            r#"jwks_url   = "https://login.example.com/keys?tenant=7""#,
            line,
        );
        parse(&file, Path::new("/etc/stacktoken"))
            .unwrap()
            .issuers
            .remove(0)
            .source
    };
    let file = |path: &str| KeySource::File(PathBuf::from(path));
    assert_eq!(
        source(r#"jwks_file = "keys.json""#),
        file("/etc/stacktoken/keys.json")
    );
    assert_eq!(
        source(r#"jwks_file = "/run/keys.json""#),
        file("/run/keys.json")
    );
    let own = source("jwks_url = \"https://a.example/k\"\njwks_ca = \"ca.pem\"");
    assert!(
        matches!(own, KeySource::Url { ca: Some(ca), .. } if ca == Path::new("/etc/stacktoken/ca.pem"))
    );
}

#[test]
fn plain_http_is_for_this_host_only() {
    for host in [
        "localhost:1",
        "LOCALHOST",
        "127.0.0.1:8080",
        "127.8.9.1",
        "[::1]:80",
    ] {
        let file = GOOD.replace(
            "https://login.example.com/keys",
            &format!("http://{host}/keys"),
        );
        assert!(parse(&file, Path::new("")).is_ok(), "{host}");
    }
    for host in [
        "login.example.com",
        "localhost.example.com",
        "128.0.0.1",
        "[::2]",
        "10.0.0.1",
    ] {
        let line = format!(r#"jwks_url = "http://{host}/keys""#);
        let expected = "issuers entry 1, `jwks_url` must be https (http only to a loopback host): change the scheme";
        assert_eq!(with("jwks_url", &line), expected, "{host}");
    }
}

#[test]
fn faults_name_the_entry_the_key_and_the_remedy() {
    let second = format!("{GOOD}\n[[issuers]]\nissuer = \"a\"");
    let faults = [
        fault(""),
        fault("issuers = []"),
        fault("issuers = 1"),
        fault("issuers = [1]"),
        fault("\n[[issuers]"),
        fault("[[mlts]]\nidentity = \"a\""),
        with("issuer ", ""),
        with("issuer ", "issuer = \" x\""),
        with("issuer ", "issuer = \"mtls\""),
        with("audience", ""),
        with("audience", "audience = \"\""),
        with("audience", "audience = 7"),
        with("audience", "audiences = [\"a\"]"),
        with("jwks_url", ""),
        with("audience", "audience = \"a\"\njwks_file = \"a\""),
        with("jwks_url", "jwks_url = \"ftp://a/b\""),
        with("jwks_url", "jwks_url = \"/keys\""),
        with("jwks_url", "jwks_url = \"a b\""),
        with("jwks_url", "jwks_url = \"https://user:word@a.example/k\""),
        with(
            "jwks_url",
            "jwks_url = \"http://localhost/k\"\njwks_ca = \"a\"",
        ),
        with("jwks_url", "jwks_file = \"k\"\njwks_ca = \"a\""),
        with("algorithms", ""),
        with("algorithms", "algorithms = []"),
        with("algorithms", "algorithms = \"RS256\""),
        with("algorithms", "algorithms = [\"RS256\", \"HS256\"]"),
        with("algorithms", "algorithms = [\"none\"]"),
        with("caller", ""),
        with("caller", "caller = \"admin\""),
        with("caller", "caller = \"user\""),
        with("required", "required = {}"),
        with("required", "required = { groups = [\"a\"] }"),
        with("subjects", "subjects = [\"a*b\"]"),
        with("subjects", "subjects = [\"**\"]"),
        with("subjects", "subjects = [\"\"]"),
        with("subjects", "subjects = [1]"),
        fault(&second),
    ];
    assert_snapshot!(faults.join("\n"), @r#"
    no [[issuers]] or [[mtls]] entry: add one, or nobody can call
    no [[issuers]] or [[mtls]] entry: add one, or nobody can call
    `issuers` is not a list of tables: write [[issuers]] with two brackets
    issuers entry 1 is not a table: write [[issuers]] above its keys
    line 2 is not TOML: unclosed array table, expected `]`
    unknown key `mlts`: the file holds [[issuers]] and [[mtls]] entries only, remove it
    issuers entry 1, `issuer` is required: give it a text
    issuers entry 1, `issuer` begins or ends with a blank: remove it
    issuers entry 1, `issuer` is what callers known by certificate are recorded under: use the issuer's URL
    issuers entry 1, `audience` is required: give it a text
    issuers entry 1, `audience` must be a text that is not empty
    issuers entry 1, `audience` must be a text that is not empty
    issuers entry 1, `audiences` is unknown: the keys are issuer, audience, jwks_url, jwks_file, jwks_ca, algorithms, caller, required, subjects
    issuers entry 1, `jwks_url` and `jwks_file` are both absent: give exactly one of them
    issuers entry 1, `jwks_url` and `jwks_file` are both given: keep exactly one of them
    issuers entry 1, `jwks_url` must be https (http only to a loopback host): change the scheme
    issuers entry 1, `jwks_url` names no host: write a full URL such as https://login.example.com/keys
    issuers entry 1, `jwks_url` is not a URL: write one such as https://login.example.com/keys
    issuers entry 1, `jwks_url` holds a user name or password: remove it, key sets are public
    issuers entry 1, `jwks_ca` is for an https jwks_url: remove it
    issuers entry 1, `jwks_ca` is for an https jwks_url: remove it
    issuers entry 1, `algorithms` is required: list at least one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` is required: list at least one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` must be a list of texts, as in ["a", "b"]
    issuers entry 1, `algorithms` holds "HS256", which is not taken: use only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` holds "none", which is not taken: use only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `caller` is required: give it a text
    issuers entry 1, `caller` is no kind of caller: write user, service or operator
    issuers entry 1, `subjects` is only for caller = "service": remove it
    issuers entry 1, `required` must hold claims, as in { groups = "cms-operators" }
    issuers entry 1, `required` gives `groups` no plain value: use one text
    issuers entry 1, `subjects` holds "a*b": write a subject, with `*` only at its end
    issuers entry 1, `subjects` holds "**": write a subject, with `*` only at its end
    issuers entry 1, `subjects` holds "": write a subject, with `*` only at its end
    issuers entry 1, `subjects` must be a list of texts, as in ["a", "b"]
    issuers entry 2, `caller` is required: give it a text
    "#);
}

#[test]
fn certificates_are_listed_by_spiffe_id_or_dns_name() {
    let file = r#"
[[mtls]]
identity = "spiffe://example.org/ns/cms/sa/content-api"
caller = "service"
introspect = true
[[mtls]]
identity = "Assets.CMS.svc"
caller = "operator"
"#;
    let entries = parse(file, Path::new("/etc/stacktoken")).unwrap();
    assert!(entries.issuers.is_empty());
    let [service, operator] = entries.certificates.as_slice() else {
        panic!("{entries:?}");
    };
    assert_eq!(
        service.identity,
        "spiffe://example.org/ns/cms/sa/content-api"
    );
    assert!(service.introspects);
    // Names of hosts know no case.
    assert_eq!(operator.identity, "assets.cms.svc");
    assert!(!operator.introspects);
}

#[test]
fn faults_of_certificate_entries_name_the_key_and_the_remedy() {
    let identity = |text: &str| {
        fault(&format!(
            "[[mtls]]\nidentity = \"{text}\"\ncaller = \"service\""
        ))
    };
    for wrong in [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/a/../b",
        "spiffe://Example.org/a",
        "spiffe:///a",
        "spiffe://example.org/*",
        "*.cms.svc",
        "cms..svc",
        "https://example.org",
        "a b",
    ] {
        let expected = "mtls entry 1, `identity` must be one SPIFFE id, as in spiffe://example.org/content-api, or one DNS name without `*`";
        assert_eq!(identity(wrong), expected, "{wrong}");
    }
    let with = |line: &str| fault(&format!("[[mtls]]\nidentity = \"a.svc\"\n{line}"));
    let faults = [
        fault("mtls = 1"),
        fault("[[mtls]]\ncaller = \"service\""),
        with(""),
        with("caller = \"user\""),
        with("caller = \"operator\"\nintrospect = true"),
        with("caller = \"service\"\nintrospect = \"true\""),
        with("caller = \"service\"\nsubjects = [\"a\"]"),
    ];
    assert_snapshot!(faults.join("\n"), @r#"
    `mtls` is not a list of tables: write [[mtls]] with two brackets
    mtls entry 1, `identity` is required: give it a text
    mtls entry 1, `caller` is required: give it a text
    mtls entry 1, `caller` is no kind of caller: write service or operator
    mtls entry 1, `introspect` is only for caller = "service": remove it
    mtls entry 1, `introspect` must be true or false, without quotes
    mtls entry 1, `subjects` is unknown: the keys are identity, caller, introspect
    "#);
}
