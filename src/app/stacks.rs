//! Use cases for stacks, their members and limits.

use super::{
    About, App, Error, MemberChange, MembersChanged, Register, StackCursor, StackPage, StackStep,
    StackWithMembers,
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
        token_uid: None,
    }
}

impl App {
    /// Generates a stack key, for a request to register a stack that names no key.
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
    ) -> Result<(Stack, Option<Revision>), Error> {
        let done = self.store.register_stack(call, command).await;
        self.note_change(call, &done);
        self.settle_change(
            call,
            (AuditAction::StackRegister, about(&command.stack_key)),
            done,
        )
    }

    /// Returns a stack with its members.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_stack(&self, call: &Call, key: &StackKey) -> Result<StackWithMembers, Error> {
        let done = self.store.get_stack(call, key).await;
        self.settle(call, (AuditAction::StackGet, about(key)), done)
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
        let action = match change {
            MemberChange::Set(..) => AuditAction::StackSetMember,
            MemberChange::Remove(_) => AuditAction::StackRemoveMember,
            MemberChange::TransferTo(_) => AuditAction::StackTransferOwnership,
        };
        let done = self.store.change_members(call, key, change).await;
        self.note_change(call, &done);
        self.settle_change(call, (action, about(key)), done)
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
