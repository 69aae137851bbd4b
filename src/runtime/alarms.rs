//! When connections want to be woken: one time for each. A connection asks for the earliest
//! deadline of its calls, so that a call with a later one costs nothing here.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

/// See the module. Connections go by their slots.
#[derive(Debug, Default)]
pub struct Alarms {
    times: BTreeSet<(u64, usize)>,
    by_slot: Vec<Option<u64>>,
}

impl Alarms {
    /// Has a connection woken at that time, and no other.
    pub fn set(&mut self, slot: usize, at_ns: u64) {
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        let set = &mut self.by_slot[slot];
        if *set == Some(at_ns) {
            return;
        }
        if let Some(before) = set.replace(at_ns) {
            self.times.remove(&(before, slot));
        }
        self.times.insert((at_ns, slot));
    }

    /// A connection is gone.
    pub fn clear(&mut self, slot: usize) {
        if let Some(set) = self.by_slot.get_mut(slot).and_then(Option::take) {
            self.times.remove(&(set, slot));
        }
    }

    /// The next connection to wake now.
    pub fn take_due(&mut self, now_ns: u64) -> Option<usize> {
        let (at_ns, slot) = *self.times.first()?;
        if at_ns > now_ns {
            return None;
        }
        self.times.pop_first();
        if let Some(set) = self.by_slot.get_mut(slot) {
            *set = None;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_woken_once_at_the_time_that_it_asked_for_last() {
        let mut alarms = Alarms::default();
        alarms.set(3, 70);
        alarms.set(3, 50);
        alarms.set(1, 30);
        alarms.set(1, 40);
        alarms.set(2, 10);
        alarms.clear(2);
        alarms.clear(9);
        assert_eq!(alarms.take_due(39), None);
        assert_eq!(alarms.take_due(50), Some(1));
        assert_eq!(alarms.take_due(50), Some(3));
        assert_eq!(alarms.take_due(u64::MAX), None);
        alarms.set(3, 5);
        assert_eq!(alarms.take_due(5), Some(3));
        assert!(alarms.times.is_empty());
    }
}
