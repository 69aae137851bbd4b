//! Runs a load: connects, loads the keys, warms up, measures, and shows how it goes.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{self, Limits, Phase, Task, Worker};
use crate::options::{Options, Stop, Workload};
use crate::os::raise_open_files;
use crate::record::{Board, Totals};
use crate::report::Outcome;
use crate::workload::Generator;

/// Runs the load to its end.
///
/// An error means that nothing could be measured; failed requests are in the outcome.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let files = raise_open_files();
    if files < options.connections as u64 + 64 {
        return Err(format!(
            "--connections {}: this process may open only {files} files (ulimit -n)",
            options.connections
        ));
    }
    let mut workers = connect(options)?;
    preload(options, &mut workers)?;
    let limits = limits(options);
    let board = Board::new(interval(options.stop));
    let started = std::time::SystemTime::now();
    let origin = Instant::now();
    let finish = phase(options, &mut workers, Phase::Load, limits, &board, origin)?;
    let mut totals = board.totals();
    let until = match options.stop {
        Stop::After(_) => finish.min(limits.end.unwrap_or(u64::MAX)),
        Stop::Total(_) => totals.last,
    };
    Ok(Outcome::new(
        options,
        &mut totals,
        until.saturating_sub(limits.warm),
        started,
    ))
}

/// Connects all workers.
pub fn connect(options: &Options) -> Result<Vec<Box<dyn Worker>>, String> {
    (0..options.threads)
        .map(|worker| driver::connect(options, worker))
        .collect()
}

/// The bounds of the load itself.
pub fn limits(options: &Options) -> Limits {
    let warm = nanos(options.warmup);
    let (end, total) = match options.stop {
        Stop::After(duration) => (Some(warm.saturating_add(nanos(duration))), None),
        Stop::Total(total) => (None, Some(total)),
    };
    Limits {
        warm,
        end,
        total,
        paced: true,
    }
}

/// Grants the leases that the load needs, and writes every key once, if it asks for that.
pub fn preload(options: &Options, workers: &mut [Box<dyn Worker>]) -> Result<(), String> {
    if !options.preload {
        return Ok(());
    }
    if options.workload.leases() {
        let grants = (Phase::Leases, options.leases.count);
        prepare(options, workers, grants, "granting leases")?;
    }
    if options.workload != Workload::KeepAlive {
        prepare(
            options,
            workers,
            (Phase::Keys, options.keys),
            "loading the keys",
        )?;
    }
    Ok(())
}

fn prepare(
    options: &Options,
    workers: &mut [Box<dyn Worker>],
    (what, total): (Phase, u64),
    called: &str,
) -> Result<(), String> {
    let board = Board::new(1_000_000_000);
    let limits = Limits {
        warm: 0,
        end: None,
        total: Some(total),
        paced: false,
    };
    phase(options, workers, what, limits, &board, Instant::now())?;
    let totals = board.totals();
    match totals.errors.iter().next() {
        None => Ok(()),
        Some((failure, _)) => Err(format!(
            "{called}: {} of the requests failed: {failure}",
            totals.failed()
        )),
    }
}

/// Runs one phase on all workers; returns when it ended. All times count from `origin`.
pub fn phase(
    options: &Options,
    workers: &mut [Box<dyn Worker>],
    phase: Phase,
    limits: Limits,
    board: &Arc<Board>,
    origin: Instant,
) -> Result<u64, String> {
    let shared = Arc::new(options.clone());
    std::thread::scope(|scope| {
        let mut handles = Vec::new();
        for (number, worker) in workers.iter_mut().enumerate() {
            let generator = match phase {
                Phase::Leases => Generator::grants(options, number),
                Phase::Keys => Generator::keys(options, number),
                Phase::Load => Generator::new(options, number),
            };
            let (pace, recorder) = driver::schedule(options, number, board, limits);
            let task = Task {
                options: shared.clone(),
                generator,
                pace,
                recorder,
                origin,
            };
            handles.push(scope.spawn(move || worker.run(task, phase)));
        }
        let mut progress = Progress::new(options, phase, limits, origin);
        while handles.iter().any(|handle| !handle.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            progress.turn(board);
        }
        progress.end();
        for handle in handles {
            handle
                .join()
                .map_err(|_| "a worker thread panicked".to_string())??;
        }
        Ok(nanos(origin.elapsed()))
    })
}

/// A span of time in nanoseconds.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The length of the intervals that a run is cut into, in nanoseconds.
pub fn interval(stop: Stop) -> u64 {
    match stop {
        Stop::After(duration) => (nanos(duration) / 60).clamp(100_000_000, 1_000_000_000),
        Stop::Total(_) => 250_000_000,
    }
}

/// The progress line: redrawn in place on a terminal, plain lines elsewhere.
struct Progress<'a> {
    options: &'a Options,
    phase: Phase,
    limits: Limits,
    origin: Instant,
    terminal: bool,
    next: Duration,
    drawn: bool,
}

impl<'a> Progress<'a> {
    fn new(options: &'a Options, phase: Phase, limits: Limits, origin: Instant) -> Progress<'a> {
        let terminal = std::io::stderr().is_terminal();
        let next = Duration::from_secs(1);
        Progress {
            options,
            phase,
            limits,
            origin,
            terminal,
            next,
            drawn: false,
        }
    }

    fn turn(&mut self, board: &Board) {
        let elapsed = self.origin.elapsed();
        if self.options.quiet || elapsed < self.next {
            return;
        }
        let every = if self.terminal { 250 } else { 1000 };
        self.next = elapsed + Duration::from_millis(every);
        let line = self.line(elapsed, &board.totals());
        // Progress is a courtesy: a closed stderr must not stop the run.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[2K{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
        self.drawn = true;
    }

    fn line(&self, elapsed: Duration, totals: &Totals) -> String {
        let seconds = elapsed.as_secs_f64();
        let what = match self.phase {
            Phase::Leases => {
                let count = self.options.leases.count;
                format!("granting leases: {} of {count}", totals.good)
            }
            Phase::Keys => format!("loading keys: {} of {}", totals.good, self.options.keys),
            Phase::Load if nanos(elapsed) < self.limits.warm => "warming up".to_string(),
            Phase::Load => match totals.latest() {
                None => "measuring".to_string(),
                Some(now) => format!(
                    "{:>9.0}/s   p50 {}   p99 {}",
                    now.rate,
                    crate::report::time(now.p50),
                    crate::report::time(now.p99)
                ),
            },
        };
        let failed = match totals.failed() {
            0 => String::new(),
            failed => format!("   {failed} failed"),
        };
        format!("{seconds:6.1} s  {what}{failed}")
    }

    fn end(&self) {
        if self.terminal && self.drawn {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
