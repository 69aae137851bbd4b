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

/// No history has a larger tree: there are fewer than 2^63 events.
const RANK_MAX: u8 = 62;

/// More than the trees of any history behind the first: their ranks differ.
pub(super) const DIGITS_MAX: usize = RANK_MAX as usize + 2;

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

/// Bytes of an archived digit.
pub(super) const DIGIT: usize = size_of::<ArchivedDigit>();

const _: () = assert!(DIGIT == 13 && align_of::<ArchivedDigit>() == 1);

impl Digit {
    /// Events in the tree.
    pub fn weight(self) -> u64 {
        (2u64 << self.rank.min(RANK_MAX)) - 1
    }

    fn encode(self, place: &mut [u8; DIGIT]) {
        place[..8].copy_from_slice(&self.root.main.to_le_bytes());
        place[8..12].copy_from_slice(&self.root.sub.to_le_bytes());
        place[12] = self.rank;
    }

    fn decode(bytes: &[u8; DIGIT]) -> Digit {
        let archived = ArchivedDigit {
            root: super::revision::ArchivedRevision {
                main: i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")).into(),
                sub: u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")).into(),
            },
            rank: bytes[12],
        };
        Digit::from(&archived)
    }
}

impl From<&ArchivedDigit> for Digit {
    fn from(archived: &ArchivedDigit) -> Digit {
        Digit {
            root: Revision::from(&archived.root),
            rank: archived.rank,
        }
    }
}

/// Whether these trees can be the events of a key: roots descend, and sizes ascend, where only
/// the first two may be equal.
pub(super) fn is_history(first: Digit, older: impl Iterator<Item = Digit>) -> bool {
    let mut last = first;
    let mut fits = first.rank <= RANK_MAX;
    for (at, digit) in older.enumerate() {
        let grows = digit.rank > last.rank || at == 0 && digit.rank == last.rank;
        fits &= grows && digit.rank <= RANK_MAX;
        fits &= digit.root < last.root && digit.root.main > 0;
        last = digit;
    }
    fits
}

/// All trees of a key: the first, and the others archived, newest first.
///
/// It is filled and changed in place, since it is large beside what it mostly holds.
#[derive(Debug)]
pub(super) struct Digits {
    first: Option<Digit>,
    /// Invariant: the first `len` are archived digits; `len < DIGITS_MAX`, and 0 without a first.
    older: [[u8; DIGIT]; DIGITS_MAX],
    len: usize,
}

impl Digits {
    pub fn new() -> Digits {
        Digits {
            first: None,
            older: [[0; DIGIT]; DIGITS_MAX],
            len: 0,
        }
    }

    /// The digits of an entry; `older` as archived, shorter than [`DIGITS_MAX`].
    pub fn fill(&mut self, first: Digit, older: &[u8]) {
        let (older, rest) = older.as_chunks::<DIGIT>();
        assert!(rest.is_empty(), "whole digits");
        self.first = Some(first);
        self.len = older.len();
        self.older[..self.len].copy_from_slice(older);
    }

    /// The tree whose root is the newest event.
    pub fn first(&self) -> Option<Digit> {
        self.first
    }

    /// The other trees, archived.
    pub fn older(&self) -> &[u8] {
        self.older[..self.len].as_flattened()
    }

    /// Adds the newest event; returns its jump. Trees that `compacted` has overtaken are
    /// forgotten: no read may go there any more.
    pub fn push(&mut self, event: Revision, compacted: i64) -> Revision {
        let readable = |digit: &Digit| digit.root.main > compacted;
        let Some(first) = self.first.filter(readable) else {
            self.first = Some(Digit {
                root: event,
                rank: 0,
            });
            self.len = 0;
            return Revision::NONE;
        };
        let older = self.older[..self.len].iter();
        self.len = older
            .take_while(|digit| readable(&Digit::decode(digit)))
            .count();
        let second = self.older[..self.len].first().map(Digit::decode);
        if second.is_some_and(|second| second.rank == first.rank) {
            self.older.copy_within(1..self.len, 0);
            self.len -= 1;
            self.first = Some(Digit {
                root: event,
                rank: first.rank + 1,
            });
        } else {
            assert!(self.len + 1 < DIGITS_MAX, "more trees than any history has");
            self.older.copy_within(0..self.len, 1);
            self.len += 1;
            first.encode(&mut self.older[0]);
            self.first = Some(Digit {
                root: event,
                rank: 0,
            });
        }
        match self.older[..self.len].first() {
            Some(next) => Digit::decode(next).root,
            None => Revision::NONE,
        }
    }
}
