//! What happened, as told by the states of the store: each revision's changes are the difference
//! between its state and the one before. Nothing of it comes from where watches read.

use quoin::api::{EventKind, OwnedKeyValue};
use quoin_storage::mvcc::{Horizon, View};
use quoin_storage::tree::{Interval, TreeRead};
use std::collections::BTreeMap;

type State = BTreeMap<Vec<u8>, OwnedKeyValue>;

/// One key's change.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: EventKind,
    /// Of a deletion: the key, and the revision.
    pub kv: OwnedKeyValue,
    pub before: Option<OwnedKeyValue>,
}

/// Every change that was ever published.
#[derive(Debug, Default)]
pub struct History {
    changes: BTreeMap<i64, Vec<Change>>,
    state: State,
    pub revision: i64,
    pub compacted: i64,
}

fn state<T: TreeRead>(view: &View<'_, T>, revision: i64) -> State {
    let mut state = State::new();
    let all = Interval {
        start: b"",
        end: None,
    };
    let visit = &mut |item: &quoin_storage::mvcc::Item<'_>| {
        let kv = item.key_value()?;
        let owned = OwnedKeyValue {
            key: kv.key.to_vec(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value.to_vec(),
            lease: kv.lease,
        };
        state.insert(owned.key.clone(), owned);
        Ok(true)
    };
    view.scan_at(all, revision, visit).expect("a sound tree");
    state
}

impl History {
    /// Takes in what was published since the last time.
    pub fn observe<T: TreeRead>(&mut self, tree: &T, horizon: Horizon) {
        assert!(horizon.revision >= self.revision, "the revision fell");
        let view = View::new(tree, horizon);
        for revision in self.revision.max(1) + 1..=horizon.revision {
            let now = state(&view, revision);
            let before = std::mem::replace(&mut self.state, now);
            let changes = difference(&before, &self.state, revision);
            assert!(!changes.is_empty(), "a revision without a change");
            self.changes.insert(revision, changes);
        }
        self.revision = horizon.revision;
        self.compacted = self.compacted.max(horizon.compacted);
    }

    /// The changes of these revisions, in order.
    pub fn between(&self, first: i64, last: i64) -> impl Iterator<Item = &Change> {
        // An empty interval is given with its ends in any order.
        let last = last.max(first - 1);
        self.changes.range(first..last + 1).flat_map(|(_, all)| all)
    }

    /// Whether that revision put that value.
    pub fn has_put(&self, revision: i64, key: &[u8], value: &[u8]) -> bool {
        let changes = self.changes.get(&revision);
        let put = |change: &Change| change.kv.key == key && change.kv.value == value;
        changes.is_some_and(|changes| changes.iter().any(put))
    }

    /// Revisions at which all of these keys were deleted together.
    pub fn len(&self) -> usize {
        self.changes.len()
    }
}

fn difference(before: &State, now: &State, revision: i64) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    // Transactions here put the larger key first.
    for (key, kv) in now.iter().rev() {
        if kv.mod_revision == revision {
            let before = before.get(key).cloned();
            let created = before.as_ref().map_or(revision, |kv| kv.create_revision);
            let version = before.as_ref().map_or(0, |kv| kv.version) + 1;
            assert_eq!((kv.create_revision, kv.version), (created, version));
            changes.push(Change {
                kind: EventKind::Put,
                kv: kv.clone(),
                before,
            });
        } else {
            assert_eq!(before.get(key), Some(kv), "it changed at another revision");
        }
    }
    for (key, kv) in before {
        if !now.contains_key(key) {
            changes.push(Change {
                kind: EventKind::Delete,
                kv: OwnedKeyValue {
                    key: key.clone(),
                    mod_revision: revision,
                    ..OwnedKeyValue::default()
                },
                before: Some(kv.clone()),
            });
        }
    }
    changes
}
