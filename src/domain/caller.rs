//! Decides whether a caller is authorized to make a call, without I/O. The store calls this code
//! inside the transaction of a change, so that the decision cannot race with the removal of a
//! member.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{
    federation::Workload,
    refusal::{CallerRequired, Refusal, RoleRequired},
    stack::Role,
    timestamp::Timestamp,
};

/// The kind of a caller, derived from the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKind {
    /// A person.
    User,
    /// An internal service.
    Service,
    /// A platform operator. An operator can also have a role in a stack, like any other person.
    Operator,
    /// A workload, such as a CI job or a pod, which may only exchange its own JWT and end the
    /// session that it got for it.
    Workload,
}

impl CallerKind {
    /// Returns the name of the kind in the API, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Service => "SERVICE",
            Self::Operator => "OPERATOR",
            Self::Workload => "WORKLOAD",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Service, Self::Operator, Self::Workload]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// The `issuer` of whoever is known only by the secret of a session.
pub const SESSION_ISSUER: &str = "session";

/// Who did something. Contains only ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The kind of the caller at the time of the action.
    pub kind: CallerKind,
    /// The `iss` of the credential.
    pub issuer: String,
    /// The `sub` of the credential.
    pub subject: String,
}

impl Actor {
    /// Returns who presented the secret of a session: the workload that started it, or nobody in
    /// particular if no session is known.
    #[must_use]
    pub fn of_session(subject: &str) -> Self {
        Self {
            kind: CallerKind::Workload,
            issuer: SESSION_ISSUER.to_owned(),
            subject: subject.to_owned(),
        }
    }
}

/// A caller: an authenticated one, or a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The identity of the caller.
    pub actor: Actor,
    /// Whether the caller may introspect tokens. True only for services.
    pub introspects: bool,
    /// The verified workload. Set if and only if the caller is authenticated and the kind is
    /// [`CallerKind::Workload`].
    pub workload: Option<Arc<Workload>>,
    /// The network of a caller without a credential: the IPv4 address, or the /64 network of the
    /// IPv6 address. `None` for authenticated callers.
    pub stranger_in: Option<IpAddr>,
}

impl Caller {
    /// Returns a caller without a credential, in this network.
    #[must_use]
    pub fn stranger(network: IpAddr) -> Self {
        Self {
            actor: Actor::of_session(""),
            introspects: false,
            workload: None,
            stranger_in: Some(network),
        }
    }

    /// Returns whether there can be any number of such callers, because anyone can become one.
    /// Whoever limits them must limit all of them together too.
    #[must_use]
    pub const fn is_public(&self) -> bool {
        self.workload.is_some() || self.stranger_in.is_some()
    }

    /// Returns the identity to which limits apply: permits, connections and the rate of changes.
    /// For a workload, this is its account at the issuer, because one account has many identities.
    /// For a stranger, it is the network.
    #[must_use]
    pub fn sharer(&self) -> Cow<'_, Actor> {
        match (&self.workload, self.stranger_in) {
            (None, None) => Cow::Borrowed(&self.actor),
            (None, Some(network)) => Cow::Owned(Actor {
                subject: network.to_string(),
                ..self.actor.clone()
            }),
            (Some(workload), _) => Cow::Owned(Actor {
                kind: self.actor.kind,
                issuer: workload.issuer.clone(),
                subject: workload.account_key.clone(),
            }),
        }
    }

    /// Returns the identity under which refusals are recorded. All workloads of an issuer share one
    /// identity, and therefore their audit rows.
    #[must_use]
    pub fn refused_as(&self) -> Cow<'_, Actor> {
        match &self.workload {
            None => Cow::Borrowed(&self.actor),
            Some(_) => Cow::Owned(Actor {
                subject: String::new(),
                ..self.actor.clone()
            }),
        }
    }

    /// Returns the operator's name of the issuer, if the caller is a workload.
    #[must_use]
    pub fn federation_issuer(&self) -> Option<&str> {
        let workload = self.workload.as_ref();
        workload.map(|workload| workload.issuer.as_str())
    }
}

/// Which callers an RPC admits. A caller is admitted if at least one of the fields applies to it.
/// The policy table has the requirement of each RPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct Requirement {
    /// The owner or an admin of the stack is allowed (R2).
    pub stack_admin: bool,
    /// Any user is allowed, whatever the role. Operators are users too.
    pub user: bool,
    /// An operator is allowed.
    pub operator: bool,
    /// A service with the introspect role is allowed.
    pub introspector: bool,
    /// Any service is allowed, with or without the introspect role.
    pub service: bool,
    /// Any authenticated caller is allowed, except for workloads.
    pub anyone: bool,
    /// A workload is allowed.
    pub workload: bool,
    /// Anyone is allowed, without a credential: the message contains the secret to which the call
    /// is limited. A credential is not read.
    pub holder: bool,
}

