//! Committed entries, in order, become MVCC transactions.
