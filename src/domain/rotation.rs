//! Decides, without I/O, which secret of a token stays valid beside a new one after a rotation, and
//! until when. A rotation never extends a token's lifetime, and a token never has more than two
//! valid secrets.

use std::time::Duration;

use super::timestamp::Timestamp;

/// The longest time for which a former secret can stay valid after a rotation.
pub const LONGEST: Duration = Duration::from_hours(30 * 24);

/// How long the former secret stays valid, as chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// For this long. If zero, the former secret ends at once.
    For(Duration),
    /// Until the new secret is first used, but for at most this long.
    UntilFirstUse {
        /// The longest time for which the former secret stays valid.
        at_most: Duration,
    },
}

/// When a replaced secret stops being valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretEnd {
    /// The latest time at which the secret ends.
    pub at: Timestamp,
    /// Whether the secret also ends when the newest secret is first used.
    pub on_first_use: bool,
}

/// A valid secret of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSecret {
    /// The generation of the secret.
    pub generation: u32,
    /// Whether the secret was ever used, that is, presented and answered as active.
    pub used: bool,
    /// When the secret ends. `None` if it ends only together with its token.
    pub ending: Option<SecretEnd>,
}

/// What a rotation does to the existing secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The generations of the secrets that end at once.
    pub ended: Vec<u32>,
    /// The generation of the secret that stays valid in addition to the new one, and when it ends.
    pub kept: Option<(u32, SecretEnd)>,
}

impl Overlap {
    /// Until the new secret is first used, but for at most [`LONGEST`].
    pub const UNTIL_FIRST_USE: Self = Self::UntilFirstUse { at_most: LONGEST };

    fn ending(self, expires_at: Option<Timestamp>, now: Timestamp) -> SecretEnd {
        let (length, on_first_use) = match self {
            Self::For(length) => (length.min(LONGEST), false),
            Self::UntilFirstUse { at_most } => (at_most.min(LONGEST), true),
        };
        let at = now.plus(length);
        let at = expires_at.map_or(at, |expiry| expiry.min(at));
        SecretEnd { at, on_first_use }
    }
}

impl SecretEnd {
    /// Combines two endings. The secret ends when either of them takes effect.
    fn earlier(self, other: Self) -> Self {
        Self {
            at: self.at.min(other.at),
            on_first_use: self.on_first_use || other.on_first_use,
        }
    }
}

