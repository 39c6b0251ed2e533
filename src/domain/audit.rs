//! The audit: what was done and what was refused (R14). It holds ids, and never a secret (R9).

use std::collections::BTreeMap;

use super::{caller::Actor, id::EventUid, timestamp::Timestamp};

macro_rules! actions {
    ($($action:ident $name:literal,)+) => {
        /// An audited action: one per audited RPC, and two that verdicts cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the contract documents each; see AuditAction")]
        pub enum AuditAction { $($action,)+ }

        impl AuditAction {
            /// All actions.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// Returns the name in the store and, in upper case, in the API.
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

/// Names and values of what changed.
pub type Details = BTreeMap<String, String>;

/// Outcome of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, in the transaction that wrote the row.
    Done(Details),
    /// Refused, `count` times within the minute.
    Refused {
        /// Name of the reason in the API, without the prefix.
        reason: String,
        /// Number of refusals.
        count: u32,
    },
}

/// One row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Id of the row.
    pub uid: EventUid,
    /// Time of the event.
    pub occurred_at: Timestamp,
    /// Who acted.
    pub actor: Actor,
    /// The action.
    pub action: AuditAction,
    /// The outcome.
    pub outcome: Outcome,
    /// Stack key, as the caller sent it.
    pub stack_key: Option<String>,
    /// Token id, if the event is about a token.
    pub token_uid: Option<String>,
    /// Request id of the first request that the row counts.
    pub request_id: String,
}
