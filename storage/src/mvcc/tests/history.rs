//! A model that keeps every event for ever, random histories for it, and the comparison of a
//! store with it.

use crate::mvcc::{
    CountWalk, Error, Event, Horizon, KeyValue, Latest, Meta, Revision, View, WriteTxn, compact,
};
use crate::tree::{Interval, TreeId, TreeRead, TreeWrite};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One event, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub tombstone: bool,
    pub value: Vec<u8>,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
}

/// All that ever happened.
#[derive(Debug, Clone)]
pub struct Model {
    pub keys: BTreeMap<Vec<u8>, Vec<Change>>,
    pub revision: i64,
    pub compacted: i64,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            keys: BTreeMap::new(),
            revision: 1,
            compacted: -1,
        }
    }
}

impl Model {
    fn last(&self, key: &[u8], revision: i64) -> Option<&Change> {
        self.keys
            .get(key)?
            .iter()
            .rev()
            .find(|change| change.revision.main <= revision)
    }

    fn live(&self, key: &[u8], revision: i64) -> Option<&Change> {
        self.last(key, revision).filter(|change| !change.tombstone)
    }

    fn scan<'m>(&'m self, interval: Interval<'m>, revision: i64) -> Vec<(&'m [u8], &'m Change)> {
        let inside = |key: &[u8]| interval.start <= key && interval.end.is_none_or(|e| key < e);
        let keys = self.keys.keys().filter(|key| inside(key));
        keys.filter_map(|key| Some((&key[..], self.live(key, revision)?)))
            .collect()
    }

    fn push(&mut self, key: &[u8], at: Revision, put: Option<(&[u8], i64)>) {
        let before = self.live(key, i64::MAX).cloned();
        let (create, version) = match (&before, put) {
            (_, None) => (0, 0),
            (Some(before), _) => (before.create, before.version + 1),
            (None, _) => (at.main, 1),
        };
        let (value, lease) = put.unwrap_or_default();
        self.keys.entry(key.to_vec()).or_default().push(Change {
            revision: at,
            tombstone: put.is_none(),
            value: value.to_vec(),
            create,
            version,
            lease,
        });
    }

    /// The events that exist when all purging is done.
    fn retained(&self) -> BTreeMap<Revision, (&[u8], &Change)> {
        let mut retained = BTreeMap::new();
        for (key, changes) in &self.keys {
            for (change, next) in changes
                .iter()
                .zip(changes.iter().skip(1).map(Some).chain([None]))
            {
                let at = change.revision.main;
                let superseded = next.is_some_and(|next| next.revision.main <= self.compacted);
                let gone = change.tombstone && at < self.compacted;
                if at > self.compacted || !(superseded || gone) {
                    retained.insert(change.revision, (&key[..], change));
                }
            }
        }
        retained
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone)]
pub enum Op {
    Put { key: u8, value: u16, lease: i64 },
    PutKeep { key: u8, lease: i64 },
    Delete { key: u8 },
    DeleteInterval { from: u8, to: u8 },
    DeleteLease { lease: i64 },
}

/// One thing that happens to a store.
#[derive(Debug, Clone)]
pub enum Step {
    Txn(Vec<Op>),
    /// At this part (of 255) of the readable history.
    Compact(u8),
    Purge(u8),
    /// The tree's transaction ends here.
    Commit,
    /// It is dropped instead.
    Abort,
    /// The store is opened again from what was committed.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS;
    prop_oneof![
        6 => (key(), 0..2000u16, 0..3i64)
            .prop_map(|(key, value, lease)| Op::Put { key, value, lease }),
        1 => (key(), 0..3i64).prop_map(|(key, lease)| Op::PutKeep { key, lease }),
        3 => key().prop_map(|key| Op::Delete { key }),
        1 => (key(), key()).prop_map(|(from, to)| Op::DeleteInterval { from, to }),
        1 => (1..3i64).prop_map(|lease| Op::DeleteLease { lease }),
    ]
}

/// Random histories.
pub fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => prop::collection::vec(op(), 1..5).prop_map(Step::Txn),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => (1..8u8).prop_map(Step::Purge),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..len)
}

const KEYS: u8 = 12;

/// Keys of which some are prefixes of others, and one is long.
pub fn key(n: u8) -> Vec<u8> {
    match n % KEYS {
        0 => vec![b'k'; 700],
        n if n % 3 == 0 => vec![b'a', 0, n],
        n => [b'a', n].repeat(1 + n as usize % 2),
    }
}

fn value(n: u16) -> Vec<u8> {
    n.to_le_bytes().repeat(n as usize / 2)
}

