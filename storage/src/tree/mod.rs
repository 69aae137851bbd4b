//! The mmapped copy-on-write B+tree.
//!
//! One file holds three ordered maps that change together in one transaction. Committed states are
//! published in memory, at once and for all cores; a checkpoint makes one of them durable. What
//! was committed after the newest checkpoint is lost in a crash, and is replayed from the log.
//!
//! ```text
//! Writer::begin -> Txn (insert, remove) -> commit: published root  <- Reader::pin (any core)
//! Writer::checkpoint -> CheckpointJob::run (checkpoint thread) -> Writer::checkpointed
//! ```

mod api;

#[cfg(any(test, feature = "sim"))]
pub mod model;

mod ids;

mod free;

mod space;

mod zones;

mod frames;

mod publish;

mod read;

mod open;

mod writer;

mod txn;

mod change;

mod pack;

mod checkpoint;

mod check;

mod scrub;

mod inspect;

pub use api::{Interval, TREES, TreeError, TreeId, TreeRead, TreeWrite, WARM_KEYS};
pub use check::{CheckReport, check};
pub use checkpoint::{CheckpointDone, CheckpointJob};
pub use inspect::{CellDump, Inspector, PageDump};
pub use open::{Shared, TreeOptions, open};
pub use publish::{READERS_MAX, Reader, Snapshot};
pub use scrub::{Scrub, Scrubbed};
pub use txn::Txn;
pub use writer::{TreeStats, Writer};
