//! Compaction without being asked, as etcd does it.
//!
//! *Periodic*: what is older than the retention (and a tenth of the interval) is dropped. The
//! revision is noted ten times per interval, which is the retention but at most an hour; once the
//! first retention is over, each interval compacts to the oldest note. *Revision*: every five minutes all but the newest so many
//! revisions are dropped. After a change of leader the periodic one begins anew.

use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const REVISION_INTERVAL: u64 = 300 * SECOND;
/// Notes per interval.
const NOTES: u64 = 10;

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    /// Everything, until somebody asks.
    #[default]
    Off,
    /// What is younger than so many nanoseconds.
    Periodic(u64),
    /// The newest so many revisions.
    Revision(i64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct AutoCompactor {
    keep: AutoCompaction,
    /// When to look next.
    next_ns: u64,
    /// Periodic: the revisions noted, at most a retention back.
    notes: VecDeque<i64>,
    /// Periodic: nothing is compacted before.
    not_before_ns: u64,
    last: i64,
}

impl AutoCompactor {
    /// One that begins now.
    pub fn new(keep: AutoCompaction, now_ns: u64) -> AutoCompactor {
        let (first, not_before) = match keep {
            AutoCompaction::Off => (u64::MAX, u64::MAX),
            AutoCompaction::Periodic(retention) => (0, retention),
            AutoCompaction::Revision(_) => (REVISION_INTERVAL, 0),
        };
        AutoCompactor {
            keep,
            next_ns: now_ns.saturating_add(first),
            notes: VecDeque::new(),
            not_before_ns: now_ns.saturating_add(not_before),
            last: 0,
        }
    }

    /// When to look at it.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// The revision to compact to, if it is time.
    pub fn look(&mut self, now_ns: u64, revision: i64) -> Option<i64> {
        if now_ns < self.next_ns {
            return None;
        }
        match self.keep {
            AutoCompaction::Off => None,
            AutoCompaction::Revision(keep) => {
                self.next_ns = now_ns + REVISION_INTERVAL;
                self.to(revision.saturating_sub(keep))
            }
            AutoCompaction::Periodic(retention) => {
                let interval = retention.min(HOUR);
                let pause = (interval / NOTES).max(1);
                self.next_ns = now_ns + pause;
                let oldest = self.notes.front().copied();
                let found = oldest
                    .filter(|_| now_ns >= self.not_before_ns)
                    .and_then(|oldest| self.to(oldest));
                if found.is_some() {
                    self.not_before_ns = now_ns + interval;
                }
                self.notes.push_back(revision);
                // When it is looked at next, the oldest note is a retention and a pause old.
                if self.notes.len() as u64 > retention / pause + 1 {
                    self.notes.pop_front();
                }
                found
            }
        }
    }

    fn to(&mut self, revision: i64) -> Option<i64> {
        if revision <= 0 || revision == self.last {
            return None;
        }
        self.last = revision;
        Some(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for some hours; one revision is made per second. Returns when what was compacted.
    fn run(keep: AutoCompaction, hours: u64) -> Vec<(u64, i64)> {
        let begin = 77 * SECOND;
        let mut compactor = AutoCompactor::new(keep, begin);
        let mut done = Vec::new();
        for second in 0..=hours * 3600 {
            let now = begin + second * SECOND;
            if let Some(revision) = compactor.look(now, second as i64 + 1) {
                done.push((second, revision));
            }
            assert!(compactor.next_ns() > now);
        }
        done
    }

    #[test]
    fn off_is_off() {
        assert_eq!(run(AutoCompaction::Off, 100), []);
    }

    #[test]
    fn the_newest_revisions_stay() {
        let done = run(AutoCompaction::Revision(1000), 1);
        // 300, 600, 900 s: fewer than a thousand revisions.
        let expected: Vec<_> = (4..=12)
            .map(|n| (n * 300, n as i64 * 300 + 1 - 1000))
            .collect();
        assert_eq!(done, expected);
    }

    #[test]
    fn a_retention_of_minutes_compacts_each_time_it_has_passed() {
        let done = run(AutoCompaction::Periodic(600 * SECOND), 1);
        // What was noted a retention and a tenth of it before, as in etcd.
        let later = (2..=6).map(|n| (n * 600, (n as i64 - 1) * 600 - 60 + 1));
        let expected: Vec<_> = [(600, 1)].into_iter().chain(later).collect();
        assert_eq!(done, expected);
    }

    #[test]
    fn a_retention_of_hours_compacts_every_hour_after_the_first() {
        let done = run(AutoCompaction::Periodic(5 * HOUR), 9);
        let later = (6..=9).map(|n| (n * 3600, (n as i64 - 5) * 3600 - 360 + 1));
        let expected: Vec<_> = [(5 * 3600, 1)].into_iter().chain(later).collect();
        assert_eq!(done, expected);
    }

    #[test]
    fn what_stands_still_is_compacted_once() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(HOUR), 0);
        let mut done = 0;
        for minute in 0..600 {
            done += usize::from(compactor.look(minute * 60 * SECOND, 50).is_some());
        }
        assert_eq!(done, 1);
    }

    #[test]
    fn a_stall_makes_up_for_nothing_and_keeps_enough() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(HOUR), 0);
        assert_eq!(compactor.look(0, 1), None);
        assert_eq!(compactor.look(50 * HOUR, 100), Some(1));
        assert_eq!(compactor.look(50 * HOUR + 1, 200), None);
    }
}
