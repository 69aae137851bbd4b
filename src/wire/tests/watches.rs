//! Watch streams: written as rkyv writes them, and read back.

use proptest::prelude::*;
use rkyv::rancor::Error;

use super::samples::{HEADER, any_header, any_kv};
use crate::api::{EventKind, Header, OwnedEvent, WatchCreate, WatchRequest, WatchResponse};
use crate::wire::archive;
use crate::wire::{
    Decoded, EventBlock, FrameDecoder, decode_reply, decode_watch, encode_watch,
    encode_watch_cancelled, encode_watch_closed, encode_watch_created, encode_watch_events,
    encode_watch_progress,
};

macro_rules! to_bytes {
    ($value:expr) => {
        rkyv::to_bytes::<Error>(&$value).expect("small").to_vec()
    };
}

pub fn create() -> WatchCreate<'static> {
    WatchCreate {
        key: b"a",
        range_end: b"b",
        start_revision: 3,
        watch_id: 9,
        prev_kv: true,
        fragment: true,
        ..WatchCreate::default()
    }
}

pub fn requests() -> Vec<(&'static str, WatchRequest<'static>)> {
    vec![
        ("watch-create", WatchRequest::Create(create())),
        ("watch-cancel", WatchRequest::Cancel { watch_id: 9 }),
        ("watch-progress", WatchRequest::Progress),
        ("watch-close", WatchRequest::Close),
    ]
}

pub fn responses() -> Vec<(&'static str, WatchResponse)> {
    let pair = |value: &[u8], revision, version| crate::api::OwnedKeyValue {
        key: b"foo".to_vec(),
        value: value.to_vec(),
        create_revision: 40,
        mod_revision: revision,
        version,
        lease: 0,
    };
    let deleted = crate::api::OwnedKeyValue {
        key: b"foo".to_vec(),
        mod_revision: 42,
        ..Default::default()
    };
    let events = vec![
        OwnedEvent {
            kind: EventKind::Put,
            kv: pair(b"bar", 41, 2),
            prev_kv: None,
        },
        OwnedEvent {
            kind: EventKind::Delete,
            kv: deleted,
            prev_kv: Some(pair(b"bar", 41, 2)),
        },
    ];
    vec![
        ("watch-created", WatchResponse::Created { watch_id: 9 }),
        (
            "watch-refused",
            WatchResponse::Refused {
                reason: "mvcc: watcher range is empty".to_owned(),
            },
        ),
        (
            "watch-cancelled",
            WatchResponse::Cancelled {
                watch_id: 9,
                compact_revision: 40,
                reason: String::new(),
            },
        ),
        (
            "watch-progressed",
            WatchResponse::Progress {
                watch_ids: vec![0, 9],
            },
        ),
        ("watch-closed", WatchResponse::Closed),
        (
            "watch-events",
            WatchResponse::Events {
                watch_ids: vec![0, 9],
                events,
                fragment: false,
            },
        ),
    ]
}

pub fn encode(header: &Header, response: &WatchResponse, id: u64, out: &mut Vec<u8>) {
    match response {
        WatchResponse::Created { watch_id } => {
            encode_watch_created(header, *watch_id, "", id, out);
        }
        WatchResponse::Refused { reason } => encode_watch_created(header, -1, reason, id, out),
        WatchResponse::Cancelled {
            watch_id,
            compact_revision,
            reason,
        } => encode_watch_cancelled(header, *watch_id, *compact_revision, reason, id, out),
        WatchResponse::Progress { watch_ids } => {
            encode_watch_progress(header, watch_ids, id, out);
        }
        WatchResponse::Closed => encode_watch_closed(header, id, out),
        WatchResponse::Events {
            watch_ids,
            events,
            fragment,
        } => {
            let mut block = EventBlock::default();
            block.fill(events.iter().map(OwnedEvent::borrow));
            encode_watch_events(header, &block, watch_ids, *fragment, id, 1 << 20, out)
                .expect("small");
        }
    }
}

fn kv(kv: &crate::api::OwnedKeyValue) -> archive::Kv {
    archive::Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// The body as rkyv makes it.
fn rkyv_response(header: &Header, response: &WatchResponse) -> Vec<u8> {
    let header = archive::Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    };
    let created = |watch_id, reason: &str| archive::WatchCreated {
        reason: reason.as_bytes().to_vec(),
        watch_id,
    };
    match response {
        WatchResponse::Created { watch_id } => to_bytes!(archive::WatchCreatedReply {
            header,
            result: created(*watch_id, ""),
        }),
        WatchResponse::Refused { reason } => to_bytes!(archive::WatchCreatedReply {
            header,
            result: created(-1, reason),
        }),
        WatchResponse::Cancelled {
            watch_id,
            compact_revision,
            reason,
        } => to_bytes!(archive::WatchCancelledReply {
            header,
            result: archive::WatchCancelled {
                reason: reason.as_bytes().to_vec(),
                watch_id: *watch_id,
                compact_revision: *compact_revision,
            },
        }),
        WatchResponse::Progress { watch_ids } => to_bytes!(archive::WatchProgressReply {
            header,
            result: archive::WatchProgress {
                watch_ids: watch_ids.clone(),
            },
        }),
        WatchResponse::Closed => to_bytes!(header),
        WatchResponse::Events {
            watch_ids,
            events,
            fragment,
        } => {
            let events = events.iter().map(|event| archive::Event {
                kv: kv(&event.kv),
                prev_kvs: event.prev_kv.iter().map(kv).collect(),
                kind: u8::from(event.kind == EventKind::Delete),
            });
            to_bytes!(archive::WatchEventsReply {
                header,
                result: archive::WatchEvents {
                    events: events.collect(),
                    watch_ids: watch_ids.clone(),
                    fragment: u8::from(*fragment),
                },
            })
        }
    }
}

