//! The driver of the raft crate: the only code that calls it.

use super::confchange;
use super::config::{CoreConfig, Start, StartError};
use super::gateway::{self, PeerError, PeerMessage};
use super::tail::Tail;
use super::{AppendRequest, LogEntry};
use crate::chance::Chance;
use crate::propose::reads::ReadContext;
use bytes::Bytes;
use quoin_storage::log::HardState;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message,
    MessageType,
};
use raft::{RawNode, Ready, StateRole};
use std::collections::VecDeque;

/// The entry type of a configuration change, as the log stores it.
const KIND_CHANGE: u8 = 2;

/// Index and term of the entry with which every cluster begins. All founding members write it
/// for themselves, so that a member which joins later cannot be served from the log alone: it
/// has to begin with a snapshot, which brings the membership with it.
const GENESIS: u64 = 1;

/// What a member is, right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows, or waits for a leader.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// An entry to apply.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it holds.
    pub data: CommittedData,
}

/// What a committed entry holds.
#[derive(Debug, Clone)]
pub enum CommittedData {
    /// Nothing: a leader's first entry, or a configuration change that was refused.
    Empty,
    /// A batch of commands.
    Batch(Bytes),
    /// A change of the membership; hand it to [`Core::apply_change`].
    Change(Bytes),
}

/// A question to the quorum was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadConfirmed {
    /// The question.
    pub context: ReadContext,
    /// What must be applied before the reads go.
    pub index: u64,
}

/// Why a proposal did not enter the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposeError {
    /// This member does not lead, or is handing leadership over.
    NotLeader,
    /// Too much is proposed and not yet committed.
    TooMuch,
    /// Another change of the membership is under way, or this one is impossible now.
    ChangeRefused,
}

/// What came of driving the crate. Fields are appended to; the caller empties them.
#[derive(Debug, Default)]
pub struct Handled {
    /// To be made durable, in this order.
    pub appends: Vec<AppendRequest>,
    /// To be applied, in this order.
    pub committed: VecDeque<Committed>,
    /// To be sent now.
    pub messages: Vec<PeerMessage>,
    /// Confirmed reads.
    pub reads: Vec<ReadConfirmed>,
}

/// A Ready that is not known to be durable, with all that must wait for it.
#[derive(Debug)]
struct Pending {
    /// The Ready's number; `None` for the very first write of a cluster.
    ready: Option<u64>,
    /// The append that makes it durable; `None` if there was nothing to write, and then it
    /// waits for those before it alone.
    append: Option<u64>,
    /// Messages that promise what is being written.
    messages: Vec<Message>,
}

