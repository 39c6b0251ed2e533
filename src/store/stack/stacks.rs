//! Reads stacks, suspends and removes them, and limits their tokens.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, SimpleExpr},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::StackUid,
    page,
    revision::Revision,
    stack::{Role, Stack, StackKey},
    text::Reason,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::{member, stack},
    stack::access::RemovedStacks,
    token::rows::{self, corrupt},
};

/// The position of the last stack on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCursor {
    at: i64,
    uid: Uuid,
}

impl StackCursor {
    pub(in crate::store) const fn of(row: &stack::Model) -> Self {
        Self {
            at: row.registered_at,
            uid: row.uid,
        }
    }

    /// Returns the condition for stacks that come after this position, newest first.
    pub(in crate::store) fn beyond(self) -> SimpleExpr {
        let same = stack::Column::RegisteredAt
            .eq(self.at)
            .and(stack::Column::Uid.lt(self.uid));
        stack::Column::RegisteredAt.lt(self.at).or(same)
    }
}

/// A page of stacks, newest first.
#[derive(Debug)]
pub struct StackPage {
    /// The stacks of the page.
    pub stacks: Vec<Stack>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<StackCursor>,
}

impl Store {
    /// Returns one stack.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn get_stack(&self, call: &Call, key: &StackKey) -> Result<Stack, Error> {
        read_tx!(self, call, "get_stack", |tx| {
            let found = self.load_stack_to_show(tx, call, key).await?;
            self.stack_in(tx, found.uid, self.clock.now()).await
        })
    }

    /// Returns a page of the stacks of one organization, or of all stacks.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn list_stacks(
        &self,
        call: &Call,
        organization_uid: Option<&str>,
        (size, after): (u64, Option<StackCursor>),
    ) -> Result<StackPage, Error> {
        read_tx!(self, call, "list_stacks", |tx| {
            call.requirement.check(&call.caller, None)?;
            let mut query = stack::Entity::find();
            if let Some(organization) = organization_uid {
                query = query.filter(stack::Column::OrganizationUid.eq(organization));
            }
            if let Some(cursor) = after {
                query = query.filter(cursor.beyond());
            }
            let mut rows = query
                .order_by_desc(stack::Column::RegisteredAt)
                .order_by_desc(stack::Column::Uid)
                .limit(size + 1)
                .all(tx)
                .await?;
            let next = page::cut(&mut rows, size, StackCursor::of);
            let mut stacks = Vec::with_capacity(rows.len());
            for row in rows {
                let uid = StackUid::from_untyped_uuid(row.uid);
                stacks.push(self.stack_in(tx, uid, self.clock.now()).await?);
            }
            Ok(StackPage { stacks, next })
        })
    }

    /// Sets the maximum number of live tokens of the stack (R6).
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn set_token_limit(
        &self,
        call: &Call,
        key: &StackKey,
        (max_tokens, reason): (u32, &Reason),
    ) -> Result<(Stack, Revision), Error> {
        change_tx!(self, (call.mode, key), "set_token_limit", |tx| {
            let found = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let before = self.stack_in(tx, found.uid, found.at).await?;
            let limit = i32::try_from(max_tokens).unwrap_or(i32::MAX);
            stack::Entity::update_many()
                .col_expr(stack::Column::TokenLimit, Expr::value(limit))
                .filter(stack::Column::Uid.eq(found.row.uid))
                .exec(tx)
                .await?;
            let after = self.stack_in(tx, found.uid, found.at).await?;
            let details = Details::from([("reason".into(), reason.as_str().into())]);
            let record = Record::changed(&before, &after).with(details);
            let about = (&found, None);
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::StackSetTokenLimit, Kind::LimitChanged),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((after, revision)))
        })
    }

    /// Suspends, resumes or removes a stack. If the stack is already in that state, it stays
    /// unchanged, but the call is recorded.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn set_stack_state(
        &self,
        call: &Call,
        key: &StackKey,
        (step, reason): (StackStep, &Reason),
    ) -> Result<(Stack, Revision), Error> {
        change_tx!(self, (call.mode, key), "set_stack_state", |tx| {
            // Only Remove finds a removed stack, so that a removal can be repeated.
            let which = match step {
                StackStep::Remove => RemovedStacks::Include,
                StackStep::Suspend | StackStep::Resume => RemovedStacks::Exclude,
            };
            let found = self.lock_stack_for_change(tx, call, key, which).await?;
            let before = self.stack_in(tx, found.uid, found.at).await?;
            let now = found.at.as_micros();
            let (suspended_at, removed_at) = match step {
                StackStep::Suspend => (found.row.suspended_at.or(Some(now)), found.row.removed_at),
                StackStep::Resume => (None, found.row.removed_at),
                StackStep::Remove => (found.row.suspended_at, found.row.removed_at.or(Some(now))),
            };
            stack::Entity::update_many()
                .col_expr(stack::Column::SuspendedAt, Expr::value(suspended_at))
                .col_expr(stack::Column::RemovedAt, Expr::value(removed_at))
                .filter(stack::Column::Uid.eq(found.row.uid))
                .exec(tx)
                .await?;
            let after = self.stack_in(tx, found.uid, found.at).await?;
            let details = Details::from([("reason".into(), reason.as_str().into())]);
            let record = Record::changed(&before, &after).with(details);
            let about = (&found, None);
            let (revision, proof) = self
                .record_change(tx, call, (step.action(), step.kind()), about, record)
                .await?;
            Ok(proof.with((after, revision)))
        })
    }

    /// Returns the stack as it is within this transaction.
    pub(in crate::store) async fn stack_in(
        &self,
        tx: &Transaction,
        uid: StackUid,
        now: Timestamp,
    ) -> Result<Stack, Error> {
        let key = uid.into_untyped_uuid();
        let row = stack::Entity::find_by_id(key).one(tx).await?;
        let row = row.ok_or_else(|| corrupt("stacks", "uid", key))?;
        let owner = member::Entity::find()
            .filter(member::Column::StackUid.eq(key))
            .filter(member::Column::Role.eq(Role::Owner.name()))
            .one(tx)
            .await?
            .ok_or_else(|| corrupt("stack_members", "role", key))?;
        // No token of a removed stack is live.
        let used = match row.removed_at {
            Some(_) => 0,
            None => self.count_live(tx, uid, now).await?,
        };
        rows::stack(row, &owner, used)
    }
}

/// A change to the state of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackStep {
    /// The stack's tokens stop working until it is resumed.
    Suspend,
    /// The stack's tokens work again.
    Resume,
    /// The stack's tokens will never work again.
    Remove,
}

impl StackStep {
    /// Returns the audit action of the step.
    #[must_use]
    pub const fn action(self) -> AuditAction {
        match self {
            Self::Suspend => AuditAction::StackSuspend,
            Self::Resume => AuditAction::StackResume,
            Self::Remove => AuditAction::StackRemove,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Suspend => Kind::Suspended,
            Self::Resume => Kind::Resumed,
            Self::Remove => Kind::Removed,
        }
    }
}
