//! Single rules of the order actor, each shown on a whole node.

use super::journal::value;
use super::node::{Node, Settings, Stopped};
use quoin::api::{Error, PutRequest, Request};
use quoin::limits::LOG_QUEUE_REQUESTS;
use quoin::node::messages::{
    FrontId, FrontInput, OrderInput, OrderOutput, Outcome, ProposalBatch, Reply,
};
use quoin::node::order::CheckpointConfig;
use quoin::propose::command::{BatchBuilder, CommandKind};
use quoin::wire;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::TreeOptions;

const MS: u64 = 1_000_000;

pub fn settings(boot: u64) -> Settings {
    Settings {
        boot,
        founding: true,
        segment_bytes: 1 << 20,
        checkpoint: CheckpointConfig::default(),
        in_flight_bytes: 4000,
        uncommitted_bytes: 64 << 20,
        per_turn: 1000,
        tree: TreeOptions {
            reserve_bytes: 1 << 30,
            young_bytes_max: 64 << 20,
            spare_bytes: 0,
            ..TreeOptions::default()
        },
    }
}

fn start(disk: &SimDisk, settings: &Settings) -> Node {
    Node::start(disk, settings, 1, 0).expect("the node starts")
}

/// A batch of puts by front 0.
fn puts(boot: u64, sequence: u64, waiters: std::ops::Range<u64>) -> OrderInput {
    let mut builder = BatchBuilder::new(1, boot, 0, usize::MAX, u32::MAX);
    for _ in 1..sequence {
        let pushed = builder.push(0, CommandKind::Put, b"");
        pushed.expect("no bound is set");
        builder.take().expect("something was pushed");
    }
    for waiter in waiters {
        let key = waiter.to_be_bytes();
        let value = value(waiter as usize);
        let put = PutRequest {
            key: &key,
            value: &value,
            ..PutRequest::default()
        };
        let mut body = Vec::new();
        wire::encode_body(&Request::Put(put), &mut body).expect("a small request");
        let pushed = builder.push(waiter, CommandKind::Put, &body);
        pushed.expect("no bound is set");
    }
    let built = builder.take().expect("something was pushed");
    OrderInput::Propose(ProposalBatch {
        front: FrontId(0),
        sequence: built.sequence,
        count: built.count,
        bytes: built.bytes,
    })
}

/// Lets everything happen that can, without time passing.
fn settle(node: &mut Node, now_ns: u64) -> Vec<OrderOutput> {
    let mut out = Vec::new();
    for _ in 0..1000 {
        out.extend(node.turn(now_ns).expect("nothing fails"));
        let mut busy = node.log_step(100).expect("nothing fails");
        busy |= node.checkpoint_step().expect("nothing fails");
        if !busy && !node.is_busy() {
            return out;
        }
    }
    panic!("the node never comes to rest");
}

fn replies(out: Vec<OrderOutput>) -> Vec<Reply> {
    let mut all = Vec::new();
    for output in out {
        if let OrderOutput::Front(_, FrontInput::Replies(replies)) = output {
            all.extend(replies.list);
        }
    }
    all
}

fn refusals(replies: &[Reply], with: Error) -> usize {
    let refused =
        |reply: &&Reply| matches!(reply.outcome, Outcome::Failed { error, .. } if error == with);
    replies.iter().filter(refused).count()
}

#[test]
fn fronts_learn_of_term_and_local_reads_and_hear_nothing_twice() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    let first = node.turn(0).expect("nothing fails");
    let told = |out: &[OrderOutput], what: fn(&FrontInput) -> bool| {
        out.iter()
            .filter(|o| matches!(o, OrderOutput::Front(_, input) if what(input)))
            .count()
    };
    assert_eq!(
        told(&first, |i| matches!(i, FrontInput::LocalReads(false))),
        2
    );
    assert_eq!(
        told(&first, |i| matches!(i, FrontInput::LocalReads(true))),
        0
    );
    let term = |i: &FrontInput| {
        matches!(
            i,
            FrontInput::Term {
                term: 2,
                has_leader: true
            }
        )
    };
    assert_eq!(told(&first, term), 2, "a sole voter leads at once");
    let later = settle(&mut node, 0);
    let reads = told(&later, |i| matches!(i, FrontInput::LocalReads(true)));
    assert_eq!(reads, 2, "once an entry of its own term is applied");
    assert!(settle(&mut node, 50 * MS).is_empty());
}

#[test]
fn answers_wait_for_the_disk() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    node.send(puts(1, 1, 1..4));
    for _ in 0..5 {
        let out = node.turn(0).expect("nothing fails");
        assert!(out.is_empty(), "nothing is durable yet");
    }
    node.log_step(10).expect("nothing fails");
    let replies = replies(node.turn(0).expect("nothing fails"));
    let revisions: Vec<_> = replies
        .iter()
        .map(|reply| match reply.outcome {
            Outcome::Put { revision } => (reply.waiter.0, revision),
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions, [(1, 2), (2, 3), (3, 4)]);
}

#[test]
fn what_arrives_before_the_first_turn_is_served() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    node.send(puts(1, 1, 1..4));
    let replies = replies(settle(&mut node, 0));
    assert_eq!(replies.len(), 3);
    assert!(
        replies
            .iter()
            .all(|reply| matches!(reply.outcome, Outcome::Put { .. })),
        "{replies:?}"
    );
}

