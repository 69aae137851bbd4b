//! The front actor: clients' bytes in, answers and proposals out.
//!
//! It keeps its connections in a slab and knows no socket and no clock: bytes that arrived are
//! handed in with the time, bytes to send lie ready per connection, and the runtime moves both.
//! Reads are served at once from a pinned root; writes gather in the turn's batch for the order
//! actor, whose answers come back by waiter.
//!
//! Every bound is kept here. A connection over its own bounds is not read until its answers have
//! left (back-pressure); a request over the bounds of the whole front is refused.
#![forbid(unsafe_code)]

mod answer;

mod connection;

mod counts;

mod desk;

mod watching;

#[cfg(test)]
mod tests;

use crate::api;
use crate::etcd::http::Figures;
use crate::etcd::{Member, Method};
use crate::limits;
use crate::node::messages::{
    FrontId, FrontInput, LeaseAnswers, LeaseAsks, Outcome, ProposalBatch, Reply,
};
use crate::propose::waiters::WaiterId;
use crate::wire::{self, HelloStatus, ServerHello, Sniff};
use connection::{Connection, Phase};
use desk::{Desk, News, Waiter};
use quoin_storage::tree::Reader;
use slab::Slab;
use std::sync::Arc;

pub use crate::watch::Bounds as WatchBounds;
pub use answer::{Answer, Answers};
pub use connection::{ConnectionId, HttpVersion};
pub use counts::FrontCounts;
pub use watching::Watching;

/// Who this front is, and its member's limits.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// Which of the node's fronts.
    pub front: FrontId,
    /// For the headers of answers.
    pub cluster_id: u64,
    /// For the headers of answers.
    pub member_id: u64,
    /// The boot epoch of this run.
    pub boot: u64,
    /// What a request may hold.
    pub limits: crate::apply::validate::Limits,
    /// The size of the store from which on writes that add to it are refused.
    pub quota_bytes: Option<u64>,
    /// How many watches it takes on.
    pub watch_bounds: WatchBounds,
    /// How often a quiet watch that asked for it is told its progress.
    pub watch_progress_ns: u64,
    /// Chance for this run of the member: the ids of leases that clients leave open, and the
    /// times at which watches are told their progress.
    pub seed: u64,
    /// The product's version, for whoever asks.
    pub version: &'static str,
    /// What is told of this member.
    pub member: Arc<Member>,
}

/// What the runtime has to do with a connection's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it.
    Open,
    /// The client speaks HTTP: take [`Front::take_greeting`], hand its calls to [`Front::call`],
    /// and send what [`Front::take_answers`] gives.
    Http(HttpVersion),
    /// All is said: close the sending half, and go on discarding what comes.
    Finish,
    /// Close it and call [`Front::disconnect`].
    Over,
}

/// Something an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A client spoke a protocol that is not served.
    NotServed(Sniff),
    /// A client broke the protocol.
    Malformed(wire::Malformed),
    /// A client kept a deadline waiting; the text says which.
    TooSlow(&'static str),
    /// What is stored could not be trusted while a read was served; the text says where and why.
    Corrupt(String),
}

/// See the module.
pub struct Front {
    connections: Slab<Connection>,
    reader: Reader,
    desk: Desk,
    generation: u32,
    next_scan_ns: u64,
}

impl Front {
    /// A front that reads through `reader`.
    pub fn new(config: FrontConfig, reader: Reader, now_ns: u64) -> Front {
        Front {
            connections: Slab::new(),
            reader,
            desk: Desk::new(config, now_ns),
            generation: 0,
            next_scan_ns: now_ns,
        }
    }

