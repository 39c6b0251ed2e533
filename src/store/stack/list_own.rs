//! Lists the stacks of which the caller is a member. Pages stay stable while stacks are registered
//! and removed.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, FromQueryResult, JoinType, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, RelationDef, Select,
    sea_query::{ExprTrait as _, SimpleExpr},
};

use crate::domain::{
    caller::{Actor, Call},
    page,
    stack::{OwnStack, Role, StackKey},
    text::StackName,
};
use crate::store::{
    Error, Store,
    entity::{member, stack},
    stack::stacks::StackCursor,
    token::rows::{corrupt, stack_state},
};

/// A page of the caller's stacks, newest first.
#[derive(Debug)]
pub struct OwnStackPage {
    /// The stacks of the page.
    pub stacks: Vec<OwnStack>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<StackCursor>,
}

/// The row of a stack, and the caller's role in it.
#[derive(FromQueryResult)]
struct OwnRow {
    #[sea_orm(nested)]
    row: stack::Model,
    role: String,
}

impl TryFrom<OwnRow> for OwnStack {
    type Error = Error;

    fn try_from(OwnRow { row, role }: OwnRow) -> Result<Self, Error> {
        let wrong = |column| corrupt("stacks", column, row.uid);
        let no_role = || corrupt("stack_members", "role", row.uid);
        Ok(Self {
            key: StackKey::parse(&row.key).map_err(|_| wrong("key"))?,
            name: StackName::parse(&row.name).map_err(|_| wrong("name"))?,
            state: stack_state(&row)?,
            role: Role::from_name(&role).ok_or_else(no_role)?,
            organization_uid: row.organization_uid,
        })
    }
}

impl Store {
    /// Returns a page of the stacks of which the caller is a member. Removed stacks are left out.
    ///
    /// # Errors
    /// Returns [`Error`] if the store fails.
    pub async fn list_own_stacks(
        &self,
        call: &Call,
        (size, after): (u64, Option<StackCursor>),
    ) -> Result<OwnStackPage, Error> {
        read_tx!(self, call, "list_own_stacks", |tx| {
            let mut query = stacks_of(&call.caller.actor);
            if let Some(cursor) = after {
                query = query.filter(cursor.beyond());
            }
            let mut rows: Vec<OwnRow> = query
                .order_by_desc(stack::Column::RegisteredAt)
                .order_by_desc(stack::Column::Uid)
                .limit(size + 1)
                .into_model()
                .all(tx)
                .await?;
            let next = page::cut(&mut rows, size, |own| StackCursor::of(&own.row));
            let stacks: Result<_, _> = rows.into_iter().map(OwnStack::try_from).collect();
            Ok(OwnStackPage {
                stacks: stacks?,
                next,
            })
        })
    }
}

/// Returns the query for the stacks of which this caller is a member, with the caller's role.
fn stacks_of(actor: &Actor) -> Select<stack::Entity> {
    let of_stack: RelationDef = stack::Entity::belongs_to(member::Entity)
        .from(stack::Column::Uid)
        .to(member::Column::StackUid)
        .into();
    let is_caller: SimpleExpr = member::Column::Issuer
        .eq(actor.issuer.as_str())
        .and(member::Column::Subject.eq(actor.subject.as_str()));
    stack::Entity::find()
        .join(JoinType::InnerJoin, of_stack)
        .column(member::Column::Role)
        .filter(is_caller)
        .filter(stack::Column::RemovedAt.is_null())
}
