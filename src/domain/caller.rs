//! Callers and what they are allowed to do. Authorization is decided here, without I/O; the store
//! calls it inside the transaction of a change, so that it cannot race with a member's removal.

use super::{refusal::Refusal, stack::Role, timestamp::Timestamp};

/// Kind of a caller, derived from the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKind {
    /// A person.
    User,
    /// An internal service.
    Service,
    /// A platform operator; also keeps the person's own role in stacks.
    Operator,
}

impl CallerKind {
    /// Returns the name in the API, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Service => "SERVICE",
            Self::Operator => "OPERATOR",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Service, Self::Operator]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// Who did something; ids only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The kind at the time of the action.
    pub kind: CallerKind,
    /// `iss` of the credential.
    pub issuer: String,
    /// `sub` of the credential.
    pub subject: String,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub actor: Actor,
    /// Whether it may introspect; true only for services.
    pub introspects: bool,
}

/// What an RPC requires of its caller: any one of these suffices. The policy table sets it per
/// RPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent ways in, each its own question"
)]
pub struct Requirement {
    /// The owner or an admin of the stack is allowed (R2).
    pub governor: bool,
    /// An operator is allowed.
    pub operator: bool,
    /// A service with the introspect role is allowed.
    pub introspector: bool,
    /// Any service is allowed, with or without the introspect role.
    pub service: bool,
    /// Any authenticated caller is allowed.
    pub anyone: bool,
}

impl Requirement {
    /// Checks whether this kind of caller can be allowed at all, in any stack.
    ///
    /// # Errors
    /// [`Refusal::RoleRequired`].
    pub fn admit(self, caller: &Caller) -> Result<(), Refusal> {
        let admitted = match caller.actor.kind {
            CallerKind::User => self.governor,
            CallerKind::Operator => self.governor || self.operator,
            CallerKind::Service => self.service || (self.introspector && caller.introspects),
        };
        if admitted || self.anyone {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }

    /// Checks whether this caller, with this role in the stack, is allowed. Returns `StackNotFound` to
    /// a user without a role, and `RoleRequired` to everybody else.
    ///
    /// # Errors
    /// [`Refusal::RoleRequired`] or [`Refusal::StackNotFound`].
    pub fn judge(self, caller: &Caller, role: Option<Role>) -> Result<(), Refusal> {
        self.admit(caller)?;
        let operates = self.operator && caller.actor.kind == CallerKind::Operator;
        let governs = self.governor && role.is_some_and(Role::governs_tokens);
        match (operates || governs || self.anyone, role, caller.actor.kind) {
            (true, ..) => Ok(()),
            (false, None, CallerKind::User) => Err(Refusal::StackNotFound),
            _ => Err(self.refusal()),
        }
    }

    fn refusal(self) -> Refusal {
        let ways = [
            (self.governor, "owner or admin of the stack"),
            (self.operator, "operator"),
            (self.introspector, "service with the introspect role"),
            (self.service, "service"),
        ];
        let required: Vec<_> = ways
            .into_iter()
            .filter_map(|(will_do, who)| will_do.then_some(who))
            .collect();
        Refusal::RoleRequired {
            required: required.join(", or "),
        }
    }
}

/// Whether a change is made or only previewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Makes the change.
    #[default]
    Apply,
    /// Judges the change without making it.
    Preview,
}

impl Mode {
    /// Returns the mode of a request with this `validate_only`.
    #[must_use]
    pub const fn of(validate_only: bool) -> Self {
        if validate_only {
            Self::Preview
        } else {
            Self::Apply
        }
    }
}

/// Context of one call: caller, requirement, time, request id and mode. Passed from the layers to
/// the store.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller.
    pub caller: Caller,
    /// The requirement of the RPC.
    pub requirement: Requirement,
    /// When the headers arrived, by this replica's clock. Nothing is decided by it (R8): the
    /// message may arrive seconds later, and the lock on the stack later still.
    pub received_at: Timestamp,
    /// Request id shared by the answer, the log and the audit.
    pub request_id: String,
    /// Whether the change is made or only previewed.
    pub mode: Mode,
}

impl Call {
    /// Returns whether the call is a preview, which must change nothing.
    #[must_use]
    pub fn previews(&self) -> bool {
        self.mode == Mode::Preview
    }

    /// Returns whether the caller acts as an operator rather than by a role in the stack.
    #[must_use]
    pub fn operates(&self, role: Option<Role>) -> bool {
        self.caller.actor.kind == CallerKind::Operator && !role.is_some_and(Role::governs_tokens)
    }
}
