//! The entry points for fuzzing: whatever the bytes, decoding ends and stays within its bounds.
#![forbid(unsafe_code)]

use super::election::{self, ElectionRequest};
use super::frames::Frames;
use super::json::{Splitter, put_text, schema::PATHS, schema::Path, to_message};
use super::pb::Fields;
use super::{Method, decode, gzip, hash, http, maintenance, member, message, timeout, watch};
use crate::api::{Header, Request, RequestOp, TxnRequest, WatchRequest};

/// How long a message may be.
const MESSAGE_MAX: usize = 1 << 20;

/// Takes `bytes` for what comes on a stream, for the path of a call, for a compressed message and
/// for a header, and what stands behind a byte that chooses the call for a message.
///
/// # Panics
/// If a decoded request holds bytes from elsewhere, or more operations than the message can hold.
pub fn fuzz_message(bytes: &[u8]) {
    let mut rest = bytes;
    // A stream of leases or watches: message behind message.
    while let Ok(message::Parsed::Message {
        message, consumed, ..
    }) = message::parse(rest, MESSAGE_MAX)
    {
        assert_eq!(message.len() + message::PREFIX_BYTES, consumed);
        for method in Method::ALL {
            if method.is_stream() {
                decode_any(method, message);
            }
        }
        rest = &rest[consumed..];
    }
    if let Ok(message) = gzip::unpack(bytes, 1 << 16) {
        assert!(message.len() <= 1 << 16);
    }
    let _ = (timeout::of_call(bytes), timeout::of_gateway(bytes));
    let _ = Method::from_path(&String::from_utf8_lossy(bytes));
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    decode_any(Method::ALL[usize::from(*choice) % Method::ALL.len()], body);
}

/// Gives a message to the reader that the server gives it to.
fn decode_any(method: Method, body: &[u8]) {
    let (header, mut out) = (Header::default(), Vec::new());
    match method {
        Method::Watch => {
            if let Ok(Some(WatchRequest::Create(create))) = watch::decode_watch(body) {
                inside(body, &[create.key, create.range_end]);
            }
        }
        method if election::is_election(method) => match election::decode_election(method, body) {
            Ok(Some(request)) => election_inside(body, &request),
            Ok(None) => panic!("{method:?} is not read"),
            Err(_) => {}
        },
        Method::Hash | Method::HashKv => {
            let _ = hash::decode_revision(body);
        }
        Method::MoveLeader => {
            let _ = maintenance::encode_move_leader(body, 1, true, &mut out);
        }
        Method::Downgrade => {
            let _ = maintenance::encode_downgrade(body, &header, &mut out);
        }
        Method::HealthCheck => {
            let _ = member::encode_health(body, true, &mut out);
        }
        Method::HealthWatch => {
            let _ = member::Health::of(body, true);
        }
        // What the others of the members, of alarms and of users are asked is not read.
        method => {
            if let Ok(Some(decoded)) = decode(method, body) {
                match &decoded.request {
                    Request::Range(range) => inside(body, &[range.key, range.range_end]),
                    Request::Put(put) => inside(body, &[put.key, put.value]),
                    Request::DeleteRange(delete) => inside(body, &[delete.key, delete.range_end]),
                    // Each takes a tag and a length at least.
                    Request::Txn(txn) => assert!(ops(txn) * 2 <= body.len()),
                    _ => {}
                }
            }
        }
    }
    // What is answered is small, whatever was asked.
    assert!(out.len() < 64, "{} bytes", out.len());
}

fn election_inside(body: &[u8], request: &ElectionRequest<'_>) {
    match request {
        ElectionRequest::Lock { name, .. }
        | ElectionRequest::Leader { name }
        | ElectionRequest::Observe { name } => inside(body, &[name]),
        ElectionRequest::Unlock { key } => inside(body, &[key]),
        ElectionRequest::Campaign { name, value, .. } => inside(body, &[name, value]),
        ElectionRequest::Proclaim { leader, value } => {
            inside(body, &[leader.name, leader.key, value]);
        }
        ElectionRequest::Resign { leader } => inside(body, &[leader.name, leader.key]),
    }
}

/// Takes `bytes` for a request to the JSON gateway, from its path to its message, and for the body
/// of a call, behind a byte that chooses the call and one that says in what pieces it comes.
///
/// # Panics
/// If what is made of a text is no message or changes on the way back, or the pieces of a body
/// make a difference.
pub fn fuzz_json(bytes: &[u8]) {
    let [choice, size, body @ ..] = bytes else {
        return;
    };
    if let Some((path, text)) = body
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|at| (&body[..at], &body[at + 1..]))
    {
        let path = String::from_utf8_lossy(path);
        if let Some(shorter) = http::shorter(&path) {
            assert!(http::shorter(&shorter).is_none(), "{path}");
        }
        if let http::Route::Call(found) = http::route("POST", &path) {
            through_the_gateway(found, text);
        }
    }
    let path = &PATHS[usize::from(*choice) % PATHS.len()];
    let whole = split(body, body.len().max(1));
    assert_eq!(split(body, usize::from(*size).max(1)), whole);
    for text in whole.iter().map(Vec::as_slice).chain([body]) {
        through_the_gateway(path, text);
    }
    // As if it were the answer, whose fields are read the other way.
    let _ = http::answer(path, body);
}

fn through_the_gateway(path: &Path, text: &[u8]) {
    let (_, method, fields, _) = path;
    let Ok(message) = http::message(path, text, MESSAGE_MAX) else {
        return;
    };
    let mut read = Fields::of(&message);
    while read.field().expect("what is written can be read").is_some() {}
    decode_any(*method, &message);
    // Written as text again, in the order of the table, it stays what it is.
    let again = |message: &[u8]| {
        let mut text = String::new();
        put_text(&mut text, fields, message).expect("what is written can be read");
        to_message(fields, text.as_bytes()).expect("what is written can be read")
    };
    let message = again(&message);
    assert_eq!(again(&message), message);
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
