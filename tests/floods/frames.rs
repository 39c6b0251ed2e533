//! Builds HTTP/2 frames by hand (RFC 9113), because no library sends what these tests send.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const ACK: u8 = 0x1;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

pub fn settings() -> Vec<u8> {
    frame(0x4, 0, 0, &[])
}

pub fn settings_ack() -> Vec<u8> {
    frame(0x4, ACK, 0, &[])
}

pub fn ping() -> Vec<u8> {
    frame(0x6, 0, 0, &[7; 8])
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0x0, 0, stream, payload)
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(0x3, 0, stream, &8u32.to_be_bytes())
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(0x8, 0, stream, &by.to_be_bytes())
}

pub fn continuation(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0x9, 0, stream, payload)
}

pub fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(0x1, flags, stream, &head())
}

/// Returns the headers of a call to this path. The message is sent separately.
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    frame(0x1, END_HEADERS, stream, &head_to(path))
}

/// Returns the headers of a call with a credential.
pub fn call_as(stream: u32, path: &str, jwt: &str) -> Vec<u8> {
    let authorization = literal(0x00, "authorization", &format!("Bearer {jwt}"));
    let head = [head_to(path), authorization].concat();
    frame(0x1, END_HEADERS, stream, &head)
}

/// Returns SETTINGS that leave the server no flow-control window on any stream.
pub fn settings_without_window() -> Vec<u8> {
    frame(0x4, 0, 0, &[0, 4, 0, 0, 0, 0])
}

/// Returns a complete gRPC message that ends its call.
pub fn message(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    payload.extend(bytes);
    frame(0x0, END_STREAM, stream, &payload)
}

/// Returns a header block that uses only plain literals, without index or Huffman code (RFC 7541
/// §6.2.2).
pub fn head() -> Vec<u8> {
    head_to("/stacktoken.v1.IntrospectionService/Introspect")
}

fn head_to(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "flood"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields
        .iter()
        .flat_map(|(name, value)| literal(0x00, name, value))
        .collect()
}

/// Returns a literal field. `how` is 0x40 to add the field to the dynamic table, otherwise 0x00.
pub fn literal(how: u8, name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![how];
    for text in [name, value] {
        out.extend(length(text.len()));
        out.extend(text.as_bytes());
    }
    out
}

/// Encodes an integer with a 7-bit prefix (RFC 7541 §5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut out = vec![127];
    value -= 127;
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap());
    out
}
