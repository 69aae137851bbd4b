//! The encoders write what rkyv writes, and the decoders read back what was meant.

use proptest::prelude::*;
use rkyv::rancor::Error;

use super::samples::{HEADER, any_header, any_request, any_response, requests, responses};
use super::{alarms, leases};
use crate::api::{self, KvSink, RangeSummary, Request, RequestOp, Response};
use crate::wire::archive::{
    Compact, Compare, DeleteRange, DeleteRangeReply, DeleteRangeResult, Header, Kv, Op, Put,
    PutReply, PutResult, Range, RangeReply, RangeResult, Txn, TxnReply, TxnResult,
};
use crate::wire::{
    Decoded, Frame, FrameDecoder, Kind, RangeEncoder, RangeScratch, Reply, decode_reply,
    decode_request, encode_body, encode_put_reply, encode_request, encode_response, request_kind,
};

macro_rules! to_bytes {
    ($value:expr) => {
        rkyv::to_bytes::<Error>(&$value).expect("small").to_vec()
    };
}

/// The body as rkyv makes it.
fn rkyv_request(request: &Request<'_>) -> Vec<u8> {
    match request {
        Request::Range(range) => rkyv_op(&RequestOp::Range(range.clone())).body,
        Request::Put(put) => rkyv_op(&RequestOp::Put(put.clone())).body,
        Request::DeleteRange(delete) => rkyv_op(&RequestOp::DeleteRange(delete.clone())).body,
        Request::Txn(txn) => rkyv_op(&RequestOp::Txn(txn.clone())).body,
        Request::Compact(compact) => {
            to_bytes!(Compact {
                revision: compact.revision,
                options: u8::from(compact.physical)
            })
        }
        Request::Alarm(request) => alarms::rkyv_request(request),
        other => leases::rkyv_request(other),
    }
}

fn rkyv_op(op: &RequestOp<'_>) -> Op {
    let bits = |bits: [bool; 3]| {
        bits.into_iter()
            .enumerate()
            .map(|(at, set)| u8::from(set) << at)
            .sum::<u8>()
    };
    let (kind, body) = match op {
        RequestOp::Range(range) => {
            let body = to_bytes!(Range {
                key: range.key.to_vec(),
                range_end: range.range_end.to_vec(),
                limit: range.limit,
                revision: range.revision,
                min_mod_revision: range.min_mod_revision,
                max_mod_revision: range.max_mod_revision,
                min_create_revision: range.min_create_revision,
                max_create_revision: range.max_create_revision,
                sort_order: range.sort_order as u8,
                sort_target: range.sort_target as u8,
                options: bits([range.serializable, range.keys_only, range.count_only]),
            });
            (Kind::Range, body)
        }
        RequestOp::Put(put) => {
            let body = to_bytes!(Put {
                key: put.key.to_vec(),
                value: put.value.to_vec(),
                lease: put.lease,
                options: bits([put.prev_kv, put.ignore_value, put.ignore_lease]),
            });
            (Kind::Put, body)
        }
        RequestOp::DeleteRange(delete) => {
            let body = to_bytes!(DeleteRange {
                key: delete.key.to_vec(),
                range_end: delete.range_end.to_vec(),
                options: u8::from(delete.prev_kv),
            });
            (Kind::DeleteRange, body)
        }
        RequestOp::Txn(txn) => {
            let body = to_bytes!(Txn {
                compare: txn.compare.iter().map(rkyv_compare).collect(),
                success: txn.success.iter().map(rkyv_op).collect(),
                failure: txn.failure.iter().map(rkyv_op).collect(),
            });
            (Kind::Txn, body)
        }
    };
    Op {
        body,
        kind: kind.number(),
    }
}

