//! Finds what a change of a token would affect, which is the services that use the token.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use crate::domain::{
    caller::{Actor, Call, CallerKind},
    id::TokenUid,
    impact::{Impact, SERVICES_NAMED, ServiceUse},
    stack::StackKey,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store, entity::token_usage, stack::access::RemovedStacks, token::change::find,
    token::rows::corrupt,
};

impl Store {
    /// Returns which services use a token, according to the recorded uses.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn impact(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
    ) -> Result<Impact, Error> {
        use token_usage::Column;
        read_tx!(self, call, "impact", |tx| {
            let stack = self
                .load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let token = find(tx, stack.uid, uid).await?;
            let rows = token_usage::Entity::find()
                .filter(Column::TokenUid.eq(token.row.uid))
                .order_by_desc(Column::LastUsedAt)
                .order_by_asc(Column::ServiceIssuer)
                .order_by_asc(Column::ServiceSubject)
                .limit(SERVICES_NAMED)
                .all(tx)
                .await?;
            let uses: Result<_, _> = rows.into_iter().map(ServiceUse::try_from).collect();
            Ok(Impact::of(uses?, self.clock.now()))
        })
    }
}

impl TryFrom<token_usage::Model> for ServiceUse {
    type Error = Error;

    fn try_from(row: token_usage::Model) -> Result<Self, Error> {
        let wrong = || corrupt("token_usage", "last_used_at", row.token_uid);
        Ok(Self {
            last_used_at: Timestamp::from_micros(row.last_used_at).ok_or_else(wrong)?,
            // The kind is not stored, because only services may introspect.
            service: Actor {
                kind: CallerKind::Service,
                issuer: row.service_issuer,
                subject: row.service_subject,
            },
        })
    }
}
