//! Ranges that look at more than a turn may: sorted, filtered, counted. In slices they come to the
//! same as at once.

use super::*;
use crate::api::{Header, RangeResponse, RangeSummary, Response, SortOrder, SortTarget};
use crate::apply;
use crate::chance::Chance;
use crate::etcd::pb::{put_bytes, put_i64, put_u64};
use crate::etcd::{Method, encode_response};
use quoin_storage::mvcc::{Horizon, View};

/// Keys of the bench: some slices of them.
const KEYS: usize = 3_000;

fn key(n: usize) -> Vec<u8> {
    format!("k{n:06}").into_bytes()
}

impl Bench {
    /// Publishes one revision.
    fn write(&mut self, write: impl FnOnce(&mut dyn FnMut(&[u8], Option<&[u8]>))) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        let mut txn = self.writer.begin();
        let mut store = WriteTxn::begin(&mut txn, &mut meta);
        write(&mut |key, value| match value {
            Some(value) => drop(store.put(key, value, 0).unwrap()),
            None => drop(store.delete(key).unwrap()),
        });
        store.finish();
        txn.commit(&meta.encode());
    }

    /// A store with a history: keys that were written once or more, deleted, and made again.
    fn with_history() -> Bench {
        let mut bench = Bench::new();
        bench.write(|write| {
            for n in 0..KEYS {
                let value = format!("{:03}{}", n * 7919 % 101, "v".repeat(n % 200));
                write(&key(n), Some(value.as_bytes()));
            }
        });
        for round in 2..6 {
            bench.write(|write| {
                for n in (0..KEYS).step_by(round) {
                    let value = format!("{:02}", n * 31 % 97);
                    let lives = n % (5 * round) != 0;
                    write(&key(n), lives.then_some(value.as_bytes()));
                }
            });
        }
        bench
    }

    fn newest(&self) -> i64 {
        Meta::decode(self.writer.user()).unwrap().revision
    }

    /// What a range comes to if it is read at once.
    fn at_once(&self, range: &RangeRequest<'_>) -> RangeResponse {
        let snapshot = self.front.reader.pin();
        let view = View::new(&snapshot, Horizon::decode(snapshot.user()).unwrap());
        let mut response = RangeResponse::default();
        let RangeSummary { more, count } = apply::range(&view, range, &mut response).unwrap();
        (response.more, response.count) = (more, count);
        response
    }

    /// The same as the message of etcd's API that it is now.
    fn encoded(&self, range: &RangeRequest<'_>) -> Vec<u8> {
        let header = Header {
            cluster_id: 1,
            member_id: 2,
            revision: self.newest(),
            raft_term: 0,
        };
        let mut out = Vec::new();
        encode_response(&header, &Response::Range(self.at_once(range)), &mut out);
        out
    }

    /// What a native client is answered, and after how many turns; something is written between
    /// them.
    fn natively(
        &mut self,
        client: &mut Client,
        range: &RangeRequest<'_>,
    ) -> (RangeResponse, usize) {
        client
            .raw
            .request(&Request::Range(range.clone()), 1)
            .unwrap();
        client.send(self);
        let mut turns = 0;
        loop {
            let bytes = self.front.output(client.id).to_vec();
            self.front.wrote(client.id, bytes.len(), self.now_ns);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let space = client.raw.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                client.raw.received(count);
                rest = &rest[count..];
            }
            if let Some(reply) = client.raw.next_reply().unwrap() {
                let Some(Response::Range(response)) = reply.body.to_response() else {
                    panic!("{:?}", reply.body);
                };
                return (response, turns);
            }
            assert!(self.front.has_work(), "{range:?}");
            self.publish(b"k000700", b"later");
            self.front.resume(self.now_ns);
            turns += 1;
        }
    }

    /// The same over HTTP, as the bytes of the message; and after how many turns its first piece.
    fn over_http(&mut self, id: ConnectionId, range: &RangeRequest<'_>) -> (Vec<u8>, usize) {
        self.front.call(id, 1, Method::Range, &message(range), 0);
        let mut turns = 0;
        while !self.front.has_answers(id) {
            assert!(self.front.has_work(), "{range:?}");
            self.publish(b"k000700", b"later");
            self.front.resume(0);
            turns += 1;
        }
        let (bytes, ended) = self.take_long(id, |bench| bench.publish(b"k000800", b"later"));
        assert_eq!(ended, None);
        (bytes, turns)
    }
}

/// A range as a client of etcd asks for it.
fn message(range: &RangeRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, range.key);
    put_bytes(&mut out, 2, range.range_end);
    put_i64(&mut out, 3, range.limit);
    put_i64(&mut out, 4, range.revision);
    let order = match range.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    };
    let target = match range.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    };
    put_u64(&mut out, 5, order);
    put_u64(&mut out, 6, target);
    put_u64(&mut out, 8, u64::from(range.keys_only));
    put_u64(&mut out, 9, u64::from(range.count_only));
    put_i64(&mut out, 10, range.min_mod_revision);
    put_i64(&mut out, 11, range.max_mod_revision);
    put_i64(&mut out, 12, range.min_create_revision);
    put_i64(&mut out, 13, range.max_create_revision);
    out
}

