//! Stacks, their members and limits, and who has which part in them. Every other method of
//! the store begins here: with the stack, found and locked, and the caller's part in it.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Select, Set,
    sea_query::{Expr, ExprTrait as _, LockType, OnConflict},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Error, Store,
    changes::Kind,
    entity::{member, stack},
};
use crate::domain::{
    audit::{Action, Details},
    caller::Call,
    id::{self, StackUid},
    refusal::Refusal,
    revision::Revision,
    stack::{Member, Person, Role, Stack, StackKey, StackState, TokenLimit},
    text::{Email, Issuer, Reason, StackName, Subject},
    timestamp::Timestamp,
};

/// How many members an answer lists.
const MEMBERS_LISTED: u64 = 1000;

/// Which stacks a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Those not removed; a removed one is not found.
    LiveStack,
    /// Removed ones too, for those who may know of them.
    AnyStack,
}

/// A stack that is locked, and the caller's role in it.
pub(super) struct Found {
    pub row: stack::Model,
    pub uid: StackUid,
    pub role: Option<Role>,
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

/// A stack to be registered.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its key.
    pub stack_key: StackKey,
    /// Its name.
    pub name: StackName,
    /// Its organization.
    pub organization_uid: String,
    /// Its one owner (R2).
    pub owner: Person,
    /// How many live tokens it may have (R6).
    pub token_limit: u32,
}

/// A change of members.
#[derive(Clone, Debug)]
pub enum MemberChange {
    /// Add, or give another role: never that of the owner.
    Set(Person, Role),
    /// Take away.
    Remove(Person),
    /// Make the owner.
    TransferTo(Person),
}

impl MemberChange {
    const fn person(&self) -> &Person {
        match self {
            Self::Set(person, _) | Self::Remove(person) | Self::TransferTo(person) => person,
        }
    }
}

/// A stack after a change of its members.
#[derive(Debug)]
pub struct MembersChanged {
    /// The stack.
    pub stack: Stack,
    /// Whom the change was about, if they are a member now.
    pub member: Option<Member>,
    /// A point in the history that includes the change.
    pub revision: Revision,
}

/// A stack with the people in it.
#[derive(Debug)]
pub struct StackWithMembers {
    /// The stack.
    pub stack: Stack,
    /// Its members in the order they were added.
    pub members: Vec<Member>,
}

/// Where a page of stacks ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCursor {
    at: i64,
    uid: Uuid,
}

/// A page of stacks, the newest first.
#[derive(Debug)]
pub struct StackPage {
    /// The stacks.
    pub stacks: Vec<Stack>,
    /// Where the next page begins, if there is one.
    pub next: Option<StackCursor>,
}

impl Store {
    /// The stack and the caller's role in it, if that is enough for the call.
    pub(super) async fn standing(
        &self,
        tx: &DatabaseTransaction,
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
        tx: &DatabaseTransaction,
        call: &Call,
        key: &StackKey,
        which: Standing,
    ) -> Result<Found, Error> {
        // On SQLite the transaction has the whole store to itself. On PostgreSQL this lock
        // lets rows that refer to the stack be inserted elsewhere.
        judge(tx, call, by_key(key).lock(LockType::NoKeyUpdate), which).await
    }

