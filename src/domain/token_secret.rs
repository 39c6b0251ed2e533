//! Metadata of the secrets of a token: when each secret was created and first used, and when it
//! ends. The secrets themselves are not included (R9).

use super::{
    rotation::{LiveSecret, Plan, SecretEnd},
    timestamp::Timestamp,
};

/// Metadata of a secret of a token. The secret itself is not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSecret {
    /// The generation of the secret.
    pub generation: u32,
    /// The last four characters of the secret. Empty if they are not known.
    pub hint: String,
    /// When the secret was created.
    pub created_at: Timestamp,
    /// When a service that presented this secret was first answered that the token is active.
    pub first_used_at: Option<Timestamp>,
    /// The end of the secret's overlap with a newer one, as last set by `Rotate` or `EndOverlap`.
    /// `None` if there was no overlap.
    pub ending: Option<SecretEnd>,
    /// Whether the secret has ended permanently.
    pub superseded: bool,
}

/// The secrets of a token, ordered by generation: the live secrets, and the former secret whose end
/// was set last, even if that secret has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSecrets(Vec<TokenSecret>);

impl TokenSecret {
    /// Creates an unused secret.
    #[must_use]
    pub const fn new(generation: u32, hint: String, now: Timestamp) -> Self {
        Self {
            generation,
            hint,
            created_at: now,
            first_used_at: None,
            ending: None,
            superseded: false,
        }
    }

    /// Returns whether the secret is valid at `now`, provided that its token is live.
    fn is_live(&self, now: Timestamp) -> bool {
        !self.superseded && self.ending.is_none_or(|ending| ending.at > now)
    }

    const fn for_rotation(&self) -> LiveSecret {
        LiveSecret {
            generation: self.generation,
            used: self.first_used_at.is_some(),
            ending: self.ending,
        }
    }
}

impl From<Vec<TokenSecret>> for TokenSecrets {
    fn from(mut secrets: Vec<TokenSecret>) -> Self {
        secrets.sort_unstable_by_key(|secret| secret.generation);
        Self(secrets)
    }
}

impl TokenSecrets {
    /// Returns the secrets, ended or not, oldest first.
    #[must_use]
    pub fn all(&self) -> &[TokenSecret] {
        &self.0
    }

    /// Returns the secrets that are valid at `now`, oldest first, provided that their token is
    /// live.
    #[must_use]
    pub fn live(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &TokenSecret> {
        self.0.iter().filter(move |secret| secret.is_live(now))
    }

    /// Returns the generation and the end of the former secret whose end was set last. The end may
    /// have passed.
    #[must_use]
    pub fn last_overlap(&self) -> Option<(u32, SecretEnd)> {
        let mut newest_first = self.0.iter().rev();
        newest_first.find_map(|secret| Some((secret.generation, secret.ending?)))
    }

    /// Returns the last four characters of the newest secret.
    #[must_use]
    pub fn newest_hint(&self) -> &str {
        self.0.last().map_or("", |secret| secret.hint.as_str())
    }

    /// Returns the live secrets as input for [`plan`](super::rotation::plan).
    #[must_use]
    pub fn for_rotation(&self, now: Timestamp) -> Vec<LiveSecret> {
        self.live(now).map(TokenSecret::for_rotation).collect()
    }

    /// Adds a secret as the newest one.
    pub fn push(&mut self, secret: TokenSecret) {
        self.0.push(secret);
    }

    /// Ends the secret with this generation.
    pub fn end(&mut self, generation: u32) {
        let ended = self
            .0
            .iter_mut()
            .find(|secret| secret.generation == generation);
        if let Some(secret) = ended {
            secret.superseded = true;
        }
    }

    /// Sets when the secret with this generation ends.
    pub fn set_end(&mut self, generation: u32, ending: SecretEnd) {
        let mut secrets = self.0.iter_mut();
        if let Some(secret) = secrets.find(|secret| secret.generation == generation) {
            secret.ending = Some(ending);
        }
    }

    /// Ends all secrets except the one that the plan of a rotation keeps.
    pub fn apply_plan(&mut self, plan: &Plan) {
        for secret in &mut self.0 {
            match plan.kept {
                Some((generation, ending)) if generation == secret.generation => {
                    secret.ending = Some(ending);
                }
                _ => secret.superseded = true,
            }
        }
    }

    /// Ends the overlap: the former secret ends at `now`, and the newest secret stays valid.
    /// Returns the generation of the former secret, or `None` if there was no overlap.
    pub fn end_overlap(&mut self, now: Timestamp) -> Option<u32> {
        let (_, former) = self.0.split_last_mut()?;
        let former = former.iter_mut().find(|secret| secret.is_live(now))?;
        former.superseded = true;
        former.ending = Some(SecretEnd {
            at: now,
            on_first_use: false,
        });
        Some(former.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn secrets() -> TokenSecrets {
        let mut first = TokenSecret::new(1, "aaaa".into(), at(0));
        first.ending = Some(SecretEnd {
            at: at(100),
            on_first_use: true,
        });
        vec![TokenSecret::new(2, "bbbb".into(), at(5)), first].into()
    }

    fn live(secrets: &TokenSecrets, now: i64) -> Vec<u32> {
        let live = secrets.live(at(now));
        live.map(|secret| secret.generation).collect()
    }

    #[test]
    fn a_former_secret_is_live_until_its_end() {
        let secrets = secrets();
        assert_eq!(live(&secrets, 99), [1, 2]);
        assert_eq!(live(&secrets, 100), [2]);
        assert_eq!(secrets.newest_hint(), "bbbb");
    }

    #[test]
    fn an_overlap_is_ended_once_and_the_newest_secret_stays() {
        let mut secrets = secrets();
        assert_eq!(secrets.end_overlap(at(50)), Some(1));
        assert_eq!(live(&secrets, 50), [2]);
        let ended = secrets.clone();
        assert_eq!(secrets.end_overlap(at(51)), None);
        assert_eq!(secrets, ended, "nothing changes");
    }

    #[test]
    fn an_overlap_that_is_over_is_not_ended_again() {
        let mut secrets = secrets();
        assert_eq!(secrets.end_overlap(at(100)), None);
    }

    #[test]
    fn a_sole_secret_has_no_overlap() {
        let mut secrets = TokenSecrets::from(vec![TokenSecret::new(1, "aaaa".into(), at(0))]);
        assert_eq!(secrets.end_overlap(at(1)), None);
        assert_eq!(live(&secrets, 1), [1]);
    }

    #[test]
    fn a_rotation_ends_all_secrets_but_the_one_that_it_keeps() {
        let mut secrets = secrets();
        let ending = SecretEnd {
            at: at(60),
            on_first_use: false,
        };
        secrets.apply_plan(&Plan {
            ended: vec![2],
            kept: Some((1, ending)),
        });
        secrets.push(TokenSecret::new(3, "cccc".into(), at(10)));
        assert_eq!(live(&secrets, 59), [1, 3]);
        assert_eq!(live(&secrets, 60), [3]);
    }
}
