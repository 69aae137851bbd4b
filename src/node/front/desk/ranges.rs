//! Ranges: read from the newest published root, at once if the answer is short.
#![forbid(unsafe_code)]

use super::super::answer::{self, RangeWriter};
use super::super::connection::{Connection, ConnectionId, HttpVersion, Phase};
use super::long::{DraftedRange, LongRange, Work, native};
use super::{Desk, Turn};
use crate::api::{self, KvSink as _, RangeResponse, RangeSummary, Request};
use crate::apply::{self, Failure, RangeWalk, Stand, validate};
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
        let room = self.room();
        let header = self.header;
        let served = match turn.view() {
            Ok(view) => {
                let revision = view.horizon().revision;
                self.header.revision = self.header.revision.max(revision);
                let header = api::Header { revision, ..header };
                self.read_range(connection, &view, &header, (request, streamed), range)
            }
            Err(error) => Err(Failure::from(error)),
        };
        let served = match served {
            Ok(Served::Whole) => {
                answer::close(connection, request, None);
                Ok(())
            }
            Ok(Served::Later(work, bytes)) => {
                turn.cost += limits::TURN_COST / 4;
                self.begin_long(connection, id, request, (work, bytes))
            }
            // Too long for what is free now is not too long for ever.
            Err(Failure::Refused(api::Error::ResponseTooLarge))
                if room < limits::RESPONSE_BYTES_MAX =>
            {
                Err(api::Error::TooManyRequests)
            }
            Err(failure) => Err(failure.to_api()),
        };
        turn.cost += (connection.output.len() - before) / 256;
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
        self.served(connection, id, request, served, turn.now_ns);
    }

    fn read_range(
        &mut self,
        connection: &mut Connection,
        view: &View<'_, Snapshot<'_>>,
        header: &api::Header,
        (request, streamed): (u64, bool),
        range: &api::RangeRequest<'_>,
    ) -> Result<Served, Failure> {
        let bytes_max = self.room().min(limits::RESPONSE_BYTES_MAX);
        let walk = match connection.phase {
            Phase::Http(HttpVersion::One) => None,
            _ => RangeWalk::new(view, range)?,
        };
        let Some(walk) = walk else {
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
            return self.draft(connection, view, (header, request), walk, bytes_max);
        }
        let bytes = range.key.len() + range.range_end.len();
        if streamed {
            let long = LongRange::stream(walk.into_owned(), *header);
            return Ok(Served::Later(Work::Range(Box::new(long)), bytes));
        }
        let first = bytes_max.min(limits::PIECE_BYTES);
        let written = write_first(walk.clone(), view, header, range, first, connection)?;
        Ok(match written {
            true => Served::Whole,
            false => {
                let long = LongRange::whole(walk.into_owned(), *header);
                Served::Later(Work::Range(Box::new(long)), bytes)
            }
        })
    }

    /// Writes the native answer if it is short; otherwise its beginning, aside.
    fn draft(
        &mut self,
        connection: &mut Connection,
        view: &View<'_, Snapshot<'_>>,
        (header, request): (&api::Header, u64),
        mut walk: RangeWalk<'_>,
        bytes_max: usize,
    ) -> Result<Served, Failure> {
        let out = &mut connection.output;
        let mut encoder = RangeEncoder::new(out, &mut self.scratch, request, bytes_max);
        let stand = native::write(&mut walk, view, &mut encoder)?;
        if matches!(stand, Stand::Pause | Stand::Full) {
            let too_long = match bytes_max < limits::RESPONSE_BYTES_MAX {
                true => api::Error::TooManyRequests,
                false => api::Error::ResponseTooLarge,
            };
            let (walk, draft) = (walk.into_owned(), encoder.put_aside());
            let bytes = walk.bytes();
            let drafted = DraftedRange::new(walk, *header, draft, too_long);
            return Ok(Served::Later(Work::Drafted(Box::new(drafted)), bytes));
        }
        let finished = encoder.finish(header, walk.summary(view)?);
        finished.map_err(|_| api::Error::ResponseTooLarge)?;
        Ok(Served::Whole)
    }
}

/// Writes the answer if it is short; says whether it is.
fn write_first(
    mut walk: RangeWalk<'_>,
    view: &View<'_, Snapshot<'_>>,
    header: &api::Header,
    range: &api::RangeRequest<'_>,
    bytes_max: usize,
    connection: &mut Connection,
) -> Result<bool, Failure> {
    let mut encoder = etcd::RangeEncoder::new(&mut connection.output, header, bytes_max);
    let stand = walk.step(view, limits::SLICE_ENTRIES, &mut |item| {
        encoder.push(apply::pair(range.keys_only, item)?);
        Ok(!encoder.full())
    })?;
    if matches!(stand, Stand::Pause | Stand::Full) {
        return Ok(false);
    }
    let summary = walk.summary(view)?;
    Ok(encoder.finish(summary).is_ok())
}

/// A stream of one message: a single key, or a count.
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