/// One member's consensus.
pub struct Core {
    config: CoreConfig,
    node: RawNode<Tail>,
    members: Vec<u64>,
    conf_state: ConfState,
    chance: Chance,
    /// Term and role when the election time-out was last drawn.
    drawn_for: (u64, StateRole),
    pending: VecDeque<Pending>,
    next_append: u64,
    /// The commit index moved without anything else to write; it travels with the next append.
    hard_state_due: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.node.raft;
        f.debug_struct("Core")
            .field("member", &self.config.member)
            .field("term", &raft.term)
            .field("role", &raft.state)
            .field("committed", &raft.raft_log.committed)
            .field("persisted", &raft.raft_log.persisted)
            .field("last", &raft.raft_log.last_index())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Starts from what log and tree hold, after checking all that the crate would answer with
    /// a panic. A sole voter campaigns at once. `out` receives the first write of a new cluster.
    pub fn new(
        config: CoreConfig,
        start: Start,
        seed: u64,
        out: &mut Handled,
    ) -> Result<Core, StartError> {
        start.check(&config)?;
        let mut next_append = 1;
        let mut pending = VecDeque::new();
        let mut start = start;
        if start.is_empty() {
            let hard_state = HardState {
                term: GENESIS,
                vote: 0,
                commit: GENESIS,
            };
            out.appends.push(AppendRequest {
                number: next_append,
                hard_state: Some(hard_state),
                entries: vec![LogEntry {
                    index: GENESIS,
                    term: GENESIS,
                    kind: 0,
                    data: Bytes::new(),
                    context: Bytes::new(),
                }],
            });
            pending.push_back(Pending {
                ready: None,
                append: Some(next_append),
                messages: Vec::new(),
            });
            next_append += 1;
            start.hard_state = hard_state;
            (start.base_index, start.base_term) = (GENESIS, GENESIS);
            (start.applied_index, start.applied_term) = (GENESIS, GENESIS);
        }
        let conf_state = start.conf_state.clone();
        let applied = start.applied_index;
        let tail = restored_tail(start, &config);
        // The crate's log of events is of no use without its internals at hand; what matters
        // is reported by this module's callers.
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config.raft(applied), tail, &silent)
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let mut core = Core {
            members: confchange::members(&conf_state),
            conf_state,
            chance: Chance::new(seed),
            drawn_for: (0, StateRole::Leader),
            config,
            node,
            pending,
            next_append,
            hard_state_due: false,
        };
        core.redraw_time_out();
        if core.is_sole_voter() {
            core.campaign();
        }
        Ok(core)
    }

    /// Stands for election now.
    pub fn campaign(&mut self) {
        // It refuses only while a committed configuration change waits to be applied; the
        // election time-out tries again.
        let _ = self.node.campaign();
        self.redraw_time_out();
    }

    /// One tick of the crate's clock.
    pub fn tick(&mut self) {
        self.node.tick();
        self.redraw_time_out();
    }

    /// Takes a message from another member, if it passes the gateway.
    pub fn step(&mut self, message: PeerMessage) -> Result<(), PeerError> {
        let raft = &self.node.raft;
        let view = gateway::View {
            cluster: self.config.cluster,
            member: self.config.member,
            members: &self.members,
            term: raft.term,
            leader: raft.leader_id,
            leads: raft.state == StateRole::Leader,
            last: raft.raft_log.last_index(),
        };
        let message = gateway::check(message, view)?;
        // What it still refuses is an answer from a member that has just been removed.
        let _ = self.node.step(message);
        self.redraw_time_out();
        Ok(())
    }

    /// Puts batches into the log, one entry each: all of them, or none.
    pub fn propose(&mut self, batches: impl Iterator<Item = Bytes>) -> Result<(), ProposeError> {
        let entries: Vec<Entry> = batches
            .map(|data| Entry {
                data,
                ..Entry::default()
            })
            .collect();
        // The crate panics on a proposal of nothing.
        if entries.is_empty() {
            return Ok(());
        }
        // A follower would forward to the leader with no way to learn the outcome.
        if self.role() != Role::Leader || self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::NotLeader);
        }
        let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
        let uncommitted = self.node.raft.uncommitted_size();
        if uncommitted > 0 && (uncommitted + bytes) as u64 > self.config.max_uncommitted_bytes {
            return Err(ProposeError::TooMuch);
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.member;
        message.set_entries(entries.into());
        self.node.step(message).map_err(|_| ProposeError::NotLeader)
    }

    /// Proposes a change of the membership. `context` names the request; it comes back with the
    /// entry that carries the change.
    pub fn propose_change(
        &mut self,
        context: &[u8],
        changes: &[(u64, MemberChange)],
    ) -> Result<(), ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        let mut change = ConfChangeV2 {
            context: context.to_vec().into(),
            ..ConfChangeV2::default()
        };
        for &(member, kind) in changes {
            let mut single = ConfChangeSingle {
                node_id: member,
                ..Default::default()
            };
            single.set_change_type(match kind {
                MemberChange::Voter => ConfChangeType::AddNode,
                MemberChange::Learner => ConfChangeType::AddLearnerNode,
                MemberChange::Remove => ConfChangeType::RemoveNode,
            });
            change.changes.push(single);
        }
        self.node
            .propose_conf_change(context.to_vec(), change)
            .map_err(|_| ProposeError::NotLeader)?;
        // Where the crate finds the change impossible it puts an empty entry into the log
        // instead, and calls that success.
        let replaced = self
            .node
            .raft
            .raft_log
            .unstable_entries()
            .last()
            .is_none_or(|entry| entry.get_entry_type() == EntryType::EntryNormal);
        if replaced {
            Err(ProposeError::ChangeRefused)
        } else {
            Ok(())
        }
    }

    /// Applies a committed change of the membership, and returns the stored form of the new one.
    /// An unreadable or impossible change changes nothing, the same on every member.
    pub fn apply_change(&mut self, data: &[u8]) -> Vec<u8> {
        if let Some(change) = confchange::decode_change(data)
            && let Ok(conf_state) = self.node.apply_conf_change(&change)
        {
            self.members = confchange::members(&conf_state);
            self.conf_state = conf_state;
            // The crate would let a leader that is no member any more lead on.
            if self.role() == Role::Leader && !self.votes() {
                let term = self.node.raft.term;
                self.node.raft.become_follower(term, raft::INVALID_ID);
                self.redraw_time_out();
            }
        }
        confchange::encode_conf_state(&self.conf_state)
    }

    /// Hands leadership to another voter, when that one has caught up; if it does not within an
    /// election time-out, this member leads on. Meanwhile proposals are refused.
    pub fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
        self.redraw_time_out();
    }

    /// Asks the quorum for the point from which reads are linearizable; the answer comes as a
    /// [`ReadConfirmed`], or never. `context` must be new.
    pub fn read_index(&mut self, context: ReadContext) {
        self.node.read_index(context.encode().to_vec());
    }

    /// Every append up to this number is durable: what waited for it becomes due.
    pub fn persisted(&mut self, number: u64, out: &mut Handled) {
        assert!(
            number < self.next_append,
            "append {number} was never asked for"
        );
        let mut last_ready = None;
        while let Some(first) = self.pending.front() {
            if first.append.is_some_and(|append| append > number) {
                break;
            }
            let Some(done) = self.pending.pop_front() else {
                break;
            };
            match done.ready {
                Some(ready) => last_ready = Some(ready),
                None => out.committed.push_back(Committed {
                    index: GENESIS,
                    term: GENESIS,
                    data: CommittedData::Empty,
                }),
            }
            release(&self.config, done.messages, &mut out.messages);
        }
        if let Some(ready) = last_ready {
            self.node.on_persist_ready(ready);
            self.redraw_time_out();
        }
    }

    /// How many appends are not known to be durable, or a little more.
    pub fn appends_under_way(&self) -> usize {
        self.pending.len()
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        let (entries, bytes) = if self.is_sole_voter() {
            (0, 0)
        } else {
            (self.config.tail_entries, self.config.tail_bytes)
        };
        self.node.mut_store().shrink(index, entries, bytes);
    }

    /// Collects everything that the crate has ready. Nothing else calls the crate between
    /// `ready` and `advance`.
    pub fn handle(&mut self, out: &mut Handled) {
        while self.node.has_ready() {
            let ready = self.node.ready();
            self.handle_one(ready, out);
        }
    }

    fn handle_one(&mut self, mut ready: Ready, out: &mut Handled) {
        // Only a leader's messages may go before this Ready is durable.
        release(&self.config, ready.take_messages(), &mut out.messages);
        out.committed
            .extend(ready.take_committed_entries().into_iter().map(committed));
        for state in ready.take_read_states() {
            if let Some(context) = ReadContext::decode(&state.request_ctx) {
                out.reads.push(ReadConfirmed {
                    context,
                    index: state.index,
                });
            }
        }
        // The gateway lets no snapshot through, and the crate makes none of its own.
        assert!(
            ready.snapshot().is_empty(),
            "a snapshot arrived inside a message"
        );

        let entries = ready.take_entries();
        self.hard_state_due |= ready.hs().is_some();
        let append = (ready.must_sync() || !entries.is_empty()).then(|| {
            let number = self.next_append;
            self.next_append += 1;
            out.appends.push(AppendRequest {
                number,
                hard_state: std::mem::take(&mut self.hard_state_due).then(|| self.hard_state()),
                entries: entries.iter().map(log_entry).collect(),
            });
            number
        });
        self.pending.push_back(Pending {
            ready: Some(ready.number()),
            append,
            messages: ready.take_persisted_messages(),
        });
        // From `advance_append_async` on, the crate reads these entries through the tail.
        self.node.mut_store().append(&entries);
        self.node.advance_append_async(ready);
        // With nothing to write, and nothing before it being written, it is durable already.
        if append.is_none() && self.pending.len() == 1 {
            self.persisted(self.next_append - 1, out);
        }
    }

    /// The hard state as it may be written now. Its commit index never names an entry that is
    /// not durable: a torn write could keep the hard state and lose the entry.
    fn hard_state(&self) -> HardState {
        let state = self.node.raft.hard_state();
        let persisted = self.node.raft.raft_log.persisted;
        HardState {
            term: state.term,
            vote: state.vote,
            commit: state.commit.min(persisted),
        }
    }

    /// The crate draws its election time-out from the thread's own generator after each change
    /// of term or role; replace it by one of ours, so that one seed gives one history.
    fn redraw_time_out(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if now != self.drawn_for {
            self.drawn_for = now;
            let ticks = self.config.election_ticks as u64;
            let drawn = ticks + self.chance.below(ticks);
            self.node
                .raft
                .set_randomized_election_timeout(drawn as usize);
        }
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The leader, 0 if none is known.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// What this member is.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// No other member votes.
    pub fn is_sole_voter(&self) -> bool {
        self.conf_state.voters == [self.config.member] && self.conf_state.voters_outgoing.is_empty()
    }

    /// This member votes.
    pub fn votes(&self) -> bool {
        let me = self.config.member;
        self.conf_state.voters.contains(&me) || self.conf_state.voters_outgoing.contains(&me)
    }

    /// All members, in whatever role.
    pub fn members(&self) -> &[u64] {
        &self.members
    }

    /// The last index known to be committed.
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The index of the log's last entry, durable or not.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// The in-memory end of the log.
    pub fn tail(&self) -> &Tail {
        self.node.store()
    }

    /// Every append asked for so far is durable.
    pub fn is_durable(&self) -> bool {
        self.pending.iter().all(|pending| pending.append.is_none())
    }
}

