//! One revision in the making.

use super::read::{Event, Item, Latest, View, entry_to_change, put_event};
use super::record::{EVENT_HEAD_MAX, EventFields, LatestFields};
use super::revision::KEY_LEN;
use super::{Error, Horizon, Meta, Revision, jump::Digits, lease};
use crate::tree::{Interval, TreeId, TreeWrite};

/// What an event costs beside its key and value, for [`Meta::live_bytes`]: its record and the
/// place of it, and about the same for its part of the key tree.
pub const EVENT_COST: u64 = 128;

const _: () = assert!(EVENT_HEAD_MAX + KEY_LEN <= EVENT_COST as usize);

/// How many keys, and how many bytes of them, an interval's deletion holds in memory.
const DELETE_SLICE_KEYS: usize = 256;
const DELETE_SLICE_BYTES: usize = 64 << 10;

/// A transaction that makes the revision after the newest, if it changes anything.
///
/// It keeps the keys of each lease in step with the keys; that the leases exist is the caller's
/// business.
///
/// Many of them, one after the other, share one transaction of the tree. One that has written
/// nothing may simply be dropped. After an error from the tree the tree's whole transaction must
/// be dropped, and the meta record be put back to what it was before.
#[derive(Debug)]
pub struct WriteTxn<'t, T> {
    tree: &'t mut T,
    meta: &'t mut Meta,
    /// The place of the next change.
    next: Revision,
}

