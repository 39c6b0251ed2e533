//! Who calls, and whether that is enough. Authority is decided here, purely; the store asks
//! within the transaction that does the work, so that a removal cannot be raced.

use super::{refusal::Refusal, stack::Role, timestamp::Timestamp};

/// What kind of caller a credential makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKind {
    /// A person.
    User,
    /// An internal service.
    Service,
    /// A platform operator; keeps the person's own part in stacks too.
    Operator,
}

impl CallerKind {
    /// The name in the contract, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Service => "SERVICE",
            Self::Operator => "OPERATOR",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Service, Self::Operator]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// Who did something: ids only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The kind at that time.
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
    /// Whether it may introspect; only ever true of a service.
    pub introspects: bool,
}

/// What an RPC demands of its caller: any one of these is enough. The policy table says it,
/// RPC by RPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent ways in, each its own question"
)]
pub struct Demand {
    /// The owner or an admin of the stack will do (R2).
    pub governor: bool,
    /// An operator will do.
    pub operator: bool,
    /// A service with the introspect role will do.
    pub introspector: bool,
    /// Any service will do, with the introspect role or without.
    pub service: bool,
    /// Whoever has proved who they are will do.
    pub anyone: bool,
}

impl Demand {
    /// Whether this kind of caller can ever do, whatever the stack.
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

    /// Whether this caller, with this part in the stack, may do it. A user with no part in a
    /// stack is told that there is none; an operator, who may know, is told what is required.
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

/// Whether a change is made, or only shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is made.
    #[default]
    Apply,
    /// It is judged as if it were, and nothing of it stays.
    Preview,
}

impl Mode {
    /// The mode of a request with this `validate_only`.
    #[must_use]
    pub const fn of(validate_only: bool) -> Self {
        if validate_only {
            Self::Preview
        } else {
            Self::Apply
        }
    }
}

/// One call: who, what is demanded, when, under which id, and whether in earnest. Travels from
/// the layers to the store.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub caller: Caller,
    /// What the RPC demands.
    pub demand: Demand,
    /// When its headers were received, by this replica's clock. Nothing is decided by it (R8):
    /// the message may follow seconds later, and the lock of a stack later still.
    pub received_at: Timestamp,
    /// The id that the answer, the log and the audit share.
    pub request_id: String,
    /// Whether what is asked is done, or only shown.
    pub mode: Mode,
}

impl Call {
    /// Whether nothing that this call does may stay.
    #[must_use]
    pub fn previews(&self) -> bool {
        self.mode == Mode::Preview
    }

    /// Whether the caller acts as an operator rather than by a role in the stack.
    #[must_use]
    pub fn operates(&self, role: Option<Role>) -> bool {
        self.caller.actor.kind == CallerKind::Operator && !role.is_some_and(Role::governs_tokens)
    }
}
