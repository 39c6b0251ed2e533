//! Defines the rows of the audit log, which records what was done and what was refused (R14). A row
//! contains ids, but never a secret (R9).

use std::collections::BTreeMap;

use super::{
    caller::Actor,
    id::EventUid,
    stack::{Member, Person, Stack},
    timestamp::Timestamp,
    token::Token,
};

macro_rules! actions {
    ($($action:ident $name:literal $method:literal,)+) => {
        /// An audited action: a call of an audited RPC, or one of the two writes that a verdict
        /// can cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is named after its method; see `method`")]
        pub enum AuditAction { $($action,)+ }

        impl AuditAction {
            /// All audit actions.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// Returns the code of the action in the store.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$action => $name,)+ }
            }

            /// Returns the full name of the RPC, as the API shows it: `package.Service/Method`. For
            /// a write that a verdict causes, this is the introspection RPC.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self { $(Self::$action => $method,)+ }
            }
        }
    };
}

actions! {
    TokenIssue "token_issue" "stacktoken.v1.TokenService/Issue",
    TokenGet "token_get" "stacktoken.v1.TokenService/Get",
    TokenList "token_list" "stacktoken.v1.TokenService/List",
    TokenListStacks "token_list_stacks" "stacktoken.v1.TokenService/ListStacks",
    TokenGetUsage "token_get_usage" "stacktoken.v1.TokenService/GetUsage",
    TokenUpdate "token_update" "stacktoken.v1.TokenService/Update",
    TokenSetExpiry "token_set_expiry" "stacktoken.v1.TokenService/SetExpiry",
    TokenRevoke "token_revoke" "stacktoken.v1.TokenService/Revoke",
    TokenRotate "token_rotate" "stacktoken.v1.TokenService/Rotate",
    TokenEndOverlap "token_end_overlap" "stacktoken.v1.TokenService/EndOverlap",
    TokenRevokeAll "token_revoke_all" "stacktoken.v1.TokenService/RevokeAll",
    TokenReportLeaked "token_report_leaked" "stacktoken.v1.LeakService/ReportLeaked",
    TokenExchange "token_exchange" "stacktoken.v1.ExchangeService/Exchange",
    TokenEndSession "token_end_session" "stacktoken.v1.ExchangeService/EndSession",
    TokenExplainExchange "token_explain_exchange" "stacktoken.v1.TokenService/ExplainExchange",
    TokenListFederationIssuers "token_list_federation_issuers" "stacktoken.v1.TokenService/ListFederationIssuers",
    TokenEndSessions "token_end_sessions" "stacktoken.v1.TokenService/EndSessions",
    TokenFirstUse "token_first_use" "stacktoken.v1.IntrospectionService/Introspect",
    TokenSuperseded "token_superseded" "stacktoken.v1.IntrospectionService/Introspect",
    StackRegister "stack_register" "stacktoken.admin.v1.StackService/Register",
    StackGet "stack_get" "stacktoken.admin.v1.StackService/Get",
    StackList "stack_list" "stacktoken.admin.v1.StackService/List",
    StackListMembers "stack_list_members" "stacktoken.admin.v1.StackService/ListMembers",
    StackSetMember "stack_set_member" "stacktoken.admin.v1.StackService/SetMember",
    StackRemoveMember "stack_remove_member" "stacktoken.admin.v1.StackService/RemoveMember",
    StackTransferOwnership "stack_transfer_ownership" "stacktoken.admin.v1.StackService/TransferOwnership",
    StackSetTokenLimit "stack_set_token_limit" "stacktoken.admin.v1.StackService/SetTokenLimit",
    StackSuspend "stack_suspend" "stacktoken.admin.v1.StackService/Suspend",
    StackResume "stack_resume" "stacktoken.admin.v1.StackService/Resume",
    StackRemove "stack_remove" "stacktoken.admin.v1.StackService/Remove",
    NewGuard "new_guard" "stacktoken.restore/NewGuard",
    AuditList "audit_list" "stacktoken.audit.v1.AuditService/List",
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The call itself.
    Call,
    /// A secret that Rotate created was used for the first time, which ended the former secret.
    FirstUse,
    /// A superseded secret was presented for the first time.
    Superseded,
}

impl AuditAction {
    /// Returns the action with this code in the store.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.name() == name)
    }

    /// Returns what an event of this action is about.
    #[must_use]
    pub const fn kind(self) -> EventKind {
        match self {
            Self::TokenFirstUse => EventKind::FirstUse,
            Self::TokenSuperseded => EventKind::Superseded,
            _ => EventKind::Call,
        }
    }
}

/// Details of a change that are not part of a snapshot, by name.
pub type Details = BTreeMap<String, String>;

/// The state of a change's subject before or after the change. It contains no secret (R9) and no
/// email address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A token.
    Token(Box<Token>),
    /// A stack.
    Stack(Box<Stack>),
    /// A member of a stack.
    Member(Box<Member>),
}

impl From<&Token> for Snapshot {
    fn from(token: &Token) -> Self {
        Self::Token(Box::new(token.clone()))
    }
}

impl From<&Stack> for Snapshot {
    fn from(stack: &Stack) -> Self {
        let owner = without_email(&stack.owner);
        let stack = stack.clone();
        Self::Stack(Box::new(Stack { owner, ..stack }))
    }
}

impl From<&Member> for Snapshot {
    fn from(member: &Member) -> Self {
        let person = without_email(&member.person);
        let member = member.clone();
        Self::Member(Box::new(Member { person, ..member }))
    }
}

/// Returns the person without the email address, which is personal data and not needed to identify
/// the person.
fn without_email(person: &Person) -> Person {
    Person {
        email: None,
        ..person.clone()
    }
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The subject before the change. `None` if there was none, or if the change has no subject.
    pub before: Option<Snapshot>,
    /// The subject after the change. `None` if there is none.
    pub after: Option<Snapshot>,
    /// Details that are not part of a snapshot.
    pub details: Details,
}

/// The outcome of an audited action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The action was done, in the transaction that wrote the audit row.
    Done(Change),
    /// The action was refused `count` times within one minute.
    Refused {
        /// The name of the reason in the API, without the prefix.
        reason: String,
        /// The number of refusals.
        count: u32,
        /// Causes that were withheld from the caller, such as why an exchange was refused.
        details: Details,
    },
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id of the row.
    pub uid: EventUid,
    /// When the event happened.
    pub occurred_at: Timestamp,
    /// Who acted.
    pub actor: Actor,
    /// The action that was done or refused.
    pub action: AuditAction,
    /// Whether the action was done or refused.
    pub outcome: Outcome,
    /// The stack key, as the caller sent it.
    pub stack_key: Option<String>,
    /// The token id, if the event is about a token.
    pub token_uid: Option<String>,
    /// The idempotency key of the request, if the caller sent one. If the row counts several
    /// requests, this is the key of the first one.
    pub request_id: Option<String>,
    /// The id of the call. If the row counts several calls, this is the id of the first one.
    pub call_id: String,
}
