//! Paths with a single interpretation. A path that a proxy, router or framework might decode,
//! merge, case-fold or truncate is rejected, so that no request is judged as another one.

/// More segments than any path of the API has.
const MAX_SEGMENTS: usize = 32;

/// Returns the segments of a canonical path; `None` for any other path.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<_> = path
        .strip_prefix('/')?
        .splitn(MAX_SEGMENTS + 1, '/')
        .collect();
    let fit = segments.len() <= MAX_SEGMENTS && segments.iter().all(|segment| is_plain(segment));
    fit.then_some(segments)
}

/// Returns whether a segment is not empty, not only dots, and encodes only bytes that need it.
fn is_plain(segment: &str) -> bool {
    let only_dots = segment.bytes().all(|byte| byte == b'.');
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if is_encoded_for_need(*high, *low) => after,
            (byte, after) if stands_as_it_is(*byte) => after,
            _ => return false,
        };
    }
    !only_dots
}

/// Returns whether a byte may be unencoded: RFC 3986 `pchar` less `;`, where some servers cut.
const fn stands_as_it_is(byte: u8) -> bool {
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

/// Returns whether `%` and these digits encode a character that must be encoded and has no
/// special meaning once decoded: a space, quotes, brackets, `^` and `|`.
fn is_encoded_for_need(high: u8, low: u8) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return false;
    };
    let decoded = u8::try_from(high * 16 + low).unwrap_or_default();
    b" \"<>[]^`{|}".contains(&decoded)
}
