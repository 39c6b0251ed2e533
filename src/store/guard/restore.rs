//! Ends again what had ended before the database was restored. The journals say what that is.
//! Everything is done in one transaction, with audit rows and with a new epoch of the change log, and
//! can be previewed. Nothing that is still permitted is ended, and doing it twice changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use newtype_uuid::GenericUuid as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::Expr};
use uuid::Uuid;

use super::{
    Guard, GuardError, Intent,
    fold::{Fold, StackFold, TokenFold},
    mark::GuardFile,
    read,
};
use crate::{
    domain::{
        audit::{AuditAction, Details},
        caller::{Call, Mode},
        id::{StackUid, TokenUid},
        refusal::Refusal,
        text::Reason,
    },
    store::{
        Error, Store,
        audit::append::Record,
        change_log::append::Kind,
        engine::transaction::Transaction,
        entity::{meta, stack},
        record::Proof,
        stack::access::LockedStack,
    },
};

mod new_guard;
mod token;

/// What to do about transactions of which it is not known whether they were committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Ends what they were about to end.
    End,
    /// Suspends their stacks, until a person has looked.
    Suspend,
    /// Does nothing about them.
    Keep,
}

/// What the journals contain.
#[derive(Clone, Debug, Default)]
pub struct JournalReport {
    /// The number of lines.
    pub lines: u64,
    /// Where a journal is damaged, as `FILE:LINE`. The rest of that file does not count.
    pub damaged: Vec<String>,
}

/// What the journals say must have ended.
pub struct RestorePlan {
    /// The guard whose journals were read.
    guard: i64,
    /// What was committed.
    fold: Fold,
    /// What was about to be committed.
    unknown: Vec<Intent>,
    /// The journals that were read.
    pub report: JournalReport,
}

/// What a restore would end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestorePreview {
    /// What had ended, as far as it is known.
    pub known: Restored,
    /// What has ended if the changes of unknown outcome were committed.
    pub unknown: Vec<Ended>,
}

/// Something that had come back, and has ended again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The stack.
    pub stack: StackUid,
    /// The key of the stack.
    pub stack_key: String,
    /// The token. `None` for the stack as a whole.
    pub token: Option<TokenUid>,
    /// What has ended.
    pub what: &'static str,
}

/// The result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// What has ended again.
    pub ended: Vec<Ended>,
    /// The keys of stacks whose members were changed. A person must check them.
    pub members: Vec<String>,
}

impl RestorePlan {
    fn with_unknown(&self) -> Fold {
        let mut fold = self.fold.clone();
        self.unknown.iter().for_each(|intent| fold.add(intent));
        fold
    }
}

impl Store {
    /// Reads the journals.
    ///
    /// # Errors
    /// Returns [`GuardError`] if the place cannot be read, or if there is no guard.
    pub async fn restore_plan(&self) -> Result<RestorePlan, GuardError> {
        let read = |guard: &Guard| {
            let file = guard.file()?.ok_or(GuardError::Missing)?;
            guard.journal.belongs_to(file);
            let mut fold = Fold::default();
            let of = (&*guard.seal, file.guard);
            let contents = read::read(&*guard.place, of, |intent| fold.add(intent))?;
            Ok::<_, GuardError>(RestorePlan {
                guard: file.guard,
                fold,
                unknown: contents.unknown,
                report: JournalReport {
                    lines: contents.lines,
                    damaged: contents.damaged,
                },
            })
        };
        self.require_guard()?.blocking(read).await
    }

    /// Returns what [`Self::restore`] would end. Changes nothing.
    ///
    /// # Errors
    /// Returns [`Error`] if the database cannot be used.
    pub async fn preview_restore(&self, plan: &RestorePlan) -> Result<RestorePreview, Error> {
        let known = self.end_again((&plan.fold, plan.guard), None).await?;
        let mut unknown = Vec::new();
        if !plan.unknown.is_empty() {
            // Of most of them, the database itself shows the outcome.
            let all = plan.with_unknown();
            unknown = self.end_again((&all, plan.guard), None).await?.ended;
            unknown.retain(|ended| !known.ended.contains(ended));
        }
        Ok(RestorePreview { known, unknown })
    }

    /// Ends again what had ended. A new epoch of the change log begins, and the guard guards it from
    /// now on.
    ///
    /// # Errors
    /// Returns [`GuardError`] if nothing was changed, or if the guard could not be renewed. Doing it
    /// again completes it.
    pub async fn restore(
        &self,
        plan: &RestorePlan,
        unknown: Unknown,
    ) -> Result<Restored, GuardError> {
        let guard = self.require_guard()?.clone();
        let fold = match unknown {
            Unknown::Keep => plan.fold.clone(),
            Unknown::End => plan.with_unknown(),
            Unknown::Suspend => {
                let mut fold = plan.fold.clone();
                for ended in self.preview_restore(plan).await?.unknown {
                    let stack = fold.stacks.entry(ended.stack.into_untyped_uuid());
                    stack.or_default().suspended = true;
                }
                fold
            }
        };
        let epoch = self.new_epoch()?;
        let restored = self.end_again((&fold, plan.guard), Some(epoch)).await?;
        self.guard_epoch(&guard, epoch).await?;
        Ok(restored)
    }

