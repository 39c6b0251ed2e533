//! The audit log. It records what was done and what was refused (R14). It holds ids, and never a
//! secret (R9).

use std::collections::BTreeMap;

use super::{caller::Actor, id::EventUid, timestamp::Timestamp};

macro_rules! actions {
    ($($action:ident $name:literal,)+) => {
        /// An audited action. There is one for each audited RPC, and two more for writes that
        /// verdicts cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the contract documents each; see AuditAction")]
        pub enum AuditAction { $($action,)+ }

        impl AuditAction {
            /// All audit actions.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// Returns the name of the action in the store. The API uses the same name in upper
            /// case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$action => $name,)+ }
            }

            /// Returns the action with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|action| action.name() == name)
            }
        }
    };
}

actions! {
    TokenIssue "token_issue", TokenGet "token_get", TokenList "token_list", TokenUpdate "token_update",
    TokenSetExpiry "token_set_expiry", TokenRevoke "token_revoke", TokenRotate "token_rotate",
    TokenFirstUse "token_first_use", TokenSuperseded "token_superseded", StackRegister "stack_register",
    StackGet "stack_get", StackList "stack_list", StackSetMember "stack_set_member",
    StackRemoveMember "stack_remove_member", StackTransferOwnership "stack_transfer_ownership",
    StackSetTokenLimit "stack_set_token_limit", StackSuspend "stack_suspend", StackResume "stack_resume",
    StackRemove "stack_remove", AuditList "audit_list",
    TokenRevokeAll "token_revoke_all", TokenReportLeaked "token_report_leaked",
}

/// What a change altered: names of fields, and their values.
pub type Details = BTreeMap<String, String>;

/// The outcome of an audited action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The action was done, in the transaction that wrote the audit row.
    Done(Details),
    /// The action was refused `count` times within one minute.
    Refused {
        /// The name of the reason in the API, without the prefix.
        reason: String,
        /// The number of refusals.
        count: u32,
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
    /// The id of the request. If the row counts several requests, the id of the first one.
    pub request_id: String,
}
