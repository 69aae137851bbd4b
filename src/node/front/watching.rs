//! The watches of a front's connections: their requests, and their voice.

use super::answer;
use super::connection::{Connection, ConnectionId, Phase, WatchStream};
use super::desk::{Desk, ErrandId, News, Turn};
use super::{Front, FrontConfig, find};
use crate::api::{self, WatchCreate, WatchRefusal, WatchRequest};
use crate::etcd::{self, Method};
use crate::limits;
use crate::watch::{Batch, Sink, StreamId, TooLarge, WatchConfig, Watches};
use crate::wire::{self, EventBlock, Frame};
use quoin_storage::mvcc::{Horizon, View};
use slab::Slab;

/// Whose stream it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub connection: ConnectionId,
    /// The id that its frames carry.
    pub stream: u64,
    /// The call that watches for itself, and not for its client.
    pub errand: Option<ErrandId>,
}

/// What the order actor has to know: whether anybody watches here, and the revision up to which
/// live watches have been told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// Whether anybody watches.
    pub on: bool,
    /// See above.
    pub seen: i64,
}

/// The watches, and what they need beside the desk.
#[derive(Debug)]
pub(super) struct WatchDesk {
    /// Taken out while it speaks.
    watches: Option<Watches<Owner>>,
    block: EventBlock,
    /// The same for messages of etcd's API.
    messages: Vec<u8>,
    /// A newer root may have been published.
    published: bool,
    /// Watches were held back because of the front's bound, not their connection's.
    starved: bool,
    /// What the order actor knows.
    told: Watching,
    /// The compaction that the purge may wait for.
    compacted: i64,
    /// When a root was published whose telling is timed, and its revision, once it was looked at.
    timed: Option<(u64, Option<i64>)>,
}

impl WatchDesk {
    pub fn new(config: &FrontConfig) -> WatchDesk {
        let config = WatchConfig {
            progress_interval_ns: config.watch_progress_ns,
            bounds: config.watch_bounds,
            seed: config.seed,
        };
        WatchDesk {
            watches: Some(Watches::new(config)),
            block: EventBlock::default(),
            messages: Vec::new(),
            published: false,
            starved: false,
            told: Watching { on: false, seen: 0 },
            compacted: -1,
            timed: None,
        }
    }

    fn get(&mut self) -> &mut Watches<Owner> {
        let watches = self.watches.as_mut();
        watches.expect("watches are away only during their turn")
    }

    /// How many streams and watches there are, and how many of the watches lag.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.peek().counts()
    }

    fn peek(&self) -> &Watches<Owner> {
        let watches = self.watches.as_ref();
        watches.expect("watches are away only during their turn")
    }

    pub fn has_work(&self) -> bool {
        self.published || self.peek().has_work() || self.news().is_some()
    }

    /// What the order actor should know and does not.
    fn news(&self) -> Option<Watching> {
        let watches = self.peek();
        let (on, seen) = (!watches.is_empty(), watches.head());
        let passed = self.told.seen < self.compacted && seen >= self.compacted;
        (on != self.told.on || on && passed).then_some(Watching { on, seen })
    }
}

impl Desk {
    /// Serves a request of a watch stream.
    pub(super) fn watch(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        let request = match wire::decode_watch(frame.kind, frame.body) {
            Ok(request) => request,
            Err(malformed) => {
                self.malformed(connection, id, frame.id, malformed, now_ns);
                return;
            }
        };
        self.watch_request(connection, id, (frame.id, request), turn);
    }

