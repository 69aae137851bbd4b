//! Floods and half-open streams of HTTP/2.

use super::frames::*;
use super::{Flooded, attack, flood, open, read_all};
use crate::raw::{self, PUT, RANGE, WATCH, get, put};
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

/// Many copies of something small, so that the attacker is not what is slow.
fn many(one: &[u8]) -> Vec<u8> {
    one.repeat((64 << 10) / one.len())
}

#[test]
fn streams_that_are_reset_at_once() {
    attack(48, |server| {
        let stream = {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            stream
        };
        let mut id = 1;
        let ended = flood(stream, true, || {
            let mut bytes = Vec::new();
            for _ in 0..500 {
                let headers = call_headers(RANGE);
                bytes.extend(frame(HEADERS, END_HEADERS, id, &headers));
                bytes.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
                id += 2;
            }
            bytes
        });
        assert_eq!(ended, Flooded::Closed, "after {} streams", id / 2);
    });
}

#[test]
fn whole_calls_that_are_reset_at_once() {
    attack(48, |server| {
        let mut stream = open(server.address);
        stream.write_all(&greeting(&[])).expect("it is read");
        let mut id = 1;
        flood(stream, true, || {
            let mut bytes = Vec::new();
            for _ in 0..200 {
                bytes.extend(call(id, PUT, &put(b"reset", &[b'v'; 500])));
                bytes.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
                id += 2;
            }
            bytes
        });
    });
}

#[test]
fn streams_that_the_server_is_made_to_reset() {
    attack(48, |server| {
        let mut stream = open(server.address);
        stream.write_all(&greeting(&[])).expect("it is read");
        let mut id = 1;
        let ended = flood(stream, true, || {
            let mut bytes = Vec::new();
            for _ in 0..500 {
                let headers = call_headers(WATCH);
                bytes.extend(frame(HEADERS, END_HEADERS, id, &headers));
                bytes.extend(frame(WINDOW_UPDATE, 0, id, &[0; 4]));
                id += 2;
            }
            bytes
        });
        assert_eq!(ended, Flooded::Closed, "after {} streams", id / 2);
    });
}

#[test]
fn pings_without_end() {
    for reads in [true, false] {
        attack(24, |server| {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            let pings = many(&frame(PING, 0, 0, b"pingping"));
            flood(stream, reads, || pings.clone());
        });
    }
}

#[test]
fn settings_without_end_on_a_connection_with_many_streams() {
    for reads in [true, false] {
        attack(48, |server| {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            for id in 0..4_000 {
                let headers = frame(HEADERS, END_HEADERS, 2 * id + 1, &call_headers(WATCH));
                stream.write_all(&headers).expect("it is read");
            }
            // Each changes the window of every stream.
            let mut wide = false;
            flood(stream, reads, || {
                let mut bytes = Vec::new();
                for _ in 0..1_000 {
                    wide = !wide;
                    let window = if wide { 100_000_u32 } else { 10_000 };
                    let payload = [&[0, 4][..], &window.to_be_bytes()].concat();
                    bytes.extend(frame(SETTINGS, 0, 0, &payload));
                }
                bytes
            });
        });
    }
}

#[test]
fn headers_that_never_end() {
    for (piece, size) in [("empty", 0), ("small", 1), ("large", 16_000)] {
        attack(24, |server| {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            let begin = frame(HEADERS, 0, 1, &call_headers(RANGE));
            stream.write_all(&begin).expect("it is read");
            let text = vec![b'a'; size];
            let payload = match size {
                0 => Vec::new(),
                _ => header(b"x", &text[..size.min(15_900)]),
            };
            let pieces = many(&frame(CONTINUATION, 0, 1, &payload));
            let ended = flood(stream, true, || pieces.clone());
            assert_eq!(ended, Flooded::Closed, "{piece} pieces");
        });
    }
}

#[test]
fn headers_that_unpack_to_much_more() {
    attack(24, |server| {
        let mut stream = open(server.address);
        stream.write_all(&greeting(&[])).expect("it is read");
        let keep = [call_headers(RANGE), kept_header(b"bomb", &[b'x'; 3_900])].concat();
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &keep);
        // 62 is the first that the table keeps: 60 MB in 16 KB.
        let mut id = 3;
        for _ in 0..50 {
            let headers = [call_headers(RANGE), vec![0x80 | 62; 15_000]].concat();
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &headers));
            id += 2;
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_all(&mut stream);
    });
}

#[test]
fn headers_too_long_are_refused_and_the_connection_lives() {
    attack(24, |server| {
        let mut stream = open(server.address);
        stream.write_all(&greeting(&[])).expect("it is read");
        let long = [call_headers(RANGE), header(b"x", &[b'a'; 15_900])].concat();
        let (first, rest) = long.split_at(16_000);
        let mut bytes = frame(HEADERS, END_STREAM, 1, first);
        bytes.extend(frame(CONTINUATION, 0, 1, rest));
        bytes.extend(frame(
            CONTINUATION,
            END_HEADERS,
            1,
            &header(b"y", &[b'b'; 1_000]),
        ));
        bytes.extend(call(3, RANGE, &get(b"k")));
        stream.write_all(&bytes).expect("it is read");
        // The answer to the second call comes.
        let mut told = Vec::new();
        let mut scratch = [0; 4096];
        while !told
            .windows(9)
            .any(|part| part[3] == HEADERS && part[5..] == [0, 0, 0, 3])
        {
            let count = stream.read(&mut scratch).expect("it is answered");
            assert!(count > 0, "{told:?}");
            told.extend_from_slice(&scratch[..count]);
        }
    });
}