fn check_response(header: &Header, response: &WatchResponse) {
    let mut out = b"before".to_vec();
    encode(header, response, 99, &mut out);
    let decoded = FrameDecoder::replies(1 << 20).decode(&out[6..]);
    let Ok(Decoded::Frame { frame, consumed }) = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!((frame.id, consumed), (99, out.len() - 6));
    assert_eq!(frame.body, rkyv_response(header, response));
    let (header_read, reply) = decode_reply(&frame).expect("well formed");
    assert_eq!(header_read, *header);
    assert_eq!(reply.to_watch().as_ref(), Some(response));
    assert_eq!(reply.to_response(), None);
}

fn check_create(create: &WatchCreate<'_>) {
    let mut out = Vec::new();
    encode_watch(&WatchRequest::Create(create.clone()), 7, &mut out).expect("small");
    let Ok(Decoded::Frame { frame, .. }) = FrameDecoder::requests(1 << 20).decode(&out) else {
        panic!("a whole frame")
    };
    let bits = [
        create.prev_kv,
        create.progress_notify,
        create.fragment,
        create.no_put,
        create.no_delete,
    ];
    let options = bits
        .iter()
        .enumerate()
        .map(|(at, bit)| u8::from(*bit) << at);
    let archived = archive::WatchCreate {
        key: create.key.to_vec(),
        range_end: create.range_end.to_vec(),
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        options: options.sum(),
    };
    assert_eq!(frame.body, to_bytes!(archived));
    let read = decode_watch(frame.kind, frame.body);
    assert_eq!(read, Ok(WatchRequest::Create(create.clone())));
}

#[test]
fn samples_are_written_as_rkyv_writes_them() {
    for (_, response) in responses() {
        check_response(&HEADER, &response);
    }
    check_create(&create());
    let cancel = to_bytes!(archive::WatchCancel { watch_id: -5 });
    let mut out = Vec::new();
    encode_watch(&WatchRequest::Cancel { watch_id: -5 }, 1, &mut out).expect("small");
    assert_eq!(out[20..], cancel);
}

#[test]
fn events_over_the_bound_leave_nothing() {
    let mut block = EventBlock::default();
    let (_, response) = responses().remove(5);
    let WatchResponse::Events { events, .. } = response else {
        panic!("the events")
    };
    block.fill(events.iter().map(OwnedEvent::borrow));
    let body = block.bytes() + 8 + 49;
    let mut out = b"before".to_vec();
    let short = encode_watch_events(&HEADER, &block, &[1], false, 1, body - 1, &mut out);
    assert!(short.is_err());
    assert_eq!(out, b"before");
    encode_watch_events(&HEADER, &block, &[1], false, 1, body, &mut out).expect("fits");
    assert_eq!(out.len(), 6 + 20 + body);
}

fn any_event() -> impl Strategy<Value = OwnedEvent> {
    (any::<bool>(), any_kv(), prop::option::of(any_kv())).prop_map(|(put, kv, prev_kv)| {
        let kind = if put {
            EventKind::Put
        } else {
            EventKind::Delete
        };
        OwnedEvent { kind, kv, prev_kv }
    })
}

proptest! {
    #[test]
    fn random_events_come_back(
        header in any_header(),
        events in prop::collection::vec(any_event(), 0..6),
        watch_ids in prop::collection::vec(any::<i64>(), 0..6),
        fragment: bool,
    ) {
        check_response(&header, &WatchResponse::Events { watch_ids, events, fragment });
    }

    #[test]
    fn random_creates_come_back(
        key in prop::collection::vec(any::<u8>(), 0..40),
        range_end in prop::collection::vec(any::<u8>(), 0..40),
        (start_revision, watch_id) in any::<(i64, i64)>(),
        bits in any::<[bool; 5]>(),
    ) {
        let [prev_kv, progress_notify, fragment, no_put, no_delete] = bits;
        check_create(&WatchCreate {
            key: &key, range_end: &range_end, start_revision, watch_id,
            prev_kv, progress_notify, fragment, no_put, no_delete,
        });
    }
}
