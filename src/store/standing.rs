//! Where every method begins: with the stack, and the caller's part in it. Read in the
//! transaction that does the work, so that a removal cannot be raced.

use std::ops::Deref;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    Select, sea_query::LockType,
};
use uuid::Uuid;

use super::{
    Error, Store,
    entity::{member, stack},
    rows::corrupt,
    transaction::Transaction,
};
use crate::domain::{
    caller::Call,
    id::StackUid,
    refusal::Refusal,
    stack::{Role, StackKey},
    timestamp::Timestamp,
};

/// Which stacks a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Those not removed; a removed one is not found.
    LiveStack,
    /// Removed ones too, for those who may know of them.
    AnyStack,
}

/// A stack, and the caller's role in it.
pub(super) struct Found {
    pub row: stack::Model,
    pub uid: StackUid,
    pub role: Option<Role>,
}

/// A stack that is locked until the transaction ends, and the instant at which the transaction
/// decides (R8). Whatever a change writes or compares takes its time from here: there is no
/// instant without the lock.
pub(super) struct Locked {
    found: Found,
    /// Read after the lock was held, and never before an earlier change of the stack.
    pub at: Timestamp,
}

impl Deref for Locked {
    type Target = Found;

    fn deref(&self) -> &Found {
        &self.found
    }
}

impl Locked {
    /// A stack that this transaction inserted.
    pub fn registered(row: stack::Model, at: Timestamp) -> Self {
        let uid = StackUid::from_untyped_uuid(row.uid);
        let found = Found {
            row,
            uid,
            role: None,
        };
        Self { found, at }
    }
}

impl Found {
    pub fn require_not_suspended(&self) -> Result<(), Refusal> {
        match self.row.suspended_at {
            None => Ok(()),
            Some(_) => Err(Refusal::StackSuspended),
        }
    }

    pub fn max_tokens(&self) -> u32 {
        u32::try_from(self.row.token_limit).unwrap_or_default()
    }
}

impl Store {
    /// The stack and the caller's role in it, if that is enough for the call.
    pub(super) async fn standing(
        &self,
        tx: &Transaction,
        call: &Call,
        key: &StackKey,
        which: Standing,
    ) -> Result<Found, Error> {
        judge(tx, call, by_key(key), which).await
    }

    /// The same, and the stack is locked until the transaction ends: whatever is counted or
    /// compared below stays so, and a removal of the caller cannot be raced.
    pub(super) async fn standing_to_change(
        &self,
        tx: &Transaction,
        call: &Call,
        key: &StackKey,
        which: Standing,
    ) -> Result<Locked, Error> {
        // On SQLite the transaction has the whole store to itself. On PostgreSQL this lock
        // lets rows that refer to the stack be inserted elsewhere.
        let select = by_key(key).lock(LockType::NoKeyUpdate);
        let found = judge(tx, call, select, which).await?;
        self.decide(tx, found).await
    }

    /// The stack of this id, locked, whatever the caller's part in it.
    pub(super) async fn locked(&self, tx: &Transaction, uid: StackUid) -> Result<Locked, Error> {
        let key = uid.into_untyped_uuid();
        let row = stack::Entity::find_by_id(key)
            .lock(LockType::NoKeyUpdate)
            .one(tx)
            .await?;
        let row = row.ok_or_else(|| corrupt("stacks", "uid", key))?;
        let found = Found {
            row,
            uid,
            role: None,
        };
        self.decide(tx, found).await
    }

    /// Reads the instant of the decision, now that the stack is locked. It never goes back
    /// within one stack, whichever database and whichever clock it came from: where the clock
    /// is behind the last change it is moved up to that, by the permitted skew at most. Beyond
    /// that one of the two is wrong, and nobody can tell which.
    async fn decide(&self, tx: &Transaction, found: Found) -> Result<Locked, Error> {
        let clock = self.transaction_clock(tx).await?;
        let last = found.row.last_changed_at;
        let last = Timestamp::from_micros(last)
            .ok_or_else(|| corrupt("stacks", "last_changed_at", found.row.uid))?;
        let behind = last.since(clock);
        if behind > self.max_skew() {
            return Err(Error::ClockSkew { behind });
        }
        let at = clock.max(last);
        Ok(Locked { found, at })
    }
}

fn by_key(key: &StackKey) -> Select<stack::Entity> {
    stack::Entity::find().filter(stack::Column::Key.eq(key.as_str()))
}

async fn judge(
    tx: &Transaction,
    call: &Call,
    select: Select<stack::Entity>,
    which: Standing,
) -> Result<Found, Error> {
    let row = select.one(tx).await?;
    let row = row.filter(|row| which == Standing::AnyStack || row.removed_at.is_none());
    let role = match &row {
        Some(row) => role_of(tx, row.uid, call).await?,
        None => None,
    };
    call.demand.judge(&call.caller, role)?;
    let row = row.ok_or(Refusal::StackNotFound)?;
    let uid = StackUid::from_untyped_uuid(row.uid);
    Ok(Found { row, uid, role })
}

async fn role_of(
    tx: &impl ConnectionTrait,
    stack_uid: Uuid,
    call: &Call,
) -> Result<Option<Role>, Error> {
    let actor = &call.caller.actor;
    let key = (stack_uid, actor.issuer.clone(), actor.subject.clone());
    let Some(row) = member::Entity::find_by_id(key).one(tx).await? else {
        return Ok(None);
    };
    let role = Role::from_name(&row.role);
    Ok(Some(role.ok_or_else(|| {
        corrupt("stack_members", "role", stack_uid)
    })?))
}