    /// Serves a message of a watch call.
    pub(super) fn watch_call(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, message): (u64, &[u8]),
        turn: &mut Turn<'_>,
    ) {
        match etcd::watch::decode_watch(message) {
            Ok(Some(request)) => self.watch_request(connection, id, (stream, request), turn),
            // As in etcd, which passes over what it does not know.
            Ok(None) => {}
            Err(malformed) => {
                let refused = etcd::Refused::Malformed(malformed).on(Method::Watch);
                answer::close(connection, stream, Some(refused));
                self.touch(connection, id);
            }
        }
    }

    fn watch_request(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (number, request): (u64, WatchRequest<'_>),
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        let revision = match turn.view() {
            Ok(view) => view.horizon().revision,
            Err(error) => {
                self.damage(&error, now_ns);
                self.refuse(connection, id, number, api::Error::Corrupt, now_ns);
                return;
            }
        };
        let header = self.header_at(revision);
        match (request, connection.stream(number)) {
            (WatchRequest::Create(create), stream) => {
                let owner = Owner {
                    connection: id,
                    stream: number,
                    errand: None,
                };
                let created = self.open(connection, owner, stream).and_then(|stream| {
                    let watches = self.watching.get();
                    watches.create(stream, &create, revision, now_ns)
                });
                let (watch, reason) = match created {
                    Ok(watch) => (watch, ""),
                    Err(refusal) => (-1, refusal.reason()),
                };
                self.write(connection, id, now_ns, |connection| {
                    answer::watch_created(connection, &header, (number, watch), reason);
                });
            }
            (WatchRequest::Cancel { watch_id }, Some(stream)) => {
                if self.watching.get().cancel(stream, watch_id) {
                    self.write(connection, id, now_ns, |connection| {
                        answer::watch_cancelled(connection, &header, (number, watch_id), 0, "");
                    });
                }
            }
            (WatchRequest::Progress, Some(stream)) => self.watching.get().ask_progress(stream),
            (WatchRequest::Close, _) => {
                self.close_stream(connection, number);
                self.write(connection, id, now_ns, |connection| {
                    wire::encode_watch_closed(&header, number, &mut connection.output);
                });
            }
            (WatchRequest::Cancel { .. } | WatchRequest::Progress, None) => {}
        }
    }

    /// Ends a stream of a connection, if it is open, and its watches.
    pub(super) fn close_stream(&mut self, connection: &mut Connection, number: u64) {
        if let Some(stream) = connection.streams.remove(&number) {
            self.watching.get().close(stream.id);
        }
    }

    /// The stream of a new watch; a stream that does not exist is opened.
    fn open(
        &mut self,
        connection: &mut Connection,
        owner: Owner,
        stream: Option<StreamId>,
    ) -> Result<StreamId, WatchRefusal> {
        let watches = self.watching.get();
        let streams = connection.streams.values();
        let count: usize = streams.map(|open| watches.watches_of(open.id)).sum();
        if count >= limits::WATCHES_PER_CONNECTION {
            return Err(WatchRefusal::TooMany);
        }
        if let Some(stream) = stream {
            return Ok(stream);
        }
        if connection.streams.len() >= limits::WATCH_STREAMS_PER_CONNECTION {
            return Err(WatchRefusal::TooMany);
        }
        let id = watches.open(owner);
        let stream = WatchStream { id, stalled: false };
        connection.streams.insert(owner.stream, stream);
        Ok(id)
    }

    /// Begins a watch for an errand; `revision` is the store's.
    pub(super) fn open_watch(
        &mut self,
        connection: &mut Connection,
        owner: Owner,
        create: &WatchCreate<'_>,
        revision: i64,
        now_ns: u64,
    ) -> Result<(), WatchRefusal> {
        let open = connection.stream(owner.stream);
        let stream = self.open(connection, owner, open)?;
        let watches = self.watching.get();
        watches.create(stream, create, revision, now_ns).map(|_| ())
    }

    /// Ends the watches of a connection.
    pub(super) fn close_streams(&mut self, connection: &mut Connection) {
        for stream in std::mem::take(&mut connection.streams).into_values() {
            self.watching.get().close(stream.id);
        }
    }

    /// Bytes that watches may tell a connection now. The more clients have left untaken in all,
    /// the less each may leave: a thousand that stand still must not hold a thousand times what
    /// one may.
    fn watch_room(&self, connection: &Connection) -> usize {
        if connection.blocks_watches() {
            return 0;
        }
        let free = limits::WATCH_OUTPUT_SHARED.saturating_sub(self.output_bytes);
        let share = (free / limits::WATCH_OUTPUT_PART).max(limits::WATCH_OUTPUT_LEAST);
        // A client that has taken all but a little is told more before it has to wait.
        share.saturating_sub(connection.unheard())
    }

    /// Lets the watches of a connection go on, if its client has taken enough.
    pub(super) fn wake_watches(&mut self, connection: &mut Connection) {
        if connection.watch_blocked && self.watch_room(connection) > 0 {
            connection.watch_blocked = false;
            for stream in connection.streams.values() {
                self.watching.get().wake(stream.id);
            }
        }
    }
}

