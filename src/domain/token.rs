//! A management token and its state transitions. Every transition takes the current time as `now`,
//! and none of them makes a dead token live (R8).

use std::time::Duration;

use super::{
    caller::Actor,
    edit::Edit,
    federation::Federation,
    field::{Problem, Violations},
    id::TokenUid,
    labels::Labels,
    permissions::Permissions,
    refusal::Refusal,
    stack::StackKey,
    text::{Description, Reason, TokenName},
    timestamp::Timestamp,
    token_secret::{TokenSecret, TokenSecrets},
};

/// The state of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Neither revoked nor expired.
    Active,
    /// Expired. This is permanent as soon as `expires_at <= now` has been true once.
    Expired,
    /// Revoked. This state takes precedence over `Expired`, because somebody decided it explicitly.
    Revoked,
}

/// The revocation of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When the token was revoked.
    pub at: Timestamp,
    /// Who revoked the token.
    pub by: Actor,
    /// Why the token was revoked. Empty if no reason was given.
    pub reason: Reason,
}

/// The record of a token. It never contains the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The token's id.
    pub uid: TokenUid,
    /// The stack to which the token belongs (R1).
    pub stack_key: StackKey,
    /// The token's name, which is unique among the live tokens of the stack.
    pub name: TokenName,
    /// What the token is for.
    pub description: Description,
    /// What the token may do.
    pub permissions: Permissions,
    /// Labels for finding and grouping tokens. They never affect a verdict.
    pub labels: Labels,
    /// The generation of the newest secret, counted from 1.
    pub generation: u32,
    /// The live secrets of the token, and the former secret whose end was set last.
    pub secrets: TokenSecrets,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// Who issued the token (R11).
    pub issued_by: Actor,
    /// The time from which the token is expired. `None` if it never expires.
    pub expires_at: Option<Timestamp>,
    /// When the store recorded that the token has expired. `None` if this is not recorded. Once it
    /// is recorded, the token stays expired even if a clock is set back (R8).
    pub ended_at: Option<Timestamp>,
    /// The revocation, if the token was revoked.
    pub revocation: Option<Revocation>,
    /// When a service was last answered that the token is active. `None` if this never happened or
    /// is not known.
    pub last_used_at: Option<Timestamp>,
    /// Which workloads may obtain secrets. `None` if the token has secrets of its own.
    pub federation: Option<Federation>,
    /// Whether the operator has configured the issuer of `federation`. This is not stored: the
    /// store sets `false`, and `App::with_use` sets the actual value.
    pub issuer_configured: bool,
}

/// The expiry that a caller requests for a token (R3, R7). A relative value is resolved at the time
/// of the decision, not at the time of the request (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The token never expires.
    Never,
    /// The token expires at this time. For a date, this is the first instant of the day in UTC.
    At(Timestamp),
    /// The token expires this long after the decision, at most [`Expiry::LONGEST`].
    After(Duration),
    /// The token expires immediately.
    Now,
}

impl Expiry {
    /// The longest relative expiry: 36,500 days, about a hundred years. A longer one is probably a
    /// mistake or meant to be [`Expiry::Never`].
    pub const LONGEST: Duration = Duration::from_hours(36_500 * 24);

    /// Returns when the token expires if the request is decided at `now`. Returns `None` if it
    /// never expires.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
            Self::After(length) => Some(now.plus(length)),
            Self::Now => Some(now),
        }
    }

    /// Returns whether the token is already expired if the request is decided at `now`.
    #[must_use]
    pub fn is_reached(self, now: Timestamp) -> bool {
        self.resolve(now).is_some_and(|at| at <= now)
    }
}

impl Token {
    /// Returns the state of the token at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> TokenState {
        if self.revocation.is_some() {
            TokenState::Revoked
        } else if self.ended_at.is_some() || self.expires_at.is_some_and(|at| at <= now) {
            TokenState::Expired
        } else {
            TokenState::Active
        }
    }

    /// Checks that the token is live.
    ///
    /// # Errors
    /// Returns [`Refusal::TokenRevoked`] or [`Refusal::TokenExpired`] (R8) if it is not.
    pub fn require_live(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.state(now) {
            TokenState::Active => Ok(()),
            TokenState::Revoked => Err(Refusal::TokenRevoked),
            TokenState::Expired => Err(Refusal::TokenExpired),
        }
    }

    /// Sets the expiry. If it has already been reached, the token ends at once and permanently (R7,
    /// R8).
    ///
    /// # Errors
    /// Returns the same errors as [`Self::require_live`].
    pub fn set_expiry(
        mut self,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.require_live(now)?;
        self.expires_at = expires_at;
        self.ended_at = expires_at.filter(|at| *at <= now).map(|_| now);
        Ok(self)
    }

    /// Returns whether this expiry is later than the current one.
    #[must_use]
    pub fn outlives(&self, expires_at: Option<Timestamp>) -> bool {
        match (self.expires_at, expires_at) {
            (_, None) => self.expires_at.is_some(),
            (None, Some(_)) => false,
            (Some(current), Some(other)) => other > current,
        }
    }

    /// Changes the name, the description, the permissions, the labels or the federation.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::require_live`], and [`Refusal::Invalid`] if the resulting
    /// permissions are not valid.
    pub fn update(mut self, edit: Edit, now: Timestamp) -> Result<Self, Refusal> {
        self.require_live(now)?;
        self.name = edit.name.unwrap_or(self.name);
        self.description = edit.description.unwrap_or(self.description);
        if let Some(edit) = edit.permissions {
            self.permissions = edit.apply(&self.permissions).map_err(Refusal::Invalid)?;
        }
        self.labels = edit.labels.unwrap_or(self.labels);
        if let Some(federation) = edit.federation {
            if self.federation.is_none() {
                return Err(Refusal::Invalid(not_federated()));
            }
            self.federation = Some(federation);
        }
        Ok(self)
    }

    /// Checks that the token has secrets of its own.
    ///
    /// # Errors
    /// Returns [`Refusal::TokenFederated`] if it has none.
    pub fn require_own_secret(&self) -> Result<(), Refusal> {
        match self.federation {
            None => Ok(()),
            Some(_) => Err(Refusal::TokenFederated),
        }
    }

    /// Records a new secret. Increments the generation and adds the secret; nothing else changes.
    #[must_use]
    pub fn renew(mut self, secret_hint: String, now: Timestamp) -> Self {
        self.generation += 1;
        let secret = TokenSecret::new(self.generation, secret_hint, now);
        self.secrets.push(secret);
        self
    }

    /// Returns the secrets with which the token can be used at `now`, newest first. A dead token
    /// has none.
    pub fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &TokenSecret> {
        let live = self.state(now) == TokenState::Active;
        self.secrets.live(now).rev().filter(move |_| live)
    }

    /// Revokes the token. If it is already revoked, the earlier revocation is kept.
    #[must_use]
    pub fn revoke(mut self, by: Actor, reason: Reason, now: Timestamp) -> Self {
        self.revocation.get_or_insert(Revocation {
            at: now,
            by,
            reason,
        });
        self
    }
}

