//! Deletes data whose retention has ended (R14, R15). Each transaction deletes only a few rows, and
//! leaves locked rows for the next run. Only one process purges at a time.

mod expired;

use std::collections::BTreeSet;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement, Value,
    sea_query::{Expr, ExprTrait as _, Func, LockBehavior, LockType, Query},
};
use uuid::Uuid;

use crate::domain::{id::TokenUid, timestamp::Timestamp};
use crate::store::{
    Error, Store,
    engine::dialect::PerEngine,
    engine::transaction::Transaction,
    entity::{audit_event, request, session, stack, token, token_secret, token_usage},
};

/// The maximum number of rows that one batch selects for deletion.
pub(in crate::store) const BATCH: u64 = 500;
/// How many tokens a batch of the usage purge scans. This is more than `BATCH`, because most tokens
/// have no usage rows to delete.
const SCAN_BATCH: u64 = 2000;

/// The key of the advisory lock for purging, "stackhou" in ASCII.
const PURGE_LOCK: i64 = 0x7374_6163_6b68_6f75;

/// Which data is old enough to be deleted.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The current time.
    pub now: Timestamp,
    /// How long data is kept after its retention has begun, for example after a token died.
    pub kept_for: std::time::Duration,
}

/// The result of one batch of a purge.
#[derive(Debug)]
pub struct Batch {
    /// The number of rows deleted, by table.
    pub rows: Vec<(&'static str, u64)>,
    /// What the caller must do next.
    pub next: Next,
}

/// What the caller of a purge must do after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run another batch. A purge that goes through the tokens in order must continue after this
    /// token.
    Batch(Option<TokenUid>),
    /// Nothing. Everything that can be deleted now is deleted.
    Done,
    /// Nothing. Another process holds the purge lock.
    Busy,
}

impl Batch {
    pub(in crate::store) const BUSY: Self = Self {
        rows: Vec::new(),
        next: Next::Busy,
    };

    const NOTHING: Self = Self {
        rows: Vec::new(),
        next: Next::Done,
    };

    pub(in crate::store) fn of(table: &'static str, deleted: u64, more: bool) -> Self {
        let next = if more { Next::Batch(None) } else { Next::Done };
        Self {
            rows: vec![(table, deleted)],
            next,
        }
    }
}

/// Returns an SQL expression for the time at which a token died, written exactly as in the index.
/// While the token is live, the value is null or in the future.
fn dead_since() -> Expr {
    let column = |column| Expr::col((token::Entity, column));
    Func::coalesce([
        column(token::Column::RevokedAt),
        column(token::Column::EndedAt),
        column(token::Column::ExpiresAt),
    ])
    .into()
}

/// Selects the id, position and time of the oldest changes.
const OLDEST_CHANGES: PerEngine = PerEngine {
    sqlite: "SELECT id, id AS position, changed_at FROM changes ORDER BY id LIMIT $1",
    postgres: "SELECT id, xid::text::bigint AS position, changed_at FROM changes \
        WHERE changes.xid < pg_snapshot_xmin(pg_current_snapshot()) \
        ORDER BY changes.xid, changes.id LIMIT $1",
};

/// Skips rows of `u` that are being written.
const SKIP_LOCKED_USAGE: PerEngine = PerEngine::on_postgres(" FOR UPDATE OF u SKIP LOCKED");