#[test]
fn too_much_in_flight_is_refused_and_room_comes_back() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    for sequence in 1..=100 {
        node.send(puts(1, sequence, sequence * 10..sequence * 10 + 2));
    }
    let all = replies(settle(&mut node, 0));
    let waiters: Vec<_> = all.iter().map(|reply| reply.waiter.0).collect();
    assert_eq!(all.len(), 200, "everybody is answered: {waiters:?}");
    let refused = refusals(&all, Error::TooManyRequests);
    assert!((100..200).contains(&refused), "{refused}");
    node.send(puts(1, 101, 1..3));
    assert_eq!(
        refusals(&replies(settle(&mut node, 0)), Error::TooManyRequests),
        0
    );
}

#[test]
fn while_an_append_is_held_back_writes_are_refused() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    node.send(OrderInput::LogFull(true));
    node.send(puts(1, 1, 1..4));
    assert_eq!(refusals(&replies(settle(&mut node, 0)), Error::NoSpace), 3);
    node.send(OrderInput::LogFull(false));
    node.send(puts(1, 2, 4..5));
    assert_eq!(refusals(&replies(settle(&mut node, 0)), Error::NoSpace), 0);
}

#[test]
fn a_log_that_is_behind_is_given_no_more_appends_and_the_writes_gather() {
    let disk = SimDisk::new(1);
    let mut settings = settings(1);
    settings.in_flight_bytes = 4 << 20;
    let mut node = start(&disk, &settings);
    settle(&mut node, 0);
    let count = LOG_QUEUE_REQUESTS as u64 + 300;
    for at in 1..=count {
        node.send(puts(1, at, at..at + 1));
        node.turn(0).expect("nothing fails");
    }
    assert!(node.appends_waiting() <= LOG_QUEUE_REQUESTS);
    let answers = replies(settle(&mut node, 0));
    assert_eq!(answers.len() as u64, count);
    let served = |reply: &Reply| matches!(reply.outcome, Outcome::Put { .. });
    assert!(answers.iter().all(served));
}

#[test]
fn a_stall_is_made_up_for_by_one_tick() {
    // A tick too many would show as an election: a leader alone has no other use for ticks, so
    // the ticks are counted by what the actor asks for next.
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    let mut out = Vec::new();
    let next = node.order.turn(10_000 * MS, &mut out);
    assert_eq!(
        next.at_ns,
        10_000 * MS,
        "one is made up for, in the next turn"
    );
    let next = node.order.turn(10_000 * MS, &mut out);
    assert_eq!(next.at_ns, 10_100 * MS, "and no more");
}

#[test]
fn a_drained_node_has_answered_everybody_and_starts_with_nothing_to_replay() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    node.send(puts(1, 1, 1..4));
    node.send(OrderInput::Drain);
    node.send(puts(1, 2, 4..6));
    let mut out = settle(&mut node, 0);
    let drained = out
        .iter()
        .filter(|o| matches!(o, OrderOutput::Drained))
        .count();
    assert_eq!(drained, 1);
    assert!(
        matches!(out.pop(), Some(OrderOutput::Drained)),
        "nothing follows"
    );
    let all = replies(out);
    assert_eq!((all.len(), refusals(&all, Error::Stopped)), (5, 2));
    drop(node);
    let mut node = start(&disk.crash(), &settings(2));
    assert_eq!(node.replayed, 0);
    settle(&mut node, 0);
    assert_eq!(node.order.applier().meta().revision, 4);
}

#[test]
fn reads_that_ask_are_answered_once_with_their_token() {
    let disk = SimDisk::new(1);
    let mut node = start(&disk, &settings(1));
    settle(&mut node, 0);
    for token in [7, 8] {
        let front = FrontId(1);
        node.send(OrderInput::ReadBarrier { front, token });
    }
    let mut tokens = Vec::new();
    for output in settle(&mut node, 0) {
        if let OrderOutput::Front(FrontId(1), FrontInput::ReadReady { token, ok }) = output {
            tokens.push((token, ok));
        }
    }
    assert_eq!(tokens, [(7, true), (8, true)]);
}

#[test]
fn an_empty_disk_under_an_old_identity_is_refused() {
    let mut settings = settings(1);
    settings.founding = false;
    let refused = Node::start(&SimDisk::new(1), &settings, 1, 0);
    let Err(Stopped(why)) = refused else {
        panic!("the node started");
    };
    assert!(why.contains("its log and data are gone"), "{why}");
}

#[test]
fn the_log_is_cut_after_checkpoints_and_never_beyond_the_older_one() {
    let disk = SimDisk::new(1);
    let mut settings = settings(1);
    settings.segment_bytes = 16 * 4096;
    settings.in_flight_bytes = 1 << 20;
    let mut node = start(&disk, &settings);
    settle(&mut node, 0);
    let log_bytes = |disk: &SimDisk| {
        let names = quoin_storage::disk::Disk::list(disk).expect("names");
        names.iter().filter(|name| name.starts_with("log-")).count()
    };
    for round in 0..40 {
        let now = round * 6_000 * MS;
        node.send(puts(1, round + 1, round * 200..round * 200 + 200));
        settle(&mut node, now);
    }
    assert!(log_bytes(&disk) <= 8, "{} segments", log_bytes(&disk));
    // Both meta pages are good to go on from: lose the newer one.
    drop(node);
    settings.boot = 2;
    let mut after = start(&disk.crash(), &settings);
    settle(&mut after, 0);
    assert_eq!(after.order.applier().meta().revision, 8001);
}
