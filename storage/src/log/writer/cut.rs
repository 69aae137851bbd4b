//! Takes entries off the front of the log, and frees the segments that held them.

use super::{BLOCK, Batch, Cut, Edge, HardState, LogError, LogWriter, State};

impl LogWriter {
    /// Lets go of the entries up to `index`, which were written by [`LogWriter::flush`].
    /// Segments with nothing else are recycled. Durable on return, if a segment became free;
    /// otherwise with the next write of a hard state. What is staged stays so.
    pub fn cut(&mut self, index: u64) -> Result<(), LogError> {
        self.check_open()?;
        assert!(
            index <= self.durable.last_index,
            "the log cannot be cut at {index}, it ends at {}",
            self.durable.last_index
        );
        if index > self.cut.index {
            let term = self
                .term(index)
                .expect("the index lies between the cut and the end");
            self.cut = Cut { index, term };
            while self.terms.get(1).is_some_and(|(from, _)| *from <= index) {
                self.terms.pop_front();
            }
        }
        // A segment goes only if all before it go.
        let keep = self
            .sealed
            .iter()
            .find(|sealed| sealed.max_index > self.cut.index);
        let oldest = keep.map_or(self.active.header.sequence, |kept| kept.header.sequence);
        if oldest == self.oldest() {
            return Ok(());
        }
        self.make_room_for_state()?;
        self.write_state(oldest, false)
    }

    /// Replaces the whole log by a snapshot that ends with the entry `index` of `term`:
    /// no entry is left, and the next one is `index + 1`. Nothing may be staged.
    pub fn reset(&mut self, hard_state: &HardState, index: u64, term: u64) -> Result<(), LogError> {
        self.check_open()?;
        assert!(self.batch.is_empty(), "staged entries would be lost");
        assert!(
            index >= self.cut.index && hard_state.commit <= index,
            "a snapshot at {index} lies before the cut at {} or the commit index {}",
            self.cut.index,
            hard_state.commit
        );
        self.make_room_for_state()?;
        self.cut = Cut { index, term };
        self.terms.clear();
        self.terms.push_back((index, term));
        self.durable = Edge {
            hard_state: *hard_state,
            last_index: index,
            last_term: term,
        };
        self.staged = self.durable;
        self.write_state(self.active.header.sequence, true)
    }

    /// Each segment keeps a block in reserve for a state, so that a full disk does not keep a cut
    /// from freeing segments. If even that is used up, the state that used it freed one.
    fn make_room_for_state(&mut self) -> Result<(), LogError> {
        if self.active.file.bytes - self.active.end < BLOCK as u64 {
            self.rotate()?;
        }
        Ok(())
    }

    /// Makes the cut durable in a write of its own, and then frees the segments before `oldest`.
    fn write_state(&mut self, oldest: u64, reset: bool) -> Result<(), LogError> {
        let mut batch = Batch::new();
        batch.push_state(&State {
            hard_state: self.durable.hard_state,
            cut: self.cut,
            oldest,
            reset,
        });
        std::mem::swap(&mut batch, &mut self.batch);
        let staged = std::mem::replace(&mut self.staged, self.durable);
        let max_index = std::mem::take(&mut self.batch_max_index);
        self.write_batch(oldest)?;
        self.batch = batch;
        self.staged = staged;
        self.batch_max_index = max_index;
        while self.oldest() < oldest {
            let freed = self.sealed.pop_front().expect("older segments are sealed");
            self.free.push(freed.file);
        }
        self.drop_misfits()
    }
}
