//! Committed entries on their way into the store, and the outcomes on their way back.

use super::answers::AnswerRooms;
use super::{Durable, Fatal, OrderConfig};
use crate::apply::{self, Applier, Failure};
use crate::consensus::confchange::encode_conf_state;
use crate::consensus::confchange::voters;
use crate::consensus::{Committed, CommittedData, Core};
use crate::node::messages::{Outcome, Reply};
use crate::propose::command::{Batch, BatchId};
use crate::propose::waiters::WaiterId;
use crate::wire;
use std::collections::VecDeque;

/// The number of no front.
const NOBODY: u16 = u16::MAX;

/// Whom the outcome of a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    front: u16,
    waiter: WaiterId,
}

impl Asker {
    /// The number of the front that waits, or of none.
    pub(super) fn front(self) -> u16 {
        self.front
    }

    #[cfg(test)]
    pub(super) fn of(front: u16) -> Asker {
        let waiter = WaiterId(0);
        Asker { front, waiter }
    }
}

/// What was applied in a turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Applied {
    pub entries: u64,
    pub bytes: u64,
}

/// Decodes, applies, and sorts the outcomes. Keeps its buffers from turn to turn.
#[derive(Debug)]
pub(super) struct Applying {
    member: u64,
    boot: u64,
    outcomes: Vec<(Asker, Outcome)>,
    /// What the answers among them, and those under way to the fronts, may hold.
    pub rooms: AnswerRooms,
}

impl Applying {
    pub fn new(member: u64, boot: u64, fronts: u16) -> Applying {
        Applying {
            member,
            boot,
            outcomes: Vec::new(),
            rooms: AnswerRooms::new(fronts),
        }
    }

    /// Applies entries from the front of the queue, within the bounds of a turn. `waits` says
    /// whether anybody waits for the outcomes of a batch of this member and run.
    pub fn run<S: Durable>(
        &mut self,
        committed: &mut VecDeque<Committed>,
        config: &OrderConfig,
        core: &mut Core,
        applier: &mut Applier<S, Asker>,
        mut waits: impl FnMut(BatchId) -> bool,
    ) -> Result<Applied, Fatal> {
        let taken = take_turn(committed, config);
        let mut entries = Vec::with_capacity(taken.len());
        let mut applied = Applied::default();
        for entry in &taken {
            let index = entry.index;
            let mut next = apply::Entry {
                index,
                term: entry.term,
                bytes: 0,
                conf_state: None,
                commands: Vec::new(),
            };
            match &entry.data {
                CommittedData::Empty => {}
                CommittedData::Change(data) => next.conf_state = Some(core.apply_change(data)),
                CommittedData::Batch(data) => {
                    let batch =
                        Batch::decode(data).map_err(|error| Fatal::Entry { index, error })?;
                    next.bytes = data.len();
                    next.commands = self.commands(&batch, index, &mut waits)?;
                }
            }
            // The founding voters become part of the store with the very first entry.
            if applier.meta().conf_state.is_empty() && entries.is_empty() {
                next.conf_state
                    .get_or_insert_with(|| encode_conf_state(&voters(&config.voters)));
            }
            applied.entries += 1;
            applied.bytes += next.bytes as u64;
            entries.push(next);
        }
        self.rooms.begin_turn();
        applier
            .apply(&entries, &mut self.rooms, &mut self.outcomes)
            .map_err(Fatal::Store)?;
        Ok(applied)
    }

    fn commands<'e>(
        &self,
        batch: &Batch<'e>,
        index: u64,
        waits: &mut impl FnMut(BatchId) -> bool,
    ) -> Result<Vec<apply::Command<'e, Asker>>, Fatal> {
        let id = batch.id();
        let ours = (id.member, id.boot) == (self.member, self.boot);
        let front = if ours && waits(id) { id.front } else { NOBODY };
        let mut commands = Vec::with_capacity(batch.count() as usize);
        for (at, command) in batch.commands().enumerate() {
            let request = wire::decode_request(command.kind.wire_kind(), command.body)
                .map_err(|error| Fatal::Command { index, at, error })?;
            let waiter = Asker {
                front,
                waiter: WaiterId(command.waiter),
            };
            commands.push(apply::Command { waiter, request });
        }
        Ok(commands)
    }

    /// Takes one slice of compaction.
    pub fn purge<S: Durable>(
        &mut self,
        applier: &mut Applier<S, Asker>,
        events: usize,
    ) -> Result<(), Failure> {
        applier.background(events, &mut self.outcomes)
    }

    /// Sorts the outcomes by front; what nobody waits for is dropped.
    pub fn take_replies(&mut self, replies: &mut [Vec<Reply>]) {
        for (asker, outcome) in self.outcomes.drain(..) {
            if let Some(replies) = replies.get_mut(usize::from(asker.front)) {
                replies.push(Reply {
                    waiter: asker.waiter,
                    outcome,
                });
            }
        }
    }
}

/// Takes as many entries as one turn may apply, at least one.
fn take_turn(committed: &mut VecDeque<Committed>, config: &OrderConfig) -> Vec<Committed> {
    let (mut commands, mut bytes) = (0, 0);
    let over = committed.iter().position(|entry| {
        let over = commands >= config.commands_per_turn || bytes >= config.bytes_per_turn;
        if let CommittedData::Batch(data) = &entry.data {
            // A batch that cannot be read counts for nothing; it ends the process anyway.
            commands += Batch::head(data).map_or(0, |(_, count)| count as usize);
            bytes += data.len();
        }
        over
    });
    let take = over.unwrap_or(committed.len());
    committed.drain(..take).collect()
}
