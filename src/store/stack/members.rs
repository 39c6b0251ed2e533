//! The members of a stack, and its owner.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set, sea_query::OnConflict};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    refusal::Refusal,
    revision::Revision,
    stack::{Member, Person, Role, Stack, StackKey},
};
use crate::store::{
    Error, Store,
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
}

/// A stack after a change of its members.
#[derive(Debug)]
pub struct MembersChanged {
    /// The stack after the change.
    pub stack: Stack,
    /// The person that the change was about. `None` if they are not a member now.
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
        write_tx!(self, (call.mode, key), "change_members", |tx| {
            let found = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let (action, details) = apply(tx, &found, change).await?;
            let about = (&found, None);
            self.append_audit(tx, call, action, about, details).await?;
            let revision = self.append_change(tx, about, Kind::MembersChanged).await?;
            let member = find_member(tx, found.row.uid, change.person()).await?;
            let changed = MembersChanged {
                stack: self.stack_in(tx, found.uid, found.at).await?,
                member: member.map(Member::try_from).transpose()?,
            };
            Ok((changed, revision))
        })
    }
}

async fn apply(
    tx: &Transaction,
    stack: &LockedStack,
    change: &MemberChange,
) -> Result<(AuditAction, Details), Error> {
    match change {
        MemberChange::Set(person, role) => {
            require_not_owner(tx, stack, person).await?;
            put_member(tx, stack, person, *role).await?;
            let details = [
                ("member", person_in_words(person)),
                ("role", role.name().into()),
            ];
            Ok((AuditAction::StackSetMember, in_details(details)))
        }
        MemberChange::Remove(person) => {
            require_not_owner(tx, stack, person).await?;
            delete_member(tx, stack, person).await?;
            let details = [("member", person_in_words(person))];
            Ok((AuditAction::StackRemoveMember, in_details(details)))
        }
        MemberChange::TransferTo(person) => {
            let before = owner_of(tx, stack).await?;
            let former = person_of(&before)?;
            if !same_person(&former, person) {
                // The former owner is removed first, because a stack never has two owners (R2).
                delete_member(tx, stack, &former).await?;
                put_member(tx, stack, person, Role::Owner).await?;
            }
            let owners = [
                ("owner", person_in_words(person)),
                ("owner.before", person_in_words(&former)),
            ];
            Ok((AuditAction::StackTransferOwnership, in_details(owners)))
        }
    }
}

fn in_details<const N: usize>(pairs: [(&str, String); N]) -> Details {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Formats only the ids of a person. An email address is personal data, and does not identify the
/// person.
pub(in crate::store) fn person_in_words(person: &Person) -> String {
    format!("{} {}", person.issuer.as_str(), person.subject.as_str())
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
