//! Reads the facts for a verdict, with one indexed lookup by digest. It does not load the stack
//! first, because the caller knows only the digest.

pub(in crate::store) mod many;
pub(in crate::store) mod recorded;

use newtype_uuid::GenericUuid as _;
use sea_orm::{DbErr, FromQueryResult, QueryResult};
use uuid::Uuid;

use crate::domain::{
    id::{StackUid, TokenUid},
    origin::Origin,
    revision::Snapshot,
    secret::Digest,
    timestamp::Timestamp,
    verdict::{Facts, SessionFacts, StackFacts, TokenFacts},
};
use crate::store::{
    Error, Store,
    engine::{evidence::first, origin::origin_of},
    token::rows::{labels_of, permissions_of},
};

/// What the store knows about a digest at one instant.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The facts. `None` if no token has this secret.
    pub facts: Option<Facts>,
    /// The snapshot from which the facts were read.
    pub snapshot: Snapshot,
    /// The database that answered.
    pub origin: Origin,
}

/// Returns the statement that every cache miss runs. It returns a row even if the digest is
/// unknown, so that the origin is always checked: a database that is not the primary cannot know
/// that a secret is unknown. A digest belongs either to a token's own secret or to a session, never
/// to both.
fn by_digest(origin: &str, snapshot: &str) -> String {
    format!(
        "SELECT {snapshot} AS snapshot, {origin}, \
         s.generation, s.ends_at, s.superseded_at, s.first_used_at, \
         s.session_subject, s.session_narrow, s.session_issued_at, s.session_expires_at, \
         s.session_ended_at, \
         t.uid AS token_uid, t.name AS token_name, t.issued_at, t.expires_at, \
         t.ended_at, t.revoked_at, t.permissions, t.labels, \
         k.uid AS stack_uid, k.key AS stack_key, k.name AS stack_name, k.organization_uid, \
         k.suspended_at, k.removed_at \
         FROM (SELECT 1 AS one) AS asked \
         LEFT JOIN (\
           SELECT digest, token_uid, generation, ends_at, superseded_at, first_used_at, \
           NULL AS session_subject, NULL AS session_narrow, NULL AS session_issued_at, \
           NULL AS session_expires_at, NULL AS session_ended_at \
           FROM token_secrets WHERE digest = $1 \
           UNION ALL \
           SELECT digest, token_uid, 0, NULL, NULL, first_used_at, \
           subject, narrow, issued_at, expires_at, ended_at \
           FROM sessions WHERE digest = $1\
         ) s ON TRUE \
         LEFT JOIN tokens t ON t.uid = s.token_uid \
         LEFT JOIN stacks k ON k.uid = t.stack_uid"
    )
}

pub(in crate::store) fn on_postgres(origin: &str) -> String {
    by_digest(origin, "pg_current_snapshot()::text")
}

/// Returns the statement for SQLite. There is only one writer, so the snapshot has no gaps.
pub(in crate::store) fn on_sqlite(origin: &str) -> String {
    let snapshot = "(SELECT (COALESCE(MAX(id), 0) + 1) || ':' || (COALESCE(MAX(id), 0) + 1) || ':' \
                    FROM changes)";
    by_digest(origin, snapshot)
}

#[derive(FromQueryResult)]
struct Row {
    token_uid: Uuid,
    token_name: String,
    generation: i32,
    ends_at: Option<i64>,
    superseded_at: Option<i64>,
    first_used_at: Option<i64>,
    issued_at: i64,
    expires_at: Option<i64>,
    ended_at: Option<i64>,
    revoked_at: Option<i64>,
    permissions: String,
    labels: String,
    stack_uid: Uuid,
    stack_key: String,
    stack_name: String,
    organization_uid: String,
    suspended_at: Option<i64>,
    removed_at: Option<i64>,
    session_subject: Option<String>,
    session_narrow: Option<String>,
    session_issued_at: Option<i64>,
    session_expires_at: Option<i64>,
    session_ended_at: Option<i64>,
}

