//! An OIDC issuer for tests, which has one ES256 key.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://login.test";
/// Another issuer of users.
pub const SSO: &str = "https://sso.test";

/// The issuers file. The first issuer has operators, services and users, which differ by a claim;
/// the second has only users.
pub const ISSUERS_FILE: &str = r#"
[[issuers]]
issuer     = "https://login.test"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "operator"
required   = { kind = "operator" }

[[issuers]]
issuer     = "https://login.test"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "service"
required   = { kind = "service" }
subjects   = ["content-api", "gateway-*"]

[[issuers]]
issuer     = "https://login.test"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "user"

[[issuers]]
issuer     = "https://sso.test"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "user"
"#;

pub struct TestIssuer {
    pkcs8: Vec<u8>,
}

impl TestIssuer {
    pub fn new() -> Self {
        let made =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self {
            pkcs8: made.unwrap().as_ref().to_vec(),
        }
    }

    pub fn jwks(&self) -> String {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "test",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }] })
        .to_string()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some("test".into()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).unwrap()
    }

    /// Signs a JWT whose header and claims may be any text.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8).unwrap();
        let seal = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(seal.as_ref()))
    }

    fn of_kind(&self, kind: &str, subject: &str, now: i64) -> String {
        self.sign(&json!({
            "iss": ISSUER, "aud": "stacktoken", "sub": subject, "kind": kind,
            "iat": now, "exp": now + 365 * 24 * 3600,
        }))
    }

    pub fn user(&self, subject: &str, now: i64) -> String {
        self.of_kind("user", subject, now)
    }

    pub fn service(&self, subject: &str, now: i64) -> String {
        self.of_kind("service", subject, now)
    }

    pub fn operator(&self, subject: &str, now: i64) -> String {
        self.of_kind("operator", subject, now)
    }
}
