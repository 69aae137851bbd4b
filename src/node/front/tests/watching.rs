//! Watches over a front: their frames, their bounds, and what the order actor hears of them.

use super::{Bench, Client, MS};
use crate::api::{WatchCreate, WatchRequest, WatchResponse};
use crate::limits;
use crate::node::front::{Verdict, Watching};
use crate::node::messages::FrontInput;
use crate::wire;
use quoin_storage::mvcc::{self, Meta};

impl Bench {
    pub(super) fn show(&mut self) {
        self.front.step(FrontInput::Published, self.now_ns);
        for _ in 0..100 {
            self.front.show(self.now_ns);
        }
    }

    fn compact(&mut self, revision: i64) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        mvcc::compact(&mut meta, revision).unwrap();
        self.writer.begin().commit(&meta.encode());
    }
}

impl Client {
    fn ask(&mut self, request: &WatchRequest<'_>, stream: u64) {
        self.raw.watch(request, stream).unwrap();
    }

    fn watch(&mut self, bench: &mut Bench, key: &[u8], stream: u64) {
        let create = WatchCreate {
            key,
            ..WatchCreate::default()
        };
        self.ask(&WatchRequest::Create(create), stream);
        self.send(bench);
    }

    /// Takes what the server has for it: streams, header revisions, and what was said.
    fn hear(&mut self, bench: &mut Bench) -> Vec<(u64, i64, WatchResponse)> {
        let bytes = bench.front.output(self.id).to_vec();
        self.hear_some(bench, bytes.len())
    }

    /// The same, but only so many bytes.
    fn hear_some(&mut self, bench: &mut Bench, bytes: usize) -> Vec<(u64, i64, WatchResponse)> {
        let mut heard = Vec::new();
        let bytes = bench.front.output(self.id)[..bytes].to_vec();
        bench.front.wrote(self.id, bytes.len(), bench.now_ns);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = self.raw.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            self.raw.received(count);
            rest = &rest[count..];
            while let Some(reply) = self.raw.next_reply().unwrap() {
                let said = reply.body.to_watch().expect("watches only");
                heard.push((reply.id, reply.header.revision, said));
            }
        }
        heard
    }
}

fn created(stream: u64, revision: i64, watch_id: i64) -> (u64, i64, WatchResponse) {
    (stream, revision, WatchResponse::Created { watch_id })
}

#[test]
fn a_watch_is_created_told_and_cancelled() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.watch(&mut bench, b"key", 5);
    client.watch(&mut bench, b"key", 5);
    client.watch(&mut bench, b"key", 6);
    let heard = client.hear(&mut bench);
    assert_eq!(
        heard,
        [created(5, 1, 0), created(5, 1, 1), created(6, 1, 0)]
    );

    bench.publish(b"key", b"value");
    bench.publish(b"other", b"value");
    bench.show();
    let heard = client.hear(&mut bench);
    assert_eq!(heard.len(), 2, "one frame for each stream: {heard:?}");
    for (stream, revision, said) in heard {
        let WatchResponse::Events {
            watch_ids,
            events,
            fragment,
        } = said
        else {
            panic!("{said:?}")
        };
        assert_eq!((revision, events.len(), fragment), (2, 1, false));
        assert_eq!(events[0].kv.value, b"value");
        assert_eq!(watch_ids, if stream == 5 { vec![0, 1] } else { vec![0] });
    }

    client.ask(&WatchRequest::Cancel { watch_id: 1 }, 5);
    client.ask(&WatchRequest::Cancel { watch_id: 7 }, 5);
    client.ask(&WatchRequest::Progress, 5);
    client.ask(&WatchRequest::Close, 6);
    client.send(&mut bench);
    bench.show();
    let cancelled = WatchResponse::Cancelled {
        watch_id: 1,
        compact_revision: 0,
        reason: String::new(),
    };
    let progress = WatchResponse::Progress { watch_ids: vec![] };
    let expected = [
        (5, 3, cancelled),
        (6, 3, WatchResponse::Closed),
        (5, 3, progress),
    ];
    assert_eq!(client.hear(&mut bench), expected);
    assert_eq!(bench.front.counts().watches, 1, "one stream is closed");
    bench.publish(b"key", b"value");
    bench.show();
    let heard = client.hear(&mut bench);
    assert!(matches!(heard[..], [(5, 4, _)]), "{heard:?}");
}

#[test]
fn one_revision_at_a_time_is_timed_until_all_who_keep_up_are_told() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    bench.show();
    assert_eq!(bench.front.take_told_since(), None, "nobody watches");
    client.watch(&mut bench, b"key", 5);
    bench.later(10);
    bench.publish(b"key", b"1");
    bench.front.step(FrontInput::Published, bench.now_ns);
    assert_eq!(bench.front.take_told_since(), None, "it is not told yet");
    bench.later(10);
    bench.publish(b"key", b"2");
    bench.show();
    assert_eq!(bench.front.take_told_since(), Some(10 * MS));
    assert_eq!(bench.front.take_told_since(), None);
    bench.publish(b"other", b"3");
    bench.show();
    assert_eq!(bench.front.take_told_since(), Some(20 * MS));
}

