//! What a front's connections share: waiters, the batch, held reads, budgets, buffers.
#![forbid(unsafe_code)]

mod errand;

mod errands;

mod health;

mod leases;

mod long;

mod member;

mod quota;

mod ranges;

mod requests;

mod room;

use super::answer;
use super::connection::{Connection, ConnectionId, Phase};
use super::watching::WatchDesk;

use super::{FrontConfig, Notice};
use crate::api::{self, Request};
use crate::apply::Failure;
use crate::chance::Chance;
use crate::limits;
use crate::node::front::FrontCounts;
use crate::node::messages::ProposalBatch;
use crate::propose::command::BatchBuilder;
use crate::propose::waiters::{WaiterId, Waiters};
use crate::wire::{self, Decoded, FrameDecoder, Kind, RangeScratch};
use quoin_storage::mvcc::{self, Horizon, View};
use quoin_storage::tree::{Reader, Snapshot, WARM_KEYS};
use std::collections::VecDeque;

pub(super) use errand::News;
pub(super) use errands::ErrandId;
pub(super) use long::Long;

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiter {
    pub connection: ConnectionId,
    /// The client's own number.
    pub request: u64,
    /// Charged to the budgets until answered.
    pub bytes: usize,
    /// Room that is set aside for the answer.
    pub answer_bytes: usize,
    /// The errand that asks, on its way to the client's answer.
    pub errand: Option<ErrandId>,
}

/// A read that waits for its barrier.
#[derive(Debug)]
pub(super) struct HeldRead {
    pub waiter: WaiterId,
    kind: Kind,
    body: Vec<u8>,
    /// A range whose answer is a stream.
    streamed: bool,
}

impl HeldRead {
    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        self.body.len() + size_of::<HeldRead>()
    }
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
    pub has_leader: bool,
    /// Bytes of the store on disk and in memory alone, as last told.
    pub total_bytes: u64,
    pub waiters: Waiters<Waiter>,
    batch: BatchBuilder,
    full_batches: VecDeque<ProposalBatch>,
    /// Bytes of those.
    full_bytes: usize,
    gathering: Vec<HeldRead>,
    barriers: Vec<(u64, Vec<HeldRead>)>,
    /// Memory of the reads that gather or wait for a barrier.
    held_bytes: usize,
    next_token: u64,
    lease_asks: leases::Gathered,
    pub touched: Vec<ConnectionId>,
    pub resumable: Vec<ConnectionId>,
    pub notices: Vec<Notice>,
    /// When damage may be told again.
    next_damage_ns: u64,
    /// Bytes of requests without an answer.
    pub request_bytes: usize,
    /// Bytes of answers not taken, bytes already sent but not yet dropped included.
    pub output_bytes: usize,
    /// Room that is set aside for the answers to writes under way.
    reserved: usize,
    /// Bytes of answers to writes that were taken from the order actor, which does not know it.
    pub answers_taken: usize,
    /// Bytes of unfinished frames.
    pub input_bytes: usize,
    /// Calls that have begun to come in and are not over.
    pub calls: usize,
    pub watching: WatchDesk,
    pub errands: errands::Errands,
    pub long: long::LongDesk,
    /// Who wants to be told whether the server serves.
    health: Vec<health::Watcher>,
    quota: quota::Quota,
    scratch: RangeScratch,
    /// The body of a command that came over another protocol.
    body: Vec<u8>,
    pool: Vec<Vec<u8>>,
    chance: Chance,
    /// What has been done since the start; the rest is left out.
    pub counts: FrontCounts,
}

