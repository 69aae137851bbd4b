//! What the order actor costs, apart from disks and sockets. Run by hand, in release:
//! `cargo test --release --test sim cost -- --ignored --nocapture`.

use super::node::Node;
use super::rules::settings;
use bytes::Bytes;
use quoin::api::{PutRequest, Request};
use quoin::consensus::confchange::voters;
use quoin::consensus::{Core, CoreConfig, Handled, Start};
use quoin::node::messages::{FrontId, FrontInput, OrderInput, OrderOutput, ProposalBatch};
use quoin::propose::command::{BatchBuilder, Built, CommandKind};
use quoin::propose::waiters::Waiters;
use quoin::wire;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::log::HardState;
use std::time::Instant;

fn body(key: u64) -> Vec<u8> {
    let key = format!("key-{key:020}");
    let put = PutRequest {
        key: key.as_bytes(),
        value: &[7; 256],
        ..PutRequest::default()
    };
    let mut body = Vec::new();
    wire::encode_body(&Request::Put(put), &mut body).expect("a small request");
    body
}

fn ns_each(begun: Instant, count: u64) -> f64 {
    begun.elapsed().as_nanos() as f64 / count as f64
}

fn encode(batches: u64, commands: u64) -> (Vec<Built>, f64) {
    let bodies: Vec<_> = (0..1000).map(|n| body(n * 7919 % 100_000)).collect();
    let mut builder = BatchBuilder::new(1, 1, 0, 4 << 20, 4096);
    let mut waiters = Waiters::new(1 << 20, 0);
    let mut built = Vec::new();
    let begun = Instant::now();
    for batch in 0..batches {
        for n in 0..commands {
            let body = &bodies[((batch * commands + n) % 1000) as usize];
            let waiter = waiters.insert(5_000_000_000, n).expect("room");
            builder
                .push(waiter.0, CommandKind::Put, body)
                .expect("room");
        }
        built.push(builder.take().expect("commands"));
        waiters.drain(|_, _| {});
    }
    (built, ns_each(begun, batches * commands))
}

fn raft(built: &[Built], commands: u64) -> f64 {
    let mut handled = Handled::default();
    let start = Start {
        hard_state: HardState::default(),
        base_index: 0,
        base_term: 0,
        entries: Vec::new(),
        applied_index: 0,
        applied_term: 0,
        conf_state: voters(&[1]),
        founding: true,
    };
    let mut core = Core::new(CoreConfig::new(7, 1), start, 1, &mut handled).expect("starts");
    let mut turn = |batch: Option<Bytes>| {
        core.propose(batch.into_iter()).expect("leads");
        core.handle(&mut handled);
        let written = handled.appends.pop();
        handled.appends.clear();
        if let Some(last) = written {
            core.persisted(last.number, &mut handled);
        }
        core.handle(&mut handled);
        let applied = handled.committed.pop_back();
        handled.committed.clear();
        if let Some(last) = applied {
            core.applied(last.index);
        }
    };
    for _ in 0..4 {
        turn(None);
    }
    let begun = Instant::now();
    for built in built {
        turn(Some(built.bytes.clone()));
    }
    ns_each(begun, built.len() as u64 * commands)
}

fn whole(built: &[Built], commands: u64) -> f64 {
    let disk = SimDisk::new(1);
    let mut settings = settings(1);
    settings.in_flight_bytes = 64 << 20;
    settings.per_turn = 4096;
    let mut node = Node::start(&disk, &settings, 1, 0).expect("starts");
    let mut out = Vec::new();
    let mut answered = 0;
    let mut turn = |input: Option<OrderInput>, now_ns: u64| {
        let order = &mut node.order;
        let mut inputs: Vec<OrderInput> = input.into_iter().collect();
        loop {
            for input in inputs.drain(..) {
                order.step(now_ns, input, &mut out);
            }
            order.turn(now_ns, &mut out);
            for output in out.drain(..) {
                match output {
                    OrderOutput::Append(append) => {
                        inputs.push(OrderInput::Appended {
                            number: append.number,
                        });
                    }
                    OrderOutput::Front(_, FrontInput::Replies(replies)) => {
                        answered += replies.list.len() as u64;
                    }
                    _ => {}
                }
            }
            if inputs.is_empty() {
                break;
            }
        }
    };
    turn(None, 0);
    let begun = Instant::now();
    for built in built {
        let batch = ProposalBatch {
            front: FrontId(0),
            sequence: built.sequence,
            count: built.count,
            bytes: built.bytes.clone(),
        };
        turn(Some(OrderInput::Propose(batch)), 0);
    }
    let each = ns_each(begun, built.len() as u64 * commands);
    assert_eq!(answered, built.len() as u64 * commands);
    each
}

#[test]
#[ignore = "a measurement, not a check"]
fn cost() {
    for commands in [1, 8, 32, 64, 256] {
        let batches = 30_000 / commands;
        let (built, front) = encode(batches, commands);
        let raft = raft(&built, commands);
        let whole = whole(&built, commands);
        println!(
            "{commands:4} commands a batch: front (waiter, encoding) {front:5.0} ns, raft \
             {raft:5.0} ns, order with apply {whole:6.0} ns per put"
        );
    }
}
