//! Changes the members of a stack, and its owner.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set, sea_query::OnConflict};
use uuid::Uuid;

use crate::domain::{
    audit::AuditAction,
    caller::Call,
    refusal::Refusal,
    revision::Revision,
    stack::{Member, Person, Role, Stack, StackKey},
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::member,
    stack::access::{LockedStack, RemovedStacks, StackContext},
    token::rows::{corrupt, person_of},
};

/// A change to the members of a stack.
#[derive(Clone, Debug)]
pub enum MemberChange {
    /// Add a member, or set a member's role. Cannot be used for the owner.
    Set(Person, Role),
    /// Remove a member. Cannot be used for the owner.
    Remove(Person),
    /// Transfer ownership to this person.
    TransferTo(Person),
}

impl MemberChange {
    const fn person(&self) -> &Person {
        match self {
            Self::Set(person, _) | Self::Remove(person) | Self::TransferTo(person) => person,
        }
    }

    /// Returns the audit action of the change.
    #[must_use]
    pub const fn action(&self) -> AuditAction {
        match self {
            Self::Set(..) => AuditAction::StackSetMember,
            Self::Remove(_) => AuditAction::StackRemoveMember,
            Self::TransferTo(_) => AuditAction::StackTransferOwnership,
        }
    }

    /// Returns the audit record: the stack before and after if its owner changes, otherwise the
    /// member.
    fn record(&self, before: &MembersChanged, after: &MembersChanged) -> Record {
        let member = |changed: &MembersChanged| changed.member.as_ref().map(Into::into);
        match self {
            Self::Set(..) | Self::Remove(_) => Record::of(member(before), member(after)),
            Self::TransferTo(_) => Record::changed(&before.stack, &after.stack),
        }
    }
}

/// A stack after a change of its members, and the member that was changed.
#[derive(Debug)]
pub struct MembersChanged {
    /// The stack after the change.
    pub stack: Stack,
    /// The person that was added, changed or removed. `None` if the person is not a member now.
    pub member: Option<Member>,
}

impl Store {
    /// Changes the members of the stack, and returns the stack after the change.
    ///
    /// # Errors
    /// Returns [`Refusal::OwnerRequired`] if the owner would lose the role, or another [`Error`] if
    /// the call is refused or the store fails.
    pub async fn change_members(
        &self,
        call: &Call,
        key: &StackKey,
        change: &MemberChange,
    ) -> Result<(MembersChanged, Revision), Error> {
        change_tx!(self, (call.mode, key), "change_members", |tx| {
            let found = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let before = self.with_member(tx, &found, change.person()).await?;
            apply(tx, &found, change).await?;
            let after = self.with_member(tx, &found, change.person()).await?;
            let (about, record) = ((&found, None), change.record(&before, &after));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (change.action(), Kind::MembersChanged),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((after, revision)))
        })
    }

    /// Returns the stack as it is within this transaction, and the person if they are a member.
    async fn with_member(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        person: &Person,
    ) -> Result<MembersChanged, Error> {
        let member = find_member(tx, stack.row.uid, person).await?;
        Ok(MembersChanged {
            stack: self.stack_in(tx, stack.uid, stack.at).await?,
            member: member.map(Member::try_from).transpose()?,
        })
    }
}

async fn apply(tx: &Transaction, stack: &LockedStack, change: &MemberChange) -> Result<(), Error> {
    match change {
        MemberChange::Set(person, role) => {
            require_not_owner(tx, stack, person).await?;
            put_member(tx, stack, person, *role).await
        }
        MemberChange::Remove(person) => {
            require_not_owner(tx, stack, person).await?;
            delete_member(tx, stack, person).await
        }
        MemberChange::TransferTo(person) => {
            let former = person_of(&owner_of(tx, stack).await?)?;
            if same_person(&former, person) {
                return Ok(());
            }
            // The former owner is removed first, because a stack never has two owners (R2).
            delete_member(tx, stack, &former).await?;
            put_member(tx, stack, person, Role::Owner).await
        }
    }
}

fn same_person(one: &Person, other: &Person) -> bool {
    one.issuer == other.issuer && one.subject == other.subject
}

async fn owner_of(tx: &Transaction, stack: &StackContext) -> Result<member::Model, Error> {
    member::Entity::find()
        .filter(member::Column::StackUid.eq(stack.row.uid))
        .filter(member::Column::Role.eq(Role::Owner.name()))
        .one(tx)
        .await?
        .ok_or_else(|| corrupt("stack_members", "role", stack.row.uid))
}

async fn require_not_owner(
    tx: &Transaction,
    stack: &StackContext,
    person: &Person,
) -> Result<(), Error> {
    let owner = person_of(&owner_of(tx, stack).await?)?;
    if same_person(&owner, person) {
        return Err(Refusal::OwnerRequired.into());
    }
    Ok(())
}

async fn find_member(
    tx: &Transaction,
    stack: Uuid,
    person: &Person,
) -> Result<Option<member::Model>, Error> {
    let issuer = person.issuer.as_str().to_owned();
    let key = (stack, issuer, person.subject.as_str().to_owned());
    Ok(member::Entity::find_by_id(key).one(tx).await?)
}

pub(in crate::store) async fn put_member(
    tx: &Transaction,
    stack: &LockedStack,
    person: &Person,
    role: Role,
) -> Result<(), Error> {
    let row = member::ActiveModel {
        stack_uid: Set(stack.row.uid),
        issuer: Set(person.issuer.as_str().to_owned()),
        subject: Set(person.subject.as_str().to_owned()),
        email: Set(person.email.as_ref().map(|email| email.as_str().to_owned())),
        role: Set(role.name().to_owned()),
        added_at: Set(stack.at.as_micros()),
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
    tx: &Transaction,
    stack: &StackContext,
    person: &Person,
) -> Result<(), Error> {
    let issuer = person.issuer.as_str().to_owned();
    let key = (stack.row.uid, issuer, person.subject.as_str().to_owned());
    member::Entity::delete_by_id(key).exec(tx).await?;
    Ok(())
}
