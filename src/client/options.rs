//! How a client behaves.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::raw;

/// How a client behaves. The defaults suit a service that shares one client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Connections to spread requests over. One carries many requests at a time; more help when
    /// one core cannot read all the replies.
    pub connections: usize,
    /// How long a request may take in all, waiting for a connection included.
    pub deadline: Duration,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// Whether a read whose connection broke is sent again on another, within its deadline.
    /// A write that may have left is never sent again.
    pub retry_reads: bool,
    /// The pause after a first failed connection; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The most requests in flight on one connection; the server's limit counts too.
    pub in_flight_max: usize,
    /// Bounds of each connection's buffers.
    pub buffers: raw::Options,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connections: 1,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            retry_reads: true,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            in_flight_max: 4096,
            buffers: raw::Options::default(),
        }
    }
}

impl ClientOptions {
    /// The pause after that many failures in a row: between half and the whole of a doubled
    /// value, so that many clients do not return at one time.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let doubled = self
            .backoff_min
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        let whole = doubled.min(self.backoff_max);
        // A fresh hasher's keys are random.
        let chance = RandomState::new().hash_one(failures) % 1024;
        whole / 2 + whole.mul_f64(chance as f64 / 2048.0)
    }
}

/// `host:port` of an endpoint as users write it.
pub(super) fn address(endpoint: &str) -> String {
    let endpoint = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    endpoint.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let options = ClientOptions::default();
        for failures in 1..100 {
            let pause = options.backoff(failures);
            assert!(pause >= options.backoff_min / 2 && pause <= options.backoff_max);
        }
        assert!(options.backoff(50) >= options.backoff_max / 2);
    }

    #[test]
    fn endpoints_are_taken_with_and_without_a_scheme() {
        assert_eq!(address("http://127.0.0.1:2379/"), "127.0.0.1:2379");
        assert_eq!(address("host:1"), "host:1");
    }
}
