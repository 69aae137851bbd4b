//! Frames of HTTP/2 by hand, right and wrong ones.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// How a client begins, with these settings.
pub fn greeting(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// A number of HPACK behind the bits that its first byte begins with.
pub fn hpack_number(first: u8, bits: u32, mut value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut out = vec![first | most as u8];
    value -= most;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn hpack_text(text: &[u8]) -> Vec<u8> {
    [&hpack_number(0, 7, text.len()), text].concat()
}

/// A header that no table keeps.
pub fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &hpack_text(name), &hpack_text(value)].concat()
}

/// A header that the table keeps, first in it.
pub fn kept_header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40][..], &hpack_text(name), &hpack_text(value)].concat()
}

/// The headers of a call.
pub fn call_headers(path: &str) -> Vec<u8> {
    [
        // ":method: POST" and ":scheme: http" stand in the static table.
        vec![0x83, 0x86],
        header(b":path", path.as_bytes()),
        header(b":authority", b"quoin"),
        header(b"content-type", b"application/grpc"),
        header(b"te", b"trailers"),
    ]
    .concat()
}

/// A whole call.
pub fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, &call_headers(path)),
        frame(DATA, END_STREAM, stream, message),
    ]
    .concat()
}
