//! The tree as a plain map, for tests of what stands above it.
#![forbid(unsafe_code)]

use super::{Interval, TREES, TreeError, TreeId, TreeRead, TreeWrite};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Ordered maps in memory that answer as the tree does. A clone is a snapshot, and putting a
/// clone back is an abort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelTree {
    trees: [BTreeMap<Vec<u8>, Entry>; TREES],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    counted: bool,
}

impl ModelTree {
    /// An empty store.
    pub fn new() -> ModelTree {
        ModelTree::default()
    }

    /// How many entries a tree holds, counted or not.
    pub fn len(&self, tree: TreeId) -> usize {
        self.trees[tree as usize].len()
    }

    /// Whether a tree holds nothing.
    pub fn is_empty(&self, tree: TreeId) -> bool {
        self.trees[tree as usize].is_empty()
    }

    fn range(
        &self,
        tree: TreeId,
        interval: Interval<'_>,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Entry)> {
        let empty = interval.end.is_some_and(|end| end <= interval.start);
        let end = match interval.end {
            // A `BTreeMap` panics on a range that ends before it starts.
            _ if empty => Bound::Excluded(interval.start),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        self.trees[tree as usize].range::<[u8], _>((Bound::Included(interval.start), end))
    }
}

impl TreeRead for ModelTree {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        Ok(self.trees[tree as usize]
            .get(key)
            .map(|entry| &entry.value[..]))
    }

    fn scan<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        for (key, entry) in self.range(tree, interval) {
            if !visit(key, &entry.value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        for (key, entry) in self.range(tree, interval).rev() {
            if !visit(key, &entry.value) {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, tree: TreeId, interval: Interval<'_>) -> Result<u64, TreeError> {
        Ok(self
            .range(tree, interval)
            .filter(|(_, entry)| entry.counted)
            .count() as u64)
    }
}

impl TreeWrite for ModelTree {
    fn insert(
        &mut self,
        tree: TreeId,
        key: &[u8],
        value: &[&[u8]],
        counted: bool,
    ) -> Result<(), TreeError> {
        let value = value.concat();
        self.trees[tree as usize].insert(key.to_vec(), Entry { value, counted });
        Ok(())
    }

    fn remove(&mut self, tree: TreeId, key: &[u8]) -> Result<bool, TreeError> {
        Ok(self.trees[tree as usize].remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_ends_before_it_starts_is_empty() {
        let mut tree = ModelTree::new();
        tree.insert(TreeId::Key, b"b", &[b"1", b"2"], true).unwrap();
        let backwards = Interval {
            start: b"c",
            end: Some(b"a"),
        };
        let point = Interval {
            start: b"b",
            end: Some(b"b"),
        };
        for interval in [backwards, point] {
            assert_eq!(tree.count(TreeId::Key, interval).unwrap(), 0);
        }
        assert_eq!(tree.get(TreeId::Key, b"b").unwrap(), Some(&b"12"[..]));
        assert_eq!(tree.get(TreeId::State, b"b").unwrap(), None);
    }
}
