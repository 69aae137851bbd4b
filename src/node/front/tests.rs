//! The front alone: bytes in, bytes and batches out, on a clock that the test moves.

mod calls;
mod long;
mod parts;
mod room;
mod watching;

use super::{ConnectionId, Front, FrontConfig, Notice, Verdict};
use crate::api::{
    DeleteRangeRequest, Error, LeaseCheckpointRequest, LeaseExpireRequest, LeaseGrantRequest,
    PutRequest, RangeRequest, Request, RequestOp, TxnRequest,
};
use crate::apply::validate::Limits;
use crate::client::raw::{Connection, Options};
use crate::limits;
use crate::node::messages::{FrontId, FrontInput, Outcome, ProposalBatch, Replies, Reply};
use crate::propose::command::{Batch, CommandKind};
use crate::propose::waiters::WaiterId;
use crate::watch::Bounds;
use crate::wire;
use proptest::prelude::*;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::mvcc::{Meta, WriteTxn};
use quoin_storage::tree::{self, TreeOptions, Writer};
use std::sync::Arc;

const MS: u64 = 1_000_000;

/// More than the writes of a test take that is not about the quota.
const QUOTA: usize = 4 << 20;

/// A front over an empty tree, and the tree's writer.
struct Bench {
    front: Front,
    writer: Writer,
    now_ns: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench::bounded(Bounds::default())
    }

    /// A front that takes on so many watches.
    fn bounded(watch_bounds: Bounds) -> Bench {
        let disk = Arc::new(SimDisk::new(1));
        let options = TreeOptions {
            reserve_bytes: 1 << 30,
            spare_bytes: 0,
            ..TreeOptions::default()
        };
        let (writer, shared) = tree::open(disk, "tree", options).unwrap();
        let config = FrontConfig {
            seed: 7,
            front: FrontId(0),
            cluster_id: 1,
            member_id: 2,
            boot: 3,
            limits: Limits::default(),
            quota_bytes: Some(QUOTA as u64),
            watch_bounds,
            watch_progress_ns: 1_000 * MS,
            version: "0",
            member: Arc::default(),
        };
        let mut front = Front::new(config, shared.reader().unwrap(), 0);
        front.step(FrontInput::LocalReads(true), 0);
        Bench {
            front,
            writer,
            now_ns: 0,
        }
    }

    /// Publishes one pair, as the order actor would.
    fn publish(&mut self, key: &[u8], value: &[u8]) {
        let mut meta = Meta::decode(self.writer.user()).unwrap();
        let mut txn = self.writer.begin();
        let mut write = WriteTxn::begin(&mut txn, &mut meta);
        write.put(key, value, 0).unwrap();
        write.finish();
        txn.commit(&meta.encode());
    }

    fn connect(&mut self) -> Client {
        Client {
            id: self.front.connect(self.now_ns).unwrap(),
            raw: Connection::new(Options::default()),
        }
    }

    fn later(&mut self, ms: u64) {
        self.now_ns += ms * MS;
        self.front.tick(self.now_ns);
    }

    fn batches(&mut self) -> Vec<ProposalBatch> {
        self.front.resume(self.now_ns);
        std::iter::from_fn(|| self.front.take_batch()).collect()
    }

    fn waiters(batches: &[ProposalBatch]) -> Vec<WaiterId> {
        batches
            .iter()
            .flat_map(|batch| {
                let batch = Batch::decode(&batch.bytes).unwrap();
                batch.commands().map(|c| WaiterId(c.waiter))
            })
            .collect()
    }

    /// Answers every put of the batches.
    fn answer(&mut self, batches: &[ProposalBatch]) {
        let replies = Bench::waiters(batches)
            .into_iter()
            .map(|waiter| Reply {
                waiter,
                outcome: Outcome::Put { revision: 2 },
            })
            .collect();
        self.reply(replies, 0);
    }

    /// Has the order actor say something.
    fn reply(&mut self, list: Vec<Reply>, answer_bytes: usize) {
        let replies = Replies { list, answer_bytes };
        self.front.step(FrontInput::Replies(replies), self.now_ns);
    }
}

/// A client without a socket.
struct Client {
    id: ConnectionId,
    raw: Connection,
}

impl Client {
    fn put(&mut self, key: &[u8], id: u64) {
        let put = PutRequest {
            key,
            value: b"value",
            ..PutRequest::default()
        };
        self.raw.request(&Request::Put(put), id).unwrap();
    }

