//! Registers a stack. With an idempotency key, a repeated call gets the stack that the first call
//! registered.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    QueryFilter as _, sea_query::OnConflict,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::{self, StackUid},
    refusal::Refusal,
    request::Request,
    revision::Revision,
    stack::{Person, Role, Stack, StackKey},
    text::StackName,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::stack,
    record::{Changed, Proof},
    replay::Scope,
    stack::access::LockedStack,
    stack::members::put_member,
    token::rows::corrupt,
};

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
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
}

/// A stack that was registered.
#[derive(Debug)]
pub struct Registered {
    /// The stack.
    pub stack: Stack,
    /// A revision that includes the registration.
    pub revision: Revision,
    /// Whether an earlier call with the same request id registered the stack.
    pub again: bool,
}

/// The result that is stored for repetitions of the call.
#[derive(Serialize, Deserialize)]
struct Answer {
    stack_uid: Uuid,
    revision: String,
}

/// The stack does not exist yet, so a request id is scoped to the caller alone.
const SCOPE: Scope<'static> = Scope {
    stack_key: "",
    action: AuditAction::StackRegister,
};

impl Store {
    /// Registers a stack with its owner.
    ///
    /// # Errors
    /// Returns [`Refusal::StackKeyTaken`], [`Refusal::RequestIdTaken`], or another [`Error`] if the
    /// call is refused or the store fails.
    pub async fn register_stack(
        &self,
        call: &Call,
        command: &Register,
    ) -> Result<Registered, Error> {
        change_tx!(self, call.mode, "register_stack", |tx| {
            call.requirement.check(&call.caller, None)?;
            // There is no stack to lock yet. No other transaction sees the new stack before the
            // commit.
            let now = self.transaction_clock(tx).await?;
            let place = (SCOPE, command.request.as_ref());
            // The request id is claimed first, so that of two concurrent calls with one id, the
            // second waits here.
            if let Some(answer) = self.claim(tx, call, place, now).await? {
                return self.registered_before(tx, call, (place.1, answer)).await;
            }
            let Some((registered, proof)) = self.insert_stack(tx, call, command, now).await? else {
                self.give_up_claim(tx, call, place).await?;
                return Err(taken(tx, &command.stack_key).await?.into());
            };
            let answer = Answer {
                stack_uid: registered.stack.uid.into_untyped_uuid(),
                revision: registered.revision.to_string(),
            };
            self.complete_claim(tx, call, place, (&answer, now)).await?;
            Ok(proof.with(registered))
        })
    }

    /// Inserts the stack with its owner. Returns `None` if another stack has the key. If another
    /// transaction is inserting a stack with this key, waits until that transaction ends.
    async fn insert_stack(
        &self,
        tx: &Transaction,
        call: &Call,
        command: &Register,
        now: Timestamp,
    ) -> Result<Option<(Registered, Proof)>, Error> {
        let uid: StackUid = id::generate(now, self.entropy.as_ref())?;
        let row = stack::Model {
            uid: uid.into_untyped_uuid(),
            key: command.stack_key.as_str().to_owned(),
            name: command.name.as_str().to_owned(),
            organization_uid: command.organization_uid.clone(),
            token_limit: i32::try_from(command.token_limit).unwrap_or(i32::MAX),
            registered_at: now.as_micros(),
            suspended_at: None,
            removed_at: None,
            last_changed_at: now.as_micros(),
        };
        let unless_taken = OnConflict::column(stack::Column::Key)
            .do_nothing()
            .to_owned();
        let inserted = stack::Entity::insert(row.clone().into_active_model().reset_all())
            .on_conflict(unless_taken)
            .exec_without_returning(tx)
            .await?;
        if inserted == 0 {
            return Ok(None);
        }
        let stack = LockedStack::registered(row, now);
        put_member(tx, &stack, &command.owner, Role::Owner).await?;
        let registered = self.stack_in(tx, uid, now).await?;
        let record = Record::made(&registered).asked_by(command.request.as_ref());
        let about = (&stack, None);
        let (revision, proof) = self
            .record_change(
                tx,
                call,
                (AuditAction::StackRegister, Kind::Registered),
                about,
                record,
            )
            .await?;
        let registered = Registered {
            stack: registered,
            revision,
            again: false,
        };
        Ok(Some((registered, proof)))
    }

    /// Returns the current state of the stack that an earlier call registered.
    async fn registered_before(
        &self,
        tx: &Transaction,
        call: &Call,
        (request, answer): (Option<&Request>, Answer),
    ) -> Result<Changed<Registered>, Error> {
        let wrong = |_| corrupt("replays", "answer", answer.stack_uid);
        let revision = Revision::parse(&answer.revision).map_err(wrong)?;
        let uid = StackUid::from_untyped_uuid(answer.stack_uid);
        let stack = self.locked(tx, uid).await?;
        let details = Details::from([("again".into(), true.to_string())]);
        let (about, record) = ((&stack, None), Record::from(details).asked_by(request));
        let proof = self
            .record_call(tx, call, AuditAction::StackRegister, about, record)
            .await?;
        Ok(proof.with(Registered {
            stack: self.stack_in(tx, uid, stack.at).await?,
            revision,
            again: true,
        }))
    }
}

/// Returns the refusal, which names the stack that has this key.
async fn taken(tx: &Transaction, key: &StackKey) -> Result<Refusal, Error> {
    let holder = stack::Entity::find().filter(stack::Column::Key.eq(key.as_str()));
    let holder = holder.one(tx).await?;
    // Stacks are never deleted, so the stack with which the insertion conflicted still exists.
    let holder = holder.ok_or_else(|| corrupt("stacks", "key", Uuid::nil()))?;
    Ok(Refusal::StackKeyTaken {
        stack_uid: StackUid::from_untyped_uuid(holder.uid),
        removed: holder.removed_at.is_some(),
    })
}
