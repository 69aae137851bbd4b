//! Long answers to ranges. One of a single message is read twice: first for its length, from the
//! key tree alone, and then piece by piece. Of a stream of messages each piece is one.
#![forbid(unsafe_code)]

use super::Slice;
use crate::api::{self, Header};
use crate::apply::{self, Failure, RangeWalk, Stand};
use crate::etcd::{self, sized};
use crate::limits;
use quoin_storage::mvcc::{self, View};
use quoin_storage::tree::{TreeId, TreeRead};

/// A range whose answer is given in pieces.
#[derive(Debug)]
pub struct LongRange {
    header: Header,
    /// Where the answer goes on.
    walk: RangeWalk<'static>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Each piece is a message.
    Streaming,
    /// The length of the message is being found.
    Sizing {
        probe: RangeWalk<'static>,
        bytes: u64,
        pairs: usize,
    },
    /// Its pairs are being written.
    Writing {
        message: sized::SizedRange,
        /// What is still to come.
        pairs: usize,
        bytes: u64,
    },
}

impl LongRange {
    /// The whole answer as one message.
    pub fn whole(walk: RangeWalk<'static>, header: Header) -> LongRange {
        let phase = Phase::Sizing {
            probe: walk.clone(),
            bytes: 0,
            pairs: 0,
        };
        LongRange {
            header,
            walk,
            phase,
        }
    }

    /// The answer as a stream of messages.
    pub fn stream(walk: RangeWalk<'static>, header: Header) -> LongRange {
        LongRange {
            header,
            walk,
            phase: Phase::Streaming,
        }
    }

    /// The revision that it reads.
    pub fn revision(&self) -> i64 {
        self.walk.revision()
    }

    /// Works on.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        // It began before any compaction that has come since.
        let view = &view.unpurged();
        match &mut self.phase {
            Phase::Streaming => self.write_chunk(view, out),
            Phase::Sizing {
                probe,
                bytes,
                pairs,
            } => {
                if size(probe, view, bytes, pairs)? == Stand::Pause {
                    return Ok(Slice::Working);
                }
                let message = sized::SizedRange {
                    closing: (self.header, probe.summary(view)?),
                    bytes: *bytes,
                };
                let begun = message.begin(out);
                begun.map_err(|etcd::TooLong| api::Error::ResponseTooLarge)?;
                self.walk.allow(*pairs);
                self.phase = Phase::Writing {
                    message,
                    pairs: *pairs,
                    bytes: *bytes,
                };
                self.write(view, out)
            }
            Phase::Writing { .. } => self.write(view, out),
        }
    }

    /// Writes a message of a stream.
    fn write_chunk<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        make_room(out, limits::PIECE_BYTES);
        let chunk = sized::Chunk::begin(out);
        let keys_only = self.walk.is_keys_only();
        let stand = self.walk.step(view, limits::SLICE_ENTRIES, &mut |item| {
            if chunk.bytes(out) >= limits::PIECE_BYTES {
                return Ok(false);
            }
            sized::put_pair(out, &apply::pair(keys_only, item)?);
            Ok(true)
        })?;
        Ok(match stand {
            Stand::End | Stand::Limit => {
                let summary = self.walk.summary(view)?;
                chunk.finish(out, Some((self.header, summary)));
                Slice::Last
            }
            Stand::Pause | Stand::Full if chunk.bytes(out) == 0 => {
                chunk.drop(out);
                Slice::Working
            }
            Stand::Pause | Stand::Full => {
                chunk.finish(out, None);
                Slice::Piece
            }
        })
    }

    /// Writes pairs of the message, and its end behind the last.
    fn write<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        let Phase::Writing {
            message,
            pairs,
            bytes,
        } = &mut self.phase
        else {
            return Ok(Slice::Working);
        };
        let before = out.len();
        if *pairs > 0 {
            let rest = usize::try_from(*bytes).unwrap_or(usize::MAX);
            make_room(out, rest.min(limits::PIECE_BYTES));
            let keys_only = self.walk.is_keys_only();
            let stand = self.walk.step(view, limits::SLICE_ENTRIES, &mut |item| {
                if *pairs == 0 || out.len() - before >= limits::PIECE_BYTES {
                    return Ok(false);
                }
                let at = out.len();
                sized::put_pair(out, &apply::pair(keys_only, item)?);
                *bytes = bytes.saturating_sub((out.len() - at) as u64);
                *pairs -= 1;
                Ok(true)
            })?;
            if *pairs > 0 {
                return match stand {
                    Stand::End | Stand::Limit => Err(changed()),
                    _ if out.len() == before => Ok(Slice::Working),
                    _ => Ok(Slice::Piece),
                };
            }
        }
        if *bytes != 0 {
            return Err(changed());
        }
        message.end(out);
        Ok(Slice::Last)
    }
}

/// Makes room for so many bytes and the pair that goes beyond them, at once: growing step by step,
/// or out of a smaller buffer, copies what there is.
fn make_room(out: &mut Vec<u8>, bytes: usize) {
    let room = bytes + 2 * limits::KIB;
    if out.is_empty() && out.capacity() < room {
        *out = Vec::with_capacity(room);
    } else {
        out.reserve(room);
    }
}

/// Adds up what the pairs will take, without looking at a value.
fn size<T: TreeRead>(
    probe: &mut RangeWalk<'static>,
    view: &View<'_, T>,
    bytes: &mut u64,
    pairs: &mut usize,
) -> Result<Stand, Failure> {
    let keys_only = probe.is_keys_only();
    probe.step(view, limits::SLICE_ENTRIES, &mut |item| {
        let value = match keys_only {
            true => 0,
            false => item.latest.value_len as usize,
        };
        *bytes += sized::pair_bytes(&apply::key_only(item.key, &item.latest), value);
        *pairs += 1;
        Ok(true)
    })
}

/// What was read at one revision must be the same when it is read again.
fn changed() -> Failure {
    Failure::Broken(mvcc::Error::Corrupt {
        tree: TreeId::Key,
        key: Box::default(),
        what: "pairs of another length than at the first reading",
    })
}
