//! The use case for reading the audit.

use super::{About, App, AuditCursor, AuditFilter, AuditPage, Error};
use crate::domain::{audit::AuditAction, caller::Call};

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
            token_uid: filter.token_uid.map(|uid| uid.to_string()),
        };
        let done = self.store.list_audit(call, filter, page).await;
        self.settle(call, (AuditAction::AuditList, about), done)
    }
}
