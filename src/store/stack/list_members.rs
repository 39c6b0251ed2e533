//! Lists the members of a stack. Pages stay stable while members are added and removed.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{ExprTrait as _, SimpleExpr},
};
use serde::{Deserialize, Serialize};

use crate::domain::{
    caller::Call,
    page,
    stack::{Member, StackKey},
};
use crate::store::{
    Error, Store,
    entity::member::{Column, Entity, Model},
};

/// The position of the last member on a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCursor {
    added_at: i64,
    issuer: String,
    subject: String,
}

/// A page of the members of a stack, in the order in which they were added.
#[derive(Debug)]
pub struct MemberPage {
    /// The members of the page.
    pub members: Vec<Member>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<MemberCursor>,
}

impl MemberCursor {
    fn of(row: &Model) -> Self {
        Self {
            added_at: row.added_at,
            issuer: row.issuer.clone(),
            subject: row.subject.clone(),
        }
    }

    /// Returns the condition for members that come after this position.
    fn beyond(&self) -> SimpleExpr {
        let same_issuer = Column::Issuer
            .eq(self.issuer.as_str())
            .and(Column::Subject.gt(self.subject.as_str()));
        let same_instant = Column::AddedAt
            .eq(self.added_at)
            .and(Column::Issuer.gt(self.issuer.as_str()).or(same_issuer));
        Column::AddedAt.gt(self.added_at).or(same_instant)
    }
}

impl Store {
    /// Returns a page of the members of the stack, including the owner.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn list_members(
        &self,
        call: &Call,
        key: &StackKey,
        (size, after): (u64, Option<&MemberCursor>),
    ) -> Result<MemberPage, Error> {
        read_tx!(self, call, "list_members", |tx| {
            let stack = self.load_stack_to_show(tx, call, key).await?;
            let mut query = Entity::find().filter(Column::StackUid.eq(stack.row.uid));
            if let Some(cursor) = after {
                query = query.filter(cursor.beyond());
            }
            let mut rows = query
                .order_by_asc(Column::AddedAt)
                .order_by_asc(Column::Issuer)
                .order_by_asc(Column::Subject)
                .limit(size + 1)
                .all(tx)
                .await?;
            let next = page::cut(&mut rows, size, MemberCursor::of);
            let members: Result<_, _> = rows.into_iter().map(Member::try_from).collect();
            Ok(MemberPage {
                members: members?,
                next,
            })
        })
    }
}
