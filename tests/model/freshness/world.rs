//! The state of the database, of two replicas, and of what is under way between them.

/// The freshness bound, in ticks.
pub(super) const BOUND: u8 = 1;
/// How long the world lasts: enough for a revoke, the bound to pass, and a question.
pub(super) const END: u8 = 3;

#[derive(Clone, Copy)]
pub(super) struct Safeguards {
    /// What is remembered is answered only under a lease.
    pub(super) lease: bool,
    /// The lease counts from the last heartbeat too, not only from the last reading.
    pub(super) heartbeat: bool,
    /// The reading of the history counts from its start.
    pub(super) read_start: bool,
    /// A late fill is compared with what was thrown out meanwhile.
    pub(super) generations: bool,
    /// A reading under way is shared only by those for whom it began late enough.
    pub(super) flights: bool,
    /// A reading that took too long is not answered.
    pub(super) reading_age: bool,
    /// A change of one's own is applied before it is acknowledged.
    pub(super) own_changes: bool,
    /// The history is read by transaction, not by number.
    pub(super) commit_order: bool,
    /// A reading is answered only if it reflects the revision that was asked for.
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

/// A change of something else, whose transaction may overtake the revoke's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Other {
    Idle,
    Committed(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Feed {
    pub(super) started: u8,
    /// What the statement saw: where to go on, the highest number, and the revoke.
    pub(super) saw: Option<(u8, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flight {
    pub(super) started: u8,
    pub(super) generation: u8,
    /// Whether the token was live.
    pub(super) found: Option<bool>,
    /// Whether it may still be joined, and filled from.
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
    /// Whether the token is remembered as live or dead.
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
pub(super) struct World {
    pub(super) now: u8,
    pub(super) revoke: Revoke,
    pub(super) other: Other,
    pub(super) numbers: u8,
    /// B's database was the primary and is not any more: it keeps what it had.
    pub(super) failed_over: Option<bool>,
    pub(super) crashed: bool,
    pub(super) a: Replica,
    pub(super) b: Replica,
}

impl World {
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

    /// What is past the bound is past it for good, so that many states are one.
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

    /// Whether the token is live in the database that a replica reads.
    pub(super) fn is_live(&self, at_b: bool) -> bool {
        match (at_b, self.failed_over) {
            (true, Some(was_live)) => was_live,
            _ => !self.revoke.is_committed(),
        }
    }

    /// What a statement that reads the history sees: where to go on, and whether the revoke is
    /// among the changes since.
    pub(super) fn history(&self, cursor: u8, safe: Safeguards) -> (u8, bool) {
        let visible =
            !self.is_live(true) && self.revoke.number().is_some_and(|number| number >= cursor);
        let next = if safe.commit_order {
            // The oldest transaction still at work, or the next one.
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

/// What is wrong with an answer that the token is live, if anything is.
pub(super) fn fault(world: &World, question: Question, at_b: bool) -> Option<&'static str> {
    let Revoke::Acknowledged(_, at) = world.revoke else {
        return None;
    };
    if question.min {
        return Some("live in spite of min_revision");
    }
    let bound = if at_b { BOUND } else { 0 };
    // A question that arrives in the tick of the acknowledgement may have come before it.
    (question.arrived > at + bound).then_some("live past the bound")
}

pub(super) fn side(world: &mut World, at_b: bool) -> &mut Replica {
    if at_b { &mut world.b } else { &mut world.a }
}
