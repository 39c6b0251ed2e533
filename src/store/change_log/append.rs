//! Appends to the change log, which has one row for each change that can alter a verdict (R12).

use newtype_uuid::GenericUuid as _;
use sea_orm::{ConnectionTrait as _, DbErr, Statement, Value};

use crate::domain::{id::TokenUid, revision::Revision};
use crate::store::{
    Error, Store,
    engine::dialect::PerEngine,
    engine::transaction::{Affects, Transaction},
    guard::{Effect, Intent},
    stack::access::LockedStack,
};
use stacktoken_core::facts_cache::Subject;

/// The maximum number of rows in one statement. The engines limit the number of bind parameters.
pub(in crate::store) const AT_ONCE: usize = 500;

/// The NOTIFY channel. A notification has no payload, and is only a hint to poll the change log
/// now.
pub(in crate::store) const CHANNEL: &str = "stacktoken_changes";

/// The kind of a change. Readers use it only to decide whether the change is harmless. Apart from
/// that, it only informs people who read the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Issued,
    Updated,
    Redated,
    Expired,
    Revoked,
    Rotated,
    Superseded,
    Exchanged,
    SessionsEnded,
    Registered,
    MembersChanged,
    LimitChanged,
    Suspended,
    Resumed,
    Removed,
}

impl Kind {
    /// Returns whether cached facts stay correct after a change of this kind.
    pub const fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Issued
                | Self::Exchanged
                | Self::Registered
                | Self::MembersChanged
                | Self::LimitChanged
        )
    }

    /// All kinds of changes.
    pub const ALL: [Self; 15] = [
        Self::Issued,
        Self::Updated,
        Self::Redated,
        Self::Expired,
        Self::Revoked,
        Self::Rotated,
        Self::Superseded,
        Self::Exchanged,
        Self::SessionsEnded,
        Self::Registered,
        Self::MembersChanged,
        Self::LimitChanged,
        Self::Suspended,
        Self::Resumed,
        Self::Removed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Redated => "redated",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Rotated => "rotated",
            Self::Superseded => "superseded",
            Self::Exchanged => "exchanged",
            Self::SessionsEnded => "sessions_ended",
            Self::Registered => "registered",
            Self::MembersChanged => "members_changed",
            Self::LimitChanged => "limit_changed",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Removed => "removed",
        }
    }
}

/// Appends a change. On SQLite, the position of a change is its row id, because there is only one
/// writer. On PostgreSQL it is the transaction id, because a row with a higher id may be committed
/// first. On PostgreSQL, the same statement can also send the hint, see `Store::hint`.
const APPEND: PerEngine = PerEngine {
    sqlite: "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
        VALUES ($1, $2, $3, $4) RETURNING id AS position",
    postgres: "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
        VALUES ($1, $2, $3, $4) RETURNING xid::text::bigint AS position",
};

/// The column that holds the position of a change.
const POSITION: PerEngine = PerEngine {
    sqlite: "id",
    postgres: "xid::text::bigint",
};

/// The highest visible position. See `poll::on_postgres` for why `ORDER BY` names its table.
const NEWEST: PerEngine = PerEngine {
    sqlite: "SELECT COALESCE(MAX(id), 0) AS position FROM changes",
    postgres: "SELECT COALESCE((SELECT changes.xid::text::bigint FROM changes \
        ORDER BY changes.xid DESC LIMIT 1), 0) AS position",
};

impl Store {
    /// Appends a row to the change log, dated with the instant of the decision. `effect` is what the
    /// guard keeps of the change. Returns a revision that includes this change.
    pub(in crate::store) async fn append_change(
        &self,
        tx: &Transaction,
        (stack, token): (&LockedStack, Option<TokenUid>),
        (kind, effect): (Kind, Option<Effect>),
    ) -> Result<Revision, Error> {
        let dialect = self.dialect();
        tx.write(self.note_changed(stack), Affects::One).await?;
        let values = [
            stack.uid.into_untyped_uuid().into(),
            token.map(TokenUid::into_untyped_uuid).into(),
            kind.name().into(),
            stack.at.as_micros().into(),
        ];
        let hint = if self.sends_hint(kind) {
            format!(", pg_catalog.pg_notify('{CHANNEL}', '')::text AS hint")
        } else {
            String::new()
        };
        let sql = dialect.pick(APPEND).to_owned() + &hint;
        let statement = Statement::from_sql_and_values(dialect.backend(), sql, values);
        let row = tx.write_returning(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotInserted)?;
        let position = row.try_get("", "position")?;
        tx.note_row((position, stack.at.as_micros()));
        if let Some(effect) = effect {
            tx.intend(intent((stack, token), (kind, position), effect));
        }
        if !kind.is_harmless() {
            tx.touch(token.map_or(Subject::Stack(stack.uid), Subject::Token));
        }
        Ok(self.revision(position))
    }

