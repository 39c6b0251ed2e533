//! The claims of a workload, as each platform documents them, with the ids of the pages.

use serde_json::{Value, json};
use stacktoken::domain::federation::Provider;

/// Returns the claims of the workload that the page of this provider trusts. `aud` and `jti` are
/// those of the platform.
pub fn documented(provider: Provider, now: i64) -> Value {
    let mut claims = match provider {
        Provider::GithubActions => github(),
        Provider::GitlabCi => gitlab(),
        Provider::Kubernetes => kubernetes(now),
        Provider::Buildkite => buildkite(),
        Provider::Spiffe => json!({
            "aud": [], "sub": "spiffe://example.org/ns/cms/sa/publisher",
        }),
        Provider::Generic => json!({
            "iss": "https://login.example.com", "aud": "", "sub": "importer", "jti": "",
        }),
    };
    claims["iat"] = now.into();
    claims["exp"] = (now + 300).into();
    if provider != Provider::Spiffe {
        claims["nbf"] = now.into();
    }
    claims
}

fn github() -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "", "jti": "",
        "sub": "repo:octo@987654/app@123456789:environment:production",
        "environment": "production", "ref": "refs/heads/main", "ref_type": "branch",
        "ref_protected": "true", "sha": "b5ffe3aeea51cec6c41aef16e45ee6bce47d8810",
        "repository": "octo/app", "repository_id": "123456789", "repository_owner": "octo",
        "repository_owner_id": "987654", "repository_visibility": "private", "actor": "octocat",
        "actor_id": "12", "workflow": "publish",
        "workflow_ref": "octo/app/.github/workflows/publish.yml@refs/heads/main",
        "workflow_sha": "b5ffe3aeea51cec6c41aef16e45ee6bce47d8810",
        "job_workflow_ref": "octo/app/.github/workflows/publish.yml@refs/heads/main",
        "job_workflow_sha": "b5ffe3aeea51cec6c41aef16e45ee6bce47d8810", "head_ref": "",
        "base_ref": "", "event_name": "push", "run_id": "1577", "run_number": "10",
        "run_attempt": "1", "runner_environment": "github-hosted",
    })
}

fn gitlab() -> Value {
    json!({
        "iss": "https://gitlab.com", "aud": "", "jti": "",
        "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
        "namespace_id": "72", "namespace_path": "my-group", "project_id": "22",
        "project_path": "my-group/my-project", "project_visibility": "public", "user_id": "1",
        "user_login": "sample-user", "user_email": "sample-user@example.com",
        "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
        "user_access_level": "developer", "pipeline_id": "574", "pipeline_source": "push",
        "job_id": "302", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main",
        "ref_protected": "true", "groups_direct": ["my-group"], "runner_id": 1,
        "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
    })
}

fn kubernetes(now: i64) -> Value {
    json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": [], "jti": "",
        "sub": "system:serviceaccount:cms:publisher",
        "kubernetes.io": {
            "namespace": "cms",
            "node": {"name": "node-1", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced"},
            "pod": {"name": "publisher", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
            "serviceaccount": {
                "name": "publisher", "uid": "3c2b6f0e-7b1d-4f4e-9f0a-5d2f3a1b4c5d",
            },
            "warnafter": now + 240,
        },
    })
}

fn buildkite() -> Value {
    json!({
        "iss": "https://agent.buildkite.com", "aud": "", "jti": "",
        "sub": "organization:acme-inc:pipeline:app:ref:refs/heads/main:commit:b5ffe3ae:step:",
        "organization_slug": "acme-inc", "pipeline_slug": "app", "build_number": 5,
        "build_branch": "main", "build_tag": null, "build_commit": "b5ffe3ae", "step_key": null,
        "job_id": "01945ecf-80f0-41e8-9b83-a2970a9305a1",
        "agent_id": "01945ecf-8bcf-40a6-9d70-a765db9a0928", "build_source": "webhook",
        "runner_environment": "buildkite-hosted",
        "organization_id": "0184990a-477b-4fa8-9968-496074483cee",
        "pipeline_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
    })
}

/// Returns the claims of workloads at the same platform that differ in one thing.
pub fn neighbors(provider: Provider, claims: &Value) -> Vec<Value> {
    let with = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let other = "00000000-477b-4fa8-9968-496074483cee";
    match provider {
        Provider::GithubActions => vec![
            with(json!({"repository_id": "123456780"})),
            with(json!({"repository_owner_id": "1"})),
            with(json!({"environment": "staging"})),
            with(json!({"event_name": "pull_request_target"})),
        ],
        Provider::GitlabCi => vec![
            with(json!({"project_id": "23"})),
            with(json!({"namespace_id": "73"})),
            with(json!({"ref_protected": "false"})),
            with(json!({"ref": "feature"})),
        ],
        Provider::Kubernetes => {
            let mut recreated = claims.clone();
            recreated["kubernetes.io"]["serviceaccount"]["uid"] = other.into();
            let mut elsewhere = claims.clone();
            elsewhere["kubernetes.io"]["namespace"] = "cms2".into();
            vec![recreated, elsewhere]
        }
        Provider::Buildkite => vec![
            with(json!({"organization_id": other})),
            with(json!({"pipeline_id": other})),
            with(json!({"build_branch": "feature"})),
            with(json!({"organization_id": null})),
        ],
        Provider::Spiffe => vec![
            with(json!({"sub": "spiffe://example.org/ns/cms/sa/publisher2"})),
            with(json!({"sub": "spiffe://example.com/ns/cms/sa/publisher"})),
        ],
        Provider::Generic => vec![with(json!({"sub": "importer2"}))],
    }
}
