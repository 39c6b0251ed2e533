//! The full names of RPCs as they appear in the audit log.

pub const ISSUE: &str = "stacktoken.v1.TokenService/Issue";
pub const UPDATE: &str = "stacktoken.v1.TokenService/Update";
pub const SET_EXPIRY: &str = "stacktoken.v1.TokenService/SetExpiry";
pub const ROTATE: &str = "stacktoken.v1.TokenService/Rotate";
pub const END_OVERLAP: &str = "stacktoken.v1.TokenService/EndOverlap";
pub const REVOKE: &str = "stacktoken.v1.TokenService/Revoke";
pub const REVOKE_ALL: &str = "stacktoken.v1.TokenService/RevokeAll";
pub const REPORT_LEAKED: &str = "stacktoken.v1.LeakService/ReportLeaked";
pub const INTROSPECT: &str = "stacktoken.v1.IntrospectionService/Introspect";
pub const REGISTER: &str = "stacktoken.admin.v1.StackService/Register";
pub const SET_MEMBER: &str = "stacktoken.admin.v1.StackService/SetMember";
pub const REMOVE_MEMBER: &str = "stacktoken.admin.v1.StackService/RemoveMember";
pub const TRANSFER_OWNERSHIP: &str = "stacktoken.admin.v1.StackService/TransferOwnership";
pub const SET_TOKEN_LIMIT: &str = "stacktoken.admin.v1.StackService/SetTokenLimit";
pub const SUSPEND: &str = "stacktoken.admin.v1.StackService/Suspend";
pub const RESUME: &str = "stacktoken.admin.v1.StackService/Resume";
pub const REMOVE: &str = "stacktoken.admin.v1.StackService/Remove";
pub const LIST_AUDIT: &str = "stacktoken.audit.v1.AuditService/List";
