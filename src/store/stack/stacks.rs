//! Registers, reads, suspends and removes stacks, and limits their tokens.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::{self, StackUid},
    refusal::Refusal,
    revision::Revision,
    stack::{Member, Person, Role, Stack, StackKey},
    text::{Reason, StackName},
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::{member, stack},
    stack::access::{LockedStack, RemovedStacks},
    stack::members::{person_in_words, put_member},
    token::rows::{self, corrupt},
};

/// The maximum number of members in a response.
const MEMBERS_LISTED: u64 = 1000;

/// A stack to be registered.
#[derive(Clone, Debug)]
pub struct Register {
    /// The stack's key.
    pub stack_key: StackKey,
    /// The stack's name.
    pub name: StackName,
    /// The organization to which the stack belongs.
    pub organization_uid: String,
    /// The only owner of the stack (R2).
    pub owner: Person,
    /// The maximum number of live tokens of the stack (R6).
    pub token_limit: u32,
}

/// A stack and its members.
#[derive(Debug)]
pub struct StackWithMembers {
    /// The stack.
    pub stack: Stack,
    /// The members, in the order in which they were added.
    pub members: Vec<Member>,
}

/// The position of the last stack on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCursor {
    at: i64,
    uid: Uuid,
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
    /// Registers a stack with its owner.
    ///
    /// # Errors
    /// Returns [`Refusal::StackKeyTaken`], or another [`Error`] if the call is refused or the store
    /// fails.
    pub async fn register_stack(
        &self,
        call: &Call,
        command: &Register,
    ) -> Result<(Stack, Revision), Error> {
        write_tx!(self, call.mode, "register_stack", |tx| {
            call.requirement.judge(&call.caller, None)?;
            // There is no stack to lock yet. No other transaction sees the new stack before the
            // commit.
            let now = self.transaction_clock(tx).await?;
            let key = command.stack_key.as_str();
            let taken = stack::Entity::find().filter(stack::Column::Key.eq(key));
            if taken.count(tx).await? > 0 {
                return Err(Refusal::StackKeyTaken.into());
            }
            let uid: StackUid = id::generate(now, self.entropy.as_ref())?;
            let row = stack::Model {
                uid: uid.into_untyped_uuid(),
                key: key.to_owned(),
                name: command.name.as_str().to_owned(),
                organization_uid: command.organization_uid.clone(),
                token_limit: i32::try_from(command.token_limit).unwrap_or(i32::MAX),
                registered_at: now.as_micros(),
                suspended_at: None,
                removed_at: None,
                last_changed_at: now.as_micros(),
            };
            stack::Entity::insert(row.clone().into_active_model().reset_all())
                .exec_without_returning(tx)
                .await?;
            let stack = LockedStack::registered(row, now);
            put_member(tx, &stack, &command.owner, Role::Owner).await?;
            let details = Details::from([
                ("name".into(), command.name.as_str().into()),
                ("organization_uid".into(), command.organization_uid.clone()),
                ("owner".into(), person_in_words(&command.owner)),
                ("max_tokens".into(), command.token_limit.to_string()),
            ]);
            let about = (&stack, None);
            self.append_audit(tx, call, AuditAction::StackRegister, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Registered).await?;
            Ok((self.stack_in(tx, uid, now).await?, revision))
        })
    }

    /// Returns one stack with its members.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn get_stack(&self, call: &Call, key: &StackKey) -> Result<StackWithMembers, Error> {
        read_tx!(self, call, "get_stack", |tx| {
            let found = self
                .load_stack(tx, call, key, RemovedStacks::Include)
                .await?;
            if found.row.removed_at.is_some() && !call.operates(found.role) {
                return Err(Refusal::StackNotFound.into());
            }
            let members = member::Entity::find()
                .filter(member::Column::StackUid.eq(found.row.uid))
                .order_by_asc(member::Column::AddedAt)
                .order_by_asc(member::Column::Issuer)
                .order_by_asc(member::Column::Subject)
                .limit(MEMBERS_LISTED)
                .all(tx)
                .await?;
            let members: Result<_, _> = members.into_iter().map(Member::try_from).collect();
            Ok(StackWithMembers {
                stack: self.stack_in(tx, found.uid, self.clock.now()).await?,
                members: members?,
            })
        })
    }

    /// Returns a page of stacks, either of one organization or of all.
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
            call.requirement.judge(&call.caller, None)?;
            let mut query = stack::Entity::find();
            if let Some(organization) = organization_uid {
                query = query.filter(stack::Column::OrganizationUid.eq(organization));
            }
            if let Some(StackCursor { at, uid }) = after {
                let same = stack::Column::RegisteredAt
                    .eq(at)
                    .and(stack::Column::Uid.lt(uid));
                query = query.filter(stack::Column::RegisteredAt.lt(at).or(same));
            }
            let mut rows = query
                .order_by_desc(stack::Column::RegisteredAt)
                .order_by_desc(stack::Column::Uid)
                .limit(size + 1)
                .all(tx)
                .await?;
            let more = rows.len() as u64 > size;
            rows.truncate(usize::try_from(size).unwrap_or(usize::MAX));
            let last = rows.last().filter(|_| more);
            let next = last.map(|row| StackCursor {
                at: row.registered_at,
                uid: row.uid,
            });
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
        write_tx!(self, (call.mode, key), "set_token_limit", |tx| {
            let found = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let limit = i32::try_from(max_tokens).unwrap_or(i32::MAX);
            stack::Entity::update_many()
                .col_expr(stack::Column::TokenLimit, Expr::value(limit))
                .filter(stack::Column::Uid.eq(found.row.uid))
                .exec(tx)
                .await?;
            let details = Details::from([
                ("max_tokens".into(), max_tokens.to_string()),
                ("max_tokens.before".into(), found.max_tokens().to_string()),
                ("reason".into(), reason.as_str().into()),
            ]);
            let about = (&found, None);
            self.append_audit(tx, call, AuditAction::StackSetTokenLimit, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::LimitChanged).await?;
            Ok((self.stack_in(tx, found.uid, found.at).await?, revision))
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
        write_tx!(self, (call.mode, key), "set_stack_state", |tx| {
            // A removed stack is found only for another removal, so that a removal can be repeated.
            let which = match step {
                StackStep::Remove => RemovedStacks::Include,
                StackStep::Suspend | StackStep::Resume => RemovedStacks::Exclude,
            };
            let found = self.lock_stack_for_change(tx, call, key, which).await?;
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
            let details = Details::from([("reason".into(), reason.as_str().into())]);
            let about = (&found, None);
            self.append_audit(tx, call, step.action(), about, details)
                .await?;
            let revision = self.append_change(tx, about, step.kind()).await?;
            Ok((self.stack_in(tx, found.uid, found.at).await?, revision))
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
