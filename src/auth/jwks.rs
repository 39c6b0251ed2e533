//! Parses JWK sets (RFC 7517), and checks a signature with the key that a credential refers to.
//! This module does not know where a set came from or how old it is.

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use super::algorithm::{Algorithm, Family};

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// The error that a text is not a JWK set.
#[derive(Debug, thiserror::Error)]
#[error("is not a JWK set: JSON with a list `keys` is required")]
pub(super) struct NotAKeySet;

/// The usable keys of a JWK set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    by_kid: HashMap<String, Vec<usize>>,
    skipped: Vec<String>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    family: Family,
    pinned: Option<Algorithm>,
    /// Whether the key signs JWT-SVIDs only (SPIFFE Trust Domain and Bundle §4.2.2).
    for_svids: bool,
    material: Vec<u8>,
    decoding: DecodingKey,
}

/// The result of checking a signature against a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureCheck {
    /// The signature was made with one of the keys.
    Valid,
    /// The credential names a key that did not make the signature, or names no key although several
    /// keys fit.
    Invalid,
    /// The key is not in this set, but may be in a newer one.
    KeyUnknown,
}

/// A signature and the message that it covers, as found in a credential.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignedMessage<'a> {
    pub message: &'a str,
    pub signature: &'a str,
    pub algorithm: Algorithm,
    pub kid: Option<&'a str>,
    /// Whether keys for JWT-SVIDs are accepted.
    pub is_svid: bool,
}

