//! The clock on its own, and hours of it in a small world: a log that takes its time, holders that
//! renew or do not, crashes and stalls.

use super::{Lessor, Upkeep, checkpoint_step_s};
use crate::api::GrantedLease;
use crate::chance::Chance;
use crate::limits;
use std::collections::{BTreeMap, VecDeque};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn lease(id: i64) -> GrantedLease {
    GrantedLease { id, granted_at: 1 }
}

fn nobody(asker: u32, ttl: i64) {
    panic!("{asker} is told {ttl}");
}

/// Lets time pass in steps short enough to be no stall; returns all that is to be proposed.
fn pass(lessor: &mut Lessor<u32>, now: &mut u64, until: u64) -> Upkeep {
    let mut all = Upkeep::default();
    while *now < until {
        *now = until.min(*now + 100 * MS);
        lessor.look(*now);
        let upkeep = lessor.take_upkeep();
        all.expire.extend(upkeep.expire);
        all.write.extend(upkeep.write);
    }
    all
}

#[test]
fn a_lease_is_over_when_its_time_is_and_not_before() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    lessor.add(lease(7), 10, 10, now);
    assert!(pass(&mut lessor, &mut now, 10 * SECOND - 1).is_empty());
    assert_eq!(lessor.seconds_left(7, now), Some(0));
    assert_eq!(pass(&mut lessor, &mut now, 10 * SECOND).expire, [lease(7)]);
    assert!(pass(&mut lessor, &mut now, 60 * SECOND).is_empty(), "once");
    lessor.expired(lease(7), nobody);
    assert!(lessor.is_empty());
    assert_eq!(lessor.seconds_left(7, now), None);
}

#[test]
fn a_renewal_begins_the_time_anew() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    lessor.add(lease(7), 10, 10, now);
    pass(&mut lessor, &mut now, 9 * SECOND);
    assert_eq!(lessor.keep_alive(7, 1, now), Some(10));
    assert_eq!(lessor.keep_alive(8, 1, now), Some(0), "no such lease");
    assert!(pass(&mut lessor, &mut now, 19 * SECOND - 1).is_empty());
    assert!(!pass(&mut lessor, &mut now, 19 * SECOND).is_empty());
}

#[test]
fn who_renews_a_lease_that_is_over_waits_for_its_end() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    lessor.add(lease(7), 2, 2, now);
    pass(&mut lessor, &mut now, 3 * SECOND);
    assert_eq!(lessor.keep_alive(7, 1, now), None);
    assert_eq!(lessor.keep_alive(7, 2, now), None);
    let other = GrantedLease {
        granted_at: 2,
        ..lease(7)
    };
    lessor.expired(other, nobody);
    let mut told = Vec::new();
    lessor.expired(lease(7), |asker, ttl| told.push((asker, ttl)));
    assert_eq!(told, [(1, 0), (2, 0)]);
}

#[test]
fn seconds_are_written_down_and_struck_out_before_a_renewal() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    lessor.add(lease(7), 600, 600, now);
    assert_eq!(checkpoint_step_s(600), 300);
    assert!(pass(&mut lessor, &mut now, 300 * SECOND - 1).is_empty());
    let upkeep = pass(&mut lessor, &mut now, 301 * SECOND);
    assert_eq!(upkeep.write, [(lease(7), 300)]);
    assert!(upkeep.expire.is_empty());
    // It is not applied yet; the order of the log sees to the rest.
    assert_eq!(lessor.keep_alive(7, 1, now), None);
    assert_eq!(lessor.keep_alive(7, 2, now), None);
    assert_eq!(lessor.take_upkeep().write, [(lease(7), 0)]);
    lessor.written(lease(7), 300, now, nobody);
    let mut told = Vec::new();
    lessor.written(lease(7), 0, now, |asker, ttl| told.push((asker, ttl)));
    assert_eq!(told, [(1, 600), (2, 600)]);
    assert_eq!(lessor.seconds_left(7, now), Some(600));
    assert_eq!(lessor.keep_alive(7, 3, now), Some(600));
    // From the log alone: what was written is what is left.
    let mut next = Lessor::new(now);
    next.add(lease(7), 600, 100, now);
    assert_eq!(next.seconds_left(7, now), Some(100));
    let end = now + 100 * SECOND;
    assert!(pass(&mut next, &mut now, end - 1).is_empty());
    assert_eq!(pass(&mut next, &mut now, end).expire, [lease(7)]);
}