impl Store {
    /// Deletes tokens that have been dead for longer than `keep`, together with their secrets,
    /// requests, sessions and usage. Secrets of a deleted token are no longer recognized.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_tokens(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_tokens", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            let found: Vec<(Uuid, Uuid)> = token::Entity::find()
                .select_only()
                .columns([token::Column::Uid, token::Column::StackUid])
                .filter(dead_since().lte(before.as_micros()))
                .order_by_asc(dead_since())
                .limit(BATCH)
                .into_tuple()
                .all(tx)
                .await?;
            let full = found.len() as u64 == BATCH;
            let uids = lock_tokens(tx, found, before).await?;
            if uids.is_empty() {
                return Ok(Batch::NOTHING);
            }
            let rows = delete_tokens(tx, &uids).await?;
            let next = if full { Next::Batch(None) } else { Next::Done };
            Ok(Batch { rows, next })
        })
    }

    /// Deletes the usage rows of services that have not used a token within `keep`, except the
    /// latest row of each token. The batches go through the tokens, because an index by time would
    /// slow down every recorded use.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_usage(
        &self,
        keep: Retention,
        after: Option<TokenUid>,
    ) -> Result<Batch, Error> {
        write_tx!(self, "purge_usage", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            let after = after.map_or(Uuid::nil(), TokenUid::into_untyped_uuid);
            let page: Vec<Uuid> = token_usage::Entity::find()
                .select_only()
                .column(token_usage::Column::TokenUid)
                .distinct()
                .filter(token_usage::Column::TokenUid.gt(after))
                .order_by_asc(token_usage::Column::TokenUid)
                .limit(SCAN_BATCH)
                .into_tuple()
                .all(tx)
                .await?;
            let Some(last) = page.last().copied() else {
                return Ok(Batch::NOTHING);
            };
            // If a use is being recorded, its row is locked. That row is recent, so it can be
            // skipped.
            let skip = self.dialect().pick(SKIP_LOCKED_USAGE);
            let sql = format!(
                "DELETE FROM token_usage WHERE token_uid > $1 AND token_uid <= $2 AND \
                 (token_uid, service_issuer, service_subject) IN \
                 (SELECT u.token_uid, u.service_issuer, u.service_subject FROM token_usage u \
                  WHERE u.token_uid > $1 AND u.token_uid <= $2 AND u.last_used_at <= $3 \
                  AND EXISTS (SELECT 1 FROM token_usage newer \
                   WHERE newer.token_uid > $1 AND newer.token_uid <= $2 \
                   AND newer.token_uid = u.token_uid AND newer.last_used_at > u.last_used_at){skip})"
            );
            let values = [after.into(), last.into(), before.as_micros().into()];
            let deleted = self.delete(tx, &sql, values).await?;
            let full = page.len() as u64 == SCAN_BATCH;
            let next = Next::Batch(Some(TokenUid::from_untyped_uuid(last)));
            Ok(Batch {
                rows: vec![("token_usage", deleted)],
                next: if full { next } else { Next::Done },
            })
        })
    }

    /// Deletes audit rows older than `keep` (R14).
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_audit(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_audit", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            let old: Vec<Uuid> = audit_event::Entity::find()
                .select_only()
                .column(audit_event::Column::Uid)
                .filter(audit_event::Column::OccurredAt.lte(before.as_micros()))
                .order_by_asc(audit_event::Column::OccurredAt)
                .limit(BATCH)
                .into_tuple()
                .all(tx)
                .await?;
            if old.is_empty() {
                return Ok(Batch::NOTHING);
            }
            let deleted = audit_event::Entity::delete_many()
                .filter(audit_event::Column::Uid.is_in(old))
                .exec(tx)
                .await?;
            let deleted = deleted.rows_affected;
            Ok(Batch::of("audit_events", deleted, deleted == BATCH))
        })
    }

    /// Deletes the oldest part of the change log, and records the last deleted position in the same
    /// transaction. The deleted part has no gaps. It ends before the first recent row, before every
    /// transaction that is still running, and before the last row. The last row must remain,
    /// because its position is the current position of the change log.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_changes(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_changes", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            let oldest = self.oldest_changes(tx).await?;
            let full = oldest.len() as u64 > BATCH;
            let all_but_one = oldest.len().saturating_sub(1);
            let old: Vec<_> = oldest
                .into_iter()
                .take(all_but_one)
                .take_while(|(.., at)| *at <= before.as_micros())
                .collect();
            let Some((_, position, _)) = old.last().copied() else {
                return Ok(Batch::NOTHING);
            };
            // The rows are deleted by id, because the planner overestimates how many rows come
            // before a position.
            let numbers = old.iter().map(|(id, ..)| *id);
            let delete = Query::delete()
                .from_table("changes")
                .and_where(Expr::col("id").is_in(numbers))
                .take();
            let deleted = tx.execute(&delete).await?.rows_affected();
            // The recorded position is never lowered, because a reader whose position was purged
            // must always notice the purge.
            let raise = "UPDATE meta SET value = $1 WHERE name = 'purged' AND value < $1";
            self.delete(tx, raise, [position.into()]).await?;
            Ok(Batch::of("changes", deleted, full && deleted == BATCH))
        })
    }

    /// Returns the id, position and time of the oldest changes, at most one more than a batch. On
    /// PostgreSQL, rows are left out if a running transaction could still insert a row before them.
    async fn oldest_changes(&self, tx: &Transaction) -> Result<Vec<(i64, i64, i64)>, Error> {
        let sql = self.dialect().pick(OLDEST_CHANGES);
        let most = i64::try_from(BATCH + 1).unwrap_or(i64::MAX);
        let statement = Statement::from_sql_and_values(self.backend(), sql, [most.into()]);
        let rows = tx.query_all_raw(statement).await?;
        let column = |row: &sea_orm::QueryResult, name| row.try_get::<i64>("", name);
        let rows = rows.iter().map(|row| {
            let (id, position) = (column(row, "id")?, column(row, "position")?);
            Ok::<_, DbErr>((id, position, column(row, "changed_at")?))
        });
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Takes the purge lock, and returns the instant up to which data is old. Returns `None` if
    /// another process holds the lock. The lock ends with the transaction, so it is never left
    /// behind on a connection of a pooler. On PostgreSQL, data counts as old only if it is old
    /// according to both this process's clock and the database's clock.
    pub(in crate::store) async fn acquire_purge_lock(
        &self,
        tx: &Transaction,
        keep: Retention,
    ) -> Result<Option<Timestamp>, Error> {
        if !self.has_other_writers() {
            return Ok(Some(keep.now.minus(keep.kept_for)));
        }
        let sql = format!(
            "SELECT pg_try_advisory_xact_lock({PURGE_LOCK}) AS alone, \
             (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now"
        );
        let statement = Statement::from_string(self.backend(), sql);
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a lock".to_owned()))?;
        if !row.try_get::<bool>("", "alone")? {
            return Ok(None);
        }
        let theirs = Timestamp::from_micros(row.try_get("", "now")?);
        let now = theirs.map_or(keep.now, |theirs| theirs.min(keep.now));
        Ok(Some(now.minus(keep.kept_for)))
    }

    pub(in crate::store) async fn delete<const N: usize>(
        &self,
        tx: &Transaction,
        sql: &str,
        values: [Value; N],
    ) -> Result<u64, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        Ok(tx.execute_raw(statement).await?.rows_affected())
    }
}

