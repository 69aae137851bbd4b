//! What the threads count, for `/metrics`.
//!
//! Every cell is written by one thread alone and read by whoever is asked for metrics: to count is
//! a load and a store, without a lock and without a shared cache line.

#![forbid(unsafe_code)]

use crate::etcd::http::Check;
use crate::etcd::{Code, Method};
use crate::node::front::FrontCounts;
use crate::node::order::OrderCounts;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it. Only one thread may.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper end of the first class of times.
const FIRST_NS: u64 = 31_250;
/// Classes of times: each reaches twice as far as the one before, the last to 8.192 s, so that
/// etcd's (1 ms to 8.192 s) are among them.
pub const CLASSES: usize = 19;

/// Times, by class.
#[derive(Debug, Default)]
pub struct Times {
    /// The last is for those beyond all classes.
    classes: [Count; CLASSES + 1],
    sum_ns: Count,
}

impl Times {
    /// Counts one.
    pub fn note(&self, ns: u64) {
        self.classes[class_of(ns)].add(1);
        self.sum_ns.add(ns);
    }

    /// Whether there are any.
    pub fn has_some(&self) -> bool {
        self.classes.iter().any(|class| class.get() > 0)
    }

    /// How many there are of each class, those beyond all at the end, and their sum.
    pub fn read(&self) -> ([u64; CLASSES + 1], u64) {
        let mut counts = [0; CLASSES + 1];
        for (count, class) in counts.iter_mut().zip(&self.classes) {
            *count = class.get();
        }
        (counts, self.sum_ns.get())
    }
}

fn class_of(ns: u64) -> usize {
    let beyond = ns.saturating_sub(1) / FIRST_NS;
    let class = u64::BITS - beyond.leading_zeros();
    (class as usize).min(CLASSES)
}

/// Where a class of times ends.
pub fn end_ns(class: usize) -> u64 {
    FIRST_NS << class
}

/// Codes that a call can end with.
pub const CODES: usize = Code::ALL.len();

/// The calls of one method.
#[derive(Debug, Default)]
pub struct Calls {
    /// Begun.
    pub started: Count,
    /// Ended, by code.
    pub handled: [Count; CODES],
    /// Messages that clients sent.
    pub received: Count,
    /// Messages that clients were sent.
    pub sent: Count,
    /// How long those took that ended well, and the others.
    pub times: [Times; 2],
}

impl Calls {
    /// Counts one that has ended.
    pub fn note_end(&self, code: Code, took_ns: u64) {
        self.handled[code as usize].add(1);
        self.times[usize::from(code != Code::Ok)].note(took_ns);
    }
}

/// The versions that etcd's clients say they are of, and are told apart; the first stands for
/// those that say nothing, or something else.
pub const CLIENT_VERSIONS: [&str; 10] = [
    "unknown", "3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8",
];

/// The place among [`CLIENT_VERSIONS`] of what a client says.
pub fn client_version(said: Option<&[u8]>) -> usize {
    // Every call comes here, so nothing is looked for.
    match said {
        Some([b'3', b'.', minor @ b'0'..=b'8']) => 1 + usize::from(minor - b'0'),
        _ => 0,
    }
}

/// What one executor counts. Aligned so that no other thread's cells share its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct SeatTally {
    /// The core that it runs on.
    pub core: usize,
    /// The calls of gRPC, by method.
    calls: Vec<Calls>,
    /// Bytes of the messages of gRPC's calls.
    pub received_bytes: Count,
    /// Bytes of the messages of gRPC's answers.
    pub sent_bytes: Count,
    /// Calls of gRPC by the version of etcd's client, and whether they are streams.
    pub clients: [[Count; 2]; CLIENT_VERSIONS.len()],
    /// Checks of `/livez` and `/readyz` by their names, each for either path, and whether they
    /// failed.
    pub checks: [[[Count; 2]; 2]; Check::ALL.len()],
    /// Questions after health that found it well, and those that did not.
    pub well: Count,
    /// See `well`.
    pub unwell: Count,
    /// How much later than due the loop came round.
    pub late: Times,
    /// How long the order actor's turns took.
    pub turns: Times,
    /// Turns of the order actor that took too long.
    pub slow_turns: Count,
    /// From the arrival of a write to its answer from the order actor: of one write whenever
    /// answers come.
    pub answered: Times,
    /// From the publication of a revision until the watches that keep up are told of it: of one
    /// revision at a time.
    pub told: Times,
    front: [Count; 9],
    order: [Count; 15],
}

