//! Loads that watch: many watches on some connections, writes on others, and every event held
//! against the history that the store has.
//!
//! Each run works on keys that no run before it had, so that their versions count from the
//! beginning, and every value carries the time from which its request counts: an event's latency
//! is the time from there to its delivery.

#![forbid(unsafe_code)]

mod ledger;

mod native;

#[cfg(feature = "etcd")]
mod etcd;

mod options;

mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use crate::driver::{Limits, Phase};
use crate::options::{Options, Stop, Target, Workload};
use crate::os::raise_open_files;
use crate::record::{Board, Recorder};
use crate::report::{Outcome, grouped, time};
use crate::run::{self, nanos};

pub use ledger::{Layout, Ledger, Place};
pub use native::{Connection, Hear};
pub use options::{Kind, REGISTRY_FLAGS, WATCH_FLAGS};

/// A load with watches.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The requests that make the events.
    pub writes: Options,
    /// Connections that watch.
    pub connections: usize,
    /// Watches on each of them.
    pub watches: u64,
    /// Watches of one key are asked for as such, not as intervals.
    pub points: bool,
}

impl Plan {
    /// Which watch sees which keys.
    pub fn layout(&self) -> Layout {
        Layout {
            prefix: self.writes.prefix.clone(),
            key_size: self.writes.key_size,
            keys: self.writes.keys,
            span: match self.writes.workload {
                Workload::Registry => self.writes.range_keys,
                _ => 1,
            },
            points: self.points,
        }
    }

    /// Watches of all connections.
    pub fn total(&self) -> u64 {
        self.connections as u64 * self.watches
    }
}

/// Connections with open watches.
pub trait Watcher: Send {
    /// Listens until all has been told, or nothing more comes.
    fn run(&mut self, ledger: Ledger, until: &Until) -> Result<Ledger, String>;
}

/// Opens the watches of a plan.
pub fn open(plan: &Plan) -> Result<Box<dyn Watcher>, String> {
    match plan.writes.target {
        Target::Quoin => Ok(Box::new(native::Native::open(plan)?)),
        #[cfg(feature = "etcd")]
        Target::Etcd => Ok(Box::new(etcd::Etcd::open(plan)?)),
        #[cfg(not(feature = "etcd"))]
        Target::Etcd => Err("this quoin-bench was built without the etcd driver".into()),
        Target::Redis => Err("Redis has no watches".into()),
    }
}

/// How long watchers listen.
#[derive(Debug, Clone)]
pub struct Until {
    origin: Instant,
    /// Where all keys are, once nothing is written any more, and when that was known.
    finals: Arc<OnceLock<(Vec<Place>, u64)>>,
    /// Nothing may be told for so long, in nanoseconds.
    timeout: u64,
    /// When the ledger was last looked at.
    looked: Arc<AtomicU64>,
}

/// How often a ledger is looked at for its end, in nanoseconds.
const LOOK: u64 = 5_000_000;

impl Until {
    /// Nothing but a silence of `timeout` nanoseconds ends the listening, once it may end.
    pub fn new(origin: Instant, timeout: u64) -> Until {
        Until {
            origin,
            finals: Arc::default(),
            timeout,
            looked: Arc::default(),
        }
    }

