//! Requests of HTTP/1.1 without end, and more of them than anybody answers.

use super::{Flooded, attack, flood, open, read_all};
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

fn status(answer: &[u8]) -> Option<&str> {
    let line = answer.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(line.first_chunk::<3>()?).ok()
}

#[test]
fn heads_without_end() {
    for (name, begin, piece) in [
        ("a path", &b"GET /"[..], &b"aaaaaaaaaaaaaaaa"[..]),
        ("a header", b"GET / HTTP/1.1\r\nx: ", b"aaaaaaaaaaaaaaaa"),
        ("headers", b"GET / HTTP/1.1\r\n", b"x: aaaaaaaaaaaa\r\n"),
        ("empty lines", b"", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"),
    ] {
        println!("{name}");
        attack(24, |server| {
            let mut stream = open(server.address);
            // The first bytes say which protocol it is.
            let begin = if begin.is_empty() {
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            } else {
                begin
            };
            stream.write_all(begin).expect("it is read");
            let pieces = piece.repeat(4_096);
            let ended = flood(stream, true, || pieces.clone());
            if name != "empty lines" {
                assert_eq!(ended, Flooded::Closed, "{name}");
            }
        });
    }
}

#[test]
fn a_head_too_long_is_refused_in_words() {
    attack(24, |server| {
        let mut stream = open(server.address);
        let head = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(100_000));
        let _ = stream.write_all(head.as_bytes());
        assert_eq!(status(&read_all(&mut stream)), Some("431"));
    });
}

#[test]
fn bodies_without_end() {
    let chunk = [&b"1000\r\n"[..], &[b' '; 4096], b"\r\n"].concat();
    let commented = b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n \r\n".to_vec();
    for (name, path, head, piece) in [
        ("chunks", "/v3/kv/put", "Transfer-Encoding: chunked", &chunk),
        (
            "chunks with comments",
            "/v3/kv/put",
            "Transfer-Encoding: chunked",
            &commented,
        ),
        (
            "a length",
            "/v3/kv/put",
            "Content-Length: 1099511627776",
            &chunk,
        ),
        (
            "a stream of spaces",
            "/v3/watch",
            "Transfer-Encoding: chunked",
            &chunk,
        ),
        (
            "a body where none is due",
            "/health",
            "Content-Length: 1099511627776",
            &chunk,
        ),
    ] {
        println!("{name}");
        attack(40, |server| {
            let mut stream = open(server.address);
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("it is read");
            let pieces = piece.repeat(16);
            flood(stream, true, || pieces.clone());
        });
    }
}

#[test]
fn requests_that_are_sent_and_never_heard() {
    let put = r#"{"key":"Zm9v","value":"YmFy"}"#;
    let put = format!(
        "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{put}",
        put.len()
    );
    for one in ["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", &put] {
        for reads in [true, false] {
            attack(24, |server| {
                let pieces = one.repeat(1_000).into_bytes();
                flood(open(server.address), reads, || pieces.clone());
            });
        }
    }
}

#[test]
fn many_heads_of_which_only_a_part_comes() {
    attack(140, |server| {
        let mut streams = Vec::new();
        for _ in 0..2_000 {
            let mut stream = open(server.address);
            let part = format!("POST /v3/kv/put HTTP/1.1\r\nx: {}", "a".repeat(15_000));
            stream.write_all(part.as_bytes()).expect("it is read");
            streams.push(stream);
        }
        thread::sleep(Duration::from_millis(300));
    });
}

#[test]
fn streams_of_the_gateway_that_are_not_read() {
    attack(48, |server| {
        let mut stream = open(server.address);
        let head = "POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("it is read");
        // Each message is answered, and nobody takes the answers.
        let create = r#"{"create_request":{"key":"YQ=="}}"#;
        let chunk = format!("{:x}\r\n{create}\r\n", create.len()).repeat(1_000);
        flood(stream, false, || chunk.clone().into_bytes());
        let mut other = open(server.address);
        let health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        other.write_all(health).expect("it is read");
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("it is answered");
        assert!(answer.contains(r#""health":"true""#), "{answer}");
    });
}