/// Locks the stacks first, as every change does, and returns the tokens of these stacks that are
/// still old. Skips locked rows. If this transaction waited for a locked row, perhaps of a paused
/// process, it would meanwhile keep the locks of other stacks.
async fn lock_tokens(
    tx: &Transaction,
    found: Vec<(Uuid, Uuid)>,
    before: Timestamp,
) -> Result<Vec<Uuid>, Error> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let stacks: BTreeSet<Uuid> = found.iter().map(|(_, stack)| *stack).collect();
    let stacks: Vec<Uuid> = stack::Entity::find()
        .select_only()
        .column(stack::Column::Uid)
        .filter(stack::Column::Uid.is_in(stacks))
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .into_tuple()
        .all(tx)
        .await?;
    let uids = found.into_iter().map(|(uid, _)| uid);
    let lock_tokens = token::Entity::find()
        .select_only()
        .column(token::Column::Uid)
        .filter(token::Column::Uid.is_in(uids))
        .filter(token::Column::StackUid.is_in(stacks))
        // An expired token may have been revoked in the meantime. Its retention then began again.
        .filter(dead_since().lte(before.as_micros()))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple();
    Ok(lock_tokens.all(tx).await?)
}

/// Deletes tokens, after the rows that refer to them.
async fn delete_tokens(tx: &Transaction, uids: &[Uuid]) -> Result<Vec<(&'static str, u64)>, Error> {
    let uids = || uids.iter().copied();
    let usage = token_usage::Entity::delete_many()
        .filter(token_usage::Column::TokenUid.is_in(uids()))
        .exec(tx)
        .await?;
    let requests = request::Entity::delete_many()
        .filter(request::Column::TokenUid.is_in(uids()))
        .exec(tx)
        .await?;
    let sessions = session::Entity::delete_many()
        .filter(session::Column::TokenUid.is_in(uids()))
        .exec(tx)
        .await?;
    let secrets = token_secret::Entity::delete_many()
        .filter(token_secret::Column::TokenUid.is_in(uids()))
        .exec(tx)
        .await?;
    let tokens = token::Entity::delete_many()
        .filter(token::Column::Uid.is_in(uids()))
        .exec(tx)
        .await?;
    Ok(vec![
        ("token_usage", usage.rows_affected),
        ("requests", requests.rows_affected),
        ("token_secrets", secrets.rows_affected),
        ("sessions", sessions.rows_affected),
        ("tokens", tokens.rows_affected),
    ])
}
