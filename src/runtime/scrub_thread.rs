//! The scrub thread: reads all of the tree once after the start, so that later reads do not wait
//! for the disk, and again and again afterwards, so that damage is found before it is needed.

#![forbid(unsafe_code)]

use crate::limits;
use crate::runtime::tally::Tally;
use crate::runtime::{os, process};
use quoin_storage::tree::{Reader, Scrub};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Pages of one step, in which the thread keeps a state of the tree from being given up.
const STEP_PAGES: u64 = 256;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// The longest pause between two steps: for small trees, which are read more often than they need.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The thread's links.
pub struct ScrubThread {
    /// What it reads.
    pub reader: Reader,
    /// Where it is counted.
    pub tally: Arc<Tally>,
}

impl ScrubThread {
    /// Runs for the life of the process.
    pub fn run(self) {
        os::lower_priority();
        let mut scrub = Scrub::default();
        let ended = self.warm_up(&mut scrub);
        // Not known before the first pass has ended.
        let mut steps = if ended { self.pages() / STEP_PAGES } else { 0 };
        let mut so_far = 0;
        loop {
            thread::sleep(pause(steps));
            so_far += 1;
            if self.step(&mut scrub) {
                (steps, so_far) = (so_far, 0);
            }
        }
    }

    /// The first pass, in a hurry: to its end, or until much of the memory is full of what it has
    /// read, which of the rest would only push out what was read before. Whether it came to its end.
    fn warm_up(&self, scrub: &mut Scrub) -> bool {
        let started = Instant::now();
        let most = process::available_bytes().unwrap_or(0) / 2;
        loop {
            let ended = self.step(scrub);
            let read = self.pages() * PAGE;
            if ended || read >= most {
                crate::log_debug!(
                    "{read} bytes of the tree read in {} ms",
                    started.elapsed().as_millis()
                );
                return ended;
            }
            let due = Duration::from_micros(read * 1_000_000 / limits::WARM_UP_BYTES_PER_SECOND);
            if let Some(ahead) = due.checked_sub(started.elapsed()) {
                thread::sleep(ahead);
            }
        }
    }

    fn pages(&self) -> u64 {
        self.tally.scrub.pages.get()
    }

    /// Reads on; whether that was the last of a pass.
    fn step(&self, scrub: &mut Scrub) -> bool {
        let read = scrub.step(&self.reader.pin(), STEP_PAGES);
        let counted = &self.tally.scrub;
        counted.pages.add(read.pages);
        counted.damaged.add(read.damage.len() as u64);
        counted.passes.add(u64::from(read.whole));
        for damage in &read.damage {
            crate::log_error!(
                "the tree file is damaged: {damage} (docs/OPERATIONS.md, 'The disk fails')"
            );
        }
        read.whole
    }
}

/// How long to wait before a step of a pass of so many.
fn pause(steps: u64) -> Duration {
    Duration::from_millis(limits::SCRUB_PASS_MS / steps.max(1)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_a_day_however_large_the_tree_is() {
        let day = Duration::from_millis(limits::SCRUB_PASS_MS);
        for steps in [2_000, 100_000, 4_000_000] {
            let pass = pause(steps) * u32::try_from(steps).unwrap();
            assert!(pass <= day && pass > day * 9 / 10, "{steps}: {pass:?}");
        }
        assert_eq!(pause(0), PAUSE_MAX);
    }
}