fn not_federated() -> Violations {
    let mut faults = Violations::default();
    let problem = "cannot be added to a token that has a secret: issue a federated token instead";
    faults.add("token.federation", Problem::new(problem));
    faults
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{
        super::{caller::CallerKind, id, permissions::Draft},
        *,
    };

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn an_actor() -> Actor {
        Actor {
            kind: CallerKind::User,
            issuer: "https://login".into(),
            subject: "ann".into(),
        }
    }

    pub(crate) fn token(expires_at: Option<Timestamp>) -> Token {
        let draft: Draft = serde_json::from_str(r#"{"access":"READ"}"#).unwrap();
        Token {
            uid: id::parse("01890000-0000-7000-8000-000000000000").unwrap(),
            stack_key: StackKey::parse("blt00c0ffee00c0ffee").unwrap(),
            name: TokenName::parse("ci").unwrap(),
            description: Description::parse("").unwrap(),
            permissions: draft.try_into().unwrap(),
            labels: Labels::default(),
            generation: 1,
            secrets: TokenSecrets::default(),
            issued_at: at(0),
            issued_by: an_actor(),
            expires_at,
            ended_at: None,
            revocation: None,
            last_used_at: None,
            federation: None,
            issuer_configured: false,
        }
    }

    #[derive(Clone, Debug)]
    enum Operation {
        SetExpiry(Option<i64>),
        Update,
        Revoke,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            prop::option::of(-50_i64..500).prop_map(Operation::SetExpiry),
            Just(Operation::Update),
            Just(Operation::Revoke),
        ]
    }

    /// Applies an operation as the store does. If the operation is refused because the token has
    /// expired, the store records this.
    fn apply(token: Token, operation: &Operation, now: Timestamp) -> Token {
        let stamped = Token {
            ended_at: token
                .ended_at
                .or((token.state(now) == TokenState::Expired).then_some(now)),
            ..token.clone()
        };
        match operation {
            Operation::SetExpiry(expiry) => {
                token.set_expiry(expiry.map(at), now).unwrap_or(stamped)
            }
            Operation::Update => token.update(Edit::default(), now).unwrap_or(stamped),
            Operation::Revoke => token.revoke(an_actor(), Reason::parse("").unwrap(), now),
        }
    }

    proptest! {
        /// Tests that a dead token stays dead, even if the clock goes back between two operations,
        /// which can happen if they run on different hosts.
        #[test]
        fn dead_stays_dead_under_any_sequence(expiry in prop::option::of(0_i64..200), steps in prop::collection::vec((operation(), 0_i64..300), 1..20)) {
            let mut token = token(expiry.map(at));
            let mut died = false;
            for (operation, now) in steps {
                token = apply(token, &operation, at(now));
                died |= token.state(at(now)) != TokenState::Active;
                if died {
                    prop_assert_ne!(token.state(at(0)), TokenState::Active);
                    prop_assert_ne!(token.state(at(1000)), TokenState::Active);
                }
            }
        }
    }

    #[test]
    fn expired_means_at_or_before_now() {
        let token = token(Some(at(100)));
        assert_eq!(token.state(at(99)), TokenState::Active);
        assert_eq!(token.state(at(100)), TokenState::Expired);
    }

    #[test]
    fn revoked_again_keeps_the_first_revocation() {
        let reason = |text| Reason::parse(text).unwrap();
        let once = token(None).revoke(an_actor(), reason("leaked"), at(5));
        assert_eq!(
            once.clone().revoke(an_actor(), reason("again"), at(9)),
            once
        );
    }

    #[test]
    fn only_a_later_end_outlives() {
        assert!(token(Some(at(5))).outlives(None));
        assert!(token(Some(at(5))).outlives(Some(at(6))));
        assert!(!token(Some(at(5))).outlives(Some(at(5))));
        assert!(!token(None).outlives(Some(at(6))));
        assert!(!token(None).outlives(None));
    }
}
