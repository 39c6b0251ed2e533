//! The policy table, which lists all RPCs and who may call them. A call of an RPC that is not
//! listed is denied. The caller's role in the stack is checked later, in the transaction that
//! carries out the call.

use std::{collections::HashMap, sync::LazyLock};

use crate::domain::{audit::AuditAction, caller::Requirement};

/// The access rule of one RPC. It is applied before the request message is read.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Path of the RPC in the HTTP request.
    pub path: &'static str,
    /// Who may call the RPC.
    pub admits: AllowedCallers,
    /// Whether the RPC changes state. If so, a call counts against the caller's rate limit on
    /// changes.
    pub changes: bool,
    /// Whether the client may send any number of messages, instead of exactly one.
    pub takes_stream: bool,
    /// Name of the RPC in the audit; `None` if its refusals are not audited (R14).
    pub action: Option<AuditAction>,
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedCallers {
    /// Anyone who can reach the port. Used for health and reflection.
    Everybody,
    /// Authenticated callers who meet the requirement. If it is [`Requirement::holder`], callers who
    /// are not authenticated.
    Callers(Requirement),
}

const NOBODY: Requirement = Requirement {
    stack_admin: false,
    user: false,
    operator: false,
    introspector: false,
    service: false,
    anyone: false,
    workload: false,
    holder: false,
};
const STACK_ADMIN: Requirement = Requirement {
    stack_admin: true,
    ..NOBODY
};
const USER: Requirement = Requirement {
    user: true,
    ..NOBODY
};
const OPERATOR: Requirement = Requirement {
    operator: true,
    ..NOBODY
};
const GOVERNOR_OR_OPERATOR: Requirement = Requirement {
    stack_admin: true,
    operator: true,
    ..NOBODY
};
const INTROSPECTOR: Requirement = Requirement {
    introspector: true,
    ..NOBODY
};
const OPERATOR_OR_SERVICE: Requirement = Requirement {
    operator: true,
    service: true,
    ..NOBODY
};
const WORKLOAD: Requirement = Requirement {
    workload: true,
    ..NOBODY
};
const ANYONE: Requirement = Requirement {
    anyone: true,
    ..NOBODY
};
const HOLDER: Requirement = Requirement {
    holder: true,
    ..NOBODY
};

const fn open(path: &'static str) -> Rule {
    Rule {
        path,
        admits: AllowedCallers::Everybody,
        changes: false,
        takes_stream: false,
        action: None,
    }
}

const fn verdict(path: &'static str, requirement: Requirement) -> Rule {
    Rule {
        path,
        admits: AllowedCallers::Callers(requirement),
        changes: false,
        takes_stream: false,
        action: None,
    }
}

/// Marks the RPC of a rule as one in which the client may send any number of messages.
const fn stream(rule: Rule) -> Rule {
    Rule {
        takes_stream: true,
        ..rule
    }
}

const fn read(path: &'static str, requirement: Requirement, action: AuditAction) -> Rule {
    Rule {
        path: path_of(path, action),
        admits: AllowedCallers::Callers(requirement),
        changes: false,
        takes_stream: false,
        action: Some(action),
    }
}

const fn change(path: &'static str, requirement: Requirement, action: AuditAction) -> Rule {
    Rule {
        path: path_of(path, action),
        admits: AllowedCallers::Callers(requirement),
        changes: true,
        takes_stream: false,
        action: Some(action),
    }
}