    fn get(&mut self, key: &[u8], id: u64) {
        let range = RangeRequest {
            key,
            ..RangeRequest::default()
        };
        self.raw.request(&Request::Range(range), id).unwrap();
    }

    fn send(&mut self, bench: &mut Bench) {
        let bytes = self.raw.to_send().to_vec();
        bench.front.received(self.id, &bytes, bench.now_ns);
        self.raw.sent(bytes.len());
    }

    /// Takes what waits; the ids and kinds of the answers.
    fn take(&mut self, bench: &mut Bench) -> Vec<(u64, String)> {
        let bytes = bench.front.output(self.id).to_vec();
        bench.front.wrote(self.id, bytes.len(), bench.now_ns);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = self.raw.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            self.raw.received(count);
            rest = &rest[count..];
        }
        let mut answers = Vec::new();
        loop {
            match self.raw.next_reply() {
                Ok(Some(reply)) => answers.push((reply.id, describe(&reply.body))),
                Ok(None) => return answers,
                Err(fault) => {
                    answers.push((0, fault.to_string()));
                    return answers;
                }
            }
        }
    }
}

fn describe(reply: &wire::Reply<'_>) -> String {
    match reply {
        wire::Reply::Put { .. } => "put".to_owned(),
        wire::Reply::Range { kvs, .. } => {
            let values: Vec<_> = kvs
                .iter()
                .map(|kv| String::from_utf8_lossy(kv.value).into_owned())
                .collect();
            format!("range [{}]", values.join(","))
        }
        wire::Reply::Refused(refusal) => format!("{:?}", refusal.error()),
        other => format!("{other:?}"),
    }
}

#[test]
fn puts_of_a_turn_are_one_batch_and_answers_find_their_requests() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (bench.connect(), bench.connect());
    a.put(b"x", 11);
    a.put(b"y", 12);
    a.send(&mut bench);
    b.put(b"z", 21);
    b.send(&mut bench);
    let batches = bench.batches();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].count, 3);
    assert!(a.take(&mut bench).is_empty(), "nothing is acknowledged yet");
    bench.answer(&batches);
    let put = |id| (id, "put".to_owned());
    assert_eq!(a.take(&mut bench), [put(11), put(12)]);
    assert_eq!(b.take(&mut bench), [put(21)]);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn reads_see_what_is_published() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    bench.publish(b"key", b"one");
    client.get(b"key", 1);
    client.send(&mut bench);
    assert_eq!(client.take(&mut bench), [(1, "range [one]".to_owned())]);
    bench.publish(b"key", b"two");
    client.get(b"key", 2);
    client.get(b"none", 3);
    client.send(&mut bench);
    let expected = [(2, "range [two]".to_owned()), (3, "range []".to_owned())];
    assert_eq!(client.take(&mut bench), expected);
}

#[test]
fn reads_that_come_together_are_answered_as_if_each_came_alone() {
    let mut bench = Bench::new();
    let key = |n: u64| format!("key-{:03}", n * 37 % 400).into_bytes();
    for n in 0..300 {
        bench.publish(&key(n), format!("value {n}").as_bytes());
    }
    let mut client = bench.connect();
    let mut expected = Vec::new();
    for id in 1..200 {
        // Some of them are not there, some come twice, and some are not reads.
        let n = (id * id) % 330;
        match id % 11 {
            0 => {
                let range = RangeRequest {
                    key: &key(n),
                    range_end: b"\0",
                    count_only: true,
                    ..RangeRequest::default()
                };
                client.raw.request(&Request::Range(range), id).unwrap();
            }
            _ => client.get(&key(n), id),
        }
        let value = match (id % 11, n) {
            (1.., ..300) => format!("value {n}"),
            _ => String::new(),
        };
        expected.push((id, format!("range [{value}]")));
    }
    client.send(&mut bench);
    assert_eq!(client.take(&mut bench), expected);
    // What is damaged hides nothing that came before it.
    client.get(&key(1), 200);
    client.get(&key(2), 201);
    client.get(&key(3), 202);
    let mut bytes = client.raw.to_send().to_vec();
    client.raw.sent(bytes.len());
    *bytes.last_mut().unwrap() ^= 1;
    bench.front.received(client.id, &bytes, 0);
    let answers = client.take(&mut bench);
    assert_eq!(
        answers[..2],
        [
            (200, "range [value 1]".to_owned()),
            (201, "range [value 2]".to_owned())
        ]
    );
    assert_eq!(answers.len(), 3);
}

