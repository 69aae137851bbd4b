//! The codec against another one: messages as the prost crate reads and writes them.

mod messages;

use super::*;
use crate::api::{self, CompareResult, CompareTarget, Error, KvSink, Request, RequestOp};
use messages as pb;
use proptest::prelude::*;
use prost::Message as _;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..5)
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(-1), 1i64..200, any::<i64>()]
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let numbers = prop::collection::vec(number(), 6);
    let bits = prop::collection::vec(any::<bool>(), 3);
    (bytes(), bytes(), numbers, bits, 0..3i32, 0..5i32).prop_map(
        |(key, range_end, numbers, bits, sort_order, sort_target)| pb::RangeRequest {
            key,
            range_end,
            limit: numbers[0],
            revision: numbers[1],
            sort_order,
            sort_target,
            serializable: bits[0],
            keys_only: bits[1],
            count_only: bits[2],
            min_mod_revision: numbers[2],
            max_mod_revision: numbers[3],
            min_create_revision: numbers[4],
            max_create_revision: numbers[5],
        },
    )
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (
        bytes(),
        bytes(),
        number(),
        prop::collection::vec(any::<bool>(), 3),
    )
        .prop_map(|(key, value, lease, bits)| pb::PutRequest {
            key,
            value,
            lease,
            prev_kv: bits[0],
            ignore_value: bits[1],
            ignore_lease: bits[2],
        })
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (bytes(), bytes(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let operand = prop_oneof![
        number().prop_map(pb::TargetUnion::Version),
        number().prop_map(pb::TargetUnion::CreateRevision),
        number().prop_map(pb::TargetUnion::ModRevision),
        bytes().prop_map(pb::TargetUnion::Value),
        number().prop_map(pb::TargetUnion::Lease),
    ];
    (
        0..4i32,
        0..5i32,
        bytes(),
        prop::option::of(operand),
        bytes(),
    )
        .prop_map(
            |(result, target, key, target_union, range_end)| pb::Compare {
                result,
                target,
                key,
                target_union,
                range_end,
            },
        )
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let ops = |op: BoxedStrategy<pb::RequestOp>| {
        (
            prop::collection::vec(compare(), 0..3),
            prop::collection::vec(op.clone(), 0..3),
            prop::collection::vec(op, 0..3),
        )
            .prop_map(|(compare, success, failure)| pb::TxnRequest {
                compare,
                success,
                failure,
            })
    };
    let leaf = prop_oneof![
        range().prop_map(pb::Op::Range),
        put().prop_map(pb::Op::Put),
        delete().prop_map(pb::Op::DeleteRange),
    ]
    .prop_map(|op| pb::RequestOp { request: Some(op) })
    .boxed();
    ops(leaf.clone()).prop_flat_map(move |inner| {
        let nested = pb::RequestOp {
            request: Some(pb::Op::Txn(inner)),
        };
        ops(prop_oneof![leaf.clone(), Just(nested)].boxed())
    })
}

/// The request as the other codec understood it.
fn same(request: &Request<'_>, expected: &pb::Op) {
    match (request, expected) {
        (Request::Range(range), pb::Op::Range(expected)) => same_range(range, expected),
        (Request::Put(put), pb::Op::Put(expected)) => same_put(put, expected),
        (Request::DeleteRange(delete), pb::Op::DeleteRange(expected)) => {
            assert_eq!(
                (delete.key, delete.range_end),
                (&expected.key[..], &expected.range_end[..])
            );
            assert_eq!(delete.prev_kv, expected.prev_kv);
        }
        (Request::Txn(txn), pb::Op::Txn(expected)) => same_txn(txn, expected),
        other => panic!("{other:?}"),
    }
}

fn same_range(range: &api::RangeRequest<'_>, expected: &pb::RangeRequest) {
    assert_eq!(
        (range.key, range.range_end),
        (&expected.key[..], &expected.range_end[..])
    );
    assert_eq!(
        (range.limit, range.revision),
        (expected.limit, expected.revision)
    );
    assert_eq!(range.sort_order as i32, expected.sort_order);
    assert_eq!(range.sort_target as i32, expected.sort_target);
    assert_eq!(
        (range.serializable, range.keys_only, range.count_only),
        (
            expected.serializable,
            expected.keys_only,
            expected.count_only
        )
    );
    assert_eq!(
        (range.min_mod_revision, range.max_mod_revision),
        (expected.min_mod_revision, expected.max_mod_revision)
    );
    assert_eq!(
        (range.min_create_revision, range.max_create_revision),
        (expected.min_create_revision, expected.max_create_revision)
    );
}

fn same_put(put: &api::PutRequest<'_>, expected: &pb::PutRequest) {
    assert_eq!(
        (put.key, put.value),
        (&expected.key[..], &expected.value[..])
    );
    assert_eq!(
        (put.lease, put.prev_kv, put.ignore_value, put.ignore_lease),
        (
            expected.lease,
            expected.prev_kv,
            expected.ignore_value,
            expected.ignore_lease
        )
    );
}

fn same_txn(txn: &api::TxnRequest<'_>, expected: &pb::TxnRequest) {
    assert_eq!(txn.compare.len(), expected.compare.len());
    for (compare, expected) in txn.compare.iter().zip(&expected.compare) {
        assert_eq!(
            (compare.key, compare.range_end),
            (&expected.key[..], &expected.range_end[..])
        );
        assert_eq!(
            compare.result,
            [
                CompareResult::Equal,
                CompareResult::Greater,
                CompareResult::Less,
                CompareResult::NotEqual
            ][expected.result as usize]
        );
        let union = expected.target_union.as_ref();
        let operand = match (expected.target, union) {
            (0, Some(pb::TargetUnion::Version(n)))
            | (1, Some(pb::TargetUnion::CreateRevision(n)))
            | (2, Some(pb::TargetUnion::ModRevision(n)))
            | (4, Some(pb::TargetUnion::Lease(n))) => *n,
            _ => 0,
        };
        let value = match union {
            Some(pb::TargetUnion::Value(value)) => &value[..],
            _ => b"",
        };
        assert_eq!(
            compare.target,
            [
                CompareTarget::Version(operand),
                CompareTarget::Create(operand),
                CompareTarget::Mod(operand),
                CompareTarget::Value(value),
                CompareTarget::Lease(operand)
            ][expected.target as usize]
        );
    }
    for (ops, expected) in [
        (&txn.success, &expected.success),
        (&txn.failure, &expected.failure),
    ] {
        assert_eq!(ops.len(), expected.len());
        for (op, expected) in ops.iter().zip(expected) {
            let request = match op.clone() {
                RequestOp::Range(range) => Request::Range(range),
                RequestOp::Put(put) => Request::Put(put),
                RequestOp::DeleteRange(delete) => Request::DeleteRange(delete),
                RequestOp::Txn(txn) => Request::Txn(txn),
            };
            same(&request, expected.request.as_ref().unwrap());
        }
    }
}

fn check(method: Method, message: &[u8], expected: pb::Op) {
    let decoded = decode(method, message).unwrap().unwrap();
    assert_eq!(decoded.flaw, None);
    same(&decoded.request, &expected);
}

proptest! {
    #[test]
    fn requests_are_read_as_others_write_them(
        range in range(), put in put(), delete in delete(), txn in txn(), unknown in bytes(),
    ) {
        check(Method::Range, &range.encode_to_vec(), pb::Op::Range(range));
        check(Method::Put, &put.encode_to_vec(), pb::Op::Put(put));
        check(Method::DeleteRange, &delete.encode_to_vec(), pb::Op::DeleteRange(delete.clone()));
        // Two messages in a row are one that is merged; unknown fields do not matter.
        let mut merged = put_of_key(b"other").encode_to_vec();
        super::pb::put_bytes(&mut merged, 77, &unknown);
        super::pb::put_bytes(&mut merged, 1, b"key");
        let expected = pb::PutRequest { key: b"key".to_vec(), ..put_of_key(b"") };
        check(Method::Put, &merged, pb::Op::Put(expected));
        check(Method::Txn, &txn.encode_to_vec(), pb::Op::Txn(txn));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        txn in txn(), at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        fuzz::fuzz_message(&bytes);
        let mut broken = vec![3];
        txn.encode(&mut broken).unwrap();
        let at = at.index(broken.len());
        broken[at] ^= flip;
        fuzz::fuzz_message(&broken);
    }
}

/// Texts that look like bodies, broken in a place.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "null",
        "true",
        "1",
        "-9e99",
        "\"7\"",
        "\"key\"",
        "\"Zm9v\"",
        "\"range_end\"",
        "\"compare\"",
        "\"success\"",
        "\"requestPut\"",
        "\"create_request\"",
        "\"startRevision\"",
        "\"filters\"",
        "\"NOPUT\"",
        "\"sort_order\"",
        "{\"key\":\"Zm9v\"}",
        "\u{e9}",
        "\u{0}",
    ]);
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat().into_bytes())
}

