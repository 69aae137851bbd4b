//! Kill -9 under load before the eyes of the Rust client of etcd: a journal of what it was
//! acknowledged, held against keys, history and watches after each kill.
//!
//! `QUOIN_CRASH_ROUNDS` sets how often the server is killed (default 24), `QUOIN_CRASH_SEED` when.

use crate::clients::{free_address, from_env};
use crate::server::Server;
use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp, WatchOptions};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

const LANES: usize = 12;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a lane knows of its key: it writes one number after the other, one call at a time.
#[derive(Debug, Default, Clone)]
struct Lane {
    /// The number that was acknowledged last, and its revision.
    acknowledged: (u64, i64),
    /// The number that was sent last; whether it was written is known after the next start.
    sent: u64,
}

/// A revision, as it was acknowledged: the lane and the number.
type Journal = BTreeMap<i64, (usize, u64)>;

fn key(lane: usize) -> String {
    format!("crate/{lane:02}")
}

async fn client(address: SocketAddr) -> Client {
    let connect = Client::connect([address.to_string()], None);
    let connected = tokio::time::timeout(PATIENCE, connect).await;
    connected.expect("it answers in time").expect("it serves")
}

/// Writes until the server is gone; what was acknowledged meanwhile.
async fn write(address: SocketAddr, number: usize, mut lane: Lane) -> (usize, Lane, Journal) {
    let mut journal = Journal::new();
    let mut client = client(address).await;
    loop {
        let next = lane.sent + 1;
        lane.sent = next;
        let written = if next.is_multiple_of(3) {
            // Only if it still holds what this lane wrote last.
            let held = Compare::mod_revision(key(number), CompareOp::Equal, lane.acknowledged.1);
            let put = TxnOp::put(key(number), next.to_string(), None);
            let txn = client.txn(Txn::new().when([held]).and_then([put])).await;
            txn.map(|done| {
                assert!(done.succeeded(), "lane {number} was overtaken: {lane:?}");
                done.header().map(|header| header.revision())
            })
        } else {
            let put = client.put(key(number), next.to_string(), None).await;
            put.map(|done| done.header().map(|header| header.revision()))
        };
        let Ok(revision) = written else {
            return (number, lane, journal);
        };
        let revision = revision.expect("a header");
        assert!(
            revision > lane.acknowledged.1,
            "the revision fell: {lane:?}"
        );
        lane.acknowledged = (next, revision);
        journal.insert(revision, (number, next));
    }
}

/// Holds what the server shows against the journal, and settles what was not acknowledged.
async fn check(address: SocketAddr, lanes: &mut [Lane], journal: &mut Journal, newest: &mut i64) {
    let mut client = client(address).await;
    let all = GetOptions::new().with_prefix();
    let shown = client.get("crate/", Some(all)).await.expect("it answers");
    let revision = shown.header().expect("a header").revision();
    let last = journal.keys().next_back().copied().unwrap_or_default();
    assert!(
        revision >= last,
        "revision {revision} after {last} was acknowledged"
    );
    assert!(
        revision >= *newest,
        "the revision fell from {newest} to {revision}"
    );
    *newest = revision;
    for (number, lane) in lanes.iter_mut().enumerate() {
        let pair = shown
            .kvs()
            .iter()
            .find(|kv| kv.key() == key(number).as_bytes());
        let Some(pair) = pair else {
            assert_eq!(lane.acknowledged.0, 0, "lane {number} lost {lane:?}");
            continue;
        };
        let value: u64 = pair.value_str().expect("text").parse().expect("a number");
        let (acknowledged, at) = lane.acknowledged;
        assert!(
            value == acknowledged && pair.mod_revision() == at
                || value == lane.sent && pair.mod_revision() > at,
            "lane {number} holds {value} of {}, its journal says {lane:?}",
            pair.mod_revision(),
        );
        lane.acknowledged = (value, pair.mod_revision());
        lane.sent = value;
        journal.insert(pair.mod_revision(), (number, value));
    }
    // Each acknowledged write is in the history, once, and nothing else is.
    let watch = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut stream = client.watch("crate/", Some(watch)).await.expect("a watch");
    let mut told = Journal::new();
    while told.keys().next_back().copied().unwrap_or_default() < revision && !journal.is_empty() {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await;
        let message = message.expect("it is told in time").expect("it goes on");
        for event in message.expect("it goes on").events() {
            let pair = event.kv().expect("a pair");
            let number: usize = pair.key_str().expect("text")[6..].parse().expect("a lane");
            let value = pair.value_str().expect("text").parse().expect("a number");
            let before = told.last_key_value().map(|(revision, _)| *revision);
            assert!(
                before < Some(pair.mod_revision()),
                "told {pair:?} behind {before:?}"
            );
            told.insert(pair.mod_revision(), (number, value));
        }
    }
    assert_eq!(&told, journal, "the history is not what was acknowledged");
}

#[test]
fn what_the_rust_client_was_acknowledged_survives_every_kill() {
    let rounds = from_env("QUOIN_CRASH_ROUNDS", 24);
    let seed = from_env("QUOIN_CRASH_SEED", 20_261_122);
    println!("QUOIN_CRASH_SEED={seed} QUOIN_CRASH_ROUNDS={rounds}");
    let parent = tempfile::tempdir().expect("a temporary directory");
    let dir = parent.path().join("node");
    let address = free_address();
    let url = format!("http://{address}");
    let start = || Server::start_with(&dir, &["--listen-client-urls", url.as_str()]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut lanes = vec![Lane::default(); LANES];
    let mut journal = Journal::new();
    let mut newest = 0;
    let mut chance = seed | 1;
    let mut server = start();
    for _ in 0..rounds {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let pause = Duration::from_millis(20 + chance % 400);
        runtime.block_on(async {
            let mut writers = JoinSet::new();
            for (number, lane) in lanes.iter().cloned().enumerate() {
                writers.spawn(write(address, number, lane));
            }
            tokio::time::sleep(pause).await;
            server.kill();
            while let Some(written) = writers.join_next().await {
                let (number, lane, acknowledged) = written.expect("no writer fails");
                lanes[number] = lane;
                journal.extend(acknowledged);
            }
        });
        server = start();
        runtime.block_on(check(address, &mut lanes, &mut journal, &mut newest));
    }
    println!("{} writes were acknowledged", journal.len());
    assert!(journal.len() as u64 > rounds * 10, "the test tests nothing");
}
