//! The gateway: what comes from another member is checked here before the crate sees it.
//!
//! The crate trusts its peers. A message from a stranger is obeyed, a heartbeat with a commit
//! index beyond the log or an empty proposal panics it. A member that is broken or hostile must
//! not be able to stop this one, so everything that the crate takes for granted is verified.

use super::confchange::decode_change;
use crate::propose::command::Batch;
use crate::propose::reads::{CONTEXT, ReadContext};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use std::fmt;

/// Terms and indices beyond this are nonsense; the bound keeps sums from overflowing.
const MAX_NUMBER: u64 = 1 << 62;

/// The most entries of one message.
pub const MAX_ENTRIES: usize = 1 << 16;

/// A message between members.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage {
    /// The cluster that the sender belongs to.
    pub cluster: u64,
    pub(super) message: Message,
}

impl PeerMessage {
    /// The sender, by its own account.
    pub fn from(&self) -> u64 {
        self.message.from
    }

    /// The member that it is meant for.
    pub fn to(&self) -> u64 {
        self.message.to
    }
}

/// Why a message was refused. The connection that brought it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// From another cluster.
    ForeignCluster(u64),
    /// Meant for somebody else.
    NotForUs(u64),
    /// Not from a member.
    NotAMember(u64),
    /// A message of this type never travels between members.
    ForbiddenType(&'static str),
    /// A term, index or position that no correct member sends.
    BadNumber(&'static str),
    /// Entries that do not follow each other or cannot be read.
    BadEntries(&'static str),
    /// A read context that this message cannot carry.
    BadContext,
    /// Claims that entries are committed that this log does not have: one of the two has lost data.
    CommitBeyondLog {
        /// What the sender says is committed.
        commit: u64,
        /// This log's last index.
        last: u64,
    },
    /// Snapshots travel out of band.
    Snapshot,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::ForeignCluster(id) => write!(f, "a message of cluster {id:x}"),
            PeerError::NotForUs(id) => write!(f, "a message for member {id:x}"),
            PeerError::NotAMember(id) => write!(f, "a message from {id:x}, which is no member"),
            PeerError::ForbiddenType(name) => write!(f, "a {name} message from a peer"),
            PeerError::BadNumber(what) => write!(f, "a message with an impossible {what}"),
            PeerError::BadEntries(what) => write!(f, "a message with {what}"),
            PeerError::BadContext => f.write_str("a message with a foreign read context"),
            PeerError::CommitBeyondLog { commit, last } => write!(
                f,
                "a message that commits entry {commit}, but this log ends at entry {last}"
            ),
            PeerError::Snapshot => f.write_str("a snapshot inside a message"),
        }
    }
}

impl std::error::Error for PeerError {}

/// What the checks need to know about this member.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its cluster.
    pub cluster: u64,
    /// Its id.
    pub member: u64,
    /// All members, ascending.
    pub members: &'a [u64],
    /// Its term.
    pub term: u64,
    /// The leader it follows; 0 if none.
    pub leader: u64,
    /// It leads.
    pub leads: bool,
    /// The index of its log's last entry.
    pub last: u64,
}

impl View<'_> {
    /// A message of this term answers what this member has sent as its leader. (After a crash
    /// an answer may find a member that does not lead, and whose log is shorter than it was.)
    fn answers_us(&self, m: &Message) -> bool {
        self.leads && m.term == self.term
    }
}

/// Accepts a message as one that the crate can take.
pub fn check(peer: PeerMessage, view: View<'_>) -> Result<Message, PeerError> {
    let PeerMessage { cluster, message } = peer;
    if cluster != view.cluster {
        return Err(PeerError::ForeignCluster(cluster));
    }
    if message.to != view.member {
        return Err(PeerError::NotForUs(message.to));
    }
    if message.from == view.member || view.members.binary_search(&message.from).is_err() {
        return Err(PeerError::NotAMember(message.from));
    }
    check_numbers(&message)?;
    check_shape(&message, view)?;
    Ok(message)
}