/// Frames that look like a client's, broken in a place.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let block = prop::sample::select(vec![
        &b"\x83\x86\x41\x08http://x"[..],
        b"\x41\x84\x9d\x29\xae\x30",
        b"\x40\x01a\x01b\x41\x01/",
        b"\x3f\xe1\x1f\x01\x02::\x11\x00",
        b"\x05\x41\x02//\0\0\0\0\0",
        b"",
    ]);
    let frame = (0u8..10, any::<u8>(), block).prop_map(|(kind, flags, payload)| {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    });
    prop::collection::vec(frame, 0..12).prop_map(|frames| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        [preface, frames.concat()].concat()
    })
}

proptest! {
    #[test]
    fn arbitrary_bodies_and_frames_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), body in body(), mut stream in stream(),
        choice in any::<u8>(), size in any::<u8>(), at in any::<prop::sample::Index>(), flip in any::<u8>(),
    ) {
        fuzz::fuzz_json(&bytes);
        fuzz::fuzz_json(&[&[choice, size][..], &body].concat());
        fuzz::fuzz_frames(&bytes);
        let at = at.index(stream.len());
        stream[at] ^= flip;
        fuzz::fuzz_frames(&[&[size][..], &stream].concat());
    }
}

fn put_of_key(key: &[u8]) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_vec(),
        ..pb::PutRequest::default()
    }
}

