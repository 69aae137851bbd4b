//! Random schedules: lost, doubled and reordered messages, slow disks, partitions, power cuts.
//! In the safety phase nothing acknowledged may be lost and no two members may disagree; in the
//! liveness phase all must come to agree.

use super::net::{Net, batch, texts};
use crate::chance::Chance;
use crate::consensus::Role;
use std::collections::BTreeSet;

struct Run {
    net: Net,
    chance: Chance,
    sequence: u64,
    /// Applied by the leader that proposed it: its client was told.
    acknowledged: BTreeSet<String>,
    /// Everything ever applied anywhere, by index.
    agreed: Vec<Option<(u64, bytes::Bytes)>>,
    trace: u64,
}

impl Run {
    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn pick(&mut self) -> u64 {
        let ids: Vec<u64> = self.net.nodes.keys().copied().collect();
        ids[self.chance.below(ids.len() as u64) as usize]
    }

    fn step(&mut self) {
        let id = self.pick();
        match self.chance.below(100) {
            0..=24 => self.net.node(id).core.tick(),
            25..=44 => {
                self.sequence += 1;
                let text = format!("{}", self.sequence);
                let data = batch(id, self.sequence, &text);
                let _ = self.net.node(id).core.propose(std::iter::once(data));
            }
            45..=79 => self.deliver(),
            80..=94 => {
                self.net.node(id).sync_one();
            }
            95 => {
                let other = self.pick();
                self.net.cut(id, other);
            }
            96 => self.net.cuts.clear(),
            97 => self.net.node(id).checkpoint(),
            98 if self.chance.one_in(4) => self.net.restart(id),
            _ => {}
        }
        self.turn(id);
    }

    fn deliver(&mut self) {
        let len = self.net.wire.len() as u64;
        if len == 0 {
            return;
        }
        let at = self.chance.below(len.min(8)) as usize;
        let Some(message) = self.net.wire.remove(at) else {
            return;
        };
        match self.chance.below(20) {
            0 => return,
            1 => self.net.wire.push_back(message.clone()),
            _ => {}
        }
        let to = message.to();
        self.note(to);
        self.net.deliver(message);
        self.turn(to);
    }

    fn turn(&mut self, id: u64) {
        let node = self.net.node(id);
        let before = node.applied.len();
        let out = node.turn();
        let leads = node.core.role() == Role::Leader;
        let term = node.core.term();
        let new = node.applied[before..].to_vec();
        self.net.wire.extend(out);
        self.note(id ^ term << 8 ^ (new.len() as u64) << 32);
        for (index, entry_term, data) in &new {
            let at = *index as usize;
            if self.agreed.len() <= at {
                self.agreed.resize(at + 1, None);
            }
            let first = self.agreed[at].get_or_insert_with(|| (*entry_term, data.clone()));
            assert_eq!(
                *first,
                (*entry_term, data.clone()),
                "members disagree at {index}"
            );
        }
        if leads {
            self.acknowledged.extend(texts(&new));
        }
    }
}

fn run(seed: u64, steps: usize) -> u64 {
    let mut run = Run {
        net: Net::new(&[1, 2, 3], seed),
        chance: Chance::new(seed),
        sequence: 0,
        acknowledged: BTreeSet::new(),
        agreed: Vec::new(),
        trace: 0,
    };
    for _ in 0..steps {
        run.step();
    }
    // Liveness: the network heals, and all agree on a history that holds all promises.
    run.net.cuts.clear();
    run.net.elect();
    run.net.tick(50);
    let leader = run.net.elect();
    run.sequence += 1;
    run.net.propose(leader, run.sequence, "last");
    run.net.settle();
    run.net.tick(5);
    let reference = run.net.node(leader).texts();
    assert_eq!(
        reference.last().map(String::as_str),
        Some("last"),
        "seed {seed}"
    );
    let unique: BTreeSet<_> = reference.iter().collect();
    assert_eq!(
        unique.len(),
        reference.len(),
        "seed {seed}: nothing is applied twice"
    );
    for text in &run.acknowledged {
        assert!(
            unique.contains(text),
            "seed {seed}: {text} was acknowledged and is lost"
        );
    }
    for (id, node) in &run.net.nodes {
        assert_eq!(node.texts(), reference, "seed {seed}: member {id}");
    }
    run.trace
}

#[test]
fn members_agree_and_keep_their_promises() {
    let mut acknowledged = 0;
    for seed in 0..60 {
        let trace = run(seed, 3000);
        if seed % 10 == 0 {
            assert_eq!(trace, run(seed, 3000), "seed {seed} gives two histories");
        }
        acknowledged += 1;
    }
    assert_eq!(acknowledged, 60);
}
