//! Single cases of the watch core.

use super::store::{Ears, SECOND, Said, Store, config};
use crate::api::{EventKind, WatchCreate, WatchRefusal};
use crate::limits;
use crate::watch::{Bounds, StreamId, Watches};

fn of(key: &'static [u8]) -> WatchCreate<'static> {
    WatchCreate {
        key,
        ..WatchCreate::default()
    }
}

fn from(key: &'static [u8], start_revision: i64) -> WatchCreate<'static> {
    WatchCreate {
        start_revision,
        ..of(key)
    }
}

struct Bench {
    store: Store,
    watches: Watches<u32>,
    ears: Ears,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            store: Store::new(),
            watches: Watches::new(config()),
            ears: Ears::default(),
        }
    }

    fn watch(&mut self, stream: StreamId, create: &WatchCreate<'_>) -> Result<i64, WatchRefusal> {
        let revision = self.store.meta.revision;
        self.watches.create(stream, create, revision, 0)
    }

    fn put(&mut self, key: &[u8]) {
        self.store.write(&[(key, Some(b"value"))]);
    }

    fn settle(&mut self) {
        self.store.settle(&mut self.watches, &mut self.ears);
    }

    /// The revisions of the events that a stream was told, message by message.
    fn revisions(&mut self, stream: u32) -> Vec<Vec<i64>> {
        let said = self.ears.take(stream);
        said.into_iter()
            .map(|said| match said {
                Said::Events { events, .. } => {
                    events.iter().map(|event| event.kv.mod_revision).collect()
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

#[test]
fn ids_are_given_and_refused_as_in_etcd() {
    let mut bench = Bench::new();
    let (a, b) = (bench.watches.open(0), bench.watches.open(1));
    assert_eq!(bench.watch(a, &of(b"x")), Ok(0));
    let with_id = |watch_id| WatchCreate {
        watch_id,
        ..of(b"x")
    };
    assert_eq!(bench.watch(a, &with_id(1)), Ok(1));
    assert_eq!(bench.watch(a, &of(b"x")), Ok(2));
    assert_eq!(bench.watch(a, &with_id(2)), Err(WatchRefusal::DuplicateId));
    assert_eq!(bench.watch(b, &of(b"x")), Ok(0), "each stream has its own");
    assert!(bench.watches.cancel(a, 1));
    assert_eq!(bench.watch(a, &with_id(1)), Ok(1));
    let range = |key, range_end| WatchCreate {
        range_end,
        ..of(key)
    };
    let empty = Err(WatchRefusal::EmptyRange);
    assert_eq!(bench.watch(a, &range(b"x", b"x")), empty);
    assert_eq!(bench.watch(a, &range(b"x", b"w")), empty);
    assert_eq!(bench.watch(a, &range(b"x", b"\0")), Ok(3));
    assert_eq!(bench.watch(a, &range(b"", b"\0")), Ok(4));
    let past = bench.watch(a, &from(b"x", -1));
    assert_eq!(past, Err(WatchRefusal::Compacted));
}

#[test]
fn watches_over_the_bound_are_refused() {
    let bounds = Bounds {
        watches: 2,
        key_bytes: 3,
    };
    let mut watches = Watches::new(crate::watch::WatchConfig { bounds, ..config() });
    let stream = watches.open(0);
    assert_eq!(
        watches.create(stream, &of(b"four"), 1, 0),
        Err(WatchRefusal::TooMany)
    );
    assert_eq!(watches.create(stream, &of(b"one"), 1, 0), Ok(0));
    watches.cancel(stream, 0);
    assert_eq!(watches.create(stream, &of(b"a"), 1, 0), Ok(1));
    assert_eq!(watches.create(stream, &of(b"b"), 1, 0), Ok(2));
    assert_eq!(
        watches.create(stream, &of(b"c"), 1, 0),
        Err(WatchRefusal::TooMany)
    );
}

#[test]
fn one_event_is_encoded_once_for_all_who_want_it() {
    let mut bench = Bench::new();
    for owner in 0..10 {
        let stream = bench.watches.open(owner);
        for _ in 0..10 {
            bench.watch(stream, &of(b"key")).unwrap();
        }
    }
    bench.put(b"key");
    bench.put(b"other");
    bench.settle();
    assert_eq!(bench.ears.batches, 1);
    assert_eq!(bench.ears.said.len(), 10, "one message for each stream");
    for (_, said) in &bench.ears.said {
        let Said::Events {
            watches, events, ..
        } = said
        else {
            panic!("{said:?}")
        };
        assert_eq!((watches.len(), events.len()), (10, 1));
    }
}

#[test]
fn the_past_is_told_in_bounded_turns_and_joined_to_the_present() {
    let mut bench = Bench::new();
    let many = 2 * limits::WATCH_EVENTS_PER_TURN + 10;
    for _ in 0..many {
        bench.put(b"key");
    }
    let stream = bench.watches.open(0);
    bench.watch(stream, &from(b"key", 2)).unwrap();
    // Not told while the watch lags, although its client takes everything.
    bench.watches.ask_progress(stream);
    bench.store.turn(&mut bench.watches, &mut bench.ears);
    let first = bench.revisions(0).concat();
    assert!(
        first.len() <= limits::WATCH_EVENTS_PER_TURN,
        "{}",
        first.len()
    );
    bench.put(b"key");
    bench.settle();
    bench.put(b"key");
    bench.settle();
    let all = [first, bench.revisions(0).concat()].concat();
    assert_eq!(all, (2..2 + many as i64 + 2).collect::<Vec<_>>());
    assert_eq!(bench.watches.live, 1);
}

#[test]
fn a_watch_that_ends_a_turn_right_before_the_head_goes_on_with_it() {
    let mut bench = Bench::new();
    let live = bench.watches.open(1);
    bench.watch(live, &of(b"other")).unwrap();
    let many = limits::WATCH_EVENTS_PER_TURN as i64 + 1;
    for _ in 0..many {
        bench.put(b"key");
    }
    bench.settle();
    let stream = bench.watches.open(0);
    bench.watch(stream, &from(b"key", 2)).unwrap();
    bench.settle();
    bench.put(b"key");
    bench.settle();
    let told = bench.revisions(0).concat();
    assert_eq!(told, (2..2 + many + 1).collect::<Vec<_>>());
}

#[test]
fn a_stalled_watch_costs_no_memory_and_delays_nobody() {
    let mut bench = Bench::new();
    let (slow, fast) = (bench.watches.open(0), bench.watches.open(1));
    bench.watch(slow, &of(b"key")).unwrap();
    bench.watch(fast, &of(b"key")).unwrap();
    bench.ears.stalled.insert(0);
    let before = bench.watches.memory();
    for _ in 0..1_000 {
        bench.put(b"key");
        bench.settle();
    }
    assert_eq!(bench.watches.memory(), before);
    assert_eq!(bench.revisions(1).len(), 1_000);
    assert!(bench.revisions(0).is_empty());
    assert!(!bench.watches.has_work(), "nobody waits busily");
    bench.ears.stalled.clear();
    bench.watches.wake(slow);
    bench.settle();
    let told = bench.revisions(0).concat();
    assert_eq!(told, (2..1_002).collect::<Vec<_>>());
}

#[test]
fn a_watch_with_little_room_is_told_in_small_parts() {
    let mut bench = Bench::new();
    let stream = bench.watches.open(0);
    bench.watch(stream, &of(b"key")).unwrap();
    // A key and a value are eight bytes: a read ends with the third.
    bench.ears.room = Some(20);
    for _ in 0..50 {
        bench.put(b"key");
    }
    bench.settle();
    // Larger than the room, but of one revision.
    bench.store.write(&[
        (b"key", Some(b"a value of thirty bytes in all")),
        (b"other", None),
    ]);
    bench.settle();
    let told = bench.revisions(0);
    assert!(told.iter().all(|part| part.len() <= 3), "{told:?}");
    assert_eq!(told.concat(), (2..53).collect::<Vec<_>>());
    // Where there is room again, all is told at once.
    bench.ears.room = None;
    for _ in 0..50 {
        bench.put(b"key");
    }
    bench.settle();
    assert_eq!(bench.revisions(0), [(53..103).collect::<Vec<_>>()]);
}

#[test]
fn a_large_event_for_many_takes_several_turns() {
    const MANY: u32 = 20;
    let mut bench = Bench::new();
    let value = vec![7; limits::WATCH_BYTES_PER_TURN / 4];
    for owner in 0..MANY {
        let stream = bench.watches.open(owner);
        bench.watch(stream, &of(b"key")).unwrap();
    }
    // As if others had left no room.
    bench.ears.room = Some(1);
    bench.store.write(&[(b"key", Some(&value))]);
    let mut told = Vec::new();
    while told.len() < MANY as usize {
        bench.store.turn(&mut bench.watches, &mut bench.ears);
        let now: Vec<u32> = (0..MANY)
            .filter(|owner| bench.revisions(*owner) == [[2]])
            .collect();
        assert!((1..=4).contains(&now.len()), "{now:?}");
        told.extend(now);
    }
    told.sort_unstable();
    assert_eq!(told, (0..MANY).collect::<Vec<_>>());
    assert!(!bench.watches.has_work());
}

#[test]
fn a_purge_that_overtakes_the_head_takes_nothing_from_who_begins_behind_it() {
    let mut bench = Bench::new();
    let (early, late) = (bench.watches.open(0), bench.watches.open(1));
    bench.watch(early, &of(b"key")).unwrap();
    bench.watch(late, &from(b"key", 4)).unwrap();
    for _ in 2..=6 {
        bench.put(b"key");
    }
    bench.store.compact(4);
    bench.store.purge(100);
    bench.settle();
    assert_eq!(bench.ears.take(0), [Said::Compacted(0, 4)]);
    assert_eq!(bench.revisions(1).concat(), [4, 5, 6]);
}

#[test]
fn a_compaction_does_not_take_from_a_live_watch_what_is_not_purged() {
    let mut bench = Bench::new();
    let stream = bench.watches.open(0);
    bench.watch(stream, &of(b"key")).unwrap();
    bench.put(b"key");
    bench.put(b"key");
    bench.store.compact(3);
    bench.settle();
    assert_eq!(bench.revisions(0).concat(), [2, 3]);
    bench.put(b"key");
    bench.put(b"key");
    bench.store.compact(5);
    bench.store.purge(100);
    bench.settle();
    assert_eq!(bench.ears.take(0), [Said::Compacted(0, 5)]);
    assert!(bench.watches.is_empty());
    bench.watch(stream, &from(b"key", 4)).unwrap();
    bench.watch(stream, &from(b"key", 5)).unwrap();
    bench.settle();
    let said = bench.ears.take(0);
    assert_eq!(said[0], Said::Compacted(1, 5), "{said:?}");
    assert!(
        matches!(&said[1], Said::Events { watches, .. } if watches == &[2]),
        "{said:?}"
    );
}

#[test]
fn progress_is_told_to_quiet_watches_and_on_request() {
    let mut bench = Bench::new();
    let stream = bench.watches.open(0);
    let notify = |key, start_revision| WatchCreate {
        progress_notify: true,
        ..from(key, start_revision)
    };
    bench.watch(stream, &notify(b"a", 0)).unwrap();
    bench.watch(stream, &notify(b"b", 0)).unwrap();
    bench.watch(stream, &of(b"c")).unwrap();
    bench.put(b"a");
    bench.settle();
    bench.ears.take(0);
    let mut now = 2 * SECOND;
    bench.watches.tick(now, &mut bench.ears);
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![1], 2)]);
    bench.watches.tick(now, &mut bench.ears);
    assert_eq!(bench.ears.take(0), [], "not again so soon");
    now += 2 * SECOND;
    bench.watches.tick(now, &mut bench.ears);
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![0, 1], 2)]);

    bench.watches.ask_progress(stream);
    assert!(bench.watches.has_work());
    bench.settle();
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![], 2)]);

    // A watch that begins in the future holds the stream's progress back until then.
    bench.watch(stream, &notify(b"d", 3)).unwrap();
    bench.watches.ask_progress(stream);
    bench.settle();
    assert_eq!(bench.ears.take(0), []);
    now += 2 * SECOND;
    bench.watches.tick(now, &mut bench.ears);
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![0, 1], 2)]);
    bench.put(b"z");
    bench.watches.ask_progress(stream);
    bench.settle();
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![], 3)]);

    let other = bench.watches.open(1);
    bench.watches.ask_progress(other);
    bench.settle();
    assert_eq!(bench.ears.take(1), [], "a stream without watches has none");
}

