//! Everything that crosses between actors, in closed enums.

use crate::consensus::PeerMessage;
use crate::propose::waiters::WaiterId;
use bytes::Bytes;

pub use crate::apply::Outcome;

pub use crate::consensus::{AppendRequest, LogEntry};
pub use crate::propose::FrontId;

/// Everything that can wake the order actor.
#[derive(Debug)]
pub enum OrderInput {
    /// Writes that a front gathered in one turn; they become one log entry.
    Propose(ProposalBatch),
    /// A front asks for the point from which reads that arrived before now are linearizable.
    ReadBarrier {
        /// Who asks.
        front: FrontId,
        /// Comes back in [`FrontInput::ReadReady`]; used once.
        token: u64,
    },
    /// What a front's clients asked about leases in one turn.
    Leases(LeaseAsks),
    /// Every append up to this number is durable.
    Appended {
        /// As given in [`OrderOutput::Append`].
        number: u64,
    },
    /// The log has no space for an append and holds it back (`true`) until a cut frees some; or it
    /// has found space again (`false`).
    LogFull(bool),
    /// A checkpoint is finished: durable, or given up because the disk is full.
    Checkpointed(Box<quoin_storage::tree::CheckpointDone>),
    /// A message from another member, its frame decoded and nothing else checked yet.
    Peer(Box<PeerMessage>),
    /// Monotonic time has passed; the order actor keeps the rest of a tick itself.
    Tick,
    /// Whether anybody watches at a front: then it hears [`FrontInput::Published`].
    Watching {
        /// Which front.
        front: FrontId,
        /// Somebody watches.
        on: bool,
        /// Its live watches have been told everything up to here.
        seen: i64,
    },
    /// A front streams snapshots: nothing may be purged, for a bounded time. Answered, if `on`,
    /// with [`FrontInput::PurgeHeld`].
    HoldPurge {
        /// Which front.
        front: FrontId,
        /// From now on; else no more.
        on: bool,
    },
    /// A front reads long answers: what they need is not purged, for a bounded time after the
    /// compaction that overtakes them.
    Reading {
        /// Which front.
        front: FrontId,
        /// The oldest revision that they read; `None` if there are none.
        oldest: Option<i64>,
    },
    /// A front has taken answers off its queue: what they held is free for others.
    AnswersTaken {
        /// Which front.
        front: FrontId,
        /// The sum of [`Replies::answer_bytes`] since the last such message.
        bytes: usize,
    },
    /// Stop taking proposals; finish what is in flight, checkpoint, then answer `Drained`.
    Drain,
}

/// Writes of one front, encoded as they will lie in the log entry.
#[derive(Debug)]
pub struct ProposalBatch {
    /// Where the replies go.
    pub front: FrontId,
    /// The batch's sequence number; grows with each batch of a front.
    pub sequence: u64,
    /// How many commands.
    pub count: u32,
    /// The encoded batch (see `propose::command`).
    pub bytes: Bytes,
}

/// What the order actor wants done.
#[derive(Debug)]
pub enum OrderOutput {
    /// Make this durable, in the order given, and report `Appended`.
    Append(AppendRequest),
    /// Segments that hold nothing beyond this index may be recycled.
    CutLog {
        /// The last index that the durable tree covers.
        index: u64,
    },
    /// Write a checkpoint and report `Checkpointed`.
    Checkpoint(Box<quoin_storage::tree::CheckpointJob>),
    /// For a front.
    Front(FrontId, FrontInput),
    /// For another member; may be lost, and may overtake nothing.
    Peer(Box<PeerMessage>),
    /// Everything accepted is durable and checkpointed; the process may exit.
    Drained,
    /// The node cannot go on: the process must say why and stop, at once. Nothing follows.
    Fatal(Box<super::order::Fatal>),
}

/// What a front hears from the order actor.
#[derive(Debug)]
pub enum FrontInput {
    /// Answers to its proposals.
    Replies(Replies),
    /// Reads that waited for this token may be served from the published root, if `ok`.
    ReadReady {
        /// As given in [`OrderInput::ReadBarrier`].
        token: u64,
        /// `false`: leadership was lost; the reads fail.
        ok: bool,
    },
    /// Answers about leases.
    Leases(LeaseAnswers),
    /// Whether a linearizable read may be served from the published root with no barrier:
    /// true only for a sole voter that leads and has applied an entry of its own term.
    LocalReads(bool),
    /// A root with a newer revision or another compaction has been published; heard only where
    /// somebody watches.
    Published,
    /// From the root published by now on nothing is purged.
    PurgeHeld,
    /// The Raft term for response headers, and whether there is a leader.
    Term {
        /// The current term.
        term: u64,
        /// There is a leader.
        has_leader: bool,
    },
}

/// The answers to commands of one front that a turn has brought.
#[derive(Debug)]
pub struct Replies {
    /// One each.
    pub list: Vec<Reply>,
    /// Bytes of pairs that they hold. To be told to the order actor once they are taken, see
    /// [`OrderInput::AnswersTaken`].
    pub answer_bytes: usize,
}

/// The answer to one command.
#[derive(Debug)]
pub struct Reply {
    /// The front's own number for the command.
    pub waiter: WaiterId,
    /// How it went.
    pub outcome: Outcome,
}

/// What the clients of one front asked about leases in one turn: none of it goes through the log.
#[derive(Debug)]
pub struct LeaseAsks {
    /// Who asks.
    pub front: FrontId,
    /// Renewals: who waits, and the lease.
    pub keep_alives: Vec<(WaiterId, i64)>,
    /// How long leases have left.
    pub times: Vec<LeaseTimeAsk>,
    /// Which leases there are.
    pub lists: Vec<WaiterId>,
}

/// A question how long a lease has left.
#[derive(Debug)]
pub struct LeaseTimeAsk {
    /// Who waits.
    pub waiter: WaiterId,
    /// The lease.
    pub id: i64,
    /// The request, for the front to read again when it serves the rest of it.
    pub body: Vec<u8>,
}

/// The answers to [`LeaseAsks`], as far as they are known, and to earlier ones that had to wait.
#[derive(Debug, Default)]
pub struct LeaseAnswers {
    /// The store's revision before the renewals.
    pub revision: i64,
    /// Renewals: who waits, the lease, and its seconds; 0 if there is no such lease.
    pub kept: Vec<(WaiterId, i64, i64)>,
    /// The seconds that leases have left; -1 if there is no such lease.
    pub times: Vec<(LeaseTimeAsk, i64)>,
    /// Who waits for the list.
    pub lists: Vec<WaiterId>,
    /// The list, if anybody waits for it: when each lease is over, and its id.
    pub deadlines: Vec<(u64, i64)>,
    /// Who has asked in vain: this member does not lead.
    pub refused: Vec<WaiterId>,
}

impl LeaseAnswers {
    /// Nothing is answered.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
            && self.times.is_empty()
            && self.lists.is_empty()
            && self.refused.is_empty()
    }
}