impl Front {
    /// A call has ended: its watches end with it, and nobody waits for an answer any more.
    pub fn end_call(&mut self, id: ConnectionId, stream: u64) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        self.desk.end_long(connection, id, stream);
        self.desk.end_health(id, stream);
        self.desk.close_stream(connection, stream);
        self.desk.give_up_errand(connection, stream);
    }

    /// The client of a call has stopped taking its messages, or goes on to. As long as it does
    /// not, nothing more is written for the call's watches.
    pub fn stalls(&mut self, id: ConnectionId, stream: u64, stalled: bool) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        if let Some(stream) = connection.streams.get_mut(&stream) {
            stream.stalled = stalled;
            if !stalled {
                self.desk.watching.get().wake(stream.id);
            }
        }
    }

    /// So many of the bytes that [`Front::take_answers`] gave, and that have not left, wait until
    /// the client wants more of their own streams; those of other streams pass them.
    pub fn waits(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = find(&mut self.connections, id)
            && let Some(calls) = &mut connection.calls
        {
            calls.waiting = bytes.min(calls.taken);
            self.desk.wake_watches(connection);
        }
    }

    /// Tells watches what was published, within the bounds of a turn. Called once per turn.
    pub fn show(&mut self, now_ns: u64) {
        let watching = &mut self.desk.watching;
        let published = std::mem::take(&mut watching.published);
        if watching.peek().is_empty() || !(published || watching.peek().has_work()) {
            return;
        }
        let snapshot = self.reader.pin();
        let horizon = match Horizon::decode(snapshot.user()) {
            Ok(horizon) => horizon,
            Err(error) => {
                self.desk.damage(&error, now_ns);
                return;
            }
        };
        watching.compacted = watching.compacted.max(horizon.compacted);
        if let Some((_, revision @ None)) = &mut watching.timed {
            *revision = Some(horizon.revision);
        }
        let view = View::new(&snapshot, horizon);
        let told = speak(
            &mut self.connections,
            &mut self.desk,
            now_ns,
            |watches, voice| watches.turn(&view, voice),
        );
        if let Err(error) = told {
            self.desk.damage(&error, now_ns);
        }
        drop(snapshot);
        self.go_on(now_ns);
    }

    /// Acts on what errands have heard.
    pub(super) fn go_on(&mut self, now_ns: u64) {
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        for (errand, news) in desk.errands.take_news() {
            let connection = desk.errands.connection(errand);
            let connection = connection.and_then(|id| find(connections, id));
            desk.go_on(connection, errand, news, reader, now_ns);
        }
    }

    /// Time has passed for the watches.
    pub(super) fn tick_watches(&mut self, now_ns: u64) {
        let Front {
            connections, desk, ..
        } = self;
        if desk.watching.starved && desk.output_bytes < limits::WATCH_OUTPUT_PER_FRONT {
            desk.watching.starved = false;
            desk.watching.get().wake_all();
        }
        speak(connections, desk, now_ns, |watches, voice| {
            watches.tick(now_ns, voice);
        });
    }

    /// A newer root has been published.
    pub(super) fn published(&mut self, now_ns: u64) {
        let watching = &mut self.desk.watching;
        watching.published = true;
        watching.timed.get_or_insert((now_ns, None));
    }

    /// When a revision was published that all watches that keep up have been told of since this
    /// was asked last. Revisions are timed one after the other: those that come while one is
    /// being told are not.
    pub fn take_told_since(&mut self) -> Option<u64> {
        let watching = &mut self.desk.watching;
        let (since_ns, revision) = watching.timed?;
        if watching.peek().is_empty() {
            watching.timed = None;
            return None;
        }
        if watching.peek().head() < revision? {
            return None;
        }
        watching.timed = None;
        Some(since_ns)
    }

    /// What the order actor has to know, if that has changed since the last call.
    pub fn take_watching(&mut self) -> Option<Watching> {
        let news = self.desk.watching.news()?;
        self.desk.watching.told = news;
        Some(news)
    }
}