impl KeySet {
    /// Parses a JWK set. Keys that are unusable or weak are skipped.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NotAKeySet> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|_| NotAKeySet)?;
        let mut set = Self::default();
        for key in document.keys {
            set.add(key);
        }
        Ok(set)
    }

    fn add(&mut self, key: serde_json::Value) {
        let name = match key.get("kid").and_then(serde_json::Value::as_str) {
            Some(kid) => format!("{:?}", kid.chars().take(64).collect::<String>()),
            None => "without kid".to_owned(),
        };
        let parsed = serde_json::from_value::<Jwk>(key)
            .map_err(|_| "a member is absent or of the wrong type")
            .and_then(Jwk::parse);
        match parsed {
            Err(why) => self.skipped.push(format!("{name}: {why}")),
            Ok(key) => {
                if let Some(kid) = &key.kid {
                    let places = self.by_kid.entry(kid.clone()).or_default();
                    places.push(self.keys.len());
                }
                self.keys.push(key);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether a key can have made a signature with this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm, is_svid: bool) -> bool {
        self.keys.iter().any(|key| key.fits(algorithm, is_svid))
    }

    /// Returns the keys that were skipped, each with the reason, for the log.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Returns whether both sets contain the same keys and skipped the same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let pairs = self.keys.iter().zip(&other.keys);
        self.keys.len() == other.keys.len()
            && self.skipped == other.skipped
            && pairs.into_iter().all(|(one, two)| one.is_same(two))
    }

    /// Checks a signature against the keys of this set.
    pub(super) fn check(&self, signed: SignedMessage<'_>) -> SignatureCheck {
        match signed.kid {
            Some(kid) => self.check_named(kid, signed),
            None => self.check_unnamed(signed),
        }
    }

    fn check_named(&self, kid: &str, signed: SignedMessage<'_>) -> SignatureCheck {
        let Some(places) = self.by_kid.get(kid) else {
            return SignatureCheck::KeyUnknown;
        };
        let mut named = places.iter().filter_map(|place| self.keys.get(*place));
        if named.any(|key| key.made(signed)) {
            SignatureCheck::Valid
        } else {
            SignatureCheck::Invalid
        }
    }

    /// Checks a signature of a credential without a `kid`. Exactly one key must fit the algorithm.
    /// If that key did not make the signature, the result is [`SignatureCheck::KeyUnknown`],
    /// because the issuer may have replaced the key after this set was fetched.
    fn check_unnamed(&self, signed: SignedMessage<'_>) -> SignatureCheck {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.fits(signed.algorithm, signed.is_svid));
        match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => SignatureCheck::Invalid,
            (Some(key), None) if key.made(signed) => SignatureCheck::Valid,
            _ => SignatureCheck::KeyUnknown,
        }
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm, is_svid: bool) -> bool {
        (is_svid || !self.for_svids)
            && self.family == algorithm.family()
            && self.pinned.is_none_or(|pinned| pinned == algorithm)
    }

    fn made(&self, signed: SignedMessage<'_>) -> bool {
        self.fits(signed.algorithm, signed.is_svid)
            && jsonwebtoken::crypto::verify(
                signed.signature,
                signed.message.as_bytes(),
                &self.decoding,
                signed.algorithm.in_library(),
            )
            .unwrap_or(false)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.family == other.family
            && self.pinned == other.pinned
            && self.for_svids == other.for_svids
            && self.material == other.material
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn parse(self) -> Result<Key, &'static str> {
        let for_svids = match self.purpose.as_deref() {
            None | Some("sig") => false,
            Some("jwt-svid") => true,
            Some(_) => return Err("its use is not sig"),
        };
        if let Some(ops) = &self.key_ops
            && !ops.iter().any(|op| op == "verify")
        {
            return Err("its key_ops lack verify");
        }
        let (family, material, decoding) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => self.rsa()?,
            ("EC", Some("P-256")) => self.ec(Family::P256, 32, &ECDSA_P256_SHA256_FIXED)?,
            ("EC", Some("P-384")) => self.ec(Family::P384, 48, &ECDSA_P384_SHA384_FIXED)?,
            ("OKP", Some("Ed25519")) => self.ed25519()?,
            _ => return Err("its type is not RSA, P-256, P-384 or Ed25519"),
        };
        let pinned = match self.alg.as_deref().map(Algorithm::from_name) {
            None => None,
            Some(Some(pinned)) if pinned.family() == family => Some(pinned),
            Some(_) => return Err("its alg is not for signatures by this type of key"),
        };
        Ok(Key {
            kid: self.kid,
            family,
            pinned,
            for_svids,
            material,
            decoding,
        })
    }

    fn rsa(&self) -> Result<(Family, Vec<u8>, DecodingKey), &'static str> {
        let modulus = number(self.n.as_deref())?;
        let exponent = number(self.e.as_deref())?;
        let bits = modulus.first().map_or(0, |first| {
            modulus.len() * 8 - first.leading_zeros() as usize
        });
        if bits < MIN_RSA_BITS {
            return Err("it is weak: RSA keys need at least 2048 bits");
        }
        if bits > MAX_RSA_BITS {
            return Err("it is too long: RSA keys have at most 8192 bits");
        }
        // An exponent of 1 would make every message its own signature.
        if exponent == [1] || exponent.last().is_none_or(|last| last % 2 == 0) {
            return Err("it is weak: its exponent is not an odd number above 1");
        }
        let parts = RsaPublicKeyComponents {
            n: &modulus,
            e: &exponent,
        };
        parts
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| "it is not an RSA key")?;
        let decoding = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Ok((Family::Rsa, [modulus, exponent].concat(), decoding))
    }

    fn ec(
        &self,
        family: Family,
        width: usize,
        check: &'static dyn VerificationAlgorithm,
    ) -> Result<(Family, Vec<u8>, DecodingKey), &'static str> {
        let (x, y) = (bytes(self.x.as_deref())?, bytes(self.y.as_deref())?);
        if x.len() != width || y.len() != width {
            return Err("its coordinates have the wrong length");
        }
        let point = [vec![4], x, y].concat();
        ParsedPublicKey::new(check, &point).map_err(|_| "it is not a point of its curve")?;
        let decoding = DecodingKey::from_ec_der(&point);
        Ok((family, point, decoding))
    }

    fn ed25519(&self) -> Result<(Family, Vec<u8>, DecodingKey), &'static str> {
        let point = bytes(self.x.as_deref())?;
        ParsedPublicKey::new(&ED25519, &point).map_err(|_| "it is not an Ed25519 key")?;
        let decoding = DecodingKey::from_ed_der(&point);
        Ok((Family::Ed25519, point, decoding))
    }
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("a member is absent")?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "a member is not unpadded base64url")
}

fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}
