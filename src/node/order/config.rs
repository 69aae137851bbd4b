//! How the order actor behaves, and why it stops.

use super::AutoCompaction;
use crate::consensus::CoreConfig;
use crate::limits;
use crate::propose::command::CommandError;
use crate::wire::Malformed;
use std::fmt;

/// One millisecond.
const MS: u64 = 1_000_000;

/// The order actor's settings. Times are nanoseconds.
#[derive(Debug, Clone)]
pub struct OrderConfig {
    /// Of consensus, with the ids of cluster and member.
    pub core: CoreConfig,
    /// The boot epoch: no two runs of this member share one.
    pub boot: u64,
    /// How many fronts there are; they are numbered from 0.
    pub fronts: u16,
    /// The voters of a new cluster.
    pub voters: Vec<u64>,
    /// This member may begin with an empty disk.
    pub founding: bool,
    /// One tick of consensus.
    pub tick_ns: u64,
    /// Bytes of batches taken and not yet applied; beyond it writes are refused. When the disk
    /// is full, so much still has to find room in the tree's reserve.
    pub in_flight_bytes: usize,
    /// Commands taken and not yet applied; beyond it writes are refused.
    pub in_flight_commands: usize,
    /// Commands applied in one turn, give or take one entry.
    pub commands_per_turn: usize,
    /// Bytes of entries applied in one turn, give or take one entry.
    pub bytes_per_turn: usize,
    /// Events that compaction removes in one turn.
    pub purge_per_turn: usize,
    /// Read barriers that may wait.
    pub read_barriers: usize,
    /// A question to the quorum that is not answered is asked anew after this.
    pub read_retry_ns: u64,
    /// A drain gives up waiting for the quorum after this.
    pub drain_ns: u64,
    /// When checkpoints are due.
    pub checkpoint: CheckpointConfig,
    /// What history to keep.
    pub auto_compaction: AutoCompaction,
}

/// When a checkpoint is due: as soon as any of these is reached. Times are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointConfig {
    /// Since the last one began, if anything was applied since.
    pub interval_ns: u64,
    /// Bytes of entries applied since.
    pub log_bytes: u64,
    /// Entries applied since.
    pub entries: u64,
    /// Bytes of pages that exist in memory alone.
    pub young_bytes: u64,
    /// While one is under way, nothing is applied beyond this many such bytes.
    pub young_bytes_pause: u64,
    /// After one that found no space, wait this long.
    pub retry_ns: u64,
}

impl OrderConfig {
    /// A sole voter with default bounds.
    pub fn sole(cluster: u64, member: u64, boot: u64, fronts: u16) -> OrderConfig {
        OrderConfig {
            core: CoreConfig::new(cluster, member),
            boot,
            fronts,
            voters: vec![member],
            founding: true,
            tick_ns: limits::HEARTBEAT_MS_DEFAULT * MS,
            in_flight_bytes: limits::COMMAND_BYTES_IN_FLIGHT,
            in_flight_commands: limits::COMMANDS_IN_FLIGHT,
            commands_per_turn: 4096,
            bytes_per_turn: 4 * limits::MIB,
            purge_per_turn: 256,
            read_barriers: limits::READ_BARRIERS,
            read_retry_ns: 500 * MS,
            drain_ns: limits::STOP_DEADLINE_MS / 2 * MS,
            checkpoint: CheckpointConfig::default(),
            auto_compaction: AutoCompaction::Off,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig {
            interval_ns: 5_000 * MS,
            log_bytes: 64 << 20,
            entries: u64::MAX,
            young_bytes: limits::YOUNG_BYTES_CHECKPOINT,
            young_bytes_pause: limits::YOUNG_BYTES_PAUSE,
            retry_ns: 1_000 * MS,
        }
    }
}

/// Why the node cannot go on.
#[derive(Debug)]
pub enum Fatal {
    /// The store failed or is damaged.
    Store(crate::apply::Failure),
    /// A committed entry cannot be read.
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: CommandError,
    },
    /// A committed command cannot be read.
    Command {
        /// The index of its entry.
        index: u64,
        /// Its place among the commands of the entry.
        at: usize,
        /// What is wrong with it.
        error: Malformed,
    },
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Store(failure) => failure.fmt(f),
            Fatal::Entry { index, error } => {
                write!(f, "committed entry {index} cannot be read: {error}")
            }
            Fatal::Command { index, at, error } => {
                write!(
                    f,
                    "command {at} of committed entry {index} cannot be read: {error}"
                )
            }
        }
    }
}

impl std::error::Error for Fatal {}
