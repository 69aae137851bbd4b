//! One node on a simulated disk: the order actor with the real log and the real tree below it.

use quoin::apply::{Applier, BatchLimits};
use quoin::node::log_driver::{LogDriver, LogHost, LogWork};
use quoin::node::messages::{OrderInput, OrderOutput};
use quoin::node::order::{CheckpointConfig, Order, OrderConfig};
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::log::{LogOptions, LogWriter, SpareJob};
use quoin_storage::tree::{self, CheckpointDone, CheckpointJob, Reader, Shared, TreeError, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

pub const TREE: &str = "tree";
pub const FRONTS: u16 = 2;
const MS: u64 = 1_000_000;

/// Why a node stopped.
#[derive(Debug)]
pub struct Stopped(pub String);

/// What the log has to say goes to the order actor; how long it takes counts for nothing.
struct Inbox<'n>(&'n mut Vec<OrderInput>);

impl LogHost for Inbox<'_> {
    fn tell(&mut self, input: OrderInput) {
        self.0.push(input);
    }

    fn now_ns(&mut self) -> u64 {
        0
    }

    fn wrote(&mut self, _bytes: u64, _took_ns: u64) {}
}

/// A checkpoint in progress, on a thread of its own that runs only while the test waits for it:
/// it stops after each of its writes, so that other things can happen in between, and still
/// everything happens in one order.
struct Checkpoint {
    go: Sender<()>,
    paused: Receiver<Option<Result<CheckpointDone, TreeError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoint {
    fn start(job: CheckpointJob, shared: &Shared) -> Checkpoint {
        let (go, wait) = channel::<()>();
        let (tell, paused) = channel();
        let file = shared.page_file();
        let thread = std::thread::spawn(move || {
            if wait.recv().is_err() {
                return;
            }
            let done = job.run(&*file, &mut |_| {
                // Once the node is gone nobody answers, and the rest runs against a disk
                // without power.
                let _ = tell.send(None);
                let _ = wait.recv();
            });
            let _ = tell.send(Some(done));
        });
        Checkpoint {
            go,
            paused,
            thread: Some(thread),
        }
    }

    fn step(&mut self) -> Option<Result<CheckpointDone, TreeError>> {
        self.go.send(()).expect("the checkpoint waits");
        self.paused.recv().expect("the checkpoint goes on")
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let (closed, _) = channel();
        self.go = closed;
        let (_, closed) = channel();
        self.paused = closed;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a checkpoint does not panic");
        }
    }
}

pub struct Node {
    pub order: Order<Writer>,
    pub reader: Reader,
    log: LogDriver,
    shared: Shared,
    inbox: Vec<OrderInput>,
    /// What waits for the log thread.
    log_queue: VecDeque<LogWork>,
    /// A segment that is to be made ready.
    spare: Option<SpareJob>,
    checkpoint: Option<Checkpoint>,
    /// Entries that were in the log and not in the tree at start.
    pub replayed: u64,
}

pub struct Settings {
    pub boot: u64,
    pub founding: bool,
    pub segment_bytes: u64,
    pub checkpoint: CheckpointConfig,
    pub in_flight_bytes: usize,
    /// Bytes that may be proposed and not committed.
    pub uncommitted_bytes: u64,
    pub per_turn: usize,
    pub tree: tree::TreeOptions,
}

pub fn config(settings: &Settings) -> OrderConfig {
    let mut config = OrderConfig::sole(77, 1, settings.boot, FRONTS);
    config.founding = settings.founding;
    config.checkpoint = settings.checkpoint;
    config.in_flight_bytes = settings.in_flight_bytes;
    config.core.max_uncommitted_bytes = settings.uncommitted_bytes;
    config.commands_per_turn = settings.per_turn;
    config.purge_per_turn = 3;
    config.tick_ns = 100 * MS;
    config
}