/// Runs one transaction on the store and the model, and compares what each operation says and
/// what the transaction sees of itself.
pub fn transact<T: TreeWrite>(tree: &mut T, meta: &mut Meta, model: &mut Model, ops: &[Op]) {
    let main = model.revision + 1;
    let mut txn = WriteTxn::begin(tree, meta);
    let mut sub = 0;
    let mut next = || {
        sub += 1;
        Revision { main, sub: sub - 1 }
    };
    for op in ops {
        match *op {
            Op::Put {
                key: k,
                value: v,
                lease,
            } => {
                let before = model.live(&key(k), i64::MAX).cloned();
                let was = txn.put(&key(k), &value(v), lease).unwrap();
                assert_eq!(was, before.as_ref().map(latest));
                model.push(&key(k), next(), Some((&value(v), lease)));
            }
            Op::PutKeep { key: k, lease } => {
                let before = model.live(&key(k), i64::MAX).cloned();
                let was = txn.put_keep_value(&key(k), lease).unwrap();
                assert_eq!(was, before.as_ref().map(latest));
                if let Some(before) = before {
                    model.push(&key(k), next(), Some((&before.value, lease)));
                }
            }
            Op::Delete { key: k } => {
                let before = model.live(&key(k), i64::MAX).cloned();
                let was = txn.delete(&key(k)).unwrap();
                assert_eq!(was, before.as_ref().map(latest));
                if before.is_some() {
                    model.push(&key(k), next(), None);
                }
            }
            Op::DeleteLease { lease } => {
                let all = Interval {
                    start: b"",
                    end: None,
                };
                let keys: Vec<_> = model
                    .scan(all, i64::MAX)
                    .iter()
                    .filter(|(_, change)| change.lease == lease)
                    .map(|(key, _)| key.to_vec())
                    .collect();
                assert_eq!(txn.delete_lease_keys(lease).unwrap(), keys.len() as u64);
                for key in keys {
                    model.push(&key, next(), None);
                }
            }
            Op::DeleteInterval { from, to } => {
                let (from, to) = (key(from), key(to));
                let end = (to.len() < 700).then_some(&to[..]);
                let interval = Interval { start: &from, end };
                let expected: Vec<_> = model
                    .scan(interval, i64::MAX)
                    .iter()
                    .map(|(key, change)| (key.to_vec(), change.value.clone()))
                    .collect();
                let mut seen = Vec::new();
                let deleted = txn.delete_interval(interval, &mut |item| {
                    seen.push((item.key.to_vec(), item.value()?.to_vec()));
                    Ok(())
                });
                assert_eq!(deleted.unwrap(), expected.len() as u64);
                assert_eq!(seen, expected);
                for (key, _) in seen {
                    model.push(&key, next(), None);
                }
            }
        }
        see_itself(&txn, model, main);
    }
    let changed = txn.changed();
    assert_eq!(changed, sub > 0);
    if changed {
        model.revision = main;
        assert_eq!(txn.finish(), main);
    }
    assert_eq!(meta.revision, model.revision);
}

/// Inside a transaction: the newest state shows its writes, older revisions do not.
fn see_itself<T: TreeWrite>(txn: &WriteTxn<'_, T>, model: &Model, main: i64) {
    let view = txn.view();
    let newest = main - i64::from(!txn.changed());
    assert_eq!(view.horizon().revision, newest);
    for n in 0..KEYS {
        for revision in [0, newest, main - 1] {
            if revision >= model.compacted {
                let at = if revision == 0 { newest } else { revision };
                let expected = model.live(&key(n), at);
                let found = view.get_at(&key(n), revision).unwrap();
                assert_same(&key(n), found, expected);
            }
        }
    }
}

fn latest(change: &Change) -> Latest {
    Latest {
        revision: change.revision,
        create_revision: change.create,
        version: change.version,
        lease: change.lease,
        value_len: change.value.len() as u32,
    }
}

fn assert_same(key: &[u8], found: Option<KeyValue<'_>>, expected: Option<&Change>) {
    let expected = expected.map(|change| KeyValue {
        key,
        value: &change.value,
        create_revision: change.create,
        mod_revision: change.revision.main,
        version: change.version,
        lease: change.lease,
    });
    assert_eq!(found, expected);
}

/// Compacts both.
pub fn compact_both(meta: &mut Meta, model: &mut Model, part: u8) {
    let first = model.compacted + 1;
    let revision = first + (model.revision + 1 - first) * i64::from(part) / 255;
    match compact(meta, revision) {
        Ok(()) => model.compacted = revision,
        Err(Error::FutureRevision { current }) => {
            assert_eq!(current, model.revision);
            assert_eq!(revision, model.revision + 1);
        }
        Err(e) => panic!("{e}"),
    }
    let again = compact(meta, model.compacted);
    assert!(matches!(again, Err(Error::Compacted { compacted }) if compacted == model.compacted));
}