impl Store {
    /// Looks up the facts about the token with this secret.
    ///
    /// # Errors
    /// Returns [`Error`] if the primary cannot be read. An error is never a verdict (R13).
    pub async fn look_up(&self, digest: &Digest) -> Result<Lookup, Error> {
        let operation = self.begin_operation("look_up");
        let mut looked = self.try_look_up(digest).await;
        if self.renew_after_lost_connection(&looked).await {
            looked = self.try_look_up(digest).await;
        }
        if looked.is_ok() {
            self.renewals.answered();
        }
        operation.end(looked.as_ref().err().and_then(Error::kind));
        looked
    }

    async fn try_look_up(&self, digest: &Digest) -> Result<Lookup, Error> {
        self.require_file()?;
        let reader = self.pools.load().reader.clone();
        let values = || vec![digest.as_bytes().to_vec().into()];
        let rows = self
            .read_evidence(&reader, &self.statements.look_up, values)
            .await?;
        let row = first(&rows)?;
        let (origin, snapshot) = seen_by(row)?;
        let facts = facts_of(row)?;
        Ok(Lookup {
            facts,
            snapshot,
            origin,
        })
    }
}

/// Returns which database answered with this row, and the snapshot from which the row was read.
fn seen_by(row: &QueryResult) -> Result<(Origin, Snapshot), Error> {
    let origin = origin_of(row)?;
    let snapshot: String = row.try_get("", "snapshot")?;
    let unread = || DbErr::Type("a snapshot".to_owned());
    let snapshot = Snapshot::parse(origin.epoch, &snapshot).ok_or_else(unread)?;
    Ok((origin, snapshot))
}

fn facts_of(row: &QueryResult) -> Result<Option<Facts>, Error> {
    let known: Option<Uuid> = row.try_get("", "token_uid")?;
    match known {
        Some(_) => Ok(Some(Facts::try_from(Row::from_query_result(row, "")?)?)),
        None => Ok(None),
    }
}

/// Returns the session whose secret was looked up. Returns `None` if it is a token's own secret.
fn session_of(row: &Row) -> Result<Option<Box<SessionFacts>>, Error> {
    let wrong = |column| Error::Corrupt {
        table: "sessions",
        column,
        id: row.token_uid.to_string(),
    };
    let instant = |micros: Option<i64>, column| {
        let at = micros.and_then(Timestamp::from_micros);
        at.ok_or_else(|| wrong(column))
    };
    let Some(subject) = row.session_subject.clone() else {
        return Ok(None);
    };
    Ok(Some(Box::new(SessionFacts {
        subject,
        issued_at: instant(row.session_issued_at, "issued_at")?,
        expires_at: instant(row.session_expires_at, "expires_at")?,
        ended: row.session_ended_at.is_some(),
    })))
}

impl TryFrom<Row> for Facts {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let corrupt = |column| Error::Corrupt {
            table: "tokens",
            column,
            id: row.token_uid.to_string(),
        };
        let instant =
            |micros, column| Timestamp::from_micros(micros).ok_or_else(|| corrupt(column));
        let permissions = permissions_of(&row.permissions).ok_or_else(|| corrupt("permissions"))?;
        let permissions = match &row.session_narrow {
            None => permissions,
            Some(narrow) => {
                let narrow = permissions_of(narrow).ok_or_else(|| corrupt("narrow"))?;
                permissions.cut_by(&narrow)
            }
        };
        let session = session_of(&row)?;
        let ends_at = row.ends_at.map(|at| instant(at, "ends_at"));
        let expires_at = row.expires_at.map(|at| instant(at, "expires_at"));
        Ok(Self {
            token: TokenFacts {
                uid: TokenUid::from_untyped_uuid(row.token_uid),
                generation: u32::try_from(row.generation).map_err(|_| corrupt("generation"))?,
                superseded: row.superseded_at.is_some(),
                ends_at: ends_at.transpose()?,
                used: row.first_used_at.is_some(),
                issued_at: instant(row.issued_at, "issued_at")?,
                expires_at: expires_at.transpose()?,
                ended: row.ended_at.is_some(),
                revoked: row.revoked_at.is_some(),
                name: row.token_name,
                labels: labels_of(&row.labels).ok_or_else(|| corrupt("labels"))?,
            },
            stack: StackFacts {
                uid: StackUid::from_untyped_uuid(row.stack_uid),
                key: row.stack_key,
                organization_uid: row.organization_uid,
                name: row.stack_name,
                suspended: row.suspended_at.is_some(),
                removed: row.removed_at.is_some(),
            },
            permissions,
            session,
        })
    }
}
