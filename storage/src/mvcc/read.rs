//! Reads at any retained revision.

use super::record::{EventFields, EventView, LatestFields, LatestView};
use super::revision::KEY_LEN;
use super::{CountWalk, Error, Horizon, Revision};
use crate::tree::{Interval, TreeId, TreeRead, TreeWrite, WARM_KEYS};

/// A store as it stands in one root: its trees, and how far its history reaches.
///
/// Where a revision is asked for, 0 or less means the newest.
#[derive(Debug)]
pub struct View<'a, T> {
    tree: &'a T,
    horizon: Horizon,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

/// What the latest event of a live key left behind, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// The last change.
    pub revision: Revision,
    /// The revision of the key's creation.
    pub create_revision: i64,
    /// How often it was written since.
    pub version: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
    /// Bytes of the value.
    pub value_len: u32,
}

impl From<LatestFields> for Latest {
    fn from(fields: LatestFields) -> Latest {
        Latest {
            revision: fields.latest,
            create_revision: fields.create,
            version: fields.version,
            lease: fields.lease,
            value_len: fields.value_len,
        }
    }
}

/// A live key with its value, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValue<'v> {
    /// The key.
    pub key: &'v [u8],
    /// The value.
    pub value: &'v [u8],
    /// The revision of the key's creation.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// How often it was written since its creation.
    pub version: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
}

/// A live key in a scan; its value is looked up only when asked for.
#[derive(Clone, Copy)]
pub struct Item<'v> {
    /// The key.
    pub key: &'v [u8],
    /// All but the value.
    pub latest: Latest,
    source: Source<'v>,
}

#[derive(Clone, Copy)]
enum Source<'v> {
    Value(&'v [u8]),
    Tree(&'v dyn TreeRead),
}

impl<'v> Item<'v> {
    /// The value.
    pub fn value(&self) -> Result<&'v [u8], Error> {
        match self.source {
            Source::Value(value) => Ok(value),
            Source::Tree(tree) => {
                let at = self.latest.revision;
                let event = tree.get_near(TreeId::Revision, &at.to_key())?;
                Ok(put_of(self.key, at, event)?.value)
            }
        }
    }

    /// All of it.
    pub fn key_value(&self) -> Result<KeyValue<'v>, Error> {
        Ok(KeyValue {
            key: self.key,
            value: self.value()?,
            create_revision: self.latest.create_revision,
            mod_revision: self.latest.revision.main,
            version: self.latest.version,
            lease: self.latest.lease,
        })
    }

    fn of_event(revision: Revision, event: &EventView<'v>) -> Item<'v> {
        let value_len = event
            .value
            .len()
            .try_into()
            .expect("records are limited below 2 GiB");
        let latest = Latest {
            revision,
            create_revision: event.fields.create,
            version: event.fields.version,
            lease: event.fields.lease,
            value_len,
        };
        Item {
            key: event.key,
            latest,
            source: Source::Value(event.value),
        }
    }
}

/// One change, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'v> {
    /// Its place in history.
    pub revision: Revision,
    /// It deleted the key; then it has no value, version, creation or lease.
    pub tombstone: bool,
    /// The key.
    pub key: &'v [u8],
    /// The new value.
    pub value: &'v [u8],
    /// The revision of the key's creation.
    pub create_revision: i64,
    /// How often the key was written since.
    pub version: i64,
    /// The lease it hangs on since; 0 is none.
    pub lease: i64,
    /// The change of the same key before this one ([`Revision::NONE`] if there was none). It may
    /// be compacted.
    pub prev: Revision,
}

impl<'v> Event<'v> {
    /// Whether the key did not exist before this change.
    pub fn creates(&self) -> bool {
        !self.tombstone && self.version == 1
    }

