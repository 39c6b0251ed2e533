//! Credentials that must be refused, and a few that must be accepted. The tests pass the same rows
//! to the authenticator and send them over the wire. This file defines its own issuer and does not
//! depend on a server.

use std::sync::OnceLock;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// The issuer that the issuers file lists for users.
pub const ISSUER: &str = "https://login.example.com";
/// The URL of the key set of [`ISSUER`].
pub const JWKS_URL: &str = "https://login.example.com/keys";
/// The configured audience.
pub const AUDIENCE: &str = "stacktoken";
/// The issuers file that the rows assume. It lists [`ISSUER`] for users, and another issuer.
pub const ISSUERS: &str = r#"
[[issuers]]
issuer     = "https://login.example.com"
audience   = "stacktoken"
jwks_url   = "https://login.example.com/keys"
algorithms = ["RS256", "ES256", "EdDSA"]
caller     = "user"

[[issuers]]
issuer     = "https://other.example.com"
audience   = "stacktoken"
jwks_url   = "https://other.example.com/keys"
algorithms = ["RS256"]
caller     = "service"
subjects   = ["*"]
"#;

/// The modulus of a 1024-bit key, and a JWT signed with this key whose `exp` is in the year 2100.
/// They were created with `openssl genrsa 1024`, `openssl rsa -modulus` and `openssl dgst -sha256
/// -sign`; the private key was not kept.
const WEAK_MODULUS: &str = "qvfYLYXrskSKMxy5zTzSCR7nNZ83fHmGkLyu7qVE0PLOFtJn6dnAu6fAY4fyaepI_dhs9jat57sAjg4vrm4jtevm5U1EPaL0KGFaYk4smGKzm2k0zQmtdjbNw1E4xsL5XUi0QqaJ7fKb_HAEkbO9PctA_X5liXWK-_c5GGttvUc";
const WEAK_JWT: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xMDI0IiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIiwiYXVkIjoic3RhY2t0b2tlbiIsInN1YiI6Im1hbGxvcnkiLCJleHAiOjQxMDI0NDQ4MDB9.a2yV3c_DdzmQnA5oLEhwG_mFKXJPa437pYIbjrqzitdawjuQ8FeFmUuVEhQxLgIwAijgr30j8Z2-Se6ax-0Fa8On7Tv0Vi03cXB_bB8onvlXrJ9yd_fG5PMzXEVq-9NO1wbwax-EJNfNcs8F01mfwoyLq3kECuUU7L1Z6a_eHxw";
/// A well-formed token that was never issued.
const MANAGEMENT_TOKEN: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";

