//! Random histories, watches, stalls and reconnects, held against the whole history: what each
//! watch is told is filtered, ordered, unique, atomic, bookmarkable, resumable and complete, says
//! rightly what was created, and has the right previous pairs.

use super::store::{Ears, SECOND, Said, Store, config};
use crate::api::{EventKind, OwnedEvent, WatchCreate, WatchRefusal};
use crate::watch::{StreamId, Watches};
use proptest::prelude::*;
use std::collections::BTreeMap;

const STREAMS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, bool)>),
    /// At this part of history.
    Compact(u8),
    Purge(u8),
    Turn,
    /// A turn in which the streams stall after so many messages.
    ShortTurn(u8),
    Stall(u8, bool),
    Create(u8, Wish),
    Cancel(u8, u8),
    Ask(u8),
    Tick,
    /// A stream ends, and its watches are made anew where they were.
    Reconnect(u8),
}

/// A watch to create.
#[derive(Debug, Clone)]
struct Wish {
    key: Vec<u8>,
    range_end: Vec<u8>,
    /// 0 to 10: parts of history; 11, 12: the future; 13 and more: from now on.
    start: u8,
    options: [bool; 5],
    id: u8,
}

fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number % 3, b'a' + number / 3 % 3]
}

fn wish() -> impl Strategy<Value = Wish> {
    let range = (any::<u8>(), 0..6u8, any::<u8>()).prop_map(|(a, kind, b)| match kind {
        0 => (key(a), vec![0]),
        1 => (vec![key(a)[0]], vec![key(a)[0] + 1]),
        2 => (key(a), key(b)),
        3 => (vec![], vec![0]),
        _ => (key(a), vec![]),
    });
    (range, 0..16u8, any::<[bool; 5]>(), 0..24u8).prop_map(|(range, start, options, id)| Wish {
        key: range.0,
        range_end: range.1,
        start,
        options,
        id,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let ops = prop::collection::vec((any::<u8>(), prop::bool::weighted(0.7)), 1..4);
    prop_oneof![
        8 => ops.prop_map(Step::Write),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => any::<u8>().prop_map(Step::Purge),
        4 => Just(Step::Turn),
        2 => any::<u8>().prop_map(|n| Step::ShortTurn(n % 4)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(s, on)| Step::Stall(s, on)),
        4 => (any::<u8>(), wish()).prop_map(|(s, wish)| Step::Create(s, wish)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(s, w)| Step::Cancel(s, w)),
        1 => any::<u8>().prop_map(Step::Ask),
        1 => Just(Step::Tick),
        1 => any::<u8>().prop_map(Step::Reconnect),
    ]
}

/// A watch as its client knows it.
#[derive(Debug, Clone)]
struct Seen {
    wish: Wish,
    /// Everything before this revision was told or is not for it.
    next: i64,
    /// It began in the future.
    future: bool,
}

impl Seen {
    fn wants(&self, event: &OwnedEvent) -> bool {
        let key = &event.kv.key;
        let start = match &self.wish.key[..] {
            [] => &[0][..],
            start => start,
        };
        let holds = match &self.wish.range_end[..] {
            [] => key == start,
            [0] => &key[..] >= start,
            end => &key[..] >= start && &key[..] < end,
        };
        let left_out = match event.kind {
            EventKind::Put => self.wish.options[3],
            EventKind::Delete => self.wish.options[4],
        };
        holds && !left_out
    }
}

struct World {
    store: Store,
    watches: Watches<u32>,
    ears: Ears,
    streams: Vec<StreamId>,
    seen: Vec<BTreeMap<i64, Seen>>,
    now_ns: u64,
}

impl World {
    fn new() -> World {
        let mut watches = Watches::new(config());
        World {
            store: Store::new(),
            streams: (0..STREAMS).map(|owner| watches.open(owner)).collect(),
            seen: (0..STREAMS).map(|_| BTreeMap::new()).collect(),
            watches,
            ears: Ears::default(),
            now_ns: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        let stream = |s: &u8| usize::from(*s) % STREAMS as usize;
        match step {
            Step::Write(ops) => {
                let value = (self.store.meta.revision as u32).to_le_bytes();
                let ops: Vec<_> = ops.iter().map(|(k, put)| (key(*k), *put)).collect();
                let ops: Vec<(&[u8], Option<&[u8]>)> = ops
                    .iter()
                    .map(|(key, put)| (&key[..], put.then_some(&value[..])))
                    .collect();
                self.store.write(&ops);
            }
            Step::Compact(part) => {
                let meta = &self.store.meta;
                let from = meta.compacted.max(1);
                let span = meta.revision - from + 1;
                self.store.compact(from + span * i64::from(*part) / 256);
            }
            Step::Purge(events) => self.store.purge(usize::from(*events)),
            Step::Turn => self.turn(),
            Step::ShortTurn(messages) => {
                self.ears.patience = Some(usize::from(*messages));
                self.ears.room = Some(1 + usize::from(*messages) * 4);
                self.turn();
                (self.ears.patience, self.ears.room) = (None, None);
                self.watches.wake_all();
            }
            Step::Stall(s, true) => {
                self.ears.stalled.insert(stream(s) as u32);
            }
            Step::Stall(s, false) => {
                self.ears.stalled.remove(&(stream(s) as u32));
                self.watches.wake(self.streams[stream(s)]);
            }
            Step::Create(s, wish) => {
                let revision = self.store.meta.revision;
                let start = match wish.start {
                    part @ 0..=10 => (revision * i64::from(part) / 10).max(1),
                    11 => revision + 1,
                    12 => revision + 3,
                    _ => 0,
                };
                self.create(stream(s), wish.clone(), start);
            }
            Step::Cancel(s, which) => {
                let ids: Vec<i64> = self.seen[stream(s)].keys().copied().collect();
                if !ids.is_empty() {
                    let id = ids[usize::from(*which) % ids.len()];
                    self.seen[stream(s)].remove(&id);
                    assert!(self.watches.cancel(self.streams[stream(s)], id));
                }
                assert!(!self.watches.cancel(self.streams[stream(s)], -7));
            }
            Step::Ask(s) => self.watches.ask_progress(self.streams[stream(s)]),
            Step::Tick => {
                self.now_ns += 2 * SECOND;
                self.watches.tick(self.now_ns, &mut self.ears);
                self.listen();
            }
            Step::Reconnect(s) => {
                let at = stream(s);
                self.watches.close(self.streams[at]);
                self.streams[at] = self.watches.open(at as u32);
                for seen in std::mem::take(&mut self.seen[at]).into_values() {
                    self.create(at, seen.wish, seen.next);
                }
            }
        }
    }

    fn create(&mut self, at: usize, wish: Wish, start: i64) {
        let revision = self.store.meta.revision;
        let [prev_kv, progress_notify, fragment, no_put, no_delete] = wish.options;
        let create = WatchCreate {
            key: &wish.key,
            range_end: &wish.range_end,
            start_revision: start,
            watch_id: i64::from(wish.id).max(16) - 16,
            prev_kv,
            progress_notify,
            fragment,
            no_put,
            no_delete,
        };
        let stream = self.streams[at];
        let created = self.watches.create(stream, &create, revision, self.now_ns);
        let start_key: &[u8] = if wish.key.is_empty() { &[0] } else { &wish.key };
        let empty = wish.range_end.len() > 1 && start_key >= &wish.range_end[..];
        let taken = self.seen[at].contains_key(&create.watch_id) && create.watch_id != 0;
        match created {
            Ok(id) => {
                assert!(!empty && !taken);
                assert!(create.watch_id == 0 || create.watch_id == id);
                let seen = Seen {
                    next: if start == 0 { revision + 1 } else { start },
                    future: start > revision,
                    wish,
                };
                assert!(self.seen[at].insert(id, seen).is_none(), "the id was free");
            }
            Err(WatchRefusal::EmptyRange) => assert!(empty),
            Err(WatchRefusal::DuplicateId) => assert!(taken),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn turn(&mut self) {
        self.store.turn(&mut self.watches, &mut self.ears);
        self.listen();
    }

    /// Holds everything that was said against history.
    fn listen(&mut self) {
        for (owner, said) in std::mem::take(&mut self.ears.said) {
            let at = owner as usize;
            match said {
                Said::Events {
                    watches,
                    events,
                    revision,
                } => {
                    assert!(!events.is_empty() && !watches.is_empty());
                    for id in watches {
                        self.hear(at, id, &events, revision);
                    }
                }
                Said::Compacted(id, compacted) => {
                    assert_eq!(compacted, self.store.meta.compacted);
                    let seen = self.seen[at].remove(&id).expect("a watch that exists");
                    assert!(seen.next < compacted, "{seen:?} was not overtaken");
                }
                Said::Ended(id, why) => panic!("watch {id}: {why:?}"),
                Said::Progress(ids, revision) => {
                    assert!(revision <= self.store.meta.revision);
                    let all: Vec<i64> = self.seen[at].keys().copied().collect();
                    assert!(!all.is_empty());
                    for id in if ids.is_empty() { all } else { ids.clone() } {
                        let seen = self.seen[at].get_mut(&id).expect("a watch that exists");
                        assert!(ids.is_empty() || seen.wish.options[1]);
                        assert!(seen.next <= revision + i64::from(!seen.future));
                        let missed = self.store.history.iter().any(|event| {
                            let rev = event.kv.mod_revision;
                            (seen.next..=revision).contains(&rev) && seen.wants(event)
                        });
                        assert!(!missed, "{seen:?} told {revision} too early");
                        seen.next = seen.next.max(revision + 1);
                        seen.future = false;
                    }
                }
            }
        }
    }

    /// A watch was told of some events: they are the next that it wants, whole revisions.
    fn hear(&mut self, at: usize, id: i64, events: &[OwnedEvent], revision: i64) {
        let seen = self.seen[at].get_mut(&id).expect("a watch that exists");
        let last = events.last().expect("not empty").kv.mod_revision;
        assert!(last <= revision && revision <= self.store.meta.revision);
        let mut expected = self.store.history.iter().filter(|event| {
            (seen.next..=last).contains(&event.kv.mod_revision) && seen.wants(event)
        });
        for event in events {
            let real = expected.next().expect("no event twice, none unwanted");
            assert_eq!((event.kind, &event.kv), (real.kind, &real.kv));
            assert_eq!(
                event.borrow().is_create(),
                real.kind == EventKind::Put && real.prev_kv.is_none()
            );
            match &event.prev_kv {
                Some(_) => {
                    assert!(seen.wish.options[0]);
                    assert_eq!(event.prev_kv, real.prev_kv);
                }
                None if seen.wish.options[0] && real.prev_kv.is_some() => {
                    assert!(event.kv.mod_revision <= self.store.meta.compacted);
                }
                None => {}
            }
        }
        assert_eq!(expected.next(), None, "no event left out");
        seen.next = last + 1;
        seen.future = false;
    }

    /// With everybody listening, everybody hears everything.
    fn finish(&mut self) {
        self.ears.stalled.clear();
        self.watches.wake_all();
        self.store.settle(&mut self.watches, &mut self.ears);
        self.listen();
        for seen in self.seen.iter().flat_map(BTreeMap::values) {
            let missed = self
                .store
                .history
                .iter()
                .find(|event| event.kv.mod_revision >= seen.next && seen.wants(event));
            assert_eq!(missed, None, "{seen:?}");
        }
        let count: usize = self.seen.iter().map(BTreeMap::len).sum();
        assert_eq!(self.watches.len(), count);
        for stream in &self.streams {
            self.watches.close(*stream);
        }
        assert!(self.watches.is_empty());
        assert_eq!(self.watches.live, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_watch_hears_what_it_should(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.finish();
    }
}
