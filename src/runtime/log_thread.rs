//! The log thread: makes appends durable, everything that waits in one write.
//!
//! While a write is in flight the next batch gathers in the queue. That is all there is to group
//! commit: no timer, no linger.

#![forbid(unsafe_code)]

use crate::node::log_driver::{LogDriver, LogHost, LogWork};
use crate::node::messages::OrderInput;
use crate::runtime::logger;
use crate::runtime::queue::{Receiver, Sender};
use crate::runtime::seat::SeatInput;
use crate::runtime::tally::Tally;
use quoin_storage::log::{LogError, LogWriter, SpareJob};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// The thread's state and links.
pub struct LogThread {
    driver: LogDriver,
    work: Receiver<LogWork>,
    segments: Sender<SpareJob>,
    host: Host,
}

/// Whom the driver tells what comes of its work.
struct Host {
    order: Sender<SeatInput>,
    tally: Arc<Tally>,
    begun: Instant,
}

impl LogHost for Host {
    fn tell(&mut self, input: OrderInput) {
        self.order.answer(SeatInput::Order(input));
    }

    fn now_ns(&mut self) -> u64 {
        let now = self.begun.elapsed().as_nanos();
        now.try_into().unwrap_or(u64::MAX)
    }

    fn wrote(&mut self, bytes: u64, took_ns: u64) {
        self.tally.log.bytes.add(bytes);
        self.tally.log.times.note(took_ns);
    }
}

impl LogThread {
    /// A thread that takes `work`, reports durable appends to `order`, and has segments made
    /// ready through `segments`; what it writes is counted in `tally`.
    pub fn new(
        writer: LogWriter,
        work: Receiver<LogWork>,
        order: Sender<SeatInput>,
        segments: Sender<SpareJob>,
        tally: Arc<Tally>,
    ) -> LogThread {
        LogThread {
            driver: LogDriver::new(writer),
            work,
            segments,
            host: Host {
                order,
                tally,
                begun: Instant::now(),
            },
        }
    }

    /// Runs for the life of the process.
    pub fn run(mut self) {
        let mut work = Vec::new();
        loop {
            if let Some(job) = self.driver.spare() {
                self.segments.answer(job);
            }
            let limit = self.driver.patience_ms().map(Duration::from_millis);
            self.work.wait_take(&mut work, limit);
            if let Err(error) = self.driver.turn(&mut work, &mut self.host) {
                failed(&error);
            }
            if self.driver.is_full() {
                say_full();
            }
        }
    }
}

fn say_full() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        crate::log_error!(
            "the disk is full: there is no space for another log segment \
             (docs/OPERATIONS.md, 'The disk is full')"
        );
    });
}

/// Makes segments ready, beside the log thread, for the life of the process.
pub fn make_segments(jobs: &Receiver<SpareJob>, log: &Sender<LogWork>) {
    let mut taken = Vec::new();
    loop {
        jobs.wait_take(&mut taken, None);
        for job in taken.drain(..) {
            log.answer(LogWork::Spare(job.run()));
        }
    }
}

/// Nothing can be acknowledged any more, and what is on the disk is only known to a fresh start.
fn failed(error: &LogError) -> ! {
    logger::fatal(format_args!(
        "the log could not be written: {error}; nothing more is acknowledged \
         (docs/OPERATIONS.md, 'The disk fails')"
    ))
}
