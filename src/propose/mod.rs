//! Admission, and batching of many requests into one log entry.
//!
//! A front appends each write to its [`command::BatchBuilder`] and remembers who asked in its
//! [`waiters::Waiters`]; once per loop turn the batch goes to the order actor as it is and
//! becomes the data of one log entry. [`reads`] gathers the reads that must ask the quorum.
#![forbid(unsafe_code)]

pub mod command;

pub mod waiters;

pub mod reads;

/// Number of a front on this node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontId(pub u16);