#[test]
fn reads_wait_for_their_barrier_unless_local() {
    let mut bench = Bench::new();
    bench.front.step(FrontInput::LocalReads(false), 0);
    let mut client = bench.connect();
    client.get(b"key", 1);
    client.send(&mut bench);
    assert!(client.take(&mut bench).is_empty());
    let first = bench.front.take_barrier().unwrap();
    assert_eq!(bench.front.take_barrier(), None);
    client.get(b"key", 2);
    client.send(&mut bench);
    let second = bench.front.take_barrier().unwrap();
    assert_ne!(first, second, "a token is used once");
    let ready = |token, ok| FrontInput::ReadReady { token, ok };
    bench.publish(b"key", b"value");
    bench.front.step(ready(second, true), 0);
    bench.front.step(ready(first, false), 0);
    bench.front.step(ready(first, true), 0);
    let expected = [
        (2, "range [value]".to_owned()),
        (1, format!("{:?}", Some(Error::LeaderChanged))),
    ];
    assert_eq!(client.take(&mut bench), expected);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn a_connection_with_too_much_in_flight_is_not_read_and_goes_on_later() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let count = limits::REQUESTS_PER_CONNECTION + 100;
    for id in 1..=count as u64 {
        client.put(b"key", id);
    }
    client.send(&mut bench);
    let mut taken = Vec::new();
    loop {
        let batches = bench.batches();
        if batches.is_empty() {
            break;
        }
        taken.extend(batches);
    }
    assert_eq!(bench.front.waiting().0, limits::REQUESTS_PER_CONNECTION);
    assert!(!bench.front.wants_input(client.id));
    bench.answer(&taken);
    assert_eq!(
        client.take(&mut bench).len(),
        limits::REQUESTS_PER_CONNECTION
    );
    let rest = bench.batches();
    bench.answer(&rest);
    assert_eq!(client.take(&mut bench).len(), 100);
    assert!(bench.front.wants_input(client.id));
}

#[test]
fn a_client_that_does_not_take_its_answers_is_paused_then_closed() {
    let mut bench = Bench::new();
    bench.publish(b"key", &vec![b'v'; 100_000]);
    let mut client = bench.connect();
    for id in 1..=100 {
        client.get(b"key", id);
    }
    client.send(&mut bench);
    let bound = limits::OUTPUT_BYTES_PER_CONNECTION + 100_000 + 1_000;
    for _ in 0..100 {
        bench.front.resume(bench.now_ns);
        assert!(bench.front.output(client.id).len() <= bound);
    }
    assert!(!bench.front.wants_input(client.id));
    let mut answers = 0;
    while answers < 100 {
        let taken = client.take(&mut bench).len();
        assert!(taken > 0, "{answers} answers");
        answers += taken;
        bench.front.resume(bench.now_ns);
    }
    client.get(b"key", 101);
    client.send(&mut bench);
    bench.later(limits::STALLED_READER_DEADLINE_MS - 1_000);
    assert_eq!(bench.front.verdict(client.id), Verdict::Open);
    bench.later(2_000);
    assert_eq!(bench.front.verdict(client.id), Verdict::Over);
    bench.front.disconnect(client.id);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn over_the_quota_writes_that_add_are_refused_and_others_served() {
    let mut bench = Bench::new();
    bench.publish(b"key", &vec![b'v'; QUOTA]);
    bench.later(1);
    let mut client = bench.connect();
    client.put(b"key", 1);
    client.get(b"none", 2);
    let delete = DeleteRangeRequest {
        key: b"key",
        ..DeleteRangeRequest::default()
    };
    let txn = |op| TxnRequest {
        failure: vec![op],
        ..TxnRequest::default()
    };
    let adds = txn(RequestOp::Txn(txn(RequestOp::Put(PutRequest {
        key: b"key",
        ..PutRequest::default()
    }))));
    let removes = txn(RequestOp::DeleteRange(delete.clone()));
    client
        .raw
        .request(&Request::DeleteRange(delete), 3)
        .unwrap();
    client.raw.request(&Request::Txn(adds), 4).unwrap();
    client.raw.request(&Request::Txn(removes), 5).unwrap();
    client.send(&mut bench);
    let no_space = format!("{:?}", Some(Error::NoSpace));
    let expected = [
        (1, no_space.clone()),
        (2, "range []".to_owned()),
        (4, no_space),
    ];
    assert_eq!(client.take(&mut bench), expected);
    // The first refusal has the alarm raised; the second leaves it at that.
    let batches = bench.batches();
    let batch = Batch::decode(&batches[0].bytes).unwrap();
    let kinds: Vec<_> = batch.commands().map(|command| command.kind).collect();
    let (alarm, delete) = (CommandKind::Alarm, CommandKind::DeleteRange);
    assert_eq!(kinds, [alarm, delete, CommandKind::Txn]);
    client.put(b"key", 6);
    client.send(&mut bench);
    assert!(bench.batches().is_empty());
    bench.later(limits::ALARM_RETRY_MS);
    client.put(b"key", 7);
    client.send(&mut bench);
    assert_eq!(bench.batches()[0].count, 1, "asked for again");
}

#[test]
fn what_a_grant_leaves_open_is_settled_before_the_log() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    for (number, (ttl, id)) in [(0, 0), (60, 0), (1, -7)].into_iter().enumerate() {
        let grant = Request::LeaseGrant(LeaseGrantRequest { ttl, id });
        client.raw.request(&grant, number as u64 + 1).unwrap();
    }
    client.send(&mut bench);
    let batches = bench.batches();
    let batch = Batch::decode(&batches[0].bytes).unwrap();
    let settled: Vec<_> = batch
        .commands()
        .map(
            |command| match wire::decode_request(wire::Kind::LeaseGrant, command.body) {
                Ok(Request::LeaseGrant(grant)) => grant,
                other => panic!("{other:?}"),
            },
        )
        .collect();
    assert_eq!((settled[0].ttl, settled[1].ttl), (2, 60));
    assert!(settled[0].id > 0 && settled[1].id > 0 && settled[0].id != settled[1].id);
    assert_eq!(settled[2], LeaseGrantRequest { ttl: 2, id: -7 });
}