/// Lets the watches speak to their connections.
fn speak<R>(
    connections: &mut Slab<Connection>,
    desk: &mut Desk,
    now_ns: u64,
    speech: impl FnOnce(&mut Watches<Owner>, &mut Voice<'_>) -> R,
) -> R {
    let watches = desk.watching.watches.take();
    let mut watches = watches.expect("watches are away only during their turn");
    let mut voice = Voice {
        block: std::mem::take(&mut desk.watching.block),
        messages: std::mem::take(&mut desk.watching.messages),
        framed: false,
        connections,
        desk,
        now_ns,
        encoded: false,
    };
    let result = speech(&mut watches, &mut voice);
    let (mut block, messages) = (voice.block, voice.messages);
    block.shrink(4 * limits::WATCH_BYTES_PER_TURN);
    desk.watching.block = block;
    if messages.capacity() <= 4 * limits::WATCH_BYTES_PER_TURN {
        desk.watching.messages = messages;
    }
    desk.watching.watches = Some(watches);
    result
}

/// Writes what watches say into their connections' outputs.
struct Voice<'f> {
    connections: &'f mut Slab<Connection>,
    desk: &'f mut Desk,
    now_ns: u64,
    /// The events of the batch, if they are encoded.
    block: EventBlock,
    encoded: bool,
    /// The same as messages of etcd's API, if they are.
    messages: Vec<u8>,
    framed: bool,
}

impl Voice<'_> {
    /// Has something written to a stream's connection.
    fn say(&mut self, owner: Owner, write: impl FnOnce(&EventBlock, &[u8], &mut Connection)) {
        let Some(connection) = find(self.connections, owner.connection) else {
            return;
        };
        let (block, messages) = (&self.block, &self.messages);
        (self.desk).write(connection, owner.connection, self.now_ns, |connection| {
            write(block, messages, connection);
        });
    }

    fn is_call(&mut self, owner: Owner) -> bool {
        let connection = find(self.connections, owner.connection);
        connection.is_some_and(|connection| connection.calls.is_some())
    }

    /// Tells watches of etcd's API of events: each with a message of its own.
    fn tell(&mut self, owner: Owner, watches: &[i64], batch: &Batch<'_>) -> Result<(), TooLarge> {
        let limit = self.desk.message_bytes_max();
        let header = self.header(batch.revision);
        if !self.framed {
            etcd::watch::encode_event_block(batch.events.iter().copied(), &mut self.messages);
            self.framed = true;
        }
        let parted = batch.fragment && self.messages.len() > limit;
        if self.messages.len() > limits::RESPONSE_BYTES_MAX && !parted {
            return Err(TooLarge);
        }
        for watch in watches {
            let mut rest = batch.events;
            while !rest.is_empty() {
                let part = next_part(&mut rest, parted.then_some(limit));
                if parted {
                    self.framed = false;
                    etcd::watch::encode_event_block(part.iter().copied(), &mut self.messages);
                }
                self.say(owner, |_, messages, connection| {
                    let (more, out) = (!rest.is_empty(), &mut connection.output);
                    etcd::watch::encode_events(&header, *watch, more, messages, out);
                    answer::close_unasked(connection, owner.stream);
                });
            }
        }
        Ok(())
    }

    /// Tells an errand of events.
    fn tell_errand(&mut self, owner: Owner, errand: ErrandId, batch: &Batch<'_>) {
        let (mut messages, mut ends) = (Vec::new(), Vec::new());
        let mut tell = |header: &api::Header, kv: &api::KeyValue<'_>| {
            etcd::election::encode_leader(header, kv, &mut messages);
            ends.push(messages.len());
        };
        let desk = &mut *self.desk;
        desk.errand_hears(errand, batch.events, batch.revision, &mut tell);
        let mut begin = 0;
        for end in ends {
            let message = &messages[begin..end];
            begin = end;
            self.say(owner, |_, _, connection| {
                connection.output.extend_from_slice(message);
                answer::close_unasked(connection, owner.stream);
            });
        }
    }

    fn header(&self, revision: i64) -> api::Header {
        api::Header {
            revision,
            ..self.desk.header
        }
    }
}

