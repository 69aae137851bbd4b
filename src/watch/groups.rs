//! Groups of watches with one interest, and which of them want a key.

use super::interest::Interest;
use super::lists::{List, Lists};
use super::spans::Spans;
use hashbrown::HashTable;
use slab::Slab;
use std::hash::{DefaultHasher, Hasher};
use std::iter::once;

/// All watches of a front with one interest.
#[derive(Debug)]
pub(super) struct Group {
    pub interest: Interest,
    /// Watches that have it, also those that lag.
    watches: u32,
    /// Those that are up to date.
    live: List,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Slab<Group>,
    /// Those of single keys, by key. Several may have the same key, with other options.
    points: HashTable<u32>,
    spans: Spans,
    /// Makes the places of keys in the table unknown to clients.
    seed: u64,
    key_bytes: usize,
}

impl Groups {
    pub fn new(seed: u64) -> Groups {
        Groups {
            groups: Slab::new(),
            points: HashTable::new(),
            spans: Spans::new(seed),
            seed,
            key_bytes: 0,
        }
    }

    /// Adds a watch with that interest; returns its group.
    pub fn join(&mut self, interest: Interest) -> u32 {
        let seed = self.seed;
        let found = match interest.is_interval() {
            true => self.spans.find(&interest, &self.groups),
            false => {
                let groups = &self.groups;
                let same = |group: &u32| groups[*group as usize].interest == interest;
                let hash = hash(seed, interest.start());
                self.points.find(hash, same).copied()
            }
        };
        if let Some(group) = found {
            self.groups[group as usize].watches += 1;
            return group;
        }
        self.key_bytes += interest.bytes();
        let is_interval = interest.is_interval();
        let entry = self.groups.vacant_entry();
        // Bounded by the number of watches.
        let group = entry.key() as u32;
        entry.insert(Group {
            interest,
            watches: 1,
            live: List::default(),
        });
        let groups = &self.groups;
        if is_interval {
            self.spans.insert(group, groups);
        } else {
            let rehash = |group: &u32| hash(seed, groups[*group as usize].interest.start());
            self.points.insert_unique(rehash(&group), group, rehash);
        }
        group
    }

    /// Takes a watch, which is in no list any more, out of its group.
    pub fn leave(&mut self, group: u32) {
        let entry = &mut self.groups[group as usize];
        entry.watches -= 1;
        if entry.watches > 0 {
            return;
        }
        assert!(entry.live.is_empty(), "a watch that leaves is in no list");
        self.key_bytes -= entry.interest.bytes();
        if entry.interest.is_interval() {
            self.spans.remove(group, &self.groups);
        } else {
            let hash = hash(self.seed, entry.interest.start());
            let place = self.points.find_entry(hash, |other| *other == group);
            place.expect("a point's group is in the table").remove();
        }
        self.groups.remove(group as usize);
    }

    pub fn interest(&self, group: u32) -> &Interest {
        &self.groups[group as usize].interest
    }

    /// The watches of a group that are up to date.
    pub fn live(&self, group: u32) -> List {
        self.groups[group as usize].live
    }

    /// Puts a watch among those that are up to date.
    pub fn enlist(&mut self, group: u32, watch: u32, links: &mut impl Lists) {
        self.groups[group as usize].live.push(watch, links);
    }

    /// Takes it from there.
    pub fn delist(&mut self, group: u32, watch: u32, links: &mut impl Lists) {
        self.groups[group as usize].live.remove(watch, links);
    }

    /// Visits the groups with watches up to date that want an event.
    pub fn wanting(&self, key: &[u8], tombstone: bool, visit: &mut impl FnMut(u32)) {
        self.wanting_each(once((key, tombstone)), &mut |group, _| visit(group));
    }

    /// The same for many events, keys and whether they are tombstones; tells which event it was by
    /// its number.
    ///
    /// Most keys are nobody's, and with many watches the table lies in no cache near by. So it is
    /// asked for all of them in a row, with nothing in between that would keep the processor from
    /// waiting for several places at once.
    pub fn wanting_each<'k>(
        &self,
        events: impl Iterator<Item = (&'k [u8], bool)> + Clone,
        visit: &mut impl FnMut(u32, u32),
    ) {
        let mut one = |group: u32, at: u32, tombstone: bool| {
            let entry = &self.groups[group as usize];
            if !entry.live.is_empty() && entry.interest.takes(tombstone) {
                visit(group, at);
            }
        };
        let each = || (0u32..).zip(events.clone());
        if !self.points.is_empty() {
            let hashes: Vec<u64> = each().map(|(_, (key, _))| hash(self.seed, key)).collect();
            // Of different keys, too, but seldom.
            let perhaps = |hash: &u64| self.points.find(*hash, |_| true).is_some();
            let found: Vec<bool> = hashes.iter().map(perhaps).collect();
            for ((at, (key, tombstone)), hash) in each()
                .zip(&hashes)
                .zip(found)
                .filter_map(|(event, found)| found.then_some(event))
            {
                for &group in self.points.iter_hash(*hash) {
                    if self.groups[group as usize].interest.start() == key {
                        one(group, at, tombstone);
                    }
                }
            }
        }
        if !self.spans.is_empty() {
            for (at, (key, tombstone)) in each() {
                let mut one = |group| one(group, at, tombstone);
                self.spans.stab(key, &self.groups, &mut one);
            }
        }
    }

    /// Bytes of keys.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Bytes of memory, what the allocator adds aside.
    pub fn memory(&self) -> usize {
        self.groups.capacity() * size_of::<Option<Group>>()
            + self.points.allocation_size()
            + self.spans.memory()
            + self.key_bytes
    }
}

fn hash(seed: u64, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(key);
    hasher.finish()
}