#[test]
fn what_api_has_no_words_for_is_a_flaw() {
    let mut range = pb::RangeRequest {
        key: b"k".to_vec(),
        sort_order: 3,
        ..pb::RangeRequest::default()
    };
    let flaw = |method, message: Vec<u8>| decode(method, &message).unwrap().unwrap().flaw;
    let invalid = Some(Error::InvalidSortOption);
    assert_eq!(flaw(Method::Range, range.encode_to_vec()), invalid);
    range.sort_order = 0;
    range.sort_target = -1;
    assert_eq!(flaw(Method::Range, range.encode_to_vec()), invalid);
    let empty = pb::TxnRequest {
        success: vec![pb::RequestOp { request: None }],
        ..pb::TxnRequest::default()
    };
    assert_eq!(
        flaw(Method::Txn, empty.encode_to_vec()),
        Some(Error::KeyNotFound)
    );
    let odd = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: 4,
            ..pb::Compare::default()
        }],
        ..pb::TxnRequest::default()
    };
    assert!(matches!(
        decode(Method::Txn, &odd.encode_to_vec()),
        Err(Refused::Status("etcdserver: invalid compare result"))
    ));
}

#[test]
fn depth_and_number_of_operations_are_bounded() {
    let mut deep = pb::TxnRequest::default();
    for _ in 0..128 {
        deep = pb::TxnRequest {
            success: vec![pb::RequestOp {
                request: Some(pb::Op::Txn(deep)),
            }],
            ..pb::TxnRequest::default()
        };
    }
    assert_eq!(
        decode(Method::Txn, &deep.encode_to_vec()),
        Err(Refused::Api(Error::TooManyOps))
    );
    // An empty compare takes two bytes.
    let many = [0x0a, 0].repeat((1 << 16) + 1);
    assert_eq!(
        decode(Method::Txn, &many),
        Err(Refused::Api(Error::TooManyOps))
    );
    assert!(decode(Method::Txn, &many[2..]).is_ok());
}

const HEADER: api::Header = api::Header {
    cluster_id: u64::MAX,
    member_id: 2,
    revision: 9,
    raft_term: 4,
};

fn kv(key: &[u8], revision: i64) -> api::OwnedKeyValue {
    api::OwnedKeyValue {
        key: key.to_vec(),
        create_revision: revision,
        mod_revision: revision + 1,
        version: 300,
        value: vec![7; 200],
        lease: -1,
    }
}

/// The message behind its prefix.
fn unframed(out: &[u8]) -> &[u8] {
    match message::parse(out, usize::MAX).unwrap() {
        message::Parsed::Message {
            message, consumed, ..
        } => {
            assert_eq!(consumed, out.len());
            message
        }
        other => panic!("{other:?}"),
    }
}

fn same_header(header: Option<pb::ResponseHeader>) {
    let header = header.unwrap();
    assert_eq!(
        (
            header.cluster_id,
            header.member_id,
            header.revision,
            header.raft_term
        ),
        (
            HEADER.cluster_id,
            HEADER.member_id,
            HEADER.revision,
            HEADER.raft_term
        )
    );
}

