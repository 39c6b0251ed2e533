//! Adds a secret to a token, and ends earlier secrets. One or two secrets are valid at a time.
//! Secrets that have ended are kept, so that a caller who presents one learns why it is rejected.

use std::collections::{HashMap, HashSet};

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, EntityTrait as _, ExprTrait as _,
    QueryFilter as _, QuerySelect as _, QueryTrait as _, Set, sea_query::Expr,
};
use uuid::Uuid;

use crate::domain::{
    id::TokenUid,
    rotation::{Plan, SecretEnd},
    secret::Digest,
    stack::StackKey,
    timestamp::Timestamp,
    token::Token,
    token_secret::{TokenSecret, TokenSecrets},
};
use crate::store::{
    Error,
    engine::transaction::{Affects, Transaction},
    entity::{stack, token, token_secret},
    token::rows::{TokenWithLastUse, corrupt, token_of},
    token::state::neither_revoked_nor_ended,
};

/// The data of a secret that is stored.
pub struct NewSecret {
    /// The digest of the secret.
    pub digest: Digest,
    /// The last four characters of the secret.
    pub hint: String,
}

/// Stores a secret of a token.
pub(in crate::store) async fn insert(
    tx: &Transaction,
    (uid, generation): (TokenUid, u32),
    secret: &NewSecret,
    now: Timestamp,
) -> Result<(), Error> {
    let row = token_secret::ActiveModel {
        digest: Set(secret.digest.as_bytes().to_vec()),
        token_uid: Set(uid.into_untyped_uuid()),
        generation: Set(column(generation)),
        made_at: Set(now.as_micros()),
        until_first_use: Set(false),
        hint: Set(Some(secret.hint.clone())),
        ..<token_secret::ActiveModel as Default>::default()
    };
    let row = token_secret::Entity::insert(row).build(tx.get_database_backend());
    Ok(tx.write(row, Affects::Any).await?)
}

/// Adds a new secret to a live token.
pub(in crate::store) async fn renew(
    tx: &Transaction,
    before: Token,
    secret: &NewSecret,
    now: Timestamp,
) -> Result<Token, Error> {
    let after = before.renew(secret.hint.clone(), now);
    insert(tx, (after.uid, after.generation), secret, now).await?;
    let uid = after.uid.into_untyped_uuid();
    let columns = token::ActiveModel {
        generation: Set(column(after.generation)),
        secret_hint: Set(secret.hint.clone()),
        ..<token::ActiveModel as Default>::default()
    };
    // The stack is locked, so no other transaction can have changed the row. A row that does not
    // match is a bug.
    let update = token::Entity::update_many()
        .set(columns)
        .filter(token::Column::Uid.eq(uid))
        .filter(token::Column::Generation.eq(column(after.generation) - 1))
        .filter(neither_revoked_nor_ended())
        .build(tx.get_database_backend());
    tx.write(update, Affects::One).await?;
    Ok(after)
}

/// Returns the secrets of these tokens that have not ended permanently. For each token, also
/// returns the former secret whose end was set last.
pub(in crate::store) async fn of_each(
    tx: &Transaction,
    tokens: &[&token::Model],
) -> Result<HashMap<Uuid, TokenSecrets>, Error> {
    if tokens.is_empty() {
        return Ok(HashMap::new());
    }
    let uids = || tokens.iter().map(|token| token.uid);
    let newest: HashMap<_, _> = tokens.iter().map(|token| (token.uid, *token)).collect();
    let rows = token_secret::Entity::find()
        .filter(token_secret::Column::TokenUid.is_in(uids()))
        .filter(
            Condition::any()
                .add(token_secret::Column::SupersededAt.is_null())
                .add(is_newest_with_an_end(uids())),
        )
        .all(tx)
        .await?;
    let mut of_each: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let secrets = of_each.entry(row.token_uid).or_default();
        secrets.push(secret_of(&row, newest.get(&row.token_uid).copied())?);
    }
    let sorted = of_each.into_iter();
    Ok(sorted.map(|(uid, secrets)| (uid, secrets.into())).collect())
}