#[test]
fn a_refused_watch_says_why_and_leaves_the_stream_usable() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let create = WatchCreate {
        key: b"b",
        range_end: b"a",
        ..WatchCreate::default()
    };
    client.ask(&WatchRequest::Create(create), 5);
    client.watch(&mut bench, b"key", 5);
    let reason = "mvcc: watcher range is empty".to_owned();
    let refused = (5, 1, WatchResponse::Refused { reason });
    assert_eq!(client.hear(&mut bench), [refused, created(5, 1, 0)]);
}

/// All connections of a front share its bounds.
#[test]
fn a_front_takes_on_so_many_watches_and_bytes_of_their_keys() {
    let few = |watches, key_bytes| crate::watch::Bounds { watches, key_bytes };
    for bounds in [few(2, 100), few(100, 6)] {
        let mut bench = Bench::bounded(bounds);
        let (mut a, mut b) = (bench.connect(), bench.connect());
        a.watch(&mut bench, b"one", 5);
        b.watch(&mut bench, b"two", 5);
        assert_eq!(a.hear(&mut bench), [created(5, 1, 0)]);
        assert_eq!(b.hear(&mut bench), [created(5, 1, 0)]);
        let reason = crate::api::Error::TooManyRequests.message().to_owned();
        let refused = [(5, 1, WatchResponse::Refused { reason })];
        for client in [&mut a, &mut b] {
            client.watch(&mut bench, b"six", 5);
            assert_eq!(client.hear(&mut bench), refused);
        }
        bench.front.disconnect(a.id);
        b.watch(&mut bench, b"six", 5);
        assert_eq!(b.hear(&mut bench), [created(5, 1, 1)]);
    }
}

#[test]
fn a_client_that_does_not_read_stops_its_watches_and_is_kept() {
    let mut bench = Bench::new();
    let (mut slow, mut fast) = (bench.connect(), bench.connect());
    slow.watch(&mut bench, b"key", 5);
    fast.watch(&mut bench, b"key", 5);
    slow.hear(&mut bench);
    fast.hear(&mut bench);
    let value = vec![7; 100 << 10];
    for _ in 0..20 {
        bench.publish(b"key", &value);
        bench.show();
        assert_eq!(fast.hear(&mut bench).len(), 1);
    }
    let waiting = bench.front.output(slow.id).len();
    assert!(
        waiting < limits::WATCH_OUTPUT_PER_CONNECTION + (101 << 10),
        "{waiting}"
    );
    for _ in 0..10 {
        bench.later(limits::STALLED_READER_DEADLINE_MS);
    }
    assert_eq!(bench.front.verdict(slow.id), Verdict::Open);
    let mut revisions = Vec::new();
    for _ in 0..20 {
        for (_, _, said) in slow.hear(&mut bench) {
            let WatchResponse::Events { events, .. } = said else {
                panic!("{said:?}")
            };
            revisions.extend(events.iter().map(|event| event.kv.mod_revision));
        }
        bench.show();
    }
    assert_eq!(revisions, (2..22).collect::<Vec<_>>());
}

#[test]
fn many_clients_that_do_not_read_share_what_one_may_leave() {
    const CLIENTS: usize = 200;
    const VALUE: usize = 10 << 10;
    let mut bench = Bench::new();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.watch(&mut bench, b"key", 5);
        client.hear(&mut bench);
    }
    let value = vec![7; VALUE];
    for _ in 0..100 {
        bench.publish(b"key", &value);
        bench.show();
    }
    let (_, bytes) = bench.front.waiting();
    // Each may have been told one revision beyond its share.
    let most = limits::WATCH_OUTPUT_SHARED + CLIENTS * (VALUE + 1000);
    assert!(bytes > most / 4 && bytes < most, "{bytes} of {most}");
    // Who takes what there is gets the rest, too.
    for client in &mut clients {
        let mut revisions = Vec::new();
        while revisions.len() < 100 {
            let before = revisions.len();
            for (_, _, said) in client.hear(&mut bench) {
                let WatchResponse::Events { events, .. } = said else {
                    panic!("{said:?}")
                };
                revisions.extend(events.iter().map(|event| event.kv.mod_revision));
            }
            assert!(
                revisions.len() > before,
                "after {before} events nothing more"
            );
            bench.show();
        }
        assert_eq!(revisions, (2..102).collect::<Vec<_>>());
    }
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn watches_that_a_full_front_has_held_back_go_on_when_it_is_not_full() {
    const VALUE: usize = 16 << 20;
    let mut bench = Bench::new();
    let full = limits::WATCH_OUTPUT_PER_FRONT / VALUE;
    let mut clients: Vec<Client> = (0..full + 3).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.watch(&mut bench, b"key", 5);
        client.hear(&mut bench);
    }
    bench.publish(b"key", &vec![7; VALUE]);
    for _ in 0..2 * clients.len() {
        bench.show();
    }
    let (told, held): (Vec<_>, Vec<_>) =
        (clients.into_iter()).partition(|client| !bench.front.output(client.id).is_empty());
    assert_eq!((told.len(), held.len()), (full, 3));
    for client in told {
        bench.front.disconnect(client.id);
    }
    bench.later(1);
    for mut client in held {
        bench.show();
        assert_eq!(client.hear(&mut bench).len(), 1);
    }
}

