//! Leases: what the state tree knows of each, and which keys hang on it.
//!
//! A lease is a record in [`Space::LEASE`], under its id. The keys that hang on it are names in
//! [`Space::LEASE_KEY`], the lease's id and the key behind it, so that they are found in the
//! order of the keys. [`super::WriteTxn`] keeps these names in step with the keys: there is one
//! for each live key with a lease, and no other.

use super::state::{self, Space};
use super::{Error, Meta};
use crate::tree::{TreeId, TreeRead, TreeWrite};
use rkyv::rancor::Failure;

/// What a lease costs in [`Meta::live_bytes`].
pub const LEASE_COST: u64 = 128;

/// What is known of a lease, whichever member leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct LeaseRecord {
    /// The seconds that it was granted for, and that each renewal gives it; at least 1.
    pub ttl: i64,
    /// The seconds that it had left when that was last written down; 0: all of them.
    /// Invariant: less than `ttl`.
    pub remaining: i64,
    /// The index of the log entry that granted it. An id may be granted again after a revocation;
    /// this tells the one lease from the other.
    pub granted_at: u64,
}

const _: () = assert!(size_of::<ArchivedLeaseRecord>() == 24);

impl LeaseRecord {
    /// The seconds that a leader gives it who knows no more than the record.
    pub fn left(&self) -> i64 {
        match self.remaining {
            0 => self.ttl,
            remaining => remaining,
        }
    }

    fn decode(name: &[u8], bytes: &[u8]) -> Result<LeaseRecord, Error> {
        let wrong = |what| Error::corrupt(TreeId::State, &Space::LEASE.key(name), what);
        let record = rkyv::access::<ArchivedLeaseRecord, Failure>(bytes)
            .map_err(|_| wrong("not the archive of a lease"))?;
        let record = LeaseRecord {
            ttl: record.ttl.to_native(),
            remaining: record.remaining.to_native(),
            granted_at: record.granted_at.to_native(),
        };
        let fits = bytes.len() == size_of::<ArchivedLeaseRecord>()
            && record.ttl >= 1
            && (0..record.ttl).contains(&record.remaining);
        if fits {
            Ok(record)
        } else {
            Err(wrong("a lease with impossible times"))
        }
    }

    fn encode(&self) -> rkyv::util::AlignedVec {
        rkyv::to_bytes::<Failure>(self).expect("memory is the only thing it needs")
    }
}

fn id_of(name: &[u8]) -> Result<i64, Error> {
    let id = name.first_chunk::<8>().copied().map(i64::from_be_bytes);
    id.ok_or_else(|| Error::corrupt(TreeId::State, name, "the name of no lease"))
}

/// The lease of that id, if there is one.
pub fn get(tree: &impl TreeRead, id: i64) -> Result<Option<LeaseRecord>, Error> {
    let name = id.to_be_bytes();
    let bytes = state::get(tree, Space::LEASE, &name)?;
    bytes
        .map(|bytes| LeaseRecord::decode(&name, bytes))
        .transpose()
}

/// Makes a lease, which must not exist.
pub fn grant(
    tree: &mut impl TreeWrite,
    meta: &mut Meta,
    id: i64,
    record: &LeaseRecord,
) -> Result<(), Error> {
    meta.live_bytes += LEASE_COST;
    set(tree, id, record)
}

/// Writes down what has changed about a lease, which must exist.
pub fn set(tree: &mut impl TreeWrite, id: i64, record: &LeaseRecord) -> Result<(), Error> {
    state::put(tree, Space::LEASE, &id.to_be_bytes(), &record.encode())
}

/// Removes a lease that no key hangs on; says whether there was one.
pub fn remove(tree: &mut impl TreeWrite, meta: &mut Meta, id: i64) -> Result<bool, Error> {
    let was = state::remove(tree, Space::LEASE, &id.to_be_bytes())?;
    if was {
        let left = meta.live_bytes.checked_sub(LEASE_COST);
        meta.live_bytes = left.ok_or_else(|| {
            Error::corrupt(
                TreeId::State,
                &Space::LEASE.key(&id.to_be_bytes()),
                "more leases removed than were ever granted",
            )
        })?;
    }
    Ok(was)
}

