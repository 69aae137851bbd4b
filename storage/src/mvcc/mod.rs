//! Revisions on top of the tree: reads at any retained revision, compaction.
//!
//! Two trees hold the data, and they change in one transaction:
//! - the *key tree*, key -> what its latest event left behind ([`Latest`]), where the entries of
//!   live keys are counted;
//! - the *revision tree*, revision -> event, where every entry is counted.
//!
//! Every event names the one before it of the same key, and a *jump* further back (`jump`), so
//! that a key's state at any retained revision is found in O(log versions) steps.
//! What the two trees mean (how far history reaches, what is compacted, which log entries are in
//! it) stands in [`Meta`], which travels as the tree's user blob with every published root.
//!
//! A [`View`] reads, a [`WriteTxn`] makes one revision, [`compact`] and [`compact_step`] drop
//! history. All are generic over the tree, and pure.
#![forbid(unsafe_code)]

mod revision;

mod number;

mod record;

mod jump;

mod meta;

mod read;

mod count;

mod write;

mod compact;

pub mod state;

pub mod lease;

#[cfg(test)]
mod tests;

pub use compact::{compact, compact_step};
pub use count::CountWalk;
pub use meta::{CONF_STATE_MAX, EXTRA_MAX, Horizon, Meta};
pub use read::{Event, Item, KeyValue, Latest, View, warm_keys};
pub use revision::Revision;
pub use write::{EVENT_COST, WriteTxn, restore_event};

use crate::tree::{TreeError, TreeId};
use std::fmt;

/// Why a read, a write or a compaction was refused.
#[derive(Debug)]
pub enum Error {
    /// The revision lies before the oldest readable one.
    Compacted {
        /// The oldest readable revision.
        compacted: i64,
    },
    /// The revision does not exist yet.
    FutureRevision {
        /// The newest revision.
        current: i64,
    },
    /// A record does not match its format, or does not fit the others.
    Corrupt {
        /// The tree it lies in.
        tree: TreeId,
        /// Its key there, cut after 64 bytes; empty if no single record is to blame.
        key: Box<[u8]>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store was written by a version of the format that this program does not know.
    UnknownFormat {
        /// The version found.
        version: u32,
    },
    /// The tree could not answer.
    Tree(TreeError),
}

impl Error {
    pub(crate) fn corrupt(tree: TreeId, key: &[u8], what: &'static str) -> Error {
        Error::Corrupt {
            tree,
            key: key[..key.len().min(64)].into(),
            what,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Compacted { compacted } => {
                write!(
                    f,
                    "the revision has been compacted; the oldest is {compacted}"
                )
            }
            Error::FutureRevision { current } => {
                write!(
                    f,
                    "the revision does not exist yet; the newest is {current}"
                )
            }
            Error::Corrupt { tree, key, what } => {
                let key = key.escape_ascii();
                write!(f, "the {tree:?} tree is damaged at \"{key}\": {what}")
            }
            Error::UnknownFormat { version } => {
                write!(
                    f,
                    "the store has format {version}, which this program does not know"
                )
            }
            Error::Tree(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<TreeError> for Error {
    fn from(e: TreeError) -> Error {
        Error::Tree(e)
    }
}
