//! Random histories of a log, and what must be found after any crash.

use super::*;
use std::collections::BTreeMap;

/// A seeded generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// One call of a log.
#[derive(Debug, Clone)]
pub enum Call {
    /// Several requests in one write.
    Write(Vec<(Option<HardState>, Vec<Entry>)>),
    Cut(u64),
    Reset(HardState, u64, u64),
    Idle,
    Spare,
}

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub hard_state: HardState,
    /// Every entry after the last reset, those that were cut included.
    pub entries: BTreeMap<u64, Entry>,
    pub last: u64,
    pub cut: u64,
    /// The log begins after this index since the last reset.
    pub floor: (u64, u64),
}

impl Model {
    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Write(requests) => {
                for (state, entries) in requests {
                    self.hard_state = state.unwrap_or(self.hard_state);
                    for entry in entries {
                        self.entries.split_off(&entry.index);
                        self.entries.insert(entry.index, entry.clone());
                        self.last = entry.index;
                    }
                }
            }
            Call::Cut(index) => self.cut = self.cut.max(*index),
            Call::Reset(state, index, term) => {
                *self = Model {
                    hard_state: *state,
                    entries: BTreeMap::new(),
                    last: *index,
                    cut: *index,
                    floor: (*index, *term),
                };
            }
            Call::Idle | Call::Spare => {}
        }
    }

    /// Whether a log that was recovered holds just this; it may remember an earlier cut.
    pub fn matches(&self, found: &Recovered) -> bool {
        let base = found.base_index;
        let base_term = match self.entries.get(&base) {
            Some(entry) => entry.term,
            None if base == self.floor.0 => self.floor.1,
            None => return false,
        };
        found.hard_state == self.hard_state
            && base <= self.cut
            && base_term == found.base_term
            && self
                .entries
                .range(base + 1..)
                .map(|(_, entry)| entry)
                .eq(&found.entries)
    }

    /// A call that Raft might make now.
    pub fn next_call(&self, random: &mut Random) -> Call {
        match random.below(20) {
            0..=13 => self.write(random),
            14..=15 if self.last > self.cut => {
                // Only what was committed is cut.
                Call::Cut(
                    self.cut + random.below(self.hard_state.commit.max(self.cut) - self.cut + 1),
                )
            }
            16 => Call::Spare,
            17 if random.below(4) == 0 => {
                let index =
                    self.cut + random.below(9) + u64::from(self.hard_state.commit > self.cut) * 20;
                let index = index.max(self.hard_state.commit);
                let term = self.hard_state.term + 1;
                Call::Reset(state(term, 0, index), index, term)
            }
            _ => Call::Idle,
        }
    }

    fn write(&self, random: &mut Random) -> Call {
        let mut after = self.clone();
        let mut requests = Vec::new();
        for _ in 0..1 + random.below(3) {
            let mut hard_state = after.hard_state;
            // Now and then a new leader replaces what was not committed.
            let mut next = after.last + 1;
            if random.below(6) == 0 {
                hard_state.term += 1;
                hard_state.vote = random.below(4);
                let safe = hard_state.commit.max(after.cut);
                next = safe + 1 + random.below(after.last - safe + 1);
            }
            let term = hard_state.term.max(1);
            hard_state.term = term;
            let mut entries = Vec::new();
            for index in next..next + random.below(4) {
                let len = match random.below(8) {
                    0 => random.below(4500),
                    1 => 0,
                    _ => random.below(300),
                };
                let mut entry = entry(index, term, len as usize);
                if random.below(4) == 0 {
                    entry.data.fill(0);
                }
                entries.push(entry);
            }
            let last = entries.last().map_or(next - 1, |entry| entry.index);
            let last = if entries.is_empty() { after.last } else { last };
            let old = hard_state.commit.max(after.cut);
            hard_state.commit = old + random.below(last - old + 1);
            let state = (random.below(2) == 0 || hard_state.term != after.hard_state.term)
                .then_some(hard_state);
            let request = (state, entries);
            after.apply(&Call::Write(vec![request.clone()]));
            requests.push(request);
        }
        Call::Write(requests)
    }
}

/// Makes a call; a model never sees one that fails.
pub fn call(log: &mut LogWriter, call: &Call) -> Result<(), LogError> {
    match call {
        Call::Write(requests) => {
            for (state, entries) in requests {
                log.stage(state.as_ref(), entries.iter().map(Entry::as_ref))?;
            }
            log.flush()
        }
        Call::Cut(index) => log.cut(*index),
        Call::Reset(state, index, term) => log.reset(state, *index, *term),
        Call::Idle => log.idle().map(|_| ()),
        Call::Spare => match log.spare() {
            Some(job) => log.spare_made(job.run()),
            None => Ok(()),
        },
    }
}
