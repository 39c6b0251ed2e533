//! Use cases for stacks, their members and limits.

use super::{
    About, App, Error, MemberChange, MemberCursor, MemberPage, MembersChanged, OwnStackPage,
    Register, Registered, StackCursor, StackPage, StackStep, log_change,
};
use crate::domain::{
    audit::AuditAction,
    caller::Call,
    revision::Revision,
    stack::{Stack, StackKey},
    text::Reason,
};

fn about(stack: &StackKey) -> About {
    About {
        stack_key: Some(stack.to_string()),
        ..About::default()
    }
}

impl App {
    /// Generates a stack key for a registration request that has none.
    ///
    /// # Errors
    /// [`Error::Internal`] if the system provides no randomness.
    pub fn new_stack_key(&self) -> Result<StackKey, Error> {
        Ok(StackKey::generate(self.entropy.as_ref())?)
    }

    /// Registers a stack.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the key is already in use.
    pub async fn register_stack(
        &self,
        call: &Call,
        command: &Register,
    ) -> Result<Registered, Error> {
        let done = self.store.register_stack(call, command).await;
        let about_call = About {
            request_id: command.request.as_ref().map(|request| request.id.clone()),
            ..about(&command.stack_key)
        };
        let place = (AuditAction::StackRegister, about_call);
        let registered = self.settle(call, place, done)?;
        // A repetition changes nothing, and its revision may belong to a former epoch.
        if !registered.again && !call.previews() {
            self.note_own(registered.revision);
            let about = about(&registered.stack.key);
            log_change(AuditAction::StackRegister, &about, registered.revision);
        }
        Ok(registered)
    }

    /// Returns a stack.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_stack(&self, call: &Call, key: &StackKey) -> Result<Stack, Error> {
        let done = self.store.get_stack(call, key).await;
        self.settle(call, (AuditAction::StackGet, about(key)), done)
    }

    /// Returns a page of the members of a stack.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_members(
        &self,
        call: &Call,
        key: &StackKey,
        page: (u64, Option<&MemberCursor>),
    ) -> Result<MemberPage, Error> {
        let done = self.store.list_members(call, key, page).await;
        self.settle(call, (AuditAction::StackListMembers, about(key)), done)
    }

    /// Returns a page of stacks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_stacks(
        &self,
        call: &Call,
        organization_uid: Option<&str>,
        page: (u64, Option<StackCursor>),
    ) -> Result<StackPage, Error> {
        let done = self.store.list_stacks(call, organization_uid, page).await;
        self.settle(call, (AuditAction::StackList, About::default()), done)
    }

    /// Returns a page of the stacks of which the caller is a member.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_own_stacks(
        &self,
        call: &Call,
        page: (u64, Option<StackCursor>),
    ) -> Result<OwnStackPage, Error> {
        let done = self.store.list_own_stacks(call, page).await;
        self.settle(call, (AuditAction::TokenListStacks, About::default()), done)
    }

    /// Sets or removes a member of a stack, or transfers the ownership of the stack.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the stack would be left without an owner (R2).
    pub async fn change_members(
        &self,
        call: &Call,
        key: &StackKey,
        change: &MemberChange,
    ) -> Result<(MembersChanged, Option<Revision>), Error> {
        let done = self.store.change_members(call, key, change).await;
        self.note_change(call, &done);
        self.settle_change(call, (change.action(), about(key)), done)
    }

    /// Sets the maximum number of live tokens of a stack (R6).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_token_limit(
        &self,
        call: &Call,
        key: &StackKey,
        (max_tokens, reason): (u32, &Reason),
    ) -> Result<(Stack, Option<Revision>), Error> {
        let done = self
            .store
            .set_token_limit(call, key, (max_tokens, reason))
            .await;
        self.note_change(call, &done);
        self.settle_change(call, (AuditAction::StackSetTokenLimit, about(key)), done)
    }

    /// Suspends, resumes or removes a stack.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_stack_state(
        &self,
        call: &Call,
        key: &StackKey,
        (step, reason): (StackStep, &Reason),
    ) -> Result<(Stack, Option<Revision>), Error> {
        let done = self.store.set_stack_state(call, key, (step, reason)).await;
        self.note_change(call, &done);
        self.settle_change(call, (step.action(), about(key)), done)
    }
}
