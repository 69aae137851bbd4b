//! The records of the two trees, as rkyv archives of one canonical layout.
//!
//! Archived numbers are little-endian and have alignment 1, so an archive is its byte vectors in
//! the order of the fields, then the fields back to back, the vectors as (offset, length):
//!
//! ```text
//! event    key | value | create 8 | version 8 | lease 8 | prev 12 | jump 12
//!                      | prev value length 4 | flags 1 | key ref 8 | value ref 8
//! latest   digits (main 8, sub 4, rank 1 each) | latest 12 | create 8 | version 8 | lease 8
//!                      | value length 4 | flags 1 | rank 1 | digits ref 8
//! ```
//!
//! The writer makes the part behind the vectors by hand, so that keys and values go from the
//! request into the page without a copy in between; a test holds it equal to what rkyv writes.
//! Reading goes through rkyv's checked access.

use super::jump::{ArchivedDigit, DIGIT, DIGITS_MAX, Digit, Digits};
use super::revision::Revision;
use super::{Error, jump};
use crate::tree::TreeId;
use rkyv::rancor::Failure;

/// Set if the event deleted the key.
const TOMBSTONE: u8 = 1;

/// An event of the revision tree.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct EventRecord {
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub prev: Revision,
    pub jump: Revision,
    pub prev_value_len: u32,
    pub flags: u8,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// An entry of the key tree: what the key's latest event left behind.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct LatestRecord {
    pub latest: Revision,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub value_len: u32,
    pub flags: u8,
    /// Of the first tree, whose root is `latest`.
    pub rank: u8,
    /// The other trees, newest first.
    pub digits: Vec<Digit>,
}

/// Bytes of an event beside its key and value.
pub(super) const EVENT_ROOT: usize = size_of::<ArchivedEventRecord>();
const LATEST_ROOT: usize = size_of::<ArchivedLatestRecord>();

const _: () = assert!(EVENT_ROOT == 69 && align_of::<ArchivedEventRecord>() == 1);
const _: () = assert!(LATEST_ROOT == 50 && align_of::<ArchivedLatestRecord>() == 1);

/// Fills a record of fixed size from front to back.
struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    fn new() -> Self {
        Fields {
            bytes: [0; N],
            at: 0,
        }
    }

    fn put<const M: usize>(&mut self, field: [u8; M]) {
        self.bytes[self.at..][..M].copy_from_slice(&field);
        self.at += M;
    }

    fn put_revision(&mut self, r: Revision) {
        self.put(r.main.to_le_bytes());
        self.put(r.sub.to_le_bytes());
    }

    /// Refers to a vector that starts `back` bytes before this record.
    fn put_vector(&mut self, back: usize, len: usize) {
        let offset = back + self.at;
        let offset = i32::try_from(offset).expect("records are limited far below 2 GiB");
        let len = u32::try_from(len).expect("shorter than the record");
        self.put((-offset).to_le_bytes());
        self.put(len.to_le_bytes());
    }

    fn finish(self) -> [u8; N] {
        assert_eq!(self.at, N, "every field was written");
        self.bytes
    }
}

/// All of an event but the bytes of key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventFields {
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub prev: Revision,
    pub jump: Revision,
    pub prev_value_len: u32,
    pub tombstone: bool,
}

impl EventFields {
    /// What follows key and value.
    pub fn root(&self, key_len: usize, value_len: usize) -> [u8; EVENT_ROOT] {
        let mut fields = Fields::<EVENT_ROOT>::new();
        fields.put(self.create.to_le_bytes());
        fields.put(self.version.to_le_bytes());
        fields.put(self.lease.to_le_bytes());
        fields.put_revision(self.prev);
        fields.put_revision(self.jump);
        fields.put(self.prev_value_len.to_le_bytes());
        fields.put([if self.tombstone { TOMBSTONE } else { 0 }]);
        fields.put_vector(key_len + value_len, key_len);
        fields.put_vector(value_len, value_len);
        fields.finish()
    }
}

/// An event read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventView<'v> {
    pub fields: EventFields,
    pub key: &'v [u8],
    pub value: &'v [u8],
}