#[test]
fn short_leases_and_renewed_ones_are_never_written_down() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    for (id, ttl) in [(1, 60), (2, 120), (3, 600), (4, 2)] {
        lessor.add(lease(id), ttl, ttl, now);
    }
    for second in 0..3600 {
        for (id, ttl) in [(1, 60), (2, 120), (3, 600), (4, 2)] {
            if second % (ttl / 3).max(1) == 0 {
                assert_eq!(lessor.keep_alive(id, 1, now), Some(ttl));
            }
        }
        let until = (second as u64 + 1) * SECOND;
        let upkeep = pass(&mut lessor, &mut now, until);
        assert!(upkeep.is_empty(), "{second}: {upkeep:?}");
    }
}

#[test]
fn what_could_not_be_proposed_is_proposed_later_in_the_same_order() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    for id in 1..=3 {
        lessor.add(lease(id), 2, 2, now);
    }
    lessor.add(lease(9), 100, 100, now);
    let mut upkeep = pass(&mut lessor, &mut now, 3 * SECOND);
    assert_eq!(upkeep.expire.len(), 3);
    upkeep.write.push((lease(9), 50));
    lessor.put_back(upkeep.clone());
    assert_eq!(lessor.next_ns(), 0);
    assert_eq!(lessor.take_upkeep(), upkeep);
    lessor.put_back(upkeep);
    lessor.revoked(2, nobody);
    assert_eq!(lessor.take_upkeep().expire, [lease(1), lease(3)]);
}

#[test]
fn ends_are_rationed() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    let many = limits::LEASES_ENDING_MAX as i64 + 10;
    for id in 1..=many {
        lessor.add(lease(id), 2, 2, now);
    }
    let first = pass(&mut lessor, &mut now, 5 * SECOND).expire;
    assert_eq!(first.len(), limits::LEASES_ENDING_MAX);
    assert!(
        lessor.next_ns() > now,
        "nothing to do until some have ended"
    );
    for of in &first[..4] {
        lessor.expired(*of, nobody);
    }
    assert_eq!(lessor.next_ns(), 0, "others may end now");
    assert_eq!(lessor.take_upkeep().expire.len(), 4);
    lessor.revoked(first[5].id, nobody);
    lessor.expired(first[5], nobody);
    assert_eq!(lessor.take_upkeep().expire.len(), 1, "counted once");
}

#[test]
fn after_a_stall_what_lies_in_sockets_comes_first() {
    let (mut lessor, mut now) = (Lessor::new(0), 0);
    lessor.add(lease(1), 5, 5, now);
    lessor.add(lease(2), 5, 5, now);
    pass(&mut lessor, &mut now, SECOND);
    now += 60 * SECOND;
    lessor.look(now);
    assert!(lessor.take_upkeep().is_empty());
    assert_eq!(lessor.keep_alive(1, 1, now), Some(5));
    let until = now + limits::LEASE_HOLD_MS * MS;
    let upkeep = pass(&mut lessor, &mut now, until);
    assert_eq!(upkeep.expire, [lease(2)]);
    // A loop that stalls all the time must not keep leases alive.
    let begun = now;
    let mut ended = None;
    while ended.is_none() && now < begun + 20 * SECOND {
        now += limits::LEASE_STALL_MS * MS;
        lessor.look(now);
        if lessor.take_upkeep().expire == [lease(1)] {
            ended = Some(now - begun);
        }
    }
    let bound = 5 * SECOND + (limits::LEASE_HOLD_MS + limits::LEASE_STALL_MS) * MS;
    assert!(ended.expect("it ends") <= bound, "{ended:?}");
}

#[test]
fn timers_of_leases_that_are_gone_do_not_pile_up() {
    let mut lessor = Lessor::<u32>::new(0);
    for round in 0..100_000 {
        lessor.add(lease(round % 7), 1_000_000, 1_000_000, round as u64);
        lessor.revoked(round % 7, nobody);
    }
    assert!(lessor.timers_len() <= 2048, "{}", lessor.timers_len());
}

