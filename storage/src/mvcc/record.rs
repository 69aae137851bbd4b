//! The records of the two trees.
//!
//! Both are small heads of numbers in their shortest form ([`super::number`]), so that a store of
//! small values is not mostly records. What is near is told by its distance: a creation or the
//! event before lies a few million revisions back at most, the revision itself may be any number.
//!
//! ```text
//! event    flags 1 | key length | (create, version | lease) | (prev | jump | prev value length)
//!                  | key | value: the rest
//! latest   flags 1 | latest | (rank) | (create, version, value length | lease)
//!                  | digits: the rest
//! ```
//!
//! A record has one encoding; anything else is refused. docs/FORMAT.md has every field.

use super::Error;
use super::jump::{self, DIGIT_MAX, DIGITS_MAX, Digit, Digits};
use super::number::{Bytes, NUMBER_MAX, take_byte, take_number, take_u32};
use super::revision::Revision;
use crate::tree::TreeId;

/// The event deleted the key: nothing is told of creation, version and lease.
const TOMBSTONE: u8 = 1;
/// A lease is told.
const LEASE: u8 = 2;

/// Of events: there is one before it of the same key.
const PREV: u8 = 4;
/// The one before is not its transaction's first change: its number there is told.
const PREV_SUB: u8 = 8;
/// The value before was as long as this one; else its length is told.
const SAME_LEN: u8 = 16;
/// The jump leads to the event before.
const JUMP_PREV: u8 = 32;
/// The jump leads further back, and is told.
const JUMP: u8 = 64;
/// As [`PREV_SUB`], of the jump.
const JUMP_SUB: u8 = 128;

/// Of entries: the latest event is not its transaction's first change.
const LATEST_SUB: u8 = 4;
/// The first tree has more than one event: its rank is told.
const RANK: u8 = 8;

/// The most bytes of an event beside its key and value.
pub(super) const EVENT_HEAD_MAX: usize = 1 + 6 * NUMBER_MAX + 4 * 5;
/// The most bytes of an entry.
const LATEST_MAX: usize = 2 + 5 * NUMBER_MAX + 5 + DIGITS_MAX * DIGIT_MAX;

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

/// How far `to` lies behind `from`; any two numbers have a distance.
fn distance(from: i64, to: i64) -> u64 {
    from.wrapping_sub(to) as u64
}

fn back(from: i64, distance: u64) -> i64 {
    from.wrapping_sub(distance as i64)
}

impl EventFields {
    /// What precedes key and value of the event at `at`.
    pub fn head(&self, at: Revision, key_len: usize, value_len: usize) -> Bytes<EVENT_HEAD_MAX> {
        debug_assert!(self.prev < at && self.jump <= self.prev);
        debug_assert!(!self.tombstone || (self.create, self.version, self.lease) == (0, 0, 0));
        debug_assert!(!self.prev.is_none() || self.prev_value_len == 0);
        let has_prev = !self.prev.is_none();
        let same_len = has_prev && self.prev_value_len as usize == value_len;
        let jumps = !self.jump.is_none();
        let jumps_past = jumps && self.jump != self.prev;
        let mut flags = 0;
        for (flag, set) in [
            (TOMBSTONE, self.tombstone),
            (LEASE, self.lease != 0),
            (PREV, has_prev),
            (PREV_SUB, self.prev.sub != 0),
            (SAME_LEN, same_len),
            (JUMP_PREV, jumps && !jumps_past),
            (JUMP, jumps_past),
            (JUMP_SUB, jumps_past && self.jump.sub != 0),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut head = Bytes::new();
        head.byte(flags);
        head.number(key_len as u64);
        if !self.tombstone {
            head.number(distance(at.main, self.create));
            head.number(self.version as u64);
            if self.lease != 0 {
                head.number(self.lease as u64);
            }
        }
        if has_prev {
            head.number(distance(at.main, self.prev.main));
            if self.prev.sub != 0 {
                head.number(self.prev.sub.into());
            }
            if jumps_past {
                head.number(distance(self.prev.main, self.jump.main));
                if self.jump.sub != 0 {
                    head.number(self.jump.sub.into());
                }
            }
            if !same_len {
                head.number(self.prev_value_len.into());
            }
        }
        head
    }
}

/// Takes a revision that lies `distance` back off the front; one that is not there, or none at
/// all, is refused.
fn take_revision(from: i64, has_sub: bool, bytes: &mut &[u8]) -> Option<Revision> {
    let main = back(from, take_number(bytes)?);
    let sub = if has_sub { take_u32(bytes)? } else { 0 };
    (main > 0 && has_sub == (sub != 0)).then_some(Revision { main, sub })
}

/// An event read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventView<'v> {
    pub fields: EventFields,
    pub key: &'v [u8],
    pub value: &'v [u8],
}

