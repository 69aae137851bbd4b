//! The golden vectors of docs/PROTOCOL.md, held to the encoders and decoders.

use std::collections::BTreeMap;

use super::samples::HEADER;
use super::watches;
use crate::api::{
    Alarm, AlarmAction, AlarmKind, AlarmRequest, AlarmResponse, CompactRequest, Compare,
    CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Error,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse,
    OwnedKeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, Request, RequestOp,
    Response, SortOrder, SortTarget, TxnRequest, TxnResponse,
};
use crate::wire::{
    self, Decoded, FrameDecoder, HelloStatus, Malformed, ServerHello, encode_request,
    encode_response, encode_watch,
};

const LEASE: i64 = 0x0102_0304_0506_0708;

/// The page's fenced blocks whose info string is `golden NAME`: hex bytes, `#` starts a comment.
fn page() -> BTreeMap<String, Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTOCOL.md");
    let page = std::fs::read_to_string(path).expect("the page exists");
    let mut vectors = BTreeMap::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                open = info
                    .strip_prefix("golden ")
                    .map(|name| (name.to_owned(), Vec::new()));
            }
            (Some(_), Some(_)) => {
                let (name, bytes) = open.take().expect("a block is open");
                assert!(vectors.insert(name, bytes).is_none(), "each name once");
            }
            (Some((_, bytes)), None) => {
                let hex = line.split('#').next().unwrap_or_default();
                for byte in hex.split_whitespace() {
                    bytes.push(u8::from_str_radix(byte, 16).expect("two hex digits"));
                }
            }
            (None, None) => {}
        }
    }
    vectors
}

fn put() -> PutRequest<'static> {
    PutRequest {
        key: b"foo",
        value: b"bar",
        ..PutRequest::default()
    }
}

fn range() -> RangeRequest<'static> {
    RangeRequest {
        key: b"a",
        range_end: b"z",
        limit: 10,
        revision: 3,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        serializable: true,
        min_mod_revision: 2,
        ..RangeRequest::default()
    }
}

fn txn() -> TxnRequest<'static> {
    TxnRequest {
        compare: vec![
            Compare {
                key: b"foo",
                range_end: b"",
                result: CompareResult::Equal,
                target: CompareTarget::Value(b"bar"),
            },
            Compare {
                key: b"x",
                range_end: b"\0",
                result: CompareResult::Less,
                target: CompareTarget::Mod(9),
            },
        ],
        success: vec![RequestOp::Put(put())],
        failure: vec![RequestOp::Txn(TxnRequest {
            compare: vec![],
            success: vec![RequestOp::DeleteRange(DeleteRangeRequest {
                key: b"foo",
                ..DeleteRangeRequest::default()
            })],
            failure: vec![],
        })],
    }
}

fn kv() -> OwnedKeyValue {
    OwnedKeyValue {
        key: b"foo".to_vec(),
        create_revision: 2,
        mod_revision: 5,
        version: 3,
        value: b"bar".to_vec(),
        lease: 0,
    }
}

fn requests() -> Vec<(&'static str, u64, Request<'static>)> {
    vec![
        ("put", 1, Request::Put(put())),
        ("range", 2, Request::Range(range())),
        (
            "delete-range",
            3,
            Request::DeleteRange(DeleteRangeRequest {
                key: b"a",
                range_end: b"b",
                prev_kv: true,
            }),
        ),
        ("txn", 4, Request::Txn(txn())),
        (
            "compact",
            5,
            Request::Compact(CompactRequest {
                revision: 4,
                physical: true,
            }),
        ),
        (
            "lease-grant",
            8,
            Request::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 0 }),
        ),
        (
            "lease-revoke",
            9,
            Request::LeaseRevoke(LeaseRevokeRequest { id: LEASE }),
        ),
        (
            "lease-keep-alive",
            10,
            Request::LeaseKeepAlive(LeaseKeepAliveRequest { id: LEASE }),
        ),
        (
            "lease-time-to-live",
            11,
            Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id: LEASE,
                keys: true,
                limit: 2,
                after: b"a",
            }),
        ),
        ("leases", 12, Request::Leases),
        (
            "alarm",
            13,
            Request::Alarm(AlarmRequest {
                action: AlarmAction::Deactivate,
                member_id: HEADER.member_id,
                alarm: Some(AlarmKind::NoSpace),
            }),
        ),
    ]
}

fn responses() -> Vec<(&'static str, u64, Response)> {
    let put = || Response::Put(PutResponse::default());
    let range = || RangeResponse {
        kvs: vec![kv()],
        more: true,
        count: 7,
    };
    vec![
        ("put-reply", 1, put()),
        (
            "put-reply-with-pair",
            1,
            Response::Put(PutResponse {
                prev_kv: Some(kv()),
            }),
        ),
        ("range-reply", 2, Response::Range(range())),
        (
            "delete-range-reply",
            3,
            Response::DeleteRange(DeleteRangeResponse {
                deleted: 1,
                prev_kvs: vec![],
            }),
        ),
        (
            "txn-reply",
            4,
            Response::Txn(TxnResponse {
                succeeded: true,
                responses: vec![put(), Response::Range(range())],
            }),
        ),
        ("compact-reply", 5, Response::Compact),
        (
            "lease-grant-reply",
            8,
            Response::LeaseGrant(LeaseGrantResponse { id: LEASE, ttl: 60 }),
        ),
        ("lease-revoke-reply", 9, Response::LeaseRevoke),
        (
            "lease-keep-alive-reply",
            10,
            Response::LeaseKeepAlive(LeaseKeepAliveResponse { id: LEASE, ttl: 60 }),
        ),
        (
            "lease-time-to-live-reply",
            11,
            Response::LeaseTimeToLive(LeaseTimeToLiveResponse {
                id: LEASE,
                ttl: 45,
                granted_ttl: 60,
                keys: vec![b"foo".to_vec(), b"x".to_vec()],
                more: false,
            }),
        ),
        (
            "alarm-reply",
            13,
            Response::Alarm(AlarmResponse {
                alarms: vec![Alarm {
                    kind: AlarmKind::NoSpace,
                    member_id: HEADER.member_id,
                }],
            }),
        ),
        (
            "leases-reply",
            12,
            Response::Leases(LeasesResponse {
                ids: vec![LEASE, 1],
            }),
        ),
    ]
}