#[test]
fn a_client_that_stands_still_holds_what_it_is_owed_and_no_more() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.watch(&mut bench, b"key", 5);
    client.hear(&mut bench);
    let value = vec![7; 40 << 10];
    for _ in 0..3 {
        bench.publish(b"key", &value);
        bench.show();
    }
    // A part of it fits into the socket.
    assert_eq!(client.hear_some(&mut bench, 30 << 10), []);
    let rest = bench.front.output(client.id).to_vec();
    bench.later(2 * limits::DEADLINE_SCAN_MS);
    assert_eq!(bench.front.output(client.id), rest);
    assert_eq!(bench.front.waiting(), (0, rest.len()));
    let connection = &bench.front.connections[client.id.slot()];
    assert_eq!(connection.output.capacity(), rest.len());
    // It goes on where it was.
    let events = client.hear(&mut bench);
    assert_eq!(events.len(), 3, "{events:?}");
}

#[test]
fn a_connection_that_ends_takes_its_watches_along() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.watch(&mut bench, b"key", 5);
    let on = Watching { on: true, seen: 1 };
    assert_eq!(bench.front.take_watching(), Some(on));
    assert_eq!(bench.front.take_watching(), None);
    // A compaction that live watches have been told of may be purged, and the order actor hears
    // so once.
    bench.publish(b"key", b"value");
    bench.publish(b"key", b"value");
    bench.compact(3);
    bench.show();
    let seen = Watching { on: true, seen: 3 };
    assert_eq!(bench.front.take_watching(), Some(seen));
    assert_eq!(bench.front.take_watching(), None);
    bench.front.disconnect(client.id);
    let off = Watching { on: false, seen: 3 };
    assert_eq!(bench.front.take_watching(), Some(off));
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn quiet_watches_are_told_their_progress_in_time() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let create = WatchCreate {
        key: b"key",
        progress_notify: true,
        ..WatchCreate::default()
    };
    client.ask(&WatchRequest::Create(create), 5);
    client.send(&mut bench);
    client.hear(&mut bench);
    bench.publish(b"other", b"value");
    bench.show();
    bench.later(900);
    assert_eq!(client.hear(&mut bench), []);
    bench.later(250);
    let told = WatchResponse::Progress { watch_ids: vec![0] };
    assert_eq!(client.hear(&mut bench), [(5, 2, told)]);
    assert!(bench.now_ns < 2_000 * MS);
}

#[test]
fn events_too_large_for_one_frame_come_in_parts_if_that_is_allowed() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    for (fragment, watch_id) in [(false, 1), (true, 2)] {
        let create = WatchCreate {
            key: b"k",
            range_end: b"\0",
            fragment,
            watch_id,
            ..WatchCreate::default()
        };
        client.ask(&WatchRequest::Create(create), 5);
    }
    client.send(&mut bench);
    client.hear(&mut bench);
    let value = vec![1; 1 << 20];
    let mut meta = Meta::decode(bench.writer.user()).unwrap();
    let mut txn = bench.writer.begin();
    let mut write = mvcc::WriteTxn::begin(&mut txn, &mut meta);
    for key in [b"k1", b"k2", b"k3"] {
        write.put(key, &value, 0).unwrap();
    }
    write.finish();
    txn.commit(&meta.encode());
    bench.show();
    let mut parts = Vec::new();
    for _ in 0..3 {
        for (_, _, said) in client.hear(&mut bench) {
            let WatchResponse::Events {
                watch_ids,
                events,
                fragment,
            } = said
            else {
                panic!("{said:?}")
            };
            parts.push((watch_ids, events.len(), fragment));
        }
        bench.show();
    }
    parts.sort();
    let expected = [
        (vec![1], 3, false),
        (vec![2], 1, true),
        (vec![2], 1, true),
        (vec![2], 1, false),
    ];
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(parts, expected);
}

#[test]
fn a_malformed_watch_ends_the_connection() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.watch(&mut bench, b"key", 5);
    client.hear(&mut bench);
    let mut frame = Vec::new();
    wire::encode_watch(&WatchRequest::Progress, 5, &mut frame).unwrap();
    frame[4] = 1;
    frame.push(0);
    let crc = crc32fast::hash(&frame[4..]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
    bench.front.received(client.id, &frame, bench.now_ns);
    assert_eq!(bench.front.take_watching(), None, "no watch is left");
}
