//! The denials of a request. Each has an HTTP status, a gRPC code, a reason, and a message in the
//! error format of the content management API.

use envoy_types::ext_authz::v3::pb::HttpStatusCode;
use tonic::Code;

use crate::domain::verdict::{Denial, Reason};

/// A denial. It is identical for all unrecognized tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub kind: Kind,
    pub reason: &'static str,
    /// The header or part of the request to correct.
    pub field: &'static str,
    /// What is wrong with this field, and how to correct it.
    pub problem: String,
}

/// Which part of the request has to be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The credential. The HTTP status is 401.
    Credential,
    /// The stack key. The HTTP status is 412.
    StackKey,
    /// The requested action. The HTTP status is 403.
    Permission,
}

impl Kind {
    pub(super) const fn http(self) -> HttpStatusCode {
        match self {
            Self::Credential => HttpStatusCode::Unauthorized,
            Self::StackKey => HttpStatusCode::PreconditionFailed,
            Self::Permission => HttpStatusCode::Forbidden,
        }
    }

    pub(super) const fn code(self) -> Code {
        match self {
            Self::Credential => Code::Unauthenticated,
            Self::StackKey => Code::FailedPrecondition,
            Self::Permission => Code::PermissionDenied,
        }
    }

    /// Returns the error code that the content management API uses for this kind of error.
    pub(super) const fn error_code(self) -> u32 {
        match self {
            Self::Credential => 105,
            Self::StackKey => 109,
            Self::Permission => 162,
        }
    }

    pub(super) const fn headline(self) -> &'static str {
        match self {
            Self::Credential => {
                "The management token was not accepted. Send a live one in the authorization header."
            }
            Self::StackKey => {
                "The stack is not known. Send its API key in the api_key header, once."
            }
            Self::Permission => "The request is not allowed with this management token.",
        }
    }
}

/// Defines the denials that depend only on the request and the configuration, not on the token.
macro_rules! faults {
    ($($name:ident $kind:ident $reason:literal $field:literal $problem:literal;)+) => {
        $(pub(super) fn $name() -> Refused {
            Refused { kind: Kind::$kind, reason: $reason, field: $field, problem: $problem.to_owned() }
        })+
    };
}

faults! {
    credential_missing Credential "CREDENTIAL_MISSING" "authorization"
        "is missing: send the management token in it, as it is or after `Bearer `.";
    credential_invalid Credential "CREDENTIAL_INVALID" "authorization"
        "is not one management token: send it once, as it is or after `Bearer ` and one space, and no authtoken, access_token or similar beside it.";
    stack_key_missing StackKey "STACK_KEY_MISSING" "api_key"
        "is missing: send the API key of the stack that the token belongs to.";
    stack_key_invalid StackKey "STACK_KEY_INVALID" "api_key"
        "is not one stack API key: send it once, `blt` and 16 lower-case hexadecimal digits.";
    branch_invalid Permission "BRANCH_INVALID" "branch"
        "is not one name of a branch or alias: send it once, 1 to 64 of the characters A-Z a-z 0-9 . _ -";
    query_branch_invalid Permission "BRANCH_INVALID" "query"
        "names branches with base_branch or compare_branch: write each as 1 to 64 of the characters A-Z a-z 0-9 . _ - and name at most four.";
    overridden Permission "REQUEST_OVERRIDDEN" "method"
        "or path is replaced by a header: send both themselves, without x-http-method-override, x-original-uri or similar.";
    path_not_canonical Permission "PATH_NOT_CANONICAL" "path"
        "is ambiguous: send it without empty segments, dots or spaces at the ends of one, a slash at its end, `;` or characters encoded unnecessarily.";
    query_ambiguous Permission "QUERY_AMBIGUOUS" "query"
        "names a credential, a stack, a branch, a method or a path, or has a name with characters other than A-Z a-z 0-9 _ . [ ] $ -: send the first as headers only, and no such names.";
    query_refused Permission "QUERY_REFUSED" "query"
        "requests the users of the stack with include_collaborators: leave that out, and read /v3/stacks/users with a token that is permitted to.";
    route_unknown Permission "ROUTE_UNKNOWN" "path"
        "and method are not known to the authorization: check them, or ask an operator to add them to the route table.";
    route_misconfigured Permission "ROUTE_MISCONFIGURED" "path"
        "belongs to a route whose context_extensions cannot be read: ask an operator to correct them.";
    request_unreadable Permission "REQUEST_UNREADABLE" "request"
        "cannot be read: send smaller headers, in plain ASCII.";
}

/// Returns the denial for an unrecognized token, which may be unknown, mistyped or of another
/// stack.
pub(super) fn not_recognized() -> Refused {
    by_verdict(Reason::NotRecognized, None)
}

/// Returns the denial for a verdict that does not allow the request.
pub(super) fn by_verdict(reason: Reason, denied: Option<(&str, &Denial)>) -> Refused {
    let (kind, field) = match reason {
        Reason::NotRecognized | Reason::Revoked | Reason::Expired | Reason::Superseded => {
            (Kind::Credential, "authorization")
        }
        Reason::BranchNotGranted => (Kind::Permission, "branch"),
        _ => (Kind::Permission, "authorization"),
    };
    Refused {
        kind,
        reason: reason.name(),
        field,
        problem: words(reason, denied),
    }
}

fn words(reason: Reason, denied: Option<(&str, &Denial)>) -> String {
    let (action, missing) = denied.map_or(("", None), |(action, denial)| {
        (action, denial.missing.as_ref().map(ToString::to_string))
    });
    let missing = missing.unwrap_or_default();
    match reason {
        Reason::NotRecognized => {
            "is not recognized with this api_key: check both, or have a new token issued.".into()
        }
        Reason::Revoked => "is revoked permanently: have a new token issued.".into(),
        Reason::Expired => "has expired permanently: have a new token issued.".into(),
        Reason::Superseded => {
            "was replaced by a newer secret of the same token: use that one.".into()
        }
        Reason::StackSuspended => {
            "belongs to a stack that is suspended: ask an operator to resume it.".into()
        }
        Reason::NeverAllowed | Reason::Unknown => {
            format!("can never do this ({action}): sign in as a person with that right.")
        }
        Reason::ActionUnknown => {
            format!(
                "cannot be evaluated for {action}, which is not in the catalogue: ask an operator."
            )
        }
        Reason::FactMissing => {
            format!(
                "needs a fact that the route does not state for {action} ({missing}): ask an operator."
            )
        }
        Reason::ReadOnly | Reason::ModuleNotGranted => {
            format!("lacks what {action} needs ({missing}): use a token that has it.")
        }
        Reason::BranchNotGranted => {
            format!(
                "is not one that the token covers for {action} ({missing}): use a token that does."
            )
        }
    }
}
