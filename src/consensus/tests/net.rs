//! Members, their disks, and the messages between them.

use crate::consensus::confchange::{decode_conf_state, encode_conf_state, voters};
use crate::consensus::{
    AppendRequest, CommittedData, Core, CoreConfig, Handled, LogEntry, PeerMessage, ReadConfirmed,
    Role, Start,
};
use crate::propose::command::{BatchBuilder, CommandKind};
use bytes::Bytes;
use quoin_storage::log::HardState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const CLUSTER: u64 = 77;

/// What is durable of a member.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub entries: Vec<LogEntry>,
    /// The state machine's checkpoint.
    pub applied: Vec<(u64, u64, Bytes)>,
    pub conf_state: Vec<u8>,
}

pub struct Node {
    pub core: Core,
    pub disk: Disk,
    pub handled: Handled,
    /// Asked for and not yet durable.
    pub appends: VecDeque<AppendRequest>,
    /// Index, term and data of everything applied.
    pub applied: Vec<(u64, u64, Bytes)>,
    pub conf_state: Vec<u8>,
    pub reads: Vec<ReadConfirmed>,
}

/// A batch of one command that says `text`.
pub fn batch(member: u64, sequence: u64, text: &str) -> Bytes {
    let mut builder = BatchBuilder::new(member, 1, 0, 1 << 20, 10);
    builder
        .push(sequence, CommandKind::Put, text.as_bytes())
        .unwrap();
    builder.take().unwrap().bytes
}

pub fn config(member: u64) -> CoreConfig {
    CoreConfig {
        tail_entries: 1000,
        ..CoreConfig::new(CLUSTER, member)
    }
}

pub fn start(disk: &Disk, founders: &[u64]) -> Start {
    let conf_state = match disk.conf_state.as_slice() {
        [] => voters(founders),
        bytes => decode_conf_state(bytes).unwrap(),
    };
    let last = disk.applied.last();
    Start {
        hard_state: disk.hard_state,
        base_index: 0,
        base_term: 0,
        entries: disk.entries.clone(),
        applied_index: last.map_or(0, |(index, ..)| *index),
        applied_term: last.map_or(0, |(_, term, _)| *term),
        conf_state,
        founding: true,
    }
}

impl Node {
    pub fn new(config: CoreConfig, disk: Disk, founders: &[u64], seed: u64) -> Node {
        let mut handled = Handled::default();
        let start = start(&disk, founders);
        let conf_state = encode_conf_state(&start.conf_state);
        let core = Core::new(config, start, seed, &mut handled).unwrap();
        let applied = disk.applied.clone();
        Node {
            core,
            disk,
            handled,
            appends: VecDeque::new(),
            applied,
            conf_state,
            reads: Vec::new(),
        }
    }

    /// Collects what is ready and applies what is committed.
    pub fn turn(&mut self) -> Vec<PeerMessage> {
        self.core.handle(&mut self.handled);
        while let Some(entry) = self.handled.committed.pop_front() {
            let expected = self.applied.last().map_or(1, |(index, ..)| index + 1);
            assert_eq!(
                entry.index, expected,
                "entries are applied in order, each once"
            );
            let data = match entry.data {
                CommittedData::Empty => Bytes::new(),
                CommittedData::Batch(data) => data,
                CommittedData::Change(data) => {
                    self.conf_state = self.core.apply_change(&data);
                    data
                }
            };
            self.applied.push((entry.index, entry.term, data));
            self.core.applied(entry.index);
        }
        self.core.handle(&mut self.handled);
        self.appends.extend(self.handled.appends.drain(..));
        self.reads.append(&mut self.handled.reads);
        std::mem::take(&mut self.handled.messages)
    }