fn ours() -> BTreeMap<String, Vec<u8>> {
    let mut ours = BTreeMap::new();
    let mut add = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        ours.insert(name.to_owned(), bytes);
    };
    let hello = ServerHello {
        status: HelloStatus::Accepted,
        frame_bytes_max: 2_097_152,
        in_flight_max: 1024,
        cluster_id: HEADER.cluster_id,
        member_id: HEADER.member_id,
    };
    add("client-preamble", &|out| {
        out.extend_from_slice(&wire::client_preamble())
    });
    add("server-preamble", &|out| {
        out.extend_from_slice(&wire::server_preamble(&hello))
    });
    add("ping", &|out| wire::encode_ping(6, out));
    add("status", &|out| wire::encode_status(7, out));
    for (name, id, request) in requests() {
        add(name, &|out| {
            encode_request(&request, id, out).expect("small")
        });
    }
    for (name, id, response) in responses() {
        add(name, &|out| {
            encode_response(&HEADER, &response, id, out).expect("small")
        });
    }
    for (name, request) in watches::requests() {
        add(name, &|out| encode_watch(&request, 8, out).expect("small"));
    }
    for (name, response) in watches::responses() {
        add(name, &|out| watches::encode(&HEADER, &response, 8, out));
    }
    add("ping-reply", &|out| {
        wire::encode_ping_reply(&HEADER, 6, out)
    });
    add("status-reply", &|out| {
        wire::encode_status_reply(&HEADER, "0.1.0", 7, out)
    });
    add("error-reply", &|out| {
        wire::encode_error(&HEADER, Error::Compacted, 2, out)
    });
    add("connection-error", &|out| {
        wire::encode_malformed(&HEADER, Malformed::BadCrc, 0, out)
    });
    ours
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

#[test]
fn the_page_and_the_encoders_agree() {
    let page = page();
    let ours = ours();
    for (name, bytes) in &ours {
        let written = page.get(name).map(|bytes| hex(bytes));
        assert_eq!(written, Some(hex(bytes)), "{name}");
    }
    for name in page.keys() {
        assert!(ours.contains_key(name), "{name} is on the page alone");
    }
}

#[test]
fn the_vectors_of_the_page_are_read_back() {
    let page = page();
    for (name, id, request) in requests() {
        let decoded = FrameDecoder::requests(1 << 20)
            .decode(&page[name])
            .expect("well formed");
        let Decoded::Frame { frame, .. } = decoded else {
            panic!("{name} is complete")
        };
        assert_eq!(frame.id, id);
        assert_eq!(wire::decode_request(frame.kind, frame.body), Ok(request));
    }
    for (name, id, response) in responses() {
        let decoded = FrameDecoder::replies(1 << 20)
            .decode(&page[name])
            .expect("well formed");
        let Decoded::Frame { frame, .. } = decoded else {
            panic!("{name} is complete")
        };
        assert_eq!(frame.id, id);
        let (header, reply) = wire::decode_reply(&frame).expect("well formed");
        assert_eq!((header, reply.to_response()), (HEADER, Some(response)));
    }
    for (name, response) in watches::responses() {
        let decoded = FrameDecoder::replies(1 << 20).decode(&page[name]);
        let Ok(Decoded::Frame { frame, .. }) = decoded else {
            panic!("{name}: {decoded:?}")
        };
        let (_, reply) = wire::decode_reply(&frame).expect("well formed");
        assert_eq!(reply.to_watch(), Some(response));
    }
}

#[test]
fn the_page_lists_every_error_and_every_malformation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTOCOL.md");
    let page = std::fs::read_to_string(path).expect("the page exists");
    for error in Error::ALL {
        let unknown = if error.outcome_unknown() { "yes" } else { "no" };
        let row = format!("| {} | `{}` | {unknown} |", error.code(), error.message());
        assert!(page.contains(&row), "missing: {row}");
    }
    let malformed = [
        Malformed::BadMagic,
        Malformed::UnknownVersion(0),
        Malformed::UnknownFlags(0),
        Malformed::BadCrc,
        Malformed::TooLong { bytes: 0, limit: 0 },
        Malformed::UnknownKind(0),
        Malformed::NonZeroReserved,
        Malformed::ZeroId,
        Malformed::BadArchive,
        Malformed::NotCanonical,
        Malformed::BadValue(""),
        Malformed::TooDeep,
        Malformed::TooManyOps,
    ];
    for (at, malformed) in malformed.into_iter().enumerate() {
        assert_eq!(usize::from(malformed.code()), 0x8001 + at);
        assert!(
            page.contains(&format!("| 0x{:04x} |", malformed.code())),
            "{malformed}"
        );
    }
}