fn one_of<T: Copy>(chance: &mut Chance, of: &[T]) -> T {
    of[chance.below(of.len() as u64) as usize]
}

fn any_range(chance: &mut Chance, newest: i64) -> RangeRequest<'static> {
    let filter = |chance: &mut Chance| match chance.one_in(5) {
        true => 1 + chance.below(newest as u64) as i64,
        false => 0,
    };
    RangeRequest {
        key: one_of(chance, &[&b"a"[..], b"k", b"k000500", b"k002900"]),
        range_end: one_of(chance, &[&b"\0"[..], b"l", b"k002000", b"k000400"]),
        limit: one_of(chance, &[0, 0, 1, 3, 700, 1024, 1500, 2999, 5000]),
        revision: match chance.one_in(2) {
            true => 0,
            false => 2 + chance.below(newest as u64 - 1) as i64,
        },
        sort_order: one_of(
            chance,
            &[SortOrder::None, SortOrder::Ascend, SortOrder::Descend],
        ),
        sort_target: one_of(
            chance,
            &[
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
                SortTarget::Value,
            ],
        ),
        serializable: false,
        keys_only: chance.one_in(4),
        count_only: chance.one_in(8),
        min_mod_revision: filter(chance),
        max_mod_revision: filter(chance),
        min_create_revision: filter(chance),
        max_create_revision: filter(chance),
    }
}

#[test]
fn in_slices_a_range_comes_to_the_same_as_at_once() {
    let mut bench = Bench::with_history();
    let mut chance = Chance::new(11);
    let mut native = bench.connect();
    let (grpc, gateway) = (bench.connect_http(), bench.front.connect_http(0).unwrap());
    let mut long = 0;
    for _ in 0..250 {
        let range = any_range(&mut chance, bench.newest());
        let expected = bench.at_once(&range);
        let (found, turns) = bench.natively(&mut native, &range);
        assert_eq!(found, expected, "{range:?}");
        long += usize::from(turns > 1);
        for id in [grpc, gateway] {
            let expected = bench.encoded(&range);
            let (found, _) = bench.over_http(id, &range);
            assert!(found == expected, "{range:?}");
        }
    }
    assert!(long > 50, "{long}");
    assert!(bench.front.is_quiet());
}

/// How many turns it takes to look at all keys of the bench.
const TURNS: usize = KEYS / limits::SLICE_ENTRIES / limits::LONG_SLICES_PER_TURN;

#[test]
fn what_looks_at_many_keys_takes_turns_however_short_its_answer() {
    let mut bench = Bench::with_history();
    let (first, last) = (2, bench.newest());
    // As many events as keys since the revisions that are counted.
    bench.write(|write| (0..KEYS).for_each(|n| write(&key(n), Some(b"w"))));
    let mut native = bench.connect();
    let (grpc, gateway) = (bench.connect_http(), bench.front.connect_http(0).unwrap());
    let all = RangeRequest {
        key: b"k",
        range_end: b"l",
        limit: 1,
        ..RangeRequest::default()
    };
    let ranges = [
        RangeRequest {
            sort_target: SortTarget::Mod,
            sort_order: SortOrder::Descend,
            ..all.clone()
        },
        RangeRequest {
            sort_target: SortTarget::Value,
            sort_order: SortOrder::Ascend,
            ..all.clone()
        },
        RangeRequest {
            min_create_revision: i64::MAX,
            ..all.clone()
        },
        RangeRequest {
            count_only: true,
            revision: first,
            ..all.clone()
        },
        RangeRequest {
            revision: last,
            ..all.clone()
        },
    ];
    for range in &ranges {
        let (response, turns) = bench.natively(&mut native, range);
        assert!(response.kvs.len() <= 1);
        assert!(turns >= TURNS, "{turns}: {range:?}");
        for id in [grpc, gateway] {
            let (_, turns) = bench.over_http(id, range);
            assert!(turns >= TURNS, "{turns}: {range:?}");
        }
    }
    // All of it is gathered in as many slices, sorted in as many, and given.
    let whole = RangeRequest {
        limit: 0,
        keys_only: true,
        ..ranges[0].clone()
    };
    let (response, turns) = bench.natively(&mut native, &whole);
    assert_eq!(response.kvs.len(), KEYS);
    assert!(turns > 2 * TURNS, "{turns}");
    // Many of them at once take no more of a turn.
    let count = 20;
    for id in 1..=count {
        let range = Request::Range(ranges[0].clone());
        native.raw.request(&range, id).unwrap();
    }
    native.send(&mut bench);
    let mut turns = 0;
    let mut answers = 0;
    while answers < count {
        answers += native.take(&mut bench).len() as u64;
        bench.front.resume(bench.now_ns);
        turns += 1;
    }
    assert!(turns >= TURNS * count as usize, "{turns}");
    assert!(bench.front.is_quiet());
}

