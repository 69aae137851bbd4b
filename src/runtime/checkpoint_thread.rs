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

/// Bytes a second that a checkpoint writes at most while others need the disk: fast enough to
/// end before the next is due, slow enough that the log's syncs stay short.
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
        loop {
            self.work.wait_take(&mut work, None);
            for CheckpointWork(job) in work.drain(..) {
                self.write(*job);
            }
        }
    }

    fn write(&self, job: CheckpointJob) {
        let bytes = job.bytes();
        let started = Instant::now();
        let mut written = 0;
        let mut pace = |more: u64| {
            written += more;
            let due = Duration::from_micros(written * 1_000_000 / BYTES_PER_SECOND);
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