/// Converts rows to tokens of the stack with this key, and loads their secrets.
pub(in crate::store) async fn tokens_of(
    tx: &Transaction,
    rows: Vec<TokenWithLastUse>,
    key: &StackKey,
) -> Result<Vec<Token>, Error> {
    with_secrets(tx, rows, |_| Ok(key)).await
}

/// Converts rows to tokens of any stacks, and loads their secrets and stack keys.
pub(in crate::store) async fn tokens_of_any(
    tx: &Transaction,
    rows: Vec<TokenWithLastUse>,
) -> Result<Vec<Token>, Error> {
    let keys = keys_of(tx, &rows).await?;
    let no_stack = |token: &token::Model| corrupt("tokens", "stack_uid", token.uid);
    let key_of = |token: &token::Model| {
        let key = keys.get(&token.stack_uid);
        key.ok_or_else(|| no_stack(token))
    };
    with_secrets(tx, rows, key_of).await
}

async fn with_secrets<'a>(
    tx: &Transaction,
    rows: Vec<TokenWithLastUse>,
    key_of: impl Fn(&token::Model) -> Result<&'a StackKey, Error>,
) -> Result<Vec<Token>, Error> {
    let tokens: Vec<_> = rows.iter().map(|row| &row.row).collect();
    let mut secrets = of_each(tx, &tokens).await?;
    let token = |row: TokenWithLastUse| {
        let secrets = secrets.remove(&row.row.uid);
        let key = key_of(&row.row)?;
        token_of(row, secrets.unwrap_or_default(), key)
    };
    rows.into_iter().map(token).collect()
}

/// Returns the keys of the stacks to which these tokens belong.
async fn keys_of(
    tx: &Transaction,
    rows: &[TokenWithLastUse],
) -> Result<HashMap<Uuid, StackKey>, Error> {
    let uids: HashSet<_> = rows.iter().map(|row| row.row.stack_uid).collect();
    if uids.is_empty() {
        return Ok(HashMap::new());
    }
    let stacks = stack::Entity::find()
        .filter(stack::Column::Uid.is_in(uids))
        .all(tx)
        .await?;
    let key = |row: stack::Model| {
        let key = StackKey::parse(&row.key).map_err(|_| corrupt("stacks", "key", row.uid));
        Ok((row.uid, key?))
    };
    stacks.into_iter().map(key).collect()
}

/// Returns the condition that selects one secret for each of these tokens: among the secrets that
/// have an end, the one with the highest generation.
fn is_newest_with_an_end(tokens: impl Iterator<Item = Uuid>) -> Expr {
    let last = token_secret::Entity::find()
        .select_only()
        .column(token_secret::Column::TokenUid)
        .column_as(token_secret::Column::Generation.max(), "generation")
        .filter(token_secret::Column::TokenUid.is_in(tokens))
        .filter(token_secret::Column::EndsAt.is_not_null())
        .group_by(token_secret::Column::TokenUid)
        .into_query();
    let column = |column| Expr::col((token_secret::Entity, column));
    let secret = [
        token_secret::Column::TokenUid,
        token_secret::Column::Generation,
    ];
    Expr::tuple(secret.map(column)).in_subquery(last)
}

/// Carries out the plan of a rotation. Records the end of all secrets that are not kept, including
/// secrets that have ended only according to the clock. From now on their end is final for every
/// replica.
pub(in crate::store) async fn apply_plan(
    tx: &Transaction,
    mut token: Token,
    plan: &Plan,
    now: Timestamp,
) -> Result<Token, Error> {
    if let Some((generation, ending)) = plan.kept {
        set_end(tx, (token.uid, generation), ending).await?;
    }
    let mut ended = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
        .filter(token_secret::Column::TokenUid.eq(token.uid.into_untyped_uuid()))
        .filter(token_secret::Column::SupersededAt.is_null());
    if let Some((generation, _)) = plan.kept {
        ended = ended.filter(token_secret::Column::Generation.ne(column(generation)));
    }
    tx.write(ended.build(tx.get_database_backend()), Affects::Any)
        .await?;
    token.secrets.apply_plan(plan);
    Ok(token)
}

