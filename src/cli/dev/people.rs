//! The users and services of `dev`, and the JWTs that identify them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;

use super::{keys::SigningKey, write_private};
use crate::domain::{clock::Clock, timestamp::Timestamp};

/// The issuer that `dev` runs itself.
pub const ISSUER: &str = "https://dev.stacktoken.invalid";
/// How long the JWTs of `dev` are valid. New JWTs are signed at every start and by [`Renewal`].
const VALID_FOR: Duration = Duration::from_hours(24);
/// Interval at which [`Renewal`] checks whether the JWTs must be renewed. It is short, so that
/// expired JWTs are renewed soon after the host was suspended.
const RENEWAL_TICK: Duration = Duration::from_mins(1);

/// The subject of the workload of `dev`, which the rules of a federated token can require.
pub const WORKLOAD: &str = "publisher";

/// The issuers file of `dev`, which distinguishes the kinds of callers. The workload has the same
/// JWT for up to a day, so the JWT must be reusable.
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

[[issuers]]
issuer     = "https://dev.stacktoken.invalid"
audience   = "stacktoken-workload"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "dev"
provider   = "generic"
replay     = "reusable"
"#;

/// One JWT for each role.
pub struct Jwts {
    /// The owner of both stacks.
    pub owner: String,
    /// An admin of the first stack.
    pub admin: String,
    /// A developer of the first stack.
    pub developer: String,
    /// A user who has no role in either stack.
    pub stranger: String,
    /// A service that may introspect tokens.
    pub service: String,
    /// A platform operator.
    pub operator: String,
    /// A workload, which may exchange its JWT for the secret of a federated token.
    pub workload: String,
}

impl Jwts {
    /// Signs a JWT for every role.
    pub fn sign(key: &SigningKey, now: Timestamp) -> anyhow::Result<Self> {
        let sign = |subject: &str, kind: &str| {
            let audience = if kind == "workload" {
                "stacktoken-workload"
            } else {
                "stacktoken"
            };
            key.sign(&json!({
                "iss": ISSUER, "aud": audience, "sub": subject, "kind": kind,
                "iat": now.seconds(), "exp": now.plus(VALID_FOR).seconds(),
            }))
        };
        Ok(Self {
            owner: sign("owner", "user")?,
            admin: sign("admin", "user")?,
            developer: sign("developer", "user")?,
            stranger: sign("stranger", "user")?,
            service: sign("content-api", "service")?,
            operator: sign("operator", "operator")?,
            workload: sign(WORKLOAD, "workload")?,
        })
    }

    /// Returns each JWT with the name of its role.
    pub fn named(&self) -> [(&'static str, &str); 7] {
        [
            ("owner", &self.owner),
            ("admin", &self.admin),
            ("developer", &self.developer),
            ("stranger", &self.stranger),
            ("service", &self.service),
            ("operator", &self.operator),
            ("workload", &self.workload),
        ]
    }

    /// Writes each JWT to its own file, so that commands need not contain a JWT.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        for (name, jwt) in self.named() {
            write_private(&data_dir.join(format!("{name}.jwt")), jwt)?;
        }
        Ok(())
    }
}

/// Renews the JWT files while `dev` runs.
pub struct Renewal {
    pub key: SigningKey,
    pub data_dir: PathBuf,
    /// When the JWTs in the files were signed.
    pub signed_at: Timestamp,
}

impl Renewal {
    /// Replaces the files whenever half of the JWTs' validity has passed. Never returns.
    pub async fn run(mut self, clock: Arc<dyn Clock>) {
        loop {
            tokio::time::sleep(RENEWAL_TICK).await;
            if let Err(error) = self.tick(clock.now()) {
                tracing::warn!("the JWTs were not renewed: {error:#}");
            }
        }
    }

    fn tick(&mut self, now: Timestamp) -> anyhow::Result<()> {
        if now.since(self.signed_at) >= VALID_FOR / 2 {
            Jwts::sign(&self.key, now)?.write(&self.data_dir)?;
            self.signed_at = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use serde_json::Value;

    use super::*;

    fn expires_at(file: &Path) -> i64 {
        let jwt = fs::read_to_string(file).unwrap();
        let claims = BASE64.decode(jwt.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        claims["exp"].as_i64().unwrap()
    }

    #[test]
    fn a_jwt_in_the_folder_always_has_half_a_day_to_live() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_make(folder.path()).unwrap();
        let jwts = Jwts::sign(&key, Timestamp::EPOCH).unwrap();
        jwts.write(folder.path()).unwrap();
        let mut renewal = Renewal {
            key,
            data_dir: folder.path().to_owned(),
            signed_at: Timestamp::EPOCH,
        };
        for hour in 0..100 {
            let now = Timestamp::EPOCH.plus(Duration::from_hours(hour));
            renewal.tick(now).unwrap();
            for (name, _) in jwts.named() {
                let file = folder.path().join(format!("{name}.jwt"));
                let left = expires_at(&file) - now.seconds();
                assert!(
                    (43_201..=86_400).contains(&left),
                    "{name}, hour {hour}: {left} s"
                );
            }
        }
    }
}