#[test]
fn the_longest_lease_fits_the_clock() {
    let mut lessor = Lessor::<u32>::new(0);
    let now = 100 * 365 * 86_400 * SECOND;
    let ttl = limits::LEASE_TTL_MAX_S;
    lessor.add(lease(1), ttl, ttl, now);
    assert_eq!(lessor.seconds_left(1, now), Some(ttl));
    lessor.look(now);
    assert!(lessor.take_upkeep().is_empty());
}

// ---- a small world

/// What the log holds.
#[derive(Debug, Clone)]
enum Entry {
    Grant(GrantedLease, i64),
    Revoke(i64),
    Upkeep(Upkeep),
}

/// What is true of a lease.
#[derive(Debug, Clone, Copy)]
struct Truth {
    granted_at: u64,
    ttl: i64,
    /// On record; 0: all.
    remaining: i64,
    /// It must not end before this: its holder was told so.
    not_before: u64,
    /// It must be gone by this, but for the slack.
    not_after: u64,
}

struct World {
    chance: Chance,
    now: u64,
    lessor: Lessor<u32>,
    leases: BTreeMap<i64, Truth>,
    /// (when it is applied, what).
    log: VecDeque<(u64, Entry)>,
    index: u64,
    ended: usize,
    written: usize,
    restarts: usize,
}

/// A tick, the way through the log, and a hold after a stall.
const SLACK: u64 = 100 * MS + 300 * MS + 600 * MS;

impl World {
    fn propose(&mut self, entry: Entry) {
        let latency = self.chance.below(300) * MS;
        let last = self.log.back().map_or(0, |(at, _)| *at);
        self.log.push_back((last.max(self.now + latency), entry));
    }

    fn apply(&mut self) {
        while self.log.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, entry) = self.log.pop_front().unwrap();
            self.apply_one(entry);
        }
    }

    fn apply_one(&mut self, entry: Entry) {
        let now = self.now;
        let mut kept = Vec::new();
        match entry {
            Entry::Grant(lease, ttl) => {
                if self.leases.contains_key(&lease.id) {
                    return;
                }
                let until = now + ttl as u64 * SECOND;
                let truth = Truth {
                    granted_at: lease.granted_at,
                    ttl,
                    remaining: 0,
                    not_before: until,
                    not_after: until,
                };
                self.leases.insert(lease.id, truth);
                self.lessor.add(lease, ttl, ttl, now);
            }
            Entry::Revoke(id) => {
                if self.leases.remove(&id).is_some() {
                    self.lessor.revoked(id, |asker, ttl| {
                        assert_eq!((asker as i64, ttl), (id, 0));
                    });
                }
            }
            Entry::Upkeep(upkeep) => {
                for (lease, remaining) in upkeep.write {
                    if let Some(truth) = self.leases.get_mut(&lease.id)
                        && truth.granted_at == lease.granted_at
                    {
                        truth.remaining = remaining;
                        self.written += 1;
                    }
                    self.lessor
                        .written(lease, remaining, now, |_, ttl| kept.push((lease.id, ttl)));
                }
                for lease in upkeep.expire {
                    self.lessor.expired(lease, |asker, ttl| {
                        assert_eq!((asker as i64, ttl), (lease.id, 0));
                    });
                    let there = self.leases.get(&lease.id);
                    if there.is_some_and(|truth| truth.granted_at == lease.granted_at) {
                        let truth = self.leases.remove(&lease.id).unwrap();
                        assert!(now >= truth.not_before, "{lease:?} ended early: {truth:?}");
                        self.ended += 1;
                    }
                }
            }
        }
        for (id, ttl) in kept {
            self.renewed(id, ttl);
        }
    }

    /// The holder is told that it has so many seconds from now.
    fn renewed(&mut self, id: i64, ttl: i64) {
        let truth = self.leases.get_mut(&id).expect("told of a lease that is");
        assert_eq!(ttl, truth.ttl);
        truth.not_before = self.now + ttl as u64 * SECOND;
        truth.not_after = truth.not_before;
    }

    fn keep_alive(&mut self, id: i64) {
        match self.lessor.keep_alive(id, id as u32, self.now) {
            Some(0) => assert!(!self.leases.contains_key(&id), "{id} is there"),
            Some(ttl) => self.renewed(id, ttl),
            None => {
                // Renewed or not: whichever comes, it may live a whole time more.
                if let Some(truth) = self.leases.get_mut(&id) {
                    truth.not_after = truth
                        .not_after
                        .max(self.now + SLACK + truth.ttl as u64 * SECOND);
                }
            }
        }
    }

    fn turn(&mut self) {
        self.apply();
        self.lessor.look(self.now);
        let upkeep = self.lessor.take_upkeep();
        if !upkeep.is_empty() {
            if self.chance.one_in(10) {
                self.lessor.put_back(upkeep);
            } else {
                self.propose(Entry::Upkeep(upkeep));
            }
        }
        for (id, truth) in &self.leases {
            let bound = truth.not_after + SLACK;
            assert!(self.now <= bound, "{id} outlives {truth:?}");
        }
    }

    /// The leader dies, and with it what has not reached the log; another begins after a while.
    fn crash(&mut self) {
        self.restarts += 1;
        let died = self.now;
        let keep = self.chance.below(self.log.len() as u64 + 1) as usize;
        self.log.truncate(keep);
        let askers = self.lessor.give_up().count();
        assert!(askers <= 1_000_000);
        // What survives is applied before the new leader's clock begins.
        self.now += self.chance.below(20 * SECOND);
        self.lessor = Lessor::new(self.now);
        let now = self.now;
        for (_, entry) in std::mem::take(&mut self.log) {
            self.apply_one(entry);
        }
        self.lessor = Lessor::new(now);
        for (id, truth) in &mut self.leases {
            let lease = GrantedLease {
                id: *id,
                granted_at: truth.granted_at,
            };
            let on_record = match truth.remaining {
                0 => truth.ttl,
                remaining => remaining,
            };
            self.lessor.add(lease, truth.ttl, on_record, now);
            // The promise: a step on top of what was left, and never more than the whole.
            let left = truth.not_after.saturating_sub(died);
            let step = checkpoint_step_s(truth.ttl) as u64 * SECOND;
            let most = (left + step + SECOND + SLACK).min(truth.ttl as u64 * SECOND);
            truth.not_after = now + most;
        }
    }
}