fn check_numbers(m: &Message) -> Result<(), PeerError> {
    for (what, number) in [
        ("term", m.term),
        ("log term", m.log_term),
        ("index", m.index),
        ("commit index", m.commit),
        ("commit term", m.commit_term),
        ("rejection hint", m.reject_hint),
        ("snapshot request", m.request_snapshot),
    ] {
        if number > MAX_NUMBER {
            return Err(PeerError::BadNumber(what));
        }
    }
    // Term 0 makes the crate take a message for one of its own; only reads travel without one.
    let local = m.get_msg_type() == MessageType::MsgReadIndex;
    if local != (m.term == 0) {
        return Err(PeerError::BadNumber("term"));
    }
    Ok(())
}

fn check_shape(m: &Message, view: View<'_>) -> Result<(), PeerError> {
    let kind = m.get_msg_type();
    let carries_entries = matches!(
        kind,
        MessageType::MsgAppend | MessageType::MsgReadIndex | MessageType::MsgReadIndexResp
    );
    if !carries_entries && !m.entries.is_empty() {
        return Err(PeerError::BadEntries("entries where none belong"));
    }
    if kind != MessageType::MsgSnapshot && m.snapshot.is_some() {
        return Err(PeerError::Snapshot);
    }
    match kind {
        MessageType::MsgAppend => check_append(m),
        MessageType::MsgHeartbeat => {
            if m.commit > view.last {
                return Err(PeerError::CommitBeyondLog {
                    commit: m.commit,
                    last: view.last,
                });
            }
            if !m.context.is_empty() && m.context.len() != CONTEXT {
                return Err(PeerError::BadContext);
            }
            Ok(())
        }
        MessageType::MsgHeartbeatResponse => {
            check_commit(m, view)?;
            if m.context.is_empty() {
                return Ok(());
            }
            // Heartbeats carry contexts of this member or of a follower that asked through it.
            ReadContext::decode(&m.context)
                .map(|_| ())
                .ok_or(PeerError::BadContext)
        }
        MessageType::MsgAppendResponse => {
            check_commit(m, view)?;
            let request = m.request_snapshot;
            if view.answers_us(m) && (m.index > view.last || request > view.last) {
                return Err(PeerError::BadNumber("index"));
            }
            Ok(())
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            if m.log_term > m.term || m.commit > m.index || m.commit_term > m.log_term {
                return Err(PeerError::BadNumber("position"));
            }
            Ok(())
        }
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => Ok(()),
        MessageType::MsgTimeoutNow => {
            if m.from != view.leader || m.term != view.term {
                return Err(PeerError::ForbiddenType("time-out"));
            }
            Ok(())
        }
        MessageType::MsgReadIndex => check_read(m, m.from),
        // Its index may well lie beyond this log: the member that asked can be behind.
        MessageType::MsgReadIndexResp => check_read(m, view.member),
        MessageType::MsgSnapshot => Err(PeerError::Snapshot),
        MessageType::MsgPropose => Err(PeerError::ForbiddenType("proposal")),
        MessageType::MsgTransferLeader => Err(PeerError::ForbiddenType("transfer")),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err(PeerError::ForbiddenType("local")),
    }
}

fn check_commit(m: &Message, view: View<'_>) -> Result<(), PeerError> {
    if view.answers_us(m) && m.commit > view.last {
        return Err(PeerError::CommitBeyondLog {
            commit: m.commit,
            last: view.last,
        });
    }
    Ok(())
}

fn check_read(m: &Message, asker: u64) -> Result<(), PeerError> {
    let [entry] = m.entries.as_ref() else {
        return Err(PeerError::BadEntries("other than one read"));
    };
    match ReadContext::decode(&entry.data) {
        Some(context) if context.member == asker => Ok(()),
        _ => Err(PeerError::BadContext),
    }
}

