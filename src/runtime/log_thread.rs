//! The log thread: makes appends durable, everything that waits in one write.
//!
//! While a write is in flight the next batch gathers in the queue. That is all there is to group
//! commit: no timer, no linger.

#![forbid(unsafe_code)]

use crate::limits;
use crate::node::messages::{AppendRequest, OrderInput};
use crate::runtime::logger;
use crate::runtime::queue::{Receiver, Sender};
use crate::runtime::seat::SeatInput;
use crate::runtime::tally::Tally;
use quoin_storage::log::{EntryRef, LogError, LogWriter, Spare, SpareJob};
use std::collections::VecDeque;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// What the log thread does.
pub enum LogWork {
    /// Make it durable, and report the number to the order actor.
    Append(AppendRequest),
    /// Entries up to this index are not needed any more.
    Cut(u64),
    /// A segment has been made ready.
    Spare(Result<Spare, LogError>),
}

/// The thread's state and links.
pub struct LogThread {
    writer: LogWriter,
    work: Receiver<LogWork>,
    order: Sender<SeatInput>,
    segments: Sender<SpareJob>,
    /// Appends that are not staged yet.
    waiting: VecDeque<AppendRequest>,
    /// The newest append that is staged and not durable.
    staged: Option<u64>,
    /// The newest write has been confirmed on disk by one after it.
    confirmed: bool,
    /// There was no space for the last write, or for the last spare segment.
    full: bool,
    /// What the order actor was told last.
    told_full: bool,
    tally: Arc<Tally>,
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
            writer,
            work,
            order,
            segments,
            waiting: VecDeque::new(),
            staged: None,
            confirmed: true,
            full: false,
            told_full: false,
            tally,
        }
    }

    /// Runs for the life of the process.
    pub fn run(mut self) {
        let mut work = Vec::new();
        loop {
            if !self.full
                && let Some(job) = self.writer.spare()
            {
                self.segments.answer(job);
            }
            let limit_ms = match (self.full, self.confirmed) {
                (true, _) => Some(limits::LOG_RETRY_MS),
                (false, false) => Some(limits::LOG_QUIET_MS),
                (false, true) => None,
            };
            let limit = limit_ms.map(Duration::from_millis);
            let any = self.work.wait_take(&mut work, limit);
            // Where there was no space there may be some now.
            self.full = false;
            let done = self
                .take(&mut work)
                .and_then(|()| self.write())
                .and_then(|()| if any { Ok(()) } else { self.confirm() });
            match done {
                Ok(()) => {}
                Err(LogError::NoSpace) => {
                    self.note_full();
                    self.tell(true);
                }
                Err(error) => failed(&error),
            }
        }
    }

    fn take(&mut self, work: &mut Vec<LogWork>) -> Result<(), LogError> {
        let mut cut = None;
        let mut spare = Ok(());
        for item in work.drain(..) {
            match item {
                LogWork::Append(request) => self.waiting.push_back(request),
                LogWork::Cut(index) => cut = cut.max(Some(index)),
                LogWork::Spare(made) => spare = self.writer.spare_made(made),
            }
        }
        if let Some(index) = cut {
            self.writer.cut(index)?;
        }
        match spare {
            // The segment in use may have room yet.
            Err(LogError::NoSpace) => {
                self.note_full();
                Ok(())
            }
            other => other,
        }
    }

    /// Makes everything that waits durable, and reports it.
    fn write(&mut self) -> Result<(), LogError> {
        while let Some(request) = self.waiting.front() {
            let entries = request.entries.iter().map(|entry| EntryRef {
                index: entry.index,
                term: entry.term,
                kind: entry.kind,
                data: &entry.data,
                context: &entry.context,
            });
            self.writer.stage(request.hard_state.as_ref(), entries)?;
            let bytes = request.entries.iter().map(|entry| entry.data.len() as u64);
            self.tally.log.bytes.add(bytes.sum());
            self.staged = Some(request.number);
            self.waiting.pop_front();
        }
        if let Some(number) = self.staged {
            let began = Instant::now();
            self.writer.flush()?;
            let took = began.elapsed().as_nanos();
            self.tally
                .log
                .times
                .note(took.try_into().unwrap_or(u64::MAX));
            self.staged = None;
            self.confirmed = false;
            self.tell(false);
            self.order
                .answer(SeatInput::Order(OrderInput::Appended { number }));
        }
        Ok(())
    }

    /// In a quiet moment, confirms the newest write.
    fn confirm(&mut self) -> Result<(), LogError> {
        self.writer.idle()?;
        self.confirmed = true;
        Ok(())
    }

    /// Tells the order actor whether an append is held back for want of space: it refuses writes
    /// then, and makes the checkpoint that a cut needs.
    fn tell(&mut self, full: bool) {
        if self.told_full != full {
            self.told_full = full;
            self.order
                .answer(SeatInput::Order(OrderInput::LogFull(full)));
        }
    }

    fn note_full(&mut self) {
        self.full = true;
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            crate::log_error!(
                "the disk is full: there is no space for another log segment \
                 (docs/OPERATIONS.md, 'The disk is full')"
            );
        });
    }
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
