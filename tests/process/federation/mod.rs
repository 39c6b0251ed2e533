//! The pages of docs/federation.md, followed to the letter: the entry of the issuers file, the
//! command of the owner, and what the workload runs. Only the platform is a stand-in, whose JWTs have
//! the claims that it documents.

mod claims;
mod page;
mod platform;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use stacktoken::{domain::federation::Provider, grpc::pb::v1};

use self::{page::Page, platform::Platform};
use crate::{
    program::{PROGRAM, has_tool, text},
    served::{IssuersFolder, RunningServer, migrate, now},
    support::{introspect_request, issuer::ISSUERS_FILE, requests::revoke_request},
};

/// The server of all pages, and the folder in which their commands run.
struct Place {
    served: RunningServer,
    platform: Platform,
    folder: PathBuf,
    stack: String,
}

/// Writes a script.
fn write_script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\nset -e\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Place {
    /// Starts a server with the entries of these pages, and prepares what the pages take for
    /// granted: the program and the platform's own in PATH, the owner's JWT, and the script that
    /// publishes.
    async fn start(pages: &[Page]) -> Self {
        let platform = Platform::start();
        let issuers_folder = IssuersFolder::new();
        let entries = pages.iter().map(|page| page.entry_at(&platform.address));
        let entries: String = entries.collect();
        issuers_folder.write("issuers.toml", &format!("{ISSUERS_FILE}{entries}"));
        issuers_folder.write("credential", "of-the-server\n");
        let url = issuers_folder.sqlite();
        migrate(&url);
        let served = RunningServer::start_on(issuers_folder, &url, |_| {});
        served.serves().await;
        let stack = served.register().await;
        let folder = served.folder.path().join("work");
        fs::create_dir_all(folder.join("bin")).unwrap();
        symlink(PROGRAM, folder.join("bin/stacktoken")).unwrap();
        fs::write(folder.join("owner.jwt"), served.issuer.user("owner", now())).unwrap();
        write_script(
            &folder.join("publish.sh"),
            "printf %s \"$MANAGEMENT_TOKEN\" > published",
        );
        Self {
            served,
            platform,
            folder,
            stack,
        }
    }

    /// Runs a script of a page, as the platforms do: it stops at the first error.
    async fn run(&self, script: &str, variables: &[(String, String)]) -> Output {
        let _ = fs::remove_file(self.folder.join("published"));
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.folder.join("bin");
        let mut command = Command::new("bash");
        command
            .args(["-e", "-c", &self.with_own_stack(script)])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", bin.display()));
        for (name, value) in variables {
            command.env(name, self.with_own_stack(value));
        }
        let server = format!("http://127.0.0.1:{}", self.served.port);
        command.env("STACKTOKEN_SERVER", server);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    fn with_own_stack(&self, script: &str) -> String {
        script.replace("blt00c0ffee00c0ffee", &self.stack)
    }

    /// Issues the token with the command of the page, and returns its id.
    async fn issue(&self, page: &Page) -> String {
        let done = self.run(&page.owner, &[]).await;
        let told = text(&done.stderr);
        assert!(done.status.success(), "{}: {told}", page.title);
        let mut owner = self.served.user("owner").await;
        let request = v1::ListRequest {
            stack_api_key: self.stack.clone(),
            states: vec![v1::TokenState::Active.into()],
            ..Default::default()
        };
        let listed = owner.tokens.list(request).await.unwrap().into_inner();
        let [token] = &listed.tokens[..] else {
            panic!("{}: {listed:?}", page.title);
        };
        assert!(token.federation.is_some() && token.issuer_configured);
        token.token_uid.clone()
    }

    /// Returns the secret with which the workload published. `None` if it did not publish.
    fn published(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("published")).ok()
    }

    async fn is_active(&self, secret: &str) -> bool {
        let mut service = self.served.service().await;
        let request = introspect_request(&self.stack, secret, &["entry.update"]);
        let answer = service.introspection.introspect(request).await.unwrap();
        answer.get_ref().decision() == v1::Decision::Allow
    }
}

/// What a workload runs, and with which variables.
struct Job {
    script: String,
    variables: Vec<(String, String)>,
}

