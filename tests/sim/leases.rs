//! Leases on a whole node: ended on time and in one revision, over restarts.

use super::node::{Node, Settings};
use super::rules::settings;
use quoin::api::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest, Request};
use quoin::limits;
use quoin::node::messages::{
    FrontId, FrontInput, LeaseAsks, LeaseTimeAsk, OrderInput, OrderOutput, Outcome, ProposalBatch,
};
use quoin::propose::command::{BatchBuilder, CommandKind};
use quoin::propose::waiters::WaiterId;
use quoin::wire;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::mvcc::{Horizon, View};
use quoin_storage::tree::Interval;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

/// A node, one front, and a clock.
pub struct Bench {
    pub disk: SimDisk,
    settings: fn(u64) -> Settings,
    pub node: Node,
    boot: u64,
    builder: BatchBuilder,
    pub now_ns: u64,
    kept: Vec<(i64, i64)>,
    times: Vec<(i64, i64)>,
    pub failed: usize,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::on(SimDisk::new(1), settings)
    }

    /// On a disk that may be small.
    pub fn on(disk: SimDisk, settings: fn(u64) -> Settings) -> Bench {
        let (node, now_ns) = (Bench::start(&disk, settings, 1, 0), 0);
        let mut bench = Bench {
            disk,
            settings,
            node,
            boot: 1,
            builder: BatchBuilder::new(1, 1, 0, usize::MAX, u32::MAX),
            now_ns,
            kept: Vec::new(),
            times: Vec::new(),
            failed: 0,
        };
        bench.settle();
        bench
    }

    fn start(disk: &SimDisk, settings: fn(u64) -> Settings, boot: u64, now_ns: u64) -> Node {
        let mut settings = settings(boot);
        settings.founding = boot == 1;
        settings.in_flight_bytes = 1 << 20;
        Node::start(disk, &settings, boot, now_ns).expect("the node starts")
    }

    /// The process is killed, or the power fails; after a while the node runs again.
    pub fn restart(&mut self, power: bool, away_ns: u64) {
        if power {
            self.disk = self.disk.crash();
        }
        self.now_ns += away_ns;
        self.boot += 1;
        // Two nodes never hold one disk: the old one goes first.
        let disk = SimDisk::new(9);
        let idle = Bench::start(&disk, self.settings, 1, self.now_ns);
        drop(std::mem::replace(&mut self.node, idle));
        self.node = Bench::start(&self.disk, self.settings, self.boot, self.now_ns);
        self.builder = BatchBuilder::new(1, self.boot, 0, usize::MAX, u32::MAX);
        self.settle();
    }

    fn batch(&mut self, requests: &[Request<'_>]) -> ProposalBatch {
        for request in requests {
            let mut body = Vec::new();
            let kind = wire::encode_body(request, &mut body).expect("a small request");
            let kind = CommandKind::from_wire(kind).expect("a write");
            self.builder.push(1, kind, &body).expect("no bound is set");
        }
        let built = self.builder.take().expect("something was pushed");
        ProposalBatch {
            front: FrontId(0),
            sequence: built.sequence,
            count: built.count,
            bytes: built.bytes,
        }
    }

    pub fn propose(&mut self, requests: &[Request<'_>]) {
        let batch = self.batch(requests);
        self.node.send(OrderInput::Propose(batch));
        self.settle();
    }

    fn ask(&mut self, keep: &[i64], times: &[i64]) {
        let time = |&id: &i64| LeaseTimeAsk {
            waiter: WaiterId(1),
            id,
            body: Vec::new(),
        };
        self.node.send(OrderInput::Leases(LeaseAsks {
            front: FrontId(0),
            keep_alives: keep.iter().map(|id| (WaiterId(1), *id)).collect(),
            times: times.iter().map(time).collect(),
            lists: Vec::new(),
        }));
    }

    /// Lets everything happen that can, without time passing.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let out = self.node.turn(self.now_ns).expect("nothing fails");
            for output in out {
                match output {
                    OrderOutput::Front(_, FrontInput::Leases(answers)) => {
                        assert!(answers.refused.is_empty());
                        let kept = answers.kept.into_iter();
                        self.kept.extend(kept.map(|(_, id, ttl)| (id, ttl)));
                        let times = answers.times.into_iter();
                        self.times.extend(times.map(|(ask, left)| (ask.id, left)));
                    }
                    OrderOutput::Front(_, FrontInput::Replies(replies)) => {
                        let failed = replies
                            .list
                            .iter()
                            .filter(|reply| matches!(reply.outcome, Outcome::Failed { .. }));
                        self.failed += failed.count();
                    }
                    _ => {}
                }
            }
            let mut busy = self.node.log_step(100).expect("nothing fails");
            busy |= self.node.checkpoint_step().expect("nothing fails");
            if !busy && !self.node.is_busy() {
                return;
            }
        }
        panic!("the node never comes to rest");
    }

    pub fn pass(&mut self, ns: u64) {
        let until = self.now_ns + ns;
        while self.now_ns < until {
            self.now_ns = until.min(self.now_ns + 100 * MS);
            self.settle();
        }
    }

    /// The live keys, and the revision.
    pub fn keys(&self) -> (Vec<String>, i64) {
        let snapshot = self.node.reader.pin();
        let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
        let mut keys = Vec::new();
        let all = Interval {
            start: b"",
            end: None,
        };
        let view = View::new(&snapshot, horizon);
        view.scan_at(all, 0, &mut |item| {
            keys.push(String::from_utf8_lossy(item.key).into_owned());
            Ok(true)
        })
        .expect("a sound tree");
        (keys, horizon.revision)
    }

    fn left(&mut self, id: i64) -> i64 {
        self.ask(&[], &[id]);
        self.settle();
        let (of, left) = self.times.pop().expect("an answer");
        assert_eq!(of, id);
        left
    }

    pub fn keep_alive(&mut self, id: i64) -> Option<i64> {
        self.ask(&[id], &[]);
        self.settle();
        self.kept.pop().map(|(of, ttl)| {
            assert_eq!(of, id);
            ttl
        })
    }
}