fn same_kv(read: &pb::KeyValue, kv: &api::OwnedKeyValue) {
    assert_eq!((&read.key, &read.value), (&kv.key, &kv.value));
    assert_eq!(
        [
            read.create_revision,
            read.mod_revision,
            read.version,
            read.lease
        ],
        [kv.create_revision, kv.mod_revision, kv.version, kv.lease]
    );
}

#[test]
fn a_range_is_written_as_others_read_it() {
    let mut out = b"before".to_vec();
    let pairs = [kv(b"a", 1), kv(b"", 0), kv(b"c", i64::MAX - 1)];
    let mut encoder = RangeEncoder::new(&mut out, &HEADER, 1 << 20);
    for kv in &pairs {
        encoder.push(kv.borrow());
    }
    let summary = api::RangeSummary {
        more: true,
        count: 12,
    };
    encoder.finish(summary).unwrap();
    let read = pb::RangeResponse::decode(unframed(&out[6..])).unwrap();
    same_header(read.header);
    assert_eq!((read.more, read.count), (true, 12));
    assert_eq!(read.kvs.len(), 3);
    for (read, kv) in read.kvs.iter().zip(&pairs) {
        same_kv(read, kv);
    }
}

#[test]
fn a_range_that_grows_too_long_leaves_nothing_behind() {
    let mut out = b"before".to_vec();
    let mut encoder = RangeEncoder::new(&mut out, &HEADER, 700);
    let kv = kv(b"a", 1);
    encoder.push(kv.borrow());
    assert!(!encoder.full());
    encoder.push(kv.borrow());
    encoder.push(kv.borrow());
    assert!(encoder.full());
    assert_eq!(encoder.finish(api::RangeSummary::default()), Err(TooLong));
    assert_eq!(out, b"before");
    drop(RangeEncoder::new(&mut out, &HEADER, 700));
    assert_eq!(out, b"before");
}

fn encoded(response: &api::Response) -> Vec<u8> {
    let mut out = Vec::new();
    encode_response(&HEADER, response, &mut out);
    unframed(&out).to_vec()
}

#[test]
fn answers_are_written_as_others_read_them() {
    let mut out = Vec::new();
    encode_put_response(&HEADER, &mut out);
    let read = pb::PutResponse::decode(unframed(&out)).unwrap();
    same_header(read.header);
    assert_eq!(read.prev_kv, None);

    let put = api::Response::Put(api::PutResponse {
        prev_kv: Some(kv(b"k", 3)),
    });
    let read = pb::PutResponse::decode(&encoded(&put)[..]).unwrap();
    same_header(read.header);
    same_kv(&read.prev_kv.unwrap(), &kv(b"k", 3));

    let delete = api::Response::DeleteRange(api::DeleteRangeResponse {
        deleted: 2,
        prev_kvs: vec![kv(b"k", 3), kv(b"l", 4)],
    });
    let read = pb::DeleteRangeResponse::decode(&encoded(&delete)[..]).unwrap();
    same_header(read.header);
    assert_eq!((read.deleted, read.prev_kvs.len()), (2, 2));

    let read = pb::CompactionResponse::decode(&encoded(&api::Response::Compact)[..]).unwrap();
    same_header(read.header);
}

#[test]
fn answers_inside_a_transaction_say_at_which_revision_they_ran() {
    let range = api::Response::Range(api::RangeResponse {
        kvs: vec![kv(b"k", 3)],
        more: false,
        count: 1,
    });
    let none = api::Response::DeleteRange(api::DeleteRangeResponse::default());
    let put = api::Response::Put(api::PutResponse::default());
    let txn = api::Response::Txn(api::TxnResponse {
        succeeded: true,
        responses: vec![
            range.clone(),
            none,
            api::Response::Txn(api::TxnResponse {
                succeeded: false,
                responses: vec![range.clone(), put],
            }),
            range.clone(),
        ],
    });
    let read = pb::TxnResponse::decode(&encoded(&txn)[..]).unwrap();
    same_header(read.header);
    assert!(read.succeeded);
    let mut revisions = Vec::new();
    revisions_of(&read, &mut revisions);
    assert_eq!(revisions, [8, 8, 0, 8, 9, 9]);
    let alone = api::Response::Txn(api::TxnResponse {
        succeeded: true,
        responses: vec![range],
    });
    let read = pb::TxnResponse::decode(&encoded(&alone)[..]).unwrap();
    let mut revisions = Vec::new();
    revisions_of(&read, &mut revisions);
    assert_eq!(revisions, [9]);
}

