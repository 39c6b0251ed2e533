//! Queries that name what a header has to say: whoever reads both could take the other one.

/// What is only taken from a header, `_` written as `-`.
const OF_HEADERS: [&str; 6] = [
    "access-token",
    "api-key",
    "authorization",
    "authtoken",
    "branch",
    "-method",
];

/// Whether a query names a credential, a stack, a branch or a method.
#[must_use]
pub fn names_what_headers_say(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = fold(&decode(name.as_bytes()));
        // `branch[]` and `branch.x` are read as `branch` by some.
        let name = name.split(['[', '.']).next().unwrap_or_default();
        OF_HEADERS.contains(&name.trim())
    })
}

/// Lower case, `_` as `-`: as the least careful reader of names compares them.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '_' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

fn decode(mut text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((byte, after)) = text.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        let byte = if *byte == b'+' { b' ' } else { *byte };
        let (decoded, rest) = escaped.map_or((byte, after), |((high, low), after)| {
            (high * 16 + low, after)
        });
        bytes.push(decoded);
        text = rest;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}