/// Ends the former secret of a live token, if the token has one in addition to the newest. Returns
/// the token, and the generation of the secret that ended.
pub(in crate::store) async fn end_former(
    tx: &Transaction,
    mut token: Token,
    now: Timestamp,
) -> Result<(Token, Option<u32>), Error> {
    let Some(generation) = token.secrets.end_overlap(now) else {
        return Ok((token, None));
    };
    let ending = SecretEnd {
        at: now,
        on_first_use: false,
    };
    set_end(tx, (token.uid, generation), ending).await?;
    let uid = token.uid.into_untyped_uuid();
    let done = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
        .filter(token_secret::Column::TokenUid.eq(uid))
        .filter(token_secret::Column::Generation.eq(column(generation)))
        .filter(token_secret::Column::SupersededAt.is_null())
        .exec(tx)
        .await?;
    match done.rows_affected {
        1 => Ok((token, Some(generation))),
        // The stack is locked, so no other transaction can have changed the row. A row that does
        // not match is a bug.
        _ => Err(corrupt("token_secrets", "superseded_at", uid)),
    }
}

/// Sets when a secret ends.
pub(in crate::store) async fn set_end(
    tx: &Transaction,
    (uid, generation): (TokenUid, u32),
    ending: SecretEnd,
) -> Result<(), Error> {
    let update = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::EndsAt, ending.at.as_micros().into())
        .col_expr(
            token_secret::Column::UntilFirstUse,
            ending.on_first_use.into(),
        )
        .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(token_secret::Column::Generation.eq(column(generation)))
        .build(tx.get_database_backend());
    Ok(tx.write(update, Affects::Any).await?)
}

/// Ends a secret that was never used. Returns whether the secret was still valid and unused. A
/// first use cannot race with this, because it too is written only while the secret is valid.
pub(in crate::store) async fn end_unused(
    tx: &Transaction,
    (uid, generation): (TokenUid, i32),
    now: Timestamp,
) -> Result<bool, Error> {
    let done = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
        .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(token_secret::Column::Generation.eq(generation))
        .filter(token_secret::Column::FirstUsedAt.is_null())
        .filter(not_ended(now))
        .exec(tx)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Returns the condition for secrets that are valid at this instant, provided that their token is
/// live.
pub(in crate::store) fn not_ended(now: Timestamp) -> Condition {
    let later = Condition::any()
        .add(token_secret::Column::EndsAt.is_null())
        .add(token_secret::Column::EndsAt.gt(now.as_micros()));
    Condition::all()
        .add(token_secret::Column::SupersededAt.is_null())
        .add(later)
}

/// Converts a generation to the type of its column.
pub(in crate::store) fn column(generation: u32) -> i32 {
    i32::try_from(generation).unwrap_or(i32::MAX)
}

/// Converts a row. An older version stored the hint of the newest secret only in the row of the
/// token.
fn secret_of(
    row: &token_secret::Model,
    token: Option<&token::Model>,
) -> Result<TokenSecret, Error> {
    let wrong = |column| move || corrupt("token_secrets", column, row.token_uid);
    let instant = |micros, column| Timestamp::from_micros(micros).ok_or_else(wrong(column));
    let optional = |micros: Option<i64>, column| micros.map(|at| instant(at, column)).transpose();
    let newest = token.filter(|token| token.generation == row.generation);
    let hint = row.hint.as_ref();
    let hint = hint.or(newest.map(|token| &token.secret_hint));
    let ending = optional(row.ends_at, "ends_at")?.map(|at| SecretEnd {
        at,
        on_first_use: row.until_first_use,
    });
    Ok(TokenSecret {
        generation: u32::try_from(row.generation)
            .ok()
            .ok_or_else(wrong("generation"))?,
        hint: hint.cloned().unwrap_or_default(),
        created_at: instant(row.made_at, "made_at")?,
        first_used_at: optional(row.first_used_at, "first_used_at")?,
        ending,
        superseded: row.superseded_at.is_some(),
    })
}
