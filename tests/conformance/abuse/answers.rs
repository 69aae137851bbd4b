//! Answers that nobody takes: of writes as of reads, they take memory, and others want some, too.

use super::frames::*;
use super::{attack_within, open};
use crate::raw::{self, PUT, connect, field, framed, number, put};
use crate::server::Server;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

const TXN: &str = "/etcdserverpb.KV/Txn";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";

/// Keys that an interval has together, of 1 MB each.
const KEYS: u8 = 12;
/// Each of those who ask for them has a turn in which others wait, and there are many at once.
const SLOWEST: Duration = Duration::from_secs(5);

fn fill(server: &Server) {
    raw::run(async {
        let (client, _) = connect(server.address, &h2::client::Builder::new()).await;
        for key in 0..KEYS {
            let value = vec![b'v'; 1_000_000];
            let answer = raw::call(&client, PUT, put(&[b'l', key], &value)).await;
            assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
        }
    });
}

/// A transaction that puts a key and reads the large ones.
fn put_and_read() -> Vec<u8> {
    let put = field(2, &field(2, &[field(1, b"small"), field(2, b"v")].concat()));
    let range = field(2, &field(1, &[field(1, b"l"), field(2, b"m")].concat()));
    framed(&[put, range].concat())
}

/// Puts and deletes that ask for what was there go on meanwhile.
fn small_answers_are_given(server: &Server, until: Instant) {
    raw::run(async {
        let (client, _) = connect(server.address, &h2::client::Builder::new()).await;
        let put = [field(1, b"other"), field(2, b"v"), number(4, 1)].concat();
        let delete = [field(1, b"other"), number(3, 1)].concat();
        while Instant::now() < until {
            for (path, message) in [(PUT, &put), (DELETE, &delete)] {
                let answer = raw::call(&client, path, framed(message)).await;
                assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
            }
        }
    });
}

/// Sends a call on each of so many connections, and takes nothing for so long.
fn take_nothing(server: &Server, connections: usize, call: &[u8]) {
    let began = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = open(server.address);
        let bytes = [greeting(&[]), call.to_vec()].concat();
        stream.write_all(&bytes).expect("it is read");
        streams.push(stream);
        thread::sleep(Duration::from_millis(10));
    }
    small_answers_are_given(server, began + Duration::from_millis(2_500));
}

#[test]
fn answers_of_writes_that_are_never_taken() {
    // A gigabyte is asked for.
    attack_within(SLOWEST, 640, |server| {
        fill(server);
        take_nothing(server, 84, &call(1, TXN, &put_and_read()));
    });
}

#[test]
fn answers_of_reads_that_are_never_taken() {
    attack_within(SLOWEST, 640, |server| {
        fill(server);
        let range = field(2, &field(1, &[field(1, b"l"), field(2, b"m")].concat()));
        // Only a transaction's ranges are answered whole.
        take_nothing(server, 84, &call(1, TXN, &framed(&range)));
    });
}
