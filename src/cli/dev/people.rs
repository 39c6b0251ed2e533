//! The people and services of dev, and the JWTs that make them who they are.

use std::path::Path;

use serde_json::json;

use super::{keys::SigningKey, write_private};
use crate::domain::timestamp::Timestamp;

/// dev's own issuer.
pub const ISSUER: &str = "https://dev.stacktoken.invalid";
/// For how long dev's JWTs are valid; each start signs new ones.
const VALID_FOR_SECONDS: i64 = 24 * 3600;

/// How dev's callers are told apart.
pub const ISSUERS_FILE: &str = r#"# Written by `stacktoken dev` at every start.
[[issuers]]
issuer     = "https://dev.stacktoken.invalid"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "operator"
required   = { kind = "operator" }

[[issuers]]
issuer     = "https://dev.stacktoken.invalid"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "service"
required   = { kind = "service" }
subjects   = ["content-api"]

[[issuers]]
issuer     = "https://dev.stacktoken.invalid"
audience   = "stacktoken"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "user"
"#;

/// One JWT for each part that there is to play.
pub struct Jwts {
    /// Owns both stacks.
    pub owner: String,
    /// An admin of the first.
    pub admin: String,
    /// A developer of the first.
    pub developer: String,
    /// No part in either.
    pub stranger: String,
    /// May introspect.
    pub service: String,
    /// A platform operator.
    pub operator: String,
}

impl Jwts {
    /// Signs them all.
    pub fn sign(key: &SigningKey, now: Timestamp) -> anyhow::Result<Self> {
        let sign = |subject: &str, kind: &str| {
            key.sign(&json!({
                "iss": ISSUER, "aud": "stacktoken", "sub": subject, "kind": kind,
                "iat": now.seconds(), "exp": now.seconds() + VALID_FOR_SECONDS,
            }))
        };
        Ok(Self {
            owner: sign("owner", "user")?,
            admin: sign("admin", "user")?,
            developer: sign("developer", "user")?,
            stranger: sign("stranger", "user")?,
            service: sign("content-api", "service")?,
            operator: sign("operator", "operator")?,
        })
    }

    /// Names and JWTs.
    pub fn named(&self) -> [(&'static str, &str); 6] {
        [
            ("owner", &self.owner),
            ("admin", &self.admin),
            ("developer", &self.developer),
            ("stranger", &self.stranger),
            ("service", &self.service),
            ("operator", &self.operator),
        ]
    }

    /// Writes each to a file of its own, so that a command line need not hold it.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        for (name, jwt) in self.named() {
            write_private(&data_dir.join(format!("{name}.jwt")), jwt)?;
        }
        Ok(())
    }
}
