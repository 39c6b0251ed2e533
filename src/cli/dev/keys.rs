//! The signing key of the issuer that `dev` runs itself. This is an ES256 key that is generated
//! once and stored in the data folder.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::write_private;

/// The key id (`kid`) of the issuer's only key.
const KID: &str = "dev";

/// A key pair that signs JWTs.
pub struct SigningKey {
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// Loads the key from the data folder. If the folder has no key yet, generates and stores one.
    pub fn load_or_make(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("signing-key");
        if path.exists() {
            let text = fs::read_to_string(&path);
            let pkcs8 = text.ok().and_then(|text| BASE64.decode(text.trim()).ok());
            let key = pkcs8
                .map(|pkcs8| Self { pkcs8 })
                .filter(|key| key.pair().is_ok());
            return key.with_context(|| format!("{} is damaged: delete it", path.display()));
        }
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let made = made.map_err(|_| anyhow!("a signing key could not be made"))?;
        write_private(&path, &BASE64.encode(made.as_ref()))?;
        Ok(Self {
            pkcs8: made.as_ref().to_vec(),
        })
    }

    /// Returns the public key as a JWK set (RFC 7517).
    pub fn jwks(&self) -> anyhow::Result<String> {
        let pair = self.pair()?;
        // An uncompressed point is 0x04, followed by the coordinates x and y of 32 bytes each.
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KID,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        });
        Ok(format!("{:#}\n", json!({ "keys": [key] })))
    }

    /// Returns a signed JWT with these claims.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = Header {
            kid: Some(KID.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        Ok(jsonwebtoken::encode(&header, claims, &key)?)
    }

    fn pair(&self) -> anyhow::Result<EcdsaKeyPair> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8)
            .map_err(|_| anyhow!("the signing key does not parse"))
    }
}