    /// Nothing is written any more, and keys are where they are.
    pub fn end(&self, finals: Vec<Place>) {
        // The first word counts.
        let _ = self.finals.set((finals, self.now()));
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// Whether all has been told, or nothing more comes.
    pub fn over(&self, ledger: &Ledger, now: u64) -> bool {
        let Some((finals, since)) = self.finals.get() else {
            return false;
        };
        if now.saturating_sub(self.looked.load(Ordering::Relaxed)) < LOOK {
            return false;
        }
        self.looked.store(now, Ordering::Relaxed);
        let silent = now.saturating_sub(ledger.heard().max(*since)) > self.timeout;
        silent || ledger.behind(finals) == 0
    }
}

/// Runs a load with watches to its end.
///
/// An error means that nothing could be measured; lost, repeated and misplaced events are in the
/// outcome as failures, as failed requests are.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let writes = &plan.writes;
    let files = raise_open_files();
    if files < (writes.connections + plan.connections) as u64 + 64 {
        return Err(format!(
            "{} connections: this process may open only {files} files (ulimit -n)",
            writes.connections + plan.connections
        ));
    }
    let mut writers = run::connect(writes)?;
    run::preload(writes, &mut writers)?;
    let mut watcher = open(plan)?;
    let limits = run::limits(writes);
    let (told, written) = (
        Board::new(run::interval(writes.stop)),
        Board::new(run::interval(writes.stop)),
    );
    let recorder = Recorder::new(told.clone(), limits.warm, limits.end.unwrap_or(u64::MAX));
    let version = i64::from(writes.preload);
    let ledger = Ledger::new(plan.layout(), plan.total(), version, recorder);
    let began = SystemTime::now();
    let until = Until::new(Instant::now(), nanos(writes.timeout));
    let listened = std::thread::scope(|scope| {
        let listener = scope.spawn(|| watcher.run(ledger, &until));
        let finals = write_all(plan, &mut writers, limits, &written, until.origin);
        // Without them the watchers end after their time-out.
        until.end(finals.clone().unwrap_or_default());
        let listened = listener.join().map_err(|_| "the watchers panicked")?;
        let finals = finals?;
        let mut ledger = listened?;
        let behind = ledger.behind(&finals);
        ledger.end(until.now(), behind);
        Ok::<(), String>(())
    });
    listened?;
    let mut totals = told.totals();
    let written = written.totals();
    for (failure, count) in &written.errors {
        *totals.errors.entry(failure.clone()).or_insert(0) += count;
    }
    totals.unsent += written.unsent;
    let end = match writes.stop {
        Stop::After(_) => limits.end.unwrap_or(totals.last).min(totals.last),
        Stop::Total(_) => totals.last,
    };
    let measured = end.saturating_sub(limits.warm);
    let mut outcome = Outcome::new(writes, &mut totals, measured, began);
    outcome.noun = "events";
    outcome.settings[0].1 = options::name(writes).to_string();
    outcome
        .settings
        .push(("watching connections", plan.connections.to_string()));
    outcome
        .settings
        .push(("watches on each", plan.watches.to_string()));
    outcome.beside.push((
        "requests",
        format!(
            "{}, p50 {}, p99 {}",
            grouped(written.good as f64),
            time(written.latencies.value_at_quantile(0.5)),
            time(written.latencies.value_at_quantile(0.99))
        ),
    ));
    Ok(outcome)
}

/// Checks that neither the leases of a load nor their keys are there any more.
pub fn none_left(writes: &Options, plan: &Plan) -> Result<(), String> {
    let server = writes.endpoints[0];
    let places = store::places(writes.target, server, &plan.layout())?;
    let keys = places.iter().filter(|place| place.version > 0).count();
    let ours = writes.leases.first..writes.leases.first + writes.leases.count as i64;
    let leases = store::leases(writes.target, server)?;
    let leases = leases.iter().filter(|id| ours.contains(id)).count();
    match (keys, leases) {
        (0, 0) => Ok(()),
        _ => Err(format!(
            "{leases} leases and {keys} of their keys are still there"
        )),
    }
}

/// Sends the load's requests; returns where all keys are then.
fn write_all(
    plan: &Plan,
    writers: &mut [Box<dyn crate::driver::Worker>],
    limits: Limits,
    board: &Arc<Board>,
    origin: Instant,
) -> Result<Vec<Place>, String> {
    let writes = &plan.writes;
    run::phase(writes, writers, Phase::Load, limits, board, origin)?;
    if writes.workload == Workload::Registry {
        // An entry that is withdrawn at the end could be mistaken for one withdrawn before.
        let quiet = Options {
            quiet: true,
            ..writes.clone()
        };
        let all = Limits {
            warm: 0,
            end: None,
            total: Some(writes.keys),
            paced: false,
        };
        let aside = Board::new(1_000_000_000);
        run::phase(&quiet, writers, Phase::Keys, all, &aside, origin)?;
        if let Some((failure, _)) = aside.totals().errors.iter().next() {
            return Err(format!("writing the last entries: {failure}"));
        }
    }
    store::places(writes.target, writes.endpoints[0], &plan.layout())
}