/// An issuer with one key of each type.
pub struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    /// Creates an issuer with new keys.
    pub fn generate() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// Returns the issuer that the issuers file lists as [`ISSUER`].
    pub fn ours() -> &'static Self {
        static OURS: OnceLock<Issuer> = OnceLock::new();
        OURS.get_or_init(Self::generate)
    }

    /// Returns the other issuer in the issuers file.
    pub fn other() -> &'static Self {
        static OTHER: OnceLock<Issuer> = OnceLock::new();
        OTHER.get_or_init(Self::generate)
    }

    /// Returns the RSA key as a JWK.
    pub fn rsa_jwk(&self, kid: &str) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({"kty": "RSA", "kid": kid, "n": b64(&public.n), "e": b64(&public.e)})
    }

    /// Returns the key set. It contains the usable keys `rsa`, `p256`, `p384` and `ed25519`, and
    /// keys that must not be used.
    pub fn jwks(&self) -> String {
        let mut pinned = self.rsa_jwk("rsa-for-rs512");
        pinned["alg"] = "RS512".into();
        let mut encrypting = self.rsa_jwk("rsa-for-encryption");
        encrypting["use"] = "enc".into();
        let (x, y) = point(&self.p256, 32);
        let (x3, y3) = point(&self.p384, 48);
        let keys = json!({"keys": [
            self.rsa_jwk("rsa"), self.rsa_jwk("rsa-again"), pinned, encrypting,
            {"kty": "EC", "crv": "P-256", "kid": "p256", "use": "sig", "alg": "ES256", "x": x, "y": y},
            {"kty": "EC", "crv": "P-256", "kid": "off-curve", "x": x, "y": x},
            {"kty": "EC", "crv": "P-384", "kid": "p384", "x": x3, "y": y3},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": b64(self.ed25519.public_key().as_ref())},
            {"kty": "RSA", "kid": "rsa-1024", "n": WEAK_MODULUS, "e": "AQAB"},
            {"kty": "RSA", "kid": "exponent-1", "n": self.rsa_jwk("")["n"], "e": "AQ"},
            {"kty": "oct", "kid": "shared", "k": b64(SHARED)},
            {"kty": 7}, "not even an object",
        ]});
        keys.to_string()
    }

    /// Signs a JWT with this header and these claims. The header's `alg` selects the algorithm.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs a JWT whose header and claims are raw text, which need not be valid JSON.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let alg = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| header["alg"].as_str().map(str::to_owned));
        let signature = self.signature(alg.as_deref().unwrap_or("RS256"), message.as_bytes());
        format!("{message}.{}", b64(&signature))
    }

    fn signature(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match alg {
            "RS256" => self.rsa_signature(&RSA_PKCS1_SHA256, message),
            "RS384" => self.rsa_signature(&RSA_PKCS1_SHA384, message),
            "RS512" => self.rsa_signature(&RSA_PKCS1_SHA512, message),
            "PS256" => self.rsa_signature(&RSA_PSS_SHA256, message),
            "PS384" => self.rsa_signature(&RSA_PSS_SHA384, message),
            "PS512" => self.rsa_signature(&RSA_PSS_SHA512, message),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            _ => Vec::new(),
        }
    }

    fn rsa_signature(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa
            .sign(encoding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    }

    /// Returns the public key as PEM. A server with an algorithm confusion bug would use this text
    /// as the HMAC secret.
    fn rsa_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.rsa.public_key().as_der().unwrap();
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|l| str::from_utf8(l).unwrap())
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }
}

const SHARED: &[u8] = b"a shared secret left in the key set by mistake";

/// Returns claims that the authenticator accepts at `now`, in seconds since the epoch.
pub fn claims(now: i64) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now - 60, "exp": now + 600})
}

/// Returns a JWT header with this algorithm and key id.
pub fn header(alg: &str, kid: &str) -> Value {
    json!({"alg": alg, "kid": kid, "typ": "JWT"})
}

/// Returns `authorization` values that must be accepted at `now`.
pub fn controls(now: i64) -> Vec<(&'static str, String)> {
    let ours = Issuer::ours();
    let plain = claims(now);
    let signed = |header: Value| format!("Bearer {}", ours.sign(&header, &plain));
    let claimed = |claim: &str, value: Value| rs256(&with(&plain, claim, value));
    vec![
        ("RS256", signed(header("RS256", "rsa"))),
        ("ES256", signed(header("ES256", "p256"))),
        ("EdDSA", signed(header("EdDSA", "ed25519"))),
        (
            "scheme in another case",
            rs256(&plain).replace("Bearer", "bEARER"),
        ),
        ("no typ", signed(json!({"alg": "RS256", "kid": "rsa"}))),
        (
            "typ of an access token",
            signed(with(&header("RS256", "rsa"), "typ", "at+JWT".into())),
        ),
        (
            "typ in full",
            signed(with(
                &header("RS256", "rsa"),
                "typ",
                "application/jwt".into(),
            )),
        ),
        ("no kid, one matching key", signed(json!({"alg": "EdDSA"}))),
        ("aud among others", claimed("aud", json!(["x", AUDIENCE]))),
        (
            "exp with a fraction",
            claimed("exp", json!(600.5 + f64::from(i32::try_from(now).unwrap()))),
        ),
        (
            "exp in the year 30000",
            claimed("exp", json!(900_000_000_000_i64)),
        ),
        ("exp beyond all calendars", claimed("exp", json!(u64::MAX))),
        ("expired 4 s ago", claimed("exp", json!(now - 4))),
        ("valid in 4 s", claimed("nbf", json!(now + 4))),
        (
            "sub of 255 characters",
            claimed("sub", "x".repeat(255).into()),
        ),
    ]
}

/// Returns `authorization` values that must be refused as invalid credentials at `now`.
pub fn rows(now: i64) -> Vec<(&'static str, String)> {
    let mut rows = bad_signatures(now);
    rows.extend(bad_headers(now));
    rows.extend(bad_claims(now));
    rows.extend(bad_forms(now));
    rows
}