/// A change of one member's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Add it, or promote it, as a voter.
    Voter,
    /// Add it, or demote it, as a learner.
    Learner,
    /// Remove it.
    Remove,
}

fn restored_tail(start: Start, config: &CoreConfig) -> Tail {
    // The tree may be ahead of the last commit index that reached the log: what is applied is
    // committed.
    let commit = start.hard_state.commit.max(start.applied_index);
    let mut hard_state = raft::eraftpb::HardState::default();
    hard_state.term = start.hard_state.term;
    hard_state.vote = start.hard_state.vote;
    hard_state.commit = commit;
    let mut tail = Tail::new(
        start.base_index,
        start.base_term,
        hard_state,
        start.conf_state,
    );
    for entry in start.entries {
        tail.append(&[raft_entry(entry)]);
    }
    tail.shrink(start.applied_index, config.tail_entries, config.tail_bytes);
    tail
}

fn release(config: &CoreConfig, messages: Vec<Message>, out: &mut Vec<PeerMessage>) {
    out.extend(messages.into_iter().map(|message| PeerMessage {
        cluster: config.cluster,
        message,
    }));
}

fn committed(entry: Entry) -> Committed {
    let data = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => CommittedData::Empty,
        EntryType::EntryNormal => CommittedData::Batch(entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            CommittedData::Change(entry.data)
        }
    };
    Committed {
        index: entry.index,
        term: entry.term,
        data,
    }
}

fn log_entry(entry: &Entry) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: entry.get_entry_type() as u8,
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}

fn raft_entry(entry: LogEntry) -> Entry {
    let mut raft = Entry {
        index: entry.index,
        term: entry.term,
        data: entry.data,
        context: entry.context,
        ..Entry::default()
    };
    if entry.kind == KIND_CHANGE {
        raft.set_entry_type(EntryType::EntryConfChangeV2);
    }
    raft
}