/// Plans what happens to the valid secrets when a new secret is created at `now`. `live` must be
/// ordered with the oldest first.
///
/// If there is one valid secret, it is kept. If there are two and the newer one was used, the newer
/// one is kept, and the older one ends at once. If the newer one was not used, the newer one ends
/// at once, and the older one is kept until its existing end or the new one, whichever is earlier.
#[must_use]
pub fn plan(
    live: &[LiveSecret],
    overlap: Overlap,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Plan {
    let ending = overlap.ending(expires_at, now);
    let kept = match live {
        [.., older, newest] if !newest.used => Some(older),
        [.., newest] => Some(newest),
        [] => None,
    };
    let kept = kept.map(|secret| {
        let earlier = secret
            .ending
            .map_or(ending, |former| former.earlier(ending));
        (secret.generation, earlier)
    });
    let kept = kept.filter(|(_, ending)| ending.at > now);
    let generations = live.iter().map(|secret| secret.generation);
    let ended = generations.filter(|generation| kept.is_none_or(|(kept, _)| kept != *generation));
    Plan {
        ended: ended.collect(),
        kept,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(NOW + seconds * 1_000_000).unwrap()
    }

    fn live_secret(generation: u32, used: bool, ending: Option<(i64, bool)>) -> LiveSecret {
        let ending = ending.map(|(seconds, on_first_use)| SecretEnd {
            at: at(seconds),
            on_first_use,
        });
        LiveSecret {
            generation,
            used,
            ending,
        }
    }

    fn kept(plan: &Plan) -> Option<(u32, i64, bool)> {
        plan.kept.map(|(generation, ending)| {
            let seconds = (ending.at.as_micros() - NOW) / 1_000_000;
            (generation, seconds, ending.on_first_use)
        })
    }

    const DAY: i64 = 86_400;
    const HOUR: Overlap = Overlap::For(Duration::from_hours(1));

    #[test]
    fn the_only_secret_lives_on_for_as_long_as_was_chosen() {
        for used in [false, true] {
            let live = [live_secret(1, used, None)];
            let hour = plan(&live, HOUR, None, at(0));
            assert_eq!((kept(&hour), hour.ended), (Some((1, 3600, false)), vec![]));
            let until_used = plan(&live, Overlap::UNTIL_FIRST_USE, None, at(0));
            assert_eq!(kept(&until_used), Some((1, 30 * DAY, true)));
            let an_hour = Overlap::UntilFirstUse {
                at_most: Duration::from_hours(1),
            };
            let at_most = plan(&live, an_hour, None, at(0));
            assert_eq!(kept(&at_most), Some((1, 3600, true)));
            let at_once = plan(&live, Overlap::For(Duration::ZERO), None, at(0));
            assert_eq!((at_once.kept, at_once.ended), (None, vec![1]));
        }
    }

    #[test]
    fn no_overlap_outlives_the_token() {
        for overlap in [HOUR, Overlap::UNTIL_FIRST_USE] {
            let plan = plan(&[live_secret(1, true, None)], overlap, Some(at(60)), at(0));
            assert_eq!(kept(&plan).unwrap().1, 60);
        }
    }

    #[test]
    fn a_newer_secret_that_nobody_used_is_replaced_and_the_earlier_end_counts() {
        for (former, overlap, expected) in [
            ((600, false), HOUR, (600, false)),
            ((7200, false), HOUR, (3600, false)),
            ((7200, true), HOUR, (3600, true)),
            ((600, false), Overlap::UNTIL_FIRST_USE, (600, true)),
            ((600, true), Overlap::UNTIL_FIRST_USE, (600, true)),
        ] {
            let live = [
                live_secret(3, true, Some(former)),
                live_secret(4, false, None),
            ];
            let plan = plan(&live, overlap, None, at(0));
            assert_eq!(kept(&plan), Some((3, expected.0, expected.1)), "{former:?}");
            assert_eq!(plan.ended, [4]);
        }
    }

    #[test]
    fn where_the_newer_secret_was_used_the_older_one_ends_at_once() {
        let live = [
            live_secret(3, true, Some((600, false))),
            live_secret(4, true, None),
        ];
        let plan = plan(&live, HOUR, None, at(0));
        assert_eq!((kept(&plan), plan.ended), (Some((4, 3600, false)), vec![3]));
    }

    fn overlap() -> impl Strategy<Value = Overlap> {
        prop_oneof![
            (0_u64..60 * 86_400).prop_map(|seconds| Overlap::UntilFirstUse {
                at_most: Duration::from_secs(seconds),
            }),
            (0_u64..60 * 86_400).prop_map(|seconds| Overlap::For(Duration::from_secs(seconds))),
        ]
    }

    proptest! {
        /// After any sequence of rotations, uses and pauses, at most one former secret is valid, no
        /// secret outlives the chosen overlap or its token, and no ending is postponed.
        #[test]
        fn no_sequence_keeps_more_than_two_or_lengthens_a_life(
            expiry in prop::option::of(1_i64..90 * DAY),
            steps in prop::collection::vec((overlap(), any::<[bool; 2]>(), 0_i64..20 * DAY), 1..12),
        ) {
            let expires_at = expiry.map(at);
            let mut secrets = vec![live_secret(1, false, None)];
            let mut now = 0;
            for (overlap, used, pause) in steps {
                now += pause;
                secrets.retain(|secret| secret.ending.is_none_or(|ending| ending.at > at(now)));
                for (secret, used) in secrets.iter_mut().zip(used) {
                    secret.used |= used;
                }
                prop_assume!(expires_at.is_none_or(|expiry| expiry > at(now)));
                let plan = plan(&secrets, overlap, expires_at, at(now));
                let newest = secrets.iter().map(|secret| secret.generation).max().unwrap();
                if let Some((generation, ending)) = plan.kept {
                    let before = secrets.iter().find(|secret| secret.generation == generation).unwrap();
                    let no_later = before.ending.is_none_or(|former| {
                        ending.at <= former.at && ending.on_first_use >= former.on_first_use
                    });
                    prop_assert!(no_later);
                    prop_assert!(ending.at > at(now) && ending.at <= at(now).plus(LONGEST));
                    prop_assert!(expires_at.is_none_or(|expiry| ending.at <= expiry));
                }
                prop_assert_eq!(plan.ended.len() + usize::from(plan.kept.is_some()), secrets.len());
                secrets.retain_mut(|secret| match plan.kept {
                    Some((generation, ending)) if generation == secret.generation => {
                        secret.ending = Some(ending);
                        true
                    }
                    _ => false,
                });
                secrets.push(live_secret(newest + 1, false, None));
                prop_assert!(secrets.len() <= 2);
            }
        }
    }
}
