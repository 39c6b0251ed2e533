//! The rows of the table: the calls, the rows that they are compared with, and the targets.

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request},
    authorization_client::AuthorizationClient,
};
use prost::Message;
use stacktoken::grpc::pb::v1::{
    self, exchange_service_client::ExchangeServiceClient,
    introspection_service_client::IntrospectionServiceClient,
    token_service_client::TokenServiceClient,
};

use crate::{
    echo::{self, Echo},
    exchange::{self, REUSABLE},
    load::{Protocol, Target},
    support::{Server, actions},
};

const INTROSPECT: &str = "/stacktoken.v1.IntrospectionService/Introspect";
const BATCH: &str = "/stacktoken.v1.IntrospectionService/BatchIntrospect";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The number of questions in a batch.
const QUESTIONS: usize = 100;
/// A well-formed secret that was never issued.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
const OK: &str = "stacktoken_verdicts_total{reason=\"OK\"}";
const NOT_RECOGNIZED: &str = "stacktoken_verdicts_total{reason=\"NOT_RECOGNIZED\"}";
const REVOKED: &str = "stacktoken_verdicts_total{reason=\"REVOKED\"}";
const NO_CREDENTIAL: &str = "stacktoken_errors_total{reason=\"CREDENTIAL_MISSING\"}";

/// The targets of a row, as ratios to the row with which it is compared.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    /// The minimum ratio of answers per second. Each verdict in a batch is an answer.
    pub rate: Option<f64>,
    /// The maximum ratio of the 99th percentile of the latency.
    pub p99: Option<f64>,
    /// The maximum ratio of the CPU time per answer.
    pub cpu: Option<f64>,
}

/// A row of the table.
pub struct Row {
    pub name: &'static str,
    pub target: Target,
    /// The number of answers in the response to one request.
    pub answers: usize,
    /// The name of the row with which this row is compared.
    pub beside: Option<&'static str>,
    pub wanted: Wanted,
    /// The server's metric that counts the answers. It is needed because h2load sees only HTTP.
    pub counted: Option<&'static str>,
}

/// The rows, and the server processes that they call.
pub struct Table {
    pub server: Server,
    pub rows: Vec<Row>,
    _echoes: [Echo; 2],
}

/// Returns an uncompressed message with gRPC's length prefix.
fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat()
}

