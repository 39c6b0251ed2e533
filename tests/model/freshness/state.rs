//! The state of the database, of two replicas and of the operations in flight.

/// The freshness bound, in ticks.
pub(super) const BOUND: u8 = 1;
/// The last tick: late enough for a revoke, the bound after it, and a question.
pub(super) const END: u8 = 3;

#[derive(Clone, Copy)]
pub(super) struct Safeguards {
    /// Cached facts are answered only under a lease.
    pub(super) lease: bool,
    /// The lease counts from the last heartbeat too, not only from the last poll.
    pub(super) heartbeat: bool,
    /// A poll is dated by its start.
    pub(super) read_start: bool,
    /// A fill is rejected if its subject was evicted after the read started.
    pub(super) generations: bool,
    /// A question joins a lookup in flight only if the lookup started late enough for it.
    pub(super) flights: bool,
    /// A lookup that took too long is not answered.
    pub(super) reading_age: bool,
    /// A replica applies its own change before it acknowledges it.
    pub(super) own_changes: bool,
    /// The change log is read in the order of transactions, not of row numbers.
    pub(super) commit_order: bool,
    /// A lookup is answered only if it reflects `min_revision`.
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
    /// Its transaction has begun, with this number.
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

/// An unrelated change, whose transaction may overtake that of the revoke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Other {
    Idle,
    Committed(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Feed {
    pub(super) started: u8,
    /// What the statement saw: where to continue, and whether the revoke is among the rows.
    pub(super) saw: Option<(u8, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flight {
    pub(super) started: u8,
    pub(super) generation: u8,
    /// Whether the token was live.
    pub(super) found: Option<bool>,
    /// Whether questions may still join it, and its result may be cached.
    pub(super) newest: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Question {
    pub(super) arrived: u8,
    /// Whether it must reflect the revoke, which its caller saw acknowledged.
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
    /// Whether the revoke is applied.
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
    /// Set if B's database is no longer the primary: whether the token is live in it, for good.
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

    /// Advances time. Instants that are past the bound are made equal, so that fewer states differ.
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

    /// Returns what a poll sees: where to continue, and whether the revoke is among the changes.
    pub(super) fn history(&self, cursor: u8, safe: Safeguards) -> (u8, bool) {
        let visible =
            !self.is_live(true) && self.revoke.number().is_some_and(|number| number >= cursor);
        let next = if safe.commit_order {
            // The oldest transaction in progress, or the next one.
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

/// Returns the fault of answering "live" to a question, if it is a fault.
pub(super) fn fault(state: &State, question: Question, at_b: bool) -> Option<&'static str> {
    let Revoke::Acknowledged(_, at) = state.revoke else {
        return None;
    };
    if question.min {
        return Some("live despite min_revision");
    }
    let bound = if at_b { BOUND } else { 0 };
    // A question that arrives in the tick of the acknowledgement may have arrived before it.
    (question.arrived > at + bound).then_some("live past the bound")
}

pub(super) fn side(state: &mut State, at_b: bool) -> &mut Replica {
    if at_b { &mut state.b } else { &mut state.a }
}
