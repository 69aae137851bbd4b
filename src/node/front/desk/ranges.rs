//! Ranges: read from the newest published root, at once if the answer is short.
#![forbid(unsafe_code)]

use super::super::answer::{self, RangeWriter};
use super::super::connection::{Connection, ConnectionId};
use super::long::{DraftedRange, LongRange, Slice, Work, native};
use super::{Desk, Turn};
use crate::api::{self, KvSink as _, RangeResponse, RangeSummary, Request};
use crate::apply::{self, Failure, RangeParts, Stand, validate};
use crate::etcd::{self, Status, sized};
use crate::limits;
use crate::wire::RangeEncoder;
use quoin_storage::mvcc::View;
use quoin_storage::tree::Snapshot;

/// How a range was served.
enum Served {
    /// The answer is written.
    Whole,
    /// It takes several turns; bytes of the request.
    Later(Work, usize),
    /// The same, and its first piece is written.
    Begun(Work, usize),
}

impl Desk {
    /// Refuses a range that cannot be streamed, unless something else is wrong with it. A target
    /// without an order is none.
    pub(super) fn check_stream(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if validate::admit(request, &self.config.limits).is_err() {
            return Ok(());
        }
        if let Request::Range(range) = request {
            if let Some(refused) = sized::streams_not(range) {
                return Err(refused);
            }
            range.sort_target = api::SortTarget::Key;
        }
        Ok(())
    }

    /// Reads from the newest published root into the client's output, or takes the answer up as
    /// a long one. `streamed`: it is a stream of messages.
    pub(super) fn range(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (request, streamed): (u64, bool),
        range: &api::RangeRequest<'_>,
        turn: &mut Turn<'_>,
    ) {
        self.ready_output(connection, turn.now_ns);
        let before = connection.output.len();
        let room = self.room(connection);
        let header = self.header;
        let mut looked_at = 0;
        let served = match turn.view() {
            Ok(view) => {
                let revision = view.horizon().revision;
                self.header.revision = self.header.revision.max(revision);
                let header = api::Header { revision, ..header };
                let whose = (request, streamed);
                self.read_range(connection, &view, &header, whose, range, &mut looked_at)
            }
            Err(error) => Err(Failure::from(error)),
        };
        if served.is_err() {
            connection.output.truncate(before);
        }
        let served = match served {
            Ok(Served::Whole) => {
                answer::close(connection, request, None);
                Ok(())
            }
            Ok(Served::Later(work, bytes)) => {
                turn.cost += limits::TURN_COST / 4;
                self.begin_long(connection, id, request, (work, bytes))
            }
            Ok(Served::Begun(work, bytes)) => {
                answer::close_piece(connection, request);
                self.take_up(connection, request, (work, bytes))
            }
            Err(failure) => Err(self.own_up_within(&failure, room, turn.now_ns)),
        };
        // What a slice looks at costs what [`Desk::work`] says that it does.
        let looked_at = looked_at * (limits::TURN_COST / 4) / limits::SLICE_ENTRIES;
        turn.cost += looked_at.max((connection.output.len() - before) / 256);
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
        self.served(connection, id, request, served, turn.now_ns);
    }

