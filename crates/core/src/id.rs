//! Ids: UUIDv7, made of our clock and our randomness, one type per thing.

use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind, TypedUuidTag};

use crate::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
    timestamp::Timestamp,
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $tag:literal, $uid:ident;)+) => {$(
        /// Marks the ids of one kind of thing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind {}

        impl TypedUuidKind for $kind {
            fn tag() -> TypedUuidTag {
                const TAG: TypedUuidTag = TypedUuidTag::new($tag);
                TAG
            }
        }

        $(#[$doc])*
        pub type $uid = TypedUuid<$kind>;
    )+};
}

kinds! {
    /// Which token.
    TokenKind, "token", TokenUid;
    /// Which stack.
    StackKind, "stack", StackUid;
    /// Which row of the audit.
    EventKind, "event", EventUid;
}

/// A new id of the kind asked for.
///
/// # Errors
/// [`EntropyFailed`] where there is no randomness to be had.
pub fn generate<K: TypedUuidKind>(
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<TypedUuid<K>, EntropyFailed> {
    let mut random = [0; 10];
    entropy.fill(&mut random)?;
    let uuid = uuid::Builder::from_unix_timestamp_millis(now.millis(), &random).into_uuid();
    Ok(TypedUuid::from_untyped_uuid(uuid))
}

/// The id in a text of 36 characters, as our answers write it.
///
/// # Errors
/// A problem for any other text.
pub fn parse<K: TypedUuidKind>(text: &str) -> Result<TypedUuid<K>, Problem> {
    if text.is_empty() {
        return Err(Problem::new(
            "is required: the id, a UUID, as Issue or List answered it",
        ));
    }
    match uuid::Uuid::try_parse(text) {
        Ok(uuid) if text.len() == 36 => Ok(TypedUuid::from_untyped_uuid(uuid)),
        _ => Err(Problem::new(
            "is not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx: copy it from Issue or List",
        )),
    }
}