/// Returns `authorization` values that contain a management token. A management token does not
/// identify a caller, so they must be refused.
pub fn management_tokens() -> Vec<(&'static str, String)> {
    vec![
        (
            "management token as bearer",
            format!("Bearer {MANAGEMENT_TOKEN}"),
        ),
        (
            "management token, other scheme",
            format!("Token {MANAGEMENT_TOKEN}"),
        ),
        ("management token, no scheme", MANAGEMENT_TOKEN.to_owned()),
        (
            "management token, more spaces",
            format!("bearer   {MANAGEMENT_TOKEN}"),
        ),
    ]
}

fn bad_signatures(now: i64) -> Vec<(&'static str, String)> {
    let (ours, other, plain) = (Issuer::ours(), Issuer::other(), claims(now));
    let signed = |by: &Issuer, header: Value| format!("Bearer {}", by.sign(&header, &plain));
    let unsigned = |alg: &str| signed(ours, header(alg, "rsa"));
    let (good, es256) = (rs256(&plain), signed(ours, header("ES256", "p256")));
    let pem = ours.rsa_pem();
    vec![
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg nOnE", unsigned("nOnE")),
        (
            "alg none with a signature",
            swap_header(&good, &header("none", "rsa")),
        ),
        (
            "alg rs256 in another case",
            swap_header(&good, &header("rs256", "rsa")),
        ),
        ("no alg", swap_header(&good, &json!({"kid": "rsa"}))),
        (
            "HS256 with the RSA public key",
            hs256(pem.as_bytes(), "rsa", &plain),
        ),
        (
            "HS256 with a key of the set",
            hs256(SHARED, "shared", &plain),
        ),
        (
            "kid of another issuer",
            signed(other, header("RS256", "other")),
        ),
        (
            "key of another issuer under our kid",
            signed(other, header("RS256", "rsa")),
        ),
        (
            "key of another issuer without kid",
            signed(other, json!({"alg": "RS256"})),
        ),
        ("ES256 with r and s of 0", zero(&es256, 0..64)),
        ("ES256 with r of 0", zero(&es256, 0..32)),
        ("ES256 with s of 0", zero(&es256, 32..64)),
        (
            "EdDSA of zeros",
            zero(&signed(ours, header("EdDSA", "ed25519")), 0..64),
        ),
        ("no signature", zero(&es256, 0..0)),
        ("RSA key of 1024 bits", format!("Bearer {WEAK_JWT}")),
        (
            "RSA key with exponent 1",
            signed(ours, header("RS256", "exponent-1")),
        ),
        (
            "key off its curve",
            signed(ours, header("ES256", "off-curve")),
        ),
        (
            "key for encryption",
            signed(ours, header("RS256", "rsa-for-encryption")),
        ),
        (
            "key pinned to another alg",
            signed(ours, header("RS256", "rsa-for-rs512")),
        ),
        (
            "key of another family",
            signed(ours, header("RS256", "p256")),
        ),
        (
            "alg not supported: PS256",
            signed(ours, header("PS256", "rsa")),
        ),
        (
            "alg not configured: RS512",
            signed(ours, header("RS512", "rsa-for-rs512")),
        ),
        (
            "alg not configured: ES384",
            signed(ours, header("ES384", "p384")),
        ),
        (
            "no kid, several matching keys",
            signed(ours, json!({"alg": "RS256"})),
        ),
        (
            "claims of another JWT",
            swap_claims(&good, &with(&plain, "sub", "root".into())),
        ),
    ]
}

