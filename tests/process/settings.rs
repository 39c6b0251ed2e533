//! Tests settings that take effect only in the real program. Asserts the effect of each of them.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::{admin, v1::ListActionsRequest},
};
use tempfile::TempDir;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity},
};

use crate::{
    postgres,
    program::{ChildGuard, Dev, channel, folder, program, text},
    support::{
        Client, TestIssuer,
        certificates::{Ca, CertifiedKey, Mount, dns},
        database::eventually,
        introspect_request, issue_request,
        issuer::ISSUERS_FILE,
        person, reason,
    },
};

/// Creates a directory with an issuers file and the keys of the issuer.
fn issuers_folder(issuer: &TestIssuer, entries: &str) -> TempDir {
    let folder = folder();
    let file = format!("{ISSUERS_FILE}{entries}");
    fs::write(folder.path().join("issuers.toml"), file).unwrap();
    fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    folder
}

fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command.current_dir(folder).args(arguments);
    command
}

/// Starts `serve` on a free port. Returns the process and the address.
fn serve(folder: &Path, arguments: &[&str]) -> (ChildGuard, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let listen = ["serve", "--listen", &address, "--issuers", "issuers.toml"];
    let mut command = in_folder(folder, &listen);
    command
        .args(["--admin-listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    (ChildGuard(command.spawn().unwrap()), address)
}

/// Connects over TLS with a client certificate. Both sides use the clock of the host.
async fn connect(address: &str, trusted: &Ca, client: &CertifiedKey) -> Result<Channel, Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.pem()))
        .domain_name("localhost")
        .identity(Identity::from_pem(&client.cert, &client.key));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

