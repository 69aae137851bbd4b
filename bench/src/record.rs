//! What happened: latencies, counts per interval, and errors by type.
//!
//! Each worker records into its own [`Recorder`] and hands whole intervals over to the shared
//! [`Board`], so that nothing is shared per request.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

/// A request that got no good answer: what kind of failure, in a few words.
pub type Failure = Cow<'static, str>;

/// An empty histogram of nanoseconds: 100 ns to an hour, three significant digits.
pub fn histogram() -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(100, 3_600_000_000_000, 3).expect("the bounds are in order");
    histogram.auto(true);
    histogram
}

/// One finished stretch of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Seconds from the start of the measured time to the interval's start.
    pub at: f64,
    /// Good answers per second.
    pub rate: f64,
    /// Median latency in nanoseconds.
    pub p50: u64,
    /// 99th percentile in nanoseconds.
    pub p99: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// What one worker saw in one interval.
#[derive(Debug)]
struct Slice {
    good: u64,
    errors: u64,
    latencies: Histogram<u64>,
}

impl Slice {
    fn new() -> Slice {
        Slice {
            good: 0,
            errors: 0,
            latencies: histogram(),
        }
    }
}

/// Everything seen so far, by all workers.
#[derive(Debug)]
pub struct Totals {
    /// Latencies of the measured requests that got a good answer, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Good answers that came in the measured time.
    pub good: u64,
    /// Failed requests of the measured time, by type.
    pub errors: BTreeMap<Failure, u64>,
    /// Open loop: requests that were due but that the server left no room to send. Each is in
    /// `latencies` with the time it had waited when the run ended.
    pub unsent: u64,
    /// When the last answer came, in nanoseconds of the run.
    pub last: u64,
    /// When each measured answer came and how long it took, if that was asked for.
    pub trace: Vec<(u64, u64)>,
    open: BTreeMap<u64, Slice>,
    done: BTreeMap<u64, Interval>,
    interval_ns: u64,
}

/// Where the workers put their intervals.
#[derive(Debug)]
pub struct Board {
    totals: Mutex<Totals>,
}

impl Board {
    /// A board for intervals of that length.
    pub fn new(interval_ns: u64) -> Arc<Board> {
        assert!(interval_ns > 0);
        Arc::new(Board {
            totals: Mutex::new(Totals {
                latencies: histogram(),
                good: 0,
                errors: BTreeMap::new(),
                unsent: 0,
                last: 0,
                trace: Vec::new(),
                open: BTreeMap::new(),
                done: BTreeMap::new(),
                interval_ns,
            }),
        })
    }

    /// A look at the totals so far.
    pub fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn take(&mut self, index: u64, slice: &mut Slice) {
        self.good += slice.good;
        // Both histograms grow by themselves, so that adding one to the other cannot fail.
        let added = self.latencies.add(&slice.latencies);
        debug_assert!(added.is_ok());
        match self.open.get_mut(&index) {
            Some(open) => {
                open.good += slice.good;
                open.errors += slice.errors;
                let added = open.latencies.add(&slice.latencies);
                debug_assert!(added.is_ok());
                slice.latencies.reset();
                (slice.good, slice.errors) = (0, 0);
            }
            None => {
                self.open
                    .insert(index, std::mem::replace(slice, Slice::new()));
            }
        }
        // A slow worker may still add to the last intervals; older ones keep only their figures.
        while self.open.len() > 3 {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        let Some((index, slice)) = self.open.pop_first() else {
            return;
        };
        let fresh = self.figures(index, &slice);
        self.done
            .entry(index)
            .and_modify(|kept| {
                kept.rate += fresh.rate;
                kept.errors += fresh.errors;
            })
            .or_insert(fresh);
    }

    /// Failed requests, all types together.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The newest interval that every worker is probably through with.
    pub fn latest(&self) -> Option<Interval> {
        let (index, slice) = self.open.iter().nth_back(1)?;
        Some(self.figures(*index, slice))
    }

    fn figures(&self, index: u64, slice: &Slice) -> Interval {
        let seconds = self.interval_ns as f64 / 1e9;
        Interval {
            at: index as f64 * seconds,
            rate: slice.good as f64 / seconds,
            p50: slice.latencies.value_at_quantile(0.5),
            p99: slice.latencies.value_at_quantile(0.99),
            errors: slice.errors,
        }
    }

    /// The run interval by interval; the last, if cut short by the end of the run, left out.
    pub fn intervals(&mut self, measured_ns: u64) -> Vec<Interval> {
        while !self.open.is_empty() {
            self.close_oldest();
        }
        let whole = measured_ns / self.interval_ns;
        let seconds = self.interval_ns as f64 / 1e9;
        let idle = |at| Interval {
            at,
            rate: 0.0,
            p50: 0,
            p99: 0,
            errors: 0,
        };
        (0..whole)
            .map(|index| {
                self.done
                    .get(&index)
                    .copied()
                    .unwrap_or(idle(index as f64 * seconds))
            })
            .collect()
    }
}

/// One worker's records.
#[derive(Debug)]
pub struct Recorder {
    board: Arc<Board>,
    /// Measured time: from the end of the warm-up to the end of the run.
    warm: u64,
    end: u64,
    interval_ns: u64,
    index: u64,
    slice: Slice,
    unsent: u64,
    trace: Option<Vec<(u64, u64)>>,
}

impl Recorder {
    /// A recorder of requests that start, and answers that come, from `warm` until `end`.
    pub fn new(board: Arc<Board>, warm: u64, end: u64) -> Recorder {
        let interval_ns = board.totals().interval_ns;
        Recorder {
            board,
            warm,
            end,
            interval_ns,
            index: 0,
            slice: Slice::new(),
            unsent: 0,
            trace: None,
        }
    }