fn check_append(m: &Message) -> Result<(), PeerError> {
    if m.log_term > m.term || (m.index == 0) != (m.log_term == 0) {
        return Err(PeerError::BadNumber("position"));
    }
    if m.entries.len() > MAX_ENTRIES {
        return Err(PeerError::BadEntries("too many entries"));
    }
    let mut before = (m.index, m.log_term);
    for entry in m.entries.iter() {
        if entry.index != before.0 + 1 || entry.term < before.1 || entry.term > m.term {
            return Err(PeerError::BadEntries(
                "entries that do not follow each other",
            ));
        }
        check_entry(entry)?;
        before = (entry.index, entry.term);
    }
    Ok(())
}

/// An entry whose data this member could not apply must not enter its log.
fn check_entry(entry: &Entry) -> Result<(), PeerError> {
    let readable = match entry.get_entry_type() {
        EntryType::EntryNormal => entry.data.is_empty() || Batch::decode(&entry.data).is_ok(),
        EntryType::EntryConfChange => false,
        EntryType::EntryConfChangeV2 => decode_change(&entry.data).is_some(),
    };
    if readable {
        Ok(())
    } else {
        Err(PeerError::BadEntries("an entry that cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View<'static> = View {
        cluster: 77,
        member: 1,
        members: &[1, 2, 3],
        term: 5,
        leader: 2,
        leads: false,
        last: 20,
    };

    fn message(kind: MessageType) -> Message {
        let mut m = Message::default();
        m.set_msg_type(kind);
        m.from = 2;
        m.to = 1;
        m.term = 5;
        m
    }

    fn verdict(m: Message) -> Result<Message, PeerError> {
        check(
            PeerMessage {
                cluster: 77,
                message: m,
            },
            VIEW,
        )
    }

    fn append(index: u64, log_term: u64, entries: &[(u64, u64)]) -> Message {
        let mut m = message(MessageType::MsgAppend);
        (m.index, m.log_term) = (index, log_term);
        m.entries = entries
            .iter()
            .map(|&(index, term)| Entry {
                index,
                term,
                ..Entry::default()
            })
            .collect::<Vec<_>>()
            .into();
        m
    }

    #[test]
    fn only_members_of_this_cluster_are_heard() {
        let good = append(20, 5, &[(21, 5)]);
        assert!(verdict(good.clone()).is_ok());
        let foreign = PeerMessage {
            cluster: 78,
            message: good.clone(),
        };
        assert_eq!(check(foreign, VIEW), Err(PeerError::ForeignCluster(78)));
        for stranger in [0, 1, 4, u64::MAX] {
            let m = Message {
                from: stranger,
                ..good.clone()
            };
            assert_eq!(verdict(m), Err(PeerError::NotAMember(stranger)));
        }
        assert_eq!(
            verdict(Message { to: 3, ..good }),
            Err(PeerError::NotForUs(3))
        );
    }

    #[test]
    fn a_heartbeat_cannot_commit_what_is_not_there() {
        let mut m = message(MessageType::MsgHeartbeat);
        m.commit = 20;
        assert!(verdict(m.clone()).is_ok());
        m.commit = 21;
        assert_eq!(
            verdict(m),
            Err(PeerError::CommitBeyondLog {
                commit: 21,
                last: 20
            })
        );
    }

    #[test]
    fn proposals_and_local_messages_never_come_from_peers() {
        for kind in [
            MessageType::MsgPropose,
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgUnreachable,
            MessageType::MsgSnapStatus,
            MessageType::MsgCheckQuorum,
            MessageType::MsgTransferLeader,
        ] {
            assert!(matches!(
                verdict(message(kind)),
                Err(PeerError::ForbiddenType(_))
            ));
        }
        assert_eq!(
            verdict(message(MessageType::MsgSnapshot)),
            Err(PeerError::Snapshot)
        );
    }

    #[test]
    fn a_message_without_a_term_would_pass_for_a_local_one() {
        let mut m = append(20, 5, &[]);
        m.term = 0;
        assert_eq!(verdict(m), Err(PeerError::BadNumber("term")));
    }

    #[test]
    fn huge_numbers_are_refused() {
        for set in [
            (|m, n| m.term = n) as fn(&mut Message, u64),
            |m, n| m.index = n,
            |m, n| m.log_term = n,
            |m, n| m.commit = n,
            |m, n| m.commit_term = n,
            |m, n| m.reject_hint = n,
            |m, n| m.request_snapshot = n,
        ] {
            let mut m = append(20, 5, &[]);
            set(&mut m, u64::MAX);
            assert!(matches!(verdict(m), Err(PeerError::BadNumber(_))));
        }
    }

    #[test]
    fn entries_follow_each_other_and_can_be_read() {
        assert!(verdict(append(0, 0, &[(1, 1), (2, 1), (3, 5)])).is_ok());
        for bad in [
            append(20, 5, &[(22, 5)]),
            append(20, 5, &[(21, 5), (21, 5)]),
            append(20, 5, &[(21, 4)]),
            append(20, 4, &[(21, 6)]),
            append(20, 6, &[]),
            append(20, 0, &[]),
        ] {
            assert!(verdict(bad).is_err());
        }
        let mut m = append(20, 5, &[(21, 5)]);
        m.mut_entries()[0].data = b"no batch".to_vec().into();
        let unreadable = PeerError::BadEntries("an entry that cannot be read");
        assert_eq!(verdict(m.clone()), Err(unreadable));
        // A nest of protobuf groups, which overflows the stack of the crate's parser.
        m.mut_entries()[0].set_entry_type(EntryType::EntryConfChangeV2);
        m.mut_entries()[0].data = vec![0x0b; 100_000].into();
        assert_eq!(verdict(m), Err(unreadable));
    }

    #[test]
    fn reads_carry_the_context_of_whoever_asks() {
        let mut m = message(MessageType::MsgReadIndex);
        m.term = 0;
        assert!(verdict(m.clone()).is_err());
        let context = |member| {
            ReadContext {
                member,
                boot: 1,
                number: 1,
            }
            .encode()
            .to_vec()
        };
        let entry = |member| Entry {
            data: context(member).into(),
            ..Entry::default()
        };
        m.entries = vec![entry(2)].into();
        assert!(verdict(m.clone()).is_ok());
        m.entries = vec![entry(3)].into();
        assert_eq!(verdict(m.clone()), Err(PeerError::BadContext));
        m.entries = vec![entry(2), entry(2)].into();
        assert!(verdict(m).is_err());

        let mut m = message(MessageType::MsgReadIndexResp);
        m.entries = vec![entry(1)].into();
        m.index = 20;
        assert!(verdict(m.clone()).is_ok());
        m.entries = vec![entry(2)].into();
        assert_eq!(verdict(m.clone()), Err(PeerError::BadContext));
    }

    #[test]
    fn acknowledgements_stay_within_the_log() {
        let verdict = |m: &Message, leads| {
            let view = View {
                leads,
                leader: 1,
                ..VIEW
            };
            check(
                PeerMessage {
                    cluster: 77,
                    message: m.clone(),
                },
                view,
            )
        };
        let mut m = message(MessageType::MsgAppendResponse);
        m.index = 20;
        assert!(verdict(&m, true).is_ok());
        m.index = 21;
        assert_eq!(verdict(&m, true), Err(PeerError::BadNumber("index")));
        assert!(
            verdict(&m, false).is_ok(),
            "this member has lost what it sent"
        );
    }

    #[test]
    fn only_the_leader_may_ask_to_take_over() {
        let mut m = message(MessageType::MsgTimeoutNow);
        assert!(verdict(m.clone()).is_ok());
        m.from = 3;
        assert!(verdict(m).is_err());
    }
}
