//! What the log thread does: everything that waits becomes one durable write.
//!
//! The thread, its queue and its clock belong to whoever drives it; the disk lies behind the
//! log's own seam. So the simulator runs this very code.

use crate::limits;
use crate::node::messages::{AppendRequest, OrderInput};
use quoin_storage::log::{EntryRef, LogError, LogWriter, Spare, SpareJob};
use std::collections::VecDeque;

/// What there is to do.
pub enum LogWork {
    /// Make it durable, and report the number to the order actor.
    Append(AppendRequest),
    /// Entries up to this index are not needed any more.
    Cut(u64),
    /// A segment has been made ready.
    Spare(Result<Spare, LogError>),
}

/// Whoever drives the driver.
pub trait LogHost {
    /// For the order actor.
    fn tell(&mut self, input: OrderInput);
    /// Monotonic time.
    fn now_ns(&mut self) -> u64;
    /// Entries with so many bytes of data were made durable in one write, which took so long.
    fn wrote(&mut self, bytes: u64, took_ns: u64);
}

/// What is staged and not durable.
struct Staged {
    /// The newest append.
    number: u64,
    /// Bytes of data of all of them.
    bytes: u64,
}

/// The log, and what waits for it.
pub struct LogDriver {
    writer: LogWriter,
    /// Appends that are not staged yet.
    waiting: VecDeque<AppendRequest>,
    staged: Option<Staged>,
    /// The newest write has been confirmed on disk by one after it.
    confirmed: bool,
    /// There was no space for the last write, or for the last spare segment.
    full: bool,
    /// What the order actor was told last.
    told_full: bool,
}

impl LogDriver {
    /// Drives a log that has been opened.
    pub fn new(writer: LogWriter) -> LogDriver {
        LogDriver {
            writer,
            waiting: VecDeque::new(),
            staged: None,
            confirmed: true,
            full: false,
            told_full: false,
        }
    }

    /// A segment that is to be made ready beside, while writes go on; it comes back as
    /// [`LogWork::Spare`].
    pub fn spare(&mut self) -> Option<SpareJob> {
        if self.full { None } else { self.writer.spare() }
    }

    /// How long to wait for work before a turn without any; `None`: for ever.
    pub fn patience_ms(&self) -> Option<u64> {
        match (self.full, self.confirmed) {
            (true, _) => Some(limits::LOG_RETRY_MS),
            (false, false) => Some(limits::LOG_QUIET_MS),
            (false, true) => None,
        }
    }

    /// Whether there was no space in the last turn.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether appends wait that could not be made durable.
    pub fn holds_back(&self) -> bool {
        self.staged.is_some() || !self.waiting.is_empty()
    }

    /// Takes all work that has gathered; none, if the wait for it was in vain. A full disk is no
    /// error: what found no space is tried again in each turn. After an error nothing can be
    /// acknowledged any more, and what is on the disk is only known to a fresh start.
    pub fn turn(
        &mut self,
        work: &mut Vec<LogWork>,
        host: &mut dyn LogHost,
    ) -> Result<(), LogError> {
        let quiet = work.is_empty();
        // Where there was no space there may be some now.
        self.full = false;
        let mut done = self.take(work).and_then(|()| self.write(host));
        if done.is_ok() && quiet {
            done = self.confirm();
        }
        match done {
            Err(LogError::NoSpace) => {
                self.full = true;
                self.tell_full(true, host);
                Ok(())
            }
            other => other,
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
        // Before anything is written: a cut may free the space for it.
        if let Some(index) = cut {
            self.writer.cut(index)?;
        }
        match spare {
            // The segment in use may have room yet.
            Err(LogError::NoSpace) => {
                self.full = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Makes everything durable that waits, and reports it.
    fn write(&mut self, host: &mut dyn LogHost) -> Result<(), LogError> {
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
            self.staged = Some(Staged {
                number: request.number,
                bytes: self.staged.as_ref().map_or(0, |staged| staged.bytes) + bytes.sum::<u64>(),
            });
            self.waiting.pop_front();
        }
        let Some(Staged { number, bytes }) = self.staged else {
            return Ok(());
        };
        let began_ns = host.now_ns();
        self.writer.flush()?;
        let took_ns = host.now_ns().saturating_sub(began_ns);
        self.staged = None;
        self.confirmed = false;
        self.tell_full(false, host);
        host.tell(OrderInput::Appended { number });
        host.wrote(bytes, took_ns);
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
    fn tell_full(&mut self, full: bool, host: &mut dyn LogHost) {
        if self.told_full != full {
            self.told_full = full;
            host.tell(OrderInput::LogFull(full));
        }
    }
}