    /// Ends what must have ended, in one transaction. Without a new epoch, rolls it back.
    async fn end_again(
        &self,
        (fold, guard): (&Fold, i64),
        epoch: Option<i64>,
    ) -> Result<Restored, Error> {
        let mode = epoch.map_or(Mode::Preview, |_| Mode::Apply);
        let call = self.restoring(mode)?;
        change_tx!(self, mode, "restore", |tx| {
            // The journals of another service would end nothing here, but its epoch would change.
            require_same_guard(tx, guard).await?;
            let mut restored = Restored::default();
            for (uid, stack) in &fold.stacks {
                self.restore_stack(tx, &call, (*uid, stack), &mut restored)
                    .await?;
            }
            if let Some(epoch) = epoch {
                self.renew_epoch_in(tx, epoch).await?;
            }
            // Each of the changes above has its proof.
            Ok(Proof::nothing_changed().with(restored))
        })
    }

    fn require_guard(&self) -> Result<&Arc<Guard>, GuardError> {
        self.guard.as_ref().ok_or(GuardError::Missing)
    }

    /// Makes the guard the one of this epoch.
    async fn guard_epoch(&self, guard: &Arc<Guard>, epoch: i64) -> Result<(), GuardError> {
        let replacing = move |guard: &Guard| {
            let former = guard.file()?.ok_or(GuardError::Missing)?;
            let file = GuardFile { epoch, ..former };
            file.replace(&*guard.place, &guard.seal)?;
            Ok::<_, GuardError>(file.guard)
        };
        let number = guard.blocking(replacing).await?;
        // A database from before it was guarded does not have the number yet.
        self.claim_for_guard(number).await
    }

    /// Returns the call under which a restore is recorded in the audit.
    fn restoring(&self, mode: Mode) -> Result<Call, Error> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        let request_id = format!("restore-{:016x}", u64::from_be_bytes(random));
        let now = (self.clock.now(), mode);
        Ok(Call::of_program(("stacktoken", "restore"), request_id, now))
    }

    async fn restore_stack(
        &self,
        tx: &Transaction,
        call: &Call,
        (uid, fold): (Uuid, &StackFold),
        restored: &mut Restored,
    ) -> Result<(), Error> {
        if stack::Entity::find_by_id(uid).one(tx).await?.is_none() {
            // Registered after the backup: none of its tokens exists.
            return Ok(());
        }
        let stack = self.locked(tx, StackUid::from_untyped_uuid(uid)).await?;
        let key = &stack.row.key;
        if fold.members {
            restored.members.push(key.clone());
        }
        for (uid, fold) in &fold.tokens {
            let ended = self.restore_token(tx, call, &stack, (*uid, fold)).await?;
            restored.ended.extend(ended.into_iter().map(|what| Ended {
                stack: stack.uid,
                stack_key: key.clone(),
                token: Some(TokenUid::from_untyped_uuid(*uid)),
                what,
            }));
        }
        let ended = self.restore_stack_state(tx, call, &stack, fold).await?;
        restored.ended.extend(ended.map(|what| Ended {
            stack: stack.uid,
            stack_key: key.clone(),
            token: None,
            what,
        }));
        Ok(())
    }

    /// Suspends or removes a stack that was suspended or removed. Returns what it did.
    async fn restore_stack_state(
        &self,
        tx: &Transaction,
        call: &Call,
        stack: &LockedStack,
        fold: &StackFold,
    ) -> Result<Option<&'static str>, Error> {
        let row = &stack.row;
        if row.removed_at.is_some() {
            return Ok(None);
        }
        let (column, both, what) = if fold.removed {
            let both = (AuditAction::StackRemove, Kind::Removed);
            (stack::Column::RemovedAt, both, "removed")
        } else if fold.suspended && row.suspended_at.is_none() {
            let both = (AuditAction::StackSuspend, Kind::Suspended);
            (stack::Column::SuspendedAt, both, "suspended")
        } else {
            return Ok(None);
        };
        let before = self.stack_in(tx, stack.uid, stack.at).await?;
        stack::Entity::update_many()
            .col_expr(column, Expr::value(stack.at.as_micros()))
            .filter(stack::Column::Uid.eq(row.uid))
            .exec(tx)
            .await?;
        let after = self.stack_in(tx, stack.uid, stack.at).await?;
        let record = Record::changed(&before, &after).with(details());
        let recorded = self.record_change(tx, call, both, (stack, None), record);
        recorded.await.map(drop)?;
        Ok(Some(what))
    }

    /// Ends again what had ended of a token. Returns what it ended.
    async fn restore_token(
        &self,
        tx: &Transaction,
        call: &Call,
        stack: &LockedStack,
        (uid, fold): (Uuid, &TokenFold),
    ) -> Result<BTreeSet<&'static str>, Error> {
        let uid = TokenUid::from_untyped_uuid(uid);
        let token = match self.token_to_change(tx, stack, uid).await {
            // Issued after the backup, or purged.
            Err(Error::Refused(Refusal::TokenNotFound)) => return Ok(BTreeSet::new()),
            found => found?,
        };
        token::Restoring {
            store: self,
            tx,
            call,
            stack,
        }
        .end(token, fold)
        .await
    }
}

/// Checks that the database has this guard. One from before it was guarded has none.
async fn require_same_guard(tx: &Transaction, number: i64) -> Result<(), Error> {
    let found = meta::Entity::find_by_id("guard").one(tx).await?;
    match found {
        Some(row) if row.value != number => Err(Error::OtherGuard),
        _ => Ok(()),
    }
}

/// Returns the audit details of everything that a restore does.
fn details() -> Details {
    Details::from([("restore".into(), "apply".into())])
}

/// The reason of what a restore revokes.
fn reason() -> Result<Reason, Error> {
    let text = "revoked before the database was restored";
    Reason::parse(text).map_err(|_| Error::GuardUnavailable)
}
