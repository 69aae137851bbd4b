//! What a core is told when it starts, and why it may refuse.

use super::LogEntry;
use super::confchange::{ConfStateError, decode_change};
use crate::propose::command::{Batch, CommandError};
use quoin_storage::log::HardState;
use raft::eraftpb::ConfState;
use raft::{Config, ReadOnlyOption};
use std::fmt;

/// How the core behaves. Every size is bounded: the crate's own defaults are not.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This member's id; not 0.
    pub member: u64,
    /// The cluster's id; messages from another are refused.
    pub cluster: u64,
    /// Ticks without a leader before an election; the real time-out is drawn from
    /// `election_ticks..2 * election_ticks`.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Bytes of entries per message to a follower.
    pub max_message_bytes: u64,
    /// Messages in flight to one follower.
    pub max_inflight_messages: usize,
    /// Bytes of entries that may be proposed and not yet committed.
    pub max_uncommitted_bytes: u64,
    /// Bytes of committed entries handed out at a time.
    pub max_committed_bytes: u64,
    /// Applied entries kept in memory for followers: at most so many,
    pub tail_entries: usize,
    /// and at most so many bytes.
    pub tail_bytes: usize,
}

impl CoreConfig {
    /// The settings of a member, with bounds that suit a server.
    pub fn new(cluster: u64, member: u64) -> CoreConfig {
        CoreConfig {
            member,
            cluster,
            election_ticks: 10,
            heartbeat_ticks: 1,
            max_message_bytes: 1 << 20,
            max_inflight_messages: 256,
            max_uncommitted_bytes: 64 << 20,
            max_committed_bytes: 8 << 20,
            tail_entries: 4096,
            tail_bytes: 16 << 20,
        }
    }

    pub(super) fn raft(&self, applied: u64) -> Config {
        Config {
            id: self.member,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.max_message_bytes,
            max_inflight_msgs: self.max_inflight_messages,
            // Without these two a member that was cut off disturbs the others when it returns,
            // and a leader that was cut off goes on believing that it leads.
            check_quorum: true,
            pre_vote: true,
            // Leases would trust clocks.
            read_only_option: ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            // Joins entries to an earlier message that has none without looking whether they
            // follow its position: the receiver would be sent a gap.
            batch_append: false,
            // The crate counts an entry's data alone, and drops what would exceed the bound; the
            // core refuses before, so that this one is never what decides.
            max_uncommitted_size: self.max_uncommitted_bytes.saturating_mul(2),
            max_committed_size_per_ready: self.max_committed_bytes,
            ..Config::default()
        }
    }
}

/// What the log and the tree say at start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The last hard state in the log.
    pub hard_state: HardState,
    /// The index and term of the entry before the log's first; zeros for a log that is whole.
    pub base_index: u64,
    /// See `base_index`.
    pub base_term: u64,
    /// The log's entries.
    pub entries: Vec<LogEntry>,
    /// The last index that the tree contains.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// The members as of `applied_index`.
    pub conf_state: ConfState,
    /// This member may begin with nothing. False once it has ever been part of the cluster: an
    /// empty disk under an old id would break promises that the member has made.
    pub founding: bool,
}

impl Start {
    /// There is neither log nor data.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.base_index == 0
            && self.hard_state == HardState::default()
            && self.applied_index == 0
    }

    /// The index of the log's last entry.
    pub fn last_index(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// The term of the entry at `index`; `None` if the log does not say.
    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        let at = index.checked_sub(self.base_index + 1)?;
        Some(self.entries.get(usize::try_from(at).ok()?)?.term)
    }

    /// Everything that the crate would answer with a panic, and what would break a promise.
    pub(super) fn check(&self, config: &CoreConfig) -> Result<(), StartError> {
        if config.member == 0 {
            return Err(StartError::NoMember);
        }
        if self.is_empty() && !self.founding {
            return Err(StartError::EmptyUnderOldIdentity {
                member: config.member,
            });
        }
        let mut before = (self.base_index, self.base_term);
        for entry in &self.entries {
            if entry.index != before.0 + 1 || entry.term < before.1 {
                return Err(StartError::BrokenLog {
                    index: entry.index,
                    after: before.0,
                });
            }
            check_readable(entry)?;
            before = (entry.index, entry.term);
        }
        let (last, last_term) = before;
        if self.applied_index < self.base_index {
            return Err(StartError::LogBeginsTooLate {
                first: self.base_index + 1,
                applied: self.applied_index,
            });
        }
        if self.applied_index > last {
            return Err(StartError::TreeAheadOfLog {
                applied: self.applied_index,
                last,
            });
        }
        if self.applied_index > 0 && self.term(self.applied_index) != Some(self.applied_term) {
            return Err(StartError::ForeignTree {
                index: self.applied_index,
                tree: self.applied_term,
                log: self.term(self.applied_index).unwrap_or(0),
            });
        }
        if self.hard_state.commit > last {
            return Err(StartError::CommitOutsideLog {
                commit: self.hard_state.commit,
                last,
            });
        }
        if self.hard_state.term < last_term {
            return Err(StartError::TermBehindLog {
                term: self.hard_state.term,
                last: last_term,
            });
        }
        super::confchange::check_conf_state(&self.conf_state).map_err(StartError::ConfState)
    }
}