    /// The same recorder, but every single latency is kept.
    pub fn tracing(mut self) -> Recorder {
        self.trace = Some(Vec::new());
        self
    }

    /// A good answer came at `now` to the request that counts from `start`.
    pub fn good(&mut self, start: u64, now: u64) {
        self.turn(now);
        if start >= self.warm {
            self.slice
                .latencies
                .saturating_record(now.saturating_sub(start));
            if let Some(trace) = &mut self.trace {
                trace.push((now, now.saturating_sub(start)));
            }
        }
        if now >= self.warm && now < self.end {
            self.slice.good += 1;
        }
    }

    /// As many good answers as that at once, all counting from `start`.
    pub fn good_many(&mut self, start: u64, now: u64, count: u64) {
        self.turn(now);
        if start >= self.warm && count > 0 {
            let latency = now.saturating_sub(start);
            self.slice.latencies.saturating_record_n(latency, count);
        }
        if now >= self.warm && now < self.end {
            self.slice.good += count;
        }
    }

    /// So many good answers came at `now` that count from no time that is known.
    pub fn counted(&mut self, now: u64, count: u64) {
        self.turn(now);
        if now >= self.warm && now < self.end {
            self.slice.good += count;
        }
    }

    /// The request that counts from `start` failed at `now`.
    pub fn bad(&mut self, now: u64, failure: Failure) {
        self.turn(now);
        // Failures of the warm-up count too: they must not go unseen.
        self.slice.errors += 1;
        *self.board.totals().errors.entry(failure).or_insert(0) += 1;
    }

    /// The request that was due at `start` had not been sent when the run ended at `now`.
    pub fn unsent(&mut self, start: u64, now: u64) {
        self.slice
            .latencies
            .saturating_record(now.saturating_sub(start));
        self.unsent += 1;
    }

    /// Hands the interval over once its time is past; called at least once per interval.
    pub fn turn(&mut self, now: u64) {
        let index = now.clamp(self.warm, self.end.max(self.warm)) - self.warm;
        let index = index / self.interval_ns;
        if index != self.index {
            self.flush(now);
            self.index = index;
        }
    }

    /// Hands everything over.
    pub fn flush(&mut self, now: u64) {
        let mut totals = self.board.totals();
        totals.last = totals.last.max(now);
        totals.unsent += std::mem::take(&mut self.unsent);
        totals
            .trace
            .extend(self.trace.iter_mut().flat_map(|trace| trace.drain(..)));
        totals.take(self.index, &mut self.slice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_the_measured_time_counts() {
        let board = Board::new(10 * MS);
        let mut recorder = Recorder::new(board.clone(), 10 * MS, 40 * MS);
        recorder.good(0, 5 * MS); // all in the warm-up
        recorder.good(8 * MS, 12 * MS); // answered in the measured time, started before it
        recorder.good(12 * MS, 14 * MS);
        recorder.good(39 * MS, 45 * MS); // started in the measured time, answered after it
        recorder.flush(45 * MS);
        let mut totals = board.totals();
        assert_eq!(totals.good, 2);
        assert_eq!(totals.latencies.len(), 2);
        assert!(totals.latencies.max() >= 6 * MS - 100_000);
        let rates: Vec<f64> = totals.intervals(30 * MS).iter().map(|i| i.rate).collect();
        assert_eq!(rates, [200.0, 0.0, 0.0]);
    }

    #[test]
    fn workers_add_up_even_when_one_is_late() {
        let board = Board::new(MS);
        let mut fast = Recorder::new(board.clone(), 0, 100 * MS);
        let mut slow = Recorder::new(board.clone(), 0, 100 * MS);
        for i in 0..10 {
            fast.good(i * MS, i * MS + MS / 2);
        }
        fast.flush(10 * MS);
        slow.good(0, MS / 2);
        slow.bad(MS / 2, "broken".into());
        slow.flush(10 * MS);
        let mut totals = board.totals();
        assert_eq!(totals.good, 11);
        assert_eq!(totals.failed(), 1);
        let intervals = totals.intervals(10 * MS);
        assert_eq!(intervals.len(), 10);
        assert_eq!(intervals[0].rate, 2000.0);
        assert_eq!(intervals[0].errors, 1);
        assert_eq!(intervals[9].rate, 1000.0);
    }

    #[test]
    fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
        // 1000 requests a second for a second; the server answers in 1 ms, but stands still
        // from 500 ms to 700 ms. Whoever asks in that time waits for its end.
        let board = Board::new(100 * MS);
        let mut recorder = Recorder::new(board.clone(), 0, 1000 * MS);
        let mut pace = crate::pace::Pace::new(Some(1000.0), 0, Some(1000 * MS), None);
        let mut now = 0;
        while !pace.over(now) {
            if let Some(start) = pace.take(now) {
                now = if (500 * MS..700 * MS).contains(&now) {
                    700 * MS
                } else {
                    now
                };
                recorder.good(start, now + MS);
            } else {
                now = pace.next_due(now).unwrap_or(u64::MAX);
            }
        }
        recorder.flush(now);
        let totals = board.totals();
        assert_eq!(totals.latencies.len(), 1000);
        // A fifth of all requests fell into the stall: their waits are spread over 0..200 ms.
        let p90 = totals.latencies.value_at_quantile(0.90) / MS;
        let p99 = totals.latencies.value_at_quantile(0.99) / MS;
        assert!((95..=107).contains(&p90), "{p90}");
        assert!((185..=197).contains(&p99), "{p99}");
        assert!(totals.latencies.value_at_quantile(0.5) <= 2 * MS);
    }
}
