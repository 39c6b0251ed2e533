//! What Envoy asks, and what it is told, for tests that stand in its place.

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        attribute_context::{HttpRequest, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use serde_json::Value;
use tonic::{Code, Status};

use super::{TestServer, raw::Sent};

/// A request as a client of Envoy sends it.
#[derive(Clone, Default)]
pub struct Http {
    http: HttpRequest,
    extensions: Vec<(String, String)>,
}

impl Http {
    pub fn new(method: &str, path: &str) -> Self {
        let http = HttpRequest {
            method: method.into(),
            path: path.into(),
            ..Default::default()
        };
        Self {
            http,
            extensions: Vec::new(),
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// One more header, in the map: a second one is joined to the first, as Envoy does.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let headers = &mut self.http.headers;
        let joined = match headers.get(name) {
            Some(first) => format!("{first},{value}"),
            None => value.to_owned(),
        };
        headers.insert(name.into(), joined);
        self
    }

    /// The same, for another path.
    pub fn at(mut self, path: &str) -> Self {
        self.http.path = path.into();
        self
    }

    /// Leaves a header out again.
    pub fn without(mut self, name: &str) -> Self {
        self.http.headers.remove(name);
        self
    }

    /// The headers one by one and as bytes, as with `encode_raw_headers`.
    pub fn raw(mut self) -> Self {
        let headers = std::mem::take(&mut self.http.headers).into_iter();
        for (name, value) in headers {
            self = self.with_raw(&name, value.as_bytes());
        }
        self
    }

    /// One more header of that kind.
    pub fn with_raw(mut self, name: &str, value: &[u8]) -> Self {
        let header = HeaderValue {
            key: name.into(),
            raw_value: value.to_vec(),
            ..Default::default()
        };
        let map = self.http.header_map.get_or_insert_with(HeaderMap::default);
        map.headers.push(header);
        self
    }

    /// One more header of that kind, with a text beside its bytes.
    pub fn with_both(mut self, name: &str, text: &str, bytes: &[u8]) -> Self {
        self = self.with_raw(name, bytes);
        let map = self.http.header_map.as_mut().unwrap();
        map.headers.last_mut().unwrap().value = text.into();
        self
    }

    /// What the route says.
    pub fn route(mut self, key: &str, value: &str) -> Self {
        self.extensions.push((key.into(), value.into()));
        self
    }
}

impl From<Http> for CheckRequest {
    fn from(asked: Http) -> Self {
        let request = Request {
            http: Some(asked.http),
            ..Default::default()
        };
        let attributes = AttributeContext {
            request: Some(request),
            context_extensions: asked.extensions.into_iter().collect(),
            ..Default::default()
        };
        Self {
            attributes: Some(attributes),
        }
    }
}

/// What Envoy is told.
#[derive(Debug)]
pub enum Told {
    Allowed(OkHttpResponse),
    Denied(DeniedHttpResponse),
}

impl Told {
    pub fn of(answer: CheckResponse) -> Self {
        let code = Code::from_i32(answer.status.unwrap().code);
        match answer.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => {
                assert_eq!(code, Code::Ok);
                Self::Allowed(ok)
            }
            HttpResponse::DeniedResponse(denied) => {
                let wanted = match denied.status.as_ref().unwrap().code {
                    401 => Code::Unauthenticated,
                    403 => Code::PermissionDenied,
                    412 => Code::FailedPrecondition,
                    other => panic!("{other}"),
                };
                assert_eq!(code, wanted);
                Self::Denied(denied)
            }
            HttpResponse::ErrorResponse(error) => panic!("{error:?}"),
        }
    }

    /// `OK`, or the HTTP status and the reason. A denial has the API's form of an error.
    pub fn outcome(&self) -> String {
        let Self::Denied(denied) = self else {
            return "OK".into();
        };
        let status = denied.status.as_ref().unwrap().code;
        let body: Value = serde_json::from_str(&denied.body).unwrap();
        assert!(body["error_message"].as_str().unwrap().ends_with('.'));
        let code = match status {
            401 => 105,
            412 => 109,
            _ => 162,
        };
        assert_eq!(body["error_code"], code);
        let errors = body["errors"].as_object().unwrap();
        assert_eq!(errors.len(), 1);
        let words = errors.values().next().unwrap()[0].as_str().unwrap();
        assert!(words.contains(": "), "what to do next: {words}");
        assert_eq!(self.header("content-type"), "application/json");
        let challenge = self.header("www-authenticate");
        assert_eq!(challenge == "Bearer", status == 401);
        format!("{status} {}", self.header("x-stacktoken-reason"))
    }

    /// The value of a header that is set, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let headers = match self {
            Self::Allowed(ok) => &ok.headers,
            Self::Denied(denied) => &denied.headers,
        };
        let of = |option: &envoy_types::pb::envoy::config::core::v3::HeaderValueOption| {
            // OVERWRITE_IF_EXISTS_OR_ADD: nothing that was sent stays beside it.
            assert_eq!(option.append_action, 2);
            option.header.as_ref().unwrap().key == name
        };
        let found: Vec<_> = headers.iter().filter(|option| of(option)).collect();
        assert!(found.len() < 2);
        found
            .first()
            .map_or("", |option| &option.header.as_ref().unwrap().value)
    }
}

impl TestServer {
    /// Asks as Envoy does, with this as its own credential.
    pub async fn check_as(&self, sent: Sent, asked: Http) -> Result<Told, Status> {
        let mut request = tonic::Request::new(CheckRequest::from(asked));
        sent.put_into(request.metadata_mut());
        let mut client = AuthorizationClient::new(self.channel().await);
        let answer = client.check(request).await?;
        Ok(Told::of(answer.into_inner()))
    }

    /// Asks as an Envoy that may.
    pub async fn check(&self, asked: Http) -> Told {
        self.check_as(self.envoy(), asked).await.unwrap()
    }

    /// The credential of an Envoy that may ask.
    pub fn envoy(&self) -> Sent {
        let jwt = self.issuer.service("content-api", self.clock.seconds());
        Sent::bearer(&jwt)
    }

    /// What the check of this request comes to.
    pub async fn outcome_of(&self, asked: Http) -> String {
        self.check(asked).await.outcome()
    }

    /// A request with this token and the server's stack key.
    pub fn request(&self, method: &str, path: &str, secret: &str) -> Http {
        Http::new(method, path)
            .with("authorization", secret)
            .with("api_key", &self.stack)
    }
}
