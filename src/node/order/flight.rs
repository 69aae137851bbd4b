//! The batches of this member's fronts between acceptance and application.

use crate::node::messages::ProposalBatch;
use crate::propose::command::BatchId;
use std::collections::VecDeque;

/// All of them, with what they amount to. Batches are bounded here, so that whatever happens to
/// the quorum, the memory that waits for it does not grow.
#[derive(Debug)]
pub(super) struct Flights {
    max_bytes: usize,
    max_commands: usize,
    bytes: usize,
    commands: usize,
    /// Taken in this turn; not yet proposed.
    gathered: Vec<ProposalBatch>,
    /// Proposed, in the order of their entries in the log.
    proposed: VecDeque<ProposalBatch>,
}

impl Flights {
    pub fn new(max_bytes: usize, max_commands: usize) -> Flights {
        Flights {
            max_bytes,
            max_commands,
            bytes: 0,
            commands: 0,
            gathered: Vec::new(),
            proposed: VecDeque::new(),
        }
    }

    /// How many commands there are.
    pub fn commands(&self) -> usize {
        self.commands
    }

    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.proposed.is_empty()
    }

    /// Takes a batch, or gives it back if there are too many. With nothing in flight any batch
    /// is taken, whatever its size.
    pub fn take(&mut self, batch: ProposalBatch) -> Result<(), ProposalBatch> {
        let full = self.bytes + batch.bytes.len() > self.max_bytes
            || self.commands + batch.count as usize > self.max_commands;
        if full && !self.is_empty() {
            return Err(batch);
        }
        self.bytes += batch.bytes.len();
        self.commands += batch.count as usize;
        self.gathered.push(batch);
        Ok(())
    }

    /// What waits to be proposed.
    pub fn gathered(&self) -> &[ProposalBatch] {
        &self.gathered
    }

    /// Everything gathered is in the log now.
    pub fn proposed(&mut self) {
        self.proposed.extend(self.gathered.drain(..));
    }

    /// Nothing gathered will enter the log.
    pub fn refuse_gathered(&mut self, mut refused: impl FnMut(ProposalBatch)) {
        for flight in std::mem::take(&mut self.gathered) {
            self.forget(&flight);
            refused(flight);
        }
    }

    /// A batch of this member and this run is being applied: whether its commands still wait
    /// for answers. Those proposed before it and not applied never will be: they are `lost`.
    pub fn applied(&mut self, id: BatchId, mut lost: impl FnMut(ProposalBatch)) -> bool {
        let same =
            |flight: &ProposalBatch| (flight.front.0, flight.sequence) == (id.front, id.sequence);
        let Some(at) = self.proposed.iter().position(same) else {
            return false;
        };
        for _ in 0..at {
            if let Some(flight) = self.proposed.pop_front() {
                self.forget(&flight);
                lost(flight);
            }
        }
        if let Some(flight) = self.proposed.pop_front() {
            self.forget(&flight);
        }
        true
    }

    /// Leadership is lost: what was proposed may or may not come to be applied. If it does, it
    /// finds nobody waiting.
    pub fn lose_proposed(&mut self, mut lost: impl FnMut(ProposalBatch)) {
        for flight in std::mem::take(&mut self.proposed) {
            self.forget(&flight);
            lost(flight);
        }
    }

    fn forget(&mut self, flight: &ProposalBatch) {
        self.bytes -= flight.bytes.len();
        self.commands -= flight.count as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::messages::FrontId;

    fn batch(sequence: u64, len: usize) -> ProposalBatch {
        ProposalBatch {
            front: FrontId(2),
            sequence,
            count: 1,
            bytes: vec![0; len].into(),
        }
    }

    fn id(front: u16, sequence: u64) -> BatchId {
        BatchId {
            member: 1,
            boot: 1,
            front,
            sequence,
        }
    }

    #[test]
    fn what_is_in_flight_is_bounded_and_room_comes_back() {
        let mut flights = Flights::new(100, 2);
        assert!(flights.take(batch(1, 1000)).is_ok(), "alone, any size");
        assert!(flights.take(batch(2, 1)).is_err());
        flights.proposed();
        assert!(flights.take(batch(2, 1)).is_err(), "until it is applied");
        assert!(flights.applied(id(2, 1), |_| panic!("nothing was lost")));
        assert!(flights.take(batch(2, 1)).is_ok());
        assert!(flights.take(batch(3, 1)).is_ok());
        assert_eq!(
            flights.take(batch(4, 1)).unwrap_err().sequence,
            4,
            "commands count too"
        );
        let mut refused = Vec::new();
        flights.refuse_gathered(|flight| refused.push(flight.sequence));
        assert_eq!(refused, [2, 3]);
        assert!(flights.is_empty() && flights.bytes == 0 && flights.commands == 0);
    }

    #[test]
    fn batches_are_known_by_name() {
        let mut flights = Flights::new(1000, 100);
        for sequence in 1..=4 {
            flights.take(batch(sequence, 10)).unwrap();
        }
        flights.proposed();
        assert!(!flights.applied(id(1, 1), |_| panic!("another front's")));
        assert!(!flights.applied(id(2, 9), |_| panic!("never proposed")));
        let mut lost = Vec::new();
        assert!(flights.applied(id(2, 2), |flight| lost.push(flight.sequence)));
        flights.lose_proposed(|flight| lost.push(flight.sequence));
        assert_eq!(lost, [1, 3, 4]);
        assert!(!flights.applied(id(2, 3), |_| panic!("already answered")));
        assert_eq!((flights.bytes, flights.commands), (0, 0));
    }
}
