//! Revokes many tokens of a stack at once: either exactly the previewed tokens, or none.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set,
};
use serde::{Deserialize, Serialize};
use stacktoken_core::facts_cache::Subject;
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::{StackUid, TokenUid},
    incident::{PreviewHash, RevokeFilter},
    page,
    refusal::Refusal,
    request::Request,
    revision::Revision,
    stack::StackKey,
    text::Reason,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::{AT_ONCE, Kind},
    engine::transaction::Transaction,
    entity::token,
    last_used,
    record::{Changed, Proof},
    replay::Scope,
    stack::access::{LockedStack, RemovedStacks},
    token::filter::issued_by,
    token::rows::{TokenWithLastUse, corrupt},
    token::secrets,
    token::state::{in_state, neither_revoked_nor_ended},
};

/// The maximum number of token ids in a response, and in the result stored for a repeated call.
pub const TOKENS_LISTED: usize = 100;

/// A request to revoke many tokens of a stack at once.
#[derive(Clone, Debug)]
pub struct RevokeAll {
    /// The stack of the tokens.
    pub stack_key: StackKey,
    /// Which live tokens of the stack to revoke.
    pub filter: RevokeFilter,
    /// Why the tokens are revoked.
    pub reason: Reason,
    /// The hash of the set of tokens that the preview showed to the caller. May be omitted in a
    /// preview.
    pub previewed: Option<PreviewHash>,
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
    /// The maximum number of tokens on a page of the preview.
    pub size: u64,
    /// Where the page of the preview begins. `None` for the first page.
    pub after: Option<PreviewCursor>,
}

/// The position of the last token on a page of a preview, and the hash of the previewed tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewCursor {
    hash: String,
    uid: Uuid,
}

/// A page of a preview.
#[derive(Debug, Default)]
pub struct PreviewPage {
    /// The tokens of the page, in ascending order of their ids.
    pub tokens: Vec<Token>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<PreviewCursor>,
}

/// The tokens that were revoked, or in a preview, the tokens that would be revoked.
#[derive(Debug)]
pub struct RevokedAll {
    /// The number of tokens.
    pub count: usize,
    /// The ids of the tokens, in ascending order. If `again` is set, only the first
    /// [`TOKENS_LISTED`] of them.
    pub tokens: Vec<TokenUid>,
    /// The hash of the set of these tokens.
    pub preview: PreviewHash,
    /// A revision that includes the revocations. `None` if nothing was changed.
    pub revision: Option<Revision>,
    /// The page of a preview.
    pub page: PreviewPage,
    /// Whether an earlier call with the same request id revoked the tokens.
    pub again: bool,
}

/// The result that is stored for repetitions of the call.
#[derive(Serialize, Deserialize)]
struct Answer {
    count: usize,
    tokens: Vec<Uuid>,
    preview_hash: String,
    revision: Option<String>,
}

impl Store {
    /// Revokes all live tokens of a stack that match the filter, if they are exactly the tokens
    /// that were previewed.
    ///
    /// # Errors
    /// Returns [`Refusal::PreviewChanged`], [`Refusal::RequestIdTaken`], or another [`Error`] if
    /// the call is refused or the store fails.
    pub async fn revoke_all(&self, call: &Call, command: &RevokeAll) -> Result<RevokedAll, Error> {
        change_tx!(self, (call.mode, &command.stack_key), "revoke_all", |tx| {
            let (key, filter) = (&command.stack_key, &command.filter);
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let place = (scope(key), command.request.as_ref());
            if let Some(answer) = self.replayed(tx, call, place).await? {
                return self
                    .revoked_before(tx, call, (&stack, place.1), answer)
                    .await;
            }
            let tokens = live(tx, stack.uid, filter, stack.at).await?;
            let preview = PreviewHash::of(key, filter, &tokens);
            require_previewed(command, call, preview, tokens.len())?;
            let mut revoked = RevokedAll {
                count: tokens.len(),
                tokens,
                preview,
                revision: None,
                page: PreviewPage::default(),
                again: false,
            };
            if call.previews() {
                revoked.page = page(tx, command, (&stack, &revoked)).await?;
                return Ok(Proof::nothing_changed().with(revoked));
            }
            let (revision, proof) = self
                .revoke_these(tx, call, command, (&stack, &revoked))
                .await?;
            revoked.revision = revision;
            let answer = (&Answer::of(&revoked), stack.at);
            self.record_replay(tx, call, place, answer).await?;
            Ok(proof.with(revoked))
        })
    }