pub fn grant(id: i64, ttl: i64) -> Request<'static> {
    Request::LeaseGrant(LeaseGrantRequest { ttl, id })
}

pub fn put(key: &str, lease: i64) -> Request<'_> {
    Request::Put(PutRequest {
        key: key.as_bytes(),
        lease,
        ..PutRequest::default()
    })
}

#[test]
fn a_lease_ends_on_time_and_its_keys_in_one_revision() {
    let mut bench = Bench::new();
    bench.propose(&[grant(1, 5), put("b", 1), put("a", 1), put("c", 0)]);
    assert_eq!((bench.failed, bench.keys().1), (0, 4));
    bench.pass(3 * SECOND);
    assert_eq!(bench.left(1), 2);
    assert_eq!(bench.keep_alive(1), Some(5));
    bench.pass(5 * SECOND - MS);
    assert_eq!(bench.keys(), (vec!["a".into(), "b".into(), "c".into()], 4));
    bench.pass(2 * MS);
    assert_eq!(bench.keys(), (vec!["c".into()], 5));
    assert_eq!(bench.left(1), -1);
    assert_eq!(bench.keep_alive(1), Some(0));
    bench.propose(&[
        grant(2, 5),
        Request::LeaseRevoke(LeaseRevokeRequest { id: 2 }),
    ]);
    bench.pass(10 * SECOND);
    assert_eq!((bench.failed, bench.keys().1), (0, 5), "it had no keys");
}

#[test]
fn short_leases_begin_anew_with_a_restart_and_long_ones_where_they_stood() {
    for power in [false, true] {
        let mut bench = Bench::new();
        bench.propose(&[grant(1, 30), grant(2, 1000), put("a", 1), put("b", 2)]);
        bench.pass(20 * SECOND);
        bench.restart(power, 3600 * SECOND);
        assert_eq!((bench.left(1), bench.left(2)), (30, 1000));
        assert_eq!(
            bench.keys().0,
            ["a", "b"],
            "time without a leader is no time"
        );
        bench.pass(31 * SECOND);
        assert_eq!(bench.keys().0, ["b"]);
        bench.pass(570 * SECOND);
        bench.restart(power, SECOND);
        // 601 seconds are over; 300 and 600 were written down.
        assert_eq!(bench.left(2), 400);
        // A renewal is not acknowledged before the log knows that it has all its time again.
        assert_eq!(bench.keep_alive(2), Some(1000));
        bench.restart(power, SECOND);
        assert_eq!(bench.left(2), 1000);
        bench.pass(1000 * SECOND - MS);
        assert_eq!(bench.keys().0, ["b"]);
        bench.pass(2 * MS);
        assert_eq!(bench.keys().0, Vec::<String>::new());
    }
}

#[test]
fn many_leases_end_together_a_ration_in_each_turn() {
    let mut bench = Bench::new();
    let names: Vec<_> = (0..3000).map(|n| format!("{n:05}")).collect();
    for (chunk, keys) in names.chunks(1000).enumerate() {
        let mut requests = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let id = 1 + (chunk * 1000 + at) as i64;
            requests.push(grant(id, 2));
            requests.push(put(key, id));
        }
        bench.propose(&requests);
    }
    let (keys, before) = bench.keys();
    assert_eq!((bench.failed, keys.len()), (0, 3000));
    bench.pass(3 * SECOND);
    assert_eq!(bench.keys(), (Vec::new(), before + 3000), "one each");
}