impl Sink<Owner> for Voice<'_> {
    fn room(&mut self, owner: Owner) -> usize {
        let Some(connection) = find(self.connections, owner.connection) else {
            return 0;
        };
        if let Some(errand) = owner.errand
            && !self.desk.errands.observes(errand)
        {
            // It says nothing to its client.
            return usize::MAX;
        }
        let starved = self.desk.output_bytes >= limits::WATCH_OUTPUT_PER_FRONT;
        self.desk.watching.starved |= starved;
        let room = self.desk.watch_room(connection);
        connection.watch_blocked |= room == 0;
        let stream = connection.streams.get(&owner.stream);
        let stalled = stream.is_some_and(|stream| stream.stalled);
        match connection.phase == Phase::Closing || starved || stalled {
            true => 0,
            false => room,
        }
    }

    fn next_batch(&mut self) {
        self.encoded = false;
        self.framed = false;
    }

    fn events(&mut self, owner: Owner, watches: &[i64], batch: &Batch<'_>) -> Result<(), TooLarge> {
        if let Some(errand) = owner.errand {
            self.tell_errand(owner, errand, batch);
            return Ok(());
        }
        self.desk.counts.events += (watches.len() * batch.events.len()) as u64;
        if self.is_call(owner) {
            return self.tell(owner, watches, batch);
        }
        if !self.encoded {
            self.block.fill(batch.events.iter().copied());
            self.encoded = true;
        }
        let header = self.header(batch.revision);
        // As in etcd.
        let limit = self.desk.message_bytes_max();
        let parted = batch.fragment && self.block.bytes() > limit;
        let mut rest = batch.events;
        let mut told = Ok(());
        while !rest.is_empty() {
            let part = next_part(&mut rest, parted.then_some(limit));
            if parted {
                self.block.fill(part.iter().copied());
                self.encoded = false;
            }
            self.say(owner, |block, _, connection| {
                let written = wire::encode_watch_events(
                    &header,
                    block,
                    watches,
                    !rest.is_empty(),
                    owner.stream,
                    limits::RESPONSE_BYTES_MAX,
                    &mut connection.output,
                );
                told = told.and(written.map_err(|_| TooLarge));
            });
        }
        told
    }

    fn compacted(&mut self, owner: Owner, watch: i64, compact_revision: i64) {
        if let Some(errand) = owner.errand {
            // What it has missed it reads.
            return self.desk.errands.hear(errand, News::Changed);
        }
        // The revision is 0, as in etcd.
        let header = self.header(0);
        self.say(owner, |_, _, connection| {
            let whose = (owner.stream, watch);
            answer::watch_cancelled(connection, &header, whose, compact_revision, "");
        });
    }

    fn ended(&mut self, owner: Owner, watch: i64, why: WatchRefusal) {
        if let Some(errand) = owner.errand {
            return self
                .desk
                .errands
                .hear(errand, News::Failed(api::Error::Corrupt));
        }
        let header = self.desk.header;
        self.say(owner, |_, _, connection| {
            let whose = (owner.stream, watch);
            answer::watch_cancelled(connection, &header, whose, 0, why.reason());
        });
    }

    fn progress(&mut self, owner: Owner, watches: &[i64], revision: i64) {
        let header = self.header(revision);
        self.say(owner, |_, _, connection| {
            answer::watch_progress(connection, &header, owner.stream, watches);
        });
    }
}

/// Takes the next part off the events: all of them, or as many as fit the limit, at least one.
fn next_part<'e, 'b>(
    rest: &mut &'e [api::Event<'b>],
    limit: Option<usize>,
) -> &'e [api::Event<'b>] {
    let bytes = |kv: &api::KeyValue<'_>| kv.key.len() + kv.value.len();
    let over = limit.and_then(|limit| {
        let mut sum = 0;
        rest.iter().position(|event| {
            sum += bytes(&event.kv) + event.prev_kv.as_ref().map_or(0, bytes);
            sum > limit
        })
    });
    let (part, others) = rest.split_at(over.unwrap_or(rest.len()).max(1));
    *rest = others;
    part
}