fn rkyv_compare(compare: &api::Compare<'_>) -> Compare {
    let (target, operand, value) = match compare.target {
        api::CompareTarget::Version(operand) => (0, operand, vec![]),
        api::CompareTarget::Create(operand) => (1, operand, vec![]),
        api::CompareTarget::Mod(operand) => (2, operand, vec![]),
        api::CompareTarget::Value(value) => (3, 0, value.to_vec()),
        api::CompareTarget::Lease(operand) => (4, operand, vec![]),
    };
    Compare {
        key: compare.key.to_vec(),
        range_end: compare.range_end.to_vec(),
        value,
        operand,
        target,
        result: compare.result as u8,
    }
}

fn rkyv_kvs(kvs: &[api::OwnedKeyValue]) -> Vec<Kv> {
    kvs.iter()
        .map(|kv| Kv {
            key: kv.key.clone(),
            value: kv.value.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        })
        .collect()
}

fn rkyv_header(header: &api::Header) -> Header {
    Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    }
}

fn range_result(range: &api::RangeResponse) -> RangeResult {
    RangeResult {
        kvs: rkyv_kvs(&range.kvs),
        count: range.count,
        more: u8::from(range.more),
    }
}

fn put_result(put: &api::PutResponse) -> PutResult {
    PutResult {
        prev_kvs: rkyv_kvs(put.prev_kv.as_slice()),
    }
}

fn delete_result(delete: &api::DeleteRangeResponse) -> DeleteRangeResult {
    DeleteRangeResult {
        prev_kvs: rkyv_kvs(&delete.prev_kvs),
        deleted: delete.deleted,
    }
}

fn txn_result(txn: &api::TxnResponse) -> TxnResult {
    let responses = txn.responses.iter().map(|response| {
        let (kind, body) = match response {
            Response::Range(range) => (Kind::RangeReply, to_bytes!(range_result(range))),
            Response::Put(put) => (Kind::PutReply, to_bytes!(put_result(put))),
            Response::DeleteRange(delete) => {
                (Kind::DeleteRangeReply, to_bytes!(delete_result(delete)))
            }
            Response::Txn(txn) => (Kind::TxnReply, to_bytes!(txn_result(txn))),
            _ => unreachable!("no answer inside a transaction"),
        };
        Op {
            body,
            kind: kind.number(),
        }
    });
    TxnResult {
        responses: responses.collect(),
        succeeded: u8::from(txn.succeeded),
    }
}

/// The body as rkyv makes it.
fn rkyv_response(header: &api::Header, response: &Response) -> Vec<u8> {
    let header = rkyv_header(header);
    match response {
        Response::Range(range) => to_bytes!(RangeReply {
            header,
            result: range_result(range)
        }),
        Response::Put(put) => to_bytes!(PutReply {
            header,
            result: put_result(put)
        }),
        Response::DeleteRange(delete) => {
            to_bytes!(DeleteRangeReply {
                header,
                result: delete_result(delete)
            })
        }
        Response::Txn(txn) => to_bytes!(TxnReply {
            header,
            result: txn_result(txn)
        }),
        Response::Compact => to_bytes!(header),
        Response::Alarm(response) => alarms::rkyv_response(header, response),
        other => leases::rkyv_response(header, other),
    }
}

fn only_frame<'a>(decoder: FrameDecoder, bytes: &'a [u8]) -> Frame<'a> {
    match decoder.decode(bytes).expect("well formed") {
        Decoded::Frame { frame, consumed } => {
            assert_eq!(consumed, bytes.len());
            frame
        }
        Decoded::NeedMore { .. } => panic!("the frame is complete"),
    }
}

fn check_request(request: &Request<'_>) {
    let mut out = b"before".to_vec();
    encode_request(request, 99, &mut out).expect("small");
    let frame = only_frame(FrameDecoder::requests(1 << 20), &out[6..]);
    assert_eq!(frame.kind, request_kind(request));
    assert_eq!(frame.id, 99);
    assert_eq!(frame.body, rkyv_request(request));
    assert_eq!(decode_request(frame.kind, frame.body).as_ref(), Ok(request));
    let mut body = Vec::new();
    assert_eq!(encode_body(request, &mut body), Ok(frame.kind));
    assert_eq!(body, frame.body);
}

