//! One test for each rule by which the crate must be driven.

use super::net::{CLUSTER, Disk, Net, Node, batch, config, start};
use crate::consensus::confchange::{check_conf_state, decode_conf_state, voters};
use crate::consensus::{
    AppendRequest, Core, Handled, LogEntry, MemberChange, PeerError, PeerMessage, ProposeError,
    Role, Start, StartError,
};
use crate::propose::reads::ReadContext;
use quoin_storage::log::HardState;
use raft::eraftpb::{Message, MessageType};

fn sole() -> Node {
    Node::new(config(1), Disk::default(), &[1], 1)
}

fn settle(node: &mut Node) {
    for _ in 0..10 {
        assert!(node.turn().is_empty(), "a sole voter has nobody to talk to");
        while node.sync_one() {}
    }
}

fn context(member: u64, number: u64) -> ReadContext {
    ReadContext {
        member,
        boot: 1,
        number,
    }
}

#[test]
fn rule_1_promises_wait_for_the_disk_in_order() {
    let mut net = Net::new(&[1, 2, 3], 1);
    let leader = net.elect();
    let follower = if leader == 1 { 2 } else { 1 };
    net.propose(leader, 1, "a");
    let from_leader = net.node(leader).turn();
    assert!(
        !from_leader.is_empty(),
        "a leader sends while its own disk is still writing"
    );
    assert!(!net.node(leader).appends.is_empty());
    for message in from_leader.into_iter().filter(|m| m.to() == follower) {
        net.deliver(message);
    }
    assert!(
        net.node(follower).turn().is_empty(),
        "a follower promises nothing yet"
    );
    // A heartbeat's answer needs no write of its own, and still waits behind the append.
    net.node(leader).core.tick();
    for message in net
        .node(leader)
        .turn()
        .into_iter()
        .filter(|m| m.to() == follower)
    {
        net.deliver(message);
    }
    assert!(net.node(follower).turn().is_empty(), "nothing overtakes");
    assert!(net.node(follower).sync_one());
    let kinds: Vec<_> = net
        .node(follower)
        .turn()
        .iter()
        .map(|m| m.message.get_msg_type())
        .collect();
    let expected = [
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
    ];
    assert_eq!(kinds, expected, "first in, first out");
}

#[test]
fn rules_2_and_3_entries_are_readable_before_they_are_durable() {
    let mut node = sole();
    settle(&mut node);
    let before = node.core.tail().last();
    for sequence in 1..=3 {
        node.core
            .propose(std::iter::once(batch(1, sequence, "x")))
            .unwrap();
        node.turn();
        assert_eq!(node.core.tail().last(), before + sequence);
    }
    assert_eq!(node.appends.len(), 3, "three writes in flight");
    assert!(
        node.texts().is_empty(),
        "nothing is applied before it is durable"
    );
}

#[test]
fn rule_4_a_commit_is_handed_out_without_another_input() {
    let mut node = sole();
    settle(&mut node);
    node.core
        .propose(std::iter::once(batch(1, 1, "x")))
        .unwrap();
    node.turn();
    assert!(node.sync_one());
    node.turn();
    assert_eq!(node.texts(), ["x"]);
}

#[test]
fn rule_5_a_moved_commit_index_writes_nothing_alone_but_a_vote_does() {
    let mut node = sole();
    settle(&mut node);
    node.core
        .propose(std::iter::once(batch(1, 1, "x")))
        .unwrap();
    settle(&mut node);
    let commit = node.core.commit_index();
    assert!(
        node.appends.is_empty(),
        "the commit index alone is not worth a write"
    );
    assert!(node.disk.hard_state.commit < commit);
    node.core
        .propose(std::iter::once(batch(1, 2, "y")))
        .unwrap();
    node.turn();
    let hard_state = node.appends[0].hard_state.unwrap();
    assert_eq!(hard_state.commit, commit, "it travels with the next append");

    let mut net = Net::new(&[1, 2, 3], 5);
    net.settle();
    net.node(1).core.campaign();
    for message in net.node(1).turn() {
        net.deliver(message);
    }
    net.settle();
    assert_eq!(net.leaders(), [1]);
    for id in [2, 3] {
        let HardState { term, vote, .. } = net.node(id).disk.hard_state;
        assert_eq!((term, vote), (2, 1), "the vote is on disk");
    }
}