#[test]
fn urls_of_the_database_are_read_from_files() {
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let folder = folder();
    let right = postgres.url(postgres.port(), "tokens");
    let file = |name: &str, url: &str| {
        fs::write(folder.path().join(name), format!("{url}\n")).unwrap();
    };
    file("right", &right);
    file("wrong", "postgres://postgres@127.0.0.1:1/tokens");
    let migrate = |url: &str, direct: &str| {
        let arguments = [
            ["migrate", "up"],
            ["--database-url-file", url],
            ["--database-direct-url-file", direct],
        ];
        let done = in_folder(folder.path(), &arguments.concat()).output();
        let done = done.unwrap();
        (done.status.success(), text(&done.stdout))
    };
    assert!(!migrate("wrong", "right").0, "the URL is wrong");
    assert!(!migrate("right", "wrong").0, "the direct URL is wrong");
    let (done, run_command) = migrate("right", "right");
    assert!(done && run_command.contains("applied"), "{run_command}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_has_no_more_connections_than_it_is_given() {
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let issuer = TestIssuer::new();
    let folder = issuers_folder(&issuer, "");
    let url = postgres.url(postgres.port(), "tokens");
    let at = ["--database-url", &url, "--database-connections", "5"];
    let migrate = [&["migrate", "up"][..], &at].concat();
    assert!(
        in_folder(folder.path(), &migrate)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let (_running, address) = serve(folder.path(), &at);
    let channel: Channel = channel(&address).await;
    let now = SystemClock::new().now().seconds();
    let service = issuer.service("content-api", now);
    let service = Client::new(channel.clone(), Some(format!("Bearer {service}")));
    let ask = async |secret: &str| {
        let question = introspect_request("blt00c0ffee00c0ffee", secret, &[]);
        service.clone().introspection.introspect(question).await
    };
    let unknown = |at: u8| {
        use stacktoken::domain::{entropy, secret::Secret};
        struct Same(u8);
        impl entropy::Entropy for Same {
            fn fill(&self, buffer: &mut [u8]) -> Result<(), entropy::EntropyFailed> {
                buffer.fill(self.0);
                Ok(())
            }
        }
        Secret::generate(&Same(at)).unwrap().expose().to_owned()
    };
    eventually("the server answers", async || ask(&unknown(0)).await.ok()).await;
    let operator = Client::new(
        channel.clone(),
        Some(format!("Bearer {}", issuer.operator("operator", now))),
    );
    // From now on every change and every lookup waits, either with a connection or for one.
    let held = postgres.hold(
        "tokens",
        "LOCK TABLE stacks, token_secrets IN ACCESS EXCLUSIVE MODE",
    );
    let mut waiting: Vec<_> = (1..40)
        .map(|at| {
            let question = introspect_request("blt00c0ffee00c0ffee", &unknown(at), &[]);
            let mut service = service.clone();
            tokio::spawn(async move { drop(service.introspection.introspect(question).await) })
        })
        .collect();
    waiting.extend((1..8).map(|at| {
        let request = registration(&format!("Shop {at}"));
        let mut operator = operator.clone();
        tokio::spawn(async move { drop(operator.stacks.register(request).await) })
    }));
    // This is a single statement, so that all counts are taken at the same instant.
    let counted = "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' \
                   AND query NOT LIKE '%token_secrets%'), \
                   count(*) FILTER (WHERE wait_event_type = 'Lock' \
                   AND query LIKE '%token_secrets%'), \
                   count(*) FROM pg_stat_activity WHERE datname = 'tokens' \
                   AND backend_type = 'client backend' AND application_name <> 'psql'";
    let count = || -> Vec<u32> {
        let line = postgres.run("tokens", counted);
        line.split('|')
            .map(|count| count.parse().unwrap())
            .collect()
    };
    // A pool that is being replaced briefly has additional connections, so wait until the count has
    // settled.
    let counts = eventually("2 changes and 3 readings have a connection", async || {
        let counts = count();
        (counts[..2] == [2, 3]).then_some(counts)
    })
    .await;
    held.commit();
    // Besides the one for LISTEN, there are connections for polls, heartbeats and probes, which
    // come and go.
    assert!((5..=5 + 4).contains(&counts[2]), "{counts:?}");
    for asked in waiting {
        asked.await.unwrap();
    }
}

fn registration(name: &str) -> admin::v1::RegisterRequest {
    admin::v1::RegisterRequest {
        name: name.into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_trusted_for_as_long_as_the_operator_says() {
    let folder = folder();
    let dev = Dev::start_with(folder.path(), |command| {
        command.args(["--jwks-max-stale", "5s"]);
    });
    let mut owner = dev.client("owner_jwt").await;
    let issue = issue_request(dev.get("stack_api_key"), "early");
    owner.tokens.issue(issue).await.unwrap();
    // The key file is read again only when the keys are too old, and by then the file is gone.
    fs::remove_file(dev.folder.join(".stacktoken/jwks.json")).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let issue = issue_request(dev.get("stack_api_key"), "late");
    let status = owner.tokens.issue(issue).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(reason(&status), "KEYS_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_encrypted_and_clients_are_known_by_certificate_where_files_say_so() {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server(), &[&ca]);
    let entry =
        "\n[[mtls]]\nidentity = \"content.cms.svc\"\ncaller = \"service\"\nintrospect = true\n";
    let folder = issuers_folder(&TestIssuer::new(), entry);
    let store = ["--database-url", "sqlite:stacktoken.db"];
    let migrate = [&["migrate", "up"][..], &store].concat();
    assert!(
        in_folder(folder.path(), &migrate)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let path = |name: &str| mount.path(name).to_str().unwrap().to_owned();
    let files = [path("tls.crt"), path("tls.key"), path("ca.crt")];
    let tls = [
        "--tls-cert",
        &files[0],
        "--tls-key",
        &files[1],
        "--tls-client-ca",
        &files[2],
    ];
    let (_running, address) = serve(folder.path(), &[&store[..], &tls].concat());
    let client = ca.client(&[dns("content.cms.svc")]);
    let channel = eventually("the server accepts TLS connections", async || {
        connect(&address, &ca, &client).await.ok()
    })
    .await;
    // The port accepts connections before the database is open.
    let listed = eventually("the server answers", async || {
        Client::new(channel.clone(), None)
            .actions
            .list_actions(ListActionsRequest::default())
            .await
            .ok()
    })
    .await;
    assert!(!listed.into_inner().actions.is_empty());
    let stranger = Ca::new("another CA").client(&[dns("content.cms.svc")]);
    let refused = async {
        let channel = connect(&address, &ca, &stranger).await.map_err(drop)?;
        Client::new(channel, None)
            .actions
            .list_actions(ListActionsRequest::default())
            .await
            .map_err(drop)
    };
    assert!(
        refused.await.is_err(),
        "the CA of this client is not trusted"
    );
    let plain = Endpoint::from_shared(format!("http://{address}"));
    let plain = plain.unwrap().connect_lazy();
    let run_command = Client::new(plain, None)
        .actions
        .list_actions(ListActionsRequest::default())
        .await;
    assert!(run_command.is_err(), "the port accepts no plaintext");
}
