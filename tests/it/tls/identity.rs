//! Tests services that are identified by their client certificate.

use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tonic::{Code, Status};

use crate::support::{
    Client, TestServer,
    certificates::{Ca, CertifiedKey, Mount, TlsClient, dns, uri},
    clients::reason,
    clock::START,
    introspect_request, issue_request, person,
};

const ENTRIES: &str = r#"
[[mtls]]
identity   = "spiffe://example.org/ns/cms/sa/content-api"
caller     = "service"
introspect = true

[[mtls]]
identity   = "assets.cms.svc"
caller     = "service"
introspect = true

[[mtls]]
identity   = "mailer.cms.svc"
caller     = "service"

[[mtls]]
identity   = "spiffe://example.org/ops"
caller     = "operator"
"#;
const CONTENT_API: &str = "spiffe://example.org/ns/cms/sa/content-api";

struct Mesh {
    server: TestServer,
    ca: Ca,
    _mount: Mount,
    secret: String,
}

impl Mesh {
    /// Starts a server with TLS, and creates a stack and a token.
    async fn start() -> Self {
        let ca = Ca::new("test CA");
        let mount = Mount::new(&ca.server(), &[&ca]);
        let server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
        let mut mesh = Self {
            server,
            ca,
            _mount: mount,
            secret: String::new(),
        };
        let mut operator = mesh.bearing(&[uri("spiffe://example.org/ops")]).await;
        let request = stacktoken::grpc::pb::admin::v1::RegisterRequest {
            name: "Stack".into(),
            organization_uid: "org".into(),
            owner: Some(person("owner")),
            ..Default::default()
        };
        let registered = operator.stacks.register(request).await.unwrap();
        mesh.server.stack = registered.into_inner().stack.unwrap().stack_api_key;
        let mut owner = mesh.with(None, Some(mesh.jwt("owner"))).await;
        let issued = owner
            .tokens
            .issue(issue_request(&mesh.server.stack, "a"))
            .await;
        mesh.secret = issued.unwrap().into_inner().secret;
        mesh
    }

    fn jwt(&self, subject: &str) -> String {
        let now = self.server.clock.seconds();
        format!("Bearer {}", self.server.issuer.user(subject, now))
    }

    async fn with(&self, pair: Option<&CertifiedKey>, authorization: Option<String>) -> Client {
        let client = TlsClient::new(&self.server, &self.ca, pair);
        Client::new(client.connect().await.unwrap(), authorization)
    }

    /// Creates a client whose only credential is a certificate for these names.
    async fn bearing(&self, names: &[SanType]) -> Client {
        self.with(Some(&self.ca.client(names)), None).await
    }

    async fn introspect(&self, client: &mut Client) -> Result<bool, Status> {
        let request = introspect_request(&self.server.stack, &self.secret, &[]);
        let answered = client.introspection.introspect(request).await;
        answered.map(|answer| answer.into_inner().active)
    }

    /// Introspects with a client certificate for these names. Returns whether the token is active,
    /// or the code and the reason of the error.
    async fn answer(&self, names: &[SanType]) -> Result<bool, (Code, String)> {
        let answered = self.introspect(&mut self.bearing(names).await).await;
        answered.map_err(|status| (status.code(), reason(&status)))
    }
}

fn invalid() -> Result<bool, (Code, String)> {
    Err((Code::Unauthenticated, "CREDENTIAL_INVALID".into()))
}

#[tokio::test]
async fn listed_names_make_the_caller() {
    let mesh = Mesh::start().await;
    assert_eq!(mesh.answer(&[uri(CONTENT_API)]).await, Ok(true));
    assert_eq!(mesh.answer(&[dns("assets.cms.svc")]).await, Ok(true));
    assert_eq!(mesh.answer(&[dns("ASSETS.cms.svc")]).await, Ok(true));
    // It is enough if one of the names matches.
    let several = [dns("other.svc"), uri(CONTENT_API)];
    assert_eq!(mesh.answer(&several).await, Ok(true));
}

