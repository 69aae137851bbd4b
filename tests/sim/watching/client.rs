//! A client that watches, byte by byte, and holds what it is told against the history: filtered,
//! ordered, unique, atomic, bookmarkable, resumable, with creations and pairs before right, and
//! without a gap. All of these are one thing here: what is told of a watch is, event by event, the
//! next part of what it should hear, in pieces that end where a revision ends.

use super::history::{Change, History};
use quoin::api::{EventKind, OwnedEvent, WatchCreate, WatchRequest, WatchResponse};
use quoin::chance::Chance;
use quoin::client::raw::{Connection, Options};
use quoin::node::front::{ConnectionId, Front, Verdict};
use std::collections::BTreeMap;

/// What is watched.
#[derive(Debug, Clone)]
pub struct Spec {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub fragment: bool,
    pub progress: bool,
}

impl Spec {
    fn wants(&self, change: &Change) -> bool {
        let key = &change.kv.key[..];
        let inside = match &self.range_end[..] {
            [] => key == self.key,
            [0] => key >= &self.key[..],
            end => key >= &self.key[..] && key < end,
        };
        let filtered = match change.kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        inside && !filtered
    }
}

#[derive(Debug)]
struct Watch {
    spec: Spec,
    stream: u64,
    /// Everything up to here has been told; none before the server has said where it begins.
    told: Option<i64>,
    /// It exists on this connection.
    live: bool,
    /// Somebody asked to end it.
    cancelled: bool,
    parts: Vec<OwnedEvent>,
}

/// See the module.
pub struct Watcher {
    front: usize,
    id: Option<ConnectionId>,
    raw: Connection,
    watches: BTreeMap<i64, Watch>,
    last_id: i64,
    /// It reads once in so many chances.
    pub lazy: u64,
    pub stalled_until_ns: u64,
    /// What it has heard, by kind.
    pub tally: Tally,
}

/// How often what was heard.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub parted: u64,
    pub progress: u64,
    pub compacted: u64,
    pub resumed: u64,
    /// Follows from all that was heard.
    pub hash: u64,
}

impl Watcher {
    pub fn new(front: usize) -> Watcher {
        Watcher {
            front,
            id: None,
            raw: Connection::new(Options::default()),
            watches: BTreeMap::new(),
            last_id: 0,
            lazy: 1,
            stalled_until_ns: 0,
            tally: Tally::default(),
        }
    }

    pub fn front(&self) -> usize {
        self.front
    }

    pub fn is_connected(&self) -> bool {
        self.id.is_some()
    }

    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    fn ask(&mut self, stream: u64, request: &WatchRequest<'_>) {
        self.raw.watch(request, stream).expect("a small request");
    }

    fn create(&mut self, id: i64) {
        let watch = &self.watches[&id];
        let (spec, stream) = (watch.spec.clone(), watch.stream);
        let create = WatchCreate {
            key: &spec.key,
            range_end: &spec.range_end,
            start_revision: watch.told.map_or(0, |told| told + 1),
            watch_id: id,
            prev_kv: spec.prev_kv,
            progress_notify: spec.progress,
            fragment: spec.fragment,
            no_put: spec.no_put,
            no_delete: spec.no_delete,
        };
        self.ask(stream, &WatchRequest::Create(create));
    }

    /// Watches from a revision on, or from now on.
    pub fn watch(&mut self, spec: Spec, start: Option<i64>, stream: u64) {
        self.last_id += 1;
        let watch = Watch {
            spec,
            stream,
            told: start.map(|start| start - 1),
            live: false,
            cancelled: false,
            parts: Vec::new(),
        };
        self.watches.insert(self.last_id, watch);
        if self.id.is_some() {
            self.create(self.last_id);
        }
    }

    /// Ends some watch.
    pub fn cancel(&mut self, chance: &mut Chance) {
        let at = chance.below(self.watches.len().max(1) as u64) as usize;
        let Some((&watch_id, watch)) = self.watches.iter_mut().nth(at) else {
            return;
        };
        if watch.live && !watch.cancelled {
            watch.cancelled = true;
            let stream = watch.stream;
            self.ask(stream, &WatchRequest::Cancel { watch_id });
        }
    }

    pub fn ask_progress(&mut self, stream: u64) {
        if self.id.is_some() {
            self.ask(stream, &WatchRequest::Progress);
        }
    }

    /// Connects, and goes on with every watch behind what it was told.
    pub fn connect(&mut self, front: &mut Front, now_ns: u64) {
        self.id = front.connect(now_ns);
        assert!(self.id.is_some(), "there is room");
        self.raw = Connection::new(Options::default());
        self.watches.retain(|_, watch| !watch.cancelled);
        let ids: Vec<i64> = self.watches.keys().copied().collect();
        for id in ids {
            let watch = self.watches.get_mut(&id).expect("it is there");
            watch.live = false;
            watch.parts.clear();
            self.tally.resumed += u64::from(watch.told.is_some());
            self.create(id);
        }
    }

    /// The connection breaks; what was under way is lost.
    pub fn lose(&mut self, front: Option<&mut Front>) {
        if let (Some(id), Some(front)) = (self.id.take(), front) {
            front.disconnect(id);
        }
        self.id = None;
    }

    /// Some of what it has to say reaches the front.
    pub fn up(&mut self, front: &mut Front, most: usize, now_ns: u64) {
        let Some(id) = self.id else { return };
        if front.wants_input(id) {
            let bytes = self.raw.to_send();
            let count = bytes.len().min(most);
            front.received(id, &bytes[..count], now_ns);
            self.raw.sent(count);
        }
        assert_eq!(front.verdict(id), Verdict::Open, "nothing was wrong");
    }