#[test]
fn leases_are_asked_for_and_answered_by_the_numbers_of_etcd() {
    let request = |method, message| decode(method, message).unwrap().unwrap().request;
    assert_eq!(
        request(Method::LeaseGrant, &[8, 60, 16, 7]),
        Request::LeaseGrant(api::LeaseGrantRequest { ttl: 60, id: 7 })
    );
    assert_eq!(
        request(Method::LeaseRevoke, &[8, 7]),
        Request::LeaseRevoke(api::LeaseRevokeRequest { id: 7 })
    );
    assert_eq!(
        request(Method::LeaseKeepAlive, &[8, 7]),
        Request::LeaseKeepAlive(api::LeaseKeepAliveRequest { id: 7 })
    );
    let asked = api::LeaseTimeToLiveRequest {
        id: 7,
        keys: true,
        ..api::LeaseTimeToLiveRequest::default()
    };
    assert_eq!(
        request(Method::LeaseTimeToLive, &[8, 7, 16, 1]),
        Request::LeaseTimeToLive(asked)
    );
    assert_eq!(request(Method::LeaseLeases, &[]), Request::Leases);
    let alarm = |action, member_id, alarm| {
        Request::Alarm(api::AlarmRequest {
            action,
            member_id,
            alarm,
        })
    };
    let (get, activate) = (api::AlarmAction::Get, api::AlarmAction::Activate);
    let (deactivate, space) = (api::AlarmAction::Deactivate, api::AlarmKind::NoSpace);
    assert_eq!(request(Method::Alarm, &[]), alarm(get, 0, None));
    let raise = alarm(activate, 7, Some(space));
    assert_eq!(request(Method::Alarm, &[8, 1, 16, 7, 24, 1]), raise);
    let disarm = alarm(deactivate, 7, Some(api::AlarmKind::Corrupt));
    assert_eq!(request(Method::Alarm, &[8, 2, 16, 7, 24, 2]), disarm);
    let nothing = alarm(deactivate, 7, None);
    assert_eq!(request(Method::Alarm, &[8, 9, 16, 7, 24, 1]), nothing);

    let mut head = vec![0x0a, 17, 8];
    super::pb::put_varint(&mut head, u64::MAX);
    head.extend_from_slice(&[16, 2, 24, 9, 32, 4]);
    let behind = |response| encoded(&response)[head.len()..].to_vec();
    let granted = api::Response::LeaseGrant(api::LeaseGrantResponse { id: 7, ttl: 60 });
    assert!(encoded(&granted).starts_with(&head));
    assert_eq!(behind(granted), [16, 7, 24, 60]);
    assert!(behind(api::Response::LeaseRevoke).is_empty());
    let left = api::Response::LeaseTimeToLive(api::LeaseTimeToLiveResponse {
        id: 7,
        ttl: 59,
        granted_ttl: 60,
        keys: vec![b"a".to_vec(), Vec::new()],
        more: false,
    });
    assert_eq!(behind(left), [16, 7, 24, 59, 32, 60, 42, 1, b'a', 42, 0]);
    let alarms = vec![api::Alarm {
        kind: api::AlarmKind::NoSpace,
        member_id: 5,
    }];
    let alarms = api::Response::Alarm(api::AlarmResponse { alarms });
    assert_eq!(behind(alarms), [18, 4, 8, 5, 16, 1]);
    let all = api::Response::Leases(api::LeasesResponse { ids: vec![1, 2] });
    assert_eq!(behind(all), [18, 2, 8, 1, 18, 2, 8, 2]);
}

/// The revisions in the headers, in order.
fn revisions_of(txn: &pb::TxnResponse, into: &mut Vec<i64>) {
    for op in &txn.responses {
        let header = match op.response.as_ref().unwrap() {
            pb::ResponseKind::Range(range) => range.header,
            pb::ResponseKind::Put(put) => put.header,
            pb::ResponseKind::DeleteRange(delete) => delete.header,
            pb::ResponseKind::Txn(txn) => txn.header,
        };
        let header = header.unwrap();
        assert_eq!(
            (header.cluster_id, header.member_id, header.raft_term),
            (0, 0, 0)
        );
        into.push(header.revision);
        if let Some(pb::ResponseKind::Txn(txn)) = &op.response {
            revisions_of(txn, into);
        }
    }
}
