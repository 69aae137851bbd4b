//! Watch streams: requests, and what a stream says. Events are encoded once, as a block that
//! stands in any number of frames.

#![forbid(unsafe_code)]

use rkyv::rend::unaligned::i64_ule;
use rkyv::vec::ArchivedVec;

use super::archive::{
    ArchivedEvent, ArchivedWatchCancel, ArchivedWatchCancelledReply, ArchivedWatchCreate,
    ArchivedWatchCreatedReply, ArchivedWatchEventsReply, ArchivedWatchProgressReply,
};
use super::layout::{
    BODY_BYTES_MAX, EVENT, HEADER, KV, Kind, WATCH_CANCEL_ROOT, WATCH_CANCELLED_RESULT,
    WATCH_CREATE_ROOT, WATCH_CREATED_RESULT, WATCH_EVENTS_RESULT, WATCH_FRAGMENT, WATCH_NO_DELETE,
    WATCH_NO_PUT, WATCH_PREV_KV, WATCH_PROGRESS_NOTIFY, WATCH_PROGRESS_RESULT,
};
use super::reply::{close_short, with_header, write_header};
use super::reply_view::{bare_header, header, kvs, text, view};
use super::walk::{Walk, flag, options};
use super::writer::Root;
use super::{Frame, Malformed, Reply, Unencodable, decode_empty, frame};
use crate::api::{Event, EventKind, Header, KeyValue, OwnedEvent, WatchCreate, WatchRequest};

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Whether frames of that kind belong to a watch stream and come from its client.
#[inline]
pub fn is_watch(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::WatchCreate | Kind::WatchCancel | Kind::WatchProgress | Kind::WatchClose
    )
}

// ---- requests

/// Appends a request's frame to `out`. `id` is the stream's, and not 0. On an error `out` is as
/// before.
pub fn encode_watch(
    request: &WatchRequest<'_>,
    id: u64,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let start = frame::begin(out);
    let kind = match request {
        WatchRequest::Create(create) => {
            write_create(create, out);
            Kind::WatchCreate
        }
        WatchRequest::Cancel { watch_id } => {
            let root = Root::<WATCH_CANCEL_ROOT>::at_end_of(out);
            root.i64(*watch_id).done();
            Kind::WatchCancel
        }
        WatchRequest::Progress => Kind::WatchProgress,
        WatchRequest::Close => Kind::WatchClose,
    };
    frame::finish(out, start, kind, id, BODY_BYTES_MAX)
}

fn write_create(create: &WatchCreate<'_>, out: &mut Vec<u8>) {
    let key = out.len();
    out.extend_from_slice(create.key);
    let range_end = out.len();
    out.extend_from_slice(create.range_end);
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    Root::<WATCH_CREATE_ROOT>::at_end_of(out)
        .vec(key, create.key.len())
        .vec(range_end, create.range_end.len())
        .i64(create.start_revision)
        .i64(create.watch_id)
        .u8(bit(create.prev_kv, WATCH_PREV_KV)
            | bit(create.progress_notify, WATCH_PROGRESS_NOTIFY)
            | bit(create.fragment, WATCH_FRAGMENT)
            | bit(create.no_put, WATCH_NO_PUT)
            | bit(create.no_delete, WATCH_NO_DELETE))
        .done();
}

/// Reads the body of a request of a watch stream (see [`is_watch`]); its bytes stay where they
/// are.
pub fn decode_watch(kind: Kind, body: &[u8]) -> Result<WatchRequest<'_>, Malformed> {
    Ok(match kind {
        Kind::WatchCreate => WatchRequest::Create(decode_create(body)?),
        Kind::WatchCancel => {
            let (root, walk) = Walk::open::<ArchivedWatchCancel>(body)?;
            walk.close(root)?;
            WatchRequest::Cancel {
                watch_id: root.watch_id.to_native(),
            }
        }
        Kind::WatchProgress => {
            decode_empty(body)?;
            WatchRequest::Progress
        }
        Kind::WatchClose => {
            decode_empty(body)?;
            WatchRequest::Close
        }
        other => return Err(Malformed::UnknownKind(other.number())),
    })
}

fn decode_create(body: &[u8]) -> Result<WatchCreate<'_>, Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedWatchCreate>(body)?;
    let key = walk.vec(&root.key)?;
    let range_end = walk.vec(&root.range_end)?;
    walk.close(root)?;
    let known =
        WATCH_PREV_KV | WATCH_PROGRESS_NOTIFY | WATCH_FRAGMENT | WATCH_NO_PUT | WATCH_NO_DELETE;
    let bits = options(root.options, known)?;
    let has = |bit: u8| bits & bit != 0;
    Ok(WatchCreate {
        key,
        range_end,
        start_revision: root.start_revision.to_native(),
        watch_id: root.watch_id.to_native(),
        prev_kv: has(WATCH_PREV_KV),
        progress_notify: has(WATCH_PROGRESS_NOTIFY),
        fragment: has(WATCH_FRAGMENT),
        no_put: has(WATCH_NO_PUT),
        no_delete: has(WATCH_NO_DELETE),
    })
}