    async fn revoke_these(
        &self,
        tx: &Transaction,
        call: &Call,
        command: &RevokeAll,
        (stack, revoked): (&LockedStack, &RevokedAll),
    ) -> Result<(Option<Revision>, Proof), Error> {
        let tokens = revoked.tokens.as_slice();
        // Expired tokens are not among the revoked ones. Their end is recorded, so that they stay
        // dead on every replica, whatever its clock says (R8).
        self.end_expired(tx, stack).await?;
        let details = audit_details(command, revoked.preview, tokens.len());
        let before = load(tx, (stack, &command.stack_key), tokens).await?;
        put(tx, (stack, tokens), call, &command.reason).await?;
        let records = before.into_iter().map(|token| {
            let by = call.caller.actor.clone();
            let after = token.clone().revoke(by, command.reason.clone(), stack.at);
            let record = Record::changed(&token, &after).with(details.clone());
            (token.uid, record.asked_by(command.request.as_ref()))
        });
        let records: Vec<_> = records.collect();
        let about = (stack, records.as_slice());
        let none = Record::from(details.clone()).asked_by(command.request.as_ref());
        let both = (AuditAction::TokenRevokeAll, Kind::Revoked);
        self.record_change_of_each(tx, call, both, about, &none)
            .await
    }

    /// Returns the result of an earlier call, and records the repetition in the audit. Also evicts
    /// the cached facts about the stack from this replica, because another replica may have revoked
    /// the tokens.
    async fn revoked_before(
        &self,
        tx: &Transaction,
        call: &Call,
        (stack, request): (&LockedStack, Option<&Request>),
        answer: Answer,
    ) -> Result<Changed<RevokedAll>, Error> {
        let details = Details::from([
            ("again".into(), true.to_string()),
            ("preview_hash".into(), answer.preview_hash.clone()),
            ("count".into(), answer.count.to_string()),
        ]);
        let (about, record) = ((stack, None), Record::from(details).asked_by(request));
        let proof = self
            .record_call(tx, call, AuditAction::TokenRevokeAll, about, record)
            .await?;
        tx.touch(Subject::Stack(stack.uid));
        let wrong = |_| corrupt("replays", "answer", stack.row.uid);
        let revision = answer.revision.as_deref().map(Revision::parse).transpose();
        let uids = answer.tokens.into_iter().map(TokenUid::from_untyped_uuid);
        Ok(proof.with(RevokedAll {
            count: answer.count,
            tokens: uids.collect(),
            preview: PreviewHash::parse(&answer.preview_hash).map_err(wrong)?,
            revision: revision.map_err(wrong)?.filter(|_| !call.previews()),
            page: PreviewPage::default(),
            again: true,
        }))
    }
}

fn scope(key: &StackKey) -> Scope<'_> {
    Scope {
        stack_key: key.as_str(),
        action: AuditAction::TokenRevokeAll,
    }
}

impl Answer {
    fn of(revoked: &RevokedAll) -> Self {
        let first = revoked.tokens.iter().take(TOKENS_LISTED);
        Self {
            count: revoked.count,
            tokens: first.map(|uid| uid.into_untyped_uuid()).collect(),
            preview_hash: revoked.preview.to_string(),
            revision: revoked.revision.map(|revision| revision.to_string()),
        }
    }
}

/// Checks that the tokens are still those that the preview showed. A preview may omit the hash.
fn require_previewed(
    command: &RevokeAll,
    call: &Call,
    preview: PreviewHash,
    count: usize,
) -> Result<(), Refusal> {
    let same = match command.previewed {
        Some(previewed) => previewed == preview,
        None => call.previews(),
    };
    let after = command.after.as_ref().filter(|_| call.previews());
    if same && after.is_none_or(|after| after.hash == preview.to_string()) {
        Ok(())
    } else {
        Err(Refusal::PreviewChanged { count })
    }
}

