//! A node, its disk, its clients and its bad luck, all from one seed.

mod rot;

use super::journal::{Ask, Journal, State, value};
use super::node::{FRONTS, Node, Settings, Stopped};
use quoin::api::{
    AlarmAction, AlarmKind, AlarmRequest, CompactRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, PutRequest, Request, RequestOp, Response, TxnRequest,
};
use quoin::chance::Chance;
use quoin::node::messages::{
    FrontId, FrontInput, OrderInput, OrderOutput, Outcome, ProposalBatch, Reply,
};
use quoin::node::order::CheckpointConfig;
use quoin::propose::command::{BatchBuilder, BatchFull, CommandKind};
use quoin::propose::waiters::Waiters;
use quoin::wire;
use quoin_storage::disk::sim::{Fault, SimDisk};
use quoin_storage::mvcc::Horizon;
use quoin_storage::tree::TreeOptions;

const MS: u64 = 1_000_000;

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy)]
pub struct Luck {
    /// The power fails once in so many steps.
    pub cut_in: u64,
    /// The process is killed once in so many steps.
    pub kill_in: u64,
    /// A disk operation fails once in so many steps.
    pub fault_in: u64,
    /// Bytes of the disk, if it has an end.
    pub capacity: Option<u64>,
    /// Bits rot while the node is stopped, and reads fail while it starts.
    pub rot: bool,
}

struct Front {
    builder: BatchBuilder,
    waiters: Waiters<usize>,
    local_reads: bool,
}

pub struct World {
    chance: Chance,
    luck: Luck,
    disk: SimDisk,
    node: Option<Node>,
    fronts: Vec<Front>,
    pub journal: Journal,
    now_ns: u64,
    boot: u64,
    founded: bool,
    /// A fault was asked for, so that the node may stop.
    faulted: bool,
    drained: bool,
    trace: u64,
    keys: u64,
    pub starts: u64,
    pub replayed: u64,
    /// Copies of the files in which a bit was turned over,
    pub rotted: u64,
    /// those that were refused,
    pub refused: u64,
    /// and starts that ended with a read that failed.
    pub unread: u64,
    segment_bytes: u64,
}

fn key(number: u64) -> Vec<u8> {
    match number {
        0 => vec![b'k'; 1500],
        n => format!("key-{n:04}").into_bytes(),
    }
}

impl World {
    pub fn new(seed: u64, luck: Luck) -> World {
        let mut chance = Chance::new(seed);
        let disk = SimDisk::new(chance.next_u64());
        if let Some(capacity) = luck.capacity {
            disk.set_capacity(capacity);
        }
        let keys = [1, 5, 60, 2000][chance.below(4) as usize];
        let segment_bytes = [16, 32, 128][chance.below(3) as usize] * 4096;
        World {
            chance,
            luck,
            disk,
            node: None,
            fronts: Vec::new(),
            journal: Journal::default(),
            now_ns: 1_000_000_000,
            boot: 0,
            founded: false,
            faulted: false,
            drained: false,
            trace: 0,
            keys,
            starts: 0,
            replayed: 0,
            rotted: 0,
            refused: 0,
            unread: 0,
            segment_bytes,
        }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(5) ^ what).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn settings(&self) -> Settings {
        Settings {
            boot: self.boot,
            founding: !self.founded,
            segment_bytes: self.segment_bytes,
            checkpoint: CheckpointConfig {
                interval_ns: 300 * MS,
                log_bytes: 30_000,
                entries: 60,
                young_bytes: 300_000,
                young_bytes_pause: 600_000,
                retry_ns: 50 * MS,
            },
            in_flight_bytes: 60_000,
            uncommitted_bytes: 64 << 20,
            per_turn: 40,
            tree: TreeOptions {
                reserve_bytes: 256 << 20,
                young_bytes_max: 1 << 20,
                spare_bytes: if self.luck.capacity.is_some() {
                    1 << 20
                } else {
                    0
                },
                ..TreeOptions::default()
            },
        }
    }

