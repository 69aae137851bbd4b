//! When the tree is made durable.

use super::CheckpointConfig;
use super::store::Durable;

/// Decides when a checkpoint is due.
#[derive(Debug)]
pub(super) struct Checkpoints {
    config: CheckpointConfig,
    /// When the last one began.
    began_ns: u64,
    /// After one that found no space: not before this.
    not_before_ns: u64,
    /// Applied since the last one began.
    entries: u64,
    bytes: u64,
}

impl Checkpoints {
    pub fn new(config: CheckpointConfig, now_ns: u64) -> Checkpoints {
        Checkpoints {
            config,
            began_ns: now_ns,
            not_before_ns: 0,
            entries: 0,
            bytes: 0,
        }
    }

    /// Entries have been applied.
    pub fn applied(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
    }

    /// Whether one should begin now, given that something has changed and none is under way.
    pub fn due(&self, now_ns: u64, store: &impl Durable) -> bool {
        let config = &self.config;
        self.hurried(now_ns, store.full())
            || self.due_for(
                now_ns,
                store.young_bytes(),
                store.checkpoint_bytes(config.young_bytes),
            )
    }

    /// Whether one should begin because the disk is full: what deletes and compaction have freed
    /// can be used after it.
    fn hurried(&self, now_ns: u64, full: bool) -> bool {
        full && self.allowed(now_ns) && now_ns.saturating_sub(self.began_ns) >= self.config.retry_ns
    }

    fn due_for(&self, now_ns: u64, young_bytes: u64, young_bytes_due: u64) -> bool {
        let config = &self.config;
        let reached = self.bytes >= config.log_bytes
            || self.entries >= config.entries
            || young_bytes >= young_bytes_due
            || now_ns.saturating_sub(self.began_ns) >= config.interval_ns;
        reached && self.allowed(now_ns)
    }

    /// Whether one may begin, or must wait because the last has found no space.
    pub fn allowed(&self, now_ns: u64) -> bool {
        now_ns >= self.not_before_ns
    }

    /// When one will be due if nothing else happens, the disk being `full` or not.
    pub fn due_at(&self, full: bool) -> u64 {
        let after_ns = match full {
            true => self.config.retry_ns.min(self.config.interval_ns),
            false => self.config.interval_ns,
        };
        (self.began_ns.saturating_add(after_ns)).max(self.not_before_ns)
    }

    /// One begins.
    pub fn begin(&mut self, now_ns: u64) {
        self.began_ns = now_ns;
        (self.entries, self.bytes) = (0, 0);
    }

    /// It found no space.
    pub fn failed(&mut self, now_ns: u64) {
        self.not_before_ns = now_ns.saturating_add(self.config.retry_ns);
    }

    /// Whether applying should wait for the one that is under way. However soon the next will be
    /// due: a writer that is made to wait for a bound on space waits for as long as the disk takes.
    pub fn pause(&self, store: &impl Durable) -> bool {
        store.checkpointing() && store.young_bytes() >= self.config.young_bytes_pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints() -> Checkpoints {
        let config = CheckpointConfig {
            interval_ns: 1000,
            log_bytes: 500,
            entries: 50,
            young_bytes: 5000,
            young_bytes_pause: 9000,
            retry_ns: 100,
        };
        Checkpoints::new(config, 0)
    }

    #[test]
    fn each_bound_makes_one_due() {
        let mut c = checkpoints();
        assert!(!c.due_for(999, 1, 5000));
        assert!(c.due_for(1000, 1, 5000));
        assert_eq!((c.due_at(false), c.due_at(true)), (1000, 100));
        assert!(c.due_for(0, 5000, 5000));
        c.applied(1, 500);
        assert!(c.due_for(0, 1, 5000));
        let mut c = checkpoints();
        c.applied(50, 1);
        assert!(c.due_for(0, 1, 5000));
        c.begin(10);
        assert!(!c.due_for(1009, 1, 5000) && c.due_for(1010, 1, 5000));
    }

    #[test]
    fn a_full_disk_has_them_hurry_but_not_follow_each_other_at_once() {
        let mut c = checkpoints();
        assert!(!c.hurried(99, true) && c.hurried(100, true) && !c.hurried(999, false));
        c.begin(100);
        assert!(!c.hurried(199, true) && c.hurried(200, true));
        c.failed(150);
        assert!(!c.hurried(249, true) && c.hurried(250, true));
    }

    #[test]
    fn a_failed_one_is_tried_again_later() {
        let mut c = checkpoints();
        c.begin(0);
        c.failed(50);
        assert!(!c.due_for(149, 9999, 5000));
        assert!(c.due_for(150, 9999, 5000));
    }
}
