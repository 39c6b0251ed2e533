//! Settings of which only the program itself makes something: each has an effect.

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
    program::{Dev, Running, channel, folder, program, text},
    support::{
        Client, TestIssuer,
        certificates::{Ca, Mount, Pair, dns},
        database::eventually,
        introspect_request, issue_request,
        issuer::ISSUERS_FILE,
        person, reason,
    },
};

/// A folder with an issuers file and its keys.
fn ground(issuer: &TestIssuer, entries: &str) -> TempDir {
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

/// Starts `serve` on a free port; answers its address.
fn serve(folder: &Path, arguments: &[&str]) -> (Running, String) {
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
    (Running(command.spawn().unwrap()), address)
}

/// A connection over TLS with a client certificate, by the host's clock like the program's.
async fn connect(address: &str, trusted: &Ca, client: &Pair) -> Result<Channel, Error> {
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
    assert!(!migrate("wrong", "right").0, "it leads nowhere");
    assert!(!migrate("right", "wrong").0, "it leads nowhere");
    let (done, told) = migrate("right", "right");
    assert!(done && told.contains("applied"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_has_no_more_connections_than_it_is_given() {
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let issuer = TestIssuer::new();
    let folder = ground(&issuer, "");
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
    eventually("it answers", async || ask(&unknown(0)).await.ok()).await;
    let operator = Client::new(
        channel.clone(),
        Some(format!("Bearer {}", issuer.operator("operator", now))),
    );
    // Every change and every reading waits, with a connection or for one.
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
    // In one statement, so that the figures are of one instant.
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
    eventually("all that may have a connection wait", async || {
        let counts = count();
        (counts[0] >= 2 && counts[1] >= 3).then_some(())
    })
    .await;
    let counts = count();
    held.commit();
    assert_eq!(
        counts[..2],
        [2, 3],
        "changes and readings that have a connection"
    );
    // Those for the feed, the heartbeat and the probes come and go; one is for LISTEN.
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
    // They are read again only once they are too old, and are gone then.
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
    let folder = ground(&TestIssuer::new(), entry);
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
    let channel = eventually("it takes connections", async || {
        connect(&address, &ca, &client).await.ok()
    })
    .await;
    let listed = Client::new(channel, None)
        .introspection
        .list_actions(ListActionsRequest::default())
        .await;
    assert!(!listed.unwrap().into_inner().actions.is_empty());
    let stranger = Ca::new("another CA").client(&[dns("content.cms.svc")]);
    let refused = async {
        let channel = connect(&address, &ca, &stranger).await.map_err(drop)?;
        Client::new(channel, None)
            .introspection
            .list_actions(ListActionsRequest::default())
            .await
            .map_err(drop)
    };
    assert!(refused.await.is_err(), "its CA does not count");
    let plain = Endpoint::from_shared(format!("http://{address}"));
    let plain = plain.unwrap().connect_lazy();
    let told = Client::new(plain, None)
        .introspection
        .list_actions(ListActionsRequest::default())
        .await;
    assert!(told.is_err(), "the port takes no plaintext");
}