impl Table {
    pub async fn new() -> Self {
        let server = Server::start(&[("STACKTOKEN_UNRECOGNIZED_PER_SECOND", "1000000000")]);
        let revoked = revoked(&server).await;
        let session = session(&server).await;
        // The limit leaves space for the tokens that `dev` has already created.
        let mut secrets = server.issue(QUESTIONS + 50).await;
        secrets.truncate(QUESTIONS);
        let asked = |secret: &str| question(&server, secret);
        let hit = asked(&secrets[0]);
        for secret in secrets.iter().chain([&revoked, &session]) {
            introspect(&server, asked(secret)).await;
        }
        let answer = introspect(&server, hit.clone()).await;
        assert_eq!(answer.decision(), v1::Decision::Allow);
        let check = check(&server, &secrets[0]);
        let checked = ask_to_check(&server, check.clone()).await;
        let batch = v1::BatchIntrospectRequest {
            questions: secrets
                .iter()
                .map(|secret| in_batch(asked(secret)))
                .collect(),
            ..Default::default()
        };
        let echoes = [answer.encoded_len(), checked.encoded_len()].map(Echo::start);
        let jwt = server.get("service_jwt").to_owned();
        let ours = |path: &str, body: Vec<u8>, (connections, streams)| Target {
            url: format!("http://{}{path}", server.get("grpc_address")),
            process: server.process(),
            jwt: jwt.clone(),
            protocol: Protocol::Grpc,
            body,
            connections,
            streams,
        };
        let echo = |echo: &Echo, body: Vec<u8>, (connections, streams)| Target {
            url: format!("http://127.0.0.1:{}{}", echo.port, echo::PATH),
            process: echo.process(),
            jwt: jwt.clone(),
            protocol: Protocol::Grpc,
            body,
            connections,
            streams,
        };
        let over_http = |target: Target| Target {
            url: format!("http://{}/oauth2/introspect", server.get("http_address")),
            protocol: Protocol::Http1,
            body: form(&server, &secrets[0]),
            ..target
        };
        let base = |name, target| Row {
            name,
            target,
            answers: 1,
            beside: None,
            wanted: Wanted::default(),
            counted: None,
        };
        let row = |name, target, beside, counted| Row {
            beside: Some(beside),
            counted: Some(counted),
            ..base(name, target)
        };
        let (many, one, alone, apart) = ((8, 32), (1, 32), (1, 1), (64, 1));
        let of = |secret: &str| framed(&asked(secret));
        let rows = vec![
            base("echo, 8 x 32", echo(&echoes[0], framed(&hit), many)),
            Row {
                wanted: Wanted {
                    rate: Some(1.20),
                    p99: Some(1.0),
                    cpu: Some(0.85),
                },
                ..row(
                    "hit, 8 x 32",
                    ours(INTROSPECT, framed(&hit), many),
                    "echo, 8 x 32",
                    OK,
                )
            },
            Row {
                wanted: at_least(0.97),
                ..row(
                    "hit of a session, 8 x 32",
                    ours(INTROSPECT, of(&session), many),
                    "hit, 8 x 32",
                    OK,
                )
            },
            base("echo, 1 x 32", echo(&echoes[0], framed(&hit), one)),
            Row {
                wanted: at_least(0.90),
                ..row(
                    "hit, 1 x 32",
                    ours(INTROSPECT, framed(&hit), one),
                    "echo, 1 x 32",
                    OK,
                )
            },
            base("echo, 1 x 1", echo(&echoes[0], framed(&hit), alone)),
            row(
                "hit, 1 x 1",
                ours(INTROSPECT, framed(&hit), alone),
                "echo, 1 x 1",
                OK,
            ),
            Row {
                counted: Some(OK),
                ..base("hit, 64 x 1", ours(INTROSPECT, framed(&hit), apart))
            },
            Row {
                wanted: at_least(0.60),
                ..row(
                    "hit over HTTP/1.1, 64 x 1",
                    over_http(ours(INTROSPECT, Vec::new(), apart)),
                    "hit, 64 x 1",
                    OK,
                )
            },
            Row {
                wanted: at_least(0.95),
                ..row(
                    "junk, 8 x 32",
                    ours(INTROSPECT, of("junk"), many),
                    "hit, 8 x 32",
                    NOT_RECOGNIZED,
                )
            },
            row(
                "unknown, 8 x 32",
                ours(INTROSPECT, of(UNKNOWN), many),
                "hit, 8 x 32",
                NOT_RECOGNIZED,
            ),
            row(
                "revoked, 8 x 32",
                ours(INTROSPECT, of(&revoked), many),
                "hit, 8 x 32",
                REVOKED,
            ),
            row(
                "no credential, 8 x 32",
                Target {
                    jwt: String::new(),
                    ..ours(INTROSPECT, framed(&hit), many)
                },
                "hit, 8 x 32",
                NO_CREDENTIAL,
            ),
            Row {
                answers: QUESTIONS,
                wanted: at_least(9.0),
                ..row(
                    "batch of 100, 8 x 32",
                    ours(BATCH, framed(&batch), many),
                    "echo, 8 x 32",
                    OK,
                )
            },
            base(
                "echo of Check, 8 x 32",
                echo(&echoes[1], framed(&check), many),
            ),
            Row {
                wanted: Wanted {
                    cpu: Some(1.25),
                    ..at_least(1.0)
                },
                ..row(
                    "Check, 8 x 32",
                    ours(CHECK, framed(&check), many),
                    "echo of Check, 8 x 32",
                    OK,
                )
            },
        ];
        Self {
            server,
            rows,
            _echoes: echoes,
        }
    }
}