fn hours_of(seed: u64, hours: u64, crashes: bool) -> World {
    let mut world = World {
        chance: Chance::new(seed),
        now: 0,
        lessor: Lessor::new(0),
        leases: BTreeMap::new(),
        log: VecDeque::new(),
        index: 0,
        ended: 0,
        written: 0,
        restarts: 0,
    };
    while world.now < hours * 3600 * SECOND {
        world.now += 100 * MS;
        let id = 1 + world.chance.below(40) as i64;
        match world.chance.below(400) {
            0..=9 => {
                world.index += 1;
                let lease = GrantedLease {
                    id,
                    granted_at: world.index,
                };
                let ttl = [2, 5, 30, 61, 130, 700, 3000][world.chance.below(7) as usize];
                world.propose(Entry::Grant(lease, ttl));
            }
            10 => world.propose(Entry::Revoke(id)),
            11..=30 => world.keep_alive(id),
            // Half of the holders are good ones.
            31..=60 => {
                for id in (2..=40).step_by(2) {
                    world.keep_alive(id);
                }
            }
            61 if crashes && world.chance.one_in(20) => world.crash(),
            62 if world.chance.one_in(20) => {
                let away = world.chance.below(20 * SECOND);
                world.now += away;
                for truth in world.leases.values_mut() {
                    truth.not_after += away;
                }
            }
            _ => {}
        }
        world.turn();
    }
    world
}

#[test]
fn hours_without_a_crash() {
    for seed in 0..4 {
        let world = hours_of(seed, 6, false);
        assert!(world.ended > 100, "{}", world.ended);
        assert!(world.written > 10, "{}", world.written);
    }
}

#[test]
fn hours_with_crashes_neither_end_leases_early_nor_keep_them_alive() {
    let (mut ended, mut written, mut restarts) = (0, 0, 0);
    for seed in 100..108 {
        let world = hours_of(seed, 6, true);
        ended += world.ended;
        written += world.written;
        restarts += world.restarts;
    }
    assert!(
        ended > 500 && written > 100 && restarts > 100,
        "{ended} {written} {restarts}"
    );
}
