//! The secret of a token, with its generation, recognition and digest. The type cannot be printed,
//! copied or serialized, and its memory is wiped (R9).

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
};

/// The prefix of every secret. The digit 1 is the version of the format.
pub const PREFIX: &str = "stk1_";
const RANDOM_LEN: usize = 40;
const CHECKSUM_LEN: usize = 6;
const CHECKED_LEN: usize = PREFIX.len() + RANDOM_LEN;
/// The length of a secret in bytes, which is also its length in characters.
pub const LEN: usize = CHECKED_LEN + CHECKSUM_LEN;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The largest multiple of 62 that fits in a byte. Random bytes from this value up are discarded,
/// because they would make the first digits more frequent.
const FAIR: u8 = 248;

/// A secret in plain text. It exists from its generation until the response that contains it is
/// sent.
pub struct Secret(Zeroizing<String>);

/// The SHA-256 of a secret. The store keeps only this hash, and finds a token by it. The hash needs
/// no key, because a secret has 238 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Secret {
    /// Generates a secret with 40 random base62 characters (238 bits) and a checksum.
    ///
    /// # Errors
    /// Returns [`EntropyFailed`] if the source of randomness fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyFailed> {
        // The full size is allocated at once, because a growing string would leave copies in freed
        // memory.
        let mut text = Zeroizing::new(String::with_capacity(LEN));
        text.push_str(PREFIX);
        let mut random = Zeroizing::new([0_u8; 64]);
        while text.len() < CHECKED_LEN {
            entropy.fill(random.as_mut())?;
            let missing = CHECKED_LEN - text.len();
            let fair = random.iter().filter(|byte| **byte < FAIR).take(missing);
            text.extend(fair.map(|byte| digit(u32::from(*byte))));
        }
        let mut checksum = checksum(text.as_bytes());
        text.extend(checksum.iter().map(|byte| char::from(*byte)));
        checksum.zeroize();
        Ok(Self(text))
    }

    /// Returns the plain text, for the only response that contains it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the digest, which is stored instead of the secret.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// Returns the last four characters, which help people to distinguish tokens.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.0[LEN - 4..]
    }
}

/// Parses the last four characters of a secret, as [`Secret::hint`] returns them.
///
/// # Errors
/// Returns a problem for any other text.
pub fn parse_hint(text: &str) -> Result<String, Problem> {
    if text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        "is not the last four characters of a secret: 4 of A-Z a-z 0-9",
    ))
}

impl Digest {
    fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(bytes)
    }

    /// Returns the digest of this digest together with the stack key that was presented with the
    /// secret. It identifies the pair in a cache, and is not the digest of any secret.
    #[must_use]
    pub fn with_stack_key(&self, stack_key: &str) -> Self {
        Self::of(&[&self.0, stack_key.as_bytes()].concat())
    }

    /// Returns the 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Returns the digest of a string that a caller presented. Returns `None` if the string does not
/// have the form and the checksum of a secret. The checksum only avoids lookups of arbitrary text,
/// and proves nothing.
#[must_use]
pub fn recognize(presented: &str) -> Option<Digest> {
    let bytes = presented.as_bytes();
    is_well_formed(bytes).then(|| Digest::of(bytes))
}

/// Returns whether a string contains a secret. Names, descriptions and reasons that contain one are
/// rejected.
#[must_use]
pub fn is_within(text: &str) -> bool {
    let starts = text.match_indices(PREFIX);
    starts.into_iter().any(|(at, _)| {
        text.as_bytes()
            .get(at..at + LEN)
            .is_some_and(is_well_formed)
    })
}

fn is_well_formed(bytes: &[u8]) -> bool {
    bytes.len() == LEN
        && bytes.starts_with(PREFIX.as_bytes())
        && bytes[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric)
        && bytes[CHECKED_LEN..] == checksum(&bytes[..CHECKED_LEN])
}

/// Returns the CRC-32/ISO-HDLC in base62. The most significant digit comes first, and the number is
/// padded with zeros.
fn checksum(checked: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(checked);
    let mut digits = [0; CHECKSUM_LEN];
    for place in digits.iter_mut().rev() {
        *place = DIGITS[rest as usize % DIGITS.len()];
        rest /= 62;
    }
    digits
}

