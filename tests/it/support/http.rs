//! Requests to the HTTP port. They are made with hyper, or from raw bytes if no client would send
//! them.

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{TestServer, raw::TestCaller};

/// The content type of a form as OAuth clients send it.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// An answer from the HTTP port.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpAnswer {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the status and the `error` of an answer from an OAuth endpoint.
    pub fn refusal(&self) -> (u16, String) {
        let error = self.json()["error"].as_str().unwrap_or_default().to_owned();
        (self.status, error)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// A request that is being built.
pub struct HttpCall {
    uri: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl HttpCall {
    pub fn new(address: &str, method: Method, path: &str) -> Self {
        Self {
            uri: format!("http://{address}{path}"),
            method,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, jwt: &str) -> Self {
        self.header("authorization", &format!("Bearer {jwt}"))
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    pub fn form(self, parameters: &[(&str, &str)]) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(parameters).finish();
        self.body(FORM, form)
    }

    pub fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    pub async fn send(self) -> HttpAnswer {
        let client =
            Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(HttpConnector::new());
        let mut request = Request::builder().method(self.method).uri(self.uri);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response = client
            .request(request.body(Full::new(self.body)).unwrap())
            .await;
        let (head, body) = response.unwrap().into_parts();
        HttpAnswer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

impl TestServer {
    /// Starts a request to the HTTP port.
    pub fn http(&self, method: Method, path: &str) -> HttpCall {
        HttpCall::new(&self.http_address, method, path)
    }

    /// Starts an introspection request of a service, with the stack key in the path.
    pub fn ask(&self, parameters: &[(&str, &str)]) -> HttpCall {
        let path = format!("/oauth2/introspect/{}", self.stack);
        let jwt = TestCaller::Introspector.jwt(self);
        self.http(Method::POST, &path).bearer(&jwt).form(parameters)
    }

    /// Starts a request of the stack's owner to a route of the CMS.
    pub fn cms(&self, method: Method, below: &str) -> HttpCall {
        let path = format!("/v3/stacks/management_tokens{below}");
        let jwt = self.issuer.user("owner", self.clock.seconds());
        let call = self.http(method, &path);
        call.header("api_key", &self.stack)
            .header("authtoken", &jwt)
    }

    /// Sends bytes to the HTTP port, and returns everything that the server sends back.
    pub async fn raw_http(&self, bytes: &[u8]) -> String {
        let mut socket = tokio::net::TcpStream::connect(&self.http_address)
            .await
            .unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), reading).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}
