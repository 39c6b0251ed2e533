//! Tests what the issuers file may contain, and that each violation is reported as one clear line.

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

/// Returns the error for the valid file in which the line of this key is replaced.
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
    // The printed form omits the query, which may contain a secret.
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
        with("required", "required = []"),
        with("required", "required = \"a\""),
        with("required", "required = [\"a\"]"),
        with("required", "required = [{ value = \"a\" }]"),
        with("required", "required = [{ path = \"a.b\", value = \"c\" }]"),
        with("required", "required = [{ path = [], value = \"c\" }]"),
        with(
            "required",
            "required = [{ path = [\"a\", \"\"], value = \"c\" }]",
        ),
        with("required", "required = [{ path = [\"a\"] }]"),
        with(
            "required",
            "required = [{ path = [\"a\"], value = 1 }, { path = [\"a\"], value = [\"b\"] }]",
        ),
        with(
            "required",
            "required = [{ path = [\"a\"], value = \"b\", equals = \"b\" }]",
        ),
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
    unknown key `mlts`: the file has [[issuers]] and [[mtls]] entries only, remove it
    issuers entry 1, `issuer` is required: set it to a string
    issuers entry 1, `issuer` begins or ends with a space: remove it
    issuers entry 1, `issuer` is reserved for callers without a JWT: use the issuer's URL
    issuers entry 1, `audience` is required: set it to a string
    issuers entry 1, `audience` must be a non-empty string
    issuers entry 1, `audience` must be a non-empty string
    issuers entry 1, `audiences` is unknown: the keys are issuer, audience, jwks_url, jwks_file, jwks_ca, algorithms, caller, required, subjects, jwks_token_file, name, provider, stacks, replay
    issuers entry 1, `jwks_url` and `jwks_file` are both absent: give exactly one of them
    issuers entry 1, `jwks_url` and `jwks_file` are both given: keep exactly one of them
    issuers entry 1, `jwks_url` must be https (http only to a loopback host): change the scheme
    issuers entry 1, `jwks_url` names no host: write a full URL such as https://login.example.com/keys
    issuers entry 1, `jwks_url` is not a URL: write one such as https://login.example.com/keys
    issuers entry 1, `jwks_url` contains a user name or password: remove it, because key sets are public
    issuers entry 1, `jwks_ca` is for an https jwks_url: remove it
    issuers entry 1, `jwks_ca` is for an https jwks_url: remove it
    issuers entry 1, `algorithms` is required: list at least one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` is required: list at least one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` must be a list of strings, as in ["a", "b"]
    issuers entry 1, `algorithms` contains "HS256", which is not supported: use only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `algorithms` contains "none", which is not supported: use only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    issuers entry 1, `caller` is required: set it to a string
    issuers entry 1, `caller` is not a kind of caller: write user, service, operator or workload
    issuers entry 1, `subjects` is only for caller = "service": remove it
    issuers entry 1, `required` must hold claims, as in { groups = "cms-operators" } or [{ path = ["realm_access", "roles"], value = "cms-operators" }]
    issuers entry 1, `required` gives `groups` no plain value: use one text, or for a claim inside it [{ path = ["groups", "..."], value = "..." }]
    issuers entry 1, `required` must hold claims, as in { groups = "cms-operators" } or [{ path = ["realm_access", "roles"], value = "cms-operators" }]
    issuers entry 1, `required` must hold claims, as in { groups = "cms-operators" } or [{ path = ["realm_access", "roles"], value = "cms-operators" }]
    issuers entry 1, `required` item 1 is not a table: write { path = ["realm_access", "roles"], value = "cms-operators" }
    issuers entry 1, `required` item 1 needs a `path` of 1 to 8 names, one for each level, as in ["realm_access", "roles"]
    issuers entry 1, `required` item 1 needs a `path` of 1 to 8 names, one for each level, as in ["realm_access", "roles"]
    issuers entry 1, `required` item 1 needs a `path` of 1 to 8 names, one for each level, as in ["realm_access", "roles"]
    issuers entry 1, `required` item 1 needs a `path` of 1 to 8 names, one for each level, as in ["realm_access", "roles"]
    issuers entry 1, `required` item 1 needs a `value`: use one string
    issuers entry 1, `required` item 2 needs a `value`: use one string
    issuers entry 1, `required` item 1 has the unknown key `equals`: the keys are path, value
    issuers entry 1, `subjects` contains "a*b": write a subject, with `*` only at its end
    issuers entry 1, `subjects` contains "**": write a subject, with `*` only at its end
    issuers entry 1, `subjects` contains "": write a subject, with `*` only at its end
    issuers entry 1, `subjects` must be a list of strings, as in ["a", "b"]
    issuers entry 2, `caller` is required: set it to a string
    "#);
}

/// Returns the required claims of the valid file with this line in place of its `required` line.
fn required(line: &str) -> Vec<(Vec<String>, String)> {
    let lines = GOOD.lines().map(|old| match old.starts_with("required") {
        true => line,
        false => old,
    });
    let file = lines.collect::<Vec<_>>().join("\n");
    let entry = parse(&file, Path::new("")).unwrap().issuers.remove(0);
    let claims = entry.required.into_iter();
    claims.map(|claim| (claim.path, claim.value)).collect()
}

#[test]
fn a_key_of_the_table_is_one_claim_and_a_path_has_one_name_for_each_level() {
    let claim = |path: &[&str], value: &str| {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        (path, value.to_owned())
    };
    let table = r#"required = { "realm_access.roles" = "a", "https://x.example/roles" = 7 }"#;
    let mut parsed = required(table);
    parsed.sort();
    assert_eq!(
        parsed,
        [
            claim(&["https://x.example/roles"], "7"),
            claim(&["realm_access.roles"], "a"),
        ]
    );
    let list = r#"required = [{ path = ["realm_access", "roles"], value = "a" },
        { path = ["kubernetes.io", "namespace"], value = true }]"#;
    assert_eq!(
        required(list),
        [
            claim(&["realm_access", "roles"], "a"),
            claim(&["kubernetes.io", "namespace"], "true"),
        ]
    );
    // TOML parses a bare key with a dot as a nested table. The error names both ways to correct it.
    let dotted = with("required", "required = { realm_access.roles = \"a\" }");
    assert!(
        dotted.contains(r#"[{ path = ["realm_access", "..."]"#),
        "{dotted}"
    );
}

#[test]
fn every_entry_on_the_page_of_identity_providers_is_parsed() {
    let page = include_str!("../../docs/identity-providers.md");
    let blocks = page.split("```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
    let mut parsed = Vec::new();
    for block in blocks {
        let entries = parse(block, Path::new("/etc/stacktoken"));
        let entries = entries.unwrap_or_else(|fault| panic!("{fault}\n{block}"));
        parsed.push(entries.issuers.len());
        // The entry without required claims must come last, because it would match before any later
        // entry.
        let is_open = |entry: &stacktoken::auth::IssuerEntry| entry.required.is_empty();
        let open = entries.issuers.iter().position(is_open).unwrap();
        assert_eq!(open, entries.issuers.len() - 1, "{block}");
    }
    assert_eq!(parsed, [3, 2, 3, 3, 1]);
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
    // Host names are case-insensitive, so the name is stored in lower case.
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
    mtls entry 1, `identity` is required: set it to a string
    mtls entry 1, `caller` is required: set it to a string
    mtls entry 1, `caller` is not a kind of caller: write service or operator
    mtls entry 1, `introspect` is only for caller = "service": remove it
    mtls entry 1, `introspect` must be true or false, without quotes
    mtls entry 1, `subjects` is unknown: the keys are identity, caller, introspect
    "#);
}
