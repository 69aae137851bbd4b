//! The checkpoint thread: writes the tree file, standing back for everything else.

#![forbid(unsafe_code)]

use crate::node::messages::OrderInput;
use crate::runtime::queue::{Receiver, Sender};
use crate::runtime::seat::SeatInput;
use crate::runtime::tally::Tally;
use crate::runtime::{logger, os};
use quoin_storage::disk::PageFile;
use quoin_storage::tree::CheckpointJob;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A checkpoint to write.
#[derive(Debug)]
pub struct CheckpointWork(pub Box<CheckpointJob>);

/// Bytes a second that a checkpoint writes, so that the log's syncs stay short, unless pages change
/// faster: see [`speed`].
const BYTES_PER_SECOND: u64 = 256 << 20;

/// The thread's links.
pub struct CheckpointThread {
    /// What to write.
    pub work: Receiver<CheckpointWork>,
    /// Where it goes.
    pub file: Arc<dyn PageFile>,
    /// Where it is reported.
    pub order: Sender<SeatInput>,
    /// Where it is counted.
    pub tally: Arc<Tally>,
}

impl CheckpointThread {
    /// Runs for the life of the process.
    pub fn run(self) {
        os::lower_priority();
        let mut work = Vec::new();
        let mut last: Option<Instant> = None;
        loop {
            self.work.wait_take(&mut work, None);
            for CheckpointWork(job) in work.drain(..) {
                let since_last = last.map_or(Duration::MAX, |last| last.elapsed());
                last = Some(Instant::now());
                self.write(*job, since_last);
            }
        }
    }

    fn write(&self, job: CheckpointJob, since_last: Duration) {
        let bytes = job.bytes();
        let started = Instant::now();
        let mut written = 0;
        let speed = speed(bytes, since_last);
        let mut pace = |more: u64| {
            written += more;
            let due = Duration::from_micros(written * 1_000_000 / speed);
            if let Some(ahead) = due.checked_sub(started.elapsed()) {
                std::thread::sleep(ahead);
            }
        };
        match job.run(&*self.file, &mut pace) {
            Ok(done) => {
                let took = started.elapsed();
                let millis = took.as_millis();
                let counted = &self.tally.checkpoint;
                counted
                    .times
                    .note(took.as_nanos().try_into().unwrap_or(u64::MAX));
                counted.bytes.add(bytes);
                if done.durable() {
                    crate::log_debug!("checkpoint of {bytes} bytes written in {millis} ms");
                } else {
                    crate::log_error!(
                        "the disk is full: a checkpoint of {bytes} bytes could not be written \
                         (docs/OPERATIONS.md, 'The disk is full')"
                    );
                }
                let input = OrderInput::Checkpointed(Box::new(done));
                self.order.answer(SeatInput::Order(input));
            }
            Err(error) => logger::fatal(format_args!(
                "a checkpoint could not be written: {error}; the log has everything, a fresh \
                 start recovers it (docs/OPERATIONS.md, 'The disk fails')"
            )),
        }
    }
}

/// Bytes a second for a checkpoint of so many, if the last began so long ago: what takes three
/// quarters of that time, and at least [`BYTES_PER_SECOND`]. Writers that wait for a checkpoint have
/// the next one begin as soon as it ends: that one is given less time, and so on until nobody waits
/// or the disk gives no more.
fn speed(bytes: u64, since_last: Duration) -> u64 {
    let micros = u64::try_from(since_last.as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let needed = u128::from(bytes) * 4_000_000 / 3 / u128::from(micros);
    u64::try_from(needed)
        .unwrap_or(u64::MAX)
        .max(BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_as_fast_as_the_last_one_was_followed_soon() {
        let mib = |n: u64| n << 20;
        for millis in [1000, 5000, u64::MAX] {
            assert_eq!(
                speed(mib(64), Duration::from_millis(millis)),
                BYTES_PER_SECOND
            );
        }
        let busy = speed(mib(64), Duration::from_millis(100));
        assert_eq!(busy / mib(1), 64 * 10 * 4 / 3);
        assert!(speed(mib(64), Duration::ZERO) > mib(1 << 20));
    }
}
