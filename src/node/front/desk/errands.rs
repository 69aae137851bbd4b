//! The calls of the Lock and Election services, on their way: their requests go the way of any
//! other, and their answers come here.
#![forbid(unsafe_code)]

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::super::watching::Owner;
use super::errand::{Act, Errand, News, Task, Wish};
use super::{Desk, HeldRead, Turn, Waiter};
use crate::api::{self, Event, EventKind, KeyValue, RangeResponse, Request, Response, WatchCreate};
use crate::apply::{self, validate};
use crate::etcd::election::{
    LeaderKey, decode_election, election_status, encode_leader, encode_locked, encode_won,
};
use crate::etcd::{Method, Status, encode_header_alone};
use crate::limits;
use crate::propose::command::CommandKind;
use crate::propose::waiters::WaiterId;
use crate::wire::{self, Kind};
use quoin_storage::tree::Reader;
use slab::Slab;

/// Names an errand; never reused for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrandId {
    slot: u32,
    serial: u32,
}

/// Those under way.
#[derive(Debug, Default)]
pub struct Errands {
    list: Slab<(u32, Errand)>,
    serial: u32,
    /// What was heard of while there was no turn to act on it.
    heard: Vec<(ErrandId, News)>,
}

impl Errands {
    fn add(&mut self, errand: Errand) -> ErrandId {
        self.serial = self.serial.wrapping_add(1);
        let slot = self.list.insert((self.serial, errand));
        ErrandId {
            // Bounded by ERRANDS_PER_FRONT.
            slot: slot as u32,
            serial: self.serial,
        }
    }

    fn get(&mut self, id: ErrandId) -> Option<&mut Errand> {
        let (serial, errand) = self.list.get_mut(id.slot as usize)?;
        (*serial == id.serial).then_some(errand)
    }

    fn remove(&mut self, id: ErrandId) -> Option<Errand> {
        self.get(id)?;
        Some(self.list.remove(id.slot as usize).1)
    }

    /// Whether there is something to act on.
    pub fn has_news(&self) -> bool {
        !self.heard.is_empty()
    }

    /// What there is to act on.
    pub fn take_news(&mut self) -> Vec<(ErrandId, News)> {
        std::mem::take(&mut self.heard)
    }

    /// Remembers something for the next turn.
    pub fn hear(&mut self, id: ErrandId, news: News) {
        self.heard.push((id, news));
    }

    /// The connection of an errand.
    pub fn connection(&mut self, id: ErrandId) -> Option<ConnectionId> {
        self.get(id).map(|errand| errand.connection)
    }

    /// Whether it tells of leaders while its client listens.
    pub fn observes(&mut self, id: ErrandId) -> bool {
        let errand = self.get(id);
        errand.is_some_and(|errand| errand.task == Task::Observe)
    }

    /// Ends all of them, without taking their keys back; returns whom they were for.
    pub fn end(&mut self) -> Vec<(ConnectionId, u64)> {
        self.heard.clear();
        let list = self.list.drain();
        list.map(|(_, errand)| (errand.connection, errand.call))
            .collect()
    }
}