    /// The pair that a put left behind.
    pub fn key_value(&self) -> KeyValue<'v> {
        KeyValue {
            key: self.key,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            lease: self.lease,
        }
    }

    fn of(revision: Revision, event: &EventView<'v>) -> Event<'v> {
        Event {
            revision,
            tombstone: event.fields.tombstone,
            key: event.key,
            value: event.value,
            create_revision: event.fields.create,
            version: event.fields.version,
            lease: event.fields.lease,
            prev: event.fields.prev,
        }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

impl<'a, T: TreeRead> View<'a, T> {
    /// The store in `tree`, whose meta record shows this horizon.
    pub fn new(tree: &'a T, horizon: Horizon) -> View<'a, T> {
        View { tree, horizon }
    }

    /// The tree under it, for state beside the keys.
    pub fn tree(&self) -> &'a T {
        self.tree
    }

    /// How far history reaches.
    pub fn horizon(&self) -> Horizon {
        self.horizon
    }

    /// The same store for who began to read before a compaction: readable as far back as the
    /// purge has not come.
    ///
    /// A purge that stands at a revision has removed what changes before it had superseded, and
    /// nothing else; so every read at that revision or later is whole.
    #[must_use]
    pub fn unpurged(&self) -> View<'a, T> {
        let horizon = Horizon {
            compacted: self.horizon.kept,
            ..self.horizon
        };
        View { horizon, ..*self }
    }

    /// The revision that a read asks for, if it is readable.
    pub fn resolve(&self, revision: i64) -> Result<i64, Error> {
        let Horizon {
            revision: current,
            compacted,
            ..
        } = self.horizon;
        if revision <= 0 {
            Ok(current)
        } else if revision > current {
            Err(Error::FutureRevision { current })
        } else if revision < compacted {
            Err(Error::Compacted { compacted })
        } else {
            Ok(revision)
        }
    }

    /// What a key's latest event left behind; `None` if the key does not exist.
    pub fn latest(&self, key: &[u8]) -> Result<Option<Latest>, Error> {
        let Some(entry) = entry(self.tree, key)? else {
            return Ok(None);
        };
        Ok((!entry.fields.tombstone).then(|| Latest::from(entry.fields)))
    }

    /// Has the processor fetch what reading the newest state of these keys will touch; see
    /// [`TreeRead::warm`].
    pub fn warm(&self, keys: &[&[u8]]) {
        let keys = &keys[..keys.len().min(WARM_KEYS)];
        self.tree.warm(TreeId::Key, keys);
        let mut revisions = [[0; KEY_LEN]; WARM_KEYS];
        let mut found = 0;
        for key in keys {
            // Whoever reads the key hears what is wrong with it.
            if let Ok(Some(entry)) = entry(self.tree, key)
                && !entry.fields.tombstone
            {
                revisions[found] = entry.fields.latest.to_key();
                found += 1;
            }
        }
        let mut names = [&[][..]; WARM_KEYS];
        for (name, revision) in names.iter_mut().zip(&revisions[..found]) {
            *name = revision;
        }
        self.tree.warm(TreeId::Revision, &names[..found]);
    }

    /// The newest state of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue<'a>>, Error> {
        self.get_at(key, 0)
    }

    /// The state of a key at a revision.
    pub fn get_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue<'a>>, Error> {
        let revision = self.resolve(revision)?;
        let Some(entry) = entry(self.tree, key)? else {
            return Ok(None);
        };
        let Some((at, event)) = event_at(self.tree, key, &entry, revision, &mut 0)? else {
            return Ok(None);
        };
        Ok(Some(Event::of(at, &event).key_value()))
    }

    /// Visits the live keys of an interval in ascending order until `visit` says `false`.
    pub fn scan_at(
        &self,
        interval: Interval<'_>,
        revision: i64,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.walk(
            interval,
            self.resolve(revision)?,
            Direction::Ascending,
            visit,
        )
    }

    /// As [`View::scan_at`], in descending order.
    pub fn scan_back_at(
        &self,
        interval: Interval<'_>,
        revision: i64,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.walk(
            interval,
            self.resolve(revision)?,
            Direction::Descending,
            visit,
        )
    }

    /// Visits the live keys of an interval, ascending or, if `back`, descending, and looks at no
    /// more than `entries_max` entries of the tree, those of deleted keys included.
    ///
    /// Returns the key at which to go on, and `None` at the end of the interval. If `visit` says
    /// `false` that is the key which it was given.
    pub fn scan_part(
        &self,
        interval: Interval<'_>,
        revision: i64,
        back: bool,
        entries_max: usize,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<bool, Error>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let revision = self.resolve(revision)?;
        let direction = match back {
            true => Direction::Descending,
            false => Direction::Ascending,
        };
        let (mut entries, mut rest) = (0, None);
        try_scan(self.tree, TreeId::Key, interval, direction, |key, entry| {
            if entries == entries_max.max(1) {
                rest = Some(key.to_vec());
                return Ok(false);
            }
            entries += 1;
            let item = self.item_at(key, entry, revision)?;
            let goes_on = item.map_or(Ok(true), |item| visit(&item))?;
            if !goes_on {
                rest = Some(key.to_vec());
            }
            Ok(goes_on)
        })?;
        Ok(rest)
    }

    fn walk(
        &self,
        interval: Interval<'_>,
        revision: i64,
        direction: Direction,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        try_scan(self.tree, TreeId::Key, interval, direction, |key, entry| {
            let item = self.item_at(key, entry, revision)?;
            item.map_or(Ok(true), |item| visit(&item))
        })
    }

    /// What an entry of the key tree shows at a revision; `None` if the key did not exist then.
    #[inline]
    fn item_at(
        &self,
        key: &'a [u8],
        entry: &'a [u8],
        revision: i64,
    ) -> Result<Option<Item<'a>>, Error> {
        let entry = LatestView::decode(key, entry)?;
        if entry.fields.latest.main > revision {
            let event = event_at(self.tree, key, &entry, revision, &mut 0)?;
            return Ok(event.map(|(at, event)| Item::of_event(at, &event)));
        }
        Ok((!entry.fields.tombstone).then(|| Item {
            key,
            latest: entry.fields.into(),
            source: Source::Tree(self.tree),
        }))
    }

    /// How many keys of an interval exist at a revision; exact. See [`CountWalk`] for what it costs.
    pub fn count_at(&self, interval: Interval<'_>, revision: i64) -> Result<u64, Error> {
        let mut walk = CountWalk::new(self, interval, revision)?;
        loop {
            if let Some(count) = walk.step(self, interval, u64::MAX)? {
                return Ok(count);
            }
        }
    }

    /// Visits all changes from `from` on, in their order, until `visit` says `false`. Changes at
    /// the oldest readable revision are there; those that it has made unreadable are not.
    pub fn events(
        &self,
        from: Revision,
        visit: &mut dyn FnMut(&Event<'a>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let compacted = self.horizon.compacted;
        if from.main < compacted {
            return Err(Error::Compacted { compacted });
        }
        self.events_from(from, visit)
    }

    /// As [`View::events`], for a cursor that was overtaken by a compaction whose purge has not
    /// come as far: every change is there from [`Horizon::kept`] on.
    pub fn kept_events(
        &self,
        from: Revision,
        visit: &mut dyn FnMut(&Event<'a>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if from.main < self.horizon.kept {
            let compacted = self.horizon.compacted;
            return Err(Error::Compacted { compacted });
        }
        self.events_from(from, visit)
    }

    fn events_from(
        &self,
        from: Revision,
        visit: &mut dyn FnMut(&Event<'a>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let current = self.horizon.revision;
        let start = Revision {
            main: from.main.max(0),
            ..from
        }
        .to_key();
        let end = Revision::first(current + 1).to_key();
        let since = Interval {
            start: &start,
            end: Some(&end),
        };
        try_scan(
            self.tree,
            TreeId::Revision,
            since,
            Direction::Ascending,
            |at, event| {
                let at = Revision::from_key(at)?;
                visit(&Event::of(at, &EventView::decode(at, event)?))
            },
        )
    }

    /// Visits what there is of history from `from` through a revision, however far the purge of
    /// the last compaction has come: until `visit` says `false`, or `events_max` were looked at.
    /// Returns the place at which to go on, and `None` at the end; if `visit` says `false` that
    /// is the place of the change which it was given.
    pub fn history_part(
        &self,
        from: Revision,
        through: i64,
        events_max: usize,
        visit: &mut dyn FnMut(&Event<'a>) -> Result<bool, Error>,
    ) -> Result<Option<Revision>, Error> {
        let through = through.min(self.horizon.revision);
        if through < 0 {
            return Ok(None);
        }
        let (start, end) = (from.to_key(), Revision::first(through + 1).to_key());
        let part = Interval {
            start: &start,
            end: Some(&end),
        };
        let (mut events, mut rest) = (0, None);
        try_scan(
            self.tree,
            TreeId::Revision,
            part,
            Direction::Ascending,
            |at, event| {
                let at = Revision::from_key(at)?;
                let event = EventView::decode(at, event)?;
                let goes_on = events < events_max.max(1) && visit(&Event::of(at, &event))?;
                events += 1;
                if !goes_on {
                    rest = Some(at);
                }
                Ok(goes_on)
            },
        )?;
        Ok(rest)
    }

    /// Whether a change is what its key was at a revision, which must be readable. A delete never
    /// is.
    pub fn stands_at(&self, event: &Event<'_>, revision: i64) -> Result<bool, Error> {
        let Some(entry) = entry(self.tree, event.key)? else {
            return Ok(false);
        };
        let found = event_at(self.tree, event.key, &entry, revision, &mut 0)?;
        Ok(found.is_some_and(|(at, _)| at == event.revision))
    }

    /// The change at one place of history; `None` if there is none, or not any more.
    pub fn event(&self, at: Revision) -> Result<Option<Event<'a>>, Error> {
        let key = at.to_key();
        let Some(event) = self.tree.get(TreeId::Revision, &key)? else {
            return Ok(None);
        };
        Ok(Some(Event::of(at, &EventView::decode(at, event)?)))
    }
}

/// Scans with errors; `visit` stops by `false` or by its error.
pub(super) fn try_scan<'v, T: TreeRead>(
    tree: &'v T,
    id: TreeId,
    interval: Interval<'_>,
    direction: Direction,
    mut visit: impl FnMut(&'v [u8], &'v [u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut end = Ok(());
    let mut step = |key: &'v [u8], value: &'v [u8]| {
        visit(key, value).unwrap_or_else(|e| {
            end = Err(e);
            false
        })
    };
    match direction {
        Direction::Ascending => tree.scan(id, interval, &mut step)?,
        Direction::Descending => tree.scan_back(id, interval, &mut step)?,
    }
    end
}

/// A key's entry.
pub(super) fn entry<'a, T: TreeRead + ?Sized>(
    tree: &'a T,
    key: &[u8],
) -> Result<Option<LatestView<'a>>, Error> {
    match tree.get(TreeId::Key, key)? {
        Some(entry) => LatestView::decode(key, entry).map(Some),
        None => Ok(None),
    }
}