#[test]
fn the_commit_index_on_disk_never_names_an_entry_that_is_not() {
    let mut net = Net::new(&[1, 2, 3], 3);
    let leader = net.elect();
    for sequence in 1..20 {
        net.propose(leader, sequence, "x");
        net.settle();
    }
    let last = |node: &Node| node.disk.entries.last().unwrap().index;
    for node in net.nodes.values() {
        assert!(node.disk.hard_state.commit <= last(node));
        assert!(node.disk.hard_state.commit > 1);
    }
    // A follower hears of entries and of their commitment at once, as its disk stands still.
    let follower = if leader == 1 { 2 } else { 1 };
    for sequence in 20..25 {
        net.propose(leader, sequence, "y");
        for message in net.node(leader).turn() {
            net.deliver(message);
        }
        net.node(leader).sync_one();
        let ids: Vec<u64> = net.nodes.keys().copied().collect();
        for id in ids {
            for message in net.node(id).turn() {
                net.deliver(message);
            }
            if id != follower {
                net.node(id).sync_one();
            }
        }
    }
    let node = net.node(follower);
    let durable = last(node);
    for append in &node.appends {
        assert!(
            append
                .hard_state
                .is_none_or(|hard_state| hard_state.commit <= durable)
        );
    }
}

#[test]
fn rule_6_what_is_never_reported_durable_is_never_committed() {
    let mut node = sole();
    settle(&mut node);
    let commit = node.core.commit_index();
    for sequence in 1..=5 {
        node.core
            .propose(std::iter::once(batch(1, sequence, "x")))
            .unwrap();
        node.turn();
        node.core.tick();
    }
    assert_eq!(node.core.commit_index(), commit);
    assert!(node.texts().is_empty() && !node.core.is_durable());
}

#[test]
#[should_panic(expected = "was never asked for")]
fn rule_6_a_report_of_what_was_never_written_is_a_broken_invariant() {
    let mut node = sole();
    settle(&mut node);
    node.core.persisted(1000, &mut Handled::default());
}

fn entry(index: u64, term: u64) -> LogEntry {
    let (data, context) = Default::default();
    LogEntry {
        index,
        term,
        kind: 0,
        data,
        context,
    }
}

fn whole() -> Start {
    Start {
        hard_state: HardState {
            term: 3,
            vote: 1,
            commit: 4,
        },
        base_index: 2,
        base_term: 1,
        entries: vec![entry(3, 1), entry(4, 2), entry(5, 3)],
        applied_index: 3,
        applied_term: 1,
        conf_state: voters(&[1]),
        founding: false,
    }
}

fn refusal(change: impl FnOnce(&mut Start)) -> StartError {
    let mut start = whole();
    change(&mut start);
    Core::new(config(1), start, 1, &mut Handled::default()).unwrap_err()
}

#[test]
fn rule_7_a_log_and_a_tree_that_do_not_fit_are_refused_not_panicked_over() {
    assert!(Core::new(config(1), whole(), 1, &mut Handled::default()).is_ok());
    assert_eq!(
        refusal(|s| s.hard_state.commit = 6),
        StartError::CommitOutsideLog { commit: 6, last: 5 }
    );
    assert_eq!(
        refusal(|s| (s.applied_index, s.applied_term) = (6, 3)),
        StartError::TreeAheadOfLog {
            applied: 6,
            last: 5
        }
    );
    assert_eq!(
        refusal(|s| s.applied_index = 1),
        StartError::LogBeginsTooLate {
            first: 3,
            applied: 1
        }
    );
    assert_eq!(
        refusal(|s| s.applied_term = 2),
        StartError::ForeignTree {
            index: 3,
            tree: 2,
            log: 1
        }
    );
    assert_eq!(
        refusal(|s| s.hard_state.term = 2),
        StartError::TermBehindLog { term: 2, last: 3 }
    );
    assert_eq!(
        refusal(|s| s.entries[1].index = 5),
        StartError::BrokenLog { index: 5, after: 3 }
    );
    assert_eq!(
        refusal(|s| s.entries[2].term = 1),
        StartError::BrokenLog { index: 5, after: 4 }
    );
    assert_eq!(
        refusal(|s| s.entries[1].kind = 1),
        StartError::UnknownEntry { index: 4, kind: 1 }
    );
    let unreadable = refusal(|s| s.entries[1].data = b"no batch".to_vec().into());
    assert!(matches!(
        unreadable,
        StartError::UnreadableEntry { index: 4, .. }
    ));
    assert!(matches!(
        refusal(|s| s.conf_state.voters.clear()),
        StartError::ConfState(_)
    ));
}

