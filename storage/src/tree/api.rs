//! What the MVCC engine asks of a tree. The mmapped B+tree is one tenant; the model that tests
//! compare with is another.

use std::fmt;

/// One of the ordered maps that live in the tree file and change in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TreeId {
    /// key -> its latest event.
    Key = 0,
    /// revision -> event.
    Revision = 1,
    /// Leases, members, alarms and other small state.
    State = 2,
}

/// How many trees a file holds.
pub const TREES: usize = 3;

/// A bound of keys: from `start` (inclusive) to `end` (exclusive; `None` is open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval<'k> {
    /// The first key.
    pub start: &'k [u8],
    /// The first key beyond; `None` if every later key belongs.
    pub end: Option<&'k [u8]>,
}

/// Ordered, read-only access. All bytes lie in place and live as long as the view.
pub trait TreeRead {
    /// The value of a key.
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError>;
    /// As [`TreeRead::get`], for one who looks up keys that often lie beside the one before.
    fn get_near(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        self.get(tree, key)
    }
    /// Calls `visit(key, value)` in ascending key order until it returns `false`.
    fn scan<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError>;
    /// As `scan`, in descending order.
    fn scan_back<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError>;
    /// The number of entries of the interval whose `counted` mark is set; O(log n).
    fn count(&self, tree: TreeId, interval: Interval<'_>) -> Result<u64, TreeError>;
    /// Has the processor fetch what looking up these keys will touch, all of them at once: one
    /// look-up after the other would wait for memory again and again. A look-up soon after costs
    /// least if the keys are looked up in this order. At most [`WARM_KEYS`] keys count. Whether it
    /// is called, and with what, changes no result.
    fn warm(&self, _tree: TreeId, _keys: &[&[u8]]) {}
}

/// Keys that [`TreeRead::warm`] takes at a time: about as many lines as the processor fetches
/// from memory at once.
pub const WARM_KEYS: usize = 16;

/// Changes inside one transaction; reads see them at once.
pub trait TreeWrite: TreeRead {
    /// As [`TreeRead::get`], for one who is about to change the entry: the way to it need not be
    /// searched for again.
    fn get_to_change(&mut self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        self.get(tree, key)
    }

    /// Sets a key. `value` is given in parts that are stored back to back. `counted` marks the
    /// entry for [`TreeRead::count`].
    fn insert(
        &mut self,
        tree: TreeId,
        key: &[u8],
        value: &[&[u8]],
        counted: bool,
    ) -> Result<(), TreeError>;
    /// Removes a key; says whether it was there.
    fn remove(&mut self, tree: TreeId, key: &[u8]) -> Result<bool, TreeError>;
}

/// Why the tree could not answer.
#[derive(Debug)]
pub enum TreeError {
    /// A page does not match its checksum or its format.
    Corrupt {
        /// The page's number in the file.
        page: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The disk failed.
    Disk(crate::disk::DiskError),
    /// No page left within the file's limit or on the file system.
    NoSpace,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::Corrupt { page, what } => {
                write!(f, "the tree file is damaged at page {page}: {what}")
            }
            TreeError::Disk(e) => e.fmt(f),
            TreeError::NoSpace => f.write_str("no space left for the tree file"),
        }
    }
}

impl std::error::Error for TreeError {}

impl From<crate::disk::DiskError> for TreeError {
    fn from(e: crate::disk::DiskError) -> TreeError {
        match e.kind {
            crate::disk::DiskErrorKind::NoSpace => TreeError::NoSpace,
            _ => TreeError::Disk(e),
        }
    }
}
