//! Who waits for an answer: one slab per front.
//!
//! A waiter's number is its place in the slab and the generation in which it took that place.
//! Generations are counted over the whole front and never repeat within 2^32 insertions, so an
//! answer that comes too late finds its place empty or taken by a waiter of another number: it
//! can reach nobody else.
//!
//! Deadlines live in a wheel of lists that run through the slab's own entries, so that a request
//! that is answered in time costs a few stores and leaves nothing behind.

use slab::Slab;

/// How many lists the wheel has.
const SPOKES: usize = 256;

/// The wheel's unit of time as a power of two of nanoseconds: about 17 ms, so that the wheel
/// spans 4.3 s. Later deadlines wait on the farthest list and are placed again from there.
const UNIT_BITS: u32 = 24;

/// Not a place in the slab.
const NONE: u32 = u32::MAX;

/// Names a waiter to the order actor and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

impl WaiterId {
    fn new(slot: u32, generation: u32) -> WaiterId {
        WaiterId(u64::from(generation) << 32 | u64::from(slot))
    }

    fn slot(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    spoke: u16,
    previous: u32,
    next: u32,
    deadline_ns: u64,
    value: T,
}

/// The requests of one front that wait for an answer. `T` says whom to answer.
#[derive(Debug)]
pub struct Waiters<T> {
    entries: Slab<Entry<T>>,
    limit: usize,
    next_generation: u32,
    /// First entry of each list; entry `deadline >> UNIT_BITS` hangs on that number modulo
    /// `SPOKES`, or on the farthest list when it lies beyond the wheel's span.
    spokes: Box<[u32; SPOKES]>,
    /// The unit of time up to which (exclusive) every list has been emptied.
    unit: u64,
}

/// As many requests wait as are allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<T> Waiters<T> {
    /// An empty slab for at most `limit` waiters; time starts at `now_ns`.
    pub fn new(limit: usize, now_ns: u64) -> Waiters<T> {
        Waiters {
            entries: Slab::new(),
            limit: limit.min(NONE as usize),
            next_generation: 1,
            spokes: Box::new([NONE; SPOKES]),
            unit: now_ns >> UNIT_BITS,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Remembers whom to answer, at the latest when `deadline_ns` has come.
    #[inline]
    pub fn insert(&mut self, deadline_ns: u64, value: T) -> Result<WaiterId, TooMany> {
        if self.entries.len() >= self.limit {
            return Err(TooMany);
        }
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.entries.insert(Entry {
            generation,
            spoke: 0,
            previous: NONE,
            next: NONE,
            deadline_ns,
            value,
        }) as u32;
        self.link(slot);
        Ok(WaiterId::new(slot, generation))
    }

    /// Takes out whoever has that number; `None` if it was answered or has expired before.
    #[inline]
    pub fn take(&mut self, id: WaiterId) -> Option<T> {
        let slot = id.slot();
        if self.entries.get(slot)?.generation != id.generation() {
            return None;
        }
        Some(self.remove(slot as u32))
    }

    /// Until when whoever has that number waits.
    pub fn deadline_ns(&self, id: WaiterId) -> Option<u64> {
        let entry = self.entries.get(id.slot())?;
        (entry.generation == id.generation()).then_some(entry.deadline_ns)
    }

    /// Whoever has that number.
    pub fn get(&self, id: WaiterId) -> Option<&T> {
        let entry = self.entries.get(id.slot())?;
        (entry.generation == id.generation()).then_some(&entry.value)
    }

    /// Takes out everyone whose deadline has come, calling `expired` for each. A waiter expires
    /// at most one unit of the wheel (17 ms) late.
    pub fn expire(&mut self, now_ns: u64, mut expired: impl FnMut(WaiterId, T)) {
        let now = now_ns >> UNIT_BITS;
        if now <= self.unit {
            return;
        }
        // After a stall longer than the wheel every list is due, each once.
        let first = self.unit;
        let due = (now - first).min(SPOKES as u64);
        self.unit = now;
        for step in 0..due {
            let spoke = ((first + step) % SPOKES as u64) as usize;
            let mut slot = std::mem::replace(&mut self.spokes[spoke], NONE);
            while slot != NONE {
                let entry = &mut self.entries[slot as usize];
                let next = entry.next;
                if entry.deadline_ns >> UNIT_BITS < now {
                    let id = WaiterId::new(slot, entry.generation);
                    let entry = self.entries.remove(slot as usize);
                    expired(id, entry.value);
                } else {
                    // It waited here because its deadline was beyond the wheel's span.
                    self.link(slot);
                }
                slot = next;
            }
        }
    }

    /// When `expire` will have something to do if nothing else happens: at most one span of the
    /// wheel ahead; `None` if nobody waits.
    pub fn next_expiry_ns(&self) -> Option<u64> {
        if self.entries.is_empty() {
            return None;
        }
        let ahead = (0..SPOKES as u64)
            .find(|ahead| self.spokes[((self.unit + ahead) % SPOKES as u64) as usize] != NONE)?;
        Some((self.unit + ahead + 1) << UNIT_BITS)
    }

    /// Takes out everyone, in no particular order.
    pub fn drain(&mut self, mut taken: impl FnMut(WaiterId, T)) {
        self.spokes.fill(NONE);
        for (slot, entry) in std::mem::take(&mut self.entries) {
            taken(WaiterId::new(slot as u32, entry.generation), entry.value);
        }
    }

    fn link(&mut self, slot: u32) {
        let entry = &self.entries[slot as usize];
        let due = entry.deadline_ns >> UNIT_BITS;
        let at = due.clamp(self.unit, self.unit + SPOKES as u64 - 1);
        let spoke = (at % SPOKES as u64) as u16;
        let first = std::mem::replace(&mut self.spokes[usize::from(spoke)], slot);
        if first != NONE {
            self.entries[first as usize].previous = slot;
        }
        let entry = &mut self.entries[slot as usize];
        entry.spoke = spoke;
        entry.previous = NONE;
        entry.next = first;
    }

    fn remove(&mut self, slot: u32) -> T {
        let entry = self.entries.remove(slot as usize);
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
        if entry.previous == NONE {
            self.spokes[usize::from(entry.spoke)] = entry.next;
        } else {
            self.entries[entry.previous as usize].next = entry.next;
        }
        entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_late_answer_never_reaches_the_next_in_the_same_place() {
        let mut waiters = Waiters::new(10, 0);
        let first = waiters.insert(5000 * MS, "first").unwrap();
        assert_eq!(waiters.take(first), Some("first"));
        let second = waiters.insert(5000 * MS, "second").unwrap();
        assert_eq!(first.slot(), second.slot(), "the slab reuses the place");
        assert_eq!(waiters.take(first), None);
        assert_eq!(waiters.get(first), None);
        assert_eq!(waiters.get(second), Some(&"second"));
        assert_eq!(waiters.take(WaiterId(u64::MAX)), None);
        assert_eq!(waiters.take(second), Some("second"));
    }

    #[test]
    fn no_more_wait_than_allowed() {
        let mut waiters = Waiters::new(2, 0);
        let a = waiters.insert(1, ()).unwrap();
        waiters.insert(1, ()).unwrap();
        assert_eq!(waiters.insert(1, ()), Err(TooMany));
        waiters.take(a);
        assert!(waiters.insert(1, ()).is_ok());
    }

    #[test]
    fn an_answer_after_expiry_finds_nobody() {
        let mut waiters = Waiters::new(2, 0);
        let id = waiters.insert(30 * MS, 'a').unwrap();
        let mut expired = Vec::new();
        waiters.expire(30 * MS, |id, value| expired.push((id, value)));
        assert!(expired.is_empty(), "not before its unit has passed");
        waiters.expire(30 * MS + (1 << UNIT_BITS), |id, value| {
            expired.push((id, value))
        });
        assert_eq!(expired, [(id, 'a')]);
        assert_eq!(waiters.take(id), None);
    }

    #[test]
    fn draining_empties_it_for_good() {
        let mut waiters = Waiters::new(8, 0);
        for n in 0..5 {
            waiters.insert(n * MS, n).unwrap();
        }
        let mut taken = Vec::new();
        waiters.drain(|_, value| taken.push(value));
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        waiters.insert(1, 9).unwrap();
        let mut expired = Vec::new();
        waiters.expire(10_000 * MS, |_, value| expired.push(value));
        assert_eq!(expired, [9]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert { after_ms: u64 },
        Take { which: usize },
        Pass { ms: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u64..9000).prop_map(|after_ms| Step::Insert { after_ms }),
            2 => any::<usize>().prop_map(|which| Step::Take { which }),
            2 => (0u64..400).prop_map(|ms| Step::Pass { ms }),
            1 => (0u64..20_000).prop_map(|ms| Step::Pass { ms }),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a map: nobody expires early, everybody expires within two units, and every
        /// number is answered once.
        #[test]
        fn behaves_like_a_map(steps in steps()) {
            let mut now = 77 * MS;
            let mut waiters = Waiters::new(usize::MAX, now);
            let mut model = BTreeMap::new();
            let mut ids = Vec::new();
            for step in steps {
                match step {
                    Step::Insert { after_ms } => {
                        let deadline = now + after_ms * MS;
                        let id = waiters.insert(deadline, deadline).unwrap();
                        prop_assert_eq!(model.insert(id, deadline), None);
                        ids.push(id);
                    }
                    Step::Take { which } if !ids.is_empty() => {
                        let id = ids[which % ids.len()];
                        prop_assert_eq!(waiters.take(id), model.remove(&id));
                    }
                    Step::Take { .. } => {}
                    Step::Pass { ms } => {
                        now += ms * MS;
                        let mut early = None;
                        waiters.expire(now, |id, deadline| {
                            if deadline > now || model.remove(&id) != Some(deadline) {
                                early = Some((id, deadline));
                            }
                        });
                        prop_assert_eq!(early, None);
                        for deadline in model.values() {
                            prop_assert!(deadline + (2 << UNIT_BITS) > now, "{deadline} at {now}");
                        }
                        match waiters.next_expiry_ns() {
                            Some(at) => {
                                prop_assert!(at > now);
                                let first = *model.values().min().unwrap();
                                prop_assert!(at <= first + (2 << UNIT_BITS));
                            }
                            None => prop_assert!(model.is_empty()),
                        }
                    }
                }
                prop_assert_eq!(waiters.len(), model.len());
            }
        }
    }
}
