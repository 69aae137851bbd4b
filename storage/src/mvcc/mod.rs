//! Revisions on top of the tree: reads at any retained revision, compaction.