/// Returns a page of the tokens that would be revoked.
async fn page(
    tx: &Transaction,
    command: &RevokeAll,
    (stack, revoked): (&LockedStack, &RevokedAll),
) -> Result<PreviewPage, Error> {
    let after = command.after.as_ref();
    let is_beyond = |uid: &Uuid| after.is_none_or(|after| *uid > after.uid);
    let uids = revoked.tokens.iter().map(|uid| uid.into_untyped_uuid());
    let mut uids: Vec<Uuid> = uids.filter(is_beyond).collect();
    let next = page::cut(&mut uids, command.size, |uid| PreviewCursor {
        hash: revoked.preview.to_string(),
        uid: *uid,
    });
    let uids: Vec<_> = uids.into_iter().map(TokenUid::from_untyped_uuid).collect();
    let tokens = load(tx, (stack, &command.stack_key), &uids).await?;
    Ok(PreviewPage { tokens, next })
}

/// Returns the live tokens that match a filter, sorted by id.
async fn live(
    tx: &Transaction,
    stack: StackUid,
    filter: &RevokeFilter,
    now: Timestamp,
) -> Result<Vec<TokenUid>, Error> {
    let rows: Vec<Uuid> = token::Entity::find()
        .select_only()
        .column(token::Column::Uid)
        .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
        .filter(in_state(TokenState::Active, now))
        .filter(matching(filter))
        .into_tuple()
        .all(tx)
        .await?;
    let mut tokens: Vec<_> = rows.into_iter().map(TokenUid::from_untyped_uuid).collect();
    tokens.sort_unstable();
    Ok(tokens)
}

/// Loads these tokens of a stack.
async fn load(
    tx: &Transaction,
    (stack, key): (&LockedStack, &StackKey),
    tokens: &[TokenUid],
) -> Result<Vec<Token>, Error> {
    let mut loaded = Vec::with_capacity(tokens.len());
    for some in tokens.chunks(AT_ONCE) {
        let uids = some.iter().map(|uid| uid.into_untyped_uuid());
        let rows = token::Entity::find()
            .filter(token::Column::StackUid.eq(stack.row.uid))
            .filter(token::Column::Uid.is_in(uids))
            .expr_as(last_used::last_used(), "last_used_at")
            .order_by_asc(token::Column::Uid)
            .into_model::<TokenWithLastUse>()
            .all(tx)
            .await?;
        loaded.extend(secrets::tokens_of(tx, rows, key).await?);
    }
    Ok(loaded)
}

fn matching(filter: &RevokeFilter) -> Condition {
    match filter {
        RevokeFilter::All => Condition::all(),
        RevokeFilter::Those {
            issued_by: by,
            unused_since,
        } => Condition::all()
            .add_option(by.as_ref().map(issued_by))
            .add_option(unused_since.map(last_used::unused_since)),
    }
}

/// Writes the revocations. The statement itself checks that the tokens are neither revoked nor
/// ended.
async fn put(
    tx: &Transaction,
    (stack, tokens): (&LockedStack, &[TokenUid]),
    call: &Call,
    reason: &Reason,
) -> Result<(), Error> {
    let by = &call.caller.actor;
    for some in tokens.chunks(AT_ONCE) {
        let columns = token::ActiveModel {
            revoked_at: Set(Some(stack.at.as_micros())),
            revoked_by_kind: Set(Some(by.kind.name().to_owned())),
            revoked_by_issuer: Set(Some(by.issuer.clone())),
            revoked_by_subject: Set(Some(by.subject.clone())),
            revoke_reason: Set(reason.as_str().to_owned()),
            ..<token::ActiveModel as Default>::default()
        };
        let uids = some.iter().map(|uid| uid.into_untyped_uuid());
        let done = token::Entity::update_many()
            .set(columns)
            .filter(token::Column::Uid.is_in(uids))
            .filter(neither_revoked_nor_ended())
            .exec(tx)
            .await?;
        if done.rows_affected != some.len() as u64 {
            // The stack is locked, so no other transaction can have changed a row. A row that does
            // not match is a bug.
            return Err(corrupt("tokens", "revoked_at", stack.row.uid));
        }
    }
    Ok(())
}

fn audit_details(command: &RevokeAll, preview: PreviewHash, count: usize) -> Details {
    let mut details = command.filter.audit_details();
    details.insert("reason".into(), command.reason.as_str().into());
    details.insert("preview_hash".into(), preview.to_string());
    details.insert("count".into(), count.to_string());
    details
}
