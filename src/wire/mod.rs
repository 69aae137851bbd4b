//! The native protocol: frames and messages, bytes in, values out. No sockets, no clocks.
//!
//! docs/PROTOCOL.md specifies every byte; its golden vectors are held to this code by a test.
//! Reading order: `layout` has the pictures; `preamble` opens a connection, `frame` finds frames
//! in it, `request` and `reply_view` read their bodies in place, `request` and `reply` write them.
//!
//! Received bytes are data, never trusted: each length is checked against a limit before anything
//! is allocated for it, nothing indexes beyond what was checked, and recursion is bounded.

mod layout;

mod malformed;

mod preamble;

mod frame;

mod archive;

mod walk;

mod writer;

mod request;

mod lease;

mod alarm;

mod reply;

mod reply_view;

mod watch;

pub mod fuzz;

pub use frame::{Decoded, Frame, FrameDecoder, ahead};
pub use layout::{
    BODY_BYTES_MAX, CLIENT_PREAMBLE_BYTES, FRAME_HEADER_BYTES, Kind, MAGIC, SERVER_PREAMBLE_BYTES,
    TXN_DEPTH_MAX, TXN_OPS_MAX, VERSION,
};
pub use malformed::{Malformed, Unencodable};
pub use preamble::{
    HelloStatus, ServerHello, Sniff, client_preamble, read_client_preamble, read_server_preamble,
    refusal, refused_status, server_preamble, sniff,
};
pub use reply::{
    RangeDraft, RangeEncoder, RangeScratch, encode_error, encode_malformed, encode_ping_reply,
    encode_put_reply, encode_response, encode_status_reply,
};
pub use reply_view::{Kvs, Refusal, Reply, decode_reply};
pub use request::{
    decode_empty, decode_request, encode_body, encode_ping, encode_request, encode_status,
    request_kind,
};
pub use watch::{
    EventBlock, Events, WatchIds, decode_watch, encode_watch, encode_watch_cancelled,
    encode_watch_closed, encode_watch_created, encode_watch_events, encode_watch_progress,
    is_watch,
};

#[cfg(test)]
mod tests;

/// The bytes of a command as they pass, unchanged, into the log entry and to apply: the body of
/// its frame. [`decode_request`] reads them there again with the frame's kind.
#[inline]
pub fn command_body<'a>(frame: &Frame<'a>) -> &'a [u8] {
    frame.body
}