#[test]
fn rule_7_an_empty_disk_under_an_old_identity_is_refused() {
    let mut empty = start(&Disk::default(), &[1]);
    empty.founding = false;
    let refused = Core::new(config(1), empty, 1, &mut Handled::default()).unwrap_err();
    assert_eq!(refused, StartError::EmptyUnderOldIdentity { member: 1 });
    // Data without a log, and a log that has lost its tree, are no better.
    let mut no_log = whole();
    (no_log.hard_state, no_log.base_index, no_log.base_term) = Default::default();
    no_log.entries.clear();
    let refused = Core::new(config(1), no_log, 1, &mut Handled::default()).unwrap_err();
    assert_eq!(
        refused,
        StartError::TreeAheadOfLog {
            applied: 3,
            last: 0
        }
    );
    let no_tree = refusal(|s| (s.applied_index, s.applied_term) = (0, 0));
    assert_eq!(
        no_tree,
        StartError::LogBeginsTooLate {
            first: 3,
            applied: 0
        }
    );
}

#[test]
fn rule_7_a_restart_goes_on_from_the_applied_index() {
    let mut node = sole();
    settle(&mut node);
    for sequence in 1..=5 {
        node.core
            .propose(std::iter::once(batch(1, sequence, &format!("{sequence}"))))
            .unwrap();
        settle(&mut node);
        if sequence == 3 {
            node.checkpoint();
        }
    }
    let term = node.core.term();
    let mut again = Node::new(config(1), node.disk.clone(), &[1], 2);
    assert_eq!(
        again.texts(),
        ["1", "2", "3"],
        "what the checkpoint holds is not applied again"
    );
    settle(&mut again);
    assert_eq!(again.texts(), ["1", "2", "3", "4", "5"]);
    assert!(again.core.term() > term);
}

#[test]
fn a_founding_crash_before_the_first_write_leaves_a_founding_member() {
    let mut node = sole();
    node.turn();
    let mut again = Node::new(config(1), node.disk.clone(), &[1], 2);
    settle(&mut again);
    assert_eq!(again.core.role(), Role::Leader);
    let again = Node::new(config(1), again.disk.clone(), &[1], 3);
    assert_eq!(
        again.core.role(),
        Role::Leader,
        "a sole voter campaigns at once"
    );
}

#[test]
fn rule_8_no_snapshot_goes_through_the_core() {
    let mut net = Net::new(&[1, 2, 3], 11);
    let leader = net.elect();
    let behind = if leader == 1 { 2 } else { 1 };
    net.isolate(behind);
    for sequence in 1..=50 {
        net.propose(leader, sequence, "x");
        net.settle();
    }
    // The leader forgets what the other would need.
    let applied = net.node(leader).applied.last().unwrap().0;
    net.restart(leader);
    net.node(leader).checkpoint();
    let disk = &mut net.node(leader).disk;
    assert!(disk.applied.len() as u64 <= applied);
    net.cuts.clear();
    net.elect();
    net.tick(50);
    let sent: Vec<_> = net
        .nodes
        .values_mut()
        .flat_map(|node| node.turn())
        .collect();
    assert!(
        sent.iter()
            .all(|m| m.message.get_msg_type() != MessageType::MsgSnapshot)
    );

    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (leader, behind, 99);
    let refused = net.node(behind).core.step(PeerMessage {
        cluster: CLUSTER,
        message,
    });
    assert_eq!(refused, Err(PeerError::Snapshot));
}

#[test]
fn rule_9_a_leader_that_was_cut_off_confirms_no_read() {
    let mut net = Net::new(&[1, 2, 3], 7);
    let old = net.elect();
    net.propose(old, 1, "before");
    net.settle();
    net.node(old).core.read_index(context(old, 1));
    net.settle();
    assert_eq!(net.node(old).reads.len(), 1);
    let confirmed = net.node(old).reads.pop().unwrap();
    assert_eq!(confirmed.context, context(old, 1));
    assert!(confirmed.index >= net.node(old).applied.last().unwrap().0);

    net.isolate(old);
    net.node(old).core.read_index(context(old, 2));
    let new = net.elect_other(old);
    net.propose(new, 2, "after");
    net.settle();
    assert!(net.node(old).reads.is_empty());
    net.cuts.clear();
    net.tick(30);
    assert!(
        net.node(old).reads.is_empty(),
        "nor later: the question died with its term"
    );
}