impl Node {
    pub fn start(
        disk: &SimDisk,
        settings: &Settings,
        seed: u64,
        now_ns: u64,
    ) -> Result<Node, Stopped> {
        let stopped = |what: &dyn std::fmt::Display| Stopped(what.to_string());
        let disk: Arc<SimDisk> = Arc::new(disk.clone());
        let mut options = LogOptions::new(5, seed);
        options.segment_bytes = settings.segment_bytes;
        options.free_segments_max = 2;
        let (log, recovered) = LogWriter::open(disk.clone(), options).map_err(|e| stopped(&e))?;
        let (writer, shared) =
            tree::open(disk, TREE, settings.tree.clone()).map_err(|e| stopped(&e))?;
        let applier = Applier::open(writer, BatchLimits::default()).map_err(|e| stopped(&e))?;
        let last = recovered.base_index + recovered.entries.len() as u64;
        let replayed = last.saturating_sub(applier.meta().applied_index);
        let order = Order::new(config(settings), recovered.into(), applier, seed, now_ns)
            .map_err(|e| stopped(&e))?;
        let reader = shared.reader().expect("a reader's slot is free");
        Ok(Node {
            order,
            reader,
            log: LogDriver::new(log),
            shared,
            inbox: Vec::new(),
            log_queue: VecDeque::new(),
            spare: None,
            checkpoint: None,
            replayed,
        })
    }

    /// For one more who reads.
    pub fn another_reader(&self) -> Reader {
        self.shared.reader().expect("a reader's slot is free")
    }

    pub fn send(&mut self, input: OrderInput) {
        self.inbox.push(input);
    }

    /// One loop turn of the order actor. What is for log and checkpoint thread goes there; the
    /// rest is returned.
    pub fn turn(&mut self, now_ns: u64) -> Result<Vec<OrderOutput>, Stopped> {
        let mut out = Vec::new();
        for input in self.inbox.drain(..) {
            self.order.step(now_ns, input, &mut out);
        }
        self.order.turn(now_ns, &mut out);
        let mut rest = Vec::new();
        for output in out {
            match output {
                OrderOutput::Append(append) => self.log_queue.push_back(LogWork::Append(append)),
                OrderOutput::CutLog { index } => self.log_queue.push_back(LogWork::Cut(index)),
                OrderOutput::Checkpoint(job) => {
                    assert!(self.checkpoint.is_none(), "one checkpoint at a time");
                    self.checkpoint = Some(Checkpoint::start(*job, &self.shared));
                }
                OrderOutput::Fatal(fatal) => return Err(Stopped(fatal.to_string())),
                other => rest.push(other),
            }
        }
        Ok(rest)
    }

    /// Appends that wait for the log thread.
    pub fn appends_waiting(&self) -> usize {
        let append = |work: &&LogWork| matches!(work, LogWork::Append(_));
        self.log_queue.iter().filter(append).count()
    }

    /// Lets the log thread have a turn with up to `most` pieces of what waits for it. Without any
    /// it has one only if something is held back for want of space.
    pub fn log_step(&mut self, most: usize) -> Result<bool, Stopped> {
        let count = most.min(self.log_queue.len());
        let mut work: Vec<_> = self.log_queue.drain(..count).collect();
        if let Some(job) = self.spare.take() {
            work.push(LogWork::Spare(job.run()));
        }
        if !work.is_empty() || self.log.holds_back() {
            self.log_turn(work)?;
        }
        Ok(count > 0)
    }

    /// Lets the log thread wait for work in vain.
    pub fn log_idle(&mut self) -> Result<(), Stopped> {
        if self.log_queue.is_empty() && self.log.patience_ms().is_some() {
            self.log_turn(Vec::new())?;
        }
        Ok(())
    }

    fn log_turn(&mut self, mut work: Vec<LogWork>) -> Result<(), Stopped> {
        let done = self.log.turn(&mut work, &mut Inbox(&mut self.inbox));
        done.map_err(|error| Stopped(error.to_string()))?;
        self.spare = self.spare.take().or_else(|| self.log.spare());
        Ok(())
    }

    /// Lets the checkpoint go on to its next write.
    pub fn checkpoint_step(&mut self) -> Result<bool, Stopped> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(false);
        };
        if let Some(done) = checkpoint.step() {
            self.checkpoint = None;
            let done = done.map_err(|error| Stopped(error.to_string()))?;
            self.inbox.push(OrderInput::Checkpointed(Box::new(done)));
        }
        Ok(true)
    }

    pub fn is_busy(&self) -> bool {
        !self.inbox.is_empty()
            || !self.log_queue.is_empty()
            || self.log.holds_back()
            || self.checkpoint.is_some()
    }
}