/// The keys of one lease are never parted; of several, no more go in one turn than a ration.
#[test]
fn leases_with_many_keys_end_a_ration_of_keys_in_each_turn() {
    let mut bench = Bench::new();
    let ration = limits::LEASE_KEYS_PER_TURN as usize;
    let each = ration / 2 - 12;
    let names: Vec<_> = (0..6 * each).map(|n| format!("{n:05}")).collect();
    for (lease, keys) in names.chunks(each).enumerate() {
        let id = 1 + lease as i64;
        let puts = keys.iter().map(|key| put(key, id));
        let requests: Vec<_> = std::iter::once(grant(id, 2)).chain(puts).collect();
        bench.propose(&requests);
    }
    let (keys, before) = bench.keys();
    assert_eq!((bench.failed, keys.len()), (0, names.len()));
    bench.now_ns += 2 * SECOND;
    let (mut left, mut turns) = (keys.len(), 0);
    for _ in 0..100 {
        bench.now_ns += 100 * MS;
        for _ in 0..10 {
            bench.node.turn(bench.now_ns).expect("nothing fails");
            let now = bench.keys().0.len();
            assert!(left - now <= ration, "{left} to {now} in one turn");
            turns += usize::from(now < left);
            left = now;
            bench.node.log_step(100).expect("nothing fails");
        }
    }
    assert_eq!((left, bench.keys().1), (0, before + 6));
    assert_eq!(turns, 3, "two of them in each turn");
}

/// What cannot be proposed, because too much waits for the log, is proposed later.
#[test]
fn a_lease_whose_end_was_refused_ends_later() {
    const MOST: usize = 1 << 20;
    let small = |boot| Settings {
        uncommitted_bytes: MOST as u64,
        segment_bytes: 4 << 20,
        ..settings(boot)
    };
    let mut bench = Bench::on(SimDisk::new(1), small);
    bench.propose(&[grant(1, 2)]);
    bench.propose(&[put("a", 1)]);
    assert_eq!((bench.failed, bench.keys().0), (0, vec!["a".into()]));
    // The log stands still behind a write that takes all there is, until the lease is long over.
    let long = |bench: &mut Bench, bytes: usize| {
        let value = vec![b'v'; bytes];
        let put = PutRequest {
            key: b"b",
            value: &value,
            ..PutRequest::default()
        };
        bench.batch(&[Request::Put(put)])
    };
    let around = long(&mut Bench::new(), MOST / 2).bytes.len() - MOST / 2;
    let proposed = long(&mut bench, MOST - around);
    assert_eq!(proposed.bytes.len(), MOST);
    bench.node.send(OrderInput::Propose(proposed));
    for _ in 0..50 {
        bench.now_ns += 100 * MS;
        bench.node.turn(bench.now_ns).expect("nothing fails");
    }
    assert_eq!(bench.keys().0, ["a"]);
    bench.pass(SECOND);
    assert_eq!(bench.keys().0, ["b"]);
    assert_eq!(bench.left(1), -1);
}

/// However many leases are renewed in every turn, those that are not end in time.
#[test]
fn a_mass_of_renewals_delays_no_other_leases_end() {
    const RENEWED: i64 = 20_000;
    let mut bench = Bench::new();
    let ids: Vec<i64> = (1..=RENEWED).collect();
    for ids in ids.chunks(1000) {
        let grants: Vec<_> = ids.iter().map(|&id| grant(id, 5)).collect();
        bench.propose(&grants);
    }
    let left_alone: Vec<i64> = (RENEWED + 1..=RENEWED + 50).collect();
    let names: Vec<_> = left_alone.iter().map(|id| id.to_string()).collect();
    for (id, name) in left_alone.iter().zip(&names) {
        bench.propose(&[grant(*id, 5), put(name, *id)]);
    }
    let (keys, before) = bench.keys();
    assert_eq!((bench.failed, keys.len()), (0, 50));
    // Renewals of all in every hundredth of a second, and no turn without some.
    let until = bench.now_ns + 5 * SECOND;
    while bench.now_ns < until {
        bench.now_ns += 10 * MS;
        bench.ask(&ids, &[]);
        bench.settle();
        let kept = std::mem::take(&mut bench.kept);
        assert_eq!(kept.len(), ids.len());
        assert!(kept.iter().all(|(_, ttl)| *ttl == 5));
    }
    bench.ask(&ids, &[]);
    bench.pass(20 * MS);
    assert_eq!(bench.keys(), (Vec::new(), before + 50), "one each");
    bench.pass(5 * SECOND - 50 * MS);
    assert_eq!(bench.left(1), 0, "it was renewed to the last");
    bench.pass(200 * MS);
    assert_eq!(bench.left(RENEWED), -1, "and ends as well");
}