/// Compares everything that can be asked of a store.
pub fn check<T: TreeRead>(tree: &T, meta: &Meta, model: &Model) {
    let Horizon {
        revision,
        compacted,
        kept,
    } = meta.horizon();
    assert_eq!((revision, compacted), (model.revision, model.compacted));
    assert!(kept <= compacted && (kept == compacted || meta.purge_pending()));
    let view = View::new(tree, meta.horizon());
    for revision in model.compacted.max(1)..=model.revision {
        check_revision(&view, model, revision);
    }
    check_refusals(&view, model);
    check_events(&view, model);
    check_kept_events(&view, model);
    check_records(tree, meta, model);
}

fn check_revision<T: TreeRead>(view: &View<'_, T>, model: &Model, revision: i64) {
    for n in 0..KEYS {
        let expected = model.live(&key(n), revision);
        assert_same(&key(n), view.get_at(&key(n), revision).unwrap(), expected);
        if revision == model.revision {
            assert_eq!(view.latest(&key(n)).unwrap(), expected.map(latest));
        }
    }
    let (a, b) = (key(revision as u8), key((revision / 2) as u8));
    let all = Interval {
        start: b"",
        end: None,
    };
    let some = Interval {
        start: &a,
        end: Some(&b),
    };
    for interval in [all, some, Interval { end: None, ..some }] {
        let expected = model.scan(interval, revision);
        let count = expected.len() as u64;
        assert_eq!(view.count_at(interval, revision).unwrap(), count);
        // Whichever way it goes, however small the parts are, and if the way is given up.
        let begin = CountWalk::new(view, interval, revision).unwrap();
        for steps_max in [1, 7, u64::MAX] {
            for left in [u64::MAX, 5] {
                let mut walk = begin.clone();
                walk.go_by_keys(interval, left);
                assert_eq!(count_in_parts(view, interval, walk, steps_max), count);
            }
            let mut walk = begin.clone();
            walk.go_by_events();
            assert_eq!(count_in_parts(view, interval, walk, steps_max), count);
        }

        let mut found = expected.iter();
        view.scan_at(interval, revision, &mut |item| {
            let (key, change) = *found.next().expect("no key more than there are");
            assert_eq!(item.latest, latest(change));
            assert_same(key, Some(item.key_value()?), Some(change));
            Ok(true)
        })
        .unwrap();
        assert_eq!(found.next(), None);
        let mut found = expected.iter().rev().take(3);
        let mut left = expected.len().min(3);
        view.scan_back_at(interval, revision, &mut |item| {
            left -= 1;
            let (key, change) = *found.next().expect("no key more than asked for");
            assert_same(key, Some(item.key_value()?), Some(change));
            Ok(left > 0)
        })
        .unwrap();
        assert_eq!(found.next(), None);

        let mut keys: Vec<&[u8]> = expected.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(keys_in_parts(view, interval, revision, (false, 2)), keys);
        keys.reverse();
        assert_eq!(keys_in_parts(view, interval, revision, (true, 5)), keys);
    }
}

fn count_in_parts<T: TreeRead>(
    view: &View<'_, T>,
    interval: Interval<'_>,
    mut walk: CountWalk,
    steps_max: u64,
) -> u64 {
    loop {
        if let Some(count) = walk.step(view, interval, steps_max).unwrap() {
            return count;
        }
    }
}

/// Reads an interval in parts of so many entries; no part may give more.
fn keys_in_parts<T: TreeRead>(
    view: &View<'_, T>,
    interval: Interval<'_>,
    revision: i64,
    (back, entries_max): (bool, usize),
) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let (mut start, mut end) = (interval.start.to_vec(), interval.end.map(<[u8]>::to_vec));
    loop {
        let before = keys.len();
        let rest = Interval {
            start: &start,
            end: end.as_deref(),
        };
        let mut take_it = true;
        let next = view.scan_part(rest, revision, back, entries_max, &mut |item| {
            // Every third is left for the next part.
            take_it = keys.len() % 3 != 2 || keys.len() == before;
            if take_it {
                keys.push(item.key.to_vec());
            }
            Ok(take_it)
        });
        assert!(keys.len() - before <= entries_max);
        match next.unwrap() {
            None => return keys,
            Some(next) if back => end = Some([&next[..], b"\0"].concat()),
            Some(next) => start = next,
        }
    }
}

fn check_refusals<T: TreeRead>(view: &View<'_, T>, model: &Model) {
    let future = view.get_at(b"k", model.revision + 1);
    assert!(matches!(future, Err(Error::FutureRevision { current }) if current == model.revision));
    if model.compacted > 1 {
        let past = model.compacted - 1;
        let all = Interval {
            start: b"",
            end: None,
        };
        let refused = |e| matches!(e, Error::Compacted { compacted } if compacted == past + 1);
        assert!(view.get_at(b"k", past).is_err_and(refused));
        assert!(view.count_at(all, past).is_err_and(refused));
        assert!(
            view.scan_at(all, past, &mut |_| Ok(true))
                .is_err_and(refused)
        );
        assert!(
            view.events(Revision::first(past), &mut |_| Ok(true))
                .is_err_and(refused)
        );
    }
}