    /// Makes the oldest append durable.
    pub fn sync_one(&mut self) -> bool {
        let Some(append) = self.appends.pop_front() else {
            return false;
        };
        if let Some(hard_state) = append.hard_state {
            self.disk.hard_state = hard_state;
        }
        if let Some(first) = append.entries.first() {
            self.disk.entries.retain(|entry| entry.index < first.index);
            self.disk.entries.extend(append.entries);
        }
        self.core.persisted(append.number, &mut self.handled);
        true
    }

    /// Makes the state machine durable.
    pub fn checkpoint(&mut self) {
        self.disk.applied.clone_from(&self.applied);
        self.disk.conf_state.clone_from(&self.conf_state);
    }

    /// The texts applied, in order.
    pub fn texts(&self) -> Vec<String> {
        texts(&self.applied)
    }
}

pub fn texts(applied: &[(u64, u64, Bytes)]) -> Vec<String> {
    let mut all = Vec::new();
    for (_, _, data) in applied {
        if let Ok(batch) = crate::propose::command::Batch::decode(data) {
            let bodies = batch
                .commands()
                .map(|c| String::from_utf8(c.body.to_vec()).unwrap());
            all.extend(bodies);
        }
    }
    all
}

/// Members and the network between them.
pub struct Net {
    pub nodes: BTreeMap<u64, Node>,
    pub founders: Vec<u64>,
    pub wire: VecDeque<PeerMessage>,
    /// Pairs that cannot hear each other, lower id first.
    pub cuts: BTreeSet<(u64, u64)>,
    pub seed: u64,
}

impl Net {
    pub fn new(members: &[u64], seed: u64) -> Net {
        let node = |&id: &u64| {
            (
                id,
                Node::new(config(id), Disk::default(), members, seed + id),
            )
        };
        Net {
            nodes: members.iter().map(node).collect(),
            founders: members.to_vec(),
            wire: VecDeque::new(),
            cuts: BTreeSet::new(),
            seed,
        }
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    pub fn isolate(&mut self, id: u64) {
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut(id, other);
        }
    }

    pub fn deliver(&mut self, message: PeerMessage) {
        let (from, to) = (message.from(), message.to());
        if self.cuts.contains(&(from.min(to), from.max(to))) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&to) {
            node.core.step(message).unwrap();
        }
    }

    /// Collects, syncs and delivers until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for node in self.nodes.values_mut() {
                let out = node.turn();
                moved |= !out.is_empty();
                self.wire.extend(out);
                moved |= node.sync_one();
            }
            while let Some(message) = self.wire.pop_front() {
                self.deliver(message);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("the members never come to rest");
    }

    pub fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.nodes.values_mut().for_each(|node| node.core.tick());
            self.settle();
        }
    }

    pub fn leaders(&self) -> Vec<u64> {
        let leads = |(id, node): (&u64, &Node)| (node.core.role() == Role::Leader).then_some(*id);
        self.nodes.iter().filter_map(leads).collect()
    }

    /// Lets time pass until there is one leader that all who can hear it follow.
    pub fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            self.tick(1);
            let newest = self.nodes.iter().max_by_key(|(_, node)| node.core.term());
            let (_, newest) = newest.unwrap();
            let leader = newest.core.leader();
            if leader != 0 && self.leaders().contains(&leader) {
                return leader;
            }
        }
        panic!("no leader");
    }

    /// As `elect`, until it is another one.
    pub fn elect_other(&mut self, old: u64) -> u64 {
        (0..200)
            .map(|_| self.elect())
            .find(|new| *new != old)
            .expect("another leader")
    }

    pub fn propose(&mut self, id: u64, sequence: u64, text: &str) {
        let data = batch(id, sequence, text);
        self.node(id).core.propose(std::iter::once(data)).unwrap();
    }

    /// Loses everything of a member that is not durable, and starts it again.
    pub fn restart(&mut self, id: u64) {
        self.seed += 1000;
        let disk = self.node(id).disk.clone();
        let node = Node::new(config(id), disk, &self.founders, self.seed + id);
        self.nodes.insert(id, node);
    }
}
