//! Requests: admitted, served from a snapshot, held for their barrier, or proposed.
#![forbid(unsafe_code)]

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::{Desk, HeldRead, Turn, Waiter};
use crate::api::{self, Request};
use crate::apply::{self, validate};
use crate::etcd::{self, Method};
use crate::limits;
use crate::node::messages::ProposalBatch;
use crate::propose::command::CommandKind;
use crate::propose::waiters::WaiterId;
use crate::wire::{self, Frame, Kind};
use quoin_storage::tree::Reader;

/// What stands around a request.
pub(super) struct Ask<'a> {
    /// The client's own number for it.
    number: u64,
    /// What it counts against the budgets.
    bytes: usize,
    /// Room that is set aside for its answer.
    answer_bytes: usize,
    /// Its body as the log carries it, if it came so.
    body: Option<&'a [u8]>,
    /// A range whose answer is a stream.
    streamed: bool,
}

impl Ask<'_> {
    /// Writes its body as the log carries it.
    pub fn copy_body(&self, request: &Request<'_>, into: &mut Vec<u8>) -> Result<(), api::Error> {
        match self.body {
            Some(body) => into.extend_from_slice(body),
            None => {
                wire::encode_body(request, into).map_err(|_| api::Error::RequestTooLarge)?;
            }
        }
        Ok(())
    }
}

impl Desk {
    pub(super) fn request(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        self.counts.native += 1;
        turn.cost += 1 + frame.body.len() / 4096;
        if matches!(frame.kind, Kind::Ping | Kind::Status) {
            self.presence(connection, id, frame, turn);
            return;
        }
        if wire::is_watch(frame.kind) {
            self.watch(connection, id, frame, turn);
            return;
        }
        let request = match wire::decode_request(frame.kind, frame.body) {
            Ok(request) if !frame.kind.is_internal() => request,
            Ok(_) => {
                let unknown = wire::Malformed::UnknownKind(frame.kind.number());
                self.malformed(connection, id, frame.id, unknown, now_ns);
                return;
            }
            Err(malformed) => {
                self.malformed(connection, id, frame.id, malformed, now_ns);
                return;
            }
        };
        let ask = Ask {
            number: frame.id,
            bytes: frame.body.len(),
            answer_bytes: 0,
            body: Some(wire::command_body(frame)),
            streamed: false,
        };
        self.serve_request(connection, id, &ask, &request, turn);
    }

