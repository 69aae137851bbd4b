//! Which server a stream of watches tries next, and when.

#![forbid(unsafe_code)]

use std::io;
use std::time::Instant;

use crate::client::error::ClientError;
use crate::client::options::ClientOptions;

/// The servers, one after the other, with pauses that grow while none is of use.
#[derive(Debug)]
pub(super) struct Dial {
    addresses: Vec<String>,
    tried: usize,
    failures: u32,
    pause: Option<Instant>,
}

impl Dial {
    pub fn new(addresses: Vec<String>) -> Dial {
        Dial {
            addresses,
            tried: 0,
            failures: 0,
            pause: None,
        }
    }

    /// Nothing is to be tried before.
    pub fn pause(&self) -> Option<Instant> {
        self.pause
    }

    /// The address to try next.
    pub fn address(&self) -> Result<&str, ClientError> {
        if self.addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no endpoints given");
            return Err(ClientError::from(none).not_sent());
        }
        Ok(&self.addresses[self.tried % self.addresses.len()])
    }

    /// It was tried. A connection that breaks before it was of use asks for a pause, too: so does
    /// every attempt, until [`Dial::heard`].
    pub fn tried(&mut self, options: &ClientOptions) {
        self.tried = self.tried.wrapping_add(1);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(Instant::now() + options.backoff(self.failures));
    }

    /// The server has answered.
    pub fn heard(&mut self) {
        self.failures = 0;
    }
}