impl<'v> EventView<'v> {
    pub fn decode(at: &[u8], bytes: &'v [u8]) -> Result<EventView<'v>, Error> {
        let wrong = |what| Error::corrupt(TreeId::Revision, at, what);
        let record = rkyv::access::<ArchivedEventRecord, Failure>(bytes)
            .map_err(|_| wrong("not the archive of an event"))?;
        let (key, value) = (record.key.as_slice(), record.value.as_slice());
        if key.len() + value.len() + EVENT_ROOT != bytes.len() {
            return Err(wrong("an event with bytes that belong to nothing"));
        }
        if record.flags & !TOMBSTONE != 0 {
            return Err(wrong("an event with unknown flags"));
        }
        let fields = EventFields {
            create: record.create.to_native(),
            version: record.version.to_native(),
            lease: record.lease.to_native(),
            prev: Revision::from(&record.prev),
            jump: Revision::from(&record.jump),
            prev_value_len: record.prev_value_len.to_native(),
            tombstone: record.flags & TOMBSTONE != 0,
        };
        if fields.jump > fields.prev {
            return Err(wrong("an event that jumps forward"));
        }
        Ok(EventView { fields, key, value })
    }

    /// Whether the event made a key exist that did not exist before it.
    pub fn creates(&self) -> bool {
        !self.fields.tombstone && self.fields.version == 1
    }
}

/// The fixed part of a key's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LatestFields {
    pub latest: Revision,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub value_len: u32,
    pub tombstone: bool,
}

impl LatestFields {
    /// What follows the digits of the older trees.
    pub fn root(&self, digits: &Digits) -> [u8; LATEST_ROOT] {
        let first = digits.first().expect("the latest event is in a tree");
        assert_eq!(
            first.root, self.latest,
            "the first tree's root is the latest event"
        );
        let older = digits.older().len();
        let mut root = Fields::<LATEST_ROOT>::new();
        root.put_revision(self.latest);
        root.put(self.create.to_le_bytes());
        root.put(self.version.to_le_bytes());
        root.put(self.lease.to_le_bytes());
        root.put(self.value_len.to_le_bytes());
        root.put([if self.tombstone { TOMBSTONE } else { 0 }]);
        root.put([first.rank]);
        root.put_vector(older, older / DIGIT);
        root.finish()
    }
}

/// A key's entry, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatestView<'v> {
    pub fields: LatestFields,
    rank: u8,
    older: &'v [ArchivedDigit],
    /// The same: all of the entry's bytes before its root.
    older_bytes: &'v [u8],
}

impl<'v> LatestView<'v> {
    pub fn decode(key: &[u8], bytes: &'v [u8]) -> Result<LatestView<'v>, Error> {
        let wrong = |what| Error::corrupt(TreeId::Key, key, what);
        let record = rkyv::access::<ArchivedLatestRecord, Failure>(bytes)
            .map_err(|_| wrong("not the archive of a key's latest event"))?;
        let older = record.digits.as_slice();
        if older.len() * DIGIT + LATEST_ROOT != bytes.len() || older.len() >= DIGITS_MAX {
            return Err(wrong("an entry of the wrong length"));
        }
        if record.flags & !TOMBSTONE != 0 {
            return Err(wrong("an entry with unknown flags"));
        }
        let fields = LatestFields {
            latest: Revision::from(&record.latest),
            create: record.create.to_native(),
            version: record.version.to_native(),
            lease: record.lease.to_native(),
            value_len: record.value_len.to_native(),
            tombstone: record.flags & TOMBSTONE != 0,
        };
        if fields.latest.main <= 0 {
            return Err(wrong("an entry without an event"));
        }
        let first = Digit {
            root: fields.latest,
            rank: record.rank,
        };
        if !jump::is_history(first, older.iter().map(Digit::from)) {
            return Err(wrong("an entry whose events are out of order"));
        }
        Ok(LatestView {
            fields,
            rank: record.rank,
            older,
            older_bytes: &bytes[..older.len() * DIGIT],
        })
    }

    /// The roots of the trees of events, newest first; the first is the latest event.
    pub fn digits(&self) -> impl Iterator<Item = Digit> + use<'v> {
        let first = Digit {
            root: self.fields.latest,
            rank: self.rank,
        };
        std::iter::once(first).chain(self.older.iter().map(Digit::from))
    }

