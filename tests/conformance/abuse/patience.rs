//! What is begun and not finished is waited for so long and no longer; what is idle may stay.

use super::frames::*;
use super::open;
use crate::raw::{PUT, RANGE, get};
use crate::start;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Whether the server closes it within that time.
fn ends(stream: &mut TcpStream, by: Instant) -> bool {
    let mut scratch = [0; 4096];
    loop {
        let left = by.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).expect("a socket");
        match stream.read(&mut scratch) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn half_of_something_is_given_half_a_minute() {
    let (server, _dir) = start();
    let unfinished: Vec<(&str, Vec<u8>)> = vec![
        ("half a preface", PREFACE[..20].to_vec()),
        ("half a frame's head", [greeting(&[]), vec![0, 0]].concat()),
        (
            "half a frame",
            [greeting(&[]), frame(PING, 0, 0, b"pingping")[..12].to_vec()].concat(),
        ),
        (
            "half of a call's headers",
            [greeting(&[]), frame(HEADERS, 0, 1, &call_headers(RANGE))].concat(),
        ),
        (
            "a part of a frame of headers",
            [
                greeting(&[]),
                frame(HEADERS, END_HEADERS, 1, &call_headers(RANGE))[..30].to_vec(),
            ]
            .concat(),
        ),
        (
            "a call without its message",
            [
                greeting(&[]),
                frame(HEADERS, END_HEADERS, 1, &call_headers(PUT)),
            ]
            .concat(),
        ),
        (
            "half a message",
            [
                greeting(&[]),
                frame(HEADERS, END_HEADERS, 1, &call_headers(PUT)),
                frame(DATA, 0, 1, &[0, 0, 0, 1, 0, 10]),
            ]
            .concat(),
        ),
        (
            "half a head of HTTP/1.1",
            b"GET /health HTTP/1.1\r\nHo".to_vec(),
        ),
        (
            "half a head behind a request",
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        (
            "half a body",
            b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{".to_vec(),
        ),
        (
            "half a message of a stream",
            b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{\"crea".to_vec(),
        ),
    ];
    let mut streams = Vec::new();
    for (name, bytes) in unfinished {
        let mut stream = open(server.address);
        stream.write_all(&bytes).expect("it is read");
        if name == "half a head behind a request" {
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).expect("it is answered");
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"GET /li").expect("it is read");
        }
        streams.push((name, stream));
    }
    // These have finished what they began.
    let mut idle_two = open(server.address);
    let mut begin = greeting(&[]);
    begin.extend(call(1, RANGE, &get(b"k")));
    idle_two.write_all(&begin).expect("it is read");
    let mut idle_one = open(server.address);
    let health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    idle_one.write_all(health).expect("it is read");

    let begun = Instant::now();
    for (name, stream) in &mut streams {
        let ended = ends(stream, begun + Duration::from_secs(36));
        assert!(ended, "{name} is waited for without end");
    }
    assert!(!ends(&mut idle_two, Instant::now()), "HTTP/2 may be idle");
    assert!(!ends(&mut idle_one, Instant::now()), "HTTP/1.1 may be idle");
    idle_one.write_all(health).expect("it is read");
    let mut answer = [0; 12];
    let limit = Some(Duration::from_secs(10));
    idle_one.set_read_timeout(limit).expect("a socket");
    idle_one.read_exact(&mut answer).expect("it is answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
}
