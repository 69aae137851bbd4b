//! What the order actor knows of watches: which fronts have some, and whether a purge has to wait
//! for them.
//!
//! A live watch is told every event, even if a compaction follows it at once; so what it has not
//! been told yet is not purged, for as long as telling takes, but no longer than a moment. Nor is
//! anything while a front streams a snapshot, for a longer while.

use crate::limits;
use crate::node::messages::{FrontId, FrontInput, OrderOutput};
use quoin_storage::mvcc::Horizon;

/// See the module.
#[derive(Debug)]
pub(super) struct Watchers {
    /// By front: up to where live watches have been told everything, if there are watches.
    seen: Vec<Option<i64>>,
    /// Fronts that have begun to watch and have not heard of the newest root.
    news: bool,
    /// Revision and compaction that fronts have heard of.
    told: (i64, i64),
    /// The compaction whose purge waits, and until when.
    waits: (i64, u64),
    /// By front: until when the purge waits for its snapshots; 0 if there are none.
    held: Vec<u64>,
}

impl Watchers {
    pub fn new(fronts: u16) -> Watchers {
        Watchers {
            seen: vec![None; usize::from(fronts)],
            news: false,
            told: (0, -1),
            waits: (-1, 0),
            held: vec![0; usize::from(fronts)],
        }
    }

    /// A front says who watches there.
    pub fn told(&mut self, front: FrontId, on: bool, seen: i64) {
        if let Some(slot) = self.seen.get_mut(usize::from(front.0)) {
            self.news |= on && slot.is_none();
            *slot = on.then_some(seen);
        }
    }

    /// Tells the fronts where somebody watches that there is a newer root.
    pub fn tell(&mut self, horizon: &Horizon, out: &mut Vec<OrderOutput>) {
        let now = (horizon.revision, horizon.compacted);
        if self.told == now && !self.news {
            return;
        }
        self.told = now;
        self.news = false;
        for (front, seen) in (0u16..).zip(&self.seen) {
            if seen.is_some() {
                out.push(OrderOutput::Front(FrontId(front), FrontInput::Published));
            }
        }
    }

    /// A front begins to stream a snapshot, or has no more to stream.
    pub fn hold_purge(
        &mut self,
        front: FrontId,
        on: bool,
        now_ns: u64,
        out: &mut Vec<OrderOutput>,
    ) {
        let Some(held) = self.held.get_mut(usize::from(front.0)) else {
            return;
        };
        *held = match on {
            true => now_ns + limits::SNAPSHOT_HOLD_MS * 1_000_000,
            false => 0,
        };
        if on {
            out.push(OrderOutput::Front(front, FrontInput::PurgeHeld));
        }
    }

    /// When what the newest compaction left may be purged: at once, unless a front has live
    /// watches that have not been told of it, or streams a snapshot.
    pub fn purge_at(&mut self, horizon: &Horizon, now_ns: u64) -> u64 {
        if horizon.kept >= horizon.compacted {
            return 0;
        }
        let held_ns = self.held.iter().copied().max().unwrap_or(0);
        self.for_watches(horizon, now_ns).max(held_ns)
    }

    fn for_watches(&mut self, horizon: &Horizon, now_ns: u64) -> u64 {
        let behind = |seen: &Option<i64>| seen.is_some_and(|seen| seen < horizon.compacted);
        if !self.seen.iter().any(behind) {
            return 0;
        }
        if self.waits.0 != horizon.compacted {
            let until = now_ns + limits::WATCH_PURGE_WAIT_MS * 1_000_000;
            self.waits = (horizon.compacted, until);
        }
        self.waits.1
    }
}