    /// As `digits`, to be changed.
    pub fn copy_digits(&self, digits: &mut Digits) {
        let first = Digit {
            root: self.fields.latest,
            rank: self.rank,
        };
        digits.fill(first, self.older_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn revision() -> impl Strategy<Value = Revision> {
        (1..i64::MAX, any::<u32>()).prop_map(|(main, sub)| Revision { main, sub })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    /// All but the first, archived.
    fn older(trees: &[Digit]) -> Vec<u8> {
        let trees = trees[1..].iter();
        trees
            .flat_map(|digit| rkyv::to_bytes::<Failure>(digit).unwrap().to_vec())
            .collect()
    }

    proptest! {
        #[test]
        fn an_event_in_parts_is_what_rkyv_writes(
            numbers in (any::<i64>(), any::<i64>(), any::<i64>(), any::<u32>()),
            (a, b) in (revision(), revision()),
            tombstone: bool,
            (key, value) in (bytes(), bytes()),
        ) {
            let (create, version, lease, prev_value_len) = numbers;
            let (prev, jump) = (a.max(b), a.min(b));
            let fields =
                EventFields { create, version, lease, prev, jump, prev_value_len, tombstone };
            let root = fields.root(key.len(), value.len());
            let parts = [&key[..], &value[..], &root[..]].concat();
            let record = EventRecord {
                create, version, lease, prev, jump, prev_value_len, flags: tombstone as u8,
                key: key.clone(), value: value.clone(),
            };
            prop_assert_eq!(&parts[..], &rkyv::to_bytes::<Failure>(&record).unwrap()[..]);
            let view = EventView::decode(b"", &parts).unwrap();
            prop_assert_eq!(view, EventView { fields, key: &key, value: &value });
        }

        #[test]
        fn an_entry_in_parts_is_what_rkyv_writes(
            (create, version, lease, value_len) in
                (any::<i64>(), any::<i64>(), any::<i64>(), any::<u32>()),
            tombstone: bool,
            trees in prop::collection::vec((revision(), 0..=62u8), 1..=DIGITS_MAX),
        ) {
            let (mut roots, mut ranks): (Vec<_>, Vec<_>) = trees.into_iter().unzip();
            roots.sort_by(|a, b| b.cmp(a));
            ranks.sort();
            let mut trees: Vec<Digit> = Vec::new();
            for (&root, &rank) in roots.iter().zip(&ranks) {
                let grows = trees.last().is_none_or(|last| last.root > root && last.rank < rank);
                if grows || trees.len() == 1 && trees[0].root > root {
                    trees.push(Digit { root, rank });
                }
            }
            let mut digits = Digits::new();
            digits.fill(trees[0], &older(&trees));
            let latest = trees[0].root;
            let fields = LatestFields { latest, create, version, lease, value_len, tombstone };
            let parts = [digits.older(), &fields.root(&digits)].concat();
            let record = LatestRecord {
                latest, create, version, lease, value_len,
                flags: tombstone as u8,
                rank: trees[0].rank,
                digits: trees[1..].to_vec(),
            };
            prop_assert_eq!(&parts[..], &rkyv::to_bytes::<Failure>(&record).unwrap()[..]);
            let view = LatestView::decode(b"", &parts).unwrap();
            prop_assert_eq!(view.fields, fields);
            prop_assert_eq!(view.digits().collect::<Vec<_>>(), trees);
            let mut copy = Digits::new();
            view.copy_digits(&mut copy);
            prop_assert_eq!((copy.first(), copy.older()), (digits.first(), digits.older()));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in bytes()) {
            let _ = EventView::decode(b"", &bytes);
            let _ = LatestView::decode(b"", &bytes);
        }
    }

    #[test]
    fn every_flipped_byte_of_a_record_decodes_or_is_refused() {
        let prev = Revision { main: 3, sub: 1 };
        let fields = EventFields {
            create: 1,
            version: 2,
            lease: 3,
            prev,
            jump: prev,
            prev_value_len: 4,
            tombstone: false,
        };
        let good = [&b"key"[..], b"value", &fields.root(3, 5)].concat();
        let latest = LatestFields {
            latest: prev,
            create: 1,
            version: 2,
            lease: 3,
            value_len: 5,
            tombstone: false,
        };
        let mut digits = Digits::new();
        let second = Digit {
            root: Revision::first(2),
            rank: 0,
        };
        digits.fill(
            Digit {
                root: prev,
                rank: 0,
            },
            &older(&[second, second]),
        );
        let entry = [digits.older(), &latest.root(&digits)].concat();
        for (record, is_event) in [(good, true), (entry, false)] {
            for at in 0..record.len() {
                for flip in 1..=255 {
                    let mut bad = record.clone();
                    bad[at] ^= flip;
                    if is_event {
                        let _ = EventView::decode(b"", &bad);
                    } else if let Ok(view) = LatestView::decode(b"", &bad) {
                        view.copy_digits(&mut Digits::new());
                    }
                }
            }
            for len in 0..record.len() {
                assert!(EventView::decode(b"", &record[..len]).is_err());
                assert!(LatestView::decode(b"", &record[..len]).is_err());
            }
        }
    }
}