/// Visits every lease.
pub fn all(tree: &impl TreeRead, visit: &mut dyn FnMut(i64, LeaseRecord)) -> Result<(), Error> {
    let mut failed = Ok(());
    state::scan(tree, Space::LEASE, b"", &mut |name, bytes| {
        let read = id_of(name).and_then(|id| Ok((id, LeaseRecord::decode(name, bytes)?)));
        match read {
            Ok((id, record)) => visit(id, record),
            Err(error) => failed = Err(error),
        }
        failed.is_ok()
    })?;
    failed
}

/// How many leases there are.
pub fn count(tree: &impl TreeRead) -> Result<u64, Error> {
    state::count(tree, Space::LEASE, b"")
}

/// How many keys hang on a lease.
pub fn key_count(tree: &impl TreeRead, id: i64) -> Result<u64, Error> {
    state::count(tree, Space::LEASE_KEY, &id.to_be_bytes())
}

/// Visits the keys that hang on a lease, ascending, from the first behind `after` on (empty: from
/// the very first), until `visit` says `false`.
pub fn keys(
    tree: &impl TreeRead,
    id: i64,
    after: &[u8],
    visit: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), Error> {
    let prefix = id.to_be_bytes();
    let mut from = key_name(id, after);
    if !after.is_empty() {
        from.push(0);
    }
    state::scan_from(tree, Space::LEASE_KEY, &from, &prefix, &mut |name, _| {
        visit(&name[prefix.len()..])
    })
}

/// A key hangs on a lease from now on.
pub(super) fn attach(tree: &mut impl TreeWrite, id: i64, key: &[u8]) -> Result<(), Error> {
    state::put(tree, Space::LEASE_KEY, &key_name(id, key), b"")
}

/// It does no more.
pub(super) fn detach(tree: &mut impl TreeWrite, id: i64, key: &[u8]) -> Result<(), Error> {
    let name = key_name(id, key);
    if state::remove(tree, Space::LEASE_KEY, &name)? {
        return Ok(());
    }
    let name = Space::LEASE_KEY.key(&name);
    Err(Error::corrupt(
        TreeId::State,
        &name,
        "a key is missing from its lease",
    ))
}

fn key_name(id: i64, key: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::WriteTxn;
    use crate::tree::model::ModelTree;

    const RECORD: LeaseRecord = LeaseRecord {
        ttl: 0x0102_0304,
        remaining: 0x0506,
        granted_at: 0x1112_1314_1516_1718,
    };

    /// docs/FORMAT.md states these bytes.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
        grant(&mut tree, &mut meta, 0x21, &RECORD).unwrap();
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        txn.put(b"key", b"value", 0x21).unwrap();
        txn.finish();
        let mut state = Vec::new();
        let all = crate::tree::Interval {
            start: b"",
            end: None,
        };
        tree.scan(TreeId::State, all, &mut |key, value| {
            state.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
        #[rustfmt::skip]
        let expected: &[(&[u8], &[u8])] = &[
            (
                &[1, 0, 0, 0, 0, 0, 0, 0, 0x21],
                &[
                    0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0,
                    0x06, 0x05, 0, 0, 0, 0, 0, 0,
                    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
                ],
            ),
            (&[2, 0, 0, 0, 0, 0, 0, 0, 0x21, b'k', b'e', b'y'], &[]),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(state, expected);
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_refused_or_read() {
        let good = RECORD.encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(record) = LeaseRecord::decode(b"", &bad) {
                assert_ne!(record, RECORD);
            }
        }
        for len in 0..good.len() {
            assert!(LeaseRecord::decode(b"", &good[..len]).is_err());
        }
    }

    #[test]
    fn keys_come_in_order_and_from_behind_a_key() {
        let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        for key in [&b"b"[..], b"a", b"a\0", b"\xff\xff"] {
            txn.put(key, b"", -1).unwrap();
        }
        txn.put(b"other", b"", i64::MAX).unwrap();
        txn.finish();
        let read = |after: &[u8]| {
            let mut keys = Vec::new();
            super::keys(&tree, -1, after, &mut |key| {
                keys.push(key.to_vec());
                true
            })
            .unwrap();
            keys
        };
        assert_eq!(read(b""), [&b"a"[..], b"a\0", b"b", b"\xff\xff"]);
        assert_eq!(read(b"a"), [&b"a\0"[..], b"b", b"\xff\xff"]);
        assert_eq!(read(b"\xff\xff"), Vec::<Vec<u8>>::new());
        assert_eq!(key_count(&tree, -1).unwrap(), 4);
        assert_eq!(key_count(&tree, i64::MAX).unwrap(), 1);
        assert_eq!(key_count(&tree, 0).unwrap(), 0);
    }
}
