//! Two servers that write in turn: one as it is, and one with something on top. The machine is not
//! as fast at one time as at another, by more than what is looked for, so they take turns of a
//! second or so, and grow alike.

#![forbid(unsafe_code)]

use super::clients;
use super::heavy::Heavy;
use super::servers::{Server, load};
use crate::options::{Stop, Target, Workload};

/// Turns in which two servers write.
const PARTS: u64 = 10;

/// Puts per second, 50 x 32, on one server and on another, of so many on each.
pub fn in_turns(one: &Server, other: &Server, total: u64) -> Result<(f64, f64), String> {
    let part = total / PARTS;
    let mut seconds = (0.0, 0.0);
    for number in 0..PARTS {
        let part = match number {
            0 => total - part * (PARTS - 1),
            _ => part,
        };
        seconds.0 += part as f64 / put(one, part)?;
        seconds.1 += part as f64 / put(other, part)?;
    }
    Ok((total as f64 / seconds.0, total as f64 / seconds.1))
}

/// Puts per second, 50 x 32, of so many.
fn put(server: &Server, total: u64) -> Result<f64, String> {
    let mut options = load(Target::Quoin, server.address, Workload::Put, 50, 32);
    options.stop = Stop::Total(total);
    clients::ours(&options).map(|found| found.rate)
}

impl Heavy<'_> {
    /// Two servers with the same keys.
    pub fn pair(&self) -> Result<(Server, Server), String> {
        let pair = (
            self.start(Target::Quoin, false)?,
            self.start_beside(Target::Quoin)?,
        );
        for server in [&pair.0, &pair.1] {
            clients::load_keys(&load(Target::Quoin, server.address, Workload::Put, 1, 1))?;
            put(server, self.events / 4)?;
        }
        Ok(pair)
    }
}