/// Has the processor fetch what changing these keys will touch first; see [`TreeRead::warm`].
pub fn warm_keys<T: TreeRead>(tree: &T, keys: &[&[u8]]) {
    tree.warm(TreeId::Key, keys);
}

/// As [`entry`], for one who is about to change it.
pub(super) fn entry_to_change<'a, T: TreeWrite>(
    tree: &'a mut T,
    key: &[u8],
) -> Result<Option<LatestView<'a>>, Error> {
    match tree.get_to_change(TreeId::Key, key)? {
        Some(entry) => LatestView::decode(key, entry).map(Some),
        None => Ok(None),
    }
}

/// What was found where an event of this key must be.
fn event_of<'a>(key: &[u8], at: Revision, event: Option<&'a [u8]>) -> Result<EventView<'a>, Error> {
    let wrong = |what| Error::corrupt(TreeId::Revision, &at.to_key(), what);
    let event = event.ok_or_else(|| wrong("an event is missing"))?;
    let event = EventView::decode(at, event)?;
    if event.key != key {
        return Err(wrong("an event of another key"));
    }
    Ok(event)
}

/// As `event_of`, of a put.
fn put_of<'a>(key: &[u8], at: Revision, event: Option<&'a [u8]>) -> Result<EventView<'a>, Error> {
    let event = event_of(key, at, event)?;
    if event.fields.tombstone {
        return Err(Error::corrupt(
            TreeId::Revision,
            &at.to_key(),
            "a delete in a put's place",
        ));
    }
    Ok(event)
}