#[tokio::test]
async fn unlisted_certificate_names_are_refused() {
    let mesh = Mesh::start().await;
    for names in [
        vec![uri("spiffe://example.org/ns/cms/sa/content-api-2")],
        vec![uri("spiffe://other.org/ns/cms/sa/content-api")],
        vec![dns("cms.svc")],
        vec![dns("*.cms.svc")],
        // A DNS entry does not match a URI, and a URI entry does not match a DNS name.
        vec![uri("assets.cms.svc")],
        // An X.509-SVID has exactly one URI.
        vec![uri(CONTENT_API), uri("spiffe://example.org/b")],
        vec![],
    ] {
        assert_eq!(mesh.answer(&names).await, invalid(), "{names:?}");
    }
}

#[tokio::test]
async fn service_without_the_introspect_role_is_refused() {
    let mesh = Mesh::start().await;
    let refused = mesh.answer(&[dns("mailer.cms.svc")]).await;
    assert_eq!(
        refused,
        Err((Code::PermissionDenied, "ROLE_REQUIRED".into()))
    );
}

#[tokio::test]
async fn bearer_credential_decides_alone() {
    let mesh = Mesh::start().await;
    let pair = mesh.ca.client(&[uri(CONTENT_API)]);
    // The JWT is invalid. The server does not fall back to the certificate.
    let mut bad = mesh.with(Some(&pair), Some("Bearer x".into())).await;
    let refused = mesh.introspect(&mut bad).await.unwrap_err();
    assert_eq!(reason(&refused), "CREDENTIAL_INVALID");
    // The JWT is valid. It takes precedence over the certificate, so the caller is the owner.
    let mut owner = mesh.with(Some(&pair), Some(mesh.jwt("owner"))).await;
    let refused = mesh.introspect(&mut owner).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_REQUIRED");
    let listed = stacktoken::grpc::pb::v1::ListRequest {
        stack_api_key: mesh.server.stack.clone(),
        ..Default::default()
    };
    assert_eq!(
        owner
            .tokens
            .list(listed)
            .await
            .unwrap()
            .into_inner()
            .tokens
            .len(),
        1
    );
}

#[tokio::test]
async fn a_call_without_certificate_or_credential_is_unauthenticated() {
    let mesh = Mesh::start().await;
    let mut nobody = mesh.with(None, None).await;
    let refused = mesh.introspect(&mut nobody).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason(&refused), "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn certificate_that_expires_while_connected_proves_nothing_more() {
    let mesh = Mesh::start().await;
    let until = START + 60;
    let pair = mesh.ca.client_until(&[uri(CONTENT_API)], until);
    let mut client = mesh.with(Some(&pair), None).await;
    assert!(mesh.introspect(&mut client).await.unwrap());
    mesh.server.clock.advance(Duration::from_secs(60));
    let refused = mesh.introspect(&mut client).await.unwrap_err();
    assert_eq!(reason(&refused), "CREDENTIAL_INVALID");
    assert!(refused.message().contains("expired"), "{refused:?}");
}

#[tokio::test]
async fn certificates_that_do_not_verify_get_no_connection() {
    let mesh = Mesh::start().await;
    let names = [uri(CONTENT_API)];
    let foreign = Ca::new("another CA").client(&names);
    let past = mesh.ca.client_until(&names, START - 1);
    let server_only = mesh.ca.sign(|params| {
        params.subject_alt_names = names.to_vec();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (what, pair) in [
        ("foreign", foreign),
        ("expired", past),
        ("for servers", server_only),
    ] {
        let refused = match TlsClient::new(&mesh.server, &mesh.ca, Some(&pair))
            .connect()
            .await
        {
            // With TLS 1.3, the client learns of the refusal only after its own handshake is
            // complete.
            Ok(channel) => mesh
                .introspect(&mut Client::new(channel, None))
                .await
                .is_err(),
            Err(_) => true,
        };
        assert!(refused, "{what}");
    }
    let answered = mesh.answer(&names).await;
    assert_eq!(answered, Ok(true), "other clients are still served");
}

#[tokio::test]
async fn plaintext_client_is_turned_away() {
    let mesh = Mesh::start().await;
    let plain = mesh.server.channel();
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        let mut client = Client::new(plain.await, None);
        mesh.introspect(&mut client).await.is_err()
    });
    assert!(refused.await.unwrap());
}
