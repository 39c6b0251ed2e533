//! What the rows of `Exchange` need: federated tokens, and the JWTs of a workload, which are signed
//! before the measurement.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use stacktoken::grpc::pb::v1::{self, claim_rule::Match};

use crate::support::Server;

/// The workload of `dev`, whose one JWT can be exchanged again and again.
pub const REUSABLE: Workloads = Workloads {
    issuer: "dev",
    sub: "publisher",
};
/// The workload whose JWTs are valid for one exchange.
pub const ONCE: Workloads = Workloads {
    issuer: "once",
    sub: "publisher",
};
const AUDIENCE: &str = "stacktoken-once";

/// The ids of the JWTs of [`ONCE`].
static IDS: AtomicU64 = AtomicU64::new(0);

/// The workloads that a token trusts.
#[derive(Clone, Copy)]
pub struct Workloads {
    pub issuer: &'static str,
    pub sub: &'static str,
}

impl Workloads {
    pub fn federation(self) -> v1::Federation {
        v1::Federation {
            issuer: self.issuer.to_owned(),
            rules: vec![v1::ClaimRule {
                path: vec!["sub".to_owned()],
                r#match: Some(Match::Equals(self.sub.to_owned())),
            }],
            session_for: None,
        }
    }

    /// Returns the federation as the database stores it.
    pub fn stored(self) -> String {
        let rule = json!({"path": ["sub"], "matches": {"Equals": self.sub}});
        json!({
            "issuer": self.issuer, "rules": [rule], "session_for": {"secs": 900, "nanos": 0},
        })
        .to_string()
    }
}

/// Returns a request for a session that ends before the next round, so that the number of live
/// sessions is that of one round.
pub fn request(stack: String, token_uid: String) -> v1::ExchangeRequest {
    v1::ExchangeRequest {
        stack_api_key: stack,
        token_uid,
        session_for: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        narrow: None,
    }
}

/// Writes an issuers file with the issuer of [`ONCE`] besides those of `dev`, and returns its path.
pub fn write_issuers(dev: &Server) -> PathBuf {
    let issuer = dev_claims(dev)["iss"].clone();
    let text = fs::read_to_string(dev.database().with_file_name("issuers.toml")).unwrap();
    let entry = format!(
        "\n[[issuers]]\nissuer = {issuer}\naudience = \"{AUDIENCE}\"\njwks_file = \"jwks.json\"\n\
         algorithms = [\"ES256\"]\ncaller = \"workload\"\nname = \"once\"\n\
         provider = \"generic\"\nreplay = \"once\"\n"
    );
    let path = dev.database().with_file_name("issuers-once.toml");
    fs::write(&path, text + &entry).unwrap();
    path
}

/// Signs JWTs of [`ONCE`] with the key of `dev`.
pub fn sign(dev: &Server, count: usize) -> Vec<String> {
    let key = fs::read_to_string(dev.database().with_file_name("signing-key")).unwrap();
    let key = EncodingKey::from_ec_der(&BASE64.decode(key.trim()).unwrap());
    let header = Header {
        kid: Some("dev".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    let mut claims = dev_claims(dev);
    claims["aud"] = AUDIENCE.into();
    let mut signed = || {
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        claims["jti"] = format!("jti-{id}").into();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    (0..count).map(|_| signed()).collect()
}

/// Returns the claims of the workload of `dev`.
fn dev_claims(dev: &Server) -> Value {
    let payload = dev.get("workload_jwt").split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64.decode(payload).unwrap()).unwrap()
}