#[test]
fn rule_9_a_follower_reads_through_the_leader() {
    let mut net = Net::new(&[1, 2, 3], 8);
    let leader = net.elect();
    let follower = if leader == 1 { 2 } else { 1 };
    net.propose(leader, 1, "x");
    net.settle();
    net.node(follower).core.read_index(context(follower, 1));
    net.settle();
    let read = net.node(follower).reads.pop().unwrap();
    assert_eq!(read.context, context(follower, 1));
    assert!(read.index >= net.node(leader).applied.last().unwrap().0);
}

#[test]
fn rule_10_a_follower_forwards_nothing() {
    let mut net = Net::new(&[1, 2, 3], 9);
    let leader = net.elect();
    let follower = if leader == 1 { 2 } else { 1 };
    let refused = net
        .node(follower)
        .core
        .propose(std::iter::once(batch(follower, 1, "x")));
    assert_eq!(refused, Err(ProposeError::NotLeader));
    assert!(net.node(follower).turn().is_empty());
    assert_eq!(
        net.node(leader).core.propose(std::iter::empty()),
        Ok(()),
        "nothing is nothing"
    );
}

#[test]
fn rule_11_a_change_that_the_crate_replaces_is_an_error() {
    let mut net = Net::new(&[1, 2, 3], 10);
    let leader = net.elect();
    let core = &mut net.node(leader).core;
    core.propose_change(b"first", &[(4, MemberChange::Learner)])
        .unwrap();
    let second = core.propose_change(b"second", &[(5, MemberChange::Learner)]);
    assert_eq!(second, Err(ProposeError::ChangeRefused));
    net.settle();
    for node in net.nodes.values() {
        let conf = decode_conf_state(&node.conf_state).unwrap();
        assert_eq!(conf.learners, [4], "the first alone, on every member");
        assert!(
            node.disk
                .entries
                .iter()
                .any(|entry| entry.context == b"first"[..])
        );
    }
    // Applied once: after a restart from a checkpoint that holds it, it is not applied again.
    let ids: Vec<u64> = net.nodes.keys().copied().collect();
    for id in ids {
        net.node(id).checkpoint();
        net.restart(id);
        assert_eq!(net.node(id).core.members(), [1, 2, 3, 4]);
    }
    net.elect();
    assert!(
        net.nodes
            .values()
            .all(|node| node.core.members() == [1, 2, 3, 4])
    );
}

#[test]
fn rule_12_members_are_replaced_jointly_and_a_removed_leader_steps_down() {
    let mut net = Net::new(&[1, 2, 3], 12);
    let leader = net.elect();
    let core = &mut net.node(leader).core;
    let swap = [(leader, MemberChange::Remove), (4, MemberChange::Voter)];
    core.propose_change(b"swap", &swap).unwrap();
    net.settle();
    // The joint phase needs both majorities; the new one has it without member 4.
    net.tick(3);
    let node = net.node(leader);
    let conf = decode_conf_state(&node.conf_state).unwrap();
    assert!(check_conf_state(&conf).is_ok());
    assert!(
        conf.voters_outgoing.is_empty(),
        "the transition has ended by itself: {conf:?}"
    );
    assert!(!conf.voters.contains(&leader) && conf.voters.contains(&4));
    assert_ne!(
        node.core.role(),
        Role::Leader,
        "whoever is no member does not lead"
    );
    let next = net.elect();
    assert_ne!(next, leader);
    net.propose(next, 1, "goes on");
    net.settle();
    assert_eq!(net.node(next).texts(), ["goes on"]);
}

#[test]
fn rule_12_leadership_moves_on_request() {
    let mut net = Net::new(&[1, 2, 3], 13);
    let leader = net.elect();
    let other = if leader == 1 { 2 } else { 1 };
    net.node(leader).core.transfer_leader(other);
    let refused = net
        .node(leader)
        .core
        .propose(std::iter::once(batch(leader, 1, "x")));
    assert_eq!(refused, Err(ProposeError::NotLeader), "while it moves");
    net.settle();
    assert_eq!(net.leaders(), [other]);
}

