//! The read behind a verdict: one indexed look-up by digest, facts only. The one method
//! that does not begin with the stack, since the digest is all that its caller has.

use newtype_uuid::GenericUuid as _;
use sea_orm::{FromQueryResult, Statement};
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{
    id::{StackUid, TokenUid},
    permissions::{Draft, Permissions},
    revision::Revision,
    secret::Digest,
    timestamp::Timestamp,
    verdict::{Facts, StackFacts, TokenFacts},
};

/// What is known of a digest, and up to where the history is reflected in it.
#[derive(Debug)]
pub struct Found {
    /// The facts.
    pub facts: Facts,
    /// All changes up to here are in them.
    pub revision: Revision,
}

/// Written out rather than built: it is the one statement whose cost every request bears.
const BY_DIGEST: &str = "\
    SELECT t.uid AS token_uid, t.name AS token_name, s.generation, t.issued_at, t.expires_at, \
           t.ended_at, t.revoked_at, t.permissions, \
           k.uid AS stack_uid, k.key AS stack_key, k.name AS stack_name, k.organization_uid, \
           k.suspended_at, k.removed_at, \
           (SELECT MAX(id) FROM changes) AS position \
    FROM token_secrets s \
    JOIN tokens t ON t.uid = s.token_uid \
    JOIN stacks k ON k.uid = t.stack_uid \
    WHERE s.digest = $1";

#[derive(FromQueryResult)]
struct Row {
    token_uid: Uuid,
    token_name: String,
    generation: i32,
    issued_at: i64,
    expires_at: Option<i64>,
    ended_at: Option<i64>,
    revoked_at: Option<i64>,
    permissions: String,
    stack_uid: Uuid,
    stack_key: String,
    stack_name: String,
    organization_uid: String,
    suspended_at: Option<i64>,
    removed_at: Option<i64>,
    position: Option<i64>,
}

impl Store {
    /// The facts of the token that this secret opens; `None` where there is none.
    ///
    /// # Errors
    /// [`Error`] where the store cannot be read: that is never a verdict (R13).
    pub async fn find_by_digest(&self, digest: &Digest) -> Result<Option<Found>, Error> {
        let backend = self.reader.get_database_backend();
        let values = [digest.as_bytes().to_vec().into()];
        let statement = Statement::from_sql_and_values(backend, BY_DIGEST, values);
        let row = Row::find_by_statement(statement).one(&self.reader).await?;
        let found = |row: Row| {
            let revision = self.revision(row.position.unwrap_or_default());
            Facts::try_from(row).map(|facts| Found { facts, revision })
        };
        row.map(found).transpose()
    }
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
        let draft: Draft =
            serde_json::from_str(&row.permissions).map_err(|_| corrupt("permissions"))?;
        let permissions = Permissions::try_from(draft).map_err(|_| corrupt("permissions"))?;
        let expires_at = row.expires_at.map(|at| instant(at, "expires_at"));
        Ok(Self {
            token: TokenFacts {
                uid: TokenUid::from_untyped_uuid(row.token_uid),
                generation: u32::try_from(row.generation).map_err(|_| corrupt("generation"))?,
                // A secret is replaced only by a rotation, which this version does not have.
                superseded: false,
                issued_at: instant(row.issued_at, "issued_at")?,
                expires_at: expires_at.transpose()?,
                ended: row.ended_at.is_some(),
                revoked: row.revoked_at.is_some(),
                name: row.token_name,
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
        })
    }
}
