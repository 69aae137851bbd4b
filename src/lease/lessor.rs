//! See the folder's module.

use crate::api::GrantedLease;
use crate::limits;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

const SECOND: u64 = 1_000_000_000;

/// A lease that is over, and whose end is not proposed yet. (No deadline is ever so early: the
/// shortest lease lives for a second.)
const OVER: u64 = 0;
/// A lease whose end is on its way through the log.
const ENDING: u64 = 1;

/// How many seconds of a lease may pass before what is left is written down: half of the lease,
/// but at least a minute and at most five.
pub fn checkpoint_step_s(ttl: i64) -> i64 {
    (ttl / 2).clamp(limits::LEASE_STEP_MIN_S, limits::LEASE_STEP_MAX_S)
}

/// One lease, 40 bytes with its id: there may be millions.
#[derive(Debug, Clone, Copy)]
struct Lease {
    granted_at: u64,
    /// Seconds that a renewal gives.
    ttl: i64,
    /// Seconds that a leader would give it who knew the log alone, with what is on its way there.
    on_record: i64,
    /// When it is over; or `OVER` or `ENDING`.
    deadline_ns: u64,
}

const _: () = assert!(size_of::<Lease>() == 32);

impl Lease {
    fn renew(&mut self, now_ns: u64) {
        self.deadline_ns = after(now_ns, self.ttl);
    }

    /// When the clock must look at it, if it is not renewed before: when its seconds are to be
    /// written down, or when it is over.
    fn wake_ns(&self) -> u64 {
        let left = self.on_record - checkpoint_step_s(self.ttl);
        if left > 0 {
            self.deadline_ns.saturating_sub(seconds_ns(left))
        } else {
            self.deadline_ns
        }
    }

    fn is_over(&self) -> bool {
        self.deadline_ns <= ENDING
    }
}

/// What the leader is to propose.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// Leases that are over.
    pub expire: Vec<GrantedLease>,
    /// Leases with the seconds to write down; 0: all that they were granted for.
    pub write: Vec<(GrantedLease, i64)>,
}

impl Upkeep {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.expire.is_empty() && self.write.is_empty()
    }
}

/// The clock of a leader's leases. `A` names whoever waits for the answer to a renewal.
#[derive(Debug)]
pub struct Lessor<A> {
    leases: BTreeMap<i64, Lease>,
    /// (when, id): for each lease at least one, no later than it must be looked at. What is too
    /// early is put back when its time comes, so that a renewal need not touch it.
    timers: BinaryHeap<Reverse<(u64, i64)>>,
    /// Over, in the order in which they were found so.
    over: VecDeque<GrantedLease>,
    /// To be written down.
    to_write: VecDeque<(GrantedLease, i64)>,
    /// How many leases are `ENDING`.
    ending: usize,
    /// Who waits for the end of a lease, or for a renewal to be on record.
    waiting: BTreeMap<i64, Vec<A>>,
    last_look_ns: u64,
    /// Nothing is found to be over before this.
    hold_until_ns: u64,
}

