//! Loads and locks a stack, and checks the caller's role. All of this happens in the transaction of
//! the change or read, so the removal of a member cannot race with it.

use std::ops::Deref;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, QueryFilter as _,
    QuerySelect as _, QueryTrait as _, Select, sea_query::LockType,
};
use uuid::Uuid;

use crate::domain::{
    caller::{Actor, Call},
    id::StackUid,
    refusal::Refusal,
    stack::{Role, StackKey},
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    engine::dialect::Dialect,
    engine::permit_queues::StackRef,
    engine::transaction::Transaction,
    entity::{member, stack},
    token::rows::corrupt,
};

/// Whether a removed stack is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum RemovedStacks {
    /// A removed stack counts as not found.
    Exclude,
    /// A removed stack is found like any other. The caller still needs a role that permits the call.
    Include,
}

/// A stack, and the caller's role in the stack.
pub(in crate::store) struct StackContext {
    pub row: stack::Model,
    pub uid: StackUid,
    pub role: Option<Role>,
}

/// A stack that is locked until the transaction ends, and the instant of the decisions in this
/// transaction (R8). A change writes and compares only this instant, so it cannot use a time that
/// was read without the lock.
pub(in crate::store) struct LockedStack {
    found: StackContext,
    /// The time at which the transaction decides, for example whether a token is expired (R8). It
    /// is read once the stack is locked, and is never earlier than the last change of the stack.
    pub at: Timestamp,
}

impl Deref for LockedStack {
    type Target = StackContext;

    fn deref(&self) -> &StackContext {
        &self.found
    }
}

impl LockedStack {
    /// Returns a stack that this transaction has inserted.
    pub fn registered(row: stack::Model, at: Timestamp) -> Self {
        let uid = StackUid::from_untyped_uuid(row.uid);
        let found = StackContext {
            row,
            uid,
            role: None,
        };
        Self { found, at }
    }
}

impl StackContext {
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
    /// Loads the stack and the caller's role in it. Checks that the role permits the call.
    pub(in crate::store) async fn load_stack(
        &self,
        tx: &Transaction,
        call: &Call,
        key: &StackKey,
        which: RemovedStacks,
    ) -> Result<StackContext, Error> {
        check(tx, call, by_key(key), which).await
    }

    /// Loads the stack like [`Self::load_stack`], including a removed stack if the caller is an
    /// operator.
    pub(in crate::store) async fn load_stack_to_show(
        &self,
        tx: &Transaction,
        call: &Call,
        key: &StackKey,
    ) -> Result<StackContext, Error> {
        let found = self
            .load_stack(tx, call, key, RemovedStacks::Include)
            .await?;
        if found.row.removed_at.is_some() && !call.operates(found.role) {
            return Err(Refusal::StackNotFound.into());
        }
        Ok(found)
    }

    /// Loads and locks the stack, and checks the caller's role. Until the transaction ends, every
    /// other change of the stack, its tokens or its members waits for the lock. So what this
    /// transaction has read, such as the number of live tokens or the caller's role, stays true.
    pub(in crate::store) async fn lock_stack_for_change(
        &self,
        tx: &Transaction,
        call: &Call,
        key: &StackKey,
        which: RemovedStacks,
    ) -> Result<LockedStack, Error> {
        let row = lock(tx, &key.into()).await?;
        let row = row.filter(|row| which == RemovedStacks::Include || row.removed_at.is_none());
        // A refusal is valid only if it comes from the trusted database, because another database
        // may not have the stack or the member yet. Reading the clock checks that, so it comes
        // first.
        let person = (uid_or_nil(row.as_ref()), &call.caller.actor);
        let (clock, role) = match self.dialect() {
            Dialect::Postgres => {
                let (clock, role) = self.transaction_clock_and_role(tx, person).await?;
                (clock, role.map(|role| parse_role(&role, person.0)))
            }
            Dialect::Sqlite => (self.clock.now(), role_of(tx, person).await?.map(Ok)),
        };
        let found = permitted(row, role.transpose()?, call)?;
        self.decide(found, clock)
    }

    /// Loads and locks the stack with this id, without checking the caller's role.
    pub(in crate::store) async fn locked(
        &self,
        tx: &Transaction,
        uid: StackUid,
    ) -> Result<LockedStack, Error> {
        let key = uid.into_untyped_uuid();
        let row = lock(tx, &uid.into()).await?;
        // Reading the clock also checks that this is the trusted database. It comes first, because
        // another database may not have the stack yet.
        let clock = self.transaction_clock(tx).await?;
        let row = row.ok_or_else(|| corrupt("stacks", "uid", key))?;
        let found = StackContext {
            row,
            uid,
            role: None,
        };
        self.decide(found, clock)
    }

