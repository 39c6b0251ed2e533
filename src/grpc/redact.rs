//! Implements `Debug` for messages that contain a secret. The output contains every field except
//! the secret (R9).

use std::fmt;

use super::pb::v1::{
    EndSessionRequest, ExchangeResponse, ExplainExchangeRequest, IntrospectQuestion,
    IntrospectRequest, IssueResponse, ReportLeakedRequest, RotateResponse,
};

impl fmt::Debug for IssueResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueResponse")
            .field("token", &self.token)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RotateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateResponse")
            .field("token", &self.token)
            .field("revision", &self.revision)
            .field("overlap_ends_at", &self.overlap_ends_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ExchangeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeResponse")
            .field("expires_at", &self.expires_at)
            .field("token_uid", &self.token_uid)
            .field("permissions", &self.permissions)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EndSessionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSessionRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for ExplainExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExplainExchangeRequest")
            .field("stack_api_key", &self.stack_api_key)
            .field("token_uid", &self.token_uid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IntrospectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectRequest")
            .field("stack_api_key", &self.stack_api_key)
            .field("actions", &self.actions)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IntrospectQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectQuestion")
            .field("stack_api_key", &self.stack_api_key)
            .field("actions", &self.actions)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReportLeakedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLeakedRequest")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