fn check_response(header: &api::Header, response: &Response) {
    let mut out = b"before".to_vec();
    encode_response(header, response, 99, &mut out).expect("small");
    let frame = only_frame(FrameDecoder::replies(1 << 20), &out[6..]);
    assert_eq!(frame.id, 99);
    assert_eq!(frame.body, rkyv_response(header, response));
    let (header_read, reply) = decode_reply(&frame).expect("well formed");
    assert_eq!(header_read, *header);
    assert_eq!(reply.to_response().as_ref(), Some(response));
    if let Response::Range(range) = response {
        let mut streamed = b"before".to_vec();
        let mut scratch = RangeScratch::default();
        let mut encoder = RangeEncoder::new(&mut streamed, &mut scratch, 99, 1 << 20);
        for kv in &range.kvs {
            encoder.push(kv.borrow());
        }
        let summary = RangeSummary {
            more: range.more,
            count: range.count,
        };
        encoder.finish(header, summary).expect("small");
        assert_eq!(streamed, out);
        // The same in two parts, aside.
        for before in [&b""[..], b"before"] {
            let mut joined = before.to_vec();
            let (first, rest) = range.kvs.split_at(range.kvs.len() / 2);
            let mut encoder = RangeEncoder::new(&mut joined, &mut scratch, 99, 1 << 20);
            first.iter().for_each(|kv| encoder.push(kv.borrow()));
            let mut draft = encoder.put_aside();
            assert_eq!(joined, before);
            let mut encoder = draft.go_on();
            rest.iter().for_each(|kv| encoder.push(kv.borrow()));
            encoder.pause();
            draft.finish(header, summary, &mut joined).expect("small");
            assert_eq!(joined[before.len()..], out[6..]);
        }
    }
    if *response == Response::Put(api::PutResponse::default()) {
        let mut fast = b"before".to_vec();
        encode_put_reply(header, 99, &mut fast);
        assert_eq!(fast, out);
    }
}

#[test]
fn samples_are_written_as_rkyv_writes_them() {
    requests().iter().for_each(check_request);
    responses()
        .iter()
        .for_each(|response| check_response(&HEADER, response));
}

#[test]
fn an_unfinished_or_overlong_range_leaves_nothing() {
    let mut out = b"before".to_vec();
    let mut scratch = RangeScratch::default();
    let kv = api::KeyValue {
        key: b"key",
        value: &[7; 100],
        ..api::KeyValue::default()
    };
    drop({
        let mut encoder = RangeEncoder::new(&mut out, &mut scratch, 1, 1000);
        encoder.push(kv);
        encoder
    });
    assert_eq!(out, b"before");

    let mut encoder = RangeEncoder::new(&mut out, &mut scratch, 1, 49 + 48 + 103);
    encoder.push(kv);
    assert_eq!(encoder.body_bytes(), 49 + 48 + 103);
    encoder
        .finish(&HEADER, RangeSummary::default())
        .expect("exactly the limit");
    out.truncate(6);

    let mut encoder = RangeEncoder::new(&mut out, &mut scratch, 1, 49 + 48 + 102);
    encoder.push(kv);
    assert!(encoder.full());
    encoder.push(api::KeyValue::default());
    assert!(encoder.finish(&HEADER, RangeSummary::default()).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn a_range_of_another_kind_is_not_read() {
    let mut out = Vec::new();
    encode_response(&HEADER, &Response::Compact, 5, &mut out).expect("small");
    let frame = only_frame(FrameDecoder::replies(1 << 20), &out);
    assert!(matches!(decode_reply(&frame), Ok((HEADER, Reply::Compact))));
    let frame = Frame {
        kind: Kind::RangeReply,
        ..frame
    };
    assert!(decode_reply(&frame).is_err());
}

proptest! {
    #[test]
    fn random_requests_come_back(request in any_request()) {
        check_request(&request.borrow());
    }

    #[test]
    fn random_responses_come_back(header in any_header(), response in any_response()) {
        check_response(&header, &response);
    }
}
