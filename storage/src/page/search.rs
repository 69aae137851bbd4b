//! Finding a key in a page.
//!
//! A cell that is looked at is a line of memory that is seldom in the cache, so the search looks at
//! few, and has those of a leaf fetched side by side, since waiting for one after another is most of
//! a look-up's time: where the keys on both sides of the page are known from its parent, it guesses by
//! interpolation between them, and halves only what a few guesses leave over. A guess steers the
//! search and decides nothing: whatever the keys are like, the comparisons do.
#![forbid(unsafe_code)]

use super::cast::prefetch;
use super::cell::{RUN_BYTES, Run};
use super::layout::{KEY_RUN, PAGE, Page};
use std::cmp::Ordering;

/// Guesses before the rest is halved.
const GUESSES: usize = 4;
/// So few cells are not worth a guess.
const FEW: usize = 3;
/// Cells on either side of a leaf's first guess that are fetched with it.
const NEAR: usize = 3;
/// Where cells have as many bytes on average, one is fetched whole instead of its neighbours.
const LARGE: usize = 128;
/// Bytes fetched of one cell at most.
const WHOLE_MAX: usize = 512;
/// Bytes of a line of the processor's cache.
const LINE: usize = 64;

/// The keys between which all keys of a page lie, as far as its ancestors tell: at or above `low`,
/// below `high`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Between<'a> {
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
}

/// Keys as numbers: the eight bytes behind what all keys of the page have in common.
#[derive(Debug, Clone, Copy)]
struct Scale {
    shared: usize,
    low: u64,
    high: u64,
}

impl Scale {
    #[inline(always)]
    fn new(between: Between<'_>) -> Option<Scale> {
        let (low, high) = (between.low?, between.high?);
        let shared = shared(low, high);
        let scale = Scale {
            shared,
            low: word(low, shared),
            high: word(high, shared),
        };
        (scale.low < scale.high).then_some(scale)
    }

    /// Where in `count` cells a key would be if they were spread evenly.
    #[inline(always)]
    fn guess(&self, key: u64, count: usize) -> usize {
        // First the product: where keys are spread evenly, as revisions are, the guess is exact.
        let part = key.saturating_sub(self.low) as f64 * count as f64;
        ((part / (self.high - self.low) as f64) as usize).min(count - 1)
    }
}

