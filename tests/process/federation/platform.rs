//! A platform: it serves its keys, and hands JWTs to its jobs.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::corpus::Issuer;

/// What all platforms of the pages have in common.
pub struct Platform {
    pub address: String,
    issuer: Arc<Issuer>,
    /// The claims of the job of GitHub that asks for a JWT.
    job: Arc<Mutex<Value>>,
    credentials: Arc<Mutex<Vec<String>>>,
}

/// The ids of the JWTs.
static IDS: AtomicU64 = AtomicU64::new(1);

/// The credential of a job of GitHub at the address that issues its JWTs.
const OF_THE_JOB: &str = "Bearer of-the-job";

impl Platform {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let platform = Self {
            address,
            issuer: Arc::new(Issuer::generate()),
            job: Arc::default(),
            credentials: Arc::default(),
        };
        let (issuer, job) = (platform.issuer.clone(), platform.job.clone());
        let credentials = platform.credentials.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = vec![0; 16 * 1024];
                let length = stream.read(&mut head).unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
                let credential = header("authorization: ");
                let accepted = header("accept: ").unwrap_or_default();
                let body = if let Some((_, audience)) = path.split_once("&audience=") {
                    assert_eq!(credential, Some(OF_THE_JOB));
                    let audience = audience.replace("%3A", ":").replace("%2F", "/");
                    let jwt = sign(&issuer, &job.lock().unwrap(), &audience);
                    json!({ "count": 1, "value": jwt }).to_string()
                } else {
                    let mut credentials = credentials.lock().unwrap();
                    credentials.extend(credential.map(str::to_owned));
                    issuer.jwks()
                };
                // As an API server of Kubernetes does.
                let is_accepted = accepted.contains("application/jwk-set+json");
                let status = if is_accepted {
                    "200 OK"
                } else {
                    "406 Not Acceptable"
                };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n");
                let answer = format!("{head}connection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        platform
    }

    /// Signs a JWT with these claims for this audience.
    pub fn sign(&self, claims: &Value, audience: &str) -> String {
        sign(&self.issuer, claims, audience)
    }

    /// Returns the variables of a job of GitHub with these claims.
    pub fn of_github(&self, claims: &Value) -> [(String, String); 2] {
        *self.job.lock().unwrap() = claims.clone();
        let url = format!("http://{}/jwt?api-version=2.0", self.address);
        let credential = OF_THE_JOB.strip_prefix("Bearer ").unwrap();
        [
            ("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url),
            (
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(),
                credential.to_owned(),
            ),
        ]
    }

    /// Returns the credentials with which the server asked for keys.
    pub fn credentials(&self) -> Vec<String> {
        self.credentials.lock().unwrap().clone()
    }
}

fn sign(issuer: &Issuer, claims: &Value, audience: &str) -> String {
    let mut claims = claims.clone();
    // Kubernetes and SPIFFE have a list.
    claims["aud"] = if claims["aud"].is_array() {
        json!([audience])
    } else {
        json!(audience)
    };
    if claims["jti"].is_string() {
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        claims["jti"] = uuid::Uuid::from_u128(id.into()).to_string().into();
    }
    issuer.sign(
        &json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}),
        &claims,
    )
}