/// An event of this key that must be there.
fn key_event<'a, T: TreeRead + ?Sized>(
    tree: &'a T,
    key: &[u8],
    at: Revision,
) -> Result<EventView<'a>, Error> {
    event_of(key, at, tree.get(TreeId::Revision, &at.to_key())?)
}

/// As `key_event`, a put.
pub(super) fn put_event<'a, T: TreeRead + ?Sized>(
    tree: &'a T,
    key: &[u8],
    at: Revision,
) -> Result<EventView<'a>, Error> {
    put_of(key, at, tree.get(TreeId::Revision, &at.to_key())?)
}

/// The put that made the key what it was at `revision`; `None` if the key did not exist then.
/// Counts the events it had to look at into `steps`.
///
/// `revision` is readable: every event after it is there, and so is the last event of each key
/// up to it, unless that is a delete.
pub(super) fn event_at<'a, T: TreeRead + ?Sized>(
    tree: &'a T,
    key: &[u8],
    entry: &LatestView<'_>,
    revision: i64,
    steps: &mut u64,
) -> Result<Option<(Revision, EventView<'a>)>, Error> {
    let LatestFields {
        latest,
        create,
        version,
        tombstone,
        ..
    } = entry.fields;
    if latest.main <= revision {
        if tombstone {
            return Ok(None);
        }
        *steps += 1;
        return Ok(Some((latest, put_event(tree, key, latest)?)));
    }
    if !tombstone && create > revision {
        // If the events after the revision are those of the key's present life alone, it did not
        // exist before: the key's trees hold every event after the compacted revision.
        let known = entry
            .digits()
            .fold(0u64, |sum, digit| sum.saturating_add(digit.weight()));
        if u64::try_from(version) == Ok(known) {
            return Ok(None);
        }
    }
    let roots = entry.digits().map(|digit| digit.root);
    let mut at = roots
        .take_while(|root| root.main > revision)
        .last()
        .unwrap_or(latest);
    loop {
        *steps += 1;
        let event = key_event(tree, key, at)?;
        let EventFields { prev, jump, .. } = event.fields;
        let next = if jump.main > revision { jump } else { prev };
        if next >= at {
            let what = "an event whose past lies in its future";
            return Err(Error::corrupt(TreeId::Revision, &at.to_key(), what));
        }
        if next.main > revision {
            at = next;
            continue;
        }
        // `prev` is the last event up to the revision. What precedes a creation is nothing, or a
        // delete that may be purged already.
        if event.creates() || prev.is_none() {
            return Ok(None);
        }
        *steps += 1;
        return Ok(Some((prev, put_event(tree, key, prev)?)));
    }
}