    /// Appends one row for each of these tokens of a stack. Returns `None` if there are no tokens.
    pub(in crate::store) async fn append_change_of_each(
        &self,
        tx: &Transaction,
        (stack, tokens): (&LockedStack, &[(TokenUid, Option<Effect>)]),
        kind: Kind,
    ) -> Result<Option<Revision>, Error> {
        if !tokens.is_empty() {
            tx.execute_raw(self.note_changed(stack)).await?;
        }
        let position = self.dialect().pick(POSITION);
        let mut last = None;
        for some in tokens.chunks(AT_ONCE) {
            let rows: Vec<_> = (0..some.len())
                .map(|at| format!("($1, ${}, $2, $3)", at + 4))
                .collect();
            let sql = format!(
                "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
                VALUES {} RETURNING {position} AS position",
                rows.join(", ")
            );
            let mut values: Vec<Value> = vec![
                stack.uid.into_untyped_uuid().into(),
                kind.name().into(),
                stack.at.as_micros().into(),
            ];
            values.extend(
                some.iter()
                    .map(|(uid, _)| Value::from(uid.into_untyped_uuid())),
            );
            let statement = Statement::from_sql_and_values(self.backend(), sql, values);
            for row in tx.query_all_raw(statement).await? {
                last = last.max(Some(row.try_get("", "position")?));
            }
        }
        if let Some(position) = last {
            self.hint(tx, kind).await?;
            tx.note_row((position, stack.at.as_micros()));
            for (uid, effect) in tokens {
                tx.touch(Subject::Token(*uid));
                if let Some(effect) = effect.clone() {
                    tx.intend(intent((stack, Some(*uid)), (kind, position), effect));
                }
            }
        }
        Ok(last.map(|position| self.revision(position)))
    }

    /// Returns the statement that records the instant of the decision, so that no later decision
    /// about the stack is dated earlier (R8).
    fn note_changed(&self, stack: &LockedStack) -> Statement {
        let sql = "UPDATE stacks SET last_changed_at = $1 WHERE uid = $2";
        let values = [stack.at.as_micros().into(), stack.row.uid.into()];
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// Sends a hint, but only if the change can make cached facts wrong. NOTIFY takes a lock that
    /// all commits share, and a replica that misses a hint still polls the change log.
    async fn hint(&self, tx: &Transaction, kind: Kind) -> Result<(), Error> {
        if self.sends_hint(kind) {
            tx.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
        }
        Ok(())
    }

    fn sends_hint(&self, kind: Kind) -> bool {
        self.has_other_writers() && !kind.is_harmless()
    }

    /// Returns a revision that includes every change that this transaction sees, for a call that
    /// found nothing to change.
    pub(in crate::store) async fn current_revision(
        &self,
        tx: &Transaction,
    ) -> Result<Revision, Error> {
        let sql = self.dialect().pick(NEWEST);
        let statement = Statement::from_string(self.backend(), sql);
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a position".to_owned()))?;
        Ok(self.revision(row.try_get("", "position")?))
    }

    /// Returns the last position of the change log on SQLite, where there is only one writer.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be read.
    pub async fn last_position(&self) -> Result<i64, Error> {
        let statement = Statement::from_string(self.backend(), NEWEST.sqlite);
        let row = self.pools.load().reader.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a position".to_owned()))?;
        Ok(row.try_get("", "position")?)
    }

    /// Returns the revision at this position.
    pub(in crate::store) fn revision(&self, position: i64) -> Revision {
        Revision {
            epoch: self.epoch(),
            position,
        }
    }
}

/// Returns what the journal of the guard says of a change.
fn intent(
    (stack, token): (&LockedStack, Option<TokenUid>),
    (kind, position): (Kind, i64),
    effect: Effect,
) -> Intent {
    Intent {
        change: String::new(),
        at: stack.at.as_micros(),
        position,
        stack: stack.uid.into_untyped_uuid(),
        token: token.map(TokenUid::into_untyped_uuid),
        kind: kind.name().to_owned(),
        effect,
    }
}
