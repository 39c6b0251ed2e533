//! Paths that everybody reads alike. Whatever a proxy, a router or a framework might decode,
//! merge, fold or cut is not taken: better a request denied than one judged as another.

/// More segments than any path of the API has.
const MAX_SEGMENTS: usize = 32;

/// The segments of a path that has one spelling only.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<_> = path
        .strip_prefix('/')?
        .splitn(MAX_SEGMENTS + 1, '/')
        .collect();
    let fit = segments.len() <= MAX_SEGMENTS && segments.iter().all(|segment| is_plain(segment));
    fit.then_some(segments)
}

/// Not empty, not made of dots, and every byte as it is or encoded for need.
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

/// What a segment may hold unencoded (RFC 3986 `pchar`), less `;`, which some servers cut at.
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

/// Whether `%` and these digits stand for a character that has to be encoded, and that means
/// nothing to whoever decodes it: a space, quotes, brackets, `^` and `|`.
fn is_encoded_for_need(high: u8, low: u8) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return false;
    };
    let decoded = u8::try_from(high * 16 + low).unwrap_or_default();
    b" \"<>[]^`{|}".contains(&decoded)
}