/// Returns the path. Compilation fails if the audit action has a different method name.
const fn path_of(path: &'static str, action: AuditAction) -> &'static str {
    let (path_bytes, method) = (path.as_bytes(), action.method().as_bytes());
    assert!(path_bytes.len() == method.len() + 1 && path_bytes[0] == b'/');
    let mut at = 0;
    while at < method.len() {
        assert!(path_bytes[at + 1] == method[at]);
        at += 1;
    }
    path
}

/// The rules of all RPCs that are served.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    change("/stacktoken.v1.TokenService/Issue", STACK_ADMIN, AuditAction::TokenIssue),
    read("/stacktoken.v1.TokenService/Get", GOVERNOR_OR_OPERATOR, AuditAction::TokenGet),
    read("/stacktoken.v1.TokenService/GetUsage", GOVERNOR_OR_OPERATOR, AuditAction::TokenGetUsage),
    read("/stacktoken.v1.TokenService/ListStacks", USER, AuditAction::TokenListStacks),
    read("/stacktoken.v1.TokenService/List", GOVERNOR_OR_OPERATOR, AuditAction::TokenList),
    change("/stacktoken.v1.TokenService/Update", STACK_ADMIN, AuditAction::TokenUpdate),
    change("/stacktoken.v1.TokenService/SetExpiry", GOVERNOR_OR_OPERATOR, AuditAction::TokenSetExpiry),
    change("/stacktoken.v1.TokenService/Rotate", STACK_ADMIN, AuditAction::TokenRotate),
    change("/stacktoken.v1.TokenService/EndOverlap", STACK_ADMIN, AuditAction::TokenEndOverlap),
    change("/stacktoken.v1.TokenService/Revoke", GOVERNOR_OR_OPERATOR, AuditAction::TokenRevoke),
    change("/stacktoken.v1.TokenService/RevokeAll", GOVERNOR_OR_OPERATOR, AuditAction::TokenRevokeAll),
    read("/stacktoken.v1.TokenService/ExplainExchange", STACK_ADMIN, AuditAction::TokenExplainExchange),
    read("/stacktoken.v1.TokenService/ListFederationIssuers", STACK_ADMIN, AuditAction::TokenListFederationIssuers),
    change("/stacktoken.v1.TokenService/EndSessions", STACK_ADMIN, AuditAction::TokenEndSessions),
    change("/stacktoken.v1.ExchangeService/Exchange", WORKLOAD, AuditAction::TokenExchange),
    change("/stacktoken.v1.ExchangeService/EndSession", HOLDER, AuditAction::TokenEndSession),
    change("/stacktoken.v1.LeakService/ReportLeaked", OPERATOR_OR_SERVICE, AuditAction::TokenReportLeaked),
    verdict("/stacktoken.v1.IntrospectionService/Introspect", INTROSPECTOR),
    verdict("/stacktoken.v1.IntrospectionService/BatchIntrospect", INTROSPECTOR),
    verdict("/stacktoken.v1.ActionService/ListActions", ANYONE),
    stream(verdict("/stacktoken.v1.IntrospectionService/Watch", INTROSPECTOR)),
    verdict("/envoy.service.auth.v3.Authorization/Check", INTROSPECTOR),
    change("/stacktoken.admin.v1.StackService/Register", OPERATOR, AuditAction::StackRegister),
    read("/stacktoken.admin.v1.StackService/Get", GOVERNOR_OR_OPERATOR, AuditAction::StackGet),
    read("/stacktoken.admin.v1.StackService/List", OPERATOR, AuditAction::StackList),
    read("/stacktoken.admin.v1.StackService/ListMembers", GOVERNOR_OR_OPERATOR, AuditAction::StackListMembers),
    change("/stacktoken.admin.v1.StackService/SetMember", OPERATOR, AuditAction::StackSetMember),
    change("/stacktoken.admin.v1.StackService/RemoveMember", OPERATOR, AuditAction::StackRemoveMember),
    change("/stacktoken.admin.v1.StackService/TransferOwnership", OPERATOR, AuditAction::StackTransferOwnership),
    change("/stacktoken.admin.v1.StackService/SetTokenLimit", OPERATOR, AuditAction::StackSetTokenLimit),
    change("/stacktoken.admin.v1.StackService/Suspend", OPERATOR, AuditAction::StackSuspend),
    change("/stacktoken.admin.v1.StackService/Resume", OPERATOR, AuditAction::StackResume),
    change("/stacktoken.admin.v1.StackService/Remove", OPERATOR, AuditAction::StackRemove),
    read("/stacktoken.audit.v1.AuditService/List", GOVERNOR_OR_OPERATOR, AuditAction::AuditList),
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    open("/grpc.health.v1.Health/List"),
    stream(open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")),
    stream(open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")),
];

static BY_PATH: LazyLock<HashMap<&str, &Rule>> =
    LazyLock::new(|| RULES.iter().map(|rule| (rule.path, rule)).collect());

/// Returns the rule whose path is exactly `path`. `None` means that the call is denied.
#[must_use]
pub fn rule(path: &str) -> Option<&'static Rule> {
    BY_PATH.get(path).copied()
}

impl Rule {
    /// Returns whether the RPC changes nothing and its refusals are not audited. Services may call
    /// such an RPC for every request that they serve, so its calls must be cheap and may be
    /// answered from the cache.
    #[must_use]
    pub const fn is_verdict(&self) -> bool {
        self.action.is_none() && !self.changes
    }

    /// Returns whether the RPC needs no credential.
    #[must_use]
    pub fn admits_everybody(&self) -> bool {
        self.admits == AllowedCallers::Everybody
    }

    /// Returns the OpenTelemetry name of the RPC, `package.Service/Method`.
    #[must_use]
    pub fn rpc_method(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}
