//! The clock of leases: which are over, whose time must be written down, who has renewed.
//!
//! Only a leader has one ([`Lessor`]). It begins with what the state tree says of each lease, and
//! follows what applied commands change. That a lease exists is decided by the log alone; that its
//! time is over, by this clock, which then has the leader propose the lease's end. Renewals touch
//! no log: they only move a deadline.
//!
//! So that a change of leader (a restart is one) neither expires a lease early nor lets it live
//! for ever, the seconds that a lease has left are written down in the log from time to time:
//! - not for short leases, which simply begin anew: see [`checkpoint_step_s`];
//! - of the others whenever the step has passed since the grant, the renewal, or the last time.
//!   A leader that knows no more than the log then gives a lease less than a step too much;
//! - before a renewal of a lease whose seconds were written down is acknowledged, they are struck
//!   out again. Holders of leases up to ten minutes that renew before half of it has passed never meet
//!   this.
//!
//! Time is what the caller says, nanoseconds of a monotonic clock; chance there is none.
#![forbid(unsafe_code)]

mod lessor;

#[cfg(test)]
mod tests;

pub use lessor::{Lessor, Upkeep, checkpoint_step_s};