impl SeatTally {
    fn new(core: usize) -> SeatTally {
        SeatTally {
            core,
            calls: Method::ALL.iter().map(|_| Calls::default()).collect(),
            clients: Default::default(),
            checks: Default::default(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
            well: Count::default(),
            unwell: Count::default(),
            late: Times::default(),
            turns: Times::default(),
            slow_turns: Count::default(),
            answered: Times::default(),
            told: Times::default(),
            front: Default::default(),
            order: Default::default(),
        }
    }

    /// The calls of a method.
    pub fn calls(&self, method: Method) -> &Calls {
        // Method::ALL has every method.
        &self.calls[method as usize]
    }

    /// Shows what the front has counted itself.
    pub fn show_front(&self, counts: &FrontCounts) {
        let values = [
            counts.reads,
            counts.native,
            counts.events,
            counts.connections,
            counts.waiting,
            counts.unsent_bytes,
            counts.watch_streams,
            counts.watches,
            counts.lagging,
        ];
        for (cell, value) in self.front.iter().zip(values) {
            cell.set(value);
        }
    }

    /// What the front has counted.
    pub fn front(&self) -> FrontCounts {
        let [
            reads,
            native,
            events,
            connections,
            waiting,
            unsent_bytes,
            watch_streams,
            watches,
            lagging,
        ] = self.front.each_ref().map(Count::get);
        FrontCounts {
            reads,
            native,
            events,
            connections,
            waiting,
            unsent_bytes,
            watch_streams,
            watches,
            lagging,
        }
    }

    /// Shows what the order actor has counted itself.
    pub fn show_order(&self, counts: &OrderCounts) {
        let values = [
            counts.applied.puts,
            counts.applied.put_bytes,
            counts.applied.deletes,
            counts.applied.ranges,
            counts.applied.txns,
            counts.applied.leases_granted,
            counts.applied.leases_revoked,
            counts.applied.leases_expired,
            counts.applied_index,
            counts.renewals,
            counts.leases,
            counts.pending,
            counts.refused,
            counts.leader_changes,
            counts.young_bytes,
        ];
        for (cell, value) in self.order.iter().zip(values) {
            cell.set(value);
        }
    }

    /// What the order actor has counted; zeros where it does not sit.
    pub fn order(&self) -> OrderCounts {
        let [
            puts,
            put_bytes,
            deletes,
            ranges,
            txns,
            leases_granted,
            leases_revoked,
            leases_expired,
            applied_index,
            renewals,
            leases,
            pending,
            refused,
            leader_changes,
            young_bytes,
        ] = self.order.each_ref().map(Count::get);
        OrderCounts {
            applied: crate::apply::Counts {
                puts,
                put_bytes,
                deletes,
                ranges,
                txns,
                leases_granted,
                leases_revoked,
                leases_expired,
            },
            applied_index,
            renewals,
            leases,
            pending,
            refused,
            leader_changes,
            young_bytes,
        }
    }
}

/// What a thread that writes to the disk counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct DiskTally {
    /// How long its writes took, until they were durable.
    pub times: Times,
    /// Bytes of what was made durable.
    pub bytes: Count,
}

/// What the thread that reads the tree for damage counts.
#[derive(Debug, Default)]
pub struct ScrubTally {
    /// Pages read and checked.
    pub pages: Count,
    /// Of these, damaged ones; each counts in each pass.
    pub damaged: Count,
    /// How often all of the tree was read.
    pub passes: Count,
}

/// What the whole server counts.
#[derive(Debug)]
pub struct Tally {
    /// The executors.
    pub seats: Vec<Arc<SeatTally>>,
    /// The log thread.
    pub log: DiskTally,
    /// The checkpoint thread.
    pub checkpoint: DiskTally,
    /// The scrub thread.
    pub scrub: ScrubTally,
    /// What is told, and when.
    pub settings: TallySettings,
}

/// A feature gate of etcd's as it was asked for: its name, its stage, and whether it is on.
pub type Feature = (&'static str, &'static str, bool);

/// How much is told of what takes how long.
#[derive(Debug, Clone)]
pub struct TallySettings {
    /// The feature gates.
    pub features: Vec<Feature>,
    /// The times of gRPC's calls are told.
    pub extensive: bool,
    /// A turn of the order actor that takes longer is told to the operator.
    pub slow_turn_ns: u64,
    /// A call with one answer that takes longer is told to the operator.
    pub slow_call_ns: u64,
}

impl Tally {
    /// Nothing, for executors on these cores.
    pub fn new(cores: impl Iterator<Item = usize>, settings: TallySettings) -> Tally {
        Tally {
            seats: cores.map(|core| Arc::new(SeatTally::new(core))).collect(),
            log: DiskTally::default(),
            checkpoint: DiskTally::default(),
            scrub: ScrubTally::default(),
            settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_classes() {
        for (ns, class) in [
            (0, 0),
            (1, 0),
            (FIRST_NS, 0),
            (FIRST_NS + 1, 1),
            (2 * FIRST_NS, 1),
            (1_000_000, 5),
            (1_000_001, 6),
            (8_192_000_000, CLASSES - 1),
            (8_192_000_001, CLASSES),
            (u64::MAX, CLASSES),
        ] {
            assert_eq!(class_of(ns), class, "{ns}");
        }
        assert_eq!(end_ns(CLASSES - 1), 8_192_000_000);
    }

    #[test]
    fn clients_are_known_by_their_versions() {
        let name = |said| CLIENT_VERSIONS[client_version(said)];
        for version in &CLIENT_VERSIONS[1..] {
            assert_eq!(name(Some(version.as_bytes())), *version);
        }
        for other in [&b"3.9"[..], b"3.70", b"3", b"", b"unknown"] {
            assert_eq!(name(Some(other)), "unknown");
        }
        assert_eq!(name(None), "unknown");
    }

    #[test]
    fn every_method_has_a_place() {
        let tally = SeatTally::new(0);
        for method in Method::ALL {
            tally.calls(method).started.add(1);
        }
        assert!(tally.calls.iter().all(|calls| calls.started.get() == 1));
    }

    #[test]
    fn what_is_shown_is_read() {
        let tally = SeatTally::new(0);
        let front = FrontCounts {
            reads: 1,
            lagging: 2,
            ..FrontCounts::default()
        };
        tally.show_front(&front);
        assert_eq!(tally.front(), front);
        let mut order = OrderCounts {
            renewals: 3,
            leader_changes: 4,
            ..OrderCounts::default()
        };
        order.applied.puts = 5;
        tally.show_order(&order);
        assert_eq!(tally.order(), order);
    }
}