// ---- what a stream says

/// Appends that a watch exists, or with id -1 and a reason that it was refused.
pub fn encode_watch_created(
    header: &Header,
    watch_id: i64,
    reason: &str,
    id: u64,
    out: &mut Vec<u8>,
) {
    let start = frame::begin(out);
    let text = out.len();
    out.extend_from_slice(reason.as_bytes());
    let root = Root::<{ HEADER + WATCH_CREATED_RESULT }>::at_end_of(out);
    with_header(root, header)
        .vec(text, reason.len())
        .i64(watch_id)
        .done();
    close_short(out, start, Kind::WatchCreated, id);
}

/// Appends that a watch is over.
pub fn encode_watch_cancelled(
    header: &Header,
    watch_id: i64,
    compact_revision: i64,
    reason: &str,
    id: u64,
    out: &mut Vec<u8>,
) {
    let start = frame::begin(out);
    let text = out.len();
    out.extend_from_slice(reason.as_bytes());
    let root = Root::<{ HEADER + WATCH_CANCELLED_RESULT }>::at_end_of(out);
    with_header(root, header)
        .vec(text, reason.len())
        .i64(watch_id)
        .i64(compact_revision)
        .done();
    close_short(out, start, Kind::WatchCancelled, id);
}

/// Appends how far watches have come: all of the stream, if none is named.
pub fn encode_watch_progress(header: &Header, watch_ids: &[i64], id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    let ids = write_ids(watch_ids, out);
    let root = Root::<{ HEADER + WATCH_PROGRESS_RESULT }>::at_end_of(out);
    with_header(root, header).vec(ids, watch_ids.len()).done();
    close_short(out, start, Kind::WatchProgressed, id);
}

/// Appends that the stream is over.
pub fn encode_watch_closed(header: &Header, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    write_header(header, out);
    close_short(out, start, Kind::WatchClosed, id);
}

fn write_ids(watch_ids: &[i64], out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.reserve(watch_ids.len() * 8 + HEADER + WATCH_EVENTS_RESULT);
    for id in watch_ids {
        out.extend_from_slice(&id.to_le_bytes());
    }
    at
}

/// Events, encoded once for any number of frames. Its memory is kept from one to the next.
#[derive(Debug, Default)]
pub struct EventBlock {
    /// The bytes of all events, then the events, which point back at them: nothing in it depends
    /// on where it stands.
    bytes: Vec<u8>,
    events: usize,
    count: usize,
}

impl EventBlock {
    /// Encodes other events.
    pub fn fill<'e>(&mut self, events: impl Iterator<Item = Event<'e>> + Clone) {
        let out = &mut self.bytes;
        out.clear();
        self.count = 0;
        for event in events.clone() {
            self.count += 1;
            out.extend_from_slice(event.kv.key);
            out.extend_from_slice(event.kv.value);
            if let Some(prev) = &event.prev_kv {
                let key = out.len();
                out.extend_from_slice(prev.key);
                out.extend_from_slice(prev.value);
                write_kv(prev, key, Root::<KV>::at_end_of(out)).done();
            }
        }
        self.events = out.len();
        out.reserve(self.count * EVENT);
        let mut at = 0;
        for event in events {
            let root = write_kv(&event.kv, at, Root::<EVENT>::at_end_of(out));
            at += event.kv.key.len() + event.kv.value.len();
            if let Some(prev) = &event.prev_kv {
                at += prev.key.len() + prev.value.len();
            }
            let kind = match event.kind {
                EventKind::Put => PUT,
                EventKind::Delete => DELETE,
            };
            let prev_kvs = usize::from(event.prev_kv.is_some());
            root.vec(at, prev_kvs).u8(kind).done();
            at += prev_kvs * KV;
        }
    }

    /// Bytes that it takes in each frame.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives memory back that is more than `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            *self = EventBlock::default();
        }
    }
}

fn write_kv<'o, const N: usize>(kv: &KeyValue<'_>, at: usize, root: Root<'o, N>) -> Root<'o, N> {
    root.vec(at, kv.key.len())
        .vec(at + kv.key.len(), kv.value.len())
        .i64(kv.create_revision)
        .i64(kv.mod_revision)
        .i64(kv.version)
        .i64(kv.lease)
}