impl<'t, T: TreeWrite> WriteTxn<'t, T> {
    /// Begins the next revision.
    pub fn begin(tree: &'t mut T, meta: &'t mut Meta) -> WriteTxn<'t, T> {
        let next = Revision::first(meta.revision + 1);
        WriteTxn { tree, meta, next }
    }

    /// Whether anything was written.
    pub fn changed(&self) -> bool {
        self.next.sub > 0
    }

    /// The newest revision as this transaction sees it: its own as soon as it has written.
    pub fn revision(&self) -> i64 {
        self.meta.revision + i64::from(self.changed())
    }

    /// Reads; sees what this transaction has written.
    pub fn view(&self) -> View<'_, T> {
        let horizon = Horizon {
            revision: self.revision(),
            ..self.meta.horizon()
        };
        View::new(self.tree, horizon)
    }

    /// The tree under it, for state that changes in the same transaction.
    pub fn tree(&mut self) -> &mut T {
        self.tree
    }

    /// Writes a key; returns what was there before.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<Option<Latest>, Error> {
        let mut digits = Digits::new();
        let before = self.before(key, &mut digits)?;
        self.put_after(key, value, lease, before, &mut digits)
    }

    /// Writes a key with the value it has, under another lease; `None`, and nothing is written,
    /// if the key does not exist.
    pub fn put_keep_value(&mut self, key: &[u8], lease: i64) -> Result<Option<Latest>, Error> {
        let mut digits = Digits::new();
        let before = self.before(key, &mut digits)?;
        let Some(live) = live(before) else {
            return Ok(None);
        };
        // Copied, since the tree cannot be read while it is changed.
        let value = put_event(self.tree, key, live.revision)?.value.to_vec();
        self.put_after(key, &value, lease, before, &mut digits)
    }

    fn put_after(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
        before: Option<LatestFields>,
        digits: &mut Digits,
    ) -> Result<Option<Latest>, Error> {
        let previous = live(before);
        let (create, version) = match previous {
            Some(live) => (live.create_revision, live.version + 1),
            None => (self.next.main, 1),
        };
        let after = LatestFields {
            latest: self.next,
            create,
            version,
            lease,
            value_len: value
                .len()
                .try_into()
                .expect("requests are limited far below 4 GiB"),
            tombstone: false,
        };
        self.record(key, value, before, after, digits)?;
        Ok(previous)
    }

    /// Deletes a key; returns what was there. Writes nothing if there was nothing.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<Latest>, Error> {
        let mut digits = Digits::new();
        let before = self.before(key, &mut digits)?;
        let previous = live(before);
        if previous.is_some() {
            let after = LatestFields {
                latest: self.next,
                create: 0,
                version: 0,
                lease: 0,
                value_len: 0,
                tombstone: true,
            };
            self.record(key, b"", before, after, &mut digits)?;
        }
        Ok(previous)
    }

    /// Deletes every key of an interval, in ascending order, and says how many there were. Shows
    /// each to `visit` before it goes. Memory is bounded, however many there are.
    pub fn delete_interval(
        &mut self,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let mut start = interval.start.to_vec();
        let mut deleted = 0;
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let (mut bytes, mut full) = (0, false);
            let rest = Interval {
                start: &start,
                end: interval.end,
            };
            self.view().scan_at(rest, 0, &mut |item| {
                visit(item)?;
                keys.push(item.key.to_vec());
                bytes += item.key.len();
                full = keys.len() >= DELETE_SLICE_KEYS || bytes >= DELETE_SLICE_BYTES;
                Ok(!full)
            })?;
            for key in &keys {
                let was = self.delete(key)?;
                debug_assert!(was.is_some(), "the scan has seen it live");
            }
            deleted += keys.len() as u64;
            match keys.pop() {
                Some(last) if full => {
                    start = last;
                    start.push(0);
                }
                _ => return Ok(deleted),
            }
        }
    }

    /// Deletes every key that hangs on a lease, in ascending order, and says how many there were.
    /// Memory is bounded, however many there are.
    pub fn delete_lease_keys(&mut self, id: i64) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let (mut bytes, mut full) = (0, false);
            lease::keys(self.tree, id, b"", &mut |key| {
                keys.push(key.to_vec());
                bytes += key.len();
                full = keys.len() >= DELETE_SLICE_KEYS || bytes >= DELETE_SLICE_BYTES;
                !full
            })?;
            for key in &keys {
                if self.delete(key)?.is_none() {
                    return Err(Error::corrupt(
                        TreeId::Key,
                        key,
                        "a lease has a key that does not exist",
                    ));
                }
            }
            deleted += keys.len() as u64;
            if !full {
                return Ok(deleted);
            }
        }
    }

    /// Ends the transaction; returns the newest revision, which has grown if anything changed.
    pub fn finish(self) -> i64 {
        self.meta.revision = self.revision();
        self.meta.revision
    }

    /// A key's entry as it is, and its trees of events.
    fn before(&mut self, key: &[u8], digits: &mut Digits) -> Result<Option<LatestFields>, Error> {
        let entry = entry_to_change(self.tree, key)?;
        if let Some(entry) = &entry {
            entry.copy_digits(digits);
        }
        Ok(entry.map(|entry| entry.fields))
    }

    /// Writes an event and the entry that it leaves behind.
    fn record(
        &mut self,
        key: &[u8],
        value: &[u8],
        before: Option<LatestFields>,
        after: LatestFields,
        digits: &mut Digits,
    ) -> Result<(), Error> {
        let jump = digits.push(self.next, self.meta.compacted);
        // A compacted delete counts as gone, whether or not the purge has come to it yet: what is
        // written must not depend on how far the purge is.
        let fields = EventFields {
            create: after.create,
            version: after.version,
            lease: after.lease,
            prev: before
                .filter(|before| !(before.tombstone && before.latest.main < self.meta.compacted))
                .map_or(Revision::NONE, |before| before.latest),
            jump,
            prev_value_len: before.map_or(0, |before| before.value_len),
            tombstone: after.tombstone,
        };
        let head = fields.head(self.next, key.len(), value.len());
        self.tree.insert(
            TreeId::Revision,
            &self.next.to_key(),
            &[head.as_slice(), key, value],
            true,
        )?;
        let entry = after.entry(digits);
        self.tree
            .insert(TreeId::Key, key, &[entry.as_slice()], !after.tombstone)?;
        let was = before.map_or(0, |before| before.lease);
        if was != after.lease {
            if was != 0 {
                lease::detach(self.tree, was, key)?;
            }
            if after.lease != 0 {
                lease::attach(self.tree, after.lease, key)?;
            }
        }
        self.meta.live_bytes += event_bytes(key.len(), value.len());
        self.next.sub = self
            .next
            .sub
            .checked_add(1)
            .expect("memory ends before 2^32 changes");
        Ok(())
    }
}

/// Writes a change that was made elsewhere, at its own place, which lies behind all others. Of
/// its key only what it says is known: the history before it may be gone.
pub fn restore_event<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    event: &Event<'_>,
) -> Result<(), Error> {
    let mut digits = Digits::new();
    let mut txn = WriteTxn {
        tree,
        meta,
        next: event.revision,
    };
    let before = txn.before(event.key, &mut digits)?;
    let after = LatestFields {
        latest: event.revision,
        create: event.create_revision,
        version: event.version,
        lease: event.lease,
        value_len: event
            .value
            .len()
            .try_into()
            .expect("requests are limited far below 4 GiB"),
        tombstone: event.tombstone,
    };
    txn.record(event.key, event.value, before, after, &mut digits)?;
    meta.revision = event.revision.main;
    Ok(())
}

/// What an event counts in [`Meta::live_bytes`].
pub(super) fn event_bytes(key_len: usize, value_len: usize) -> u64 {
    (key_len + value_len) as u64 + EVENT_COST
}

fn live(before: Option<LatestFields>) -> Option<Latest> {
    before.filter(|before| !before.tombstone).map(Latest::from)
}
