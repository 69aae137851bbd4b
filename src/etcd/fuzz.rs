//! The entry point for fuzzing: whatever the bytes, decoding ends and stays within its bounds.
#![forbid(unsafe_code)]

use super::{Method, decode, member, message, watch};
use crate::api::{Request, RequestOp, TxnRequest, WatchRequest};

/// Takes `bytes` for what comes on a stream, and what stands behind a byte that chooses the call
/// for a message.
///
/// # Panics
/// If a decoded request holds bytes from elsewhere, or more operations than the message can hold.
pub fn fuzz_message(bytes: &[u8]) {
    if let Ok(message::Parsed::Message { message, consumed }) = message::parse(bytes, 1 << 20) {
        assert_eq!(message.len() + message::PREFIX_BYTES, consumed);
    }
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
