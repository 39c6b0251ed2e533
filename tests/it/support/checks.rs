//! Requests to and responses of `Check`, for tests that act as Envoy.

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

use super::{TestServer, raw::Metadata};

/// An HTTP request as one of Envoy's clients sends it.
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

    /// Adds a header to the map. If the header exists, appends the value after a comma, as Envoy
    /// does.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let headers = &mut self.http.headers;
        let joined = match headers.get(name) {
            Some(first) => format!("{first},{value}"),
            None => value.to_owned(),
        };
        headers.insert(name.into(), joined);
        self
    }

    /// Sets the path.
    pub fn at(mut self, path: &str) -> Self {
        self.http.path = path.into();
        self
    }

    /// Removes a header.
    pub fn without(mut self, name: &str) -> Self {
        self.http.headers.remove(name);
        self
    }

    /// Moves the headers from the map to the list of names and bytes, as Envoy does with
    /// `encode_raw_headers`.
    pub fn raw(mut self) -> Self {
        let headers = std::mem::take(&mut self.http.headers).into_iter();
        for (name, value) in headers {
            self = self.with_raw(&name, value.as_bytes());
        }
        self
    }

    /// Adds a header to the raw list.
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

    /// Adds a header to the raw list, with both `value` and `raw_value` set.
    pub fn with_both(mut self, name: &str, text: &str, bytes: &[u8]) -> Self {
        self = self.with_raw(name, bytes);
        let map = self.http.header_map.as_mut().unwrap();
        map.headers.last_mut().unwrap().value = text.into();
        self
    }

    /// Adds a context extension, as if the route configured it.
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

/// The response to a check.
#[derive(Debug)]
pub enum EnvoyAnswer {
    Allowed(OkHttpResponse),
    Denied(DeniedHttpResponse),
}

impl EnvoyAnswer {
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

    /// Returns `OK`, or the HTTP status and the reason. Asserts that a denial has the API's error
    /// format.
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
        assert!(words.contains(": "), "the message has no remedy: {words}");
        assert_eq!(self.header("content-type"), "application/json");
        let challenge = self.header("www-authenticate");
        assert_eq!(challenge == "Bearer", status == 401);
        format!("{status} {}", self.header("x-stacktoken-reason"))
    }

    /// Returns the value of a header that the response sets, or an empty text if it does not set
    /// the header.
    pub fn header(&self, name: &str) -> &str {
        let headers = match self {
            Self::Allowed(ok) => &ok.headers,
            Self::Denied(denied) => &denied.headers,
        };
        let of = |option: &envoy_types::pb::envoy::config::core::v3::HeaderValueOption| {
            // OVERWRITE_IF_EXISTS_OR_ADD replaces every value that the client sent.
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
    /// Calls `Check`. `sent` is the credential of Envoy itself.
    pub async fn check_as(&self, sent: Metadata, asked: Http) -> Result<EnvoyAnswer, Status> {
        let mut request = tonic::Request::new(CheckRequest::from(asked));
        sent.put_into(request.metadata_mut());
        let mut client = AuthorizationClient::new(self.channel().await);
        let answer = client.check(request).await?;
        Ok(EnvoyAnswer::of(answer.into_inner()))
    }

    /// Calls `Check` with the credential of a permitted Envoy.
    pub async fn check(&self, asked: Http) -> EnvoyAnswer {
        self.check_as(self.envoy(), asked).await.unwrap()
    }

    /// Returns the credential of a permitted Envoy.
    pub fn envoy(&self) -> Metadata {
        let jwt = self.issuer.service("content-api", self.clock.seconds());
        Metadata::bearer(&jwt)
    }

    /// Calls `Check` for this request, and returns the outcome.
    pub async fn outcome_of(&self, asked: Http) -> String {
        self.check(asked).await.outcome()
    }

    /// Creates a request with this token and the server's stack key.
    pub fn request(&self, method: &str, path: &str, secret: &str) -> Http {
        Http::new(method, path)
            .with("authorization", secret)
            .with("api_key", &self.stack)
    }
}
