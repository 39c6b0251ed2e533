//! The history of changes: one row for everything that can alter a verdict (R12).

use newtype_uuid::GenericUuid as _;
use sea_orm::{ConnectionTrait as _, DbErr, Statement, Value};

use super::{Error, Store, standing::Locked, transaction::Transaction};
use crate::domain::{id::TokenUid, revision::Revision};
use stacktoken_core::facts_cache::Subject;

/// How many rows go into one statement: the engines bound how many values it may have.
pub(super) const AT_ONCE: usize = 500;

/// What NOTIFY is sent on: an empty hint to read the history now.
pub(super) const CHANNEL: &str = "stacktoken_changes";

/// What happened, for people who read the table; readers of the history act on the ids alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Issued,
    Updated,
    Redated,
    Expired,
    Revoked,
    Rotated,
    Superseded,
    Registered,
    MembersChanged,
    LimitChanged,
    Suspended,
    Resumed,
    Removed,
}

impl Kind {
    /// Whether nothing that was known before can be wrong after it.
    pub const fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Issued | Self::Registered | Self::MembersChanged | Self::LimitChanged
        )
    }

    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Issued,
        Self::Updated,
        Self::Redated,
        Self::Expired,
        Self::Revoked,
        Self::Rotated,
        Self::Superseded,
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
            Self::Registered => "registered",
            Self::MembersChanged => "members_changed",
            Self::LimitChanged => "limit_changed",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Removed => "removed",
        }
    }
}

/// On SQLite a change is known by its number, since there is one writer.
const ON_SQLITE: &str = "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
    VALUES ($1, $2, $3, $4) RETURNING id AS position";
/// On PostgreSQL by its transaction, since a later number may be committed first.
/// One round trip appends the change and moves the instant before which no later decision is.
const ON_POSTGRES: &str = "\
    WITH moved AS (UPDATE stacks SET last_changed_at = $4 WHERE uid = $1) \
    INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
    VALUES ($1, $2, $3, $4) RETURNING xid::text::bigint AS position";

impl Store {
    /// Appends to the history, at the instant of the decision; the answer is the point that
    /// includes this change.
    pub(super) async fn append_change(
        &self,
        tx: &Transaction,
        (stack, token): (&Locked, Option<TokenUid>),
        kind: Kind,
    ) -> Result<Revision, Error> {
        let sql = if self.is_shared() {
            ON_POSTGRES
        } else {
            self.note_changed(tx, stack).await?;
            ON_SQLITE
        };
        let values = [
            stack.uid.into_untyped_uuid().into(),
            token.map(TokenUid::into_untyped_uuid).into(),
            kind.name().into(),
            stack.at.as_micros().into(),
        ];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotInserted)?;
        self.hint(tx, kind).await?;
        let position = row.try_get("", "position")?;
        tx.note_position(position);
        if !kind.is_harmless() {
            tx.touch(token.map_or(Subject::Stack(stack.uid), Subject::Token));
        }
        Ok(self.revision(position))
    }

    /// The same for many tokens of a stack at once, a row for each; `None` for no token.
    pub(super) async fn append_change_of_each(
        &self,
        tx: &Transaction,
        (stack, tokens): (&Locked, &[TokenUid]),
        kind: Kind,
    ) -> Result<Option<Revision>, Error> {
        if !tokens.is_empty() {
            self.note_changed(tx, stack).await?;
        }
        let position = if self.is_shared() {
            "xid::text::bigint"
        } else {
            "id"
        };
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
            values.extend(some.iter().map(|uid| Value::from(uid.into_untyped_uuid())));
            let statement = Statement::from_sql_and_values(self.backend(), sql, values);
            for row in tx.query_all_raw(statement).await? {
                last = last.max(Some(row.try_get("", "position")?));
            }
        }
        if let Some(position) = last {
            self.hint(tx, kind).await?;
            tx.note_position(position);
            for uid in tokens {
                tx.touch(Subject::Token(*uid));
            }
        }
        Ok(last.map(|position| self.revision(position)))
    }

    /// No later decision about the stack is at an earlier instant (R8). On PostgreSQL the
    /// statement that appends one change does this by itself.
    async fn note_changed(&self, tx: &Transaction, stack: &Locked) -> Result<(), Error> {
        let sql = "UPDATE stacks SET last_changed_at = $1 WHERE uid = $2";
        let values = [stack.at.as_micros().into(), stack.row.uid.into()];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        tx.execute_raw(statement).await?;
        Ok(())
    }

    /// A hint, and only where something known may be wrong now: it takes a lock over all
    /// commits, and whoever misses it reads the history anyway.
    async fn hint(&self, tx: &Transaction, kind: Kind) -> Result<(), Error> {
        if self.is_shared() && !kind.is_harmless() {
            tx.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
        }
        Ok(())
    }

    /// The last position of the history on SQLite, where there is one writer.
    ///
    /// # Errors
    /// [`Error`] where the store cannot be read.
    pub async fn last_position(&self) -> Result<i64, Error> {
        let sql = "SELECT COALESCE(MAX(id), 0) AS position FROM changes";
        let statement = Statement::from_string(self.backend(), sql);
        let row = self.pools.load().reader.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a position".to_owned()))?;
        Ok(row.try_get("", "position")?)
    }

    /// The point of the history at this position.
    pub(super) fn revision(&self, position: i64) -> Revision {
        Revision {
            epoch: self.epoch(),
            position,
        }
    }
}
