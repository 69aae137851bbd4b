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
    Replies(Vec<Reply>),
    /// Reads that waited for this token may be served from the published root, if `ok`.
    ReadReady {
        /// As given in [`OrderInput::ReadBarrier`].
        token: u64,
        /// `false`: leadership was lost; the reads fail.
        ok: bool,
    },
    /// Whether a linearizable read may be served from the published root with no barrier:
    /// true only for a sole voter that leads and has applied an entry of its own term.
    LocalReads(bool),
    /// The Raft term for response headers, and whether there is a leader.
    Term {
        /// The current term.
        term: u64,
        /// There is a leader.
        has_leader: bool,
    },
}

/// The answer to one command.
#[derive(Debug)]
pub struct Reply {
    /// The front's own number for the command.
    pub waiter: WaiterId,
    /// How it went.
    pub outcome: Outcome,
}