#[test]
fn who_asks_for_progress_is_told_of_all_that_a_turn_has_met() {
    let mut bench = Bench::new();
    let stream = bench.watches.open(0);
    bench.watch(stream, &of(b"a")).unwrap();
    // More than a turn reads.
    let last = 1 + 2 * limits::WATCH_EVENTS_PER_TURN as i64;
    for _ in 1..last {
        bench.put(b"b");
    }
    bench.watches.ask_progress(stream);
    bench.store.turn(&mut bench.watches, &mut bench.ears);
    assert_eq!(bench.ears.take(0), [], "the client may know of the last");
    bench.settle();
    assert_eq!(bench.ears.take(0), [Said::Progress(vec![], last)]);
}

#[test]
fn the_pair_before_is_that_before_the_revision() {
    let mut bench = Bench::new();
    let stream = bench.watches.open(0);
    let create = WatchCreate {
        prev_kv: true,
        ..of(b"k")
    };
    bench.watch(stream, &create).unwrap();
    let (k, put) = (&b"k"[..], |value: &'static [u8]| Some(value));
    bench.store.write_unseen(&[(k, put(b"1"))]);
    bench.store.write_unseen(&[(k, put(b"2")), (k, None)]);
    // It makes the key, and deletes it.
    bench.store.write_unseen(&[(k, put(b"3")), (k, None)]);
    bench.store.write_unseen(&[(k, put(b"4"))]);
    bench
        .store
        .write_unseen(&[(k, None), (k, put(b"5")), (k, None), (k, put(b"6"))]);
    // From the past, and live.
    let past = bench.watches.open(1);
    let all = WatchCreate {
        prev_kv: true,
        ..from(b"k", 2)
    };
    bench.watch(past, &all).unwrap();
    bench.settle();
    let none: Option<&[u8]> = None;
    let expected = [
        (put(b"1"), none),
        (put(b"2"), put(b"1")),
        (none, put(b"1")),
        (put(b"3"), none),
        (none, none),
        (put(b"4"), none),
        (none, put(b"4")),
        (put(b"5"), none),
        (none, put(b"4")),
        (put(b"6"), none),
    ];
    for owner in [0, 1] {
        let mut told = Vec::new();
        for said in bench.ears.take(owner) {
            match said {
                Said::Events { events, .. } => told.extend(events),
                other => panic!("{other:?}"),
            }
        }
        let told: Vec<_> = told
            .iter()
            .map(|event| {
                let put = event.kind == EventKind::Put;
                let before = event.prev_kv.as_ref();
                (
                    put.then_some(&event.kv.value[..]),
                    before.map(|kv| &kv.value[..]),
                )
            })
            .collect();
        assert_eq!(told, expected, "stream {owner}");
    }
}