    /// Takes a new connection; `None` if there are too many: close it.
    pub fn connect(&mut self, now_ns: u64) -> Option<ConnectionId> {
        if self.connections.len() >= limits::CONNECTIONS_PER_FRONT {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.connections.insert(Connection::new(generation, now_ns));
        Some(ConnectionId::new(slot, generation))
    }

    /// Takes a new connection that speaks HTTP/1.1 and nothing else; `None` if there are too many.
    pub fn connect_http(&mut self, now_ns: u64) -> Option<ConnectionId> {
        let id = self.connect(now_ns)?;
        if let Some(connection) = find(&mut self.connections, id) {
            connection.calls = Some(Box::default());
            connection.phase = Phase::Http(HttpVersion::One);
        }
        Some(id)
    }

    /// Forgets a connection. Its writes go on; their answers find nobody.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            let connection = self.connections.remove(id.slot());
            self.desk.forget(connection);
            self.desk.forget_health(id);
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.connections.get(id.slot())?;
        (connection.generation == id.generation()).then_some(connection)
    }

    /// Takes bytes that a client sent.
    pub fn received(&mut self, id: ConnectionId, bytes: &[u8], now_ns: u64) {
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        let Some(connection) = find(connections, id) else {
            return;
        };
        match connection.phase {
            Phase::Closing | Phase::Http(_) => {}
            Phase::Greeting => greet(desk, connection, id, reader, bytes, now_ns),
            Phase::Serving => desk.take_input(connection, id, reader, bytes, now_ns),
        }
    }

    /// The client will send nothing more.
    pub fn input_over(&mut self, id: ConnectionId) {
        if let Some(connection) = find(&mut self.connections, id) {
            connection.input_over = true;
            self.desk.touch(connection, id);
        }
    }