/// Prepares the job of a page to which the platform gives a JWT with these claims.
fn job(place: &Place, page: &Page, claims: &Value) -> Job {
    let (platform, folder, block) = (&place.platform, &place.folder, &page.workload);
    let bin = folder.join("bin");
    let mut variables = Vec::new();
    let publish = "\nMANAGEMENT_TOKEN=\"$MANAGEMENT_TOKEN\" ./publish.sh\n";
    let script = match page.provider() {
        Provider::GithubActions => {
            variables = block.mapping("env:");
            variables.extend(platform.of_github(claims));
            block.literal("run: |")
        }
        Provider::GitlabCi => {
            variables = block.mapping("variables:");
            let jwt = platform.sign(claims, &block.after("aud: "));
            variables.push(("STACKTOKEN_ID_TOKEN".into(), jwt));
            block.items("script:").join("\n")
        }
        Provider::Kubernetes => {
            variables = block.inline_mapping();
            let token = folder.join("token");
            fs::write(&token, platform.sign(claims, &block.after("audience: "))).unwrap();
            // The only change: the kubelet would mount the file at the default path.
            let flag = format!("--kubernetes={}", token.display());
            let command = block.after("command: [sh, -ec, '");
            let command = command.split_once("']").unwrap().0;
            assert!(command.contains("--kubernetes)"), "{command}");
            command.replace("--kubernetes", &flag)
        }
        Provider::Buildkite => {
            variables = block.mapping("env:");
            let jwt = platform.sign(claims, &block.after("--audience "));
            let asked = "oidc request-token --audience https://tokens.example.com --claim \
                         organization_id,pipeline_id";
            let body = format!("[ \"$*\" = \"{asked}\" ]\nprintf %s '{jwt}'");
            write_script(&bin.join("buildkite-agent"), &body);
            // Buildkite interpolates variables in the pipeline, and `$$` stands for `$`.
            block.literal("command: |").replace("$$", "$")
        }
        Provider::Spiffe => {
            let jwt = platform.sign(claims, &block.after("-audience "));
            let answer = json!([
                {"svids": [{"hint": "", "spiffe_id": claims["sub"], "svid": jwt}]},
                {"bundles": {}},
            ]);
            let asked = "api fetch jwt -audience https://tokens.example.com -output json";
            let body = format!("[ \"$*\" = \"{asked}\" ]\nprintf %s '{answer}'");
            write_script(&bin.join("spire-agent"), &body);
            block.text() + publish
        }
        Provider::Generic => {
            let jwt = platform.sign(claims, "https://tokens.example.com/workloads");
            fs::write(folder.join("identity.jwt"), jwt).unwrap();
            block.text() + publish
        }
    };
    Job { script, variables }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_federation_works_as_it_is_written() {
    if has_tool(&["jq"]).is_none() {
        return;
    }
    let pages = Page::all();
    let place = Place::start(&pages).await;
    for page in &pages {
        let uid = place.issue(page).await;
        let provider = page.provider();
        let claims = claims::documented(provider, now());
        let ours = job(&place, page, &claims);
        let done = place.run(&ours.script, &ours.variables).await;
        let told = text(&done.stderr);
        assert!(done.status.success(), "{}: {told}", page.title);
        let secret = place.published().unwrap();
        assert!(place.is_active(&secret).await, "{}", page.title);
        assert!(!text(&done.stdout).contains("stk1_"), "{}", page.title);
        // A neighbor at the same platform gets nothing, and does not publish.
        for neighbor in claims::neighbors(provider, &claims) {
            let theirs = job(&place, page, &neighbor);
            let done = place.run(&theirs.script, &theirs.variables).await;
            assert!(!done.status.success(), "{}: {neighbor}", page.title);
            assert_eq!(place.published(), None, "{}: {neighbor}", page.title);
        }
        let mut owner = place.served.user("owner").await;
        let revoke = revoke_request(&place.stack, &uid, "");
        owner.tokens.revoke(revoke).await.unwrap();
        assert!(!place.is_active(&secret).await, "{}", page.title);
    }
    // The page of Kubernetes names a credential for the keys, and no other does.
    let asked = place.platform.credentials();
    assert_eq!(asked, ["Bearer of-the-server"], "{asked:?}");
}
