//! Sets of keys, given as points and intervals, that say quickly whether they hold a key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Where an interval of keys ends. The order is that of the keys: `Before(k) < After(k)`, and
/// `After(k)` comes before every longer or larger key's `Before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End<'k> {
    /// The key itself does not belong.
    Before(&'k [u8]),
    /// The key is the last that belongs.
    After(&'k [u8]),
    /// Every later key belongs.
    Open,
}

impl<'k> End<'k> {
    fn rank(self) -> (bool, &'k [u8], bool) {
        match self {
            End::Before(key) => (false, key, false),
            End::After(key) => (false, key, true),
            End::Open => (true, b"", false),
        }
    }

    /// Whether a key lies before the end.
    fn covers(self, key: &[u8]) -> bool {
        End::Before(key).rank() < self.rank()
    }
}

/// A union of intervals, kept disjoint.
#[derive(Debug, Clone, Default)]
pub(super) struct IntervalSet<'k> {
    /// First key -> end. Invariant: no two overlap or touch, none is empty.
    intervals: BTreeMap<&'k [u8], End<'k>>,
}

impl<'k> IntervalSet<'k> {
    /// How many disjoint intervals there are.
    pub fn len(&self) -> usize {
        self.intervals.len()
    }

    /// Adds an interval; one that ends before it starts adds nothing.
    pub fn insert(&mut self, start: &'k [u8], end: End<'k>) {
        if !end.covers(start) {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&before, &before_end)) = self.intervals.range(..=start).next_back()
            && before_end.rank() >= End::Before(start).rank()
        {
            start = before;
        }
        while let Some((&next, &next_end)) = self.intervals.range(start..).next()
            && End::Before(next).rank() <= end.rank()
        {
            self.intervals.remove(next);
            if next_end.rank() > end.rank() {
                end = next_end;
            }
        }
        self.intervals.insert(start, end);
    }

    /// Whether the key belongs to an interval.
    pub fn contains(&self, key: &[u8]) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let before = self.intervals.range::<[u8], _>(up_to).next_back();
        before.is_some_and(|(_, end)| end.covers(key))
    }

    /// Whether one of the keys belongs to an interval.
    pub fn contains_any(&self, keys: &BTreeSet<&'k [u8]>) -> bool {
        if keys.len() <= self.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.intervals.iter().any(|(start, end)| {
            let from = (Bound::Included(*start), Bound::Unbounded);
            let first = keys.range::<[u8], _>(from).next();
            first.is_some_and(|key| end.covers(key))
        })
    }

    /// Adds all intervals of another set; costs what the smaller one is long.
    pub fn absorb(&mut self, mut other: IntervalSet<'k>) {
        if other.len() > self.len() {
            std::mem::swap(self, &mut other);
        }
        for (start, end) in other.intervals {
            self.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..3, 1..4)
    }

    proptest! {
        #[test]
        fn holds_what_one_of_its_intervals_holds(
            spans in prop::collection::vec((key(), 0u8..4, key()), 0..12),
            split in 0usize..12,
            keys in prop::collection::vec(key(), 0..12),
        ) {
            let end = |kind: u8, start: &'static [u8], end: &'static [u8]| match kind {
                0 => End::After(start),
                1 => End::Open,
                _ => End::Before(end),
            };
            let spans: Vec<(&'static [u8], End<'static>)> = spans
                .into_iter()
                .map(|(a, kind, b)| {
                    let (a, b): (&'static [u8], &'static [u8]) = (a.leak(), b.leak());
                    (a, end(kind, a, b))
                })
                .collect();
            let mut sets = [IntervalSet::default(), IntervalSet::default()];
            for (at, &(start, end)) in spans.iter().enumerate() {
                sets[usize::from(at >= split)].insert(start, end);
            }
            let [mut all, second] = sets;
            all.absorb(second);
            let holds = |key: &[u8]| {
                spans.iter().any(|&(start, end)| {
                    start <= key && match end {
                        End::Before(e) => key < e,
                        End::After(e) => key <= e,
                        End::Open => true,
                    }
                })
            };
            for key in &keys {
                prop_assert_eq!(all.contains(key), holds(key), "{:?} in {:?}", key, all);
            }
            let set: BTreeSet<&[u8]> = keys.iter().map(|k| &k.clone().leak()[..]).collect();
            prop_assert_eq!(all.contains_any(&set), keys.iter().any(|k| holds(k)));
            let disjoint = all.intervals.iter().zip(all.intervals.iter().skip(1));
            for ((_, end), (next, _)) in disjoint {
                prop_assert!(end.rank() < End::Before(next).rank());
            }
        }
    }
}