impl Requirement {
    /// Checks whether a caller of this kind could be allowed to make the call in at least one
    /// stack.
    ///
    /// # Errors
    /// Returns [`Refusal::RoleRequired`] if no caller of this kind is admitted.
    pub fn admit(self, caller: &Caller) -> Result<(), Refusal> {
        let admitted = match caller.actor.kind {
            CallerKind::User => self.stack_admin || self.user,
            CallerKind::Operator => self.stack_admin || self.user || self.operator,
            CallerKind::Service => self.service || (self.introspector && caller.introspects),
            CallerKind::Workload => self.workload,
        };
        let anyone = self.anyone && caller.actor.kind != CallerKind::Workload;
        if admitted || anyone || self.holder {
            Ok(())
        } else {
            Err(self.refusal(None))
        }
    }

    /// Checks whether a caller with this role in the stack is allowed to make the call.
    ///
    /// # Errors
    /// Returns [`Refusal::StackNotFound`] for a user without a role in the stack, so that the
    /// stack's existence is not disclosed, and [`Refusal::RoleRequired`] for everybody else who is
    /// not allowed.
    pub fn check(self, caller: &Caller, role: Option<Role>) -> Result<(), Refusal> {
        self.admit(caller)?;
        let operates = self.operator && caller.actor.kind == CallerKind::Operator;
        let manages = self.stack_admin && role.is_some_and(Role::manages_tokens);
        match (operates || manages || self.anyone, role, caller.actor.kind) {
            (true, ..) => Ok(()),
            (false, None, CallerKind::User) => Err(Refusal::StackNotFound),
            _ => Err(self.refusal(role)),
        }
    }

    /// Returns the refusal for a caller with this role. `role` is `None` if the caller has no role
    /// or its role was not read.
    #[must_use]
    pub fn refusal(self, role: Option<Role>) -> Refusal {
        let manages = |role: &&Role| self.stack_admin && role.manages_tokens();
        let callers = [
            (self.user, CallerRequired::User),
            (self.operator, CallerRequired::Operator),
            (self.introspector, CallerRequired::Introspector),
            (self.service, CallerRequired::Service),
            (self.workload, CallerRequired::Workload),
        ];
        let callers = callers.into_iter();
        Refusal::RoleRequired(RoleRequired {
            roles: Role::ALL.iter().filter(manages).copied().collect(),
            callers: callers
                .filter_map(|(will_do, who)| will_do.then_some(who))
                .collect(),
            role,
        })
    }
}

/// Whether a change is applied or only previewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Applies the change.
    #[default]
    Apply,
    /// Computes the result of the change, but does not apply it.
    Preview,
}

impl Mode {
    /// Returns the mode for this value of the request field `validate_only`.
    #[must_use]
    pub const fn of(validate_only: bool) -> Self {
        if validate_only {
            Self::Preview
        } else {
            Self::Apply
        }
    }
}

/// The context of one call, which the request layers pass to the store.
#[derive(Clone, Debug)]
pub struct Call {
    /// The authenticated caller.
    pub caller: Arc<Caller>,
    /// Which callers the RPC admits.
    pub requirement: Requirement,
    /// When the headers arrived, according to this replica's clock. No decision may depend on this
    /// time (R8), because the message may arrive seconds later, and the lock on the stack may be
    /// acquired later still.
    pub received_at: Timestamp,
    /// The request id, which is the same in the response, the log and the audit.
    pub request_id: String,
    /// Whether the change is applied or only previewed.
    pub mode: Mode,
}

impl Call {
    /// Returns a call that the program itself makes as an operator. No request and no credential
    /// precede it; the audit shows this issuer and subject.
    #[must_use]
    pub fn of_program(
        (issuer, subject): (&str, &str),
        request_id: String,
        (received_at, mode): (Timestamp, Mode),
    ) -> Self {
        Self {
            caller: Arc::new(Caller {
                actor: Actor {
                    kind: CallerKind::Operator,
                    issuer: issuer.to_owned(),
                    subject: subject.to_owned(),
                },
                introspects: false,
                workload: None,
                stranger_in: None,
            }),
            requirement: Requirement {
                operator: true,
                ..Requirement::default()
            },
            received_at,
            request_id,
            mode,
        }
    }

    /// Returns whether the call is a preview. A preview must not change anything.
    #[must_use]
    pub fn previews(&self) -> bool {
        self.mode == Mode::Preview
    }

    /// Returns whether the caller acts as an operator: its kind is operator, and it has no role
    /// that manages the stack's tokens.
    #[must_use]
    pub fn operates(&self, role: Option<Role>) -> bool {
        self.caller.actor.kind == CallerKind::Operator && !role.is_some_and(Role::manages_tokens)
    }
}
