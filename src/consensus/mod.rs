//! Consensus: the raft crate behind one narrow module.