    /// Returns the stack with the instant of the decision. `clock` must be read after the stack was
    /// locked. Instants within one stack never decrease, whichever database or clock they come
    /// from. If the clock is behind the last change by no more than the permitted skew, the instant
    /// of that change is used. If the clock is further behind, the change is refused, because it is
    /// not known whether the clock or that instant is wrong.
    fn decide(&self, found: StackContext, clock: Timestamp) -> Result<LockedStack, Error> {
        let last = found.row.last_changed_at;
        let last = Timestamp::from_micros(last)
            .ok_or_else(|| corrupt("stacks", "last_changed_at", found.row.uid))?;
        let behind = last.since(clock);
        if behind > self.max_skew() {
            return Err(Error::ClockSkew { behind });
        }
        let at = clock.max(last);
        Ok(LockedStack { found, at })
    }
}

fn by_key(key: &StackKey) -> Select<stack::Entity> {
    stack::Entity::find().filter(stack::Column::Key.eq(key.as_str()))
}

/// Returns the query that locks a stack. On SQLite it is an ordinary query, because the transaction
/// already locks the whole database. On PostgreSQL the lock still lets other transactions insert
/// rows that refer to the stack.
fn locking(stack: &StackRef) -> Select<stack::Entity> {
    let select = match stack {
        StackRef::Key(key) => by_key(key),
        StackRef::Uid(uid) => stack::Entity::find_by_id(uid.into_untyped_uuid()),
    };
    select.lock(LockType::NoKeyUpdate)
}

/// Returns the statement that locks a stack on PostgreSQL, without parameters. A key consists of
/// letters and digits, so nothing in it must be escaped.
pub(in crate::store) fn lock_of(stack: &StackRef) -> String {
    locking(stack)
        .build(Dialect::Postgres.backend())
        .to_string()
}

/// Locks a stack, unless the transaction already locked it when it began. Returns the stack's row,
/// if there is such a stack.
async fn lock(tx: &Transaction, stack: &StackRef) -> Result<Option<stack::Model>, Error> {
    match tx.take_locked(stack) {
        Some(rows) => {
            let row = rows.first();
            let row = row.map(|row| stack::Model::from_query_result(row, ""));
            Ok(row.transpose()?)
        }
        None => Ok(locking(stack).one(tx).await?),
    }
}

async fn check(
    tx: &Transaction,
    call: &Call,
    select: Select<stack::Entity>,
    which: RemovedStacks,
) -> Result<StackContext, Error> {
    let row = select.one(tx).await?;
    let row = row.filter(|row| which == RemovedStacks::Include || row.removed_at.is_none());
    let role = role_of(tx, (uid_or_nil(row.as_ref()), &call.caller.actor)).await?;
    permitted(row, role, call)
}

/// Returns the id of a stack, or the nil id, which no stack has. So the same statements run whether
/// the stack does not exist or the caller has no role in it. Otherwise the response time would
/// reveal which of the two is the case.
fn uid_or_nil(row: Option<&stack::Model>) -> Uuid {
    row.map_or(Uuid::nil(), |row| row.uid)
}

/// Checks that the role permits the call.
fn permitted(
    row: Option<stack::Model>,
    role: Option<Role>,
    call: &Call,
) -> Result<StackContext, Error> {
    call.requirement.check(&call.caller, role)?;
    let row = row.ok_or(Refusal::StackNotFound)?;
    let uid = StackUid::from_untyped_uuid(row.uid);
    Ok(StackContext { row, uid, role })
}

async fn role_of(
    tx: &impl ConnectionTrait,
    (stack_uid, actor): (Uuid, &Actor),
) -> Result<Option<Role>, Error> {
    let key = (stack_uid, actor.issuer.clone(), actor.subject.clone());
    let row = member::Entity::find_by_id(key).one(tx).await?;
    row.map(|row| parse_role(&row.role, stack_uid)).transpose()
}

fn parse_role(role: &str, stack_uid: Uuid) -> Result<Role, Error> {
    Role::from_name(role).ok_or_else(|| corrupt("stack_members", "role", stack_uid))
}
