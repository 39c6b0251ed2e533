//! What the journals say of each token and of each stack, after all changes that were committed.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::line::{Effect, Intent, TokenAfter};

/// When a change was decided, and its position in the change log. It orders the changes of a stack,
/// whichever replica made them.
type Moment = (i64, i64);

/// The last known state of everything from which something was taken away.
#[derive(Clone, Default)]
pub(in crate::store) struct Fold {
    /// By stack, because a restore locks one stack after the other.
    pub stacks: BTreeMap<Uuid, StackFold>,
}

/// The last known state of a stack and of its tokens.
#[derive(Clone, Default)]
pub(in crate::store) struct StackFold {
    last: Option<Moment>,
    pub suspended: bool,
    pub removed: bool,
    /// Whether the roles of its members were changed.
    pub members: bool,
    pub tokens: BTreeMap<Uuid, TokenFold>,
}

/// The last known state of a token.
#[derive(Clone, Default)]
pub(in crate::store) struct TokenFold {
    after: Option<(Moment, Box<TokenAfter>)>,
    pub revoked: bool,
    pub ended: bool,
    ended_before: Option<(Moment, u32)>,
    ended_secrets: HashMap<u32, Moment>,
    /// Sessions that were issued up to this instant have ended.
    pub sessions_until: Option<i64>,
}

impl Fold {
    /// Adds a change. The order in which changes are added does not matter.
    pub fn add(&mut self, intent: &Intent) {
        let moment = (intent.at, intent.position);
        let stack = self.stacks.entry(intent.stack).or_default();
        match (&intent.effect, intent.token) {
            (Effect::Stack { suspended, removed }, _) => {
                stack.removed |= removed;
                if stack.last.is_none_or(|last| last <= moment) {
                    stack.last = Some(moment);
                    stack.suspended = *suspended;
                }
            }
            (Effect::Members, _) => stack.members = true,
            (effect, Some(token)) => stack.tokens.entry(token).or_default().add(effect, moment),
            (_, None) => {}
        }
    }
}

impl TokenFold {
    fn add(&mut self, effect: &Effect, moment: Moment) {
        match effect {
            Effect::Token(after) => {
                self.revoked |= after.revoked;
                self.ended |= after.ended;
                if after.sessions_ended {
                    self.end_sessions(moment);
                }
                if self.after.as_ref().is_none_or(|(last, _)| *last <= moment) {
                    self.after = Some((moment, after.clone()));
                }
            }
            Effect::Expired => self.ended = true,
            Effect::SecretsEnded(generations) => {
                for generation in generations {
                    let last = self.ended_secrets.entry(*generation).or_insert(moment);
                    *last = moment.max(*last);
                }
            }
            Effect::SecretsEndedBefore(generation) => {
                self.ended_before = self.ended_before.max(Some((moment, *generation)));
            }
            Effect::SessionsEnded => self.end_sessions(moment),
            Effect::Stack { .. } | Effect::Members => {}
        }
    }

    fn end_sessions(&mut self, moment: Moment) {
        self.sessions_until = self.sessions_until.max(Some(moment.0));
    }

    /// Returns the token after the last change that says so, if any does.
    pub fn after(&self) -> Option<&TokenAfter> {
        self.after.as_ref().map(|(_, after)| &**after)
    }

    /// Returns whether the secret of this generation has ended for good. A restore can assign a
    /// generation again, so an end counts only until a later change says which secrets live.
    pub fn has_ended(&self, generation: u32) -> bool {
        let since = self.after.as_ref().map(|(moment, _)| *moment);
        let is_later = |moment: Moment| since.is_none_or(|since| moment > since);
        let before = self.ended_before;
        let alone = self.ended_secrets.get(&generation);
        let left_out = self.after().is_some_and(|after| {
            let mut live = after.secrets.iter();
            generation <= after.generation && !live.any(|live| live.generation == generation)
        });
        left_out
            || before.is_some_and(|(moment, first)| generation < first && is_later(moment))
            || alone.is_some_and(|moment| is_later(*moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::permissions::{Access, Draft},
        store::guard::line::Secret,
    };

    fn after(generation: u32, live: &[u32]) -> Effect {
        let secret = |generation: &u32| Secret {
            generation: *generation,
            ends_at: None,
            until_first_use: false,
        };
        Effect::Token(Box::new(TokenAfter {
            revoked: false,
            ended: false,
            expires_at: None,
            permissions: Draft {
                access: Access::Read,
                modules: None,
                branches: None,
            },
            generation,
            secrets: live.iter().map(secret).collect(),
            sessions_ended: false,
        }))
    }

    fn folded(effects: &[(i64, Effect)]) -> TokenFold {
        let mut token = TokenFold::default();
        for (at, effect) in effects {
            token.add(effect, (*at, 0));
        }
        token
    }

    #[test]
    fn the_order_of_reading_does_not_matter() {
        let effects = [
            (1, after(2, &[1, 2])),
            (2, Effect::SecretsEnded(vec![1])),
            (3, after(3, &[2, 3])),
        ];
        let ended = |token: &TokenFold| [1, 2, 3, 4].map(|generation| token.has_ended(generation));
        let mut backwards = effects.clone();
        backwards.reverse();
        for effects in [effects, backwards] {
            assert_eq!(ended(&folded(&effects)), [true, false, false, false]);
        }
    }

    #[test]
    fn a_generation_that_is_assigned_again_lives() {
        let token = folded(&[(1, Effect::SecretsEndedBefore(3)), (2, after(2, &[2]))]);
        assert!(token.has_ended(1));
        assert!(!token.has_ended(2), "assigned again after a restore");
    }

    #[test]
    fn a_stack_that_was_resumed_is_not_suspended_and_a_removed_one_stays_removed() {
        let stack = Uuid::from_u128(1);
        let intent = |at, suspended, removed| Intent {
            change: String::new(),
            at,
            position: 0,
            stack,
            token: None,
            kind: String::new(),
            effect: Effect::Stack { suspended, removed },
        };
        let mut fold = Fold::default();
        for step in [
            intent(1, true, false),
            intent(3, false, false),
            intent(2, true, false),
        ] {
            fold.add(&step);
        }
        assert!(!fold.stacks[&stack].suspended);
        fold.add(&intent(0, false, true));
        assert!(fold.stacks[&stack].removed);
    }
}
