//! What a front's connections share: waiters, the batch, held reads, budgets, buffers.
#![forbid(unsafe_code)]

use super::connection::{Connection, ConnectionId, Phase};
use super::{FrontConfig, Notice};
use crate::api::{self, Request};
use crate::apply::{self, validate};
use crate::limits;
use crate::node::messages::ProposalBatch;
use crate::propose::command::{BatchBuilder, CommandKind};
use crate::propose::waiters::{WaiterId, Waiters};
use crate::wire::{self, Decoded, Frame, FrameDecoder, Kind, RangeEncoder, RangeScratch};
use quoin_storage::mvcc::{self, Horizon, Meta, View};
use quoin_storage::tree::{Reader, Snapshot};

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiter {
    pub connection: ConnectionId,
    /// The client's own number.
    pub request: u64,
    /// Charged to the budgets until answered.
    pub bytes: usize,
}

/// A read that waits for its barrier.
#[derive(Debug)]
pub(super) struct HeldRead {
    pub waiter: WaiterId,
    kind: Kind,
    body: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    config: FrontConfig,
    decoder: FrameDecoder,
    /// For answers; the revision is the newest seen.
    pub header: api::Header,
    pub local_reads: bool,
    pub stopping: bool,
    pub waiters: Waiters<Waiter>,
    batch: BatchBuilder,
    full_batches: Vec<ProposalBatch>,
    gathering: Vec<HeldRead>,
    barriers: Vec<(u64, Vec<HeldRead>)>,
    next_token: u64,
    pub touched: Vec<ConnectionId>,
    resumable: Vec<ConnectionId>,
    pub notices: Vec<Notice>,
    /// Bytes of requests without an answer.
    pub request_bytes: usize,
    /// Bytes of answers not taken, bytes already sent but not yet dropped included.
    pub output_bytes: usize,
    /// Bytes of unfinished frames.
    pub input_bytes: usize,
    /// Bytes of the store as last looked at, and of all that was proposed since.
    store_bytes: u64,
    scratch: RangeScratch,
    pool: Vec<Vec<u8>>,
}

impl Desk {
    pub fn new(config: FrontConfig, now_ns: u64) -> Desk {
        let frame_bytes_max = frame_bytes_max(config.limits.request_bytes);
        Desk {
            decoder: FrameDecoder::requests(frame_bytes_max),
            header: api::Header {
                cluster_id: config.cluster_id,
                member_id: config.member_id,
                revision: 1,
                raft_term: 0,
            },
            local_reads: false,
            stopping: false,
            waiters: Waiters::new(limits::REQUESTS_PER_FRONT, now_ns),
            batch: BatchBuilder::new(
                config.member_id,
                config.boot,
                config.front.0,
                limits::BATCH_BYTES_MAX,
                limits::BATCH_COMMANDS_MAX as u32,
            ),
            full_batches: Vec::new(),
            gathering: Vec::new(),
            barriers: Vec::new(),
            next_token: 1,
            touched: Vec::new(),
            resumable: Vec::new(),
            notices: Vec::new(),
            request_bytes: 0,
            output_bytes: 0,
            input_bytes: 0,
            store_bytes: 0,
            scratch: RangeScratch::default(),
            pool: Vec::new(),
            config,
        }
    }

    pub fn frame_bytes_max(&self) -> usize {
        frame_bytes_max(self.config.limits.request_bytes)
    }

    pub fn header_at(&mut self, revision: i64) -> api::Header {
        self.header.revision = self.header.revision.max(revision);
        api::Header {
            revision,
            ..self.header
        }
    }

    pub fn notice(&mut self, notice: Notice) {
        if self.notices.len() < limits::NOTICES_PER_TURN {
            self.notices.push(notice);
        }
    }

    /// Has the runtime look at the connection.
    pub fn touch(&mut self, connection: &mut Connection, id: ConnectionId) {
        if !connection.touched {
            connection.touched = true;
            self.touched.push(id);
        }
    }

    // ---- buffers and budgets

