//! Watches: what is asked of a watch stream, and what it says.
//!
//! A stream carries any number of watches, each with an id of its own on that stream.

use super::{KeyValue, OwnedKeyValue};

/// What a client asks of a watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchRequest<'a> {
    /// Begin a watch.
    Create(WatchCreate<'a>),
    /// End a watch; one that does not exist is passed over in silence.
    Cancel {
        /// The watch.
        watch_id: i64,
    },
    /// Say up to which revision everything has been said; passed over in silence unless every
    /// watch of the stream is up to date.
    Progress,
    /// End the stream.
    Close,
}

/// Begins a watch of a key or an interval of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchCreate<'a> {
    /// First key; empty is the smallest one, a zero byte.
    pub key: &'a [u8],
    /// As in [`super::RangeRequest::range_end`].
    pub range_end: &'a [u8],
    /// The first revision to tell of; 0 means the next one.
    pub start_revision: i64,
    /// The id to give it; 0 lets the server choose, from 0 on.
    pub watch_id: i64,
    /// Tell each pair as it was before the event's revision, too.
    pub prev_kv: bool,
    /// Tell from time to time how far the watch has come, if nothing else is told.
    pub progress_notify: bool,
    /// Events of one revision may come in several parts, if they are too large for one.
    pub fragment: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletes.
    pub no_delete: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key, as read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The pair that a put left behind. Of a delete: the key, and the delete's revision as
    /// `mod_revision`.
    pub kv: KeyValue<'a>,
    /// The pair as it was before the event's revision, if asked for; none if there was none, if
    /// the event created the key, or if history has been compacted up to here.
    pub prev_kv: Option<KeyValue<'a>>,
}

impl Event<'_> {
    /// Whether a put made a key exist that did not exist before.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }

    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> OwnedEvent {
        OwnedEvent {
            kind: self.kind,
            kv: self.kv.to_owned(),
            prev_kv: self.prev_kv.map(|kv| kv.to_owned()),
        }
    }
}

/// One change of one key, owned; fields as in [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Event")]
pub struct OwnedEvent {
    pub kind: EventKind,
    pub kv: OwnedKeyValue,
    pub prev_kv: Option<OwnedKeyValue>,
}

impl OwnedEvent {
    /// The event, borrowed.
    pub fn borrow(&self) -> Event<'_> {
        Event {
            kind: self.kind,
            kv: self.kv.borrow(),
            prev_kv: self.prev_kv.as_ref().map(OwnedKeyValue::borrow),
        }
    }
}

/// What a watch stream says, without the header. Its revision is the store's when the watch was
/// created; of events, theirs or a later one; of progress, the one up to which everything has
/// been said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchResponse {
    /// The watch exists; said before anything else about it.
    Created {
        /// Its id.
        watch_id: i64,
    },
    /// A watch was not created.
    Refused {
        /// Why: etcd's text.
        reason: String,
    },
    /// Something happened.
    Events {
        /// The watches that it is for.
        watch_ids: Vec<i64>,
        /// In the order of history. Changes of one revision are never parted, unless the watch
        /// allowed it.
        events: Vec<OwnedEvent>,
        /// More changes of the last revision follow.
        fragment: bool,
    },
    /// A watch is over.
    Cancelled {
        /// Which.
        watch_id: i64,
        /// Not 0: it fell behind a compaction, and this is the oldest revision to watch from.
        compact_revision: i64,
        /// Why, if neither the client nor a compaction ended it.
        reason: String,
    },
    /// Everything up to the header's revision has been said.
    Progress {
        /// Of these watches; empty: of all of the stream.
        watch_ids: Vec<i64>,
    },
    /// The stream is over.
    Closed,
}

/// Why a watch was not created, or why the server ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchRefusal {
    /// The interval ends before it begins.
    EmptyRange,
    /// The stream has a watch of that id.
    DuplicateId,
    /// The start revision is negative.
    Compacted,
    /// There are as many watches as may be.
    TooMany,
    /// The events of one revision are more than any message may hold.
    TooLarge,
    /// Stored data does not match its checksum.
    Corrupt,
}

impl WatchRefusal {
    /// The text that etcd's clients know, where etcd has the case.
    pub fn reason(self) -> &'static str {
        match self {
            WatchRefusal::EmptyRange => "mvcc: watcher range is empty",
            WatchRefusal::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            WatchRefusal::Compacted => super::Error::Compacted.message(),
            WatchRefusal::TooMany => super::Error::TooManyRequests.message(),
            WatchRefusal::TooLarge => super::Error::ResponseTooLarge.message(),
            WatchRefusal::Corrupt => super::Error::Corrupt.message(),
        }
    }
}
