//! The entry points for fuzzing: whatever the bytes, decoding ends and stays within its bounds.
#![forbid(unsafe_code)]

use super::frames::Frames;
use super::json::{Splitter, schema::PATHS, to_message};
use super::pb::Fields;
use super::{Method, decode, gzip, http, member, message, timeout, watch};
use crate::api::{Request, RequestOp, TxnRequest, WatchRequest};

/// Takes `bytes` for what comes on a stream, for a compressed message and for a header, and what
/// stands behind a byte that chooses the call for a message.
///
/// # Panics
/// If a decoded request holds bytes from elsewhere, or more operations than the message can hold.
pub fn fuzz_message(bytes: &[u8]) {
    if let Ok(message::Parsed::Message {
        message, consumed, ..
    }) = message::parse(bytes, 1 << 20)
    {
        assert_eq!(message.len() + message::PREFIX_BYTES, consumed);
    }
    if let Ok(message) = gzip::unpack(bytes, 1 << 16) {
        assert!(message.len() <= 1 << 16);
    }
    let _ = (timeout::of_call(bytes), timeout::of_gateway(bytes));
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let method = Method::ALL[usize::from(*choice) % Method::ALL.len()];
    let _ = member::encode_health(body, true, &mut Vec::new());
    if let Ok(Some(WatchRequest::Create(create))) = watch::decode_watch(body) {
        inside(body, &[create.key, create.range_end]);
    }
    let Ok(Some(decoded)) = decode(method, body) else {
        return;
    };
    match &decoded.request {
        Request::Range(range) => inside(body, &[range.key, range.range_end]),
        Request::Put(put) => inside(body, &[put.key, put.value]),
        Request::DeleteRange(delete) => inside(body, &[delete.key, delete.range_end]),
        // Each takes a tag and a length at least.
        Request::Txn(txn) => assert!(ops(txn) * 2 <= body.len()),
        _ => {}
    }
}

/// Takes `bytes` for the body of a call through the JSON gateway, behind a byte that chooses the
/// call and one that says in what pieces it comes.
///
/// # Panics
/// If what is made of a text is no message, or the pieces of a body make a difference.
pub fn fuzz_json(bytes: &[u8]) {
    let [choice, size, body @ ..] = bytes else {
        return;
    };
    let path = &PATHS[usize::from(*choice) % PATHS.len()];
    let (_, method, fields, _) = path;
    let whole = split(body, body.len().max(1));
    assert_eq!(split(body, usize::from(*size).max(1)), whole);
    for text in whole.iter().map(Vec::as_slice).chain([body]) {
        let Ok(message) = to_message(fields, text) else {
            continue;
        };
        let mut read = Fields::of(&message);
        while read.field().expect("what is written can be read").is_some() {}
        let _ = decode(*method, &message);
    }
    // As if it were the answer, whose fields are read the other way.
    let _ = http::answer(path, body);
}

fn split(body: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::default();
    let mut messages = Vec::new();
    for piece in body.chunks(size) {
        splitter.push(piece);
        while let Some(message) = splitter.next_message() {
            messages.push(message);
        }
    }
    messages.push(splitter.take_rest());
    let kept: usize = messages.iter().map(Vec::len).sum();
    assert!(kept <= body.len());
    messages
}

/// Takes `bytes` for what comes on a connection of HTTP/2, behind a byte that says in what pieces.
///
/// # Panics
/// If something is lost or grows, if the pieces make a difference, or if what was mended is not
/// well.
pub fn fuzz_frames(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let whole = pass(stream, stream.len().max(1));
    assert_eq!(whole.len(), stream.len());
    assert_eq!(pass(stream, usize::from(*size).max(1)), whole);
    assert_eq!(pass(&whole, usize::from(*size).max(1)), whole);
}

/// What goes by of a stream that comes in pieces; what must be whole and is not comes at the end.
fn pass(stream: &[u8], size: usize) -> Vec<u8> {
    let mut frames = Frames::default();
    let (mut out, mut held) = (Vec::new(), Vec::new());
    for piece in stream.chunks(size) {
        held.extend_from_slice(piece);
        loop {
            // A turn.
            let mut allowed = 3;
            let count = frames.pass(&mut held, &mut allowed);
            assert!(count <= held.len());
            out.extend(held.drain(..count));
            if allowed > 0 {
                break;
            }
        }
        assert!(
            held.len() <= (16 << 10) + 9,
            "{} bytes are held",
            held.len()
        );
    }
    out.extend(held);
    out
}

fn inside(body: &[u8], parts: &[&[u8]]) {
    let home = body.as_ptr_range();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let part = part.as_ptr_range();
        assert!(home.start <= part.start && part.end <= home.end);
    }
}

fn ops(txn: &TxnRequest<'_>) -> usize {
    let nested = txn.success.iter().chain(&txn.failure).map(|op| match op {
        RequestOp::Txn(txn) => 1 + ops(txn),
        _ => 1,
    });
    txn.compare.len() + nested.sum::<usize>()
}