impl<A: Copy> Lessor<A> {
    /// A clock without leases, for a leader that begins now.
    pub fn new(now_ns: u64) -> Lessor<A> {
        Lessor {
            leases: BTreeMap::new(),
            timers: BinaryHeap::new(),
            over: VecDeque::new(),
            to_write: VecDeque::new(),
            ending: 0,
            waiting: BTreeMap::new(),
            last_look_ns: now_ns,
            hold_until_ns: 0,
        }
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// There are no leases.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Takes up a lease: one just granted, or one that the state holds, with the seconds that it
    /// has left on record.
    pub fn add(&mut self, lease: GrantedLease, ttl: i64, on_record: i64, now_ns: u64) {
        let entry = Lease {
            granted_at: lease.granted_at,
            ttl,
            on_record,
            deadline_ns: after(now_ns, on_record),
        };
        let before = self.leases.insert(lease.id, entry);
        assert!(before.is_none(), "a lease is granted while it exists");
        self.timers.push(Reverse((entry.wake_ns(), lease.id)));
        self.tidy_timers();
    }

    #[cfg(test)]
    pub(super) fn timers_len(&self) -> usize {
        self.timers.len()
    }

    /// The lease of that id is gone. Whoever waits learns that it has no time left.
    pub fn revoked(&mut self, id: i64, mut answer: impl FnMut(A, i64)) {
        if let Some(lease) = self.leases.remove(&id) {
            self.ending -= usize::from(lease.deadline_ns == ENDING);
            for asker in self.waiting.remove(&id).unwrap_or_default() {
                answer(asker, 0);
            }
            self.tidy_timers();
        }
    }

    /// That lease, if it is the one of its id, is gone.
    pub fn expired(&mut self, lease: GrantedLease, answer: impl FnMut(A, i64)) {
        if self.find(lease).is_some() {
            self.revoked(lease.id, answer);
        }
    }

    /// Of that lease, so many seconds are on record; 0: all. Whoever waited for that to renew it
    /// gets the whole time, from now on.
    pub fn written(
        &mut self,
        lease: GrantedLease,
        remaining: i64,
        now_ns: u64,
        mut answer: impl FnMut(A, i64),
    ) {
        let Some(entry) = self.find(lease) else {
            return;
        };
        if remaining != 0 || entry.is_over() {
            return;
        }
        entry.renew(now_ns);
        let ttl = entry.ttl;
        for asker in self.waiting.remove(&lease.id).unwrap_or_default() {
            answer(asker, ttl);
        }
    }

    fn find(&mut self, lease: GrantedLease) -> Option<&mut Lease> {
        let entry = self.leases.get_mut(&lease.id);
        entry.filter(|entry| entry.granted_at == lease.granted_at)
    }

    /// Renews a lease. The seconds that it has now are returned at once, 0 if there is no such
    /// lease; or, with `None`, told later: if it is over, once it is gone; if seconds of it are on
    /// record, once they are struck out.
    pub fn keep_alive(&mut self, id: i64, asker: A, now_ns: u64) -> Option<i64> {
        let Some(lease) = self.leases.get_mut(&id) else {
            return Some(0);
        };
        if !lease.is_over() {
            lease.renew(now_ns);
            // Somebody waits: it is being struck out.
            let settled = !self.waiting.contains_key(&id);
            if settled && lease.on_record == lease.ttl {
                return Some(lease.ttl);
            }
            if settled {
                lease.on_record = lease.ttl;
                let granted_at = lease.granted_at;
                self.to_write
                    .push_back((GrantedLease { id, granted_at }, 0));
            }
        }
        self.waiting.entry(id).or_default().push(asker);
        None
    }

    /// The whole seconds that a lease has left; `None` if there is no such lease.
    pub fn seconds_left(&self, id: i64, now_ns: u64) -> Option<i64> {
        let lease = self.leases.get(&id)?;
        let left = lease.deadline_ns.saturating_sub(now_ns) / SECOND;
        Some(i64::try_from(left).unwrap_or(i64::MAX))
    }

    /// Every lease: when it is over, and its id.
    pub fn deadlines(&self) -> Vec<(u64, i64)> {
        let leases = self.leases.iter();
        leases.map(|(id, lease)| (lease.deadline_ns, *id)).collect()
    }

    /// Everyone who waits for an answer, to whom there will be none.
    pub fn give_up(&mut self) -> impl Iterator<Item = A> + use<A> {
        std::mem::take(&mut self.waiting).into_values().flatten()
    }

    /// Lets time pass: finds what is over and what is to be written down, a bounded number at a
    /// time.
    ///
    /// Renewals that have been received must have been handed in before. After a stall some may
    /// still lie in a socket, so then nothing is over for a moment.
    pub fn look(&mut self, now_ns: u64) {
        let away_ns = now_ns.saturating_sub(self.last_look_ns);
        self.last_look_ns = now_ns;
        let (hold_ns, pause_ns) = (limits::LEASE_HOLD_MS * MS, limits::LEASE_HOLD_PAUSE_MS * MS);
        let rested = self.hold_until_ns == 0 || now_ns >= self.hold_until_ns + pause_ns;
        if away_ns >= limits::LEASE_STALL_MS * MS && rested {
            self.hold_until_ns = now_ns + hold_ns;
        }
        if now_ns < self.hold_until_ns {
            return;
        }
        for _ in 0..limits::LEASE_TIMERS_PER_TURN {
            let Some(&Reverse((at_ns, id))) = self.timers.peek() else {
                return;
            };
            if at_ns > now_ns {
                return;
            }
            self.timers.pop();
            self.wake(id, now_ns);
        }
    }

    fn wake(&mut self, id: i64, now_ns: u64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if lease.is_over() {
            return;
        }
        let granted_at = lease.granted_at;
        let granted = GrantedLease { id, granted_at };
        if lease.deadline_ns <= now_ns {
            lease.deadline_ns = OVER;
            self.over.push_back(granted);
            return;
        }
        if lease.wake_ns() <= now_ns {
            let left_ns = lease.deadline_ns - now_ns;
            let left = i64::try_from(left_ns.div_ceil(SECOND)).unwrap_or(i64::MAX);
            lease.on_record = left.min(lease.on_record);
            self.to_write.push_back((granted, lease.on_record));
        }
        self.timers.push(Reverse((lease.wake_ns(), id)));
    }

    /// What to propose now: little enough that it holds nothing else up, and no more ends of
    /// leases than [`limits::LEASES_ENDING_MAX`] at a time. It is for the caller to propose it, or
    /// to bring it back ([`Lessor::put_back`]).
    pub fn take_upkeep(&mut self) -> Upkeep {
        let mut upkeep = Upkeep::default();
        while self.ending < limits::LEASES_ENDING_MAX {
            let Some(lease) = self.over.pop_front() else {
                break;
            };
            // Or a client has revoked it meanwhile.
            if let Some(entry) = self.find(lease)
                && entry.deadline_ns == OVER
            {
                entry.deadline_ns = ENDING;
                self.ending += 1;
                upkeep.expire.push(lease);
            }
        }
        let writes = self.to_write.len().min(limits::LEASE_WRITES_PER_TURN);
        upkeep.write.extend(self.to_write.drain(..writes));
        upkeep
    }

    /// Takes back what could not be proposed.
    pub fn put_back(&mut self, upkeep: Upkeep) {
        for lease in upkeep.expire.into_iter().rev() {
            if let Some(entry) = self.find(lease)
                && entry.deadline_ns == ENDING
            {
                entry.deadline_ns = OVER;
                self.ending -= 1;
                self.over.push_front(lease);
            }
        }
        for write in upkeep.write.into_iter().rev() {
            self.to_write.push_front(write);
        }
    }

    /// When to look again, if nothing happens before.
    pub fn next_ns(&self) -> u64 {
        let can_end = !self.over.is_empty() && self.ending < limits::LEASES_ENDING_MAX;
        if can_end || !self.to_write.is_empty() {
            return 0;
        }
        let first = self.timers.peek();
        let first = first.map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns);
        first.max(self.hold_until_ns)
    }

    /// Leases that are gone leave timers behind. When there are more of those than of the others,
    /// the timers are made anew, which costs no more than what has led to it.
    fn tidy_timers(&mut self) {
        if self.timers.len() <= 2 * self.leases.len() + TIMERS_MIN {
            return;
        }
        let live = self.leases.iter().filter(|(_, lease)| !lease.is_over());
        self.timers = live
            .map(|(id, lease)| Reverse((lease.wake_ns(), *id)))
            .collect();
    }
}

/// Below so many timers it is not worth while to throw any out.
const TIMERS_MIN: usize = 1024;

const MS: u64 = 1_000_000;

fn seconds_ns(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(SECOND)
}

/// So many seconds after a time; the longest leases end with the clock, in 584 years.
fn after(now_ns: u64, seconds: i64) -> u64 {
    now_ns.saturating_add(seconds_ns(seconds))
}
