//! The state of the database, of two replicas and of operations that have not finished.

/// The freshness bound, in ticks.
pub(super) const BOUND: u8 = 1;
/// The last tick. It is late enough for a revoke, the bound after it, and a question.
pub(super) const END: u8 = 3;

#[derive(Clone, Copy)]
pub(super) struct Safeguards {
    /// Cached facts are used only under a lease.
    pub(super) lease: bool,
    /// The lease depends on the last heartbeat too, not only on the last poll.
    pub(super) heartbeat: bool,
    /// The age of a poll counts from its start.
    pub(super) read_start: bool,
    /// A fill is rejected if its subject was evicted after the read started.
    pub(super) generations: bool,
    /// A question joins a lookup in progress only if the lookup started late enough for the
    /// question.
    pub(super) flights: bool,
    /// The result of a lookup that took too long is not used.
    pub(super) reading_age: bool,
    /// A replica applies its own change before it acknowledges it.
    pub(super) own_changes: bool,
    /// The change log is read in the order of transactions, not of row numbers.
    pub(super) commit_order: bool,
    /// The result of a lookup is used only if it reflects `min_revision`.
    pub(super) reflection: bool,
}

pub(super) const ALL: Safeguards = Safeguards {
    lease: true,
    heartbeat: true,
    read_start: true,
    generations: true,
    flights: true,
    reading_age: true,
    own_changes: true,
    commit_order: true,
    reflection: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Revoke {
    Idle,
    /// The transaction of the revoke has begun, with this number.
    Begun(u8),
    Committed(u8),
    Acknowledged(u8, u8),
}

impl Revoke {
    pub(super) fn number(self) -> Option<u8> {
        match self {
            Self::Idle => None,
            Self::Begun(number) | Self::Committed(number) | Self::Acknowledged(number, _) => {
                Some(number)
            }
        }
    }

    pub(super) fn is_committed(self) -> bool {
        matches!(self, Self::Committed(_) | Self::Acknowledged(..))
    }
}

/// An unrelated change, whose transaction may overtake the transaction of the revoke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Other {
    Idle,
    Committed(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Feed {
    pub(super) started: u8,
    /// What the statement saw: where the next poll continues, and whether the revoke is among the
    /// rows.
    pub(super) saw: Option<(u8, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flight {
    pub(super) started: u8,
    pub(super) generation: u8,
    /// Whether the lookup found the token live.
    pub(super) found: Option<bool>,
    /// Whether questions may still join the lookup, and its result may be cached.
    pub(super) newest: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Question {
    pub(super) arrived: u8,
    /// Whether the answer must reflect the revoke, because the caller saw the revoke acknowledged.
    pub(super) min: bool,
    pub(super) flight: Option<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Replica {
    /// The cached state of the token: live, dead or absent.
    pub(super) remembered: Option<bool>,
    pub(super) generation: u8,
    pub(super) read: Option<u8>,
    pub(super) beat: Option<u8>,
    pub(super) cursor: u8,
    /// Whether the replica has applied the revoke.
    pub(super) applied: bool,
    pub(super) feed: Option<Feed>,
    pub(super) flights: [Option<Flight>; 2],
    pub(super) questions: [Option<Question>; 2],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    pub(super) now: u8,
    pub(super) revoke: Revoke,
    pub(super) other: Other,
    pub(super) numbers: u8,
    /// Set once B's database is no longer the primary. The value says whether the token is live
    /// there, which no longer changes.
    pub(super) failed_over: Option<bool>,
    pub(super) crashed: bool,
    pub(super) a: Replica,
    pub(super) b: Replica,
}

impl State {
    pub(super) fn new() -> Self {
        let fresh = Replica {
            read: Some(0),
            beat: Some(0),
            cursor: 1,
            ..Replica::default()
        };
        Self {
            now: 0,
            revoke: Revoke::Idle,
            other: Other::Idle,
            numbers: 0,
            failed_over: None,
            crashed: false,
            a: Replica {
                remembered: Some(true),
                ..fresh.clone()
            },
            b: Replica {
                remembered: Some(true),
                ..fresh
            },
        }
    }

    /// Advances time. All instants past the bound are set to the same value, so that there are
    /// fewer states.
    pub(super) fn tick(&mut self) {
        self.now += 1;
        let (now, b) = (self.now, &mut self.b);
        let past = |at: u8| now - at > BOUND;
        b.read = b.read.filter(|at| !past(*at));
        b.beat = b.beat.filter(|at| !past(*at));
        let cut = |at: &mut u8| *at = (*at).max(now.saturating_sub(BOUND + 1));
        if let Some(feed) = &mut b.feed {
            cut(&mut feed.started);
        }
        for side in [&mut self.a, &mut self.b] {
            side.flights
                .iter_mut()
                .flatten()
                .for_each(|flight| cut(&mut flight.started));
        }
    }

    /// Returns whether the token is live in the database that a replica reads.
    pub(super) fn is_live(&self, at_b: bool) -> bool {
        match (at_b, self.failed_over) {
            (true, Some(was_live)) => was_live,
            _ => !self.revoke.is_committed(),
        }
    }

    /// Returns what a poll sees: where the next poll continues, and whether the revoke is among the
    /// rows.
    pub(super) fn history(&self, cursor: u8, safe: Safeguards) -> (u8, bool) {
        let visible =
            !self.is_live(true) && self.revoke.number().is_some_and(|number| number >= cursor);
        let next = if safe.commit_order {
            // Continue at the oldest transaction in progress, or at the next one if none is.
            match self.revoke {
                Revoke::Begun(number) => number,
                _ => self.numbers + 1,
            }
        } else {
            let other = match self.other {
                Other::Committed(number) => number,
                Other::Idle => 0,
            };
            let revoke = if visible {
                self.revoke.number().unwrap_or(0)
            } else {
                0
            };
            cursor.max(other.max(revoke) + 1)
        };
        (next.max(cursor), visible)
    }
}

pub(super) fn covers(replica: &Replica, read: Option<u8>, now: u8, safe: Safeguards) -> bool {
    let Some(read) = read else { return false };
    let since = if safe.heartbeat {
        replica.beat.map(|beat| beat.min(read))
    } else {
        Some(read)
    };
    since.is_some_and(|since| now - since <= BOUND)
}

/// Returns the fault that the answer "live" to this question would cause, if any.
pub(super) fn fault(state: &State, question: Question, at_b: bool) -> Option<&'static str> {
    let Revoke::Acknowledged(_, at) = state.revoke else {
        return None;
    };
    if question.min {
        return Some("live despite min_revision");
    }
    let bound = if at_b { BOUND } else { 0 };
    // A question that arrives in the same tick as the acknowledgement may have arrived before it.
    (question.arrived > at + bound).then_some("live past the bound")
}

pub(super) fn side(state: &mut State, at_b: bool) -> &mut Replica {
    if at_b { &mut state.b } else { &mut state.a }
}
