//! Random histories of all calls, sent alike to etcd and to quoin by a program over etcd's own
//! client (`tests/conformance/go/alike.go`): equal answers, refusals and events, before and after
//! both have been started again.
//!
//! `QUOIN_ALIKE_CALLS` sets how many calls (default 3000), `QUOIN_ALIKE_SEED` which; `tools/test`
//! draws a seed for long runs.

use crate::clients::{Etcd, Worker, free_address, from_env, program};
use crate::server::Server;

#[test]
fn random_histories_are_alike_on_etcd_and_on_quoin() {
    let what = "the comparison with a running etcd";
    let (Some(client), Some(etcd_program)) = (program("conformance", what), program("etcd", what))
    else {
        return;
    };
    let calls = from_env("QUOIN_ALIKE_CALLS", 3000);
    let seed = from_env("QUOIN_ALIKE_SEED", 20_261_122);
    println!("QUOIN_ALIKE_SEED={seed} QUOIN_ALIKE_CALLS={calls}");
    let parent = tempfile::tempdir().expect("a temporary directory");
    let dir = parent.path().join("quoin");
    let url = format!("http://{}", free_address());
    let start = || Server::start_with(&dir, &["--listen-client-urls", &url]);
    let mut etcd = Etcd::start(&etcd_program);
    let mut server = start();
    let (theirs, ours) = (etcd.address.to_string(), server.address.to_string());
    let mut worker = Worker::start(&client, &[&theirs, "alike", &ours, &seed.to_string()]);
    // A restart after every thousand calls or so, killed and stopped in turn.
    let rounds = (calls / 1000).max(2);
    let mut said = String::new();
    for round in 0..rounds {
        said = worker.order(&format!("run {}", calls.div_ceil(rounds)));
        println!("{said}");
        if round + 1 < rounds {
            match round % 2 {
                0 => server.kill(),
                _ => {
                    server.terminate();
                }
            }
            etcd.restart(&etcd_program);
            server = start();
            worker.order("restarted");
        }
    }
    worker.end();
    let count = |name: &str| crate::clients::number(&said, name);
    assert!(count("calls") >= calls, "{said}");
    assert!(
        count("events") > calls / 10 && count("revision") > calls / 10,
        "{said}"
    );
}