/// Appends events for some watches. If the body would be longer than `body_max`, `out` is as
/// before.
pub fn encode_watch_events(
    header: &Header,
    block: &EventBlock,
    watch_ids: &[i64],
    fragment: bool,
    id: u64,
    body_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let ids_bytes = watch_ids.len() * 8 + HEADER + WATCH_EVENTS_RESULT;
    if block.bytes().saturating_add(ids_bytes) > body_max.min(BODY_BYTES_MAX) {
        return Err(Unencodable::TooLong);
    }
    let start = frame::begin(out);
    let events = out.len() + block.events;
    out.extend_from_slice(&block.bytes);
    let ids = write_ids(watch_ids, out);
    let root = Root::<{ HEADER + WATCH_EVENTS_RESULT }>::at_end_of(out);
    with_header(root, header)
        .vec(events, block.count)
        .vec(ids, watch_ids.len())
        .u8(u8::from(fragment))
        .done();
    frame::finish(out, start, Kind::WatchEvents, id, body_max)
}

// ---- as a client reads it

/// Ids of watches, in place.
#[derive(Clone, Copy)]
pub struct WatchIds<'a> {
    archived: &'a [i64_ule],
}

impl<'a> WatchIds<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.archived.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.archived.is_empty()
    }

    /// The ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + use<'a> {
        self.archived.iter().map(|id| id.to_native())
    }
}

impl std::fmt::Debug for WatchIds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Events, in place.
#[derive(Clone, Copy)]
pub struct Events<'a> {
    archived: &'a [ArchivedEvent],
}

impl<'a> Events<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.archived.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.archived.is_empty()
    }

    /// The events, in the order of history.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'a>> + Clone + use<'a> {
        self.archived.iter().map(|event| Event {
            kind: match event.kind {
                PUT => EventKind::Put,
                _ => EventKind::Delete,
            },
            kv: view(&event.kv),
            prev_kv: event.prev_kvs.as_slice().first().map(view),
        })
    }

    /// Copies that own their bytes.
    pub fn to_vec(&self) -> Vec<OwnedEvent> {
        self.iter().map(|event| event.to_owned()).collect()
    }
}

impl std::fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn events<'a>(
    archived: &'a ArchivedVec<ArchivedEvent>,
    walk: &mut Walk,
) -> Result<Events<'a>, Malformed> {
    for event in archived.as_slice() {
        walk.vec(&event.kv.key)?;
        walk.vec(&event.kv.value)?;
        if kvs(&event.prev_kvs, walk)?.len() > 1 {
            return Err(Malformed::BadValue("prev_kvs"));
        }
        if !matches!(event.kind, PUT | DELETE) {
            return Err(Malformed::BadValue("kind"));
        }
    }
    Ok(Events {
        archived: walk.vec(archived)?,
    })
}

/// Reads what a stream says.
pub(super) fn decode_reply<'a>(frame: &Frame<'a>) -> Result<(Header, Reply<'a>), Malformed> {
    let body = frame.body;
    Ok(match frame.kind {
        Kind::WatchCreated => {
            let (root, mut walk) = Walk::open::<ArchivedWatchCreatedReply>(body)?;
            let reason = text(&root.result.reason, &mut walk, "reason")?;
            walk.close(root)?;
            let watch_id = root.result.watch_id.to_native();
            let reply = Reply::WatchCreated { watch_id, reason };
            (header(&root.header), reply)
        }
        Kind::WatchCancelled => {
            let (root, mut walk) = Walk::open::<ArchivedWatchCancelledReply>(body)?;
            let reason = text(&root.result.reason, &mut walk, "reason")?;
            walk.close(root)?;
            let reply = Reply::WatchCancelled {
                watch_id: root.result.watch_id.to_native(),
                compact_revision: root.result.compact_revision.to_native(),
                reason,
            };
            (header(&root.header), reply)
        }
        Kind::WatchProgressed => {
            let (root, mut walk) = Walk::open::<ArchivedWatchProgressReply>(body)?;
            let archived = walk.vec(&root.result.watch_ids)?;
            walk.close(root)?;
            let watch_ids = WatchIds { archived };
            (header(&root.header), Reply::WatchProgress { watch_ids })
        }
        Kind::WatchClosed => (bare_header(body)?, Reply::WatchClosed),
        Kind::WatchEvents => {
            let (root, mut walk) = Walk::open::<ArchivedWatchEventsReply>(body)?;
            let result = &root.result;
            let events = events(&result.events, &mut walk)?;
            let archived = walk.vec(&result.watch_ids)?;
            walk.close(root)?;
            let reply = Reply::WatchEvents {
                watch_ids: WatchIds { archived },
                events,
                fragment: flag(result.fragment, "fragment")?,
            };
            (header(&root.header), reply)
        }
        other => return Err(Malformed::UnknownKind(other.number())),
    })
}
