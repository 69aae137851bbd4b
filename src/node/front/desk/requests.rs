//! Requests: admitted, served from a snapshot, held for their barrier, or proposed.
#![forbid(unsafe_code)]

use super::super::{Notice, connection::Connection, connection::ConnectionId};
use super::{Desk, HeldRead, Turn, Waiter};
use crate::api::{self, KvSink, Request};
use crate::apply::{self, validate};
use crate::limits;
use crate::node::messages::ProposalBatch;
use crate::propose::command::CommandKind;
use crate::propose::waiters::WaiterId;
use crate::wire::{self, Frame, Kind, RangeEncoder};
use quoin_storage::mvcc::Meta;
use quoin_storage::tree::Reader;

impl Desk {
    pub(super) fn request(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        turn: &mut Turn<'_>,
    ) {
        let now_ns = turn.now_ns;
        turn.cost += 1 + frame.body.len() / 4096;
        if matches!(frame.kind, Kind::Ping | Kind::Status) {
            self.presence(connection, id, frame, turn);
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
        let admitted = validate::admit(&request, &self.config.limits);
        let refused = match (admitted, &request) {
            (Err(error), _) => Err(error),
            (Ok(()), Request::Range(range)) if self.local_reads || range.serializable => {
                self.range(connection, id, frame.id, range, turn);
                Ok(())
            }
            (Ok(()), Request::Txn(txn))
                if apply::is_read_only(txn)
                    && (self.local_reads || apply::is_serializable(txn)) =>
            {
                self.read_txn(connection, id, frame.id, txn, turn);
                Ok(())
            }
            (Ok(()), Request::Range(_)) => self.hold(connection, id, frame, now_ns),
            (Ok(()), Request::Txn(txn)) if apply::is_read_only(txn) => {
                self.hold(connection, id, frame, now_ns)
            }
            (Ok(()), Request::LeaseGrant(grant)) => {
                let body = self.settle_grant(grant);
                self.check_quota(&request, body.len())
                    .and_then(|()| self.propose(connection, id, frame, &body, now_ns))
            }
            (
                Ok(()),
                Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) | Request::Leases,
            ) => self.ask_about_leases(connection, id, frame, &request, now_ns),
            (Ok(()), request) => self.check_quota(request, frame.body.len()).and_then(|()| {
                self.propose(connection, id, frame, wire::command_body(frame), now_ns)
            }),
        };
        if let Err(error) = refused {
            self.refuse(connection, id, frame.id, error, now_ns);
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
        self.ready_output(connection, turn.now_ns);
        let before = connection.output.len();
        match frame.kind {
            Kind::Status => {
                let version = self.config.version;
                wire::encode_status_reply(&header, version, frame.id, &mut connection.output);
            }
            _ => wire::encode_ping_reply(&header, frame.id, &mut connection.output),
        }
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
    }

    /// Reads from the newest published root into the client's output.
    fn range(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        range: &api::RangeRequest<'_>,
        turn: &mut Turn<'_>,
    ) {
        self.ready_output(connection, turn.now_ns);
        let before = connection.output.len();
        let room = limits::OUTPUT_BYTES_PER_FRONT.saturating_sub(self.output_bytes);
        let mut encoder = RangeEncoder::new(
            &mut connection.output,
            &mut self.scratch,
            request,
            room.min(limits::RESPONSE_BYTES_MAX),
        );
        let read = turn.view().map_err(apply::Failure::from).and_then(|view| {
            let summary = apply::range(&view, range, &mut encoder)?;
            Ok((view.horizon().revision, summary))
        });
        let served = match read {
            Ok((revision, summary)) => {
                turn.cost += encoder.body_bytes() / 256;
                self.header.revision = self.header.revision.max(revision);
                let header = api::Header {
                    revision,
                    ..self.header
                };
                encoder
                    .finish(&header, summary)
                    .map_err(|_| api::Error::TooManyRequests)
            }
            Err(failure) => {
                // Too long for what is free now is not too long for ever.
                let short = encoder.full() && room < limits::RESPONSE_BYTES_MAX;
                drop(encoder);
                Err(match short {
                    true => api::Error::TooManyRequests,
                    false => failure.to_api(),
                })
            }
        };
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
        self.served(connection, id, request, served, turn.now_ns);
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
        self.ready_output(connection, turn.now_ns);
        let before = connection.output.len();
        let room = limits::OUTPUT_BYTES_PER_FRONT.saturating_sub(self.output_bytes);
        let read = turn.view().map_err(apply::Failure::from).and_then(|view| {
            let response = apply::read_txn(&view, txn, room)?;
            Ok((view.horizon().revision, response))
        });
        let served = match read {
            Ok((revision, response)) => {
                let header = self.header_at(revision);
                let response = api::Response::Txn(response);
                wire::encode_response(&header, &response, request, &mut connection.output)
                    .map_err(|_| api::Error::TooManyRequests)
            }
            Err(failure) => Err(failure.to_api()),
        };
        let bytes = connection.output.len() - before;
        turn.cost += bytes / 256;
        self.output_bytes += bytes;
        self.touch(connection, id);
        self.served(connection, id, request, served, turn.now_ns);
    }

    /// Tells the client, and the operator if need be, how a read went.
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
        if error == api::Error::Corrupt {
            self.notice(Notice::Corrupt);
        }
        self.refuse(connection, id, request, error, now_ns);
    }

