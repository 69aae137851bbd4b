//! The drivers: how requests reach a server and answers come back.
//!
//! `stream` drives any protocol of bytes over plain sockets, `quoin` and `redis` are such
//! protocols; `etcd` goes through its client library.

pub mod stream;

pub mod quoin;

pub mod redis;

#[cfg(feature = "etcd")]
pub mod etcd;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use crate::options::{Options, Target};
use crate::pace::Pace;
use crate::record::{Board, Recorder};
use crate::workload::Generator;

/// What one worker works on.
pub struct Task {
    /// The whole load.
    pub options: Arc<Options>,
    /// Its requests.
    pub generator: Generator,
    /// When it sends them.
    pub pace: Pace,
    /// Where it writes down what happened.
    pub recorder: Recorder,
    /// The instant that all times count from.
    pub origin: Instant,
}

impl Task {
    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Granting every lease.
    Leases,
    /// Writing every key once.
    Keys,
    /// The load itself.
    Load,
}

/// One connected worker, ready to run phases.
pub trait Worker: Send {
    /// Sends what the task asks for until its pace is over and all answers have come.
    fn run(&mut self, task: Task, phase: Phase) -> Result<(), String>;
}

/// Connects the worker with that number.
pub fn connect(options: &Options, worker: usize) -> Result<Box<dyn Worker>, String> {
    match options.target {
        Target::Quoin => Ok(Box::new(stream::Stream::<quoin::Native>::connect(
            options, worker,
        )?)),
        Target::Redis => Ok(Box::new(stream::Stream::<redis::Resp>::connect(
            options, worker,
        )?)),
        #[cfg(feature = "etcd")]
        Target::Etcd => Ok(Box::new(etcd::Etcd::connect(options, worker)?)),
        #[cfg(not(feature = "etcd"))]
        Target::Etcd => Err(
            "this quoin-bench was built without the etcd driver; build it with \
                             'cargo build --release -p quoin-bench --features etcd' \
                             (needs protoc, package protobuf-compiler)"
                .into(),
        ),
    }
}

/// The part of `total` that worker `worker` of `workers` takes.
pub fn share(total: u64, worker: usize, workers: usize) -> u64 {
    let (worker, workers) = (worker as u64, workers as u64);
    total / workers + u64::from(worker < total % workers)
}

/// A recorder and a pace for one worker of a phase.
pub fn schedule(
    options: &Options,
    worker: usize,
    board: &Arc<Board>,
    limits: Limits,
) -> (Pace, Recorder) {
    let rate = options.rate.map(|rate| rate / options.threads as f64);
    let total = limits
        .total
        .map(|total| share(total, worker, options.threads));
    let pace = Pace::new(
        rate.filter(|_| limits.paced),
        limits.warm,
        limits.end,
        total,
    );
    let end = limits.end.unwrap_or(u64::MAX);
    let recorder = Recorder::new(board.clone(), limits.warm, end);
    let recorder = if options.trace {
        recorder.tracing()
    } else {
        recorder
    };
    (pace, recorder)
}

/// The bounds of a phase, in nanoseconds and requests of all workers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The end of the warm-up.
    pub warm: u64,
    /// The end of sending.
    pub end: Option<u64>,
    /// The most measured requests.
    pub total: Option<u64>,
    /// Whether the load's rate applies.
    pub paced: bool,
}