#[test]
fn rule_13_everything_is_bounded() {
    let raft = config(1).raft(0);
    assert!(raft.pre_vote && raft.check_quorum);
    assert!(raft.max_size_per_msg > 0 && raft.max_size_per_msg < 1 << 30);
    assert!(raft.max_uncommitted_size < 1 << 30);
    assert!(raft.max_committed_size_per_ready < 1 << 30);
    assert!(raft.validate().is_ok());

    let mut net = Net::new(&[1, 2, 3], 14);
    let leader = net.elect();
    net.isolate(leader);
    let big = batch(leader, 1, &"x".repeat(1 << 20));
    let mut taken = 0;
    let core = &mut net.node(leader).core;
    while core.propose(std::iter::once(big.clone())).is_ok() {
        taken += 1;
        assert!(taken < 1000, "the bound never bites");
    }
    assert_eq!(
        core.propose(std::iter::once(big)),
        Err(ProposeError::TooMuch)
    );
    assert!((60..=64).contains(&taken), "{taken}");
}

#[test]
fn rule_13_a_leader_without_a_quorum_steps_down_and_a_returning_member_disturbs_nobody() {
    let mut net = Net::new(&[1, 2, 3], 15);
    let old = net.elect();
    net.isolate(old);
    net.tick(25);
    assert_ne!(net.node(old).core.role(), Role::Leader, "check-quorum");
    let new = net.elect();
    let term = net.node(new).core.term();
    net.cuts.clear();
    net.tick(30);
    assert_eq!(net.leaders(), [new], "pre-vote");
    assert_eq!(net.node(new).core.term(), term);
}

#[test]
fn rule_14_a_crafted_message_is_an_error_not_a_panic() {
    let mut net = Net::new(&[1, 2, 3], 16);
    let leader = net.elect();
    let victim = if leader == 1 { 2 } else { 1 };
    let crafted = |kind, change: fn(&mut Message)| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (leader, victim, 2);
        change(&mut message);
        PeerMessage {
            cluster: CLUSTER,
            message,
        }
    };
    for message in [
        crafted(MessageType::MsgHeartbeat, |m| m.commit = 1 << 40),
        crafted(MessageType::MsgPropose, |m| m.term = 0),
        crafted(MessageType::MsgAppend, |m| m.from = 9),
        crafted(MessageType::MsgAppend, |m| m.index = u64::MAX),
        crafted(MessageType::MsgReadIndex, |m| m.term = 0),
        crafted(MessageType::MsgHup, |_| {}),
        crafted(MessageType::MsgSnapshot, |_| {}),
    ] {
        assert!(net.node(victim).core.step(message).is_err());
    }
    net.propose(leader, 1, "unharmed");
    net.settle();
    assert_eq!(net.node(victim).texts(), ["unharmed"]);
}

#[test]
fn rule_15_one_seed_gives_one_history() {
    let history = |seed| {
        let mut net = Net::new(&[1, 2, 3], seed);
        let mut history = Vec::new();
        for round in 0..6 {
            let leader = net.elect();
            net.propose(leader, round, "x");
            net.settle();
            net.isolate(leader);
            let next = net.elect_other(leader);
            net.cuts.clear();
            net.tick(7);
            let terms: Vec<_> = net.nodes.values().map(|n| n.core.term()).collect();
            history.push((leader, next, terms));
        }
        history
    };
    assert_eq!(history(1), history(1));
    assert_eq!(history(1), history(1));
    assert!((2..10).any(|seed| history(seed) != history(1)));
}

#[test]
fn a_member_that_joins_later_cannot_begin_from_the_log() {
    let mut net = Net::new(&[1], 17);
    net.settle();
    let AppendRequest { number, .. } = {
        let mut handled = Handled::default();
        Core::new(config(2), start(&Disk::default(), &[2]), 1, &mut handled).unwrap();
        handled.appends.remove(0)
    };
    assert_eq!(number, 1, "the first write founds the log");
    let first = &net.node(1).disk.entries[0];
    assert_eq!((first.index, first.term, first.data.len()), (1, 1, 0));
    assert!(
        net.node(1).core.tail().base() >= 1,
        "and is never sent to anybody"
    );
}
