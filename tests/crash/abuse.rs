//! Clients that do not behave: each is refused in a way that it understands, no other client
//! notices, and memory stays bounded.

use crate::link::{Answer, Link};
use crate::server::Server;
use quoin::api::{Error, PutRequest, RangeRequest, Request};
use quoin::client::raw::{Connection, Options};
use quoin::wire;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tempfile::TempDir;

fn start() -> (TempDir, Server) {
    let parent = tempfile::tempdir().expect("a folder");
    let server = Server::start(&parent.path().join("node"));
    (parent, server)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("it serves");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    stream
}

/// Reads until the server closes.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    bytes
}

/// The bytes that a client would send for one put.
fn put_bytes(value: &[u8]) -> Vec<u8> {
    let mut connection = Connection::new(Options::default());
    let put = PutRequest {
        key: b"abuse",
        value,
        ..PutRequest::default()
    };
    connection
        .request(&Request::Put(put), 1)
        .expect("it can be encoded");
    connection.to_send().to_vec()
}

fn assert_serves(server: &Server) {
    let mut link = Link::open(server.address).expect("it serves");
    link.put(b"well-behaved", b"x").expect("it is served");
}

#[test]
fn other_protocols_are_told_that_they_are_not_served() {
    let (_parent, server) = start();
    let mut http = connect(&server);
    http.write_all(b"GET /v2/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it is read");
    let answer = read_all(&mut http);
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{answer:?}");
    let mut tls = connect(&server);
    tls.write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 1, 0, 0, 1, 0])
        .expect("it is read");
    let answer = read_all(&mut tls);
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    assert_serves(&server);
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let (_parent, server) = start();
    let mut honest = Link::open(server.address).expect("it serves");
    honest.put(b"before", b"x").expect("it is served");
    let good = put_bytes(b"value");
    let preamble = wire::CLIENT_PREAMBLE_BYTES;
    // Every byte of a good exchange wrong once, and noise.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let mut stream = connect(&server);
        stream.write_all(&bad).expect("it is read");
        // A length that became longer leaves the server waiting for the rest.
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let answer = read_all(&mut stream);
        let accepted = answer.len() > wire::SERVER_PREAMBLE_BYTES;
        let put = answer.get(wire::SERVER_PREAMBLE_BYTES + 8);
        assert!(
            at < preamble || !accepted || put == Some(&wire::Kind::ErrorReply.number()),
            "byte {at} was wrong and the put was served: {answer:?}"
        );
    }
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut stream = connect(&server);
    let _ = stream.write_all(&noise);
    read_all(&mut stream);
    honest.put(b"after", b"x").expect("it is served");
}

#[test]
fn truncated_frames_and_vanished_clients_leave_nothing_behind() {
    let (_parent, server) = start();
    let good = put_bytes(&[b'v'; 300]);
    for cut in 0..good.len() {
        let mut stream = connect(&server);
        stream.write_all(&good[..cut]).expect("it is read");
    }
    assert_serves(&server);
}

#[test]
fn requests_over_the_limits_are_refused_by_their_number() {
    let (_parent, server) = start();
    let mut link = Link::open(server.address).expect("it serves");
    let value = vec![b'v'; 1_600_000];
    let put = |key, value| {
        Request::Put(PutRequest {
            key,
            value,
            ..PutRequest::default()
        })
    };
    link.request(&put(b"big", &value), 7);
    let (id, _, answer) = link.answer().expect("it is answered");
    assert_eq!(
        (id, answer),
        (7, Answer::Refused(Some(Error::RequestTooLarge)))
    );
    link.request(&put(b"", b"x"), 8);
    let (id, _, answer) = link.answer().expect("it is answered");
    assert_eq!((id, answer), (8, Answer::Refused(Some(Error::EmptyKey))));
    // Still the same connection, and a request just below the limit.
    link.put(b"large", &value[..1_500_000])
        .expect("it is served");
    // A frame that nobody may send: told, then closed.
    let mut stream = connect(&server);
    let mut bytes = put_bytes(b"v");
    let length = wire::CLIENT_PREAMBLE_BYTES + 4;
    bytes[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    stream.write_all(&bytes).expect("it is read");
    let answer = read_all(&mut stream);
    assert!(
        String::from_utf8_lossy(&answer).contains("the limit is"),
        "{answer:?}"
    );
    assert_serves(&server);
}

#[test]
fn a_client_that_does_not_read_is_paused_and_others_are_served() {
    let (_parent, server) = start();
    let mut link = Link::open(server.address).expect("it serves");
    let value = vec![b'v'; 1_000_000];
    link.put(b"large", &value).expect("it is served");
    let before = server.resident_kib();
    let mut greedy = Connection::new(Options::default());
    for id in 1..=5_000 {
        let get = RangeRequest {
            key: b"large",
            ..RangeRequest::default()
        };
        greedy
            .request(&Request::Range(get), id)
            .expect("it can be encoded");
    }
    // 5 GB of answers are asked for, and none is read.
    let mut stream = connect(&server);
    stream.write_all(greedy.to_send()).expect("it is read");
    for _ in 0..50 {
        link.put(b"other", b"x").expect("it is served");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
    // Once it reads, it gets its answers.
    let mut first = vec![0; 3_000_000];
    stream.read_exact(&mut first).expect("it is answered");
}

#[test]
fn slow_clients_are_served_when_they_are_ready() {
    let (_parent, server) = start();
    let mut stream = connect(&server);
    for byte in put_bytes(b"slowly") {
        stream.write_all(&[byte]).expect("it is read");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut answer = vec![0; wire::SERVER_PREAMBLE_BYTES + wire::FRAME_HEADER_BYTES];
    stream.read_exact(&mut answer).expect("it is answered");
    let kind = answer[wire::SERVER_PREAMBLE_BYTES + 8];
    assert_eq!(kind, wire::Kind::PutReply.number());
}

#[test]
fn thousands_of_idle_connections_cost_little() {
    const IDLE: usize = 3_000;
    let (_parent, server) = start();
    assert_serves(&server);
    let before = server.resident_kib();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut stream = connect(&server);
        stream
            .write_all(&wire::client_preamble())
            .expect("it is read");
        idle.push(stream);
    }
    for stream in &mut idle {
        let mut hello = [0; wire::SERVER_PREAMBLE_BYTES];
        stream.read_exact(&mut hello).expect("it is greeted");
    }
    let per_connection = server.resident_kib().saturating_sub(before) * 1024 / IDLE as u64;
    println!("{per_connection} bytes per idle connection");
    assert!(per_connection < 8 * 1024, "{per_connection} bytes each");
    assert_serves(&server);
    // They are served as well.
    for at in [0, IDLE - 1] {
        let stream = &mut idle[at];
        let good = put_bytes(b"idle");
        stream
            .write_all(&good[wire::CLIENT_PREAMBLE_BYTES..])
            .expect("it is read");
        let mut header = [0; wire::FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).expect("it is answered");
        assert_eq!(header[8], wire::Kind::PutReply.number());
    }
}
