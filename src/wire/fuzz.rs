//! The entry point for fuzzing: whatever the bytes, decoding ends, and what it accepts is
//! exactly what the encoder writes.

#![forbid(unsafe_code)]

use super::layout::{FRAME_HEADER_BYTES, Kind};
use super::{
    Decoded, EventBlock, Frame, FrameDecoder, Reply, client_preamble, decode_empty, decode_reply,
    decode_request, decode_watch, encode_body, encode_error, encode_ping_reply, encode_response,
    encode_status_reply, encode_watch, encode_watch_cancelled, encode_watch_closed,
    encode_watch_created, encode_watch_events, encode_watch_progress, is_watch,
    read_client_preamble, read_server_preamble, server_preamble, sniff,
};

/// Decodes `bytes` in every way they could be met: as a preamble, as frames of either side, and
/// as a bare body behind a byte that says its kind.
///
/// # Panics
/// If an accepted message is not the only encoding of what it says.
pub fn fuzz_frame(bytes: &[u8]) {
    sniff(bytes);
    let client = read_client_preamble(bytes);
    assert!(client.is_err() || bytes.len() < 16 || bytes.starts_with(&client_preamble()));
    if let Ok(Some(hello)) = read_server_preamble(bytes) {
        assert_eq!(
            server_preamble(&hello),
            bytes[..server_preamble(&hello).len()]
        );
    }
    for decoder in [
        FrameDecoder::requests(1 << 20),
        FrameDecoder::replies(1 << 20),
    ] {
        let mut rest = bytes;
        while let Ok(Decoded::Frame { frame, consumed }) = decoder.decode(rest) {
            check(&frame);
            rest = &rest[consumed..];
        }
    }
    if let Some((kind, body)) = bytes.split_first()
        && let Some(kind) = Kind::from_u8(*kind)
    {
        check(&Frame { kind, id: 1, body });
    }
}

/// If the body means something, it is the one body that means it.
fn check(frame: &Frame<'_>) {
    if matches!(frame.kind, Kind::Ping | Kind::Status) {
        assert_eq!(decode_empty(frame.body).is_ok(), frame.body.is_empty());
    } else if is_watch(frame.kind) {
        if let Ok(request) = decode_watch(frame.kind, frame.body) {
            let mut out = Vec::new();
            let encoded = encode_watch(&request, 1, &mut out);
            encoded.expect("it was short enough to be received");
            assert_eq!(out[FRAME_HEADER_BYTES..], *frame.body, "{request:?}");
        }
    } else if !frame.kind.is_reply() {
        if let Ok(request) = decode_request(frame.kind, frame.body) {
            let mut body = Vec::new();
            assert_eq!(encode_body(&request, &mut body), Ok(frame.kind));
            assert_eq!(body, frame.body, "{request:?}");
        }
    } else if let Ok((header, reply)) = decode_reply(frame) {
        let mut out = Vec::new();
        match &reply {
            Reply::Ping => encode_ping_reply(&header, frame.id, &mut out),
            Reply::Status { version } => encode_status_reply(&header, version, frame.id, &mut out),
            Reply::Refused(refusal) => match refusal.error() {
                Some(error) if error.message() == refusal.message => {
                    encode_error(&header, error, frame.id, &mut out);
                }
                _ => return,
            },
            Reply::WatchCreated { watch_id, reason } => {
                encode_watch_created(&header, *watch_id, reason, frame.id, &mut out);
            }
            Reply::WatchCancelled {
                watch_id,
                compact_revision,
                reason,
            } => {
                let (id, compacted) = (*watch_id, *compact_revision);
                encode_watch_cancelled(&header, id, compacted, reason, frame.id, &mut out);
            }
            Reply::WatchProgress { watch_ids } => {
                let watch_ids: Vec<i64> = watch_ids.iter().collect();
                encode_watch_progress(&header, &watch_ids, frame.id, &mut out);
            }
            Reply::WatchClosed => encode_watch_closed(&header, frame.id, &mut out),
            Reply::WatchEvents {
                watch_ids,
                events,
                fragment,
            } => {
                let watch_ids: Vec<i64> = watch_ids.iter().collect();
                let mut block = EventBlock::default();
                block.fill(events.iter());
                let max = usize::MAX;
                let (id, fragment) = (frame.id, *fragment);
                encode_watch_events(&header, &block, &watch_ids, fragment, id, max, &mut out)
                    .expect("it was short enough to be received");
            }
            reply => {
                let response = reply.to_response().expect("the others are none");
                let encoded = encode_response(&header, &response, frame.id, &mut out);
                encoded.expect("it was short enough to be received");
            }
        }
        assert_eq!(out[FRAME_HEADER_BYTES..], *frame.body, "{reply:?}");
    }
}
