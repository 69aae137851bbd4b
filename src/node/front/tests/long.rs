//! Answers in pieces: as large as they like, and never more of them at the front than a piece.

use super::super::{Answer, Answers};
use super::*;
use crate::etcd::pb::{Fields, Value};
use crate::etcd::{Code, Method, Status};
use quoin_storage::mvcc;
use quoin_storage::snapshot::SnapshotReader;

/// Every key from `a` on.
const ALL: &[u8] = b"\x0a\x01a\x12\x01\0";

/// Pairs of the bench, and the bytes of a value.
const PAIRS: usize = 3_000;
const VALUE: usize = 500;

impl Bench {
    /// Publishes many pairs in one revision.
    fn publish_many(&mut self, value: u8) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        let mut txn = self.writer.begin();
        let mut write = WriteTxn::begin(&mut txn, &mut meta);
        for n in 0..PAIRS {
            let value = vec![value; VALUE];
            write.put(format!("k{n:06}").as_bytes(), &value, 0).unwrap();
        }
        write.finish();
        txn.commit(&meta.encode());
    }

    pub(super) fn compact_at(&mut self, revision: i64) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        let txn = self.writer.begin();
        mvcc::compact(&mut meta, revision).unwrap();
        txn.commit(&meta.encode());
    }

    /// Purges until changes before a revision have had their turn.
    pub(super) fn purge_up_to(&mut self, revision: i64) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        while meta.purge_pending() && meta.horizon().kept < revision {
            let mut txn = self.writer.begin();
            // All changes of a revision, and none of the next.
            mvcc::compact_step(&mut txn, &mut meta, PAIRS).unwrap();
            txn.commit(&meta.encode());
        }
    }

    /// What there is, taken and sent.
    fn pieces(&mut self, id: ConnectionId) -> Vec<(Answer, Vec<u8>)> {
        let mut answers = Answers::default();
        self.front.take_answers(id, &mut answers);
        self.front.wrote(id, answers.bytes.len(), self.now_ns);
        let pieces = answers.into_messages();
        pieces
            .map(|(answer, bytes)| (answer, bytes.to_vec()))
            .collect()
    }

    /// Takes an answer to its end, with something done between the pieces: its bytes, and how it
    /// ended.
    pub(super) fn take_long(
        &mut self,
        id: ConnectionId,
        mut between: impl FnMut(&mut Bench),
    ) -> (Vec<u8>, Option<Status>) {
        let mut all = Vec::new();
        for _ in 0..10_000 {
            self.front.resume(self.now_ns);
            for (answer, bytes) in self.pieces(id) {
                // One pair more than a piece may have, and what stands around.
                assert!(bytes.len() < limits::PIECE_BYTES + VALUE + 200);
                all.extend(bytes);
                if !answer.more {
                    assert_eq!(self.front.waiting(), (0, 0));
                    return (all, answer.refused);
                }
                between(self);
                self.front.feed(id, answer.stream, self.now_ns);
            }
        }
        panic!("it never ends");
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        all.push(bytes[5..5 + length].to_vec());
        bytes = &bytes[5 + length..];
    }
    all
}