impl Desk {
    pub fn new(config: FrontConfig, now_ns: u64) -> Desk {
        let frame_bytes_max = wire::FRAME_HEADER_BYTES + message_bytes_max(&config);
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
            has_leader: false,
            total_bytes: 0,
            waiters: Waiters::new(limits::REQUESTS_PER_FRONT, now_ns),
            batch: BatchBuilder::new(
                config.member_id,
                config.boot,
                config.front.0,
                limits::BATCH_BYTES_MAX,
                limits::BATCH_COMMANDS_MAX as u32,
            ),
            full_batches: VecDeque::new(),
            full_bytes: 0,
            gathering: Vec::new(),
            barriers: Vec::new(),
            held_bytes: 0,
            next_token: 1,
            lease_asks: leases::Gathered::default(),
            touched: Vec::new(),
            resumable: Vec::new(),
            notices: Vec::new(),
            next_damage_ns: 0,
            request_bytes: 0,
            output_bytes: 0,
            reserved: 0,
            answers_taken: 0,
            input_bytes: 0,
            calls: 0,
            watching: WatchDesk::new(&config),
            errands: errands::Errands::default(),
            long: long::LongDesk::default(),
            health: Vec::new(),
            quota: quota::Quota::default(),
            scratch: RangeScratch::default(),
            body: Vec::new(),
            pool: Vec::new(),
            chance: Chance::new(config.seed.wrapping_add(u64::from(config.front.0))),
            counts: FrontCounts::default(),
            config,
        }
    }

    pub fn frame_bytes_max(&self) -> usize {
        wire::FRAME_HEADER_BYTES + self.message_bytes_max()
    }

    pub fn message_bytes_max(&self) -> usize {
        message_bytes_max(&self.config)
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

    /// Tells the operator of damage that a read has met: one case at a time, since every read of
    /// a damaged page meets it.
    pub fn damage(&mut self, error: &mvcc::Error, now_ns: u64) {
        if now_ns >= self.next_damage_ns {
            self.next_damage_ns = now_ns + limits::DAMAGE_NOTICE_MS * 1_000_000;
            self.notice(Notice::Corrupt(error.to_string()));
        }
    }

    /// What the client is told of a read that failed; damage is told to the operator, too.
    fn own_up(&mut self, failure: &Failure, now_ns: u64) -> api::Error {
        if let Failure::Broken(error) = failure {
            self.damage(error, now_ns);
        }
        failure.to_api()
    }

    /// As [`Desk::own_up`], of a read that had so much room for its answer: too long for what is free
    /// now is not too long for ever.
    fn own_up_within(&mut self, failure: &Failure, room: usize, now_ns: u64) -> api::Error {
        match failure {
            Failure::Refused(api::Error::ResponseTooLarge) if room < limits::RESPONSE_BYTES_MAX => {
                api::Error::TooManyRequests
            }
            failure => self.own_up(failure, now_ns),
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
    fn ready_output(&mut self, connection: &mut Connection, now_ns: u64) {
        if connection.owed() == 0 {
            connection.output_since_ns = now_ns;
        }
        if connection.unsent().is_empty() && connection.output.capacity() == 0 {
            connection.output = self.pool.pop().unwrap_or_default();
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=limits::POOLED_BUFFER_BYTES).contains(&buffer.capacity());
        if fits && self.pool.len() < limits::POOLED_BUFFERS {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Has something written to what a client will get, and accounts for it.
    #[inline]
    pub fn write<R>(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        now_ns: u64,
        write: impl FnOnce(&mut Connection) -> R,
    ) -> R {
        self.ready_output(connection, now_ns);
        let before = connection.output.len();
        let result = write(connection);
        self.output_bytes += connection.output.len() - before;
        self.touch(connection, id);
        result
    }

    /// Appends bytes to what a client will get.
    pub fn say(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        bytes: &[u8],
        now_ns: u64,
    ) {
        self.write(connection, id, now_ns, |connection| {
            connection.output.extend_from_slice(bytes);
        });
    }

    pub fn wrote(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        count: usize,
        now_ns: u64,
    ) {
        let was_full = connection.is_full();
        if let Some(calls) = &mut connection.calls {
            assert!(count <= calls.taken, "{count} of {} sent", calls.taken);
            calls.taken -= count;
            calls.waiting = calls.waiting.min(calls.taken);
            connection.output_since_ns = now_ns;
            self.output_bytes -= count;
            self.wake_watches(connection);
            self.may_resume(connection, id, was_full);
            return;
        }
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
        self.wake_watches(connection);
        self.may_resume(connection, id, was_full);
    }

    /// Gives back what the output of a client that stands still does not need: what was sent, and
    /// room to grow. There may be thousands of them.
    pub fn trim(&mut self, connection: &mut Connection) {
        connection.output.drain(..connection.sent);
        self.output_bytes -= connection.sent;
        connection.sent = 0;
        connection.output.shrink_to_fit();
    }

    /// A request of that size has its answer, or will never have one.
    fn answered(&mut self, connection: &mut Connection, id: ConnectionId, bytes: usize) {
        let was_full = connection.is_full();
        connection.in_flight -= 1;
        connection.in_flight_bytes -= bytes;
        self.may_resume(connection, id, was_full);
        if connection.in_flight == 0 && connection.phase == Phase::Closing {
            self.touch(connection, id);
        }
    }

    /// A request whose waiter has been uncharged has its answer, or will never have one.
    pub fn relieved(&mut self, connection: &mut Connection, waiter: &Waiter) {
        connection.reserved -= waiter.answer_bytes;
        self.answered(connection, waiter.connection, waiter.bytes);
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
            || !self.lease_asks.is_empty()
            || self.errands.has_news()
            || self.watching.has_work()
            || self.long.has_work()
    }

    pub fn forget(&mut self, mut connection: Connection) {
        self.close_streams(&mut connection);
        for errand in std::mem::take(&mut connection.errands).into_values() {
            self.errands.hear(errand, News::Gone);
        }
        self.forget_long(&mut connection);
        let taken = connection.calls.as_ref().map_or(0, |calls| calls.taken);
        self.output_bytes -= connection.output.len() + taken;
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
        self.close_streams(connection);
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
        let mut turn = Turn::new(reader, now_ns);
        let (mut used, mut warmed) = (0, 0);
        while connection.phase == Phase::Serving && used < bytes.len() {
            if self.ends_overdrawn(connection, id) {
                break;
            }
            if connection.is_full() || turn.cost >= limits::TURN_COST {
                connection.held = true;
                // One that is full goes on when an answer leaves.
                self.may_resume(connection, id, false);
                break;
            }
            if used >= warmed {
                warmed = used + self.look_ahead(&bytes[used..], &mut turn);
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

    /// Looks up together the keys that the next few requests will read: one after the other, each
    /// would wait for memory again and again. Returns how many bytes the frames are that it has
    /// looked at. It decides nothing: each request is read and checked when its turn comes.
    fn look_ahead(&self, bytes: &[u8], turn: &mut Turn<'_>) -> usize {
        let mut keys = [&[][..]; WARM_KEYS];
        let (mut found, mut seen) = (0, 0);
        for body in wire::ahead(bytes, Kind::Range).take(WARM_KEYS) {
            seen += wire::FRAME_HEADER_BYTES + body.len();
            if let Ok(Request::Range(range)) = wire::decode_request(Kind::Range, body)
                && range.range_end.is_empty()
                && (self.local_reads || range.serializable)
            {
                keys[found] = range.key;
                found += 1;
            }
        }
        // One alone has nobody to wait beside.
        if found > 1
            && let Ok(view) = turn.view()
        {
            view.warm(&keys[..found]);
        }
        seen
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
        let header = self.header;
        self.write(connection, id, now_ns, |connection| {
            answer::refusal(connection, &header, error, request);
        });
    }

    /// Answers bytes that no rule allows, and serves no more of them.
    pub(super) fn malformed(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        request: u64,
        malformed: wire::Malformed,
        now_ns: u64,
    ) {
        let header = self.header;
        self.write(connection, id, now_ns, |connection| {
            wire::encode_malformed(&header, malformed, request, &mut connection.output);
        });
        self.notice(Notice::Malformed(malformed));
        self.end_input(connection, now_ns);
    }

    /// The errand that waits for an answer of the store, if it is one.
    pub fn errand_of(&self, waiter: WaiterId) -> Option<ErrandId> {
        self.waiters.get(waiter)?.errand
    }

    /// Calls `expired` for each request whose deadline has come.
    pub fn expire(&mut self, now_ns: u64, mut expired: impl FnMut(&mut Desk, Waiter)) {
        let mut due = Vec::new();
        self.waiters.expire(now_ns, |_, waiter| due.push(waiter));
        for waiter in due {
            self.uncharge(&waiter);
            expired(self, waiter);
        }
    }
}

fn message_bytes_max(config: &FrontConfig) -> usize {
    config.limits.request_bytes + limits::REQUEST_OVERHEAD_BYTES
}

/// One connection's share of a turn.
pub(super) struct Turn<'r> {
    reader: &'r Reader,
    /// Pinned at the first read, after every request that will use it has arrived: so it shows
    /// each write that was acknowledged before any of them was sent.
    pinned: Option<(Snapshot<'r>, Horizon)>,
    cost: usize,
    pub now_ns: u64,
}

impl<'r> Turn<'r> {
    pub fn new(reader: &'r Reader, now_ns: u64) -> Turn<'r> {
        Turn {
            reader,
            pinned: None,
            cost: 0,
            now_ns,
        }
    }

    /// A view of the newest published root.
    pub fn view(&mut self) -> Result<View<'_, Snapshot<'r>>, mvcc::Error> {
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
