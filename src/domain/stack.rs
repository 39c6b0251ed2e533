//! A stack as known to this service: its public key, members and token limit.

use std::fmt;

use super::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
    id::StackUid,
    text::{Email, Issuer, StackName, Subject},
    timestamp::Timestamp,
};

/// Default maximum number of live tokens of a stack (R6).
pub const DEFAULT_TOKEN_LIMIT: u32 = 10;
/// Highest maximum that an operator can set.
pub const MAX_TOKEN_LIMIT: u32 = 1000;

const KEY_PREFIX: &str = "blt";

/// A stack's public key: `blt` and 16 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackKey(String);

impl StackKey {
    /// Parses a stack key.
    ///
    /// # Errors
    /// A [`Problem`] for anything but the canonical form.
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

    /// Generates a random key.
    ///
    /// # Errors
    /// [`EntropyFailed`] if the system provides no randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyFailed> {
        let mut random = [0; 8];
        entropy.fill(&mut random)?;
        Ok(Self(format!(
            "{KEY_PREFIX}{:016x}",
            u64::from_be_bytes(random)
        )))
    }

    /// Returns the key as text.
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

/// A member's role in a stack. Only `Owner` and `Admin` may manage tokens (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Exactly one per stack.
    Owner,
    /// Any number per stack.
    Admin,
    /// May not manage tokens.
    Developer,
    /// May not manage tokens.
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

    /// Returns whether this role may manage the stack's tokens (R2).
    #[must_use]
    pub const fn governs_tokens(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// Returns the name used in the API and the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "OWNER",
            Self::Admin => "ADMIN",
            Self::Developer => "DEVELOPER",
            Self::ContentManager => "CONTENT_MANAGER",
        }
    }

    /// Returns the role with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.name() == name)
    }
}

/// State of a stack; it determines whether the stack's tokens work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackState {
    /// Tokens work.
    Active,
    /// Tokens do not work until the stack is resumed.
    Suspended {
        /// Time of the suspension.
        at: Timestamp,
    },
    /// Tokens never work again.
    Removed {
        /// Time of the removal.
        at: Timestamp,
    },
}

/// A person, identified only by `iss` and `sub` of the credential (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// `iss` of the credential.
    pub issuer: Issuer,
    /// `sub` of the credential.
    pub subject: Subject,
    /// Used for notifications only.
    pub email: Option<Email>,
}

/// A person's membership in a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub person: Person,
    /// Their role.
    pub role: Role,
    /// When the person became a member.
    pub added_at: Timestamp,
}

/// Number of live tokens of a stack and its limit (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimit {
    /// Current number.
    pub used: u32,
    /// Maximum.
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
    /// Live tokens and their maximum.
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
