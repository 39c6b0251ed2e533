//! The audit: what was done and what was refused (R14). Ids only, and never a secret (R9).

use std::collections::BTreeMap;

use super::{caller::Actor, id::EventUid, timestamp::Timestamp};

macro_rules! actions {
    ($($action:ident $name:literal,)+) => {
        /// What was done or tried: one per audited RPC, and two for what comes of a verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the contract documents each; see AuditAction")]
        pub enum Action { $($action,)+ }

        impl Action {
            /// All actions.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// The name in the store and, upper-cased, in the contract.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$action => $name,)+ }
            }

            /// The action of this name.
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

/// Whether it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was, in the transaction that wrote the row.
    Done(Details),
    /// It was refused for this reason, so many times within the minute.
    Refused {
        /// The reason's name in the contract, without the prefix.
        reason: String,
        /// How many times.
        count: u32,
    },
}

/// One row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub uid: EventUid,
    /// When.
    pub occurred_at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// Done or refused.
    pub outcome: Outcome,
    /// The stack it was about, as the caller named it.
    pub stack_key: Option<String>,
    /// The token it was about.
    pub token_uid: Option<String>,
    /// The id of the first request.
    pub request_id: String,
}
