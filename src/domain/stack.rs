//! A stack as this service knows it: its public key, its members, its limit.

use std::fmt;

use super::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
    id::StackUid,
    text::{Email, Issuer, StackName, Subject},
    timestamp::Timestamp,
};

/// How many live tokens a stack may have unless an operator says otherwise (R6).
pub const DEFAULT_TOKEN_LIMIT: u32 = 10;
/// The most that an operator may say.
pub const MAX_TOKEN_LIMIT: u32 = 1000;

const KEY_PREFIX: &str = "blt";

/// A stack's public key: `blt` and 16 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackKey(String);

impl StackKey {
    /// The key in a text.
    ///
    /// # Errors
    /// A problem for anything but the one spelling.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new(
                "is required: the stack's public key, `blt` and 16 hexadecimal digits",
            ));
        }
        let digits = text
            .strip_prefix(KEY_PREFIX)
            .filter(|digits| digits.len() == 16);
        if digits.is_some_and(|digits| {
            digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        }) {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::new(
            "must be `blt` and 16 lower-case hexadecimal digits, such as blt00c0ffee00c0ffee",
        ))
    }

    /// A new key.
    ///
    /// # Errors
    /// [`EntropyFailed`] where there is no randomness to be had.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyFailed> {
        let mut random = [0; 8];
        entropy.fill(&mut random)?;
        Ok(Self(format!(
            "{KEY_PREFIX}{:016x}",
            u64::from_be_bytes(random)
        )))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A member's part in a stack. Only the first two have a say over tokens (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Exactly one per stack.
    Owner,
    /// As many as the owner likes.
    Admin,
    /// No say over tokens.
    Developer,
    /// No say over tokens.
    ContentManager,
}

impl Role {
    /// All roles.
    pub const ALL: &[Self] = &[
        Self::Owner,
        Self::Admin,
        Self::Developer,
        Self::ContentManager,
    ];

    /// Whether this role has a say over the stack's tokens (R2).
    #[must_use]
    pub const fn governs_tokens(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// The name in the contract and the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "OWNER",
            Self::Admin => "ADMIN",
            Self::Developer => "DEVELOPER",
            Self::ContentManager => "CONTENT_MANAGER",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.name() == name)
    }
}

/// Whether a stack's tokens work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackState {
    /// They do.
    Active,
    /// Not until it is resumed.
    Suspended {
        /// Since when.
        at: Timestamp,
    },
    /// Never again.
    Removed {
        /// Since when.
        at: Timestamp,
    },
}

/// A person: `iss` and `sub` of their credential say who it is, and nothing else does (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// `iss`.
    pub issuer: Issuer,
    /// `sub`.
    pub subject: Subject,
    /// For notices only.
    pub email: Option<Email>,
}

/// A person's part in a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// Their role.
    pub role: Role,
    /// Since when.
    pub added_at: Timestamp,
}

/// Live tokens of a stack (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimit {
    /// Now.
    pub used: u32,
    /// At most.
    pub max: u32,
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its id.
    pub uid: StackUid,
    /// Its public key.
    pub key: StackKey,
    /// Its name.
    pub name: StackName,
    /// The organization it belongs to.
    pub organization_uid: String,
    /// Whether its tokens work.
    pub state: StackState,
    /// The one owner (R2).
    pub owner: Person,
    /// Live tokens now and at most.
    pub limit: TokenLimit,
    /// When it was registered.
    pub registered_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_spelling() {
        assert!(StackKey::parse("blt00c0ffee00c0ffee").is_ok());
        for bad in [
            "",
            "blt",
            "blt00C0FFEE00C0FFEE",
            "blt00c0ffee00c0ffe",
            "blt00c0ffee00c0ffeee",
            " blt00c0ffee00c0ffee",
            "xyz00c0ffee00c0ffee",
        ] {
            assert!(StackKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
