//! What the order actor knows of watches: which fronts have some, and whether a purge has to wait
//! for them.
//!
//! A live watch is told every event, even if a compaction follows it at once; so what it has not
//! been told yet is not purged, for as long as telling takes, but no longer than a moment. Nor is
//! what an answer reads that was begun before the compaction, for half a minute, nor anything while
//! a front streams a snapshot, for a longer while.

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
    /// By front: the oldest revision that its long answers read.
    reads: Vec<Option<i64>>,
    /// Until when the purge waits for those; `None` while it need not.
    reads_until: Option<u64>,
}

impl Watchers {
    pub fn new(fronts: u16) -> Watchers {
        Watchers {
            seen: vec![None; usize::from(fronts)],
            news: false,
            told: (0, -1),
            waits: (-1, 0),
            held: vec![0; usize::from(fronts)],
            reads: vec![None; usize::from(fronts)],
            reads_until: None,
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

    /// A front says which revision its long answers read, the oldest of them.
    pub fn reads(&mut self, front: FrontId, oldest: Option<i64>) {
        if let Some(slot) = self.reads.get_mut(usize::from(front.0)) {
            *slot = oldest;
        }
    }

    /// When what the newest compaction left may be purged: at once, unless a front has live
    /// watches that have not been told of it, or answers that began before it, or streams a
    /// snapshot.
    pub fn purge_at(&mut self, horizon: &Horizon, now_ns: u64) -> u64 {
        if horizon.kept >= horizon.compacted {
            self.reads_until = None;
            return 0;
        }
        let held_ns = self.held.iter().copied().max().unwrap_or(0);
        let reads_ns = self.for_reads(horizon, now_ns);
        self.for_watches(horizon, now_ns).max(held_ns).max(reads_ns)
    }

    /// One wait for all compactions that come while it lasts: a client that reads slowly must not
    /// hold up one purge after the other.
    fn for_reads(&mut self, horizon: &Horizon, now_ns: u64) -> u64 {
        let needs = |oldest: &Option<i64>| oldest.is_some_and(|oldest| oldest < horizon.compacted);
        if !self.reads.iter().any(needs) {
            self.reads_until = None;
            return 0;
        }
        let wait_ns = limits::READ_PURGE_WAIT_MS * 1_000_000;
        *self.reads_until.get_or_insert(now_ns + wait_ns)
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

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: FrontId = FrontId(1);

    fn horizon(revision: i64, compacted: i64, kept: i64) -> Horizon {
        Horizon {
            revision,
            compacted,
            kept,
        }
    }

    /// The fronts that are told of a root.
    fn told(watchers: &mut Watchers, horizon: &Horizon) -> Vec<FrontId> {
        let mut out = Vec::new();
        watchers.tell(horizon, &mut out);
        let fronts = out.iter().map(|output| match output {
            OrderOutput::Front(front, FrontInput::Published) => *front,
            other => panic!("{other:?}"),
        });
        fronts.collect()
    }

    #[test]
    fn fronts_with_watches_are_told_of_each_root_once() {
        let mut watchers = Watchers::new(3);
        assert_eq!(told(&mut watchers, &horizon(5, -1, -1)), []);
        // One that begins may have looked before that root was there.
        watchers.told(FRONT, true, 4);
        assert_eq!(told(&mut watchers, &horizon(5, -1, -1)), [FRONT]);
        assert_eq!(told(&mut watchers, &horizon(5, -1, -1)), []);
        watchers.told(FRONT, true, 5);
        assert_eq!(told(&mut watchers, &horizon(5, -1, -1)), []);
        assert_eq!(told(&mut watchers, &horizon(6, -1, -1)), [FRONT]);
        assert_eq!(
            told(&mut watchers, &horizon(6, 3, -1)),
            [FRONT],
            "a compaction"
        );
        watchers.told(FRONT, false, 6);
        assert_eq!(told(&mut watchers, &horizon(7, 3, 3)), []);
    }

    #[test]
    fn a_purge_waits_for_live_watches_and_not_for_long() {
        let wait = limits::WATCH_PURGE_WAIT_MS * 1_000_000;
        let mut watchers = Watchers::new(3);
        assert_eq!(
            watchers.purge_at(&horizon(9, 5, 1), 10),
            0,
            "nobody watches"
        );
        watchers.told(FRONT, true, 4);
        assert_eq!(watchers.purge_at(&horizon(9, 5, 5), 10), 0, "all is purged");
        assert_eq!(watchers.purge_at(&horizon(9, 5, 1), 10), 10 + wait);
        assert_eq!(watchers.purge_at(&horizon(9, 5, 1), 20), 10 + wait);
        // Each compaction gives it its own time.
        assert_eq!(watchers.purge_at(&horizon(9, 8, 1), 30), 30 + wait);
        watchers.told(FRONT, true, 7);
        assert_eq!(watchers.purge_at(&horizon(9, 8, 1), 40), 30 + wait);
        watchers.told(FRONT, true, 8);
        assert_eq!(watchers.purge_at(&horizon(9, 8, 1), 50), 0);
    }

    #[test]
    fn a_purge_waits_for_a_snapshot() {
        let hold = limits::SNAPSHOT_HOLD_MS * 1_000_000;
        let (mut watchers, mut out) = (Watchers::new(3), Vec::new());
        watchers.hold_purge(FRONT, true, 10, &mut out);
        assert!(matches!(
            out[..],
            [OrderOutput::Front(FRONT, FrontInput::PurgeHeld)]
        ));
        assert_eq!(watchers.purge_at(&horizon(9, 5, 1), 20), 10 + hold);
        watchers.hold_purge(FRONT, false, 30, &mut out);
        assert_eq!(watchers.purge_at(&horizon(9, 5, 1), 40), 0);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_purge_waits_once_for_answers_that_began_before_the_compaction() {
        let wait_ns = limits::READ_PURGE_WAIT_MS * 1_000_000;
        let mut watchers = Watchers::new(2);
        watchers.reads(FrontId(1), Some(40));
        // Those read what a compaction at their revision leaves.
        assert_eq!(watchers.purge_at(&horizon(100, 40, 10), 5), 0);
        assert_eq!(watchers.purge_at(&horizon(100, 50, 10), 5), 5 + wait_ns);
        // Others that come meanwhile wait no longer.
        assert_eq!(watchers.purge_at(&horizon(100, 60, 10), 900), 5 + wait_ns);
        watchers.reads(FrontId(1), Some(55));
        watchers.reads(FrontId(0), Some(60));
        assert_eq!(watchers.purge_at(&horizon(100, 60, 10), 1_000), 5 + wait_ns);
        watchers.reads(FrontId(1), None);
        assert_eq!(watchers.purge_at(&horizon(100, 60, 10), 1_000), 0);
        // And the next one waits anew.
        assert_eq!(
            watchers.purge_at(&horizon(100, 70, 10), 2_000),
            2_000 + wait_ns
        );
        assert_eq!(watchers.purge_at(&horizon(100, 70, 70), 3_000), 0);
    }
}