    /// Gives a connection that is about to answer a buffer, and its client time to take it.
    pub fn ready_output(&mut self, connection: &mut Connection, now_ns: u64) {
        if connection.unsent().is_empty() {
            connection.output_since_ns = now_ns;
            if connection.output.capacity() == 0 {
                connection.output = self.pool.pop().unwrap_or_default();
            }
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=limits::POOLED_BUFFER_BYTES).contains(&buffer.capacity());
        if fits && self.pool.len() < limits::POOLED_BUFFERS {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Appends bytes to what a client will get.
    pub fn say(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        bytes: &[u8],
        now_ns: u64,
    ) {
        self.ready_output(connection, now_ns);
        connection.output.extend_from_slice(bytes);
        self.output_bytes += bytes.len();
        self.touch(connection, id);
    }

    pub fn wrote(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        count: usize,
        now_ns: u64,
    ) {
        let was_full = connection.is_full();
        connection.sent += count;
        assert!(
            connection.sent <= connection.output.len(),
            "{} of {} bytes sent",
            connection.sent,
            connection.output.len()
        );
        connection.output_since_ns = now_ns;
        if connection.sent == connection.output.len() {
            self.output_bytes -= connection.sent;
            connection.sent = 0;
            let buffer = std::mem::take(&mut connection.output);
            self.recycle(buffer);
        } else if connection.sent > limits::POOLED_BUFFER_BYTES
            && connection.sent > connection.output.len() / 2
        {
            connection.output.drain(..connection.sent);
            self.output_bytes -= connection.sent;
            connection.sent = 0;
        }
        self.may_resume(connection, id, was_full);
    }

    /// A request of that size has its answer, or will never have one.
    pub fn answered(&mut self, connection: &mut Connection, id: ConnectionId, bytes: usize) {
        let was_full = connection.is_full();
        connection.in_flight -= 1;
        connection.in_flight_bytes -= bytes;
        self.may_resume(connection, id, was_full);
        if connection.in_flight == 0 && connection.phase == Phase::Closing {
            self.touch(connection, id);
        }
    }

    fn may_resume(&mut self, connection: &mut Connection, id: ConnectionId, was_full: bool) {
        if connection.is_full() {
            return;
        }
        if connection.held && !connection.resumable {
            connection.resumable = true;
            self.resumable.push(id);
        } else if was_full {
            // It may be read again, and nobody else would tell the runtime.
            self.touch(connection, id);
        }
    }

    pub fn take_resumable(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.resumable)
    }

    pub fn has_work(&self) -> bool {
        !self.resumable.is_empty()
            || !self.touched.is_empty()
            || !self.batch.is_empty()
            || !self.full_batches.is_empty()
            || !self.gathering.is_empty()
    }

    pub fn forget(&mut self, connection: Connection) {
        self.output_bytes -= connection.output.len();
        self.input_bytes -= connection.input.len();
        self.recycle(connection.output);
        self.recycle(connection.input);
    }

    // ---- input

    /// Serves received bytes; keeps what is left of them.
    pub fn take_input(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        reader: &Reader,
        mut bytes: &[u8],
        now_ns: u64,
    ) {
        if connection.held {
            // The socket was read before the bound was reached; at most once.
            self.keep(connection, id, bytes, now_ns);
            return;
        }
        while !connection.input.is_empty() && !bytes.is_empty() {
            let total = match self.decoder.decode(&connection.input) {
                Ok(Decoded::NeedMore { total }) => total,
                // A whole frame would have been served, a broken one have ended the connection.
                Ok(Decoded::Frame { .. }) | Err(_) => break,
            };
            let (more, rest) = bytes.split_at((total - connection.input.len()).min(bytes.len()));
            connection.input.extend_from_slice(more);
            self.input_bytes += more.len();
            bytes = rest;
            if connection.input.len() == total {
                self.serve_input(connection, id, reader, now_ns);
            }
        }
        if connection.phase != Phase::Serving {
            return;
        }
        if connection.input.is_empty() {
            let used = self.serve(connection, id, reader, bytes, now_ns);
            bytes = &bytes[used..];
        }
        if !bytes.is_empty() && connection.phase == Phase::Serving {
            self.keep(connection, id, bytes, now_ns);
        }
    }

    /// Keeps bytes that cannot be used yet.
    fn keep(&mut self, connection: &mut Connection, id: ConnectionId, bytes: &[u8], now_ns: u64) {
        if connection.input.is_empty() {
            connection.since_ns = now_ns;
            if connection.input.capacity() == 0 {
                connection.input = self.pool.pop().unwrap_or_default();
            }
        }
        // Small beginnings are always kept; a connection that needs more pays for it when the
        // front has no room.
        let large = connection.input.len() + bytes.len() > limits::POOLED_BUFFER_BYTES;
        if large && self.input_bytes + bytes.len() > limits::INPUT_BYTES_PER_FRONT {
            self.refuse(connection, id, 0, api::Error::TooManyRequests, now_ns);
            self.end_input(connection, now_ns);
            return;
        }
        connection.input.extend_from_slice(bytes);
        self.input_bytes += bytes.len();
    }

    /// Serves what a connection has kept.
    fn serve_input(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        reader: &Reader,
        now_ns: u64,
    ) {
        let mut input = std::mem::take(&mut connection.input);
        let used = self.serve(connection, id, reader, &input, now_ns);
        if connection.phase != Phase::Serving || used == input.len() {
            self.input_bytes -= input.len();
            self.recycle(input);
            return;
        }
        if used > 0 {
            input.drain(..used);
            self.input_bytes -= used;
            connection.since_ns = now_ns;
        }
        connection.input = input;
    }

    /// Goes on with a connection that stopped at a bound.
    pub fn resume(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        reader: &Reader,
        now_ns: u64,
    ) {
        connection.resumable = false;
        if !connection.held || connection.phase != Phase::Serving {
            return;
        }
        connection.held = false;
        self.serve_input(connection, id, reader, now_ns);
        if !connection.held {
            self.touch(connection, id);
        }
    }

    /// Serves nothing more of a connection.
    pub fn end_input(&mut self, connection: &mut Connection, now_ns: u64) {
        self.input_bytes -= connection.input.len();
        connection.close(now_ns);
    }

    /// Serves the whole frames at the front of `bytes`, within the bounds of a turn; returns how
    /// many bytes were used up.
    fn serve(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        reader: &Reader,
        bytes: &[u8],
        now_ns: u64,
    ) -> usize {
        let mut turn = Turn {
            reader,
            pinned: None,
            cost: 0,
            now_ns,
        };
        let mut used = 0;
        while connection.phase == Phase::Serving && used < bytes.len() {
            if connection.is_full() || turn.cost >= limits::TURN_COST {
                connection.held = true;
                // One that is full goes on when an answer leaves.
                self.may_resume(connection, id, false);
                break;
            }
            match self.decoder.decode(&bytes[used..]) {
                Ok(Decoded::Frame { frame, consumed }) => {
                    used += consumed;
                    self.request(connection, id, &frame, &mut turn);
                }
                Ok(Decoded::NeedMore { .. }) => break,
                Err(malformed) => self.malformed(connection, id, 0, malformed, now_ns),
            }
        }
        used
    }

    // ---- requests

    fn request(
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
            Ok(request) => request,
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
            (Ok(()), request) => self
                .check_quota(request, frame.body.len())
                .and_then(|()| self.propose(connection, id, frame, now_ns)),
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
                drop(encoder);
                Err(failure.to_api())
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
    fn served(
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
    fn wait(
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
        let adds = match request {
            Request::Put(_) => true,
            Request::Txn(txn) => puts(txn),
            Request::Range(_) | Request::DeleteRange(_) | Request::Compact(_) => false,
        };
        if !adds {
            return Ok(());
        }
        let cost = bytes as u64 + limits::QUOTA_COST_PER_WRITE;
        if self.store_bytes + cost > quota {
            return Err(api::Error::NoSpace);
        }
        self.store_bytes += cost;
        Ok(())
    }

    fn propose(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        frame: &Frame<'_>,
        now_ns: u64,
    ) -> Result<(), api::Error> {
        let kind = match frame.kind {
            Kind::Put => CommandKind::Put,
            Kind::DeleteRange => CommandKind::DeleteRange,
            Kind::Txn => CommandKind::Txn,
            Kind::Compact => CommandKind::Compact,
            _ => return Err(api::Error::Unimplemented),
        };
        let waiter = self.wait(connection, id, frame, now_ns)?;
        let body = wire::command_body(frame);
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

    // ---- refusals

    pub fn refuse(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        error: api::Error,
        now_ns: u64,
    ) {
        self.ready_output(connection, now_ns);
        let before = connection.output.len();
        wire::encode_error(&self.header, error, request, &mut connection.output);
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
    }

    /// Answers bytes that no rule allows, and serves no more of them.
    fn malformed(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        malformed: wire::Malformed,
        now_ns: u64,
    ) {
        self.ready_output(connection, now_ns);
        let before = connection.output.len();
        wire::encode_malformed(&self.header, malformed, request, &mut connection.output);
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
        self.notice(Notice::Malformed(malformed));
        self.end_input(connection, now_ns);
    }

    /// Calls `expired` for each request whose deadline has come.
    pub fn expire(&mut self, now_ns: u64, mut expired: impl FnMut(&mut Desk, Waiter)) {
        let mut due = Vec::new();
        self.waiters.expire(now_ns, |_, waiter| due.push(waiter));
        for waiter in due {
            self.request_bytes -= waiter.bytes;
            expired(self, waiter);
        }
    }
}

/// Whether a transaction may put, in either branch. Its depth was bounded at admission.
fn puts(txn: &api::TxnRequest<'_>) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| match op {
        api::RequestOp::Put(_) => true,
        api::RequestOp::Txn(txn) => puts(txn),
        api::RequestOp::Range(_) | api::RequestOp::DeleteRange(_) => false,
    })
}

fn frame_bytes_max(request_bytes: usize) -> usize {
    wire::FRAME_HEADER_BYTES + request_bytes + limits::REQUEST_OVERHEAD_BYTES
}

/// One connection's share of a turn.
struct Turn<'r> {
    reader: &'r Reader,
    /// Pinned at the first read, after every request that will use it has arrived: so it shows
    /// each write that was acknowledged before any of them was sent.
    pinned: Option<(Snapshot<'r>, Horizon)>,
    cost: usize,
    now_ns: u64,
}

impl<'r> Turn<'r> {
    /// A view of the newest published root.
    fn view(&mut self) -> Result<View<'_, Snapshot<'r>>, mvcc::Error> {
        if self.pinned.is_none() {
            let snapshot = self.reader.pin();
            let horizon = Horizon::decode(snapshot.user())?;
            self.pinned = Some((snapshot, horizon));
        }
        match &self.pinned {
            Some((snapshot, horizon)) => Ok(View::new(snapshot, *horizon)),
            None => unreachable!("pinned above"),
        }
    }
}