#[test]
fn small_frames_without_end() {
    let dependency = [0, 0, 0, 0, 16];
    for (name, kind, id, payload) in [
        ("empty data", DATA, 1, &[][..]),
        ("a byte of data", DATA, 1, &[0][..]),
        ("priorities", PRIORITY, 1, &dependency[..]),
        (
            "windows of the connection",
            WINDOW_UPDATE,
            0,
            &[0, 0, 0, 1][..],
        ),
        ("windows of a stream", WINDOW_UPDATE, 1, &[0, 0, 0, 1][..]),
        (
            "frames of an unknown kind",
            0x77,
            0,
            b"what is this".as_slice(),
        ),
        (
            "resets of a stream that is gone",
            RST_STREAM,
            3,
            &[0, 0, 0, 8][..],
        ),
    ] {
        println!("{name}");
        attack(24, |server| {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            let begin = [
                frame(HEADERS, END_HEADERS, 1, &call_headers(WATCH)),
                frame(HEADERS, END_HEADERS, 3, &call_headers(WATCH)),
                frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            ];
            stream.write_all(&begin.concat()).expect("it is read");
            let pieces = many(&frame(kind, 0, id, payload));
            flood(stream, true, || pieces.clone());
        });
    }
}

#[test]
fn answers_that_are_taken_byte_by_byte() {
    attack(48, |server| {
        let mut stream = open(server.address);
        // A window of no byte at all.
        stream.write_all(&greeting(&[(4, 0)])).expect("it is read");
        let value = vec![b'v'; 12_000];
        let fill = call(1, PUT, &put(b"large", &value));
        stream.write_all(&fill).expect("it is read");
        let mut id = 3;
        for _ in 0..2_000 {
            let ask = call(id, RANGE, &get(b"large"));
            stream.write_all(&ask).expect("it is read");
            id += 2;
        }
        let mut at = 3;
        flood(stream, true, || {
            let mut bytes = Vec::new();
            for _ in 0..4_000 {
                bytes.extend(frame(WINDOW_UPDATE, 0, at, &[0, 0, 0, 1]));
                at = if at + 2 < id { at + 2 } else { 3 };
            }
            bytes
        });
    });
}

#[test]
fn streams_without_end_on_many_connections() {
    // Each connection may have 4096; a stream of watches may be silent for ever.
    attack(512, |server| {
        let mut streams = Vec::new();
        for _ in 0..80 {
            let mut stream = open(server.address);
            let mut bytes = greeting(&[]);
            for id in 0..4_096 {
                bytes.extend(frame(
                    HEADERS,
                    END_HEADERS,
                    2 * id + 1,
                    &call_headers(WATCH),
                ));
            }
            let mut reader = stream.try_clone().expect("a socket");
            thread::spawn(move || {
                let mut scratch = vec![0; 1 << 16];
                while reader.read(&mut scratch).is_ok_and(|count| count > 0) {}
            });
            // The server may have had enough.
            let _ = stream.write_all(&bytes);
            streams.push(stream);
        }
        thread::sleep(Duration::from_millis(500));
        for stream in streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
}

#[test]
fn messages_of_which_only_a_part_comes() {
    // 400 MB are sent; what a front keeps of unfinished messages is bounded.
    attack(320, |server| {
        let part = [vec![0, 0, 24, 0, 0], vec![0; 1 << 20]].concat();
        raw::run(async {
            let mut connections = Vec::new();
            for _ in 0..4 {
                let builder = h2::client::Builder::new();
                connections.push(raw::connect(server.address, &builder).await.0);
            }
            let mut calls = Vec::new();
            for n in 0..400 {
                let (response, mut stream) =
                    raw::open(&connections[n % 4], raw::request(PUT)).await;
                let mut rest = bytes::Bytes::from(part.clone());
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len());
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                    // The server has had enough of it.
                    let Some(Ok(room)) = room else { break };
                    let piece = rest.split_to(room.min(rest.len()));
                    if stream.send_data(piece, false).is_err() {
                        break;
                    }
                }
                calls.push((response, stream));
            }
            // Those that came last were refused for it.
            let (response, _) = calls.pop().expect("there are many");
            let answer = raw::finished(response).await;
            // The code that etcd gives it.
            assert_eq!(answer.status.as_deref(), Some("2"), "{answer:?}");
            let text = "etcdserver: too many requests";
            assert_eq!(answer.message.as_deref(), Some(text));
        });
    });
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    attack(24, |server| {
        let too_long = [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 100]].concat();
        for bytes in [
            too_long,
            frame(DATA, 0, 0, b"no stream"),
            frame(PING, 0, 0, b"short"),
            frame(SETTINGS, 0, 0, b"seven b"),
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            frame(HEADERS, END_HEADERS, 2, &call_headers(RANGE)),
            frame(HEADERS, END_HEADERS, 1, &[0xff; 20]),
            frame(CONTINUATION, END_HEADERS, 1, &call_headers(RANGE)),
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            [
                frame(HEADERS, 0, 1, &call_headers(RANGE)),
                frame(PING, 0, 0, b"pingping"),
            ]
            .concat(),
        ] {
            let mut stream = open(server.address);
            stream.write_all(&greeting(&[])).expect("it is read");
            stream.write_all(&bytes).expect("it is read");
            let told = read_all(&mut stream);
            let leave = told
                .windows(9)
                .any(|part| part[3] == GOAWAY && part[5..] == [0; 4]);
            assert!(leave, "{:?}: {told:?}", &bytes[..9]);
        }
        let mut noise = open(server.address);
        noise.write_all(PREFACE).expect("it is read");
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let _ = noise.write_all(&bytes);
        read_all(&mut noise);
    });
}
