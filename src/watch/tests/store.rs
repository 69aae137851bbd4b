//! A store to watch, with all that ever happened in it, and a sink that remembers.

use crate::api::{Event, EventKind, OwnedEvent, OwnedKeyValue, WatchRefusal};
use crate::watch::{Batch, Bounds, Sink, TooLarge, WatchConfig, Watches};
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::mvcc::{self, Horizon, Meta, View, WriteTxn};
use quoin_storage::tree::{self, Reader, TreeOptions, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const SECOND: u64 = 1_000_000_000;

pub fn config() -> WatchConfig {
    WatchConfig {
        progress_interval_ns: SECOND,
        bounds: Bounds {
            watches: 1 << 20,
            key_bytes: 1 << 24,
        },
        seed: 7,
    }
}

/// A tree, and beside it the whole history.
pub struct Store {
    writer: Writer,
    reader: Reader,
    pub meta: Meta,
    /// Every event, with the pair before it.
    pub history: Vec<OwnedEvent>,
    live: BTreeMap<Vec<u8>, OwnedKeyValue>,
}

impl Store {
    pub fn new() -> Store {
        let options = TreeOptions {
            reserve_bytes: 1 << 30,
            spare_bytes: 0,
            ..TreeOptions::default()
        };
        let (writer, shared) = tree::open(Arc::new(SimDisk::new(1)), "tree", options).unwrap();
        Store {
            writer,
            reader: shared.reader().unwrap(),
            meta: Meta::default(),
            history: Vec::new(),
            live: BTreeMap::new(),
        }
    }

    /// Puts (with a value) and deletes, as one revision.
    pub fn write(&mut self, ops: &[(&[u8], Option<&[u8]>)]) {
        let revision = self.meta.revision + 1;
        let mut txn = self.writer.begin();
        let mut write = WriteTxn::begin(&mut txn, &mut self.meta);
        let mut touched = BTreeSet::new();
        for (key, value) in ops {
            if !touched.insert(*key) {
                continue;
            }
            let before = self.live.get(*key).cloned();
            let event = match value {
                Some(value) => {
                    write.put(key, value, 0).unwrap();
                    let kv = OwnedKeyValue {
                        key: key.to_vec(),
                        value: value.to_vec(),
                        create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.as_ref().map_or(1, |kv| kv.version + 1),
                        lease: 0,
                    };
                    self.live.insert(key.to_vec(), kv.clone());
                    (EventKind::Put, kv)
                }
                None if before.is_none() => continue,
                None => {
                    write.delete(key).unwrap();
                    self.live.remove(*key);
                    let kv = OwnedKeyValue {
                        key: key.to_vec(),
                        mod_revision: revision,
                        ..OwnedKeyValue::default()
                    };
                    (EventKind::Delete, kv)
                }
            };
            self.history.push(OwnedEvent {
                kind: event.0,
                kv: event.1,
                prev_kv: before,
            });
        }
        write.finish();
        txn.commit(&self.meta.encode());
    }

    /// The same, for keys that one revision changes more than once; no history is kept.
    pub fn write_unseen(&mut self, ops: &[(&[u8], Option<&[u8]>)]) {
        let mut txn = self.writer.begin();
        let mut write = WriteTxn::begin(&mut txn, &mut self.meta);
        for (key, value) in ops {
            match value {
                Some(value) => drop(write.put(key, value, 0).unwrap()),
                None => drop(write.delete(key).unwrap()),
            }
        }
        write.finish();
        txn.commit(&self.meta.encode());
    }

    pub fn compact(&mut self, revision: i64) {
        if mvcc::compact(&mut self.meta, revision).is_ok() {
            self.writer.begin().commit(&self.meta.encode());
        }
    }

    pub fn purge(&mut self, events: usize) {
        let mut txn = self.writer.begin();
        mvcc::compact_step(&mut txn, &mut self.meta, events).unwrap();
        txn.commit(&self.meta.encode());
    }

    /// A turn of the watches over the newest root.
    pub fn turn(&self, watches: &mut Watches<u32>, sink: &mut impl Sink<u32>) {
        let snapshot = self.reader.pin();
        let view = View::new(&snapshot, Horizon::decode(snapshot.user()).unwrap());
        watches.turn(&view, sink).unwrap();
    }

    /// Turns until nothing is left to do.
    pub fn settle(&self, watches: &mut Watches<u32>, sink: &mut impl Sink<u32>) {
        self.turn(watches, sink);
        for _ in 0..100_000 {
            if !watches.has_work() {
                return;
            }
            self.turn(watches, sink);
        }
        panic!("the watches never come to rest");
    }
}

/// What a stream was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Events {
        watches: Vec<i64>,
        events: Vec<OwnedEvent>,
        revision: i64,
    },
    Compacted(i64, i64),
    Ended(i64, WatchRefusal),
    Progress(Vec<i64>, i64),
}

/// Remembers what was said to each stream, in order.
#[derive(Debug, Default)]
pub struct Ears {
    pub said: Vec<(u32, Said)>,
    /// Streams that take nothing now.
    pub stalled: BTreeSet<u32>,
    /// After so many more messages all streams stall.
    pub patience: Option<usize>,
    /// Bytes that fit in at once; no bound if none.
    pub room: Option<usize>,
    /// How often events were encoded.
    pub batches: usize,
}

impl Ears {
    fn hear(&mut self, owner: u32, said: Said) {
        if let Some(left) = &mut self.patience {
            *left = left.saturating_sub(1);
        }
        self.said.push((owner, said));
    }

    /// What a stream was told since the last call.
    pub fn take(&mut self, stream: u32) -> Vec<Said> {
        let (of, others) = std::mem::take(&mut self.said)
            .into_iter()
            .partition(|(owner, _)| *owner == stream);
        self.said = others;
        let of: Vec<(u32, Said)> = of;
        of.into_iter().map(|(_, said)| said).collect()
    }
}

impl Sink<u32> for Ears {
    fn room(&mut self, owner: u32) -> usize {
        match self.stalled.contains(&owner) || self.patience == Some(0) {
            true => 0,
            false => self.room.unwrap_or(usize::MAX),
        }
    }

    fn next_batch(&mut self) {
        self.batches += 1;
    }

    fn events(&mut self, owner: u32, watches: &[i64], batch: &Batch<'_>) -> Result<(), TooLarge> {
        let said = Said::Events {
            watches: watches.to_vec(),
            events: batch.events.iter().map(Event::to_owned).collect(),
            revision: batch.revision,
        };
        self.hear(owner, said);
        Ok(())
    }

    fn compacted(&mut self, owner: u32, watch: i64, compact_revision: i64) {
        self.hear(owner, Said::Compacted(watch, compact_revision));
    }

    fn ended(&mut self, owner: u32, watch: i64, why: WatchRefusal) {
        self.hear(owner, Said::Ended(watch, why));
    }

    fn progress(&mut self, owner: u32, watches: &[i64], revision: i64) {
        self.hear(owner, Said::Progress(watches.to_vec(), revision));
    }
}
