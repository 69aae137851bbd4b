//! Everything that crosses between actors, in closed enums.

use crate::api;
use bytes::Bytes;

/// Number of a front on this node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontId(pub u16);

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
    /// A checkpoint is durable.
    Checkpointed(Box<quoin_storage::tree::CheckpointDone>),
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
    /// The encoded commands (see `propose::command`).
    pub bytes: Bytes,
    /// How many commands.
    pub count: u32,
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
    /// Everything accepted is durable and checkpointed; the process may exit.
    Drained,
}

/// One durable write of the log.
#[derive(Debug)]
pub struct AppendRequest {
    /// Grows by one with each request.
    pub number: u64,
    /// The Raft hard state, if it changed.
    pub hard_state: Option<quoin_storage::log::HardState>,
    /// New entries; the first may replace a suffix of the log.
    pub entries: Vec<LogEntry>,
}

/// A Raft entry on its way to the log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Position in the log.
    pub index: u64,
    /// The leader's term.
    pub term: u64,
    /// The Raft entry type (0 normal, 1 and 2 configuration changes).
    pub kind: u8,
    /// The payload.
    pub data: Bytes,
    /// The configuration change's context.
    pub context: Bytes,
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
    pub waiter: u32,
    /// How it went.
    pub outcome: Outcome,
}

/// How a command went.
#[derive(Debug)]
pub enum Outcome {
    /// A put that asked for nothing back; the store's revision after it.
    Put {
        /// The revision of the put.
        revision: i64,
    },
    /// Any other success.
    Done {
        /// The store's revision after the command.
        revision: i64,
        /// The answer.
        response: Box<api::Response>,
    },
    /// Refused.
    Failed {
        /// The store's revision.
        revision: i64,
        /// Why.
        error: api::Error,
    },
}
