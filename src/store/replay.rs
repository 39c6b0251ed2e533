//! Stores the results of calls with an idempotency key that show no secret. A repeated call gets
//! the result of the first call. Results of calls that show a secret are in `token/idempotency.rs`.

use sea_orm::{ActiveModelTrait as _, ConnectionTrait as _, EntityTrait as _, Set, Statement};
use serde::{Serialize, de::DeserializeOwned};

use crate::domain::{
    audit::AuditAction, caller::Call, refusal::Refusal, request::Request, timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    engine::transaction::Transaction,
    entity::replay::{ActiveModel, Entity, Model},
};

/// The RPC of a call, and the key of the stack that the call concerns. The key is empty if the RPC
/// does not concern a single stack.
#[derive(Clone, Copy)]
pub(in crate::store) struct Scope<'a> {
    pub stack_key: &'a str,
    pub action: AuditAction,
}

/// The primary key of a stored result.
type Key = (String, String, String, String, String);

impl Scope<'_> {
    fn key(self, call: &Call, request: &Request) -> Key {
        let actor = &call.caller.actor;
        (
            self.stack_key.to_owned(),
            actor.issuer.clone(),
            actor.subject.clone(),
            self.action.name().to_owned(),
            request.id.clone(),
        )
    }

    fn row(self, call: &Call, request: &Request, answer: String, at: Timestamp) -> Model {
        let (stack_key, caller_issuer, caller_subject, rpc, request_id) = self.key(call, request);
        Model {
            stack_key,
            caller_issuer,
            caller_subject,
            rpc,
            request_id,
            content: request.content.as_bytes().to_vec(),
            answer,
            first_seen_at: at.as_micros(),
        }
    }
}

/// Claims a key. If another transaction has claimed it, waits until that transaction ends.
const CLAIM: &str = "\
    INSERT INTO replays (stack_key, caller_issuer, caller_subject, rpc, request_id, content, \
    answer, first_seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";

impl Store {
    /// Returns the result of an earlier call by this caller with the same request id, if there is
    /// one. The caller must hold the lock that every call with the same key takes.
    ///
    /// # Errors
    /// Returns [`Refusal::RequestIdTaken`] if the content of the earlier call was different.
    pub(in crate::store) async fn replayed<T: DeserializeOwned>(
        &self,
        tx: &Transaction,
        call: &Call,
        (scope, request): (Scope<'_>, Option<&Request>),
    ) -> Result<Option<T>, Error> {
        let Some(request) = request else {
            return Ok(None);
        };
        let row = Entity::find_by_id(scope.key(call, request)).one(tx).await?;
        row.map(|row| answer_of(&row, request)).transpose()
    }

    /// Stores the result of a call for its repetitions.
    pub(in crate::store) async fn record_replay(
        &self,
        tx: &Transaction,
        call: &Call,
        (scope, request): (Scope<'_>, Option<&Request>),
        (answer, at): (&impl Serialize, Timestamp),
    ) -> Result<(), Error> {
        let Some(request) = request else {
            return Ok(());
        };
        let row = scope.row(call, request, written(answer), at);
        Entity::insert(ActiveModel::from(row).reset_all())
            .exec_without_returning(tx)
            .await?;
        Ok(())
    }

    /// Claims the request id for this call, or returns the result of an earlier call with this id.
    /// For RPCs without a lock that serializes calls with the same id. A claim must be completed by
    /// [`Self::complete_claim`], or given up if the call is refused.
    ///
    /// # Errors
    /// Returns [`Refusal::RequestIdTaken`] if the content of the earlier call was different.
    pub(in crate::store) async fn claim<T: DeserializeOwned>(
        &self,
        tx: &Transaction,
        call: &Call,
        (scope, request): (Scope<'_>, Option<&Request>),
        at: Timestamp,
    ) -> Result<Option<T>, Error> {
        let Some(request) = request else {
            return Ok(None);
        };
        let row = scope.row(call, request, String::new(), at);
        let values = [
            row.stack_key.into(),
            row.caller_issuer.into(),
            row.caller_subject.into(),
            row.rpc.into(),
            row.request_id.into(),
            row.content.into(),
            row.answer.into(),
            row.first_seen_at.into(),
        ];
        let claim = Statement::from_sql_and_values(self.backend(), CLAIM, values);
        if tx.execute_raw(claim).await?.rows_affected() == 1 {
            return Ok(None);
        }
        self.replayed(tx, call, (scope, Some(request))).await
    }

    /// Stores the result of a call that has claimed its request id.
    pub(in crate::store) async fn complete_claim(
        &self,
        tx: &Transaction,
        call: &Call,
        (scope, request): (Scope<'_>, Option<&Request>),
        (answer, at): (&impl Serialize, Timestamp),
    ) -> Result<(), Error> {
        let Some(request) = request else {
            return Ok(());
        };
        let mut row = ActiveModel::from(scope.row(call, request, String::new(), at));
        row.answer = Set(written(answer));
        row.update(tx).await?;
        Ok(())
    }

    /// Gives up the claim of a call that is refused, because the same call may succeed later.
    pub(in crate::store) async fn give_up_claim(
        &self,
        tx: &Transaction,
        call: &Call,
        (scope, request): (Scope<'_>, Option<&Request>),
    ) -> Result<(), Error> {
        if let Some(request) = request {
            Entity::delete_by_id(scope.key(call, request))
                .exec(tx)
                .await?;
        }
        Ok(())
    }
}

fn written(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

fn answer_of<T: DeserializeOwned>(row: &Model, request: &Request) -> Result<T, Error> {
    if row.content != request.content.as_bytes().as_slice() {
        return Err(Refusal::RequestIdTaken.into());
    }
    serde_json::from_str(&row.answer).map_err(|_| Error::Corrupt {
        table: "replays",
        column: "answer",
        id: row.request_id.clone(),
    })
}