    /// Remembers who waits for a request's answer.
    pub(super) fn wait(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        now_ns: u64,
    ) -> Result<WaiterId, api::Error> {
        let bytes = frame.body.len();
        if self.request_bytes + bytes > limits::REQUEST_BYTES_PER_FRONT {
            return Err(api::Error::TooManyRequests);
        }
        let deadline = now_ns + limits::REQUEST_DEADLINE_MS * 1_000_000;
        let waiter = Waiter {
            connection: id,
            request: frame.id,
            bytes,
        };
        let waiter = self
            .waiters
            .insert(deadline, waiter)
            .map_err(|_| api::Error::TooManyRequests)?;
        self.request_bytes += bytes;
        connection.in_flight += 1;
        connection.in_flight_bytes += bytes;
        Ok(waiter)
    }

    /// Looks how large the store is.
    pub fn measure_store(&mut self, reader: &Reader) {
        if self.config.quota_bytes.is_some()
            && let Ok(meta) = Meta::decode(reader.pin().user())
        {
            self.store_bytes = meta.live_bytes;
        }
    }

    /// Refuses a write that adds to a store that has reached its quota.
    fn check_quota(&mut self, request: &Request<'_>, bytes: usize) -> Result<(), api::Error> {
        let Some(quota) = self.config.quota_bytes else {
            return Ok(());
        };
        if !validate::adds_data(request) {
            return Ok(());
        }
        let cost = bytes as u64 + limits::QUOTA_COST_PER_WRITE;
        if self.store_bytes + cost > quota {
            return Err(api::Error::NoSpace);
        }
        self.store_bytes += cost;
        Ok(())
    }

    /// The body of the command for a grant: what the client has left open, and what is for the
    /// server to say, is settled before the log, so that all members grant the same.
    fn settle_grant(&mut self, grant: &api::LeaseGrantRequest) -> Vec<u8> {
        let mut settled = *grant;
        settled.ttl = grant.ttl.max(self.config.limits.lease_ttl_min);
        while settled.id == 0 {
            settled.id = (self.chance.next_u64() >> 1) as i64;
        }
        let mut body = Vec::new();
        let encoded = wire::encode_body(&Request::LeaseGrant(settled), &mut body);
        assert!(encoded.is_ok(), "two numbers fit a body");
        body
    }

    fn propose(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        body: &[u8],
        now_ns: u64,
    ) -> Result<(), api::Error> {
        let kind = CommandKind::from_wire(frame.kind).ok_or(api::Error::Unimplemented)?;
        let waiter = self.wait(connection, id, frame, now_ns)?;
        if self.batch.push(waiter.0, kind, body).is_err() {
            let full = self.close_batch();
            self.full_batches.extend(full);
            let pushed = self.batch.push(waiter.0, kind, body);
            assert!(pushed.is_ok(), "an empty batch takes any command");
        }
        Ok(())
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
        if self.full_batches.is_empty() {
            return self.close_batch();
        }
        Some(self.full_batches.remove(0))
    }

    // ---- reads that ask the quorum first

    fn hold(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        now_ns: u64,
    ) -> Result<(), api::Error> {
        let waiter = self.wait(connection, id, frame, now_ns)?;
        self.gathering.push(HeldRead {
            waiter,
            kind: frame.kind,
            body: frame.body.to_vec(),
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
        match self.barriers.iter().position(|(of, _)| *of == token) {
            Some(at) => self.barriers.swap_remove(at).1,
            None => Vec::new(),
        }
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
        let mut turn = Turn {
            reader,
            pinned: None,
            cost: 0,
            now_ns,
        };
        match wire::decode_request(held.kind, &held.body) {
            Ok(Request::Range(range)) if ok => {
                self.range(connection, id, waiter.request, &range, &mut turn);
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
