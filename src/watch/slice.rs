//! Events read from a pinned root, in place: whole revisions, within a budget.

use crate::api::{Event, EventKind, KeyValue};
use crate::limits;
use quoin_storage::mvcc::{self, Error, Revision, View};
use quoin_storage::tree::{TreeId, TreeRead};

/// What one read may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub events: usize,
    pub bytes: usize,
}

/// Events of some revisions in a row.
#[derive(Debug)]
pub(super) struct Slice<'v> {
    pub events: Vec<mvcc::Event<'v>>,
    /// Every event up to this revision has been read.
    pub through: i64,
    /// Bytes of their keys and values.
    pub bytes: usize,
}

/// What a read has found.
#[derive(Debug)]
pub(super) enum Read<'v> {
    /// Whole revisions; at least one, if there are any.
    Slice(Slice<'v>),
    /// The first revision alone has more events than may be held at a time.
    Oversized(i64),
}

/// Reads from the start of revision `from` on. `live` says that the reader was up to date when
/// history was compacted, and may therefore see what is not purged yet.
pub(super) fn read<'v, T: TreeRead>(
    view: &View<'v, T>,
    from: i64,
    live: bool,
    budget: Budget,
) -> Result<Read<'v>, Error> {
    let mut slice = Slice {
        events: Vec::new(),
        through: view.horizon().revision,
        bytes: 0,
    };
    let mut oversized = None;
    let mut one = |event: &mvcc::Event<'v>| {
        let at = event.revision.main;
        if let Some(last) = slice.events.last() {
            let spent = slice.events.len() >= budget.events || slice.bytes >= budget.bytes;
            if last.revision.main == at {
                let events = slice.events.len() >= limits::WATCH_REVISION_EVENTS_MAX;
                if events || slice.bytes >= limits::RESPONSE_BYTES_MAX {
                    oversized = Some(at);
                    return Ok(false);
                }
            } else if spent {
                slice.through = at - 1;
                return Ok(false);
            }
        }
        slice.bytes += event.key.len() + event.value.len();
        slice.events.push(*event);
        Ok(true)
    };
    let from = Revision::first(from);
    match live {
        true => view.kept_events(from, &mut one)?,
        false => view.events(from, &mut one)?,
    }
    if let Some(at) = oversized {
        slice.events.retain(|event| event.revision.main < at);
        if slice.events.is_empty() {
            return Ok(Read::Oversized(at));
        }
        slice.through = at - 1;
    }
    Ok(Read::Slice(slice))
}

/// An event as it is told.
pub(super) fn told<'v, T: TreeRead>(
    view: &View<'v, T>,
    event: &mvcc::Event<'v>,
    prev_kv: bool,
) -> Result<Event<'v>, Error> {
    let prev_kv = match prev_kv && !event.creates() {
        true => prev(view, event)?,
        false => None,
    };
    if event.tombstone {
        let kv = KeyValue {
            key: event.key,
            mod_revision: event.revision.main,
            ..KeyValue::default()
        };
        let kind = EventKind::Delete;
        return Ok(Event { kind, kv, prev_kv });
    }
    Ok(Event {
        kind: EventKind::Put,
        kv: pair(event),
        prev_kv,
    })
}

/// The pair before the revision of an event, unless it is purged. As in etcd what the revision
/// itself did to the key before the event does not count.
fn prev<'v, T: TreeRead>(
    view: &View<'v, T>,
    event: &mvcc::Event<'v>,
) -> Result<Option<KeyValue<'v>>, Error> {
    let wrong = |what| Error::Corrupt {
        tree: TreeId::Revision,
        key: event.key[..event.key.len().min(64)].into(),
        what,
    };
    // A revision changes a key as often as a transaction has operations, at most.
    let (mut at, mut direct) = (event.prev, true);
    loop {
        match view.event(at)? {
            Some(prev) if prev.key != event.key || direct && prev.tombstone => {
                return Err(wrong("an event that does not follow what it names"));
            }
            Some(prev) if prev.revision.main < event.revision.main => {
                return Ok((!prev.tombstone).then(|| pair(&prev)));
            }
            // The revision made the key.
            Some(prev) if prev.prev.is_none() => return Ok(None),
            Some(prev) => (at, direct) = (prev.prev, false),
            None if event.revision.main > view.horizon().compacted => {
                return Err(wrong("an event whose past is missing"));
            }
            None => return Ok(None),
        }
    }
}

fn pair<'v>(event: &mvcc::Event<'v>) -> KeyValue<'v> {
    KeyValue {
        key: event.key,
        create_revision: event.create_revision,
        mod_revision: event.revision.main,
        version: event.version,
        value: event.value,
        lease: event.lease,
    }
}