impl Desk {
    /// Begins a call of one of the two services.
    pub(super) fn begin_errand(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, method, message): (u64, Method, &[u8]),
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        let request = match decode_election(method, message) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(status) => return self.refuse_errand(connection, id, stream, status, now_ns),
        };
        let bytes = message.len();
        if self.errands.list.len() >= limits::ERRANDS_PER_FRONT
            || self.request_bytes + bytes > limits::REQUEST_BYTES_PER_FRONT
        {
            let status = election_status(api::Error::TooManyRequests);
            return self.refuse_errand(connection, id, stream, status, now_ns);
        }
        self.request_bytes += bytes;
        connection.in_flight_bytes += bytes;
        let errand = self.errands.add(Errand::new(id, stream, &request, bytes));
        connection.errands.insert(stream, errand);
        self.go_on(Some(connection), errand, News::Begin, turn.reader, now_ns);
    }

    fn refuse_errand(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        call: u64,
        status: Status,
        now_ns: u64,
    ) {
        self.write(connection, id, now_ns, |connection| {
            answer::close(connection, call, Some(status));
        });
    }

    /// The client of a call gives it up.
    pub fn give_up_errand(&mut self, connection: &mut Connection, call: u64) {
        if let Some(errand) = connection.errands.remove(&call) {
            self.errands.hear(errand, News::Gone);
        }
    }

    /// Does what news of an errand lead to.
    pub fn go_on(
        &mut self,
        mut connection: Option<&mut Connection>,
        id: ErrandId,
        news: News,
        reader: &Reader,
        now_ns: u64,
    ) {
        let mut news = Some(news);
        while let Some(now) = news.take() {
            let Some(errand) = self.errands.get(id) else {
                return;
            };
            let (whose, call) = (errand.connection, errand.call);
            match errand.step(now) {
                Act::Wait => {}
                Act::Ask(wish) => {
                    let asked = self.ask(connection.as_deref_mut(), id, wish, reader, now_ns);
                    news = asked.unwrap_or_else(|error| Some(News::Failed(error)));
                }
                Act::Watch(key, revision) => {
                    let turn = &mut Turn::new(reader, now_ns);
                    let watched =
                        self.watch_for(connection.as_deref_mut(), id, key, revision, turn);
                    news = watched.err().map(News::Failed);
                }
                Act::Tell(_, leader) if !self.has_room(connection.as_deref(), &leader) => {
                    news = Some(News::Failed(api::Error::TooManyRequests));
                }
                Act::Tell(revision, leader) => {
                    let header = self.header_at(revision);
                    if let Some(connection) = connection.as_deref_mut() {
                        self.write(connection, whose, now_ns, |connection| {
                            encode_leader(&header, &leader.borrow(), &mut connection.output);
                            answer::close_unasked(connection, call);
                        });
                    }
                    let key = Some(leader.key);
                    let turn = &mut Turn::new(reader, now_ns);
                    let watched =
                        self.watch_for(connection.as_deref_mut(), id, key, revision, turn);
                    news = watched.err().map(News::Failed);
                }
                Act::Answer(_, Some(leader)) if !self.has_room(connection.as_deref(), &leader) => {
                    news = Some(News::Failed(api::Error::TooManyRequests));
                }
                Act::Answer(revision, leader) => {
                    self.answer_errand(connection.as_deref_mut(), id, revision, leader, now_ns);
                    self.end_errand(connection.as_deref_mut(), id);
                }
                Act::Refuse(status) => {
                    if let Some(connection) = connection.as_deref_mut() {
                        self.refuse_errand(connection, whose, call, status, now_ns);
                    }
                    self.end_errand(connection.as_deref_mut(), id);
                }
                Act::RefuseAndLeave(status, wish) => {
                    if let Some(connection) = connection.as_deref_mut() {
                        self.refuse_errand(connection, whose, call, status, now_ns);
                    }
                    let asked = self.ask(connection.as_deref_mut(), id, wish, reader, now_ns);
                    news = asked.unwrap_or_else(|error| Some(News::Failed(error)));
                }
                Act::Over => self.end_errand(connection.as_deref_mut(), id),
            }
        }
    }

    /// Whether there is room to tell of a leader, if anybody is there to be told.
    fn has_room(&self, connection: Option<&Connection>, leader: &api::OwnedKeyValue) -> bool {
        let bytes = leader.key.len() + leader.value.len();
        connection.is_none_or(|connection| bytes <= self.room(connection))
    }

    fn answer_errand(
        &mut self,
        connection: Option<&mut Connection>,
        id: ErrandId,
        revision: i64,
        leader: Option<api::OwnedKeyValue>,
        now_ns: u64,
    ) {
        let header = self.header_at(revision);
        let (Some(connection), Some(errand)) = (connection, self.errands.get(id)) else {
            return;
        };
        let (whose, call) = (errand.connection, errand.call);
        let mut message = Vec::new();
        match (errand.task, &leader) {
            (Task::Lock, _) => encode_locked(&header, &errand.key, &mut message),
            (Task::Campaign, _) => {
                let won = LeaderKey {
                    name: errand.name(),
                    key: &errand.key,
                    rev: errand.rev,
                    lease: errand.lease,
                };
                encode_won(&header, &won, &mut message);
            }
            (_, Some(leader)) => encode_leader(&header, &leader.borrow(), &mut message),
            (_, None) => encode_header_alone(&header, &mut message),
        }
        self.say(connection, whose, &message, now_ns);
        answer::close(connection, call, None);
    }

    fn end_errand(&mut self, connection: Option<&mut Connection>, id: ErrandId) {
        let Some(errand) = self.errands.remove(id) else {
            return;
        };
        self.request_bytes -= errand.bytes;
        if let Some(connection) = connection {
            let was_full = connection.is_full();
            connection.in_flight_bytes -= errand.bytes;
            connection.errands.remove(&errand.call);
            self.close_stream(connection, errand.call);
            self.may_resume(connection, errand.connection, was_full);
        }
    }

    /// Asks the store; a read that needs no barrier is answered at once.
    fn ask(
        &mut self,
        connection: Option<&mut Connection>,
        id: ErrandId,
        wish: Wish,
        reader: &Reader,
        now_ns: u64,
    ) -> Result<Option<News>, api::Error> {
        let Some(errand) = self.errands.get(id) else {
            return Ok(None);
        };
        let call = errand.call;
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let encoded = self.encode_wish(id, wish, reader, &mut body, now_ns);
        let asked = encoded.and_then(|kind| match CommandKind::from_wire(kind) {
            Some(command) => {
                let waiter = self.wait_errand(id, body.len(), now_ns)?;
                self.push(waiter, command, &body);
                Ok(None)
            }
            None if self.local_reads => Ok(Some(self.read_wish(&body, reader, now_ns))),
            None => {
                let waiter = self.wait_errand(id, body.len(), now_ns)?;
                let body = body.clone();
                self.gather(HeldRead {
                    waiter,
                    kind,
                    body,
                    streamed: false,
                });
                Ok(None)
            }
        });
        if body.capacity() <= limits::POOLED_BUFFER_BYTES {
            self.body = body;
        }
        // It no longer needs what it watched.
        if let Some(connection) = connection {
            self.close_stream(connection, call);
        }
        asked
    }

    fn encode_wish(
        &mut self,
        id: ErrandId,
        wish: Wish,
        reader: &Reader,
        body: &mut Vec<u8>,
        now_ns: u64,
    ) -> Result<Kind, api::Error> {
        let Some(at) = self.errands.list.get_mut(id.slot as usize) else {
            return Err(api::Error::Stopped);
        };
        let grant = match wish {
            Wish::Grant => self.chance.next_u64() >> 1,
            _ => 0,
        };
        let errand = &mut at.1;
        let end = errand.prefix_end();
        let request = match errand.request(wish, &end) {
            Request::LeaseGrant(open) => Request::LeaseGrant(api::LeaseGrantRequest {
                ttl: open.ttl.max(self.config.limits.lease_ttl_min),
                id: grant.max(1) as i64,
            }),
            request => request,
        };
        validate::admit(&request, &self.config.limits)?;
        wire::encode_body(&request, body).map_err(|_| api::Error::RequestTooLarge)?;
        let (kind, adds) = (wire::request_kind(&request), validate::adds_data(&request));
        if adds {
            let turn = Turn::new(reader, now_ns);
            self.check_quota_of(body.len(), &turn)?;
        }
        Ok(kind)
    }

    fn wait_errand(
        &mut self,
        id: ErrandId,
        bytes: usize,
        now_ns: u64,
    ) -> Result<WaiterId, api::Error> {
        let Some(errand) = self.errands.get(id) else {
            return Err(api::Error::Stopped);
        };
        let waiter = Waiter {
            connection: errand.connection,
            request: errand.call,
            bytes,
            answer_bytes: 0,
            errand: Some(id),
        };
        self.admit_bytes(bytes)?;
        let deadline = now_ns + limits::REQUEST_DEADLINE_MS * 1_000_000;
        let waiter = self.waiters.insert(deadline, waiter);
        let waiter = waiter.map_err(|_| api::Error::TooManyRequests)?;
        self.request_bytes += bytes;
        Ok(waiter)
    }

    /// Serves a read of an errand that waited for its barrier.
    pub fn serve_errand(
        &mut self,
        held: &HeldRead,
        reader: &Reader,
        ok: bool,
        now_ns: u64,
    ) -> News {
        match ok {
            true => self.read_wish(&held.body, reader, now_ns),
            false => News::Failed(api::Error::LeaderChanged),
        }
    }

    fn read_wish(&mut self, body: &[u8], reader: &Reader, now_ns: u64) -> News {
        let Ok(Request::Range(range)) = wire::decode_request(Kind::Range, body) else {
            unreachable!("it was written here");
        };
        let mut turn = Turn::new(reader, now_ns);
        let read = turn.view().map_err(apply::Failure::from).and_then(|view| {
            let mut response = RangeResponse::default();
            apply::range(&view, &range, &mut response)?;
            Ok((view.horizon().revision, response))
        });
        match read {
            Ok((revision, response)) => News::Done(revision, Response::Range(response)),
            Err(failure) => News::Failed(self.own_up(&failure, now_ns)),
        }
    }

    /// Watches for an errand what comes behind `revision`: of a key that it is gone, or of the
    /// prefix that there is a first.
    fn watch_for(
        &mut self,
        connection: Option<&mut Connection>,
        id: ErrandId,
        key: Option<Vec<u8>>,
        revision: i64,
        turn: &mut Turn<'_>,
    ) -> Result<(), api::Error> {
        let now_ns = turn.now_ns;
        let view = turn
            .view()
            .map_err(|error| self.own_up(&error.into(), now_ns))?;
        let newest = view.horizon().revision;
        let (Some(connection), Some(errand)) = (connection, self.errands.get(id)) else {
            // Whoever waited has gone, which the errand hears of next.
            return Ok(());
        };
        let owner = Owner {
            connection: errand.connection,
            stream: errand.call,
            errand: Some(id),
        };
        let (prefix, end) = (errand.prefix().to_vec(), errand.prefix_end());
        let observes = errand.task == Task::Observe;
        let create = WatchCreate {
            key: key.as_deref().unwrap_or(&prefix),
            range_end: if key.is_none() { &end } else { b"" },
            start_revision: revision + 1,
            no_put: !observes,
            no_delete: key.is_none(),
            ..WatchCreate::default()
        };
        self.close_stream(connection, owner.stream);
        self.open_watch(connection, owner, &create, newest, turn.now_ns)
            .map_err(|_| api::Error::TooManyRequests)
    }

    /// An errand's watch tells of events; messages for its client go to `out`.
    pub fn errand_hears(
        &mut self,
        id: ErrandId,
        events: &[Event<'_>],
        revision: i64,
        tell: &mut dyn FnMut(&api::Header, &KeyValue<'_>),
    ) {
        let header = self.header;
        let Some(errand) = self.errands.get(id) else {
            return;
        };
        for event in events {
            if errand.deaf {
                return;
            }
            let news = match event.kind {
                EventKind::Delete => News::Changed,
                EventKind::Put if errand.follows() => {
                    tell(&api::Header { revision, ..header }, &event.kv);
                    continue;
                }
                EventKind::Put => {
                    let revision = event.kv.mod_revision;
                    tell(&api::Header { revision, ..header }, &event.kv);
                    News::Chosen(event.kv.key.to_vec(), revision)
                }
            };
            errand.deaf = true;
            self.errands.heard.push((id, news));
            return;
        }
    }
}