    /// Registers a stack with its owner.
    ///
    /// # Errors
    /// [`Refusal::StackKeyTaken`]; else as every method.
    pub async fn register_stack(
        &self,
        call: &Call,
        command: &Register,
    ) -> Result<(Stack, Revision), Error> {
        writing!(self, |tx| {
            call.demand.judge(&call.caller, None)?;
            let key = command.stack_key.as_str();
            let taken = stack::Entity::find().filter(stack::Column::Key.eq(key));
            if taken.count(tx).await? > 0 {
                return Err(Refusal::StackKeyTaken.into());
            }
            let uid: StackUid = id::generate(call.now, self.entropy.as_ref())?;
            let row = stack::ActiveModel {
                uid: Set(uid.into_untyped_uuid()),
                key: Set(key.to_owned()),
                name: Set(command.name.as_str().to_owned()),
                organization_uid: Set(command.organization_uid.clone()),
                token_limit: Set(i32::try_from(command.token_limit).unwrap_or(i32::MAX)),
                registered_at: Set(call.now.as_micros()),
                suspended_at: Set(None),
                removed_at: Set(None),
            };
            stack::Entity::insert(row)
                .exec_without_returning(tx)
                .await?;
            put_member(tx, uid, &command.owner, Role::Owner, call.now).await?;
            let details = Details::from([
                ("name".into(), command.name.as_str().into()),
                ("organization_uid".into(), command.organization_uid.clone()),
                ("owner".into(), person_in_words(&command.owner)),
                ("max_tokens".into(), command.token_limit.to_string()),
            ]);
            let at = (&command.stack_key, None);
            self.append_audit(tx, call, Action::StackRegister, at, details)
                .await?;
            let revision = self
                .append_change(tx, (uid, None), Kind::Registered, call.now)
                .await?;
            Ok((self.stack_in(tx, uid, call.now).await?, revision))
        })
    }

    /// One stack with its members.
    ///
    /// # Errors
    /// As every method.
    pub async fn get_stack(&self, call: &Call, key: &StackKey) -> Result<StackWithMembers, Error> {
        reading!(self, |tx| {
            let found = self.standing(tx, call, key, Standing::AnyStack).await?;
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
                stack: self.stack_in(tx, found.uid, call.now).await?,
                members: members?,
            })
        })
    }

    /// A page of stacks, of one organization or of all.
    ///
    /// # Errors
    /// As every method.
    pub async fn list_stacks(
        &self,
        call: &Call,
        organization_uid: Option<&str>,
        (size, after): (u64, Option<StackCursor>),
    ) -> Result<StackPage, Error> {
        reading!(self, |tx| {
            call.demand.judge(&call.caller, None)?;
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
                stacks.push(self.stack_in(tx, uid, call.now).await?);
            }
            Ok(StackPage { stacks, next })
        })
    }

    /// Changes who is in the stack, and answers it as it stands then.
    ///
    /// # Errors
    /// [`Refusal::OwnerRequired`] where the owner would lose the role; else as every method.
    pub async fn change_members(
        &self,
        call: &Call,
        key: &StackKey,
        change: &MemberChange,
    ) -> Result<MembersChanged, Error> {
        writing!(self, |tx| {
            let found = self
                .standing_to_change(tx, call, key, Standing::LiveStack)
                .await?;
            let (action, details) = apply(tx, &found, change, call.now).await?;
            self.append_audit(tx, call, action, (key, None), details)
                .await?;
            let about = (found.uid, None);
            let revision = self
                .append_change(tx, about, Kind::MembersChanged, call.now)
                .await?;
            let member = find_member(tx, found.row.uid, change.person()).await?;
            Ok(MembersChanged {
                stack: self.stack_in(tx, found.uid, call.now).await?,
                member: member.map(Member::try_from).transpose()?,
                revision,
            })
        })
    }

    /// Changes how many live tokens the stack may have (R6).
    ///
    /// # Errors
    /// As every method.
    pub async fn set_token_limit(
        &self,
        call: &Call,
        key: &StackKey,
        (max_tokens, reason): (u32, &Reason),
    ) -> Result<(Stack, Revision), Error> {
        writing!(self, |tx| {
            let found = self
                .standing_to_change(tx, call, key, Standing::LiveStack)
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
            self.append_audit(tx, call, Action::StackSetTokenLimit, (key, None), details)
                .await?;
            let about = (found.uid, None);
            let revision = self
                .append_change(tx, about, Kind::LimitChanged, call.now)
                .await?;
            Ok((self.stack_in(tx, found.uid, call.now).await?, revision))
        })
    }

    /// Suspends, resumes or removes a stack; what is so already stays so, and is recorded
    /// all the same, since somebody asked.
    ///
    /// # Errors
    /// As every method.
    pub async fn set_stack_state(
        &self,
        call: &Call,
        key: &StackKey,
        (step, reason): (StackStep, &Reason),
    ) -> Result<(Stack, Revision), Error> {
        writing!(self, |tx| {
            // Only a second Remove may find a removed stack; anything else is too late.
            let which = match step {
                StackStep::Remove => Standing::AnyStack,
                StackStep::Suspend | StackStep::Resume => Standing::LiveStack,
            };
            let found = self.standing_to_change(tx, call, key, which).await?;
            let now = call.now.as_micros();
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
            self.append_audit(tx, call, step.action(), (key, None), details)
                .await?;
            let about = (found.uid, None);
            let revision = self.append_change(tx, about, step.kind(), call.now).await?;
            Ok((self.stack_in(tx, found.uid, call.now).await?, revision))
        })
    }

    /// The stack as it stands within this transaction.
    async fn stack_in(
        &self,
        tx: &DatabaseTransaction,
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
        // The tokens of a removed stack are dead with it.
        let used = match row.removed_at {
            Some(_) => 0,
            None => self.count_live(tx, uid, now).await?,
        };
        stack(row, &owner, used)
    }
}

