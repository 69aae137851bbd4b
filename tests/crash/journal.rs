//! What clients know of the store: what was acknowledged, and what may have happened.

use quoin::api::OwnedKeyValue;
use std::collections::BTreeMap;

/// The state of a key: its value, if it exists. Values of these tests are unique.
pub type State = Option<Vec<u8>>;

/// One key as its only writer knows it.
#[derive(Debug, Default, Clone)]
pub struct Key {
    /// After the last acknowledged write, with that write's revision.
    acknowledged: State,
    revision: i64,
    /// A write without an answer.
    open: Option<State>,
}

/// The keys of one writer.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    keys: BTreeMap<Vec<u8>, Key>,
    /// The highest revision that any answer has named.
    pub newest: i64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
}

impl Journal {
    /// Whether a write to the key waits for an answer.
    pub fn is_open(&self, key: &[u8]) -> bool {
        self.keys.get(key).is_some_and(|key| key.open.is_some())
    }

    /// A write has been sent.
    pub fn sent(&mut self, key: &[u8], state: State) {
        let key = self.keys.entry(key.to_vec()).or_default();
        assert!(key.open.is_none(), "one write at a time for a key");
        key.open = Some(state);
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, key: &[u8], revision: i64) {
        let key = self.keys.get_mut(key).expect("it was sent");
        key.acknowledged = key.open.take().expect("it was open");
        key.revision = revision;
        self.newest = self.newest.max(revision);
        self.acknowledged += 1;
    }

    /// It was refused for certain.
    pub fn refused(&mut self, key: &[u8]) {
        self.keys.get_mut(key).expect("it was sent").open = None;
    }

    /// Holds what the restarted server shows against what is known, and settles what was open:
    /// the process that might have done it is gone.
    pub fn check(&mut self, pairs: &[OwnedKeyValue], revision: i64) {
        assert!(
            revision >= self.newest,
            "the revision fell from {} to {revision}",
            self.newest
        );
        let mut shown: BTreeMap<&[u8], &OwnedKeyValue> =
            pairs.iter().map(|kv| (kv.key.as_slice(), kv)).collect();
        for (name, key) in &mut self.keys {
            let found = shown.remove(name.as_slice());
            let value = found.map(|kv| kv.value.clone());
            let name = String::from_utf8_lossy(name).into_owned();
            if value == key.acknowledged && key.open != Some(value.clone()) {
                if let Some(kv) = found {
                    assert_eq!(kv.mod_revision, key.revision, "{name}: the revision moved");
                }
            } else {
                assert_eq!(
                    Some(&value),
                    key.open.as_ref(),
                    "{name}: acknowledged {:?} at revision {}",
                    key.acknowledged,
                    key.revision
                );
            }
            key.acknowledged = value;
            key.revision = found.map_or(key.revision, |kv| kv.mod_revision);
            key.open = None;
        }
        assert!(shown.is_empty(), "never written: {:?}", shown.keys());
        self.newest = revision;
    }
}