/// Every event since the compaction is there, with the link to the one before it.
fn check_events<T: TreeRead>(view: &View<'_, T>, model: &Model) {
    let all = model.retained();
    for from in [
        model.compacted,
        model.compacted + 1,
        (model.compacted + model.revision) / 2,
    ] {
        let from = Revision::first(from.max(1));
        let mut expected = all.range(from..);
        let mut one = |event: &Event<'_>| {
            let (at, (key, change)) = expected.next().expect("no event more than there are");
            assert_eq!(event.revision, *at);
            assert_eq!(event.tombstone, change.tombstone);
            assert_eq!(event.key, *key);
            if !event.tombstone {
                assert_same(key, Some(event.key_value()), Some(change));
            }
            let mut before = model.keys[*key]
                .iter()
                .rev()
                .skip_while(|c| c.revision >= *at);
            let before = before.next().map_or(Revision::NONE, |c| c.revision);
            // A key that vanished with its delete has no past when it comes back.
            let vanished = event.creates() && event.prev.is_none();
            assert!(event.prev == before || vanished && before.main < model.compacted);
            assert_eq!(view.event(*at)?, Some(*event));
            Ok(true)
        };
        let skip_superseded = model.compacted;
        view.events(from, &mut |event| {
            let kept = all.contains_key(&event.revision);
            assert!(kept || event.revision.main <= skip_superseded);
            if kept { one(event) } else { Ok(true) }
        })
        .unwrap();
        assert_eq!(expected.next(), None);
    }
}

/// From the kept revision on nothing is missing, whatever was compacted, except what a later
/// change of the same transaction superseded.
fn check_kept_events<T: TreeRead>(view: &View<'_, T>, model: &Model) {
    let kept = view.horizon().kept;
    let mut expected = Vec::new();
    for changes in model.keys.values() {
        let revisions = changes.iter().map(|change| change.revision);
        let mut last = revisions.clone().skip(1).map(Some).chain([None]);
        let stands = |at: &Revision| last.next().flatten().is_none_or(|n| n.main > at.main);
        expected.extend(revisions.filter(stands).filter(|at| at.main >= kept));
    }
    expected.sort();
    let mut found = Vec::new();
    let mut one = |event: &Event<'_>| {
        if expected.contains(&event.revision) {
            found.push(event.revision);
        }
        Ok(true)
    };
    let from = Revision::first(kept);
    view.kept_events(from, &mut one).unwrap();
    assert_eq!(found, expected);
    if kept > 0 {
        let before = view.kept_events(Revision::first(kept - 1), &mut |_| Ok(true));
        assert!(matches!(before, Err(Error::Compacted { .. })));
    }
}

/// Looks at the records themselves: sizes add up, and when the purge is done nothing is left
/// that should not be.
fn check_records<T: TreeRead>(tree: &T, meta: &Meta, model: &Model) {
    let all = Interval {
        start: b"",
        end: None,
    };
    let mut events = BTreeSet::new();
    let mut bytes = 0;
    tree.scan(TreeId::Revision, all, &mut |at, _| {
        let at = Revision::from_key(at).unwrap();
        let changes = model
            .keys
            .iter()
            .flat_map(|(key, all)| all.iter().map(move |c| (key, c)));
        let (key, change) = changes.clone().find(|(_, c)| c.revision == at).unwrap();
        bytes += (key.len() + change.value.len()) as u64 + crate::mvcc::EVENT_COST;
        events.insert(at);
        true
    })
    .unwrap();
    assert_eq!(meta.live_bytes, bytes);
    assert_eq!(
        tree.count(TreeId::Revision, all).unwrap(),
        events.len() as u64
    );
    let mut on_leases = Vec::new();
    for (key, change) in model.scan(all, i64::MAX) {
        if change.lease != 0 {
            on_leases.push([&[2][..], &change.lease.to_be_bytes(), key].concat());
        }
    }
    on_leases.sort();
    let mut names = Vec::new();
    tree.scan(TreeId::State, all, &mut |name, _| {
        names.push(name.to_vec());
        true
    })
    .unwrap();
    assert_eq!(names, on_leases);
    let retained = model.retained();
    assert!(retained.keys().all(|at| events.contains(at)));
    if !meta.purge_pending() {
        assert_eq!(events.len(), retained.len());
        let mut keys = BTreeSet::new();
        tree.scan(TreeId::Key, all, &mut |key, _| keys.insert(key.to_vec()))
            .unwrap();
        let expected: BTreeSet<_> = retained.values().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, expected);
    }
}