#[test]
fn a_count_as_a_stream_is_one_message() {
    let mut bench = Bench::with_history();
    let id = bench.connect_http();
    bench.write(|write| (0..KEYS).for_each(|n| write(&key(n), Some(b"w"))));
    for revision in [0, 2, 4] {
        let range = RangeRequest {
            key: b"k",
            range_end: b"l",
            count_only: true,
            revision,
            ..RangeRequest::default()
        };
        let encoded = bench.encoded(&range);
        bench
            .front
            .call(id, 1, Method::RangeStream, &message(&range), 0);
        let (bytes, ended) = bench.take_long(id, |_| {});
        assert_eq!(ended, None);
        // Behind the prefix, the tag and the length of the partial answer.
        assert_eq!(bytes[5 + 2..], encoded[5..]);
        assert_eq!(usize::from(bytes[5 + 1]), encoded.len() - 5);
    }
}

#[test]
fn what_a_sort_holds_is_counted_and_given_back() {
    let mut bench = Bench::with_history();
    let range = RangeRequest {
        key: b"k",
        range_end: b"l",
        sort_target: SortTarget::Value,
        sort_order: SortOrder::Descend,
        ..RangeRequest::default()
    };
    let mut native = bench.connect();
    let grpc = bench.connect_http();
    for limit in [0, 10] {
        let range = RangeRequest {
            limit,
            ..range.clone()
        };
        let request = Request::Range(range.clone());
        native.raw.request(&request, 1).unwrap();
        native.send(&mut bench);
        bench
            .front
            .call(grpc, 1, Method::Range, &message(&range), 0);
        let held = bench.front.desk.long.drafted();
        match limit {
            0 => assert!(held > 2 * 1_000 * 40, "{held}"),
            _ => assert!((1..8_000).contains(&held), "{held}"),
        }
        // One is given up, the other taken.
        bench.front.end_call(grpc, 1);
        while native.take(&mut bench).is_empty() {
            bench.front.resume(bench.now_ns);
        }
        assert_eq!(bench.front.desk.long.drafted(), 0);
        assert!(bench.front.is_quiet());
    }
}

/// A compaction in the middle of an answer leaves it whole, and its purge waits; one that does
/// not wait ends it.
#[test]
fn the_purge_waits_for_what_is_read_in_slices() {
    let all = RangeRequest {
        key: b"k",
        range_end: b"l",
        ..RangeRequest::default()
    };
    let sorted = RangeRequest {
        sort_target: SortTarget::Value,
        ..all.clone()
    };
    let counted = RangeRequest {
        count_only: true,
        revision: 3,
        ..all.clone()
    };
    for range in [all, sorted, counted] {
        for (native, purges) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut bench = Bench::with_history();
            let mut client = bench.connect();
            let id = bench.connect_http();
            let (expected, encoded) = (bench.at_once(&range), bench.encoded(&range));
            let revision = match range.revision {
                0 => bench.newest(),
                revision => revision,
            };
            match native {
                true => {
                    let request = Request::Range(range.clone());
                    client.raw.request(&request, 1).unwrap();
                    client.send(&mut bench);
                }
                false => drop(bench.front.call(id, 1, Method::Range, &message(&range), 0)),
            }
            assert_eq!(bench.front.take_oldest_read(), Some(Some(revision)));
            for _ in 0..2 {
                bench.write(|write| (0..KEYS).for_each(|n| write(&key(n), None)));
                bench.write(|write| (0..KEYS).for_each(|n| write(&key(n), Some(b"x"))));
            }
            let newest = bench.newest();
            bench.compact_at(newest);
            bench.purge_up_to(if purges { i64::MAX } else { revision });
            let answer = match native {
                true => loop {
                    bench.front.resume(bench.now_ns);
                    let answers = client.take(&mut bench);
                    if let [(1, answer)] = &answers[..] {
                        break answer.clone();
                    }
                },
                false => match bench.take_long(id, |_| {}) {
                    (bytes, None) => {
                        assert!(bytes == encoded, "{range:?}");
                        "whole".to_owned()
                    }
                    (_, Some(status)) => status.message.into_owned(),
                },
            };
            let compacted = match native {
                true => format!("{:?}", Some(Error::Compacted)),
                false => "etcdserver: mvcc: required revision has been compacted".to_owned(),
            };
            let values = expected
                .kvs
                .iter()
                .map(|kv| String::from_utf8_lossy(&kv.value));
            let whole = match native {
                true => format!("range [{}]", values.collect::<Vec<_>>().join(",")),
                false => "whole".to_owned(),
            };
            let what = if purges { compacted } else { whole };
            assert!(answer == what, "{answer:.100} {native} {purges} {range:?}");
            assert_eq!(bench.front.take_oldest_read(), Some(None));
            assert!(bench.front.is_quiet());
        }
    }
}
