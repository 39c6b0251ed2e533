//! The one table that says, RPC by RPC, who may call it. What is not in it is denied. The
//! role in the stack is judged later, in the transaction that does the work.

use std::{collections::HashMap, sync::LazyLock};

use crate::domain::{audit::Action, caller::Demand};

/// What is known of one RPC before its request is read.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The path of its HTTP request.
    pub path: &'static str,
    /// Who may call it.
    pub admits: Admits,
    /// Whether it changes anything, and so counts against the caller's rate of changes.
    pub changes: bool,
    /// What the audit calls it; `None` where refusals are not audited (R14).
    pub action: Option<Action>,
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Whoever reaches the port: health and reflection.
    Everybody,
    /// Callers who meet a demand.
    Callers(Demand),
}

const NOBODY: Demand = Demand {
    governor: false,
    operator: false,
    introspector: false,
    service: false,
    anyone: false,
};
const GOVERNOR: Demand = Demand {
    governor: true,
    ..NOBODY
};
const OPERATOR: Demand = Demand {
    operator: true,
    ..NOBODY
};
const GOVERNOR_OR_OPERATOR: Demand = Demand {
    governor: true,
    operator: true,
    ..NOBODY
};
const INTROSPECTOR: Demand = Demand {
    introspector: true,
    ..NOBODY
};
const OPERATOR_OR_SERVICE: Demand = Demand {
    operator: true,
    service: true,
    ..NOBODY
};
const ANYONE: Demand = Demand {
    anyone: true,
    ..NOBODY
};

const fn open(path: &'static str) -> Rule {
    Rule {
        path,
        admits: Admits::Everybody,
        changes: false,
        action: None,
    }
}

const fn verdict(path: &'static str, demand: Demand) -> Rule {
    Rule {
        path,
        admits: Admits::Callers(demand),
        changes: false,
        action: None,
    }
}

const fn read(path: &'static str, demand: Demand, action: Action) -> Rule {
    Rule {
        path,
        admits: Admits::Callers(demand),
        changes: false,
        action: Some(action),
    }
}

const fn change(path: &'static str, demand: Demand, action: Action) -> Rule {
    Rule {
        path,
        admits: Admits::Callers(demand),
        changes: true,
        action: Some(action),
    }
}

/// Every RPC that is served.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    change("/stacktoken.v1.TokenService/Issue", GOVERNOR, Action::TokenIssue),
    read("/stacktoken.v1.TokenService/Get", GOVERNOR_OR_OPERATOR, Action::TokenGet),
    read("/stacktoken.v1.TokenService/List", GOVERNOR_OR_OPERATOR, Action::TokenList),
    change("/stacktoken.v1.TokenService/Update", GOVERNOR, Action::TokenUpdate),
    change("/stacktoken.v1.TokenService/SetExpiry", GOVERNOR_OR_OPERATOR, Action::TokenSetExpiry),
    change("/stacktoken.v1.TokenService/Rotate", GOVERNOR, Action::TokenRotate),
    change("/stacktoken.v1.TokenService/Revoke", GOVERNOR_OR_OPERATOR, Action::TokenRevoke),
    change("/stacktoken.v1.TokenService/RevokeAll", GOVERNOR_OR_OPERATOR, Action::TokenRevokeAll),
    change("/stacktoken.v1.TokenService/ReportLeaked", OPERATOR_OR_SERVICE, Action::TokenReportLeaked),
    verdict("/stacktoken.v1.IntrospectionService/Introspect", INTROSPECTOR),
    verdict("/stacktoken.v1.IntrospectionService/BatchIntrospect", INTROSPECTOR),
    verdict("/stacktoken.v1.IntrospectionService/ListActions", ANYONE),
    verdict("/stacktoken.v1.IntrospectionService/Watch", INTROSPECTOR),
    verdict("/envoy.service.auth.v3.Authorization/Check", INTROSPECTOR),
    change("/stacktoken.admin.v1.StackService/Register", OPERATOR, Action::StackRegister),
    read("/stacktoken.admin.v1.StackService/Get", GOVERNOR_OR_OPERATOR, Action::StackGet),
    read("/stacktoken.admin.v1.StackService/List", OPERATOR, Action::StackList),
    change("/stacktoken.admin.v1.StackService/SetMember", OPERATOR, Action::StackSetMember),
    change("/stacktoken.admin.v1.StackService/RemoveMember", OPERATOR, Action::StackRemoveMember),
    change("/stacktoken.admin.v1.StackService/TransferOwnership", OPERATOR, Action::StackTransferOwnership),
    change("/stacktoken.admin.v1.StackService/SetTokenLimit", OPERATOR, Action::StackSetTokenLimit),
    change("/stacktoken.admin.v1.StackService/Suspend", OPERATOR, Action::StackSuspend),
    change("/stacktoken.admin.v1.StackService/Resume", OPERATOR, Action::StackResume),
    change("/stacktoken.admin.v1.StackService/Remove", OPERATOR, Action::StackRemove),
    read("/stacktoken.audit.v1.AuditService/List", GOVERNOR_OR_OPERATOR, Action::AuditList),
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

static BY_PATH: LazyLock<HashMap<&str, &Rule>> =
    LazyLock::new(|| RULES.iter().map(|rule| (rule.path, rule)).collect());

/// The rule of a path, matched to the letter; `None` is denied.
#[must_use]
pub fn rule(path: &str) -> Option<&'static Rule> {
    BY_PATH.get(path).copied()
}

impl Rule {
    /// Whether it is for the services that ask at every request of theirs, and may be answered
    /// from memory.
    #[must_use]
    pub const fn is_verdict(&self) -> bool {
        self.action.is_none() && !self.changes
    }

    /// The RPC as OpenTelemetry names it, `package.Service/Method`.
    #[must_use]
    pub fn rpc_method(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}
