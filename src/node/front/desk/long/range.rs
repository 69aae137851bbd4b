//! Long answers to ranges over HTTP. The length of a single message stands before it, so it is
//! found first: in the order of the keys from a first reading, of the key tree alone, in another
//! while they are sorted. Of a stream of messages each piece is one.
#![forbid(unsafe_code)]

use super::Slice;
use crate::api::{self, Header, RangeSummary};
use crate::apply::{self, Failure, RangeParts, RangeWalk, Stand};
use crate::etcd::{self, sized};
use crate::limits;
use quoin_storage::mvcc::{self, View};
use quoin_storage::tree::{TreeId, TreeRead};

/// Steps of one slice of a count.
const STEPS_MAX: u64 = limits::SLICE_ENTRIES as u64;

/// A range whose answer is given in pieces, each of whole fields.
#[derive(Debug)]
pub struct LongRange {
    header: Header,
    /// Where the answer goes on.
    parts: RangeParts<'static>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Each piece is a message.
    Streaming,
    /// The length of the pairs is being found; in the order of the keys by a walk ahead.
    Sizing {
        ahead: Option<RangeWalk<'static>>,
        bytes: u64,
        pairs: usize,
    },
    /// What closes the message is being found: its length is a part of the message's.
    Closing {
        ahead: Option<RangeWalk<'static>>,
        bytes: u64,
        pairs: usize,
    },
    /// The pairs are being written.
    Writing {
        message: sized::SizedRange,
        /// What is still to come.
        pairs: usize,
        bytes: u64,
    },
}

impl LongRange {
    /// The whole answer as one message.
    pub fn whole(parts: RangeParts<'static>, header: Header) -> LongRange {
        let ahead = match &parts {
            RangeParts::Keys(walk) => Some(walk.clone()),
            RangeParts::Sorted(_) | RangeParts::Count(_) => None,
        };
        LongRange {
            header,
            parts,
            phase: Phase::Sizing {
                ahead,
                bytes: 0,
                pairs: 0,
            },
        }
    }

    /// The answer as a stream of messages.
    pub fn stream(parts: RangeParts<'static>, header: Header) -> LongRange {
        LongRange {
            header,
            parts,
            phase: Phase::Streaming,
        }
    }

    /// The revision that it reads.
    pub fn revision(&self) -> i64 {
        self.parts.revision()
    }

    /// About how many entries of the tree it has looked at in order to give them.
    pub fn looked_at(&self) -> usize {
        self.parts.looked_at()
    }

    /// Bytes of memory that it takes beside a piece.
    pub fn bytes(&self) -> usize {
        self.parts.bytes()
    }

    /// Works on.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        // It began before any compaction that has come since.
        let view = &view.unpurged();
        if let Phase::Streaming = self.phase {
            return self.write_chunk(view, out);
        }
        let ready = self.size(view)? && self.close(view, out)?;
        match ready {
            true => self.write(view, out),
            false => Ok(Slice::Working),
        }
    }

    /// Writes a message of a stream. If the count takes longer than the pairs, the last has none.
    fn write_chunk<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        make_room(out, limits::PIECE_BYTES);
        let chunk = sized::Chunk::begin(out);
        let stand = self.parts.give(view, limits::SLICE_ENTRIES, &mut |kv| {
            if chunk.bytes(out) >= limits::PIECE_BYTES {
                return false;
            }
            sized::put_pair(out, kv);
            true
        })?;
        let summary = match stand {
            Stand::End | Stand::Limit => self.parts.summary(view, STEPS_MAX)?,
            Stand::Pause | Stand::Full => None,
        };
        if let Some(summary) = summary {
            chunk.finish(out, Some((self.header, summary)));
            return Ok(Slice::Last);
        }
        if chunk.bytes(out) == 0 {
            chunk.drop(out);
            return Ok(Slice::Working);
        }
        chunk.finish(out, None);
        Ok(Slice::Piece)
    }

    /// Finds the length of the pairs, or a part of it; whether it is found.
    fn size<T: TreeRead>(&mut self, view: &View<'_, T>) -> Result<bool, Failure> {
        let Phase::Sizing {
            ahead,
            bytes,
            pairs,
        } = &mut self.phase
        else {
            return Ok(true);
        };
        match ahead {
            Some(ahead) => {
                if size(ahead, view, bytes, pairs)? == Stand::Pause {
                    return Ok(false);
                }
            }
            None => {
                if !self.parts.prepare(view, limits::SLICE_ENTRIES)? {
                    return Ok(false);
                }
                (*bytes, *pairs) = self.parts.totals().unwrap_or_default();
            }
        }
        self.phase = Phase::Closing {
            ahead: ahead.take(),
            bytes: *bytes,
            pairs: *pairs,
        };
        Ok(true)
    }

    /// Finds what closes the message, or works towards it; once it is found, begins the message.
    fn close<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        let Phase::Closing {
            ahead,
            bytes,
            pairs,
        } = &mut self.phase
        else {
            return Ok(true);
        };
        let summary: Option<RangeSummary> = match ahead {
            Some(ahead) => ahead.summary(view, STEPS_MAX)?,
            None => self.parts.summary(view, STEPS_MAX)?,
        };
        let Some(summary) = summary else {
            return Ok(false);
        };
        let message = sized::SizedRange {
            closing: (self.header, summary),
            bytes: *bytes,
        };
        let begun = message.begin(out);
        begun.map_err(|etcd::TooLong| api::Error::ResponseTooLarge)?;
        if let RangeParts::Keys(walk) = &mut self.parts {
            walk.allow(*pairs);
        }
        self.phase = Phase::Writing {
            message,
            pairs: *pairs,
            bytes: *bytes,
        };
        Ok(true)
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
            let stand = self.parts.give(view, limits::SLICE_ENTRIES, &mut |kv| {
                if *pairs == 0 || out.len() - before >= limits::PIECE_BYTES {
                    return false;
                }
                let at = out.len();
                sized::put_pair(out, kv);
                *bytes = bytes.saturating_sub((out.len() - at) as u64);
                *pairs -= 1;
                true
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