fn digit(value: u32) -> char {
    char::from(DIGITS[value as usize % DIGITS.len()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An entropy source that repeats bytes chosen by the test.
    struct Fixed(Vec<u8>);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
            for (place, byte) in buffer.iter_mut().zip(self.0.iter().cycle()) {
                *place = *byte;
            }
            Ok(())
        }
    }

    fn hex(digest: Digest) -> String {
        digest
            .as_bytes()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }

    /// Golden vectors, computed independently with Python's `zlib.crc32` and `hashlib.sha256`. The
    /// server's manual publishes the same vectors, and a test compares the manual with this code.
    const GOLDEN: &[(&str, &str)] = &[
        (
            "stk1_00000000000000000000000000000000000000004Sa1ut",
            "df13aadc476a397bbbd167b46064ee40523802369eb8b4c0741068abc5915185",
        ),
        (
            "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO",
            "ed06179f023c4137aa8d149a1d69633c4a6e33e6752faafd8a4e570bb32192de",
        ),
        (
            "stk1_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd1L1VLq",
            "a56dffd60233673142aa85c7166492f68a7ca97e05c99b29c5e8a90c5aa452d3",
        ),
        (
            "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy",
            "fb9fc660f84c5df15c3f48a6f0b6884dc96ba2a904f6d7a0a9341b5914155a34",
        ),
        (
            "stk1_000000000000000000000000000000000000021600RYgL",
            "a2f8ec46b012ae376112641989ce161cfc46a6420f92aa252814930600db71a4",
        ),
    ];

    #[test]
    fn golden_vectors_hold() {
        for (secret, digest) in GOLDEN {
            assert_eq!(
                recognize(secret).map(hex).as_deref(),
                Some(*digest),
                "{secret}"
            );
        }
    }

    #[test]
    fn bytes_that_would_favour_some_digits_are_skipped() {
        let secret = Secret::generate(&Fixed(vec![255, 248, 61, 250, 0])).unwrap();
        assert!(secret.expose().starts_with("stk1_z0z0z0"));
    }

    #[test]
    fn hint_is_the_tail() {
        let secret = Secret::generate(&Fixed(vec![7])).unwrap();
        assert_eq!(secret.hint(), &secret.expose()[47..]);
    }

    proptest! {
        #[test]
        fn every_generated_secret_is_recognized(seed in prop::collection::vec(0_u8..FAIR, 64)) {
            let secret = Secret::generate(&Fixed(seed)).unwrap();
            prop_assert_eq!(secret.expose().len(), LEN);
            prop_assert_eq!(recognize(secret.expose()).map(hex), Some(hex(secret.digest())));
        }

        #[test]
        fn any_one_character_change_is_refused(seed in prop::collection::vec(0_u8..FAIR, 64), at in 0..LEN, to in any::<char>()) {
            let secret = Secret::generate(&Fixed(seed)).unwrap();
            let mut changed: Vec<char> = secret.expose().chars().collect();
            prop_assume!(changed[at] != to);
            changed[at] = to;
            prop_assert!(recognize(&changed.into_iter().collect::<String>()).is_none());
        }

        #[test]
        fn any_other_length_is_refused(seed in prop::collection::vec(0_u8..FAIR, 64), len in 0..LEN, tail in "[0-9A-Za-z \n]{1,3}") {
            let secret = Secret::generate(&Fixed(seed)).unwrap();
            let longer = format!("{}{tail}", secret.expose());
            let shifted = format!("{tail}{}", secret.expose());
            prop_assert!(recognize(&secret.expose()[..len]).is_none());
            prop_assert!(recognize(&longer).is_none());
            prop_assert!(recognize(&shifted).is_none());
        }

        #[test]
        fn a_secret_within_a_text_is_found(seed in prop::collection::vec(0_u8..FAIR, 64), before in ".{0,20}", after in ".{0,20}") {
            let secret = Secret::generate(&Fixed(seed)).unwrap();
            let text = format!("{before}{}{after}", secret.expose());
            prop_assert!(is_within(&text));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = recognize(&text);
            let _ = is_within(&format!("stk1_{text}"));
        }
    }
}
