//! What the clients know, and what they hold the store to.

use quoin_storage::mvcc::{Horizon, Revision, View};
use quoin_storage::tree::TreeRead;
use std::collections::{BTreeMap, BTreeSet};

/// What a client has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Put {
        key: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Two puts, if a key's last change is still the given one.
    Swap {
        keys: [Vec<u8>; 2],
        expected: i64,
    },
    Compact {
        revision: i64,
        physical: bool,
    },
    /// Takes the alarm back that a full disk has raised.
    Disarm,
}

/// What a client has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    /// Acknowledged, with the revision after it.
    Acked(i64),
    /// It did not take place, and never will.
    Refused,
    /// It may have taken place, or not.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Op {
    pub ask: Ask,
    pub state: State,
    /// It changed nothing: a delete of nothing, a swap whose condition did not hold.
    pub idle: bool,
    /// Where its events were seen, and how many.
    pub seen: Option<(i64, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: Vec<u8>,
    /// `None` is a deletion.
    value: Option<Vec<u8>>,
}

/// Every operation of every client, and every event that was ever published.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub ops: Vec<Op>,
    events: BTreeMap<(i64, i64), Change>,
    latest: BTreeMap<Vec<u8>, (i64, Option<Vec<u8>>)>,
    /// The newest revision seen published,
    pub published: i64,
    /// and the newest that a client was told.
    pub acked: i64,
    compacted: i64,
}

/// The value that operation `number` writes: its number, and some bytes that follow from it.
pub fn value(number: usize) -> Vec<u8> {
    let mut value = (number as u64).to_le_bytes().to_vec();
    let long = if number.is_multiple_of(37) {
        3000
    } else {
        8 + number % 60
    };
    value.resize(8 + long, number as u8);
    value
}

impl Journal {
    pub fn ask(&mut self, ask: Ask) -> usize {
        self.ops.push(Op {
            ask,
            state: State::Waiting,
            idle: false,
            seen: None,
        });
        self.ops.len() - 1
    }

    /// Takes in what was published since the last time.
    pub fn observe<T: TreeRead>(&mut self, tree: &T, horizon: Horizon) {
        assert!(horizon.revision >= self.published, "the revision fell");
        let view = View::new(tree, horizon);
        let from = Revision::first((self.published + 1).max(horizon.compacted));
        let mut fresh = Vec::new();
        view.events(from, &mut |event| {
            let value = (!event.tombstone).then(|| event.value.to_vec());
            let at = (event.revision.main, i64::from(event.revision.sub));
            fresh.push((
                at,
                Change {
                    key: event.key.to_vec(),
                    value,
                },
            ));
            Ok(true)
        })
        .expect("events are readable");
        for (at, change) in fresh {
            if at.0 > self.published {
                self.credit(at.0, &change);
                self.latest
                    .insert(change.key.clone(), (at.0, change.value.clone()));
                self.events.insert(at, change);
            }
        }
        self.published = horizon.revision;
        self.compacted = horizon.compacted.max(0);
    }

    /// Finds the operation that made a change: there must be one, and only one.
    fn credit(&mut self, revision: i64, change: &Change) {
        let number = match &change.value {
            Some(value) => {
                let number = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
                let number = usize::try_from(number).expect("a small number");
                assert_eq!(*value, self::value(number), "a value that nobody wrote");
                number
            }
            None => self
                .ops
                .iter()
                .position(|op| {
                    op.ask
                        == Ask::Delete {
                            key: change.key.clone(),
                        }
                        && op.seen.is_none()
                        && !op.idle
                        && match op.state {
                            State::Acked(at) => at == revision,
                            State::Waiting | State::Unknown => true,
                            State::Refused => false,
                        }
                })
                .expect("a deletion that nobody asked for"),
        };
        let op = &mut self.ops[number];
        let is_its_key = match &op.ask {
            Ask::Put { key } | Ask::Delete { key } => *key == change.key,
            Ask::Swap { keys, .. } => keys.contains(&change.key),
            Ask::Compact { .. } | Ask::Disarm => false,
        };
        assert!(is_its_key, "operation {number} changed another key");
        assert_ne!(
            op.state,
            State::Refused,
            "operation {number} was refused and took place"
        );
        let (at, count) = op.seen.unwrap_or((revision, 0));
        assert_eq!(
            at, revision,
            "operation {number} took place twice, or in two parts"
        );
        op.seen = Some((at, count + 1));
    }

