//! The history of changes: one row for everything that can alter a verdict (R12).

use sea_orm::{ActiveValue::NotSet, DatabaseTransaction, EntityTrait as _, Set};

use super::{Error, Store, entity::change};
use crate::domain::{
    id::{StackUid, TokenUid},
    revision::Revision,
    timestamp::Timestamp,
};
use newtype_uuid::GenericUuid as _;

/// What happened, for people who read the table; readers of the history act on the ids alone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Issued,
    Updated,
    Redated,
    Expired,
    Revoked,
    Registered,
    MembersChanged,
    LimitChanged,
    Suspended,
    Resumed,
    Removed,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Redated => "redated",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Registered => "registered",
            Self::MembersChanged => "members_changed",
            Self::LimitChanged => "limit_changed",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Removed => "removed",
        }
    }
}

impl Store {
    /// Appends to the history; the answer is the point that includes this change.
    pub(super) async fn append_change(
        &self,
        tx: &DatabaseTransaction,
        (stack, token): (StackUid, Option<TokenUid>),
        kind: Kind,
        now: Timestamp,
    ) -> Result<Revision, Error> {
        let row = change::ActiveModel {
            id: NotSet,
            stack_uid: Set(stack.into_untyped_uuid()),
            token_uid: Set(token.map(TokenUid::into_untyped_uuid)),
            kind: Set(kind.name().to_owned()),
            changed_at: Set(now.as_micros()),
        };
        let inserted = change::Entity::insert(row).exec(tx).await?;
        Ok(self.revision(inserted.last_insert_id))
    }

    /// The point of the history after so many changes.
    pub(super) fn revision(&self, position: i64) -> Revision {
        Revision {
            epoch: self.epoch.get().copied().unwrap_or_default(),
            position,
        }
    }
}
