//! Watches: cursors over the revision tree, and who is told of which event.
//!
//! A front keeps one [`Watches`]. Watches that are up to date (*live*) share one cursor, the
//! *head*: a turn reads the events behind it once, from a pinned root, asks the index (`groups`)
//! who wants each of them, and hands them, in place, to the [`Sink`], which encodes them once for
//! all who want them. A watch that lags, because it begins in the past or because its client does
//! not keep up, has a cursor of its own and stands in a list of its stream; laggards are read for
//! in turns of bounded length and join the live ones when they have reached the head. Nothing is
//! ever queued for a watch: a stalled one costs what an idle one costs.
//!
//! The core knows no wire format: `O` names the owner of a stream, whatever that is to the front.
#![forbid(unsafe_code)]

mod groups;

mod interest;

mod lists;

mod progress;

mod registry;

mod slice;

mod spans;

mod turn;

#[cfg(test)]
mod tests;

pub use registry::{Bounds, StreamId, WatchConfig, Watches};

use crate::api::{Event, WatchRefusal};

/// Events that go to one or many watches.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'b> {
    /// In the order of history, all changes of each revision that the watches want.
    pub events: &'b [Event<'b>],
    /// For the header: the last event's, or for what is read from the past the store's.
    pub revision: i64,
    /// The watches allow that a revision's events are parted.
    pub fragment: bool,
    /// What must fit into [`Sink::room`]: bytes of keys and values, or 0 if no less can be said.
    pub bytes: usize,
}

/// Bytes of keys and values.
fn bytes_of(events: &[Event<'_>]) -> usize {
    let bytes = |event: &Event<'_>| event.kv.key.len() + event.kv.value.len();
    events.iter().map(bytes).sum()
}

/// Events that cannot be said in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Takes what the watches of a front have to say.
pub trait Sink<O> {
    /// How many bytes of keys and values may be said to the owner now. 0: its client does not
    /// keep up, and its watches stop until [`Watches::wake`]. A revision is not parted for it: if
    /// there is any room, a watch that lags may be told one that is larger.
    fn room(&mut self, owner: O) -> usize;

    /// The next calls of [`Sink::events`] will be about other events than those before.
    fn next_batch(&mut self);

    /// Says events to some watches of a stream.
    fn events(&mut self, owner: O, watches: &[i64], batch: &Batch<'_>) -> Result<(), TooLarge>;

    /// Says that a compaction has overtaken a watch, which is over; the watch may begin anew at
    /// `compact_revision`.
    fn compacted(&mut self, owner: O, watch: i64, compact_revision: i64);

    /// Says that a watch is over.
    fn ended(&mut self, owner: O, watch: i64, why: WatchRefusal);

    /// Says that everything up to `revision` has been said to these watches of a stream, or, if
    /// there are none, to all of them.
    fn progress(&mut self, owner: O, watches: &[i64], revision: i64);
}