    /// Whether the socket should be read now.
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        match self.get(id) {
            Some(connection) if connection.phase == Phase::Closing => !connection.input_over,
            Some(connection) => !connection.input_over && !connection.held && !connection.is_full(),
            None => false,
        }
    }

    /// What a client that speaks HTTP has sent so far.
    pub fn take_greeting(&mut self, id: ConnectionId) -> Vec<u8> {
        match find(&mut self.connections, id) {
            Some(connection) => {
                self.desk.input_bytes -= connection.input.len();
                std::mem::take(&mut connection.input)
            }
            None => Vec::new(),
        }
    }

    /// Whether the cluster has a leader, as far as this member knows.
    pub fn has_leader(&self) -> bool {
        self.desk.has_leader
    }

    /// What is known of the store and the member.
    pub fn figures(&self) -> Figures {
        self.desk.figures(&self.reader)
    }

    /// How many bytes the store takes on disk and in memory alone, for whoever asks.
    pub fn store_takes(&mut self, bytes: u64) {
        self.desk.total_bytes = bytes;
    }

    /// The longest message of a call.
    pub fn message_bytes_max(&self) -> usize {
        self.desk.message_bytes_max()
    }

    /// The oldest message of which a part has come, and not all, has begun at this time.
    pub fn receives_since(&mut self, id: ConnectionId, since_ns: Option<u64>) {
        if let Some(connection) = find(&mut self.connections, id)
            && let Some(calls) = &mut connection.calls
        {
            calls.receives_since_ns = since_ns;
        }
    }

    /// Whether calls of a connection have finished that [`Front::take_answers`] has not given.
    pub fn has_answers(&self, id: ConnectionId) -> bool {
        let calls = self
            .get(id)
            .and_then(|connection| connection.calls.as_ref());
        calls.is_some_and(|calls| !calls.answers.is_empty())
    }

    /// Whether a connection that speaks HTTP may hand in calls now. Once the front is asked to
    /// stop it may: they are refused.
    pub fn takes_calls(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|connection| !connection.is_full())
    }

    /// Serves a call of etcd's API, which came on that stream of a connection; the answer will be
    /// among [`Front::take_answers`]. Returns what it cost of a turn, see [`limits::TURN_COST`].
    pub fn call(
        &mut self,
        id: ConnectionId,
        stream: u64,
        method: Method,
        message: &[u8],
        now_ns: u64,
    ) -> usize {
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        match find(connections, id) {
            Some(connection) => desk.call(connection, id, stream, method, message, reader, now_ns),
            None => 0,
        }
    }

    /// Gives more of an answer that was given in part, see [`Answer::more`]; what it cost of a
    /// turn. Called once the client has taken what there was.
    pub fn feed(&mut self, id: ConnectionId, stream: u64, now_ns: u64) -> usize {
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        match find(connections, id) {
            Some(connection) => desk.work(connection, id, stream, reader, now_ns),
            None => 0,
        }
    }

    /// Takes the finished calls of a connection. Their bytes count against it until
    /// [`Front::wrote`] says that they have left. `into` must be empty.
    pub fn take_answers(&mut self, id: ConnectionId, into: &mut Answers) {
        if let Some(connection) = find(&mut self.connections, id)
            && let Some(calls) = &mut connection.calls
        {
            connection.touched = false;
            calls.taken += connection.output.len();
            std::mem::swap(&mut calls.answers, &mut into.list);
            std::mem::swap(&mut connection.output, &mut into.bytes);
        }
    }

    /// Bytes of messages that a runtime keeps because they are not complete have grown or shrunk;
    /// `false` if there is no room for more, and nothing is counted then.
    pub fn keeps_input(&mut self, grown: usize, shrunk: usize) -> bool {
        self.desk.input_bytes -= shrunk;
        if grown > 0 && self.desk.input_bytes + grown > limits::INPUT_BYTES_PER_FRONT {
            return false;
        }
        self.desk.input_bytes += grown;
        true
    }

    /// A call begins to come in, and is counted until [`Front::closes_calls`]; `false` if there
    /// are too many, and it has to be refused.
    pub fn opens_call(&mut self) -> bool {
        let fits = self.desk.calls < limits::CALLS_PER_FRONT;
        self.desk.calls += usize::from(fits);
        fits
    }

    /// So many calls are over.
    pub fn closes_calls(&mut self, count: usize) {
        self.desk.calls -= count;
    }

    /// The bytes to send.
    pub fn output(&self, id: ConnectionId) -> &[u8] {
        self.get(id).map_or(&[], Connection::unsent)
    }

    /// So many bytes of [`Front::output`] were sent.
    pub fn wrote(&mut self, id: ConnectionId, count: usize, now_ns: u64) {
        if let Some(connection) = find(&mut self.connections, id) {
            self.desk.wrote(connection, id, count, now_ns);
        }
    }

    /// What to do with the socket, once [`Front::output`] is empty.
    pub fn verdict(&self, id: ConnectionId) -> Verdict {
        self.get(id).map_or(Verdict::Over, Connection::verdict)
    }

    /// Takes what the order actor says.
    pub fn step(&mut self, input: FrontInput, now_ns: u64) {
        match input {
            FrontInput::Replies(replies) => {
                for reply in replies.list {
                    self.reply(reply, now_ns);
                }
                self.desk.answers_taken += replies.answer_bytes;
            }
            FrontInput::ReadReady { token, ok } => self.serve_held_reads(token, ok, now_ns),
            FrontInput::Leases(answers) => self.answer_about_leases(answers, now_ns),
            FrontInput::LocalReads(local) => self.desk.local_reads = local,
            FrontInput::Term { term, has_leader } => {
                self.desk.header.raft_term = term;
                self.desk.has_leader = has_leader;
                self.tell_health(now_ns);
            }
            FrontInput::Published => self.published(now_ns),
            FrontInput::PurgeHeld => self.desk.purge_held(),
        }
    }

    /// How long the first of the writes that are answered has waited, if it still waits. All wait
    /// equally long at most, so the time at which it came follows from that at which it gives up.
    pub fn has_waited_ns(&self, replies: &[Reply], now_ns: u64) -> Option<u64> {
        let first = replies.first()?;
        let deadline_ns = self.desk.waiters.deadline_ns(first.waiter)?;
        let left_ns = deadline_ns.saturating_sub(now_ns);
        Some((limits::REQUEST_DEADLINE_MS * 1_000_000).saturating_sub(left_ns))
    }

    fn reply(&mut self, reply: Reply, now_ns: u64) {
        let revision = match &reply.outcome {
            Outcome::Put { revision }
            | Outcome::Done { revision, .. }
            | Outcome::Failed { revision, .. } => *revision,
        };
        let header = self.desk.header_at(revision);
        if self.desk.errand_of(reply.waiter).is_some() {
            let news = match reply.outcome {
                Outcome::Done { response, .. } => News::Done(revision, *response),
                Outcome::Failed { error, .. } => News::Failed(error),
                Outcome::Put { .. } => News::Done(revision, api::Response::Put(Default::default())),
            };
            return self.settle_errand(reply.waiter, news, now_ns);
        }
        self.settle(reply.waiter, |desk, connection, waiter, _| {
            let (id, request) = (waiter.connection, waiter.request);
            if let Outcome::Done { response, .. } = &reply.outcome
                && !desk.fits(connection, response)
            {
                let error = api::Error::ResponseTooLarge;
                return desk.refuse(connection, id, request, error, now_ns);
            }
            desk.write(connection, id, now_ns, |connection| match reply.outcome {
                Outcome::Put { .. } => answer::put(connection, &header, request),
                Outcome::Done { response, .. } => {
                    answer::response(connection, &header, &response, request);
                }
                Outcome::Failed { error, .. } => {
                    answer::refusal(connection, &header, error, request);
                }
            });
        });
    }

    fn answer_about_leases(&mut self, answers: LeaseAnswers, now_ns: u64) {
        let LeaseAnswers {
            revision,
            kept,
            times,
            lists,
            mut deadlines,
            refused,
        } = answers;
        for (waiter, id, ttl) in kept {
            let kept = api::LeaseKeepAliveResponse { id, ttl };
            self.settle(waiter, |desk, connection, waiter, _| {
                desk.answer_keep_alive(connection, waiter, kept, revision, now_ns);
            });
        }
        for (ask, ttl) in times {
            self.settle(ask.waiter, |desk, connection, waiter, reader| {
                desk.answer_time_to_live(connection, waiter, (&ask, ttl), reader, now_ns);
            });
        }
        deadlines.sort_unstable();
        let ids: Vec<i64> = deadlines.into_iter().map(|(_, id)| id).collect();
        for waiter in lists {
            self.settle(waiter, |desk, connection, waiter, _| {
                desk.answer_leases(connection, waiter, &ids, revision, now_ns);
            });
        }
        for waiter in refused {
            self.settle(waiter, |desk, connection, waiter, _| {
                let (id, error) = (waiter.connection, api::Error::NoLeader);
                desk.refuse(connection, id, waiter.request, error, now_ns);
            });
        }
    }

    /// Answers one who waits, unless that is over: whoever timed out was answered then.
    #[inline]
    fn settle(
        &mut self,
        waiter: WaiterId,
        answer: impl FnOnce(&mut Desk, &mut Connection, &Waiter, &Reader),
    ) {
        let Some(waiter) = self.desk.waiters.take(waiter) else {
            return;
        };
        self.desk.uncharge(&waiter);
        if let Some(connection) = find(&mut self.connections, waiter.connection) {
            self.desk.relieved(connection, &waiter);
            answer(&mut self.desk, connection, &waiter, &self.reader);
        }
    }

    /// Gives an errand the answer that it waits for.
    #[cold]
    fn settle_errand(&mut self, waiter: WaiterId, news: News, now_ns: u64) {
        let Some(waiter) = self.desk.waiters.take(waiter) else {
            return;
        };
        self.desk.uncharge(&waiter);
        if let Some(errand) = waiter.errand {
            let connection = find(&mut self.connections, waiter.connection);
            self.desk
                .go_on(connection, errand, news, &self.reader, now_ns);
        }
    }

    fn serve_held_reads(&mut self, token: u64, ok: bool, now_ns: u64) {
        for held in self.desk.held_of(token) {
            if self.desk.errand_of(held.waiter).is_some() {
                let news = self.desk.serve_errand(&held, &self.reader, ok, now_ns);
                self.settle_errand(held.waiter, news, now_ns);
                continue;
            }
            self.settle(held.waiter, |desk, connection, waiter, reader| {
                desk.serve_held(connection, waiter, &held, reader, ok, now_ns);
            });
        }
    }

    /// Serves connections that had to pause and may go on, and works at long answers. Called once
    /// per turn.
    pub fn resume(&mut self, now_ns: u64) {
        self.go_on(now_ns);
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        for id in desk.take_resumable() {
            if let Some(connection) = find(connections, id) {
                desk.resume(connection, id, reader, now_ns);
            }
        }
        for (id, stream) in desk.long.take_working() {
            if let Some(connection) = find(connections, id) {
                desk.work(connection, id, stream, reader, now_ns);
            }
        }
    }

    /// The next batch of writes to propose; `None` if no more have gathered.
    pub fn take_batch(&mut self) -> Option<ProposalBatch> {
        self.desk.take_batch()
    }

    /// The token under which reads gathered since the last call wait for
    /// [`FrontInput::ReadReady`]; `None` if none did.
    pub fn take_barrier(&mut self) -> Option<u64> {
        self.desk.take_barrier()
    }

    /// What the order actor should be asked about the purge of compacted history, if that has
    /// changed: to hold it (anew), or to let it go.
    pub fn take_hold(&mut self) -> Option<bool> {
        self.desk.long.backups.take_hold()
    }

    /// The oldest revision that a long answer reads, if that has changed since the last call.
    pub fn take_oldest_read(&mut self) -> Option<Option<i64>> {
        self.desk.long.take_oldest()
    }

    /// What clients have asked about leases since the last call; `None` if nothing.
    pub fn take_lease_asks(&mut self) -> Option<LeaseAsks> {
        self.desk.take_lease_asks()
    }

    /// Bytes of answers to writes that were taken from the order actor since the last call, for
    /// [`OrderInput::AnswersTaken`](crate::node::messages::OrderInput::AnswersTaken); `None` if
    /// they are few.
    pub fn take_answers_taken(&mut self) -> Option<usize> {
        let many = self.desk.answers_taken >= limits::ANSWER_BYTES_TOLD;
        many.then(|| std::mem::take(&mut self.desk.answers_taken))
    }

    /// Whether a turn would find something to do.
    pub fn has_work(&self) -> bool {
        self.desk.has_work()
    }

    /// Moves the connections that the runtime should look at to the end of `into`.
    pub fn take_touched(&mut self, into: &mut Vec<ConnectionId>) {
        let Front {
            connections, desk, ..
        } = self;
        for id in desk.touched.drain(..) {
            // Whoever was served in between is touched no more.
            if let Some(connection) = find(connections, id)
                && std::mem::take(&mut connection.touched)
            {
                into.push(id);
            }
        }
    }

    /// What happened since the last call; a bounded sample.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.desk.notices)
    }

    /// Requests that wait for an answer, and bytes of answers that wait for their client.
    pub fn waiting(&self) -> (usize, usize) {
        (self.desk.waiters.len(), self.desk.output_bytes)
    }

    /// After [`Front::stop`]: nobody waits for anything any more.
    pub fn is_quiet(&self) -> bool {
        self.desk.waiters.is_empty() && self.desk.output_bytes == 0 && self.desk.long.is_empty()
    }

    /// Looks at the deadlines.
    pub fn tick(&mut self, now_ns: u64) {
        self.tick_watches(now_ns);
        let Front {
            connections,
            reader,
            desk,
            ..
        } = self;
        desk.measure_store(reader);
        desk.expire(now_ns, |desk, waiter| {
            if let Some(errand) = waiter.errand {
                return desk.errands.hear(errand, News::Failed(api::Error::Timeout));
            }
            if let Some(connection) = find(connections, waiter.connection) {
                desk.relieved(connection, &waiter);
                let error = api::Error::Timeout;
                desk.refuse(connection, waiter.connection, waiter.request, error, now_ns);
            }
        });
        if now_ns < self.next_scan_ns {
            return;
        }
        self.next_scan_ns = now_ns + limits::DEADLINE_SCAN_MS * 1_000_000;
        // Memory is what a client that takes nothing costs, and as long as there is enough it is
        // left alone if it watches, as in etcd.
        let patient = desk.output_bytes < limits::WATCH_STALLED_BYTES_PER_FRONT;
        for (slot, connection) in connections.iter_mut() {
            let watches = patient && !connection.streams.is_empty();
            if let Some(what) = connection.overdue(now_ns, watches) {
                let id = ConnectionId::new(slot, connection.generation);
                connection.abandon();
                desk.touch(connection, id);
                desk.notice(Notice::TooSlow(what));
            }
            if connection.stands_still(now_ns) {
                desk.trim(connection);
            }
        }
    }

    /// Serves nothing new from now on; what waits is still answered, and connections end as
    /// they fall silent.
    pub fn stop(&mut self, now_ns: u64) {
        self.desk.stopping = true;
        for (id, call) in self.desk.errands.end() {
            if let Some(connection) = find(&mut self.connections, id) {
                let error = api::Error::Stopped;
                self.desk.refuse(connection, id, call, error, now_ns);
            }
        }
        for (slot, connection) in &mut self.connections {
            let id = ConnectionId::new(slot, connection.generation);
            self.desk.end_input(connection, now_ns);
            self.desk.touch(connection, id);
        }
    }
}