#[test]
fn what_members_alone_may_propose_is_refused_from_a_client() {
    let mut bench = Bench::new();
    for request in [
        Request::LeaseExpire(LeaseExpireRequest::default()),
        Request::LeaseCheckpoint(LeaseCheckpointRequest::default()),
    ] {
        let mut client = bench.connect();
        client.raw.request(&request, 1).unwrap();
        client.send(&mut bench);
        assert!(bench.batches().is_empty());
        let number = wire::request_kind(&request).number();
        let told = [Notice::Malformed(wire::Malformed::UnknownKind(number))];
        assert_eq!(bench.front.take_notices(), told);
    }
}

#[test]
fn a_request_that_waits_too_long_is_answered_and_its_late_outcome_dropped() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.put(b"key", 1);
    client.send(&mut bench);
    let batches = bench.batches();
    bench.later(limits::REQUEST_DEADLINE_MS - 100);
    assert!(client.take(&mut bench).is_empty());
    bench.later(200);
    let expected = [(1, format!("{:?}", Some(Error::Timeout)))];
    assert_eq!(client.take(&mut bench), expected);
    client.put(b"key", 2);
    client.send(&mut bench);
    bench.answer(&batches);
    assert!(client.take(&mut bench).is_empty(), "it answers nobody else");
}

#[test]
fn how_long_a_write_has_waited_is_known_until_it_is_answered() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.put(b"a", 1);
    client.send(&mut bench);
    bench.later(30);
    client.put(b"b", 2);
    client.send(&mut bench);
    let replies: Vec<Reply> = Bench::waiters(&bench.batches())
        .into_iter()
        .map(|waiter| Reply {
            waiter,
            outcome: Outcome::Put { revision: 2 },
        })
        .collect();
    bench.later(50);
    let waited = |bench: &Bench, replies| bench.front.has_waited_ns(replies, bench.now_ns);
    assert_eq!(waited(&bench, &replies), Some(80 * MS));
    assert_eq!(waited(&bench, &replies[1..]), Some(50 * MS));
    assert_eq!(waited(&bench, &[]), None);
    bench.later(limits::REQUEST_DEADLINE_MS);
    assert_eq!(waited(&bench, &replies), None, "it has given up");
}

