//! Whole runs against a small server in this process that answers, stalls, hangs or hangs up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::share;
use crate::args::parse;
use crate::options::{FLAGS, Options, Workload};
use crate::report::Outcome;
use crate::run::run;

/// How the server behaves at the n-th request of all.
type Script = fn(u64) -> Act;

enum Act {
    Answer,
    AnswerAfter(Duration),
    Refuse,
    Forget,
    HangUp,
}

/// One SET of a 24-byte key and a 256-byte value.
const REQUEST_BYTES: usize = 4 + 9 + 5 + 26 + 6 + 258;

fn serve(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let count = count.clone();
            std::thread::spawn(move || converse(socket.unwrap(), script, &count));
        }
    });
    address
}

/// Ends with the client's connection, or by hanging up.
fn converse(mut socket: TcpStream, script: Script, count: &AtomicU64) {
    let mut request = [0; REQUEST_BYTES];
    while socket.read_exact(&mut request).is_ok() {
        assert!(request.starts_with(b"*3\r\n$3\r\nSET\r\n$24\r\n") && request.ends_with(b"\r\n"));
        let answer: &[u8] = match script(count.fetch_add(1, Ordering::SeqCst)) {
            Act::Answer => b"+OK\r\n",
            Act::AnswerAfter(time) => {
                std::thread::sleep(time);
                b"+OK\r\n"
            }
            Act::Refuse => b"-OOM command not allowed\r\n",
            Act::Forget => b"",
            Act::HangUp => return,
        };
        if socket.write_all(answer).is_err() {
            return;
        }
    }
}

fn load(server: SocketAddr, flags: &str) -> Result<Outcome, String> {
    let flags = format!("--target redis --endpoints {server} --warmup 0 --quiet {flags}");
    let args: Vec<String> = flags.split_whitespace().map(str::to_string).collect();
    run(&Options::from_args(Workload::Put, &parse(FLAGS, &args)?)?)
}

#[test]
fn a_total_is_answered_exactly() {
    let server = serve(|_| Act::Answer);
    for flags in [
        "--connections 4 --in-flight 8 --total 1000",
        "--connections 5 --in-flight 3 --total 1001 --threads 2",
        "--connections 1 --in-flight 1 --total 1",
        "--connections 2 --in-flight 50 --total 30 --rate 5000",
    ] {
        let outcome = load(server, flags).unwrap();
        let total: u64 = flags.split(' ').nth(5).unwrap().parse().unwrap();
        assert_eq!(
            (outcome.requests, outcome.good, outcome.failed()),
            (total, total, 0)
        );
    }
}

#[test]
fn a_stall_counts_for_every_request_that_was_due() {
    // 500 requests a second, one at a time; the hundredth takes 200 ms. Of the 300 requests
    // about 100 were due meanwhile; a tool that counts from the actual sending sees one.
    let stall: Script = |request| match request {
        100 => Act::AnswerAfter(Duration::from_millis(200)),
        _ => Act::Answer,
    };
    let flags = "--connections 1 --in-flight 1 --rate 500 --total 300";
    let outcome = load(serve(stall), flags).unwrap();
    let p90 = outcome.percentile(90.0) / 1_000_000;
    assert!((100..=400).contains(&p90), "p90 {p90} ms");
    assert_eq!(outcome.failed(), 0);
}

#[test]
fn what_was_due_and_never_sent_is_not_forgotten() {
    let slow: Script = |_| Act::AnswerAfter(Duration::from_millis(50));
    let flags = "--connections 1 --in-flight 1 --rate 1000 --duration 500ms";
    let outcome = load(serve(slow), flags).unwrap();
    assert!((470..500).contains(&outcome.unsent), "{}", outcome.unsent);
    assert_eq!(outcome.requests, 500);
    assert!(outcome.percentile(50.0) > 150_000_000);
}

#[test]
fn failures_are_named_and_counted() {
    let refuse: Script = |request| match request % 10 {
        0 => Act::Refuse,
        _ => Act::Answer,
    };
    let outcome = load(serve(refuse), "--connections 2 --in-flight 5 --total 100").unwrap();
    assert_eq!(outcome.errors, [("Redis: OOM".to_string(), 10)]);
    assert_eq!(outcome.requests, 90);
}

#[test]
fn a_lost_connection_fails_what_was_in_flight_and_ends_the_run() {
    let flags = "--connections 1 --in-flight 8 --total 100";
    let outcome = load(
        serve(|request| match request {
            0..20 => Act::Answer,
            _ => Act::HangUp,
        }),
        flags,
    );
    let outcome = outcome.unwrap();
    assert!((1..=8).contains(&outcome.failed()), "{:?}", outcome.errors);
    assert!(
        outcome.errors[0].0.starts_with("connection lost"),
        "{:?}",
        outcome.errors
    );
}

#[test]
fn a_silent_server_times_out() {
    let flags = "--connections 2 --in-flight 2 --total 100 --timeout 300ms";
    let outcome = load(serve(|_| Act::Forget), flags).unwrap();
    assert_eq!(outcome.errors, [("timed out".to_string(), 4)]);
}

#[test]
fn nobody_there_is_an_error_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = load(free, "--total 1").unwrap_err();
    assert!(
        error.contains(&format!("cannot reach Redis at {free}")),
        "{error}"
    );
}

#[test]
fn a_server_of_another_kind_is_an_error() {
    let server = serve(|_| Act::Answer);
    let flags = format!("--endpoints {server} --total 1 --quiet --timeout 300ms");
    let args: Vec<String> = flags.split_whitespace().map(str::to_string).collect();
    let options = Options::from_args(Workload::Put, &parse(FLAGS, &args).unwrap()).unwrap();
    // It waits for the rest of a request, and we for a greeting: the limit ends it.
    let error = run(&options).err().unwrap();
    assert!(error.contains(&format!("quoin at {server}")), "{error}");
}

#[test]
fn shares_add_up() {
    for total in [0, 1, 7, 100] {
        for workers in 1..9 {
            let sum: u64 = (0..workers)
                .map(|worker| share(total, worker, workers))
                .sum();
            assert_eq!(sum, total);
        }
    }
}
