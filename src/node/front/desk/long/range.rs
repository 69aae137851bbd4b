//! Long answers to ranges, whole or as a stream of messages: each message is read twice, first
//! for its length, from the key tree alone, and then piece by piece.
#![forbid(unsafe_code)]

use super::Slice;
use crate::api::{self, Header};
use crate::apply::{self, Failure, RangeWalk, Stand};
use crate::etcd::{self, sized, sized::SizedRange};
use crate::limits;
use quoin_storage::mvcc::{self, View};
use quoin_storage::tree::{TreeId, TreeRead};

/// A range whose answer is given in pieces.
#[derive(Debug)]
pub struct LongRange {
    header: Header,
    /// Where the message at hand goes on.
    walk: RangeWalk<'static>,
    /// There if the answer is a stream of messages.
    stream: Option<Chunks>,
    phase: Phase,
}

/// How a stream is divided.
#[derive(Debug)]
struct Chunks {
    /// The most pairs of the message at hand.
    pairs: usize,
    /// Bytes that a message should have.
    target: u64,
    /// Pairs that the request lets through from there on.
    left: usize,
}

#[derive(Debug)]
enum Phase {
    /// The length of a message is being found.
    Sizing {
        probe: RangeWalk<'static>,
        bytes: u64,
        pairs: usize,
    },
    /// Its pairs are being written.
    Writing {
        message: SizedRange,
        /// What is still to come.
        pairs: usize,
        bytes: u64,
        /// Where the message after it begins.
        next: RangeWalk<'static>,
    },
}

impl LongRange {
    /// The whole answer as one message.
    pub fn whole(walk: RangeWalk<'static>, header: Header) -> LongRange {
        LongRange {
            header,
            phase: Phase::of(&walk),
            walk,
            stream: None,
        }
    }

    /// The answer as a stream of messages of about `target` bytes.
    pub fn stream(mut walk: RangeWalk<'static>, header: Header, target: u64) -> LongRange {
        let left = walk.left();
        let pairs = left.min(sized::FIRST_CHUNK);
        walk.allow(pairs);
        LongRange {
            header,
            phase: Phase::of(&walk),
            walk,
            stream: Some(Chunks {
                pairs,
                target,
                left,
            }),
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
        if let Phase::Sizing {
            probe,
            bytes,
            pairs,
        } = &mut self.phase
        {
            let stand = size(probe, view, bytes, pairs)?;
            if stand == Stand::Pause {
                return Ok(Slice::Working);
            }
            let (next, bytes, pairs) = (probe.clone(), *bytes, *pairs);
            self.begin(view, stand, (next, bytes, pairs), out)?;
        }
        self.write(view, out)
    }

    /// Begins a message whose length is known.
    fn begin<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        stand: Stand,
        (next, bytes, pairs): (RangeWalk<'static>, u64, usize),
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let last = match &self.stream {
            Some(chunks) => stand == Stand::End || chunks.left == pairs,
            None => true,
        };
        let closing = match last {
            true => Some((self.header, next.summary(view)?)),
            false => None,
        };
        let message = SizedRange {
            streamed: self.stream.is_some(),
            closing,
            bytes,
        };
        let begun = message.begin(out);
        begun.map_err(|etcd::TooLong| api::Error::ResponseTooLarge)?;
        self.walk.allow(pairs);
        self.phase = Phase::Writing {
            message,
            pairs,
            bytes,
            next,
        };
        Ok(())
    }

    /// Writes pairs of the message at hand, and its end behind the last.
    fn write<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        let Phase::Writing {
            message,
            pairs,
            bytes,
            next,
        } = &mut self.phase
        else {
            return Ok(Slice::Working);
        };
        let before = out.len();
        if *pairs > 0 {
            // At once, and not by doubling, which copies all of it once more.
            let rest = usize::try_from(*bytes).unwrap_or(usize::MAX);
            out.reserve(rest.min(limits::PIECE_BYTES) + limits::KIB);
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
        let Some(chunks) = self.stream.as_mut().filter(|_| message.closing.is_none()) else {
            return Ok(Slice::Last);
        };
        chunks.left -= chunks.pairs;
        let pairs = sized::next_chunk(chunks.pairs, message.bytes, chunks.target);
        chunks.pairs = pairs.min(chunks.left);
        self.walk = next.clone();
        self.walk.allow(chunks.pairs);
        self.phase = Phase::of(&self.walk);
        Ok(Slice::Piece)
    }
}

impl Phase {
    fn of(walk: &RangeWalk<'static>) -> Phase {
        Phase::Sizing {
            probe: walk.clone(),
            bytes: 0,
            pairs: 0,
        }
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