#[test]
fn deadlines_end_the_unfinished_and_not_the_idle() {
    let mut bench = Bench::new();
    let (silent, mut idle, mut partial) = (bench.connect(), bench.connect(), bench.connect());
    idle.put(b"key", 1);
    idle.send(&mut bench);
    let batches = bench.batches();
    bench.answer(&batches);
    idle.take(&mut bench);
    partial.put(b"key", 1);
    let bytes = partial.raw.to_send().to_vec();
    bench
        .front
        .received(partial.id, &bytes[..bytes.len() - 1], bench.now_ns);
    partial.take(&mut bench);
    bench.later(limits::PREAMBLE_DEADLINE_MS + 1_000);
    assert_eq!(bench.front.verdict(silent.id), Verdict::Over);
    assert_eq!(bench.front.verdict(partial.id), Verdict::Open);
    bench.later(limits::FRAME_DEADLINE_MS);
    assert_eq!(bench.front.verdict(partial.id), Verdict::Over);
    bench.later(1_000_000);
    assert_eq!(bench.front.verdict(idle.id), Verdict::Open);
    let slow = |notice: &Notice| matches!(notice, Notice::TooSlow(_));
    assert_eq!(
        bench
            .front
            .take_notices()
            .iter()
            .filter(|n| slow(n))
            .count(),
        2
    );
}

#[test]
fn bytes_that_no_rule_allows_are_answered_and_end_the_connection() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.put(b"key", 1);
    let mut bytes = client.raw.to_send().to_vec();
    let good = bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes.splice(0..0, good.iter().copied());
    bytes.drain(good.len()..good.len() + wire::CLIENT_PREAMBLE_BYTES);
    // One good put, then a bad one, then more that is not looked at.
    bytes.extend_from_slice(&good[wire::CLIENT_PREAMBLE_BYTES..]);
    bench.front.received(client.id, &bytes, bench.now_ns);
    client.raw.sent(good.len());
    let batches = bench.batches();
    assert_eq!(Bench::waiters(&batches).len(), 1);
    assert_eq!(bench.front.verdict(client.id), Verdict::Open, "one waits");
    bench.answer(&batches);
    let answers = client.take(&mut bench);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].1.contains("checksum"), "{answers:?}");
    assert_eq!(bench.front.verdict(client.id), Verdict::Finish);
    bench.front.input_over(client.id);
    assert_eq!(bench.front.verdict(client.id), Verdict::Over);
}

#[test]
fn a_stop_answers_what_waits_and_serves_nothing_new() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.put(b"key", 1);
    client.send(&mut bench);
    let batches = bench.batches();
    bench.front.stop(bench.now_ns);
    assert!(!bench.front.is_quiet());
    client.put(b"key", 2);
    client.send(&mut bench);
    assert!(bench.batches().is_empty());
    bench.answer(&batches);
    assert_eq!(client.take(&mut bench), [(1, "put".to_owned())]);
    assert!(bench.front.is_quiet());
    assert_eq!(bench.front.verdict(client.id), Verdict::Finish);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the network cuts a stream into pieces, the same is served.
    #[test]
    fn pieces_make_no_difference(
        cuts in proptest::collection::vec(1_usize..400, 1..200),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let stream = || {
            let mut raw = Connection::new(Options::default());
            for id in 1..=30 {
                let value = vec![b'v'; (id as usize * 37) % 900];
                let put = PutRequest { key: b"key", value: &value, ..PutRequest::default() };
                raw.request(&Request::Put(put), id).unwrap();
                raw.ping(1_000 + id);
            }
            let mut bytes = raw.to_send().to_vec();
            for (at, xor) in &noise {
                let at = at.index(bytes.len());
                bytes[at] ^= xor;
            }
            bytes
        };
        let serve = |pieces: Vec<Vec<u8>>| {
            let mut bench = Bench::new();
            let id = bench.front.connect(0).unwrap();
            for piece in pieces {
                bench.front.received(id, &piece, 0);
            }
            let batches = bench.batches();
            let bodies: Vec<Vec<u8>> = batches
                .iter()
                .flat_map(|batch| {
                    let batch = Batch::decode(&batch.bytes).unwrap();
                    batch.commands().map(|c| c.body.to_vec()).collect::<Vec<_>>()
                })
                .collect();
            (bodies, bench.front.output(id).to_vec(), bench.front.verdict(id))
        };
        let bytes = stream();
        let whole = serve(vec![bytes.clone()]);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = more;
        }
        prop_assert_eq!(whole, serve(pieces));
    }
}