fn bad_headers(now: i64) -> Vec<(&'static str, String)> {
    let (ours, plain) = (Issuer::ours(), claims(now));
    let good = header("RS256", "rsa");
    let changed = |name: &str, value: Value| {
        format!("Bearer {}", ours.sign(&with(&good, name, value), &plain))
    };
    let twice = r#"{"alg":"RS256","kid":"rsa","kid":"rsa"}"#;
    let own_key = |kid: &str| Issuer::other().rsa_jwk(kid);
    let mut own = with(&good, "jwk", own_key("rsa"));
    own["alg"] = "RS256".into();
    vec![
        (
            "jku",
            changed("jku", "https://attacker.example/keys".into()),
        ),
        (
            "x5u",
            changed("x5u", "https://attacker.example/cert".into()),
        ),
        ("x5c", changed("x5c", json!(["MIIB"]))),
        ("jwk", changed("jwk", ours.rsa_jwk("rsa"))),
        (
            "jwk of the attacker's own",
            format!("Bearer {}", Issuer::other().sign(&own, &plain)),
        ),
        ("crit", changed("crit", json!(["exp"]))),
        ("crit that is empty", changed("crit", json!([]))),
        ("b64", changed("b64", json!(true))),
        ("zip", changed("zip", "DEF".into())),
        ("enc", changed("enc", "A128GCM".into())),
        (
            "typ of another kind of JWT",
            changed("typ", "secevent+jwt".into()),
        ),
        ("typ that is not a string", changed("typ", json!(1))),
        (
            "kid that is a path",
            changed("kid", "../../../../dev/null".into()),
        ),
        ("kid that is SQL", changed("kid", "rsa' OR '1'='1".into())),
        ("kid that is unknown", changed("kid", "nobody".into())),
        ("kid that is empty", changed("kid", "".into())),
        ("kid that is not a string", changed("kid", json!(["rsa"]))),
        (
            "kid of 257 characters",
            changed("kid", "k".repeat(257).into()),
        ),
        (
            "header with a duplicate name",
            format!("Bearer {}", ours.sign_text(twice, &plain.to_string())),
        ),
        (
            "header that is a list",
            format!("Bearer {}", ours.sign_text("[]", &plain.to_string())),
        ),
    ]
}

fn bad_claims(now: i64) -> Vec<(&'static str, String)> {
    let plain = claims(now);
    let set = |claim: &str, value: Value| rs256(&with(&plain, claim, value));
    let without = |claim: &str| {
        let mut claims = plain.clone();
        claims.as_object_mut().unwrap().remove(claim);
        rs256(&claims)
    };
    let twice = plain.to_string().replacen('{', r#"{"sub":"root","#, 1);
    let twice = Issuer::ours().sign_text(&header("RS256", "rsa").to_string(), &twice);
    vec![
        (
            "exp as a string",
            set("exp", (now + 600).to_string().into()),
        ),
        ("exp as null", set("exp", Value::Null)),
        ("exp absent", without("exp")),
        ("exp as a list", set("exp", json!([now + 600]))),
        ("expired 6 s ago", set("exp", json!(now - 6))),
        ("expired 5 s ago", set("exp", json!(now - 5))),
        ("expired before the epoch", set("exp", json!(i64::MIN))),
        ("nbf as a string", set("nbf", now.to_string().into())),
        ("nbf as null", set("nbf", Value::Null)),
        ("valid in 6 s", set("nbf", json!(now + 6))),
        ("valid in an hour", set("nbf", json!(now + 3600))),
        ("sub empty", set("sub", "".into())),
        ("sub absent", without("sub")),
        ("sub as a number", set("sub", json!(7))),
        ("sub of 256 characters", set("sub", "x".repeat(256).into())),
        ("sub with a line break", set("sub", "alice\nroot".into())),
        ("sub with a NUL", set("sub", "alice\u{0}".into())),
        ("aud wrong", set("aud", "another".into())),
        ("aud absent", without("aud")),
        (
            "aud among others only",
            set("aud", json!(["x", "stacktoken2", 7])),
        ),
        ("aud as an object", set("aud", json!({"stacktoken": true}))),
        ("iss wrong", set("iss", "https://attacker.example".into())),
        (
            "iss with an additional slash",
            set("iss", format!("{ISSUER}/").into()),
        ),
        (
            "iss of another issuer",
            set("iss", "https://other.example.com".into()),
        ),
        ("iss as a list", set("iss", json!([ISSUER]))),
        ("iss absent", without("iss")),
        ("claims that are a list", rs256(&json!([plain.clone()]))),
        ("claims with a duplicate name", format!("Bearer {twice}")),
    ]
}

fn bad_forms(now: i64) -> Vec<(&'static str, String)> {
    let ours = Issuer::ours();
    let plain = claims(now);
    let good = rs256(&plain);
    let token = good.trim_start_matches("Bearer ");
    let parts: Vec<_> = token.split('.').collect();
    let (head, body, seal) = (parts[0], parts[1], parts[2]);
    let padded = |part: &str| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(part).unwrap());
    // The base64 of a part has padding unless the length of the part is a multiple of 3. The two
    // sets of claims differ in length by one byte, so at least one of them needs padding.
    let longer = rs256(&with(&plain, "sub", "alice2".into()));
    let padded_claims = [good.as_str(), longer.as_str()]
        .map(|value| value.split('.').nth(1).unwrap().to_owned())
        .into_iter()
        .zip([&good, &longer])
        .find(|(part, _)| part.len() % 4 != 0)
        .map(|(part, value)| value.replace(&part, &padded(&part)));
    let nested = ours.sign_text(
        &with(&header("RS256", "rsa"), "cty", "JWT".into()).to_string(),
        token,
    );
    let mut rows = vec![
        ("empty value", String::new()),
        ("blank value", "   ".to_owned()),
        ("scheme only", "Bearer".to_owned()),
        ("scheme and a space", "Bearer ".to_owned()),
        ("no scheme", token.to_owned()),
        ("another scheme", format!("Basic {token}")),
        ("two blanks", format!("Bearer  {token}")),
        ("a tab", format!("Bearer\t{token}")),
        ("a leading space", format!(" {good}")),
        ("a trailing space", format!("{good} ")),
        ("a trailing line break", format!("{good}\n")),
        ("two in one", format!("{good}, {good}")),
        (
            "more than 8 KiB",
            rs256(&with(&plain, "x", "x".repeat(9000).into())),
        ),
        (
            "JWE of 5 segments",
            format!("Bearer {head}.{seal}.{body}.{body}.{seal}"),
        ),
        ("two segments", format!("Bearer {head}.{body}")),
        ("a fourth segment", format!("{good}.")),
        ("a fourth segment before", format!("Bearer .{token}")),
        ("nested JWT", format!("Bearer {nested}")),
        ("trailing bytes", format!("{good}AAAA")),
        ("trailing NUL", format!("{good}\0")),
        (
            "padded signature",
            format!("Bearer {head}.{body}.{}", padded(seal)),
        ),
        (
            "signature in the other alphabet",
            format!(
                "Bearer {head}.{body}.{}",
                seal.replace('-', "+").replace('_', "/")
            ),
        ),
        (
            "signature with spare bits",
            format!("Bearer {head}.{body}.{}", spare_bits(seal)),
        ),
        ("a percent sign", good.replace('.', "%2E")),
    ];
    rows.extend(padded_claims.map(|value| ("padded claims", value)));
    rows
}