/// What becomes of a stack as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackStep {
    /// Its tokens do not work for now.
    Suspend,
    /// They do again.
    Resume,
    /// They never will again.
    Remove,
}

impl StackStep {
    /// What the audit calls it.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Suspend => Action::StackSuspend,
            Self::Resume => Action::StackResume,
            Self::Remove => Action::StackRemove,
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

fn by_key(key: &StackKey) -> Select<stack::Entity> {
    stack::Entity::find().filter(stack::Column::Key.eq(key.as_str()))
}

async fn judge(
    tx: &DatabaseTransaction,
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

async fn apply(
    tx: &DatabaseTransaction,
    stack: &Found,
    change: &MemberChange,
    now: Timestamp,
) -> Result<(Action, Details), Error> {
    match change {
        MemberChange::Set(person, role) => {
            require_not_owner(tx, stack, person).await?;
            put_member(tx, stack.uid, person, *role, now).await?;
            let details = [
                ("member", person_in_words(person)),
                ("role", role.name().into()),
            ];
            Ok((Action::StackSetMember, in_details(details)))
        }
        MemberChange::Remove(person) => {
            require_not_owner(tx, stack, person).await?;
            delete_member(tx, stack, person).await?;
            let details = [("member", person_in_words(person))];
            Ok((Action::StackRemoveMember, in_details(details)))
        }
        MemberChange::TransferTo(person) => {
            let before = owner_of(tx, stack).await?;
            let former = person_of(&before)?;
            if !same_person(&former, person) {
                // The old owner goes first: there is never a second one (R2).
                delete_member(tx, stack, &former).await?;
                put_member(tx, stack.uid, person, Role::Owner, now).await?;
            }
            let owners = [
                ("owner", person_in_words(person)),
                ("owner.before", person_in_words(&former)),
            ];
            Ok((Action::StackTransferOwnership, in_details(owners)))
        }
    }
}

fn in_details<const N: usize>(pairs: [(&str, String); N]) -> Details {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Ids only: an address is personal and says nothing of who it was.
fn person_in_words(person: &Person) -> String {
    format!("{} {}", person.issuer.as_str(), person.subject.as_str())
}

fn same_person(one: &Person, other: &Person) -> bool {
    one.issuer == other.issuer && one.subject == other.subject
}

async fn owner_of(tx: &DatabaseTransaction, stack: &Found) -> Result<member::Model, Error> {
    member::Entity::find()
        .filter(member::Column::StackUid.eq(stack.row.uid))
        .filter(member::Column::Role.eq(Role::Owner.name()))
        .one(tx)
        .await?
        .ok_or_else(|| corrupt("stack_members", "role", stack.row.uid))
}

async fn require_not_owner(
    tx: &DatabaseTransaction,
    stack: &Found,
    person: &Person,
) -> Result<(), Error> {
    let owner = person_of(&owner_of(tx, stack).await?)?;
    if same_person(&owner, person) {
        return Err(Refusal::OwnerRequired.into());
    }
    Ok(())
}

async fn find_member(
    tx: &DatabaseTransaction,
    stack: Uuid,
    person: &Person,
) -> Result<Option<member::Model>, Error> {
    let issuer = person.issuer.as_str().to_owned();
    let key = (stack, issuer, person.subject.as_str().to_owned());
    Ok(member::Entity::find_by_id(key).one(tx).await?)
}

async fn put_member(
    tx: &DatabaseTransaction,
    stack: StackUid,
    person: &Person,
    role: Role,
    now: Timestamp,
) -> Result<(), Error> {
    let row = member::ActiveModel {
        stack_uid: Set(stack.into_untyped_uuid()),
        issuer: Set(person.issuer.as_str().to_owned()),
        subject: Set(person.subject.as_str().to_owned()),
        email: Set(person.email.as_ref().map(|email| email.as_str().to_owned())),
        role: Set(role.name().to_owned()),
        added_at: Set(now.as_micros()),
    };
    let key = [
        member::Column::StackUid,
        member::Column::Issuer,
        member::Column::Subject,
    ];
    let replace = OnConflict::columns(key)
        .update_columns([member::Column::Role, member::Column::Email])
        .to_owned();
    member::Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

async fn delete_member(
    tx: &DatabaseTransaction,
    stack: &Found,
    person: &Person,
) -> Result<(), Error> {
    let issuer = person.issuer.as_str().to_owned();
    let key = (stack.row.uid, issuer, person.subject.as_str().to_owned());
    member::Entity::delete_by_id(key).exec(tx).await?;
    Ok(())
}

fn corrupt(table: &'static str, column: &'static str, id: Uuid) -> Error {
    Error::Corrupt {
        table,
        column,
        id: id.to_string(),
    }
}

fn person_of(row: &member::Model) -> Result<Person, Error> {
    let wrong = |column| move |_| corrupt("stack_members", column, row.stack_uid);
    Ok(Person {
        issuer: Issuer::parse(&row.issuer).map_err(wrong("issuer"))?,
        subject: Subject::parse(&row.subject).map_err(wrong("subject"))?,
        email: row
            .email
            .as_deref()
            .map(Email::parse)
            .transpose()
            .map_err(wrong("email"))?,
    })
}

impl TryFrom<member::Model> for Member {
    type Error = Error;

    fn try_from(row: member::Model) -> Result<Self, Error> {
        let wrong = |column| corrupt("stack_members", column, row.stack_uid);
        Ok(Self {
            person: person_of(&row)?,
            role: Role::from_name(&row.role).ok_or_else(|| wrong("role"))?,
            added_at: Timestamp::from_micros(row.added_at).ok_or_else(|| wrong("added_at"))?,
        })
    }
}

fn stack(row: stack::Model, owner: &member::Model, used: u32) -> Result<Stack, Error> {
    let wrong = |column| corrupt("stacks", column, row.uid);
    let instant = |micros, column| Timestamp::from_micros(micros).ok_or_else(|| wrong(column));
    let state = match (row.removed_at, row.suspended_at) {
        (Some(at), _) => StackState::Removed {
            at: instant(at, "removed_at")?,
        },
        (None, Some(at)) => StackState::Suspended {
            at: instant(at, "suspended_at")?,
        },
        (None, None) => StackState::Active,
    };
    Ok(Stack {
        uid: StackUid::from_untyped_uuid(row.uid),
        key: StackKey::parse(&row.key).map_err(|_| wrong("key"))?,
        name: StackName::parse(&row.name).map_err(|_| wrong("name"))?,
        state,
        owner: person_of(owner)?,
        limit: TokenLimit {
            used,
            max: u32::try_from(row.token_limit).map_err(|_| wrong("token_limit"))?,
        },
        registered_at: instant(row.registered_at, "registered_at")?,
        organization_uid: row.organization_uid,
    })
}
