//! The requests of one connection that wait to leave, or for their replies.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::calls::Call;
use super::error::ClientError;
use crate::wire;

/// Requests in their order, and who waits for each. `W` is told the outcome.
#[derive(Debug)]
pub(super) struct Pending<W> {
    /// Encoded, and not yet given to the system.
    out: Vec<u8>,
    /// Number of the batch that `out` gathers; all before it may have left.
    batch: u64,
    slots: Vec<Slot<W>>,
    free: Vec<u32>,
    /// Set once the connection is of no more use.
    dead: Option<ClientError>,
    /// When bytes last came.
    pub heard: Instant,
    /// Whether any reply ever came.
    pub served: bool,
}

#[derive(Debug)]
struct Slot<W> {
    /// Part of the id, so that a late or repeated reply never meets another request.
    generation: u32,
    waiting: Option<Waiting<W>>,
}

#[derive(Debug)]
struct Waiting<W> {
    waiter: W,
    write: bool,
    batch: u64,
}

impl<W> Pending<W> {
    pub fn new(now: Instant) -> Self {
        Pending {
            out: Vec::new(),
            batch: 0,
            slots: Vec::new(),
            free: Vec::new(),
            dead: None,
            heard: now,
            served: false,
        }
    }

    pub fn dead(&self) -> Option<&ClientError> {
        self.dead.as_ref()
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes that wait to leave.
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Queues a request whose frame must not exceed `frame_bytes_max`.
    pub fn push(
        &mut self,
        call: &Call<'_>,
        waiter: W,
        frame_bytes_max: usize,
    ) -> Result<(), ClientError> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone().not_sent());
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                // Bounded by the in-flight limit, a u32 of the server's.
                self.slots.push(Slot {
                    generation: 0,
                    waiting: None,
                });
                (self.slots.len() - 1) as u32
            }
        };
        let entry = &mut self.slots[slot as usize];
        // Never 0, so that no id is.
        entry.generation = entry.generation.wrapping_add(1).max(1);
        let id = u64::from(entry.generation) << 32 | u64::from(slot);
        let start = self.out.len();
        let encoded = call.encode(id, &mut self.out).and_then(|()| {
            match self.out.len() - start <= frame_bytes_max {
                true => Ok(()),
                false => Err(wire::Unencodable::TooLong),
            }
        });
        match encoded {
            Ok(()) => {
                let write = call.is_write();
                entry.waiting = Some(Waiting {
                    waiter,
                    write,
                    batch: self.batch,
                });
                Ok(())
            }
            Err(unencodable) => {
                self.out.truncate(start);
                self.free.push(slot);
                Err(unencodable.into())
            }
        }
    }

    /// Swaps what waits to leave against an empty buffer. From now on it may have left.
    pub fn take_batch(&mut self, spare: &mut Vec<u8>) {
        spare.clear();
        std::mem::swap(&mut self.out, spare);
        self.batch += 1;
    }

    /// Who waits for that reply; `None` for an id that was never given out, or twice answered.
    pub fn take(&mut self, id: u64) -> Option<W> {
        let slot = (id & u64::from(u32::MAX)) as u32;
        let entry = self.slots.get_mut(slot as usize)?;
        if u64::from(entry.generation) != id >> 32 {
            return None;
        }
        let waiting = entry.waiting.take()?;
        self.free.push(slot);
        self.served = true;
        Some(waiting.waiter)
    }

    /// Ends the connection; returns each waiter with its verdict. Later calls change nothing.
    pub fn fail(&mut self, error: &ClientError) -> Vec<(W, ClientError)> {
        if self.dead.is_some() {
            return Vec::new();
        }
        self.dead = Some(error.clone());
        self.out = Vec::new();
        let mut waiters = Vec::new();
        for slot in &mut self.slots {
            if let Some(waiting) = slot.waiting.take() {
                let left = waiting.batch < self.batch;
                waiters.push((waiting.waiter, error.for_request(waiting.write, left)));
            }
        }
        self.slots.clear();
        self.free.clear();
        waiters
    }
}
