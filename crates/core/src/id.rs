//! Ids. They are UUIDv7 values, built from the process's clock and its source of randomness. Each
//! kind of object has its own id type.

use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind, TypedUuidTag};

use crate::{
    entropy::{Entropy, EntropyFailed},
    field::Problem,
    timestamp::Timestamp,
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $tag:literal, $uid:ident;)+) => {$(
        /// Distinguishes the ids of this kind of object from other ids at compile time.
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
    /// The id of a token.
    TokenKind, "token", TokenUid;
    /// The id of a stack.
    StackKind, "stack", StackUid;
    /// The id of an audit row.
    EventKind, "event", EventUid;
}

/// Generates a new id.
///
/// # Errors
/// Returns [`EntropyFailed`] if the source of randomness fails.
pub fn generate<K: TypedUuidKind>(
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<TypedUuid<K>, EntropyFailed> {
    let mut random = [0; 10];
    entropy.fill(&mut random)?;
    let uuid = uuid::Builder::from_unix_timestamp_millis(now.millis(), &random).into_uuid();
    Ok(TypedUuid::from_untyped_uuid(uuid))
}

/// Parses an id in the hyphenated UUID form (36 characters), as in responses.
///
/// # Errors
/// Returns a problem for any other text.
pub fn parse<K: TypedUuidKind>(text: &str) -> Result<TypedUuid<K>, Problem> {
    if text.is_empty() {
        return Err(Problem::new(
            "is required: a UUID from a response of Issue or List",
        ));
    }
    match uuid::Uuid::try_parse(text) {
        Ok(uuid) if text.len() == 36 => Ok(TypedUuid::from_untyped_uuid(uuid)),
        _ => Err(Problem::new(
            "is not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx: copy it from Issue or List",
        )),
    }
}
