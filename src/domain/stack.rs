//! Defines stacks, with their API keys, members and token limits.

use std::fmt;

use super::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
    id::StackUid,
    text::{Email, Issuer, StackName, Subject},
    timestamp::Timestamp,
};

/// The default limit on live tokens of a stack (R6). `store/token/limit.rs` enforces the limit.
pub const DEFAULT_TOKEN_LIMIT: u32 = 10;
/// The highest limit that an operator can set.
pub const MAX_TOKEN_LIMIT: u32 = 1000;

const KEY_PREFIX: &str = "blt";

/// A stack's API key, which is public. It consists of `blt` and 16 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackKey(String);

impl StackKey {
    /// Parses a stack key.
    ///
    /// # Errors
    /// Returns a [`Problem`] for anything but the canonical form.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new(
                "is required: the stack's API key, `blt` and 16 hexadecimal digits",
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

    /// Generates a random stack key.
    ///
    /// # Errors
    /// Returns [`EntropyFailed`] if the source of randomness fails.
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
    /// Owns the stack. Each stack has exactly one owner.
    Owner,
    /// May manage tokens like the owner. A stack can have any number of admins.
    Admin,
    /// Has no permission to manage tokens.
    Developer,
    /// Has no permission to manage tokens.
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
    pub const fn manages_tokens(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// Returns the name of the role in the API and in the store.
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

/// The state of a stack. It determines whether the stack's tokens work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackState {
    /// The stack's tokens work.
    Active,
    /// The stack's tokens do not work until the stack is resumed.
    Suspended {
        /// When the stack was suspended.
        at: Timestamp,
    },
    /// The stack's tokens will never work again.
    Removed {
        /// When the stack was removed.
        at: Timestamp,
    },
}

/// A person. Only the `iss` and `sub` of the credential identify the person (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The `iss` of the credential.
    pub issuer: Issuer,
    /// The `sub` of the credential.
    pub subject: Subject,
    /// The email address, which is used only for notifications.
    pub email: Option<Email>,
}

/// A person's membership in a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The person who is a member.
    pub person: Person,
    /// The person's role in the stack.
    pub role: Role,
    /// When the person became a member.
    pub added_at: Timestamp,
}

/// A stack as a caller who is a member of it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnStack {
    /// The stack's public key.
    pub key: StackKey,
    /// The stack's name.
    pub name: StackName,
    /// The organization to which the stack belongs.
    pub organization_uid: String,
    /// Whether the stack's tokens work.
    pub state: StackState,
    /// The caller's role in the stack.
    pub role: Role,
}

/// The number of live tokens of a stack, and its limit (R6). `store/token/limit.rs` counts the
/// tokens and enforces the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimit {
    /// The current number of live tokens.
    pub used: u32,
    /// The maximum number of live tokens.
    pub max: u32,
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The stack's id.
    pub uid: StackUid,
    /// The stack's public key.
    pub key: StackKey,
    /// The stack's name.
    pub name: StackName,
    /// The organization to which the stack belongs.
    pub organization_uid: String,
    /// Whether the stack's tokens work.
    pub state: StackState,
    /// The only owner of the stack (R2).
    pub owner: Person,
    /// The number of live tokens and its limit.
    pub limit: TokenLimit,
    /// When the stack was registered.
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
