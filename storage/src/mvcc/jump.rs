//! The pointers that make a walk into the past logarithmic.
//!
//! The events of a key, newest first, are cut into complete trees whose sizes are digits of the
//! skew-binary number of events (Okasaki's random access list, Myers' applicative stack): sizes
//! 2^(rank+1) - 1, ascending, where only the two smallest may be equal. The newest event is
//! the root of the first tree. An event's jump leads to the root of the tree behind its own,
//! so it skips everything below it.
//!
//! The key tree's entry keeps the roots. A new event merges the first two trees under itself if
//! they are equally large, or else starts a tree of its own, and thus finds its jump without
//! reading any older event.

use super::revision::Revision;

/// No history has more trees: sizes at least double, and there are fewer than 2^63 events.
pub(super) const DIGITS_MAX: usize = 64;

/// One complete tree of events.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub(super) struct Digit {
    /// The newest event of the tree.
    pub root: Revision,
    /// The tree has 2^(rank+1) - 1 events.
    pub rank: u8,
}

impl Digit {
    /// Events in the tree.
    pub fn weight(self) -> u64 {
        (2u64 << u32::from(self.rank).min(62)) - 1
    }
}

/// All trees of a key, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digits {
    /// Invariant: `len <= DIGITS_MAX + 1`; the rest is unused.
    digits: [Digit; DIGITS_MAX + 1],
    len: usize,
}

impl Digits {
    pub fn new() -> Digits {
        let digits = [Digit::default(); DIGITS_MAX + 1];
        Digits { digits, len: 0 }
    }

    /// Appends an older tree; `false` if there is no room, which no true history can cause.
    #[must_use]
    pub fn append(&mut self, digit: Digit) -> bool {
        let Some(place) = self.digits.get_mut(self.len) else {
            return false;
        };
        *place = digit;
        self.len += 1;
        true
    }

    pub fn as_slice(&self) -> &[Digit] {
        &self.digits[..self.len]
    }

    /// Adds the newest event; returns its jump. Trees that `compacted` has overtaken are
    /// forgotten: no read may go there any more.
    pub fn push(&mut self, event: Revision, compacted: i64) -> Revision {
        let live = self
            .as_slice()
            .iter()
            .take_while(|d| d.root.main > compacted)
            .count();
        self.len = live;
        match *self.as_slice() {
            [a, b, ..] if a.rank == b.rank => {
                self.digits.copy_within(2..self.len, 1);
                self.len -= 1;
                self.digits[0] = Digit {
                    root: event,
                    rank: a.rank + 1,
                };
            }
            _ => {
                assert!(self.len <= DIGITS_MAX, "more trees than any history has");
                self.digits.copy_within(0..self.len, 1);
                self.len += 1;
                self.digits[0] = Digit {
                    root: event,
                    rank: 0,
                };
            }
        }
        self.as_slice().get(1).map_or(Revision::NONE, |d| d.root)
    }
}
