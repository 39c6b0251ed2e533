//! Records changes. A change of a stack or a token is committed only together with its audit row
//! (R14) and, if it can alter a verdict, its change log row (R12). `change_tx!` commits only a
//! [`Changed`], which needs a [`Proof`]. The methods in this file return a proof when they write
//! the rows. Nothing verifies that [`Proof::nothing_changed`] is used correctly. Its caller is
//! responsible for that.

use crate::domain::{audit::AuditAction, caller::Call, id::TokenUid, revision::Revision};
use crate::store::{
    Error, Store,
    audit::append::Record,
    audit::of_audit,
    change_log::append::Kind,
    engine::transaction::Transaction,
    guard::{Effect, effect_of},
    stack::access::LockedStack,
};
use stacktoken_core::facts_cache::Subject;

/// The subject of a change: a locked stack and, if the change concerns only one token, that token.
pub(in crate::store) type About<'a> = (&'a LockedStack, Option<TokenUid>);

/// Proof that a transaction has recorded what it changed.
#[must_use = "a change is committed only with the proof that it is recorded"]
pub(in crate::store) struct Proof(());

/// The result of a transaction that has recorded what it changed.
#[must_use]
pub(in crate::store) struct Changed<T>(T);

impl Proof {
    /// Claims that the transaction has changed nothing that the audit or the change log must show.
    pub const fn nothing_changed() -> Self {
        Self(())
    }

    /// States that the subject was already as the caller wants it. Another replica may have made
    /// that change within the freshness bound, and the caller is now told that it is in effect
    /// (R12). So the facts that this replica has cached about the subject are evicted first.
    pub fn already_so(tx: &Transaction, subject: Subject) -> Self {
        tx.touch(subject);
        Self(())
    }

    /// Combines the proof with the result of the transaction.
    pub fn with<T>(self, value: T) -> Changed<T> {
        let Self(()) = self;
        Changed(value)
    }
}

impl<T> Changed<T> {
    /// Returns the result of the transaction.
    pub fn into_value(self) -> T {
        self.0
    }
}

impl Store {
    /// Records a change in the audit and in the change log. Returns a revision that includes the
    /// change.
    pub(in crate::store) async fn record_change(
        &self,
        tx: &Transaction,
        call: &Call,
        (action, kind): (AuditAction, Kind),
        about: About<'_>,
        record: impl Into<Record>,
    ) -> Result<(Revision, Proof), Error> {
        let record = record.into();
        let effect = self.effect((action, kind), &record);
        self.append_audit_later(tx, call, action, about, record)
            .await?;
        let revision = self.append_change(tx, about, (kind, effect)).await;
        Ok((revision.map_err(of_audit)?, Proof(())))
    }

    /// Records one change for each of these tokens of a stack. If there are no tokens, writes the
    /// audit row `of_none` for the call. Returns a revision that includes the changes, if there are
    /// any.
    pub(in crate::store) async fn record_change_of_each(
        &self,
        tx: &Transaction,
        call: &Call,
        (action, kind): (AuditAction, Kind),
        (stack, records): (&LockedStack, &[(TokenUid, Record)]),
        of_none: &Record,
    ) -> Result<(Option<Revision>, Proof), Error> {
        self.append_audit_of_each(tx, call, action, (stack, records), of_none)
            .await?;
        if records.is_empty() {
            // As in `Proof::already_so`: another replica may have changed them all.
            tx.touch(Subject::Stack(stack.uid));
        }
        let tokens = records.iter();
        let tokens: Vec<_> = tokens
            .map(|(uid, record)| (*uid, self.effect((action, kind), record)))
            .collect();
        let revision = self
            .append_change_of_each(tx, (stack, &tokens), kind)
            .await?;
        Ok((revision, Proof(())))
    }

    /// Records a call that alters no verdict in the audit log, such as one that repeats an earlier
    /// call.
    pub(in crate::store) async fn record_call(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        about: About<'_>,
        record: impl Into<Record>,
    ) -> Result<Proof, Error> {
        self.append_audit(tx, call, action, about, record).await?;
        Ok(Proof(()))
    }

    /// Records in the change log that a token has expired. No caller requested the expiry, so it
    /// has no audit row.
    pub(in crate::store) async fn record_expiry(
        &self,
        tx: &Transaction,
        (stack, token): (&LockedStack, TokenUid),
    ) -> Result<(), Error> {
        let about = (stack, Some(token));
        let effect = self.guard.as_ref().map(|_| Effect::Expired);
        self.append_change(tx, about, (Kind::Expired, effect))
            .await?;
        Ok(())
    }

    /// Records in the audit that the database gets a new restore guard.
    pub(in crate::store) async fn record_new_guard(
        &self,
        tx: &Transaction,
        call: &Call,
    ) -> Result<Proof, Error> {
        self.append_audit_of_guard(tx, call).await?;
        Ok(Proof(()))
    }

    /// Returns what the journal of the guard says of a change. `None` if it takes nothing away, or
    /// if there is no guard.
    fn effect(&self, (action, kind): (AuditAction, Kind), record: &Record) -> Option<Effect> {
        self.guard.as_ref()?;
        effect_of(kind, action, record.change())
    }
}
