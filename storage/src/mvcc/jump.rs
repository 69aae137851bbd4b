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
//! reading any older event. In the entry a digit is told by how it differs from the one before.

use super::number::{Bytes, take_byte, take_number, take_u32};
use super::revision::Revision;

/// No history has a larger tree: there are fewer than 2^63 events.
const RANK_MAX: u8 = 62;

/// More than the trees of any history behind the first: their ranks differ.
pub(super) const DIGITS_MAX: usize = RANK_MAX as usize + 2;

/// One complete tree of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digit {
    /// The newest event of the tree.
    pub root: Revision,
    /// The tree has 2^(rank+1) - 1 events.
    pub rank: u8,
}

/// The most bytes of a stored digit.
pub(super) const DIGIT_MAX: usize = 16;

impl Digit {
    /// Events in the tree.
    pub fn weight(self) -> u64 {
        (2u64 << self.rank.min(RANK_MAX)) - 1
    }

    /// Appends what is stored of a digit that follows `newer`: how much its rank is above that
    /// one's, whether its root has a place in its transaction to tell, how far back the root lies.
    pub fn encode_after<const N: usize>(self, newer: Digit, out: &mut Bytes<N>) {
        debug_assert!(self.rank >= newer.rank && self.root < newer.root);
        let has_sub = self.root.sub != 0;
        out.byte((self.rank - newer.rank) << 1 | u8::from(has_sub));
        out.number((newer.root.main - self.root.main) as u64);
        if has_sub {
            out.number(self.root.sub.into());
        }
    }
}

/// A stored digit that is none.
#[derive(Debug)]
pub(super) struct Malformed;

/// The digits that are stored behind `first`, newest first.
pub(super) fn older_than(
    first: Digit,
    stored: &[u8],
) -> impl Iterator<Item = Result<Digit, Malformed>> + use<'_> {
    let (mut newer, mut rest) = (first, stored);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let digit = take_digit(newer, &mut rest).ok_or(Malformed);
        match &digit {
            Ok(digit) => newer = *digit,
            Err(Malformed) => rest = &[],
        }
        Some(digit)
    })
}

fn take_digit(newer: Digit, bytes: &mut &[u8]) -> Option<Digit> {
    let head = take_byte(bytes)?;
    let distance = i64::try_from(take_number(bytes)?).ok()?;
    let has_sub = head & 1 != 0;
    let sub = if has_sub { take_u32(bytes)? } else { 0 };
    let root = Revision {
        main: newer.root.main.checked_sub(distance)?,
        sub,
    };
    let rank = newer.rank.checked_add(head >> 1)?;
    (has_sub == (sub != 0)).then_some(Digit { root, rank })
}

/// Whether these trees can be the events of a key: roots descend, and sizes ascend, where only
/// the first two may be equal.
pub(super) fn is_history(first: Digit, stored: &[u8]) -> bool {
    let mut last = first;
    if first.rank > RANK_MAX {
        return false;
    }
    for (at, digit) in older_than(first, stored).enumerate() {
        let Ok(digit) = digit else { return false };
        let grows = digit.rank > last.rank || at == 0 && digit.rank == last.rank;
        let fits = grows && digit.rank <= RANK_MAX;
        if !fits || digit.root >= last.root || digit.root.main <= 0 {
            return false;
        }
        last = digit;
    }
    true
}

/// All trees of a key, newest first.
///
/// It is filled and changed in place, since it is large beside what it mostly holds.
#[derive(Debug)]
pub(super) struct Digits {
    /// Invariant: the first `len` are digits.
    all: [Digit; DIGITS_MAX],
    len: usize,
}

impl Digits {
    pub fn new() -> Digits {
        Digits {
            all: [Digit::default(); DIGITS_MAX],
            len: 0,
        }
    }

    /// The digits of an entry, which was checked: there are no more than [`DIGITS_MAX`].
    pub fn fill(&mut self, digits: impl Iterator<Item = Digit>) {
        self.len = 0;
        for digit in digits {
            self.all[self.len] = digit;
            self.len += 1;
        }
    }

    /// The tree whose root is the newest event.
    pub fn first(&self) -> Option<Digit> {
        self.all[..self.len].first().copied()
    }

    /// The other trees.
    pub fn older(&self) -> &[Digit] {
        self.all[..self.len].get(1..).unwrap_or(&[])
    }

    /// Adds the newest event; returns its jump. Trees that `compacted` has overtaken are
    /// forgotten: no read may go there any more.
    pub fn push(&mut self, event: Revision, compacted: i64) -> Revision {
        let readable = |digit: &&Digit| digit.root.main > compacted;
        self.len = self.all[..self.len].iter().take_while(readable).count();
        let rank = match self.all[..self.len] {
            [first, second, ..] if first.rank == second.rank => {
                // The new event is the root of a tree of both.
                self.all.copy_within(1..self.len, 0);
                self.len -= 1;
                first.rank + 1
            }
            _ => {
                assert!(self.len < DIGITS_MAX, "more trees than any history has");
                self.all.copy_within(0..self.len, 1);
                self.len += 1;
                0
            }
        };
        self.all[0] = Digit { root: event, rank };
        match self.older() {
            [next, ..] => next.root,
            [] => Revision::NONE,
        }
    }
}