    /// Starts a node on what the disk holds. Power may fail while it recovers, again and again.
    fn start(&mut self) {
        self.boot += 1;
        let mut cuts_left = 4;
        loop {
            self.starts += 1;
            let before = self.disk.operations();
            let nested = self.luck.cut_in > 0 && cuts_left > 0 && self.chance.one_in(3);
            if nested {
                cuts_left -= 1;
                self.disk.cut_at(before + 1 + self.chance.below(12));
            }
            let unlucky = self.luck.rot && self.chance.one_in(4);
            if unlucky {
                self.fail_a_read();
            }
            let seed = self.chance.next_u64();
            match Node::start(&self.disk, &self.settings(), seed, self.now_ns) {
                Ok(node) => {
                    self.replayed += node.replayed;
                    // The power may fail yet, at an operation that recovery did not reach.
                    self.faulted |= nested;
                    self.node = Some(node);
                    break;
                }
                Err(Stopped(_)) if self.disk.is_cut() => self.disk = self.disk.crash(),
                Err(Stopped(why)) => {
                    assert!(unlucky, "the node refuses to start: {why}");
                    self.unread(&why);
                }
            }
        }
        if self.luck.rot && self.founded && self.chance.one_in(2) {
            self.rot();
        }
        self.fronts = (0..FRONTS)
            .map(|front| Front {
                builder: BatchBuilder::new(1, self.boot, front, 8000, 30),
                waiters: Waiters::new(500, self.now_ns),
                local_reads: false,
            })
            .collect();
    }

    /// The process is gone; what is left of its disk depends on whether power went too.
    fn die(&mut self, power: bool) {
        self.node = None;
        self.journal.lose_contact();
        self.disk = if power || self.disk.is_cut() {
            self.disk.crash()
        } else {
            self.disk.kill()
        };
        self.faulted = false;
        self.note(0xdead);
    }