/// Pairs, whether there is a header, and the count.
fn read_range(message: &[u8]) -> (Vec<Vec<u8>>, bool, i64) {
    let (mut pairs, mut header, mut count) = (Vec::new(), false, 0);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field().unwrap() {
        match (number, value) {
            (1, Value::Bytes(_)) => header = true,
            (2, Value::Bytes(pair)) => pairs.push(pair.to_vec()),
            (4, Value::Varint(number)) => count = number as i64,
            (3, Value::Varint(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    (pairs, header, count)
}

fn unwrapped(message: &[u8]) -> &[u8] {
    match Fields::of(message).field().unwrap() {
        Some((1, Value::Bytes(inner))) => inner,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_answer_is_of_one_revision_however_slowly_it_is_taken() {
    let mut bench = Bench::new();
    bench.publish_many(b'1');
    let id = bench.connect_http();
    bench.front.call(id, 1, Method::Range, ALL, 0);
    let (bytes, ended) = bench.take_long(id, |bench| bench.publish_many(b'2'));
    assert_eq!(ended, None);
    let all = messages(&bytes);
    assert_eq!(all.len(), 1);
    let (pairs, header, count) = read_range(&all[0]);
    assert!(header);
    assert_eq!((pairs.len(), count), (PAIRS, PAIRS as i64));
    assert!(pairs.iter().all(|pair| pair.ends_with(&[b'1'; VALUE])));

    // The same as a stream, of what is published by now.
    bench.front.call(id, 2, Method::RangeStream, ALL, 0);
    let (bytes, ended) = bench.take_long(id, |bench| bench.publish_many(b'3'));
    assert_eq!(ended, None);
    let all = messages(&bytes);
    let read: Vec<_> = all.iter().map(|all| read_range(unwrapped(all))).collect();
    let found: usize = read.iter().map(|(pairs, ..)| pairs.len()).sum();
    assert_eq!(found, PAIRS);
    let (last, full) = all.split_last().unwrap();
    let piece = limits::PIECE_BYTES..limits::PIECE_BYTES + VALUE + 200;
    assert!(full.len() > 5 && full.iter().all(|message| piece.contains(&message.len())));
    assert!(last.len() < piece.end);
    for (at, (pairs, header, count)) in read.iter().enumerate() {
        let last = at + 1 == read.len();
        assert_eq!((*header, *count > 0), (last, last));
        assert!(pairs.iter().all(|pair| pair.ends_with(&[b'2'; VALUE])));
    }
    assert_eq!(read.last().unwrap().2, PAIRS as i64);
}

#[test]
fn a_limit_ends_a_stream_with_the_whole_count() {
    let mut bench = Bench::new();
    bench.publish_many(b'1');
    let id = bench.connect_http();
    for limit in [1, 10, 127, 1000, PAIRS - 1] {
        let field = [0x18, limit as u8 | 0x80, (limit >> 7) as u8];
        let request = [ALL, &field].concat();
        bench.front.call(id, 1, Method::RangeStream, &request, 0);
        let (bytes, ended) = bench.take_long(id, |_| {});
        assert_eq!(ended, None);
        let all = messages(&bytes);
        let read: Vec<_> = all.iter().map(|all| read_range(unwrapped(all))).collect();
        let found: usize = read.iter().map(|(pairs, ..)| pairs.len()).sum();
        assert_eq!(found, limit);
        assert_eq!(read.last().unwrap().2, PAIRS as i64, "limit {limit}");
    }
}

#[test]
fn a_compaction_alone_ends_no_long_answer_and_its_purge_does() {
    let mut bench = Bench::new();
    bench.publish_many(b'0');
    // Something that the purge removes, on both sides of what is read.
    bench.publish_many(b'1');
    bench.publish_many(b'2');
    let id = bench.connect_http();
    for (n, method) in [(0, Method::Range), (1, Method::RangeStream)] {
        let revision = Meta::decode(bench.writer.user()).unwrap().revision;
        bench.front.call(id, 1, method, ALL, 0);
        assert_eq!(bench.front.take_oldest_read(), Some(Some(revision)));
        assert_eq!(bench.front.take_oldest_read(), None);
        let mut done = false;
        let (bytes, ended) = bench.take_long(id, |bench| {
            if !std::mem::replace(&mut done, true) {
                bench.publish_many(b'3' + n);
                let newest = Meta::decode(bench.writer.user()).unwrap().revision;
                bench.compact_at(newest);
                // As far as it takes nothing that is needed.
                bench.purge_up_to(revision);
            }
        });
        assert_eq!(ended, None);
        let all = messages(&bytes);
        let pairs: Vec<Vec<u8>> = match method {
            Method::Range => read_range(&all[0]).0,
            _ => all
                .iter()
                .flat_map(|all| read_range(unwrapped(all)).0)
                .collect(),
        };
        assert_eq!(pairs.len(), PAIRS);
        let value = [b'2' + n; 9];
        assert!(pairs.iter().all(|pair| pair.ends_with(&value)));
        assert_eq!(bench.front.take_oldest_read(), Some(None));
        bench.purge_up_to(i64::MAX);
    }
    for method in [Method::Range, Method::RangeStream] {
        bench.front.call(id, 1, method, ALL, 0);
        let mut done = false;
        let (_, ended) = bench.take_long(id, |bench| {
            if !std::mem::replace(&mut done, true) {
                bench.publish_many(b'9');
                let newest = Meta::decode(bench.writer.user()).unwrap().revision;
                bench.compact_at(newest);
                bench.purge_up_to(i64::MAX);
            }
        });
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(ended, Some(Status::new(Code::OutOfRange, compacted)));
    }
}

/// Asks for every pair over the native protocol.
fn ask_all(client: &mut Client, id: u64) {
    let range = RangeRequest {
        key: b"k",
        range_end: b"l",
        ..RangeRequest::default()
    };
    client.raw.request(&Request::Range(range), id).unwrap();
}

/// The answer to [`ask_all`] if all values are made of one byte.
fn all_of(value: u8) -> String {
    let value = String::from_utf8(vec![value; VALUE]).unwrap();
    format!("range [{}]", vec![value; PAIRS].join(","))
}

#[test]
fn a_native_range_takes_turns_and_is_of_one_revision() {
    let mut bench = Bench::new();
    bench.publish_many(b'7');
    let (mut reader, mut other) = (bench.connect(), bench.connect());
    ask_all(&mut reader, 1);
    reader.send(&mut bench);
    let mut turns = 0;
    while bench.front.output(reader.id).len() < 1000 {
        // Others are served meanwhile, and see what is new.
        bench.publish_many(b'8');
        other.get(b"k000000", 2);
        other.send(&mut bench);
        let answers = other.take(&mut bench);
        assert_eq!(answers, [(2, format!("range [{}]", "8".repeat(VALUE)))]);
        assert!(bench.front.has_work());
        bench.front.resume(bench.now_ns);
        turns += 1;
    }
    let slices = PAIRS * VALUE / limits::PIECE_BYTES;
    assert!(turns >= slices / limits::LONG_SLICES_PER_TURN, "{turns}");
    assert_eq!(reader.take(&mut bench), [(1, all_of(b'7'))]);
    assert_eq!(bench.front.waiting(), (0, 0));
    assert!(bench.front.is_quiet());
}

#[test]
fn native_ranges_are_answered_a_few_at_a_time_and_all() {
    let mut bench = Bench::new();
    bench.publish_many(b'7');
    let mut reader = bench.connect();
    let count = 3 * limits::DRAFTS_PER_CONNECTION as u64;
    (1..=count).for_each(|id| ask_all(&mut reader, id));
    reader.send(&mut bench);
    assert!(!bench.front.wants_input(reader.id), "it has enough");
    let mut answers = Vec::new();
    for _ in 0..1000 {
        bench.front.resume(bench.now_ns);
        let drafted = bench.front.desk.long.drafted();
        let most = limits::DRAFTS_PER_CONNECTION * PAIRS * (VALUE + 100);
        assert!(drafted < most, "{drafted}");
        answers.extend(reader.take(&mut bench));
    }
    answers.sort();
    assert_eq!(
        answers,
        (1..=count).map(|id| (id, all_of(b'7'))).collect::<Vec<_>>()
    );
    assert!(bench.front.wants_input(reader.id));
    assert!(bench.front.is_quiet());
}

#[test]
fn a_native_range_ends_with_its_connection_or_its_revision() {
    let mut bench = Bench::new();
    bench.publish_many(b'7');
    bench.publish(b"k", b"v");
    let (mut gone, mut late) = (bench.connect(), bench.connect());
    for client in [&mut gone, &mut late] {
        ask_all(client, 1);
        client.send(&mut bench);
    }
    bench.front.resume(bench.now_ns);
    assert!(bench.front.desk.long.drafted() > limits::PIECE_BYTES);
    bench.front.disconnect(gone.id);
    bench.publish(b"k", b"v");
    bench.compact_at(4);
    bench.purge_up_to(i64::MAX);
    bench.front.resume(bench.now_ns);
    let compacted = format!("{:?}", Some(crate::api::Error::Compacted));
    assert_eq!(late.take(&mut bench), [(1, compacted)]);
    assert_eq!(bench.front.desk.long.drafted(), 0);
    assert!(bench.front.is_quiet());
}

#[test]
fn who_gives_up_a_long_answer_is_charged_no_more() {
    let mut bench = Bench::new();
    bench.publish_many(b'1');
    let id = bench.connect_http();
    bench.front.call(id, 1, Method::Range, ALL, 0);
    bench.front.call(id, 2, Method::RangeStream, ALL, 0);
    bench.front.resume(0);
    bench.pieces(id);
    assert!(!bench.front.is_quiet());
    bench.front.end_call(id, 1);
    bench.front.end_call(id, 2);
    bench.front.feed(id, 1, 0);
    bench.front.resume(0);
    assert!(bench.pieces(id).is_empty());
    assert!(bench.front.is_quiet());

    // The same when the whole connection goes.
    bench.front.call(id, 3, Method::Range, ALL, 0);
    bench.front.disconnect(id);
    bench.front.resume(0);
    assert!(bench.front.is_quiet());
}

#[test]
fn a_snapshot_waits_until_the_purge_is_held_and_lets_it_go() {
    let mut bench = Bench::new();
    bench.publish_many(b'1');
    let id = bench.connect_http();
    assert_eq!(bench.front.take_hold(), None);
    bench.front.call(id, 1, Method::Snapshot, b"", 0);
    bench.front.resume(0);
    assert!(bench.pieces(id).is_empty());
    assert_eq!(bench.front.take_hold(), Some(true));
    assert_eq!(bench.front.take_hold(), None);
    bench.front.step(FrontInput::PurgeHeld, 0);
    // What is written meanwhile is not in it.
    let (bytes, ended) = bench.take_long(id, |bench| bench.publish_many(b'2'));
    assert_eq!(ended, None);
    let parts = messages(&bytes);
    let blobs: Vec<&[u8]> = parts
        .iter()
        .map(|part| {
            let mut fields = Fields::of(part);
            loop {
                match fields.field().unwrap() {
                    Some((3, Value::Bytes(blob))) => break blob,
                    Some(_) => {}
                    None => panic!("no blob"),
                }
            }
        })
        .collect();
    let (sum, rest) = blobs.split_last().unwrap();
    assert_eq!(sum.len(), 32);
    let file = rest.concat();
    let mut reader = SnapshotReader::open(&file[..]).unwrap();
    let mut events = 0;
    while reader.next_record().unwrap().is_some() {
        events += 1;
    }
    assert_eq!((events, reader.header().revision), (PAIRS, 2));
    assert_eq!(bench.front.take_hold(), Some(false));

    // One that is given up lets it go, too.
    bench.front.call(id, 2, Method::Snapshot, b"", 0);
    assert_eq!(bench.front.take_hold(), Some(true));
    bench.front.end_call(id, 2);
    assert_eq!(bench.front.take_hold(), Some(false));
    bench.front.step(FrontInput::PurgeHeld, 0);
    bench.front.resume(0);
    assert!(bench.front.is_quiet());
}

#[test]
fn a_hash_takes_turns_and_begins_anew_after_a_compaction() {
    let mut bench = Bench::new();
    bench.publish_many(b'1');
    let id = bench.connect_http();
    let hash = |bench: &mut Bench, compacts: bool| {
        bench.front.call(id, 1, Method::HashKv, b"", 0);
        bench.front.resume(0);
        assert!(bench.pieces(id).is_empty(), "it takes several turns");
        if compacts {
            bench.compact_at(2);
        }
        let (bytes, ended) = bench.take_long(id, |_| {});
        assert_eq!(ended, None);
        messages(&bytes).remove(0)
    };
    let before = hash(&mut bench, false);
    let across = hash(&mut bench, true);
    assert_ne!(across, before);
    assert_eq!(hash(&mut bench, false), across);
}

#[test]
fn who_watches_health_is_told_when_it_changes() {
    let mut bench = Bench::new();
    let id = bench.connect_http();
    bench.front.call(id, 1, Method::HealthWatch, b"", 0);
    bench
        .front
        .call(id, 2, Method::HealthWatch, b"\x0a\x01x", 0);
    let told = |bench: &mut Bench| -> Vec<(u64, u8)> {
        let pieces = bench.pieces(id);
        let last = |bytes: &[u8]| *bytes.last().unwrap();
        pieces
            .iter()
            .map(|(answer, bytes)| (answer.stream, last(bytes)))
            .collect()
    };
    assert_eq!(told(&mut bench), [(1, 2), (2, 3)]);
    let term = |has_leader| FrontInput::Term {
        term: 2,
        has_leader,
    };
    bench.front.step(term(true), 0);
    bench.front.step(term(true), 0);
    assert_eq!(told(&mut bench), [(1, 1)]);
    bench.front.end_call(id, 1);
    bench.front.step(term(false), 0);
    assert!(told(&mut bench).is_empty());
}
