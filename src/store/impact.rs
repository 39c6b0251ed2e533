//! What a change of a token would touch: which services use it.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::{Error, Store, entity::token_usage, rows::corrupt, standing::Standing, tokens::find};
use crate::domain::{
    caller::{Actor, Call, CallerKind},
    id::TokenUid,
    impact::{Impact, SERVICES_NAMED, ServiceUse},
    stack::StackKey,
    timestamp::Timestamp,
};

impl Store {
    /// Who uses a token, as far as it has been written down.
    ///
    /// # Errors
    /// As every method.
    pub async fn impact(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
    ) -> Result<Impact, Error> {
        use token_usage::Column;
        reading!(self, call, "impact", |tx| {
            let stack = self.standing(tx, call, key, Standing::LiveStack).await?;
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
            // Nobody else may introspect.
            service: Actor {
                kind: CallerKind::Service,
                issuer: row.service_issuer,
                subject: row.service_subject,
            },
        })
    }
}