    pub fn step(&mut self) {
        if self.node.is_none() {
            self.start();
        }
        self.bad_luck();
        let done = match self.chance.below(100) {
            0..=29 => {
                self.ask();
                Ok(())
            }
            30..=44 => {
                self.propose();
                Ok(())
            }
            45..=69 => self.turn(),
            70..=84 => {
                let most = 1 + self.chance.below(6) as usize;
                self.node().log_step(most).map(|_| ())
            }
            85..=93 => self.node().checkpoint_step().map(|_| ()),
            94..=95 => self.node().log_idle(),
            _ => {
                self.now_ns += self.chance.below(120) * MS;
                Ok(())
            }
        };
        if let Err(Stopped(why)) = done {
            assert!(
                self.faulted || self.disk.is_cut(),
                "the node stopped: {why}"
            );
            self.die(self.disk.is_cut() || self.faulted);
        } else if self.node.is_some() && self.chance.one_in(4) {
            self.read();
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the node runs")
    }

    fn bad_luck(&mut self) {
        let next = self.disk.operations() + 1;
        if self.luck.cut_in > 0 && self.chance.one_in(self.luck.cut_in) {
            self.disk.cut_at(next + self.chance.below(20));
            self.faulted = true;
        }
        if self.luck.fault_in > 0 && self.chance.one_in(self.luck.fault_in) {
            let faults = [
                Fault::Eio,
                Fault::ShortWrite,
                Fault::FailedSync,
                Fault::NoSpace,
            ];
            let fault = faults[self.chance.below(4) as usize];
            self.disk.fail_at(next + self.chance.below(20), fault);
            self.faulted = true;
        }
        if self.luck.kill_in > 0 && self.chance.one_in(self.luck.kill_in) {
            self.die(false);
            self.start();
        }
    }

    fn key(&mut self) -> Vec<u8> {
        key(self.chance.below(self.keys))
    }

    /// A client asks for something.
    fn ask(&mut self) {
        let front = self.chance.below(u64::from(FRONTS)) as usize;
        let key = self.key();
        let ask = match self.chance.below(20) {
            0..=11 => Ask::Put { key },
            12..=14 if !self.journal.is_deleting(&key) => Ask::Delete { key },
            15..=18 => {
                let other = [&b"other-"[..], &key].concat();
                let right = self.journal.mod_revision(&key);
                let expected = if self.chance.one_in(4) { 1 } else { right };
                Ask::Swap {
                    keys: [key, other],
                    expected,
                }
            }
            // Somebody looks after a disk that was full.
            19 if self.luck.capacity.is_some() && self.chance.one_in(2) => Ask::Disarm,
            19 if self.journal.published > 1 => Ask::Compact {
                revision: 1 + self.chance.below(self.journal.published as u64) as i64,
                physical: self.chance.one_in(2),
            },
            _ => return,
        };
        let number = self.journal.ask(ask.clone());
        let mut body = Vec::new();
        let kind = encode(&ask, number, &mut body);
        let deadline = self.now_ns + 5_000 * MS;
        let Ok(waiter) = self.fronts[front].waiters.insert(deadline, number) else {
            self.journal.hear(number, State::Refused, false);
            return;
        };
        if let Err(BatchFull) = self.fronts[front].builder.push(waiter.0, kind, &body) {
            self.send_batch(front);
            let pushed = self.fronts[front].builder.push(waiter.0, kind, &body);
            pushed.expect("an empty batch takes anything");
        }
    }

    fn propose(&mut self) {
        for front in 0..self.fronts.len() {
            self.send_batch(front);
        }
    }

    fn send_batch(&mut self, front: usize) {
        if let Some(built) = self.fronts[front].builder.take() {
            let batch = ProposalBatch {
                front: FrontId(front as u16),
                sequence: built.sequence,
                count: built.count,
                bytes: built.bytes,
            };
            self.node().send(OrderInput::Propose(batch));
        }
    }

    fn turn(&mut self) -> Result<(), Stopped> {
        let now_ns = self.now_ns;
        let out = self.node().turn(now_ns)?;
        self.observe();
        for output in out {
            match output {
                OrderOutput::Front(FrontId(front), input) => self.front(usize::from(front), input),
                OrderOutput::Drained => self.drained = true,
                other => panic!("a sole voter has no use for {other:?}"),
            }
        }
        Ok(())
    }

    fn front(&mut self, front: usize, input: FrontInput) {
        match input {
            FrontInput::Replies(replies) => {
                let list = replies.list.into_iter();
                list.for_each(|reply| self.reply(front, reply));
                let taken = OrderInput::AnswersTaken {
                    front: FrontId(front as u16),
                    bytes: replies.answer_bytes,
                };
                self.node().send(taken);
            }
            FrontInput::LocalReads(on) => {
                if on && front == 0 {
                    // All of the log is applied by now.
                    self.founded = true;
                    let node = self.node.as_ref().expect("the node runs");
                    let snapshot = node.reader.pin();
                    let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
                    self.journal.check_all(&snapshot, horizon);
                    self.journal.settle();
                }
                self.fronts[front].local_reads = on;
            }
            FrontInput::Published => unreachable!("nobody watches here"),
            FrontInput::PurgeHeld => unreachable!("nobody takes snapshots here"),
            FrontInput::Term { term, .. } => self.note(term),
            FrontInput::ReadReady { ok, .. } => assert!(ok),
            FrontInput::Leases(answers) => panic!("nobody has asked: {answers:?}"),
        }
    }

    fn reply(&mut self, front: usize, reply: Reply) {
        let number = self.fronts[front].waiters.take(reply.waiter);
        let number = number.expect("an answer to somebody who waits");
        let (state, idle) = match reply.outcome {
            Outcome::Put { revision } => (State::Acked(revision), false),
            Outcome::Done { revision, response } => {
                let idle = match *response {
                    Response::DeleteRange(delete) => delete.deleted == 0,
                    Response::Txn(txn) => !txn.succeeded,
                    Response::Alarm(_) => true,
                    _ => false,
                };
                (State::Acked(revision), idle)
            }
            Outcome::Failed { error, .. } if error.outcome_unknown() => (State::Unknown, false),
            Outcome::Failed { .. } => (State::Refused, false),
        };
        self.note(number as u64);
        self.journal.hear(number, state, idle);
    }

    /// Takes note of what is published; only once all of the old log is, since before that the
    /// past comes back piece by piece.
    fn observe(&mut self) {
        if !self.fronts.iter().all(|front| front.local_reads) {
            return;
        }
        let node = self.node.as_ref().expect("the node runs");
        let snapshot = node.reader.pin();
        let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
        self.journal.observe(&snapshot, horizon);
    }

    fn read(&mut self) {
        let key = self.key();
        let node = self.node.as_ref().expect("the node runs");
        if self.fronts[0].local_reads {
            let snapshot = node.reader.pin();
            let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
            self.journal.check_read(&snapshot, horizon, &key);
        }
    }

    /// Stops the node in an orderly way, with good luck from now on, starts it again, and checks
    /// everything.
    pub fn finish(&mut self) -> u64 {
        self.luck = Luck {
            cut_in: 0,
            kill_in: 0,
            fault_in: 0,
            capacity: self.luck.capacity,
            rot: false,
        };
        if self.faulted && self.node.is_some() {
            self.die(true);
        }
        if self.node.is_none() {
            self.start();
        }
        self.propose();
        self.node().send(OrderInput::Drain);
        self.drained = false;
        for _ in 0..10_000 {
            self.now_ns += MS;
            self.turn().expect("nothing fails any more");
            self.node().log_step(3).expect("nothing fails any more");
            self.node()
                .checkpoint_step()
                .expect("nothing fails any more");
            if self.drained {
                break;
            }
        }
        assert!(self.drained, "the node never drains");
        let left = self
            .journal
            .ops
            .iter()
            .filter(|op| op.state == State::Waiting)
            .count();
        let purging = self.node().order.applier().has_background();
        assert!(
            left == 0 || purging,
            "{left} operations were never answered"
        );
        self.die(false);
        let report = quoin_storage::tree::check(&self.disk, super::node::TREE);
        report.expect("the tree file is sound");
        let before = self.replayed;
        self.start();
        assert_eq!(
            self.replayed, before,
            "after an orderly stop nothing is replayed"
        );
        for _ in 0..1000 {
            self.now_ns += MS;
            self.turn().expect("nothing fails any more");
            self.node().log_step(3).expect("nothing fails any more");
        }
        assert!(
            self.fronts.iter().all(|front| front.local_reads),
            "the node never leads"
        );
        self.node = None;
        self.trace ^ self.journal.hash() ^ self.disk.operations()
    }
}

fn encode(ask: &Ask, number: usize, body: &mut Vec<u8>) -> CommandKind {
    let value = value(number);
    let put = |key| PutRequest {
        key,
        value: &value,
        ..PutRequest::default()
    };
    let request = match ask {
        Ask::Put { key } => Request::Put(put(key)),
        Ask::Delete { key } => Request::DeleteRange(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        }),
        Ask::Swap {
            keys: [key, other],
            expected,
        } => Request::Txn(TxnRequest {
            compare: vec![Compare {
                key,
                range_end: b"",
                result: CompareResult::Equal,
                target: CompareTarget::Mod(*expected),
            }],
            success: vec![RequestOp::Put(put(key)), RequestOp::Put(put(other))],
            failure: Vec::new(),
        }),
        Ask::Disarm => Request::Alarm(AlarmRequest {
            action: AlarmAction::Deactivate,
            member_id: 1,
            alarm: Some(AlarmKind::NoSpace),
        }),
        Ask::Compact { revision, physical } => Request::Compact(CompactRequest {
            revision: *revision,
            physical: *physical,
        }),
    };
    let kind = wire::encode_body(&request, body).expect("a small request");
    CommandKind::from_wire(kind).expect("a write")
}