    /// A client hears how its operation went. What is acknowledged must be published.
    pub fn hear(&mut self, number: usize, state: State, idle: bool) {
        let op = &mut self.ops[number];
        assert_eq!(
            op.state,
            State::Waiting,
            "operation {number} was answered twice"
        );
        (op.state, op.idle) = (state, idle);
        if let State::Acked(revision) = state {
            assert!(
                revision <= self.published,
                "acknowledged before it was published"
            );
            let events = match op.ask {
                Ask::Put { .. } | Ask::Delete { .. } => 1,
                Ask::Swap { .. } => 2,
                Ask::Compact { .. } | Ask::Disarm => 0,
            };
            let expected = (events > 0 && !idle).then_some((revision, events));
            assert_eq!(op.seen, expected, "operation {number}: {op:?}");
            self.acked = self.acked.max(revision);
        }
        if state == State::Refused {
            assert_eq!(
                op.seen, None,
                "operation {number} was refused and took place"
            );
        }
    }

    /// The process is gone: whoever waits will never hear.
    pub fn lose_contact(&mut self) {
        for op in &mut self.ops {
            if op.state == State::Waiting {
                op.state = State::Unknown;
            }
        }
    }

    /// A client reads a key at the newest revision.
    pub fn check_read<T: TreeRead>(&self, tree: &T, horizon: Horizon, key: &[u8]) {
        assert!(
            horizon.revision >= self.acked,
            "a read missed an acknowledged write"
        );
        let found = View::new(tree, horizon)
            .get(key)
            .expect("a key is readable");
        let found = found.map(|kv| (kv.mod_revision, kv.value.to_vec()));
        let known = self
            .latest
            .get(key)
            .and_then(|(at, value)| Some((*at, value.clone()?)));
        assert_eq!(
            found,
            known,
            "a read of {:?}",
            key.escape_ascii().to_string()
        );
    }

    /// After a start: everything that was ever published is still there, and what is new is
    /// what some client asked for.
    pub fn check_all<T: TreeRead>(&mut self, tree: &T, horizon: Horizon) {
        assert!(
            horizon.revision >= self.published,
            "published revisions are gone"
        );
        assert!(
            horizon.revision >= self.acked,
            "acknowledged revisions are gone"
        );
        assert!(
            horizon.compacted.max(0) >= self.compacted,
            "a compaction was undone"
        );
        let published = self.published;
        self.observe(tree, horizon);
        let view = View::new(tree, horizon);
        let mut there = BTreeSet::new();
        view.events(Revision::first(horizon.compacted.max(0)), &mut |event| {
            let at = (event.revision.main, i64::from(event.revision.sub));
            let value = (!event.tombstone).then(|| event.value.to_vec());
            let known = self.events.get(&at).expect("an event appeared in the past");
            assert_eq!(
                *known,
                Change {
                    key: event.key.to_vec(),
                    value
                },
                "history changed"
            );
            there.insert(at);
            Ok(true)
        })
        .expect("events are readable");
        for at in self
            .events
            .keys()
            .filter(|at| at.0 > horizon.compacted && at.0 <= published)
        {
            assert!(there.contains(at), "the event at {at:?} is gone");
        }
        for key in self.latest.keys() {
            self.check_read(tree, horizon, key);
        }
        for (number, op) in self.ops.iter().enumerate() {
            if let (Ask::Swap { .. }, Some((at, count))) = (&op.ask, op.seen) {
                assert_eq!(count, 2, "operation {number} took place by half at {at}");
            }
        }
    }

    /// The log has been replayed to its end: what has not taken place by now never will.
    pub fn settle(&mut self) {
        for op in &mut self.ops {
            if op.state == State::Unknown && op.seen.is_none() {
                op.state = State::Refused;
            }
        }
    }

    /// Whether somebody may still delete this key.
    pub fn is_deleting(&self, key: &[u8]) -> bool {
        self.ops.iter().rev().take(200).any(|op| {
            matches!(&op.ask, Ask::Delete { key: k } if k == key)
                && matches!(op.state, State::Waiting | State::Unknown)
                && op.seen.is_none()
        })
    }

    /// The revision of a key's last change, 0 if it does not exist.
    pub fn mod_revision(&self, key: &[u8]) -> i64 {
        match self.latest.get(key) {
            Some((at, Some(_))) => *at,
            _ => 0,
        }
    }

    /// A number that stands for all of it.
    pub fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut mix = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for ((main, sub), change) in &self.events {
            mix(&main.to_le_bytes());
            mix(&sub.to_le_bytes());
            mix(&change.key);
            mix(change.value.as_deref().unwrap_or(b"-"));
        }
        for op in &self.ops {
            mix(format!("{:?}{}", op.state, op.idle).as_bytes());
        }
        hash
    }
}
