//! Kill -9 under load through gRPC, again and again, before the eyes of etcd's own client: a
//! program over it writes, watches and keeps the journal (`tests/conformance/go/survive.go`).
//!
//! `QUOIN_CRASH_ROUNDS` sets how often the server is killed (default 24), `QUOIN_CRASH_SEED` what
//! is written and when it is killed.

use crate::clients::{Worker, free_address, from_env, number, program};
use crate::server::Server;
use std::thread;
use std::time::Duration;

#[test]
fn what_etcds_client_was_acknowledged_survives_every_kill() {
    let Some(client) = program("conformance", "kill -9 before etcd's own client") else {
        return;
    };
    let rounds = from_env("QUOIN_CRASH_ROUNDS", 24);
    let seed = from_env("QUOIN_CRASH_SEED", 20_261_122);
    println!("QUOIN_CRASH_SEED={seed} QUOIN_CRASH_ROUNDS={rounds}");
    let parent = tempfile::tempdir().expect("a temporary directory");
    let dir = parent.path().join("node");
    // The client knows one address, before the first server and after the last.
    let address = free_address();
    let url = format!("http://{address}");
    let start = |round: u64| {
        let mut flags = vec!["--listen-client-urls", url.as_str()];
        // Checkpoints come often in half of the rounds, so that kills meet them; a third has its
        // actors on executors of their own.
        if round.is_multiple_of(2) {
            flags.extend(["--snapshot-count", "100"]);
        }
        if round.is_multiple_of(3) {
            flags.extend(["--fronts", "2"]);
        }
        Server::start_with(&dir, &flags)
    };
    let mut server = start(0);
    let mut journal = Worker::start(
        &client,
        &[&address.to_string(), "survive", &seed.to_string()],
    );
    let mut said = String::new();
    let mut chance = seed | 1;
    for round in 1..=rounds {
        journal.order("load");
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        thread::sleep(Duration::from_millis(20 + chance % 500));
        // Now and then it is asked to stop, and may answer what it has taken.
        if round.is_multiple_of(5) {
            let (status, said) = server.terminate();
            assert!(status.success(), "{status}: {said:?}");
        } else {
            server.kill();
        }
        server = start(round);
        said = journal.order("check");
    }
    journal.end();
    println!("after {rounds} kills: {said}");
    let acknowledged = number(&said, "acknowledged");
    assert!(acknowledged > rounds * 30, "the test tests nothing: {said}");
    assert!(number(&said, "events") > acknowledged, "{said}");
    assert!(number(&said, "leases") > rounds, "{said}");
}