fn check_readable(entry: &LogEntry) -> Result<(), StartError> {
    let index = entry.index;
    match entry.kind {
        0 if entry.data.is_empty() => Ok(()),
        0 => match Batch::decode(&entry.data) {
            Ok(_) => Ok(()),
            Err(error) => Err(StartError::UnreadableEntry { index, error }),
        },
        2 if decode_change(&entry.data).is_some() => Ok(()),
        kind => Err(StartError::UnknownEntry { index, kind }),
    }
}

/// Why a node refuses to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// Member id 0.
    NoMember,
    /// A member that was part of the cluster has neither log nor data.
    EmptyUnderOldIdentity {
        /// Its id.
        member: u64,
    },
    /// Entries that do not follow each other.
    BrokenLog {
        /// The entry that does not fit
        index: u64,
        /// behind this one.
        after: u64,
    },
    /// An entry that this build cannot read.
    UnreadableEntry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: CommandError,
    },
    /// An entry of a kind that this build does not know, or a change of the membership that
    /// cannot be read.
    UnknownEntry {
        /// Its index.
        index: u64,
        /// Its kind.
        kind: u8,
    },
    /// Entries between the tree's state and the log's begin are missing.
    LogBeginsTooLate {
        /// The log's first index.
        first: u64,
        /// The last index in the tree.
        applied: u64,
    },
    /// The tree holds what the log does not.
    TreeAheadOfLog {
        /// The last index in the tree.
        applied: u64,
        /// The last index in the log.
        last: u64,
    },
    /// Tree and log do not belong together.
    ForeignTree {
        /// The last index in the tree.
        index: u64,
        /// Its term by the tree.
        tree: u64,
        /// Its term by the log.
        log: u64,
    },
    /// The log says that an entry is committed that it does not have.
    CommitOutsideLog {
        /// The commit index.
        commit: u64,
        /// The log's last index.
        last: u64,
    },
    /// The log holds an entry of a term that the hard state has not reached.
    TermBehindLog {
        /// The hard state's term.
        term: u64,
        /// The last entry's.
        last: u64,
    },
    /// The stored membership is none.
    ConfState(ConfStateError),
    /// The crate refused for a reason of its own.
    Raft(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoMember => f.write_str("the member id is 0"),
            StartError::EmptyUnderOldIdentity { member } => write!(
                f,
                "member {member:x} has been part of a cluster, but its log and data are gone; \
                 restore the data directory, or remove the member and add a new one"
            ),
            StartError::BrokenLog { index, after } => {
                write!(f, "the log is damaged: entry {index} follows entry {after}")
            }
            StartError::UnreadableEntry { index, error } => {
                write!(f, "entry {index} of the log cannot be read: {error}")
            }
            StartError::UnknownEntry { index, kind } => {
                write!(
                    f,
                    "entry {index} of the log cannot be read: it is of kind {kind}"
                )
            }
            StartError::LogBeginsTooLate { first, applied } => write!(
                f,
                "the log begins at entry {first}, but the data file ends at entry {applied}: \
                 entries between them are missing"
            ),
            StartError::TreeAheadOfLog { applied, last } => write!(
                f,
                "the data file contains entry {applied}, but the log ends at entry {last}"
            ),
            StartError::ForeignTree { index, tree, log } => write!(
                f,
                "log and data file do not belong together: entry {index} is of term {tree} in \
                 the data file and of term {log} in the log"
            ),
            StartError::CommitOutsideLog { commit, last } => write!(
                f,
                "the log says that entry {commit} is committed, but it ends at entry {last}"
            ),
            StartError::TermBehindLog { term, last } => write!(
                f,
                "the log holds an entry of term {last}, but its hard state is of term {term}"
            ),
            StartError::ConfState(error) => write!(f, "the stored membership: {error}"),
            StartError::Raft(what) => write!(f, "raft: {what}"),
        }
    }
}

impl std::error::Error for StartError {}