    /// Some of what the front has to say reaches it.
    pub fn down(&mut self, front: &mut Front, most: usize, now_ns: u64, history: &History) {
        let Some(id) = self.id else { return };
        let bytes = front.output(id);
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        front.wrote(id, bytes.len(), now_ns);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = self.raw.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            self.raw.received(count);
            rest = &rest[count..];
            let mut heard = Vec::new();
            while let Some(reply) = self.raw.next_reply().expect("the protocol is kept") {
                let said = reply.body.to_watch().expect("watches only");
                heard.push((reply.id, reply.header.revision, said));
            }
            for (stream, revision, said) in heard {
                self.hear(stream, revision, said, history);
            }
        }
    }

    fn hear(&mut self, stream: u64, revision: i64, said: WatchResponse, history: &History) {
        let noted = self.tally.hash.rotate_left(5) ^ revision as u64 ^ stream << 32;
        self.tally.hash = noted.wrapping_mul(0x0000_0100_0000_01b3);
        match said {
            WatchResponse::Created { watch_id } => {
                let watch = self.watches.get_mut(&watch_id).expect("it was asked for");
                assert!(!watch.live, "created twice");
                assert!(revision <= history.revision);
                watch.live = true;
                watch.told.get_or_insert(revision);
            }
            WatchResponse::Events {
                watch_ids,
                events,
                fragment,
            } => {
                let last = events.last().expect("never empty").kv.mod_revision;
                assert!(revision >= last, "the header says when, or later");
                for id in watch_ids {
                    let watch = self.watches.get_mut(&id).expect("it is watched");
                    assert!(watch.live && watch.stream == stream);
                    watch.parts.extend(events.iter().cloned());
                    if fragment {
                        assert!(watch.spec.fragment, "it did not allow that");
                        self.tally.parted += 1;
                        continue;
                    }
                    let told = std::mem::take(&mut watch.parts);
                    self.tally.events += told.len() as u64;
                    check(watch, &told, history);
                }
            }
            WatchResponse::Progress { watch_ids } => {
                self.tally.progress += 1;
                assert!(revision <= history.revision);
                for (id, watch) in &mut self.watches {
                    let named = watch_ids.contains(id);
                    let all = watch_ids.is_empty() && watch.stream == stream && watch.live;
                    if named || all {
                        let told = watch.told.expect("it was created");
                        assert!(!named || revision >= told, "it has not begun");
                        assert!(watch.parts.is_empty(), "between the parts of a revision");
                        assert_eq!(missing(watch, revision, history), 0, "not told yet");
                        watch.told = Some(told.max(revision));
                    }
                }
            }
            WatchResponse::Cancelled {
                watch_id,
                compact_revision,
                reason,
            } => {
                assert_eq!(reason, "");
                let watch = self.watches.remove(&watch_id).expect("it is watched");
                assert!(watch.live && watch.stream == stream);
                if compact_revision == 0 {
                    assert!(watch.cancelled, "nobody asked for that");
                    return;
                }
                self.tally.compacted += 1;
                assert_eq!(revision, 0, "as in etcd");
                assert!(compact_revision <= history.compacted);
                let told = watch.told.expect("it was created");
                assert!(told + 1 < compact_revision, "it could have been told");
                // It reads what is there, and goes on behind that.
                self.watch(watch.spec, Some(compact_revision), stream);
            }
            WatchResponse::Refused { .. } | WatchResponse::Closed => panic!("{said:?}"),
        }
    }

    /// Once nothing happens any more: everything was told.
    pub fn check_all(&self, history: &History) {
        assert!(self.id.is_some());
        for (id, watch) in &self.watches {
            assert!(watch.live, "watch {id} was never created");
            assert!(watch.parts.is_empty());
            let missing = missing(watch, history.revision, history);
            assert_eq!(missing, 0, "watch {id} was never told: {watch:?}");
        }
    }
}

/// How many events up to a revision a watch has not been told.
fn missing(watch: &Watch, last: i64, history: &History) -> usize {
    let told = watch.told.expect("it was created");
    let wanted = history.between(told + 1, last);
    wanted.filter(|change| watch.spec.wants(change)).count()
}

fn check(watch: &mut Watch, events: &[OwnedEvent], history: &History) {
    let told = watch.told.expect("it was created");
    let last = events.last().expect("never empty").kv.mod_revision;
    assert!(last > told, "told again: {last} after {told}");
    assert!(last <= history.revision, "told before it was published");
    let wanted = history.between(told + 1, last);
    let wanted: Vec<&Change> = wanted.filter(|change| watch.spec.wants(change)).collect();
    for (event, wanted) in events.iter().zip(&wanted) {
        assert_eq!(event.kind, wanted.kind);
        assert_eq!(event.kv, wanted.kv);
        assert_eq!(event.borrow().is_create(), {
            wanted.kind == EventKind::Put && wanted.before.is_none()
        });
        match &event.prev_kv {
            Some(before) => {
                assert!(watch.spec.prev_kv, "nobody asked for the pair before");
                assert_eq!(Some(before), wanted.before.as_ref());
            }
            None => assert!(
                !watch.spec.prev_kv
                    || wanted.before.is_none()
                    || event.kv.mod_revision <= history.compacted,
                "the pair before is missing"
            ),
        }
    }
    assert_eq!(events.len(), wanted.len(), "from {told} to {last}");
    watch.told = Some(last);
}
