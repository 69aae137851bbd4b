//! Monotonic time, as the pure actors take it: nanoseconds since the process began.

#![forbid(unsafe_code)]

use std::time::Instant;

/// Reads the time. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Time begins.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Nanoseconds since [`Clock::start`].
    pub fn now_ns(self) -> u64 {
        // 584 years fit.
        self.start.elapsed().as_nanos() as u64
    }
}
