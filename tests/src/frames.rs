//! Frames of HTTP/2 (RFC 9113 §4) and fields of HPACK (RFC 7541), byte by byte: for clients that do what no library does.

/// Kinds of frames (RFC 9113 §6), their flags, and codes of errors (§7).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const UNKNOWN: u8 = 0x42;
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const WHOLE: u8 = END_STREAM | END_HEADERS;
pub const CANCEL: u32 = 8;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Any frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HEADERS with this block of fields.
pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

/// RST_STREAM: the request is given up.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// WINDOW_UPDATE.
pub fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
pub fn window(bytes: u32) -> Vec<u8> {
    [&4_u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat()
}

/// The `at`-th so many streams that a client opens.
pub fn streams(at: u32, count: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (at * count..(at + 1) * count).flat_map(|number| each(2 * number + 1)).collect()
}

/// Fields in HPACK (RFC 7541): the static table has these, and the newest of the dynamic one.
pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;
pub const NEWEST: u8 = 0x80 | 62;

/// The fields of a GET of `/`; of a POST, and of any method, to a path.
pub fn get() -> Vec<u8> {
    path(GET, "/")
}

pub fn post(to: &str) -> Vec<u8> {
    path(POST, to)
}

pub fn path(method: u8, to: &str) -> Vec<u8> {
    [&[method, 0x86, 0x04, to.len() as u8], to.as_bytes(), b"\x01\x08web.test"].concat()
}

/// A field that is not to be remembered, and one that is: with a value of so many bytes.
pub fn field(name: &str, bytes: usize) -> Vec<u8> {
    literal(0x00, name, bytes)
}

pub fn indexed(name: &str, bytes: usize) -> Vec<u8> {
    literal(0x40, name, bytes)
}

fn literal(kind: u8, name: &str, bytes: usize) -> Vec<u8> {
    let mut field = vec![kind, name.len() as u8];
    field.extend(name.as_bytes());
    // RFC 7541 §5.1, with a prefix of 7 bits.
    field.push(127);
    let mut rest = bytes - 127;
    while rest >= 128 {
        field.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    field.push(rest as u8);
    field.resize(field.len() + bytes.min(100_000), b'x');
    field
}