/// How many bytes two keys have in common at their beginning.
#[inline(always)]
fn shared(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    while let (Some(a), Some(b)) = (a.get(at..at + 8), b.get(at..at + 8)) {
        let a = u64::from_le_bytes(a.try_into().expect("eight bytes"));
        let b = u64::from_le_bytes(b.try_into().expect("eight bytes"));
        if a != b {
            return at + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..]
        .iter()
        .zip(&b[at..])
        .take_while(|(a, b)| a == b)
        .count()
}

/// Up to eight bytes from `at` on as a number that is ordered as they are.
#[inline(always)]
fn word(key: &[u8], at: usize) -> u64 {
    if let Some(bytes) = key.get(at..at + 8) {
        return u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    }
    // A loop over at most seven bytes is faster here than a call that copies them.
    let rest = key.get(at..).unwrap_or_default();
    let read = rest
        .iter()
        .fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    read.checked_shl(64 - 8 * rest.len() as u32).unwrap_or(0)
}

impl Page {
    /// Between which keys the child of a branch's cell lies, given the branch's own place.
    #[inline(always)]
    pub fn between<'a>(&'a self, index: usize, own: Between<'a>) -> Between<'a> {
        let inline = |index: usize| {
            let run = self.flags(index) & KEY_RUN != 0;
            (!run).then(|| self.stored_key(index))
        };
        let next = index + 1;
        Between {
            low: if index == 0 { own.low } else { inline(index) },
            high: if next == self.count() {
                own.high
            } else {
                inline(next)
            },
        }
    }

    /// Finds `key` in a leaf that lies between these keys: its cell, or the place where it
    /// belongs. `load` fetches a run.
    #[inline]
    pub fn find<'a, E>(
        &'a self,
        key: &[u8],
        between: Between<'_>,
        load: &impl Fn(Run) -> Result<&'a [u8], E>,
    ) -> Result<Result<usize, usize>, E> {
        self.search(0, key, between, load)
    }

    /// The cell of a branch whose child covers `key`; arguments as for [`Page::find`].
    #[inline]
    pub fn route<'a, E>(
        &'a self,
        key: &[u8],
        between: Between<'_>,
        load: &impl Fn(Run) -> Result<&'a [u8], E>,
    ) -> Result<usize, E> {
        // The first cell has no key: it takes whatever lies below the second.
        let found = self.search(1, key, between, load)?;
        Ok(found.unwrap_or_else(|place| place - 1))
    }

    /// Has the processor fetch the first slots: what a search looks at first. The page's first line
    /// is asked for by reading its level.
    #[inline(always)]
    pub fn prefetch_slots(&self) {
        let start: *const Page = self;
        prefetch(start.cast::<u8>().wrapping_add(64));
    }

    /// Has the processor fetch the cells of a leaf at which a search for `key` would begin.
    #[inline(always)]
    pub fn prefetch_guess(&self, key: &[u8], between: Between<'_>) {
        let count = self.count();
        if count == 0 {
            return;
        }
        let index = match Scale::new(between) {
            Some(scale) => scale.guess(word(key, scale.shared), count),
            None => count / 2,
        };
        self.prefetch_near(index);
    }

    /// Has the processor fetch what a search in a leaf will touch, if it begins at `index`: small
    /// cells around it, among which the search moves; of a large one all of it, since there are few
    /// beside it, and whoever finds it reads it to its end.
    #[inline(always)]
    fn prefetch_near(&self, index: usize) {
        let count = self.count();
        let cell = self.cell_on(index);
        prefetch(cell.as_ptr());
        if self.used() < LARGE * count {
            for step in 1..=NEAR {
                if let Some(before) = index.checked_sub(step) {
                    prefetch(self.cell_on(before).as_ptr());
                }
                if index + step < count {
                    prefetch(self.cell_on(index + step).as_ptr());
                }
            }
            return;
        }
        // Cells that came in order lie below each other, so the one before tells the end.
        let end = match index.checked_sub(1) {
            Some(before) => self.slot(before),
            None => PAGE,
        };
        let len = end.saturating_sub(self.slot(index)).min(WHOLE_MAX);
        for line in (LINE..len).step_by(LINE) {
            prefetch(cell.as_ptr().wrapping_add(line));
        }
    }

    /// Finds `key` among the cells from `first` on.
    #[inline(always)]
    fn search<'a, E>(
        &'a self,
        first: usize,
        key: &[u8],
        between: Between<'_>,
        load: &impl Fn(Run) -> Result<&'a [u8], E>,
    ) -> Result<Result<usize, usize>, E> {
        let (mut low, mut high) = (first, self.count());
        if let Some(mut scale) = Scale::new(between) {
            let wanted = word(key, scale.shared);
            if self.is_leaf() && low < high {
                self.prefetch_near(low + scale.guess(wanted, high - low));
            }
            for _ in 0..GUESSES {
                if high - low <= FEW || scale.low >= scale.high {
                    break;
                }
                let at = low + scale.guess(wanted, high - low);
                let found = word(self.stored_key(at), scale.shared);
                if self.flags(at) & KEY_RUN != 0 {
                    break;
                }
                let order = match found.cmp(&wanted) {
                    Ordering::Equal => self.stored_key(at).cmp(key),
                    other => other,
                };
                match order {
                    Ordering::Less => (low, scale.low) = (at + 1, found),
                    Ordering::Greater => (high, scale.high) = (at, found),
                    Ordering::Equal => return Ok(Ok(at)),
                }
            }
        }
        while low < high {
            let middle = (low + high) / 2;
            match self.compare(middle, key, load)? {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// How the stored key compares with `key`.
    #[inline(always)]
    fn compare<'a, E>(
        &'a self,
        index: usize,
        key: &[u8],
        load: &impl Fn(Run) -> Result<&'a [u8], E>,
    ) -> Result<Ordering, E> {
        let stored = self.stored_key(index);
        if self.flags(index) & KEY_RUN == 0 {
            return Ok(stored.cmp(key));
        }
        let prefix = &stored[RUN_BYTES..];
        let shared = prefix.len().min(key.len());
        match prefix.cmp(&key[..shared]) {
            // A run's key goes on behind its prefix, so even an equal prefix needs the run.
            Ordering::Equal => Ok(load(Run::decode(stored))?.cmp(key)),
            other => Ok(other),
        }
    }
}
