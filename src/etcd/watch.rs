//! Requests and answers of the Watch service.
#![forbid(unsafe_code)]

use super::message;
use super::pb::{Fields, Malformed, Value, put_bool, put_bytes, put_i64, put_message};
use super::reply::{put_header, put_kv};
use crate::api::{Event, EventKind, Header, WatchCreate, WatchRequest};

/// Reads what a client says on a stream of watches; `None` if it says nothing.
pub fn decode_watch(message: &[u8]) -> Result<Option<WatchRequest<'_>>, Malformed> {
    let mut request = None;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        let Some(bytes) = value.bytes() else {
            continue;
        };
        request = match number {
            1 => {
                let mut create = match request.take() {
                    Some(WatchRequest::Create(create)) => create,
                    _ => WatchCreate::default(),
                };
                merge_create(&mut create, bytes)?;
                Some(WatchRequest::Create(create))
            }
            2 => {
                let mut watch_id = match request {
                    Some(WatchRequest::Cancel { watch_id }) => watch_id,
                    _ => 0,
                };
                let mut fields = Fields::of(bytes);
                while let Some((number, value)) = fields.field()? {
                    if number == 1 {
                        value.set_i64(&mut watch_id);
                    }
                }
                Some(WatchRequest::Cancel { watch_id })
            }
            3 => {
                let mut fields = Fields::of(bytes);
                while fields.field()?.is_some() {}
                Some(WatchRequest::Progress)
            }
            _ => request,
        };
    }
    Ok(request)
}

fn merge_create<'a>(create: &mut WatchCreate<'a>, message: &'a [u8]) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_bytes(&mut create.key),
            2 => value.set_bytes(&mut create.range_end),
            3 => value.set_i64(&mut create.start_revision),
            4 => value.set_bool(&mut create.progress_notify),
            5 => filters(create, value)?,
            6 => value.set_bool(&mut create.prev_kv),
            7 => value.set_i64(&mut create.watch_id),
            8 => value.set_bool(&mut create.fragment),
            _ => {}
        }
    }
    Ok(())
}

/// Filters come one by one, or packed into bytes. Those that do not exist filter nothing.
fn filters(create: &mut WatchCreate<'_>, value: Value<'_>) -> Result<(), Malformed> {
    let mut set = |filter: u64| match filter as i32 {
        0 => create.no_put = true,
        1 => create.no_delete = true,
        _ => {}
    };
    match value {
        Value::Varint(filter) => set(filter),
        Value::Bytes(packed) => {
            let mut fields = Fields::of(packed);
            while let Some(filter) = fields.packed()? {
                set(filter);
            }
        }
        Value::Other => {}
    }
    Ok(())
}

/// Appends one message.
fn answer(out: &mut Vec<u8>, header: &Header, watch: i64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = message::begin(out);
    put_message(out, 1, |out| put_header(out, header));
    put_i64(out, 2, watch);
    write(out);
    message::finish(out, start);
}

/// Says that a watch exists, or, with a reason, that it does not.
pub fn encode_created(header: &Header, watch: i64, reason: &str, out: &mut Vec<u8>) {
    answer(out, header, watch, |out| {
        put_bool(out, 3, true);
        put_bool(out, 4, !reason.is_empty());
        put_bytes(out, 6, reason.as_bytes());
    });
}

/// Says that a watch is over.
pub fn encode_cancelled(
    header: &Header,
    watch: i64,
    compact_revision: i64,
    reason: &str,
    out: &mut Vec<u8>,
) {
    answer(out, header, watch, |out| {
        put_bool(out, 4, true);
        put_i64(out, 5, compact_revision);
        put_bytes(out, 6, reason.as_bytes());
    });
}

/// Says how far a watch has come; -1 stands for all of the stream.
pub fn encode_progress(header: &Header, watch: i64, out: &mut Vec<u8>) {
    answer(out, header, watch, |_| {});
}