/// Returns a target for only the ratio of answers per second.
fn at_least(rate: f64) -> Wanted {
    Wanted {
        rate: Some(rate),
        ..Wanted::default()
    }
}

fn question(server: &Server, secret: &str) -> v1::IntrospectRequest {
    v1::IntrospectRequest {
        token: secret.to_owned(),
        stack_api_key: server.get("stack_api_key").to_owned(),
        actions: actions(),
        ..Default::default()
    }
}

/// Returns the form that asks the same over HTTP.
fn form(server: &Server, secret: &str) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", secret)
        .append_pair("stack_api_key", server.get("stack_api_key"));
    for action in actions() {
        let action = format!("{};branch={}", action.name, action.branch);
        form.append_pair("action", &action);
    }
    form.finish().into_bytes()
}

fn in_batch(question: v1::IntrospectRequest) -> v1::IntrospectQuestion {
    v1::IntrospectQuestion {
        token: question.token,
        stack_api_key: question.stack_api_key,
        actions: question.actions,
        include: question.include,
    }
}

async fn introspect(server: &Server, question: v1::IntrospectRequest) -> v1::IntrospectResponse {
    let mut client = IntrospectionServiceClient::new(server.channel().await);
    let request = server.request("service_jwt", question);
    client.introspect(request).await.unwrap().into_inner()
}

/// Issues and revokes a token, and returns its secret.
async fn revoked(server: &Server) -> String {
    let secret = server.issue_one("revoked").await;
    let token_uid = introspect(server, question(server, &secret))
        .await
        .token_uid;
    let revoke = v1::RevokeRequest {
        stack_api_key: server.get("stack_api_key").to_owned(),
        token_uid,
        reason: "a measurement".into(),
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(server.channel().await);
    let request = server.request("owner_jwt", revoke);
    tokens.revoke(request).await.unwrap();
    secret
}

/// Issues a federated token, and exchanges the JWT of the workload of `dev` for the secret of a
/// session of an hour.
async fn session(server: &Server) -> String {
    let hour = prost_types::Duration {
        seconds: 3600,
        nanos: 0,
    };
    let federation = v1::Federation {
        session_for: Some(hour),
        ..REUSABLE.federation()
    };
    let token_uid = server.issue_federated("session", federation).await;
    let request = v1::ExchangeRequest {
        session_for: Some(hour),
        ..exchange::request(server.get("stack_api_key").to_owned(), token_uid)
    };
    let mut client = ExchangeServiceClient::new(server.channel().await);
    let request = server.request("workload_jwt", request);
    client.exchange(request).await.unwrap().into_inner().secret
}

/// Returns the check that Envoy sends for a request from a browser.
fn check(server: &Server, secret: &str) -> CheckRequest {
    let headers = [
        (":authority", "api.example.com"),
        (":method", "GET"),
        (":path", "/v3/content_types/page/entries?limit=10"),
        (":scheme", "https"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("api_key", server.get("stack_api_key")),
        ("authorization", secret),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "5f1b0e7c-9c2f-4c6a-8f3e-0f6a9b1c2d3e"),
    ];
    let http = HttpRequest {
        method: "GET".into(),
        path: "/v3/content_types/page/entries?limit=10".into(),
        host: "api.example.com".into(),
        scheme: "https".into(),
        protocol: "HTTP/1.1".into(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Default::default()
    };
    let request = Request {
        http: Some(http),
        ..Default::default()
    };
    let attributes = AttributeContext {
        request: Some(request),
        ..Default::default()
    };
    CheckRequest {
        attributes: Some(attributes),
    }
}

async fn ask_to_check(server: &Server, check: CheckRequest) -> CheckResponse {
    let mut client = AuthorizationClient::new(server.channel().await);
    let request = server.request("service_jwt", check);
    let answer = client.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status.as_ref().unwrap().code, 0, "{answer:?}");
    answer
}
