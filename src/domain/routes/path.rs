//! Paths with only one interpretation. A path that a proxy, router or framework might decode,
//! merge, case-fold or truncate is rejected. Otherwise a request could be authorized as another one
//! than the server handles.

/// The maximum number of segments. No path of the API has as many.
const MAX_SEGMENTS: usize = 32;

/// Returns the segments of a path. Returns `None` if the path is not canonical.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<_> = path
        .strip_prefix('/')?
        .splitn(MAX_SEGMENTS + 1, '/')
        .collect();
    let fit = segments.len() <= MAX_SEGMENTS && segments.iter().all(|segment| is_plain(segment));
    fit.then_some(segments)
}

/// Returns whether a segment is not empty, does not consist only of dots, and percent-encodes only
/// bytes that must be encoded.
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

/// Returns whether a byte may be unencoded. These are the `pchar` of RFC 3986 except `;`, at which
/// some servers cut the path.
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

/// Returns whether `%` and these two digits encode a character that must be encoded, and that has
/// no special meaning once decoded. These are the space, quotation marks, brackets, `^`, the
/// backtick and `|`.
fn is_encoded_for_need(high: u8, low: u8) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return false;
    };
    let decoded = u8::try_from(high * 16 + low).unwrap_or_default();
    b" \"<>[]^`{|}".contains(&decoded)
}