/// Encodes events for any number of [`encode_events`].
pub fn encode_event_block<'e>(events: impl Iterator<Item = Event<'e>>, block: &mut Vec<u8>) {
    block.clear();
    for event in events {
        put_message(block, 11, |out| {
            put_bool(out, 1, event.kind == EventKind::Delete);
            put_kv(out, 2, &event.kv);
            if let Some(prev) = &event.prev_kv {
                put_kv(out, 3, prev);
            }
        });
    }
}

/// Tells a watch of events. `fragment`: more of the last revision follow.
pub fn encode_events(header: &Header, watch: i64, fragment: bool, block: &[u8], out: &mut Vec<u8>) {
    answer(out, header, watch, |out| {
        put_bool(out, 7, fragment);
        out.extend_from_slice(block);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KeyValue;

    const HEADER: Header = Header {
        cluster_id: 1,
        member_id: 2,
        revision: 3,
        raft_term: 4,
    };

    const HEAD: &[u8] = &[0x0a, 8, 8, 1, 16, 2, 24, 3, 32, 4];

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(usize::from(out[4]), out.len() - 5);
        assert_eq!(&out[5..15], HEAD);
        out[15..].to_vec()
    }

    #[test]
    fn requests_are_read() {
        let create = WatchCreate {
            key: b"k",
            range_end: b"l",
            start_revision: 5,
            watch_id: 9,
            prev_kv: true,
            progress_notify: true,
            fragment: true,
            no_put: true,
            no_delete: true,
        };
        let body = [
            0x0a, 1, b'k', 0x12, 1, b'l', 24, 5, 32, 1, 42, 2, 0, 1, 48, 1, 56, 9, 64, 1,
        ];
        let message = [&[0x0a, body.len() as u8][..], &body].concat();
        assert_eq!(
            decode_watch(&message),
            Ok(Some(WatchRequest::Create(create)))
        );
        let single = WatchCreate {
            no_delete: true,
            ..WatchCreate::default()
        };
        assert_eq!(
            decode_watch(&[0x0a, 2, 40, 1]),
            Ok(Some(WatchRequest::Create(single)))
        );
        assert_eq!(
            decode_watch(&[0x12, 2, 8, 7]),
            Ok(Some(WatchRequest::Cancel { watch_id: 7 }))
        );
        assert_eq!(decode_watch(&[0x1a, 0]), Ok(Some(WatchRequest::Progress)));
        assert_eq!(decode_watch(&[]), Ok(None));
        assert!(decode_watch(&[0x0a, 1, 0x0a]).is_err());
        assert!(decode_watch(&[0x0a, 3, 42, 1, 0x80]).is_err());
    }

    #[test]
    fn answers_have_the_numbers_of_etcd() {
        let created = written(|out| encode_created(&HEADER, 0, "", out));
        assert_eq!(created, [24, 1]);
        let refused = written(|out| encode_created(&HEADER, -1, "no", out));
        let minus_one = [16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(
            refused,
            [&minus_one[..], b"\x18\x01\x20\x01\x32\x02no"].concat()
        );
        let over = written(|out| encode_cancelled(&HEADER, 7, 5, "", out));
        assert_eq!(over, [16, 7, 32, 1, 40, 5]);
        let progress = written(|out| encode_progress(&HEADER, -1, out));
        assert_eq!(progress, minus_one);
        let kv = KeyValue {
            key: b"k",
            mod_revision: 3,
            ..KeyValue::default()
        };
        let delete = Event {
            kind: EventKind::Delete,
            kv,
            prev_kv: Some(kv),
        };
        let put = Event {
            kind: EventKind::Put,
            kv,
            prev_kv: None,
        };
        let mut block = b"old".to_vec();
        encode_event_block([delete, put].into_iter(), &mut block);
        let events = written(|out| encode_events(&HEADER, 7, true, &block, out));
        let pair = b"\x0a\x01k\x18\x03";
        let expected = [
            &[16, 7, 56, 1, 0x5a, 16, 8, 1, 0x12, 5][..],
            pair,
            &[0x1a, 5],
            pair,
            &[0x5a, 7, 0x12, 5],
            pair,
        ];
        assert_eq!(events, expected.concat());
    }
}
