//! Accepts only URL paths that every server interprets in the same way. A path that a proxy or a
//! router might decode, merge, case-fold or truncate is rejected. Otherwise, the request that is
//! served could differ from the one that was authorized.

/// The maximum number of segments. No path of the API comes close to this number.
const MAX_SEGMENTS: usize = 32;

/// Text that some servers and file systems trim from the ends of a segment: dots and spaces. Some
/// servers decode `+` as a space.
const TRIMMED: [&[u8]; 3] = [b".", b"%20", b"+"];

/// Returns the segments of a path. Returns `None` if the path is not canonical.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<_> = path
        .strip_prefix('/')?
        .splitn(MAX_SEGMENTS + 1, '/')
        .collect();
    let fit = segments.len() <= MAX_SEGMENTS && segments.iter().all(|segment| is_plain(segment));
    fit.then_some(segments)
}

/// Returns whether a segment is not empty, neither starts nor ends with text that servers trim, and
/// percent-encodes only bytes that must be encoded. `%25` is not accepted, because a server that
/// decodes twice would decode the resulting `%` again.
fn is_plain(segment: &str) -> bool {
    let is_trimmed = TRIMMED.iter().any(|trimmed| {
        let text = segment.as_bytes();
        text.starts_with(trimmed) || text.ends_with(trimmed)
    });
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if is_encoded_for_need(*high, *low) => after,
            (byte, after) if is_unreserved(*byte) => after,
            _ => return false,
        };
    }
    !segment.is_empty() && !is_trimmed
}

/// Returns whether a byte may occur unencoded. These bytes are the `pchar` of RFC 3986 except `;`,
/// at which some servers truncate the path.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

/// Returns whether `%` and these two digits encode a character that must be encoded and has no
/// special meaning when it is decoded.
fn is_encoded_for_need(high: u8, low: u8) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return false;
    };
    let decoded = u8::try_from(high * 16 + low).unwrap_or_default();
    b" \"<>[]^`{|}".contains(&decoded)
}