    /// Serves a call of etcd's API; returns what it cost of a turn.
    #[expect(clippy::too_many_arguments, reason = "a call is all of them")]
    pub fn call(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        stream: u64,
        method: Method,
        message: &[u8],
        reader: &Reader,
        now_ns: u64,
    ) -> usize {
        let mut turn = Turn::new(reader, now_ns);
        turn.cost = 1 + message.len() / 4096;
        if self.ends_overdrawn(connection, id) {
            return turn.cost;
        }
        if self.stopping {
            self.refuse(connection, id, stream, api::Error::Stopped, now_ns);
            return turn.cost;
        }
        if method == Method::Watch {
            self.watch_call(connection, id, (stream, message), &mut turn);
            return turn.cost;
        }
        if etcd::election::is_election(method) {
            self.begin_errand(connection, id, (stream, method, message), &mut turn);
            return turn.cost;
        }
        if method == Method::HealthWatch {
            self.watch_health(connection, id, (stream, message), now_ns);
            return turn.cost;
        }
        if method == Method::Snapshot {
            match etcd::pb::check(message) {
                Ok(()) => self.snapshot_call(connection, id, stream, now_ns),
                Err(malformed) => self.write(connection, id, now_ns, |connection| {
                    let refused = etcd::Refused::Malformed(malformed).on(method);
                    answer::close(connection, stream, Some(refused));
                }),
            }
            return turn.cost;
        }
        if matches!(method, Method::Hash | Method::HashKv) {
            self.hash_call(connection, id, (stream, method, message), &mut turn);
            return turn.cost;
        }
        let decoded = match etcd::decode(method, message) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => {
                self.ask_about_member(connection, id, (stream, method, message), &mut turn);
                return turn.cost;
            }
            Err(refused) => {
                self.write(connection, id, now_ns, |connection| {
                    answer::close(connection, stream, Some(refused.on(method)));
                });
                return turn.cost;
            }
        };
        // Among several flaws etcd names the one that it meets first.
        let flaw =
            decoded.flaw.map(
                |flaw| match validate::admit(&decoded.request, &self.config.limits) {
                    Err(error @ api::Error::TooManyOps) => error,
                    Err(error @ api::Error::EmptyKey) if flaw == api::Error::InvalidSortOption => {
                        error
                    }
                    _ => flaw,
                },
            );
        if let Some(error) = flaw {
            self.refuse(connection, id, stream, error, now_ns);
            return turn.cost;
        }
        let ask = Ask {
            number: stream,
            bytes: message.len(),
            answer_bytes: 0,
            body: None,
            streamed: method == Method::RangeStream,
        };
        let mut request = decoded.request;
        if ask.streamed
            && let Err(status) = self.check_stream(&mut request)
        {
            self.write(connection, id, now_ns, |connection| {
                answer::close(connection, stream, Some(status));
            });
            return turn.cost;
        }
        self.serve_request(connection, id, &ask, &request, &mut turn);
        turn.cost
    }

    fn serve_request(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        ask: &Ask<'_>,
        request: &Request<'_>,
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        let admitted = validate::admit(request, &self.config.limits);
        let reads = match request {
            Request::Range(_) => true,
            Request::Txn(txn) => apply::is_read_only(txn),
            _ => false,
        };
        self.counts.reads += u64::from(reads && admitted.is_ok());
        let refused = match (admitted, request) {
            (Err(error), _) => Err(error),
            (Ok(()), Request::Range(range)) if self.local_reads || range.serializable => {
                self.range(connection, id, (ask.number, ask.streamed), range, turn);
                Ok(())
            }
            (Ok(()), Request::Txn(txn))
                if apply::is_read_only(txn)
                    && (self.local_reads || apply::is_serializable(txn)) =>
            {
                self.read_txn(connection, id, ask.number, txn, turn);
                Ok(())
            }
            (Ok(()), Request::Range(_)) => self.hold(connection, id, ask, request, now_ns),
            (Ok(()), Request::Txn(txn)) if apply::is_read_only(txn) => {
                self.hold(connection, id, ask, request, now_ns)
            }
            (Ok(()), Request::LeaseGrant(grant)) => {
                let settled = Request::LeaseGrant(self.settle_grant(grant));
                let ask = Ask { body: None, ..*ask };
                self.check_quota(&settled, ask.bytes, turn)
                    .and_then(|()| self.propose(connection, id, &ask, &settled, turn))
            }
            (
                Ok(()),
                Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) | Request::Leases,
            ) => self.ask_about_leases(connection, id, ask, request, now_ns),
            (Ok(()), _) => self
                .check_quota(request, ask.bytes, turn)
                .and_then(|()| self.propose(connection, id, ask, request, turn)),
        };
        if let Err(error) = refused {
            self.refuse(connection, id, ask.number, error, now_ns);
        }
    }

    fn presence(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(malformed) = wire::decode_empty(frame.body) {
            self.malformed(connection, id, frame.id, malformed, turn.now_ns);
            return;
        }
        let revision = match turn.view() {
            Ok(view) => view.horizon().revision,
            Err(_) => self.header.revision,
        };
        let header = self.header_at(revision);
        let version = self.config.version;
        self.write(connection, id, turn.now_ns, |connection| {
            let out = &mut connection.output;
            match frame.kind {
                Kind::Status => wire::encode_status_reply(&header, version, frame.id, out),
                _ => wire::encode_ping_reply(&header, frame.id, out),
            }
        });
    }

    /// A transaction that only reads is served like a read.
    fn read_txn(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        txn: &api::TxnRequest<'_>,
        turn: &mut Turn<'_>,
    ) {
        let room = self.room(connection);
        let read = turn.view().map_err(apply::Failure::from).and_then(|view| {
            let response = apply::read_txn(&view, txn, room)?;
            Ok((view.horizon().revision, response))
        });
        let served = match read {
            Ok((revision, response)) => {
                let header = self.header_at(revision);
                let response = api::Response::Txn(response);
                turn.cost += self.write(connection, id, turn.now_ns, |connection| {
                    let before = connection.output.len();
                    answer::response(connection, &header, &response, request);
                    (connection.output.len() - before) / 256
                });
                Ok(())
            }
            Err(failure) => Err(self.own_up_within(&failure, room, turn.now_ns)),
        };
        self.served(connection, id, request, served, turn.now_ns);
    }

    /// Tells the client how a read went, unless it was answered.
    pub(super) fn served(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        served: Result<(), api::Error>,
        now_ns: u64,
    ) {
        let Err(error) = served else {
            return;
        };
        self.refuse(connection, id, request, error, now_ns);
    }

    /// Refuses a request for which there is no memory. What is not with the order actor counts even
    /// if nobody waits for it any more: that one may be away for longer than a client waits.
    pub(super) fn admit_bytes(&self, bytes: usize) -> Result<(), api::Error> {
        let kept = self.full_bytes + self.batch.len() + self.held_bytes;
        if self.request_bytes.max(kept) + bytes > limits::REQUEST_BYTES_PER_FRONT {
            return Err(api::Error::TooManyRequests);
        }
        Ok(())
    }

    /// Has a read wait for the next barrier.
    pub(super) fn gather(&mut self, held: HeldRead) {
        self.held_bytes += held.memory();
        self.gathering.push(held);
    }

    /// Remembers who waits for a request's answer.
    pub(super) fn wait(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        ask: &Ask<'_>,
        now_ns: u64,
    ) -> Result<WaiterId, api::Error> {
        let bytes = ask.bytes;
        self.admit_bytes(bytes)?;
        let deadline = now_ns + limits::REQUEST_DEADLINE_MS * 1_000_000;
        let waiter = Waiter {
            connection: id,
            request: ask.number,
            bytes,
            answer_bytes: ask.answer_bytes,
            errand: None,
        };
        let waiter = self
            .waiters
            .insert(deadline, waiter)
            .map_err(|_| api::Error::TooManyRequests)?;
        self.request_bytes += bytes;
        self.reserved += ask.answer_bytes;
        connection.reserved += ask.answer_bytes;
        connection.in_flight += 1;
        connection.in_flight_bytes += bytes;
        Ok(waiter)
    }

    /// The command for a grant: what the client has left open, and what is for the server to say,
    /// is settled before the log, so that all members grant the same.
    fn settle_grant(&mut self, grant: &api::LeaseGrantRequest) -> api::LeaseGrantRequest {
        let mut settled = *grant;
        settled.ttl = grant.ttl.max(self.config.limits.lease_ttl_min);
        while settled.id == 0 {
            settled.id = (self.chance.next_u64() >> 1) as i64;
        }
        settled
    }

    fn propose(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        ask: &Ask<'_>,
        request: &Request<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), api::Error> {
        let answer_bytes = self.reserve(connection, request, turn)?;
        let ask = &Ask {
            answer_bytes,
            ..*ask
        };
        let kind = CommandKind::from_wire(wire::request_kind(request));
        let kind = kind.ok_or(api::Error::Unimplemented)?;
        let mut encoded = std::mem::take(&mut self.body);
        let body = match ask.body {
            Some(body) => body,
            None => {
                encoded.clear();
                wire::encode_body(request, &mut encoded)
                    .map_err(|_| api::Error::RequestTooLarge)?;
                &encoded[..]
            }
        };
        let waiter = self.wait(connection, id, ask, turn.now_ns);
        let proposed = waiter.map(|waiter| self.push(waiter, kind, body));
        if encoded.capacity() <= limits::POOLED_BUFFER_BYTES {
            self.body = encoded;
        }
        proposed
    }

    /// Adds a command to the batch of this turn.
    pub(super) fn push(&mut self, waiter: WaiterId, kind: CommandKind, body: &[u8]) {
        if self.batch.push(waiter.0, kind, body).is_err() {
            if let Some(full) = self.close_batch() {
                self.full_bytes += full.bytes.len();
                self.full_batches.push_back(full);
            }
            let pushed = self.batch.push(waiter.0, kind, body);
            assert!(pushed.is_ok(), "an empty batch takes any command");
        }
    }

    fn close_batch(&mut self) -> Option<ProposalBatch> {
        let built = self.batch.take()?;
        Some(ProposalBatch {
            front: self.config.front,
            sequence: built.sequence,
            count: built.count,
            bytes: built.bytes,
        })
    }

    pub fn take_batch(&mut self) -> Option<ProposalBatch> {
        let Some(full) = self.full_batches.pop_front() else {
            return self.close_batch();
        };
        self.full_bytes -= full.bytes.len();
        Some(full)
    }

    // ---- reads that ask the quorum first

    fn hold(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        ask: &Ask<'_>,
        request: &Request<'_>,
        now_ns: u64,
    ) -> Result<(), api::Error> {
        let mut body = Vec::new();
        ask.copy_body(request, &mut body)?;
        let kind = wire::request_kind(request);
        let waiter = self.wait(connection, id, ask, now_ns)?;
        self.gather(HeldRead {
            waiter,
            kind,
            body,
            streamed: ask.streamed,
        });
        Ok(())
    }

    pub fn take_barrier(&mut self) -> Option<u64> {
        if self.gathering.is_empty() {
            return None;
        }
        let token = self.next_token;
        self.next_token += 1;
        self.barriers
            .push((token, std::mem::take(&mut self.gathering)));
        Some(token)
    }

    /// The reads that waited for this token.
    pub fn held_of(&mut self, token: u64) -> Vec<HeldRead> {
        let Some(at) = self.barriers.iter().position(|(of, _)| *of == token) else {
            return Vec::new();
        };
        let (_, held) = self.barriers.swap_remove(at);
        self.held_bytes -= held.iter().map(HeldRead::memory).sum::<usize>();
        held
    }

    pub fn serve_held(
        &mut self,
        connection: &mut Connection,
        waiter: &Waiter,
        held: &HeldRead,
        reader: &Reader,
        ok: bool,
        now_ns: u64,
    ) {
        let id = waiter.connection;
        let mut turn = Turn::new(reader, now_ns);
        match wire::decode_request(held.kind, &held.body) {
            Ok(Request::Range(range)) if ok => {
                let whose = (waiter.request, held.streamed);
                self.range(connection, id, whose, &range, &mut turn);
            }
            Ok(Request::Txn(txn)) if ok => {
                self.read_txn(connection, id, waiter.request, &txn, &mut turn);
            }
            _ => {
                let error = api::Error::LeaderChanged;
                self.refuse(connection, id, waiter.request, error, now_ns);
            }
        }
    }
}
