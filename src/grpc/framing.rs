//! Frames messages: adds the prefix that every gRPC message has on the wire.

use prost::{Message, bytes::Bytes};

/// Size in bytes of the prefix of a gRPC message: the compressed flag and the message length.
pub const PREFIX: usize = 5;

/// Returns a buffer that contains the prefix for a message of `length` bytes and has capacity for
/// the message.
fn prefix(length: usize) -> Option<Vec<u8>> {
    let mut framed = Vec::with_capacity(PREFIX + length);
    framed.push(0);
    framed.extend(u32::try_from(length).ok()?.to_be_bytes());
    Some(framed)
}

/// Returns an encoded message with its prefix.
pub(super) fn framed_bytes(message: &[u8]) -> Option<Bytes> {
    let mut framed = prefix(message.len())?;
    framed.extend(message);
    Some(framed.into())
}

/// Returns a message with its prefix; `None` if it is larger than `max` bytes.
pub fn framed<M: Message>(message: &M, max: usize) -> Option<Bytes> {
    let length = message.encoded_len();
    if length > max {
        return None;
    }
    let mut framed = prefix(length)?;
    message.encode_raw(&mut framed);
    Some(framed.into())
}