impl<'v> EventView<'v> {
    /// Reads the event at `at`.
    pub fn decode(at: Revision, bytes: &'v [u8]) -> Result<EventView<'v>, Error> {
        Self::read(at, bytes).ok_or_else(|| {
            Error::corrupt(TreeId::Revision, &at.to_key(), "not the record of an event")
        })
    }

    fn read(at: Revision, bytes: &'v [u8]) -> Option<EventView<'v>> {
        let mut rest = bytes;
        let flags = take_byte(&mut rest)?;
        let has = |flag| flags & flag != 0;
        let (tombstone, has_prev) = (has(TOMBSTONE), has(PREV));
        let fits = !(tombstone && has(LEASE))
            && (has_prev || flags & (PREV_SUB | SAME_LEN | JUMP_PREV | JUMP) == 0)
            && !(has(JUMP_PREV) && has(JUMP))
            && (has(JUMP) || !has(JUMP_SUB));
        if !fits {
            return None;
        }
        let key_len = usize::try_from(take_number(&mut rest)?).ok()?;
        let (mut create, mut version, mut lease) = (0, 0, 0);
        if !tombstone {
            create = back(at.main, take_number(&mut rest)?);
            version = take_number(&mut rest)? as i64;
            if has(LEASE) {
                lease = take_number(&mut rest)? as i64;
            }
        }
        let (mut prev, mut jump) = (Revision::NONE, Revision::NONE);
        let mut told_len = None;
        if has_prev {
            prev = take_revision(at.main, has(PREV_SUB), &mut rest)?;
            if has(JUMP_PREV) {
                jump = prev;
            } else if has(JUMP) {
                jump = take_revision(prev.main, has(JUMP_SUB), &mut rest)?;
            }
            if !has(SAME_LEN) {
                told_len = Some(take_u32(&mut rest)?);
            }
        }
        let (key, value) = rest.split_at_checked(key_len)?;
        let value_len = u32::try_from(value.len()).ok()?;
        let prev_value_len = match told_len {
            Some(len) => len,
            None if has_prev => value_len,
            None => 0,
        };
        let one_form = has(LEASE) == (lease != 0)
            && told_len != Some(value_len)
            && prev < at
            && (!has(JUMP) || jump < prev);
        let fields = EventFields {
            create,
            version,
            lease,
            prev,
            jump,
            prev_value_len,
            tombstone,
        };
        one_form.then_some(EventView { fields, key, value })
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
    /// The whole entry.
    pub fn entry(&self, digits: &Digits) -> Bytes<LATEST_MAX> {
        let first = digits.first().expect("the latest event is in a tree");
        assert_eq!(
            first.root, self.latest,
            "the first tree's root is the latest event"
        );
        debug_assert!(
            !self.tombstone
                || (self.create, self.version, self.lease, self.value_len) == (0, 0, 0, 0)
        );
        let mut flags = 0;
        for (flag, set) in [
            (TOMBSTONE, self.tombstone),
            (LEASE, self.lease != 0),
            (LATEST_SUB, self.latest.sub != 0),
            (RANK, first.rank != 0),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut entry = Bytes::new();
        entry.byte(flags);
        entry.number(self.latest.main as u64);
        if self.latest.sub != 0 {
            entry.number(self.latest.sub.into());
        }
        if first.rank != 0 {
            entry.byte(first.rank);
        }
        if !self.tombstone {
            entry.number(distance(self.latest.main, self.create));
            entry.number(self.version as u64);
            entry.number(self.value_len.into());
            if self.lease != 0 {
                entry.number(self.lease as u64);
            }
        }
        let mut last = first;
        for &digit in digits.older() {
            digit.encode_after(last, &mut entry);
            last = digit;
        }
        entry
    }
}

/// A key's entry, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatestView<'v> {
    pub fields: LatestFields,
    first: Digit,
    /// The other digits, as stored; checked.
    older: &'v [u8],
}

impl<'v> LatestView<'v> {
    pub fn decode(key: &[u8], bytes: &'v [u8]) -> Result<LatestView<'v>, Error> {
        let wrong = |what| Error::corrupt(TreeId::Key, key, what);
        let view = Self::read(bytes).ok_or_else(|| wrong("not the record of a latest event"))?;
        if !jump::is_history(view.first, view.older) {
            return Err(wrong("an entry whose events are out of order"));
        }
        Ok(view)
    }

    fn read(bytes: &'v [u8]) -> Option<LatestView<'v>> {
        let mut rest = bytes;
        let flags = take_byte(&mut rest)?;
        let has = |flag| flags & flag != 0;
        let tombstone = has(TOMBSTONE);
        if flags & !(TOMBSTONE | LEASE | LATEST_SUB | RANK) != 0 || (tombstone && has(LEASE)) {
            return None;
        }
        let main = i64::try_from(take_number(&mut rest)?).ok()?;
        let sub = if has(LATEST_SUB) {
            take_u32(&mut rest)?
        } else {
            0
        };
        let latest = Revision { main, sub };
        let rank = if has(RANK) { take_byte(&mut rest)? } else { 0 };
        let (mut create, mut version, mut lease, mut value_len) = (0, 0, 0, 0);
        if !tombstone {
            create = back(main, take_number(&mut rest)?);
            version = take_number(&mut rest)? as i64;
            value_len = take_u32(&mut rest)?;
            if has(LEASE) {
                lease = take_number(&mut rest)? as i64;
            }
        }
        let one_form = main > 0
            && has(LATEST_SUB) == (sub != 0)
            && has(RANK) == (rank != 0)
            && has(LEASE) == (lease != 0);
        let fields = LatestFields {
            latest,
            create,
            version,
            lease,
            value_len,
            tombstone,
        };
        let first = Digit { root: latest, rank };
        one_form.then_some(LatestView {
            fields,
            first,
            older: rest,
        })
    }

    /// The roots of the trees of events, newest first; the first is the latest event.
    pub fn digits(&self) -> impl Iterator<Item = Digit> + use<'v> {
        let older = jump::older_than(self.first, self.older);
        // They were checked when the entry was read.
        std::iter::once(self.first).chain(older.map_while(Result::ok))
    }

    /// As `digits`, to be changed.
    pub fn copy_digits(&self, digits: &mut Digits) {
        digits.fill(self.digits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
    }

    /// Places in history.
    fn place() -> impl Strategy<Value = Revision> {
        let main = (1..i64::MAX, 0..63u32).prop_map(|(main, shift)| (main >> shift).max(1));
        (main, prop_oneof![Just(0), any::<u32>()]).prop_map(|(main, sub)| Revision { main, sub })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    /// Three places, the newest first; the older two may be none.
    fn places() -> impl Strategy<Value = [Revision; 3]> {
        let distinct = (place(), place(), place())
            .prop_filter("three places", |(a, b, c)| a != b && b != c && a != c);
        (distinct, 0..3usize, any::<bool>()).prop_map(|((a, b, c), none, same)| {
            let mut places = [a, b, c];
            places.sort();
            places.reverse();
            places[3 - none..].fill(Revision::NONE);
            if same {
                places[2] = places[1];
            }
            places
        })
    }

    fn event_fields() -> impl Strategy<Value = (Revision, EventFields)> {
        let told = (numbers(), numbers(), numbers(), 0..400u32);
        (places(), told, any::<bool>()).prop_map(|([at, prev, jump], told, tombstone)| {
            let (create, version, lease, len) = told;
            let (create, version, lease) = match tombstone {
                true => (0, 0, 0),
                false => (create, version, lease),
            };
            let fields = EventFields {
                create,
                version,
                lease,
                prev,
                jump,
                prev_value_len: if prev.is_none() { 0 } else { len },
                tombstone,
            };
            (at, fields)
        })
    }

    /// Digits of a history, by the rules.
    fn history(roots: Vec<Revision>, ranks: Vec<u8>) -> Vec<Digit> {
        let (mut roots, mut ranks) = (roots, ranks);
        roots.sort_by(|a, b| b.cmp(a));
        ranks.sort();
        let mut trees: Vec<Digit> = Vec::new();
        for (&root, &rank) in roots.iter().zip(&ranks) {
            let grows = trees
                .last()
                .is_none_or(|last| last.root > root && last.rank < rank);
            if grows || trees.len() == 1 && trees[0].root > root {
                trees.push(Digit { root, rank });
            }
        }
        trees
    }

    proptest! {
        #[test]
        fn an_event_is_read_back_and_has_one_form(
            (at, fields) in event_fields(),
            (key, value) in (bytes(), bytes()),
        ) {
            let head = fields.head(at, key.len(), value.len());
            let record = [head.as_slice(), &key, &value].concat();
            let view = EventView::decode(at, &record).unwrap();
            prop_assert_eq!(view, EventView { fields, key: &key, value: &value });
        }

        #[test]
        fn an_entry_is_read_back_and_has_one_form(
            (create, version, lease, value_len) in (numbers(), numbers(), numbers(), any::<u32>()),
            tombstone: bool,
            trees in prop::collection::vec((place(), 0..=62u8), 1..=DIGITS_MAX),
        ) {
            let (roots, ranks) = trees.into_iter().unzip();
            let trees = history(roots, ranks);
            let mut digits = Digits::new();
            digits.fill(trees.iter().copied());
            let latest = trees[0].root;
            let (create, version, lease, value_len) = match tombstone {
                true => (0, 0, 0, 0),
                false => (create, version, lease, value_len),
            };
            let fields = LatestFields { latest, create, version, lease, value_len, tombstone };
            let entry = fields.entry(&digits);
            let view = LatestView::decode(b"", entry.as_slice()).unwrap();
            prop_assert_eq!(view.fields, fields);
            prop_assert_eq!(view.digits().collect::<Vec<_>>(), trees);
            let mut copy = Digits::new();
            view.copy_digits(&mut copy);
            prop_assert_eq!((copy.first(), copy.older()), (digits.first(), digits.older()));
        }

        #[test]
        fn what_can_be_read_is_what_is_written(at in place(), mut bytes in bytes(), flags: u8) {
            if let Some(first) = bytes.first_mut() {
                *first = flags;
            }
            if let Ok(view) = EventView::decode(at, &bytes) {
                let head = view.fields.head(at, view.key.len(), view.value.len());
                prop_assert_eq!([head.as_slice(), view.key, view.value].concat(), bytes);
            } else if let Ok(view) = LatestView::decode(b"", &bytes) {
                let mut digits = Digits::new();
                view.copy_digits(&mut digits);
                let entry = view.fields.entry(&digits);
                prop_assert_eq!(entry.as_slice(), &bytes[..]);
            }
        }
    }

    fn example() -> (Revision, EventFields) {
        let fields = EventFields {
            create: 700,
            version: 3,
            lease: 9,
            prev: Revision { main: 999, sub: 1 },
            jump: Revision::first(700),
            prev_value_len: 4,
            tombstone: false,
        };
        (Revision::first(1000), fields)
    }

    fn example_entry() -> (LatestFields, Digits) {
        let latest = LatestFields {
            latest: Revision::first(1000),
            create: 700,
            version: 3,
            lease: 9,
            value_len: 5,
            tombstone: false,
        };
        let mut digits = Digits::new();
        let trees = [(1000, 0, 0), (999, 1, 0), (700, 0, 2)];
        let trees = trees.map(|(main, sub, rank)| Digit {
            root: Revision { main, sub },
            rank,
        });
        digits.fill(trees.into_iter());
        (latest, digits)
    }

    /// docs/FORMAT.md explains these bytes.
    #[test]
    fn golden_bytes() {
        let (at, fields) = example();
        let head = fields.head(at, 3, 5);
        let expected = [
            0x4e, // lease, a change before with a place in its transaction, a jump
            3,    // key length
            0xac, 2, // created 300 revisions before
            3, // version
            9, // lease
            1, 1, // the change before: 1 revision before, change 1
            0xab, 2, // jump: 299 before that
            4, // its value's length
        ];
        assert_eq!(head.as_slice(), expected);
        let (latest, digits) = example_entry();
        let expected = [
            0x02, // lease
            0xe8, 7, // revision 1000
            0xac, 2, // created 300 revisions before
            3, // version
            5, // value length
            9, // lease
            0x01, 1, 1, // a tree of the same rank: 1 revision before, change 1
            0x04, 0xab, 2, // a tree of a rank higher by 2: 299 before that
        ];
        assert_eq!(latest.entry(&digits).as_slice(), expected);
    }

    #[test]
    fn an_overwrite_after_a_compaction_takes_a_dozen_bytes() {
        let at = Revision::first(5_000_000);
        let fields = EventFields {
            create: 4_000_000,
            version: 1000,
            lease: 0,
            prev: Revision::first(4_900_000),
            jump: Revision::NONE,
            prev_value_len: 256,
            tombstone: false,
        };
        assert!(fields.head(at, 24, 256).as_slice().len() <= 12);
    }

    #[test]
    fn every_flipped_byte_of_a_record_decodes_or_is_refused() {
        let (at, fields) = example();
        let event = [fields.head(at, 3, 5).as_slice(), b"key", b"value"].concat();
        let (latest, digits) = example_entry();
        let entry = latest.entry(&digits).as_slice().to_vec();
        for (record, is_event) in [(event, true), (entry, false)] {
            for at_byte in 0..record.len() {
                for flip in 1..=255 {
                    let mut bad = record.clone();
                    bad[at_byte] ^= flip;
                    if is_event {
                        let _ = EventView::decode(at, &bad);
                    } else if let Ok(view) = LatestView::decode(b"", &bad) {
                        view.copy_digits(&mut Digits::new());
                    }
                }
            }
        }
        let head = fields.head(at, 3, 5).as_slice().len() + 3;
        let event = [fields.head(at, 3, 5).as_slice(), b"key", b"value"].concat();
        for len in 0..head {
            assert!(EventView::decode(at, &event[..len]).is_err());
        }
        for len in 0..8 {
            let entry = latest.entry(&digits);
            assert!(LatestView::decode(b"", &entry.as_slice()[..len]).is_err());
        }
    }

    #[test]
    fn an_event_that_leads_to_itself_or_before_history_is_refused() {
        let (at, fields) = example();
        let record = [fields.head(at, 3, 5).as_slice(), b"key", b"value"].concat();
        assert!(EventView::decode(Revision::first(1), &record).is_err());
        let at = Revision { main: 1000, sub: 1 };
        let fields = EventFields {
            prev: Revision::first(1000),
            ..fields
        };
        let record = [fields.head(at, 3, 5).as_slice(), b"key", b"value"].concat();
        assert!(EventView::decode(at, &record).is_ok());
        assert!(EventView::decode(Revision::first(1000), &record).is_err());
    }
}
