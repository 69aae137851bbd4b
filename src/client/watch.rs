//! Watching: one connection of its own for each stream of watches.
//!
//! A stream is pulled: what has not been asked for stays in the socket, so a slow consumer costs
//! a receive buffer and holds back nobody, the server included. That is why a stream does not
//! share a connection with requests: their replies would wait behind events that nobody takes.
//!
//! A connection that breaks is opened anew, and each watch goes on behind the last revision that
//! was given out whole: nothing is missed and nothing comes twice. What a watch cannot be given
//! any more, because history was compacted, is said by [`WatchEnd::Compacted`].

#![forbid(unsafe_code)]

mod asynchronous;

mod blocking;

mod dial;

mod state;

pub use asynchronous::WatchStream;
pub use blocking::BlockingWatchStream;
pub use state::{WatchEnd, WatchId, WatchNews};
