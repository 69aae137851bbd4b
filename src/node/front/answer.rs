//! How answers are written: native frames, or messages of etcd's API, as the connection speaks.
#![forbid(unsafe_code)]

use super::connection::Connection;
use crate::api::{self, KvSink, RangeSummary};
use crate::etcd::{self, Status};
use crate::wire::{self, RangeScratch};
use bytes::Bytes;

/// A finished call of etcd's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The stream that the call came on, as given to [`super::Front::call`].
    pub stream: u64,
    /// Where its message ends in [`Answers::bytes`]; it begins where the one before it ends.
    pub end: usize,
    /// Why it was refused; then it has no message.
    pub refused: Option<Status>,
    /// It answers no message of the client: a watch speaks.
    pub unasked: bool,
    /// Its message is not complete, or not the last: [`super::Front::feed`] gives more.
    pub more: bool,
}

/// Finished calls, and their messages one behind the other, each with its gRPC prefix.
#[derive(Debug, Default)]
pub struct Answers {
    /// The messages.
    pub bytes: Vec<u8>,
    /// The calls, in the order of the messages.
    pub list: Vec<Answer>,
}

impl Answers {
    /// The finished calls, each with its message.
    pub fn into_messages(self) -> impl Iterator<Item = (Answer, Bytes)> {
        let bytes = Bytes::from(self.bytes);
        let mut begin = 0;
        self.list.into_iter().map(move |answer| {
            let message = bytes.slice(begin..answer.end);
            begin = answer.end;
            (answer, message)
        })
    }
}

/// Writes the answer to a request.
pub(super) fn response(
    connection: &mut Connection,
    header: &api::Header,
    response: &api::Response,
    request: u64,
) {
    if connection.calls.is_some() {
        etcd::encode_response(header, response, &mut connection.output);
        close(connection, request, None);
    } else if wire::encode_response(header, response, request, &mut connection.output).is_err() {
        // What no frame can hold; the answers' own bound is below that.
        refusal(connection, header, api::Error::ResponseTooLarge, request);
    }
}

/// Writes the answer to a put that asked for nothing back.
#[inline]
pub(super) fn put(connection: &mut Connection, header: &api::Header, request: u64) {
    if connection.calls.is_some() {
        etcd::encode_put_response(header, &mut connection.output);
        close(connection, request, None);
    } else {
        wire::encode_put_reply(header, request, &mut connection.output);
    }
}

/// Writes a refusal.
pub(super) fn refusal(
    connection: &mut Connection,
    header: &api::Header,
    error: api::Error,
    request: u64,
) {
    if connection.calls.is_some() {
        close(connection, request, Some(error.into()));
    } else {
        wire::encode_error(header, error, request, &mut connection.output);
    }
}

/// Closes the answer to a call: its message ends here.
pub(super) fn close(connection: &mut Connection, stream: u64, refused: Option<Status>) {
    push(connection, stream, refused, (false, false));
}

/// Closes a message that a call did not ask for.
pub(super) fn close_unasked(connection: &mut Connection, stream: u64) {
    push(connection, stream, None, (true, false));
}

/// Closes a piece of an answer that goes on.
pub(super) fn close_piece(connection: &mut Connection, stream: u64) {
    push(connection, stream, None, (false, true));
}

fn push(
    connection: &mut Connection,
    stream: u64,
    refused: Option<Status>,
    (unasked, more): (bool, bool),
) {
    let end = connection.output.len();
    if let Some(calls) = &mut connection.calls {
        calls.answers.push(Answer {
            stream,
            end,
            refused,
            unasked,
            more,
        });
    }
}

/// Says that a watch exists, or, with a reason, that it does not.
pub(super) fn watch_created(
    connection: &mut Connection,
    header: &api::Header,
    (stream, watch): (u64, i64),
    reason: &str,
) {
    if connection.calls.is_some() {
        etcd::watch::encode_created(header, watch, reason, &mut connection.output);
        close_unasked(connection, stream);
    } else {
        wire::encode_watch_created(header, watch, reason, stream, &mut connection.output);
    }
}

/// Says that a watch is over.
pub(super) fn watch_cancelled(
    connection: &mut Connection,
    header: &api::Header,
    (stream, watch): (u64, i64),
    compact_revision: i64,
    reason: &str,
) {
    let out = &mut connection.output;
    if connection.calls.is_some() {
        etcd::watch::encode_cancelled(header, watch, compact_revision, reason, out);
        close_unasked(connection, stream);
    } else {
        wire::encode_watch_cancelled(header, watch, compact_revision, reason, stream, out);
    }
}

/// Says how far watches have come: all of the stream, if none is named.
pub(super) fn watch_progress(
    connection: &mut Connection,
    header: &api::Header,
    stream: u64,
    watches: &[i64],
) {
    if connection.calls.is_none() {
        wire::encode_watch_progress(header, watches, stream, &mut connection.output);
        return;
    }
    let watches = if watches.is_empty() { &[-1] } else { watches };
    for watch in watches {
        etcd::watch::encode_progress(header, *watch, &mut connection.output);
        close_unasked(connection, stream);
    }
}

/// Writes the answer to a range while it is being read. Dropped unfinished, it leaves nothing.
pub(super) enum RangeWriter<'o> {
    Native(wire::RangeEncoder<'o>),
    Etcd(etcd::RangeEncoder<'o>),
}

impl<'o> RangeWriter<'o> {
    /// Begins it. `header` is the answer's.
    pub fn new(
        connection: &'o mut Connection,
        scratch: &'o mut RangeScratch,
        header: &api::Header,
        request: u64,
        bytes_max: usize,
    ) -> RangeWriter<'o> {
        let out = &mut connection.output;
        match connection.calls {
            Some(_) => RangeWriter::Etcd(etcd::RangeEncoder::new(out, header, bytes_max)),
            None => RangeWriter::Native(wire::RangeEncoder::new(out, scratch, request, bytes_max)),
        }
    }

    /// Closes it; an error means that it grew too long.
    pub fn finish(self, header: &api::Header, summary: RangeSummary) -> Result<(), etcd::TooLong> {
        match self {
            RangeWriter::Native(encoder) => {
                encoder.finish(header, summary).map_err(|_| etcd::TooLong)
            }
            RangeWriter::Etcd(encoder) => encoder.finish(summary),
        }
    }
}

impl KvSink for RangeWriter<'_> {
    #[inline]
    fn push(&mut self, kv: api::KeyValue<'_>) {
        match self {
            RangeWriter::Native(encoder) => encoder.push(kv),
            RangeWriter::Etcd(encoder) => encoder.push(kv),
        }
    }

    #[inline]
    fn full(&self) -> bool {
        match self {
            RangeWriter::Native(encoder) => encoder.full(),
            RangeWriter::Etcd(encoder) => encoder.full(),
        }
    }
}
