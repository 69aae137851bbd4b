//! The order actor: puts writes into one order, and applies them.
#![forbid(unsafe_code)]

use std::fmt;

/// Why the node cannot go on.
#[derive(Debug)]
pub enum Fatal {
    /// The tree failed, or is damaged.
    Tree(quoin_storage::tree::TreeError),
    /// A committed entry cannot be read.
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: crate::propose::command::CommandError,
    },
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Tree(error) => error.fmt(f),
            Fatal::Entry { index, error } => {
                write!(f, "committed entry {index} cannot be applied: {error}")
            }
        }
    }
}

impl std::error::Error for Fatal {}