impl Front {
    /// Tells those who want to know whether the server serves, if that has changed.
    fn tell_health(&mut self, now_ns: u64) {
        for (id, stream, health) in self.desk.changed_health() {
            if let Some(connection) = find(&mut self.connections, id) {
                self.desk
                    .say_health(connection, id, (stream, health), now_ns);
            }
        }
    }
}

fn find(connections: &mut Slab<Connection>, id: ConnectionId) -> Option<&mut Connection> {
    let connection = connections.get_mut(id.slot())?;
    (connection.generation == id.generation()).then_some(connection)
}

/// Reads the first bytes of a connection; the rest of `bytes` is served.
fn greet(
    desk: &mut Desk,
    connection: &mut Connection,
    id: ConnectionId,
    reader: &Reader,
    bytes: &[u8],
    now_ns: u64,
) {
    // Preambles are short: what is taken beyond them is put back by length.
    let before = connection.input.len();
    let taken = bytes.len().min(wire::CLIENT_PREAMBLE_BYTES.max(24));
    connection.input.extend_from_slice(&bytes[..taken]);
    desk.input_bytes += taken;
    let sniffed = wire::sniff(&connection.input);
    match sniffed {
        Sniff::NeedMore => return,
        Sniff::Native => {}
        Sniff::Http1 | Sniff::Http2 => {
            // The runtime wants every byte from the first.
            desk.input_bytes += bytes.len() - taken;
            connection.input.extend_from_slice(&bytes[taken..]);
            connection.calls = Some(Box::default());
            connection.phase = Phase::Http(match sniffed {
                Sniff::Http1 => HttpVersion::One,
                _ => HttpVersion::Two,
            });
            desk.touch(connection, id);
            return;
        }
        other => {
            desk.say(connection, id, wire::refusal(other), now_ns);
            desk.end_input(connection, now_ns);
            desk.notice(Notice::NotServed(other));
            return;
        }
    }
    let status = match wire::read_client_preamble(&connection.input) {
        Ok(None) => return,
        Ok(Some(())) if desk.stopping => HelloStatus::Stopping,
        Ok(Some(())) => HelloStatus::Accepted,
        Err(malformed) => {
            desk.notice(Notice::Malformed(malformed));
            wire::refused_status(malformed)
        }
    };
    let hello = wire::server_preamble(&ServerHello {
        status,
        frame_bytes_max: u32::try_from(desk.frame_bytes_max()).unwrap_or(u32::MAX),
        in_flight_max: limits::REQUESTS_PER_CONNECTION as u32,
        cluster_id: desk.header.cluster_id,
        member_id: desk.header.member_id,
    });
    desk.say(connection, id, &hello, now_ns);
    if status != HelloStatus::Accepted {
        desk.end_input(connection, now_ns);
        return;
    }
    desk.input_bytes -= connection.input.len();
    connection.input = Vec::new();
    connection.phase = Phase::Serving;
    let used = wire::CLIENT_PREAMBLE_BYTES - before;
    desk.take_input(connection, id, reader, &bytes[used..], now_ns);
}
