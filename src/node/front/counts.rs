//! What a front has and has done, for whoever watches the server.
#![forbid(unsafe_code)]

use super::Front;

/// Counts since the start of the process, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrontCounts {
    /// Ranges and transactions that only read, since the start.
    pub reads: u64,
    /// Requests over the native protocol, since the start.
    pub native: u64,
    /// Events told to watches, since the start.
    pub events: u64,
    /// Connections.
    pub connections: u64,
    /// Requests that wait for an answer.
    pub waiting: u64,
    /// Bytes of answers that clients have not taken.
    pub unsent_bytes: u64,
    /// Streams of watches.
    pub watch_streams: u64,
    /// Watches.
    pub watches: u64,
    /// Watches that lag.
    pub lagging: u64,
}

impl Front {
    /// What there is, and what was done. Takes no time, whatever there is.
    pub fn counts(&self) -> FrontCounts {
        let (watch_streams, watches, lagging) = self.desk.watching.counts();
        FrontCounts {
            connections: self.connections.len() as u64,
            waiting: self.desk.waiters.len() as u64,
            unsent_bytes: self.desk.output_bytes as u64,
            watch_streams: watch_streams as u64,
            watches: watches as u64,
            lagging: lagging as u64,
            ..self.desk.counts
        }
    }

    /// How many keys there are, as the newest root has them; 0 if it cannot be read.
    pub fn keys(&self) -> u64 {
        self.desk.keys(&self.reader)
    }
}
