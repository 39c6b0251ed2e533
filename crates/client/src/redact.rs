//! Implements `Debug` for the messages that contain a secret. The output contains every field
//! except the secret (R9).

use std::fmt;

use crate::pb::v1::{IntrospectQuestion, IntrospectRequest};

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
