//! Hours of leases: granted, renewed for a while, moved, forgotten, over restarts, power cuts and
//! stalls. None ends early, none lives for longer than its time and what the restarts may add, and
//! each takes all its keys with it in one revision.

use super::leases::{Bench, MS, SECOND, grant, put};
use super::number;
use super::watching::history::History;
use quoin::api::{DeleteRangeRequest, EventKind, LeaseRevokeRequest, Request};
use quoin::chance::Chance;
use quoin::lease::checkpoint_step_s;
use quoin_storage::mvcc::Horizon;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const TICK: u64 = 100 * MS;
/// After a stall nothing is over for half a second; and the clock is looked at tick by tick.
const GRACE: u64 = 500 * MS + 2 * TICK;

/// What its holder knows of a lease.
struct Held {
    ttl: i64,
    /// When the last renewal that was confirmed was asked for, on the clock that stands still
    /// while no leader runs.
    renewed: u64,
    /// How much the restarts since then may have added.
    added: u64,
    /// When the holder renews next; never, once it has forgotten the lease.
    next: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    granted: u64,
    renewed: u64,
    ended: u64,
    revoked: u64,
    together: u64,
    restarts: u64,
}

struct Life {
    chance: Chance,
    bench: Bench,
    history: History,
    held: BTreeMap<i64, Held>,
    /// Key to its lease.
    keys: BTreeMap<String, i64>,
    last_id: i64,
    /// Time with a leader.
    lived: u64,
    /// When the last stall was over.
    stalled: u64,
    tally: Tally,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life {
            chance: Chance::new(seed),
            bench: Bench::new(),
            history: History::default(),
            held: BTreeMap::new(),
            keys: BTreeMap::new(),
            last_id: 0,
            lived: 0,
            stalled: 0,
            tally: Tally::default(),
        }
    }

    fn seconds(ttl: i64) -> u64 {
        ttl as u64 * SECOND
    }

    fn grant(&mut self) {
        self.last_id += 1;
        let id = self.last_id;
        let ttl = match self.chance.below(5) {
            0..=1 => 2 + self.chance.below(20),
            2..=3 => 30 + self.chance.below(600),
            _ => 600 + self.chance.below(3_000),
        } as i64;
        let keys: Vec<String> = (0..1 + self.chance.below(5))
            .map(|_| format!("{:03}", self.chance.below(200)))
            .collect();
        let mut requests = vec![grant(id, ttl)];
        requests.extend(keys.iter().map(|key| put(key, id)));
        let failed = self.bench.failed;
        let asked = self.lived;
        self.bench.propose(&requests);
        assert_eq!(self.bench.failed, failed, "nothing is refused");
        self.held.insert(
            id,
            Held {
                ttl,
                renewed: asked,
                added: 0,
                next: Some(asked + Life::seconds(ttl) / 3),
            },
        );
        self.tally.granted += 1;
        for key in keys {
            self.keys.insert(key, id);
        }
        // What these puts have done is none of a lease's ending.
        self.observe();
    }

    /// Somebody else's write: a key is detached, or deleted; or a lease is revoked.
    fn disturb(&mut self) {
        let key = format!("{:03}", self.chance.below(200));
        match self.chance.below(3) {
            0 => {
                self.bench.propose(&[put(&key, 0)]);
                self.keys.insert(key, 0);
            }
            1 => {
                let delete = DeleteRangeRequest {
                    key: key.as_bytes(),
                    ..DeleteRangeRequest::default()
                };
                self.keys.remove(&key);
                self.bench.propose(&[Request::DeleteRange(delete)]);
            }
            _ => {
                let at = self.chance.below(self.held.len().max(1) as u64) as usize;
                let Some(&id) = self.held.keys().nth(at) else {
                    return;
                };
                let failed = self.bench.failed;
                self.bench
                    .propose(&[Request::LeaseRevoke(LeaseRevokeRequest { id })]);
                if self.bench.failed == failed {
                    self.held.remove(&id);
                    self.keys.retain(|_, lease| *lease != id);
                    self.tally.revoked += 1;
                }
                self.bench.failed = failed;
            }
        }
        self.observe();
    }

    fn renew(&mut self) {
        let due = |held: &Held| held.next.is_some_and(|next| next <= self.lived);
        let held = self.held.iter().filter(|(_, held)| due(held));
        let ids: Vec<i64> = held.map(|(id, _)| *id).collect();
        for id in ids {
            let forgets = self.chance.one_in(6);
            let held = self.held.get_mut(&id).expect("it is held");
            let whole = Life::seconds(held.ttl);
            if forgets {
                held.next = None;
                continue;
            }
            let asked = self.lived;
            let kept = self.bench.keep_alive(id).expect("an answer");
            // It may have ended this very moment; a stall may have made its holder late.
            if kept == 0 {
                self.observe();
                continue;
            }
            let held = self.held.get_mut(&id).expect("it is held");
            assert_eq!(kept, held.ttl);
            held.renewed = asked;
            held.added = 0;
            held.next = Some(asked + whole / 3 + self.chance.below(whole / 2));
            self.tally.renewed += 1;
        }
    }

    fn restart(&mut self) {
        let away = self.chance.below(7_200) * SECOND;
        let power = self.chance.one_in(2);
        self.bench.restart(power, away);
        self.tally.restarts += 1;
        for held in self.held.values_mut() {
            let step = checkpoint_step_s(held.ttl).min(held.ttl);
            held.added += Life::seconds(step) + SECOND;
        }
        self.observe();
    }

    /// What was deleted must be a lease's keys, all of them, and in its time.
    fn observe(&mut self) {
        let before = self.history.revision;
        let snapshot = self.bench.node.reader.pin();
        let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
        if horizon.revision == before {
            return;
        }
        self.history.observe(&snapshot, horizon);
        drop(snapshot);
        for revision in before + 1..=self.history.revision {
            let changes = self.history.between(revision, revision);
            let gone: BTreeSet<String> = changes
                .filter(|change| change.kind == EventKind::Delete)
                .map(|change| String::from_utf8(change.kv.key.clone()).expect("text"))
                .collect();
            // A key that was detached or deleted was taken note of before.
            let leases: BTreeSet<i64> = gone
                .iter()
                .filter_map(|key| self.keys.get(key))
                .copied()
                .collect();
            let Some(&id) = leases.first() else { continue };
            assert_eq!(leases.len(), 1, "one revision ends one lease");
            let held = self.held.remove(&id).expect("a lease that nobody has");
            let own: BTreeSet<String> = self
                .keys
                .iter()
                .filter(|(_, lease)| **lease == id)
                .map(|(key, _)| key.clone())
                .collect();
            assert_eq!(gone, own, "all its keys, and in one revision");
            self.keys.retain(|_, lease| *lease != id);
            let whole = held.renewed + Life::seconds(held.ttl);
            assert!(
                self.lived + TICK >= whole,
                "early: {} of {whole}",
                self.lived
            );
            self.tally.ended += 1;
            self.tally.together += u64::from(own.len() > 1);
        }
    }

    /// No lease lives for longer than it may.
    fn check_late(&mut self) {
        for (id, held) in &self.held {
            let latest = held.renewed + Life::seconds(held.ttl) + held.added;
            let latest = latest.max(self.stalled) + GRACE;
            let has_keys = self.keys.values().any(|lease| lease == id);
            assert!(
                self.lived <= latest || !has_keys,
                "lease {id} lives: {} after {latest}",
                self.lived
            );
        }
        // One that lost its keys to others ends unseen.
        let (keys, lived) = (&self.keys, self.lived);
        self.held.retain(|id, held| {
            let over = held.renewed + Life::seconds(held.ttl) + held.added + GRACE;
            lived <= over || keys.values().any(|lease| lease == id)
        });
    }

    /// Time passes, in ticks, or all at once: a process that was stopped.
    fn pass(&mut self, ns: u64, at_once: bool) {
        if at_once {
            self.bench.now_ns += ns;
            self.lived += ns;
            self.bench.settle();
            self.stalled = self.lived;
            self.observe();
            return;
        }
        for _ in 0..ns / TICK {
            self.bench.now_ns += TICK;
            self.lived += TICK;
            self.bench.settle();
            self.observe();
            self.check_late();
        }
    }

    fn live(&mut self, hours: u64) -> Tally {
        while self.lived < hours * 3600 * SECOND {
            if self.held.len() < 30 {
                self.grant();
            }
            self.renew();
            match self.chance.below(40) {
                0..=3 => self.disturb(),
                4 => {
                    let stall = self.chance.below(4_000) * MS;
                    self.pass(stall, true);
                }
                5 if self.chance.one_in(10) => self.restart(),
                _ => {}
            }
            let ticks = 1 + self.chance.below(30);
            self.pass(ticks * TICK, false);
        }
        // Whoever is left is forgotten, and ends.
        let longest = 4_000 * SECOND;
        let until = self.lived + longest + self.held.values().map(|held| held.added).sum::<u64>();
        while self.lived < until && !self.held.is_empty() {
            self.pass(SECOND, false);
        }
        assert!(self.held.is_empty());
        self.tally
    }
}

#[test]
fn no_lease_ends_early_or_lives_on_and_each_ends_in_one_revision() {
    let budget = Duration::from_secs(number("QUOIN_SIM_SECONDS").unwrap_or(10)) / 5;
    let begun = Instant::now();
    let mut seeds = 0;
    let mut all = Tally::default();
    while seeds < 2 || begun.elapsed() < budget {
        let one = Life::new(seeds).live(2);
        seeds += 1;
        all.granted += one.granted;
        all.renewed += one.renewed;
        all.ended += one.ended;
        all.revoked += one.revoked;
        all.together += one.together;
        all.restarts += one.restarts;
    }
    println!("{seeds} seeds of two hours: {all:?}");
    assert!(
        all.ended > 100 && all.together > 50 && all.restarts > 5,
        "{all:?}"
    );
}