/// Returns the header and claims of a JWT, without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()))
}

fn rs256(claims: &Value) -> String {
    format!(
        "Bearer {}",
        Issuer::ours().sign(&header("RS256", "rsa"), claims)
    )
}

fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let header = header("HS256", kid).to_string();
    let message = format!(
        "{}.{}",
        b64(header.as_bytes()),
        b64(claims.to_string().as_bytes())
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("Bearer {message}.{}", b64(tag.as_ref()))
}

fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[name] = value;
    object
}

fn swap_header(value: &str, header: &Value) -> String {
    let (_, rest) = value.split_once('.').unwrap();
    format!("Bearer {}.{rest}", b64(header.to_string().as_bytes()))
}

fn swap_claims(value: &str, claims: &Value) -> String {
    let parts: Vec<_> = value.split('.').collect();
    format!(
        "{}.{}.{}",
        parts[0],
        b64(claims.to_string().as_bytes()),
        parts[2]
    )
}

/// Sets these bytes of the signature to 0, or removes the whole signature if the range is empty.
fn zero(value: &str, bytes: std::ops::Range<usize>) -> String {
    let (message, seal) = value.rsplit_once('.').unwrap();
    let mut seal = URL_SAFE_NO_PAD.decode(seal).unwrap();
    if bytes.is_empty() {
        seal.clear();
    } else {
        seal[bytes].fill(0);
    }
    format!("{message}.{}", b64(&seal))
}

/// Replaces the last character with one that decodes to the same bytes but sets unused bits.
fn spare_bits(seal: &str) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = seal.split_at(seal.len() - 1);
    let place = alphabet.find(last).unwrap();
    format!("{start}{}", &alphabet[place + 1..place + 2])
}

fn point(key: &EcdsaKeyPair, width: usize) -> (String, String) {
    let (x, y) = key.public_key().as_ref()[1..].split_at(width);
    (b64(x), b64(y))
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