    /// `looked_at` becomes about how many entries of the tree were looked at.
    fn read_range(
        &mut self,
        connection: &mut Connection,
        view: &View<'_, Snapshot<'_>>,
        header: &api::Header,
        (request, streamed): (u64, bool),
        range: &api::RangeRequest<'_>,
        looked_at: &mut usize,
    ) -> Result<Served, Failure> {
        let bytes_max = self.room(connection).min(limits::RESPONSE_BYTES_MAX);
        let Some(parts) = RangeParts::new(view, range, sized::pair_bytes)? else {
            if streamed {
                return stream_at_once(view, header, range, &mut connection.output);
            }
            let scratch = &mut self.scratch;
            let mut writer = RangeWriter::new(connection, scratch, header, request, bytes_max);
            let summary = apply::range(view, range, &mut writer)?;
            let finished = writer.finish(header, summary);
            finished.map_err(|_| api::Error::ResponseTooLarge)?;
            return Ok(Served::Whole);
        };
        if connection.calls.is_none() {
            let ask = (header, request, bytes_max);
            return self.draft(connection, view, ask, parts, looked_at);
        }
        let bytes = parts.bound_bytes();
        let out = &mut connection.output;
        match parts {
            parts if streamed => {
                let long = LongRange::stream(parts.into_owned(), *header);
                Ok(Served::Later(Work::Range(Box::new(long)), bytes))
            }
            RangeParts::Keys(walk) => {
                let mut first = RangeParts::Keys(walk.clone());
                let written = write_first(&mut first, view, header, bytes_max, out)?;
                *looked_at = first.looked_at();
                if written {
                    return Ok(Served::Whole);
                }
                let long = LongRange::whole(RangeParts::Keys(walk.into_owned()), *header);
                Ok(Served::Later(Work::Range(Box::new(long)), bytes))
            }
            // A piece may be written at once.
            _ if bytes_max < limits::PIECE_BYTES => Err(api::Error::TooManyRequests.into()),
            parts => {
                let mut long = LongRange::whole(parts.into_owned(), *header);
                let slice = long.step(view, out)?;
                *looked_at = long.looked_at();
                let work = Work::Range(Box::new(long));
                Ok(match slice {
                    Slice::Last => Served::Whole,
                    Slice::Piece => Served::Begun(work, bytes),
                    Slice::Working => Served::Later(work, bytes),
                })
            }
        }
    }

    /// Writes the native answer if it is short; otherwise its beginning, aside.
    fn draft(
        &mut self,
        connection: &mut Connection,
        view: &View<'_, Snapshot<'_>>,
        (header, request, bytes_max): (&api::Header, u64, usize),
        mut parts: RangeParts<'_>,
        looked_at: &mut usize,
    ) -> Result<Served, Failure> {
        let out = &mut connection.output;
        let mut encoder = RangeEncoder::new(out, &mut self.scratch, request, bytes_max);
        let summary = native::write(&mut parts, view, &mut encoder)?;
        *looked_at = parts.looked_at();
        let Some(summary) = summary else {
            let too_long = match bytes_max < limits::RESPONSE_BYTES_MAX {
                true => api::Error::TooManyRequests,
                false => api::Error::ResponseTooLarge,
            };
            let (parts, draft) = (parts.into_owned(), encoder.put_aside());
            let bytes = parts.bound_bytes();
            let drafted = DraftedRange::new(parts, *header, draft, too_long);
            return Ok(Served::Later(Work::Drafted(Box::new(drafted)), bytes));
        };
        let finished = encoder.finish(header, summary);
        finished.map_err(|_| api::Error::ResponseTooLarge)?;
        Ok(Served::Whole)
    }
}

/// Writes the answer if it is short; says whether it is.
fn write_first(
    parts: &mut RangeParts<'_>,
    view: &View<'_, Snapshot<'_>>,
    header: &api::Header,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Failure> {
    let bytes_max = bytes_max.min(limits::PIECE_BYTES);
    let mut encoder = etcd::RangeEncoder::new(out, header, bytes_max);
    let stand = parts.give(view, limits::SLICE_ENTRIES, &mut |kv| {
        encoder.push(*kv);
        !encoder.full()
    })?;
    if matches!(stand, Stand::Pause | Stand::Full) {
        return Ok(false);
    }
    let Some(summary) = parts.summary(view, limits::SLICE_ENTRIES as u64)? else {
        return Ok(false);
    };
    Ok(encoder.finish(summary).is_ok())
}

/// A stream of one message: a single key, or none.
fn stream_at_once(
    view: &View<'_, Snapshot<'_>>,
    header: &api::Header,
    range: &api::RangeRequest<'_>,
    out: &mut Vec<u8>,
) -> Result<Served, Failure> {
    let mut response = RangeResponse::default();
    let RangeSummary { more, count } = apply::range(view, range, &mut response)?;
    let chunk = sized::Chunk::begin(out);
    for kv in &response.kvs {
        sized::put_pair(out, &kv.borrow());
    }
    chunk.finish(out, Some((*header, RangeSummary { more, count })));
    Ok(Served::Whole)
}
