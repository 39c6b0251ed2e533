//! The use case for reading the audit.

use super::{About, App, AuditCursor, AuditFilter, AuditPage, Error};
use crate::domain::{audit::AuditAction, caller::Call, id::TokenUid};

/// Returns the token if the filter selects exactly one.
fn only(tokens: &[TokenUid]) -> Option<String> {
    match tokens {
        [uid] => Some(uid.to_string()),
        _ => None,
    }
}

impl App {
    /// Returns a page of the audit.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the caller may not read the audit.
    pub async fn list_audit(
        &self,
        call: &Call,
        filter: &AuditFilter,
        page: (u64, Option<AuditCursor>),
    ) -> Result<AuditPage, Error> {
        let about = About {
            stack_key: filter.stack_key.as_ref().map(ToString::to_string),
            token_uid: only(&filter.token_uids),
            ..About::default()
        };
        let done = self.store.list_audit(call, filter, page).await;
        self.settle(call, (AuditAction::AuditList, about), done)
    }
}
