//! What the clients make of servers that misbehave: garbage, truncation, silence, drops.
//!
//! The servers here speak just enough of the protocol to break it; how the clients fare with
//! the real one is tested in tests/native.rs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use quoin::api::{Error, Header, PutRequest, Request};
use quoin::client::{BlockingClient, Client, ClientError, ClientOptions, raw};
use quoin::wire::{
    self, CLIENT_PREAMBLE_BYTES, Decoded, FrameDecoder, HelloStatus, Kind, ServerHello,
};

const HELLO: ServerHello = ServerHello {
    status: HelloStatus::Accepted,
    frame_bytes_max: 1 << 20,
    in_flight_max: 64,
    cluster_id: 1,
    member_id: 2,
};

/// What a server does with one connection.
type Script = Box<dyn FnOnce(&mut Peer) + Send>;

/// One accepted connection on the server's side.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    fn greet(&mut self, hello: &ServerHello) {
        let mut preamble = [0; CLIENT_PREAMBLE_BYTES];
        self.stream
            .read_exact(&mut preamble)
            .expect("a client says who it is");
        assert_eq!(wire::read_client_preamble(&preamble), Ok(Some(())));
        self.send(&wire::server_preamble(hello));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client is there");
    }

    /// The next request's kind and id; `None` when the client has closed.
    fn request(&mut self) -> Option<(Kind, u64)> {
        loop {
            let decoded = FrameDecoder::requests(1 << 20).decode(&self.input);
            if let Decoded::Frame { frame, consumed } = decoded.expect("clients break no rule") {
                let found = (frame.kind, frame.id);
                self.input.drain(..consumed);
                return Some(found);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.input.extend_from_slice(&chunk[..bytes]),
            }
        }
    }

    /// Answers every request as it should be, until the client closes.
    fn serve(&mut self) {
        while let Some((kind, id)) = self.request() {
            let reply = reply(kind, id);
            self.send(&reply);
        }
    }
}

fn reply(kind: Kind, id: u64) -> Vec<u8> {
    let header = Header {
        revision: 7,
        ..Header::default()
    };
    let mut out = Vec::new();
    match kind {
        Kind::Put => wire::encode_put_reply(&header, id, &mut out),
        Kind::Ping => wire::encode_ping_reply(&header, id, &mut out),
        Kind::Range => {
            let range = quoin::api::Response::Range(Default::default());
            wire::encode_response(&header, &range, id, &mut out).expect("small");
        }
        other => panic!("no test sends {other:?}"),
    }
    out
}

/// Runs one script per connection, in the order in which they come; later ones are served well.
/// Each accepted connection is reported.
fn server(scripts: Vec<Script>) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (report, reported): (Sender<()>, _) = channel();
    thread::spawn(move || {
        let mut scripts = scripts.into_iter();
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut peer = Peer {
                stream,
                input: Vec::new(),
            };
            let script = scripts.next();
            // The test may have ended and no longer listen.
            let _ = report.send(());
            thread::spawn(move || match script {
                Some(script) => script(&mut peer),
                None => {
                    peer.greet(&HELLO);
                    peer.serve();
                }
            });
        }
    });
    (address, reported)
}

fn options() -> ClientOptions {
    ClientOptions {
        deadline: Duration::from_secs(5),
        backoff_min: Duration::from_millis(1),
        ..ClientOptions::default()
    }
}

/// Runs one call through both clients, each against its own server with the same script.
fn both<T>(
    script: fn() -> Vec<Script>,
    options: &ClientOptions,
    blocking: impl Fn(&BlockingClient) -> T,
    asynchronous: impl AsyncFn(&Client) -> T,
    check: impl Fn(T, usize),
) {
    let (address, accepted) = server(script());
    let client = BlockingClient::new([address.to_string()], options.clone());
    let outcome = blocking(&client);
    check(outcome, accepted.try_iter().count());

    let (address, accepted) = server(script());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::new([address.to_string()], options.clone());
        let outcome = asynchronous(&client).await;
        check(outcome, accepted.try_iter().count());
    });
}

fn is_unknown<T>(outcome: &Result<T, ClientError>) -> bool {
    matches!(outcome, Err(ClientError::OutcomeUnknown { .. }))
}

/// A script that waits for one request and then does something.
macro_rules! script {
    ($(|$peer:ident, $id:ident| $act:expr),*) => {
        || vec![$(Box::new(|$peer: &mut Peer| {
            $peer.greet(&HELLO);
            if let Some((_kind, $id)) = $peer.request() {
                $act
            }
        })),*]
    };
}

#[test]
fn a_write_whose_connection_drops_is_unknown_and_not_repeated() {
    both(
        script!(|peer, _id| peer
            .stream
            .shutdown(std::net::Shutdown::Both)
            .expect("open")),
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, connections| {
            assert!(is_unknown(&outcome), "{outcome:?}");
            assert_eq!(connections, 1);
        },
    );
}

#[test]
fn a_read_whose_connection_drops_is_sent_again() {
    both(
        script!(|_peer, _id| ()),
        &options(),
        |client| client.get("k").map(|answer| answer.header.revision),
        async |client| client.get("k").await.map(|answer| answer.header.revision),
        |outcome, connections| {
            assert_eq!(outcome.expect("the second server answers"), 7);
            assert_eq!(connections, 2);
        },
    );
    let once = ClientOptions {
        retry_reads: false,
        ..options()
    };
    both(
        script!(|_peer, _id| ()),
        &once,
        |client| client.get("k").map(drop),
        async |client| client.get("k").await.map(drop),
        |outcome, connections| {
            assert!(matches!(outcome, Err(ClientError::Io(_))), "{outcome:?}");
            assert_eq!(connections, 1);
        },
    );
}

#[test]
fn after_a_drop_new_writes_find_a_new_connection() {
    both(
        script!(|_peer, _id| ()),
        &options(),
        |client| {
            (
                client.put("k", "v").map(drop),
                client.put("k", "v").map(drop),
            )
        },
        async |client| {
            (
                client.put("k", "v").await.map(drop),
                client.put("k", "v").await.map(drop),
            )
        },
        |(first, second), connections| {
            assert!(is_unknown(&first), "{first:?}");
            second.expect("the second connection serves");
            assert_eq!(connections, 2);
        },
    );
}

#[test]
fn a_truncated_reply_is_no_reply() {
    both(
        script!(|peer, id| {
            let reply = reply(Kind::Put, id);
            peer.send(&reply[..reply.len() - 1]);
        }),
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| assert!(is_unknown(&outcome), "{outcome:?}"),
    );
}

#[test]
fn a_reply_with_a_flipped_bit_is_no_reply() {
    both(
        script!(|peer, id| {
            let mut reply = reply(Kind::Put, id);
            reply[30] ^= 4;
            peer.send(&reply);
            peer.serve();
        }),
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| match outcome {
            Err(ClientError::OutcomeUnknown { cause }) => {
                let named = matches!(*cause, ClientError::Malformed(wire::Malformed::BadCrc));
                assert!(named, "{cause:?}");
            }
            other => panic!("{other:?}"),
        },
    );
}

#[test]
fn a_server_that_speaks_something_else_is_named_at_once() {
    both(
        || {
            vec![Box::new(|peer: &mut Peer| {
                peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                peer.serve();
            })]
        },
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| match outcome {
            Err(ClientError::NotSent { cause }) => {
                let named = matches!(*cause, ClientError::Malformed(wire::Malformed::BadMagic));
                assert!(named, "{cause:?}");
            }
            other => panic!("{other:?}"),
        },
    );
}

#[test]
fn a_refused_version_is_named_at_once_and_a_busy_server_tried_again() {
    both(
        || {
            vec![Box::new(|peer: &mut Peer| {
                peer.greet(&ServerHello {
                    status: HelloStatus::VersionRefused,
                    ..HELLO
                });
            })]
        },
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, connections| {
            match outcome {
                Err(ClientError::NotSent { cause }) => {
                    let refused = HelloStatus::VersionRefused;
                    assert!(matches!(*cause, ClientError::NotServed(status) if status == refused));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(connections, 1);
        },
    );
    both(
        || {
            vec![Box::new(|peer: &mut Peer| {
                peer.greet(&ServerHello {
                    status: HelloStatus::Busy,
                    ..HELLO
                });
            })]
        },
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, connections| {
            outcome.expect("the second connection serves");
            assert_eq!(connections, 2);
        },
    );
}

#[test]
fn silence_ends_with_the_deadline() {
    let short = ClientOptions {
        deadline: Duration::from_millis(100),
        ..options()
    };
    both(
        script!(|peer, _id| while peer.request().is_some() {}),
        &short,
        |client| (client.put("k", "v").map(drop), client.get("k").map(drop)),
        async |client| {
            (
                client.put("k", "v").await.map(drop),
                client.get("k").await.map(drop),
            )
        },
        |(write, read), connections| {
            match write {
                Err(ClientError::OutcomeUnknown { cause }) => {
                    assert!(matches!(*cause, ClientError::Deadline), "{cause:?}");
                }
                other => panic!("{other:?}"),
            }
            // The silent connection was given up, and the second served the read.
            read.expect("served");
            assert_eq!(connections, 2);
        },
    );
}

#[test]
fn nobody_at_home_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let short = ClientOptions {
        deadline: Duration::from_millis(100),
        ..options()
    };
    let start = Instant::now();
    let outcome = BlockingClient::new([&address], short.clone()).put("k", "v");
    assert!(
        matches!(outcome, Err(ClientError::NotSent { .. })),
        "{outcome:?}"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .expect("a runtime")
        .block_on(async { Client::new([&address], short).put("k", "v").await });
    assert!(
        matches!(outcome, Err(ClientError::NotSent { .. })),
        "{outcome:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(3));
    let nowhere = BlockingClient::new(Vec::<String>::new(), options()).put("k", "v");
    assert!(
        matches!(nowhere, Err(ClientError::NotSent { .. })),
        "{nowhere:?}"
    );
}

#[test]
fn a_call_does_not_wait_beyond_its_deadline_for_a_connection_that_another_opens() {
    // The system accepts, and nobody greets.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let only = ClientOptions {
        connections: 1,
        ..options()
    };
    let client = BlockingClient::new([&address], only);
    let patient = client.clone();
    let opening = thread::spawn(move || patient.put("k", "v"));
    let _held = listener.accept().expect("the first call connects");
    let outcome = (client.with_deadline(Duration::from_millis(50))).put("k", "v");
    assert!(!opening.is_finished(), "it waited for the other's deadline");
    assert!(
        matches!(&outcome, Err(ClientError::NotSent { cause }) if matches!(**cause, ClientError::Deadline)),
        "{outcome:?}"
    );
    // The next one to come opens it.
    drop(listener);
    let outcome = opening.join().expect("no panic");
    assert!(
        matches!(outcome, Err(ClientError::NotSent { .. })),
        "{outcome:?}"
    );
}

#[test]
fn refusals_keep_their_meaning() {
    fn refuse(peer: &mut Peer, error: Error) {
        peer.greet(&HELLO);
        while let Some((_, id)) = peer.request() {
            let mut out = Vec::new();
            wire::encode_error(&Header::default(), error, id, &mut out);
            peer.send(&out);
        }
    }
    both(
        || vec![Box::new(|peer: &mut Peer| refuse(peer, Error::NoSpace))],
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| {
            assert!(
                matches!(outcome, Err(ClientError::Refused(Error::NoSpace))),
                "{outcome:?}"
            )
        },
    );
    both(
        || {
            vec![Box::new(|peer: &mut Peer| {
                refuse(peer, Error::LeaderChanged)
            })]
        },
        &options(),
        |client| (client.put("k", "v").map(drop), client.get("k").map(drop)),
        async |client| {
            (
                client.put("k", "v").await.map(drop),
                client.get("k").await.map(drop),
            )
        },
        |(write, read), _| {
            assert!(is_unknown(&write), "{write:?}");
            let refused = matches!(read, Err(ClientError::Refused(Error::LeaderChanged)));
            assert!(refused, "{read:?}");
        },
    );
}

#[test]
fn a_closing_server_says_why() {
    both(
        script!(|peer, _id| {
            let mut out = Vec::new();
            wire::encode_malformed(&Header::default(), wire::Malformed::BadCrc, 0, &mut out);
            peer.send(&out);
        }),
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| match outcome {
            Err(ClientError::OutcomeUnknown { cause }) => {
                assert!(
                    matches!(*cause, ClientError::Closed { code: 0x8004, .. }),
                    "{cause:?}"
                );
            }
            other => panic!("{other:?}"),
        },
    );
}

#[test]
fn replies_to_nobody_and_twice_given_replies_are_ignored() {
    both(
        script!(|peer, id| {
            peer.send(&reply(Kind::Put, 0xdead_beef_0000_0001));
            peer.send(&reply(Kind::Put, id ^ 2 << 32));
            peer.send(&reply(Kind::Put, id));
            peer.send(&reply(Kind::Put, id));
            peer.serve();
        }),
        &options(),
        |client| {
            (
                client.put("k", "v").map(drop),
                client.put("k", "v").map(drop),
            )
        },
        async |client| {
            (
                client.put("k", "v").await.map(drop),
                client.put("k", "v").await.map(drop),
            )
        },
        |(first, second), connections| {
            first.expect("answered");
            second.expect("answered");
            assert_eq!(connections, 1);
        },
    );
}

#[test]
fn an_overlong_request_is_refused_here_and_harms_nobody() {
    both(
        Vec::new,
        &options(),
        |client| {
            (
                client.put("k", vec![0; 2 << 20]).map(drop),
                client.put("k", "v").map(drop),
            )
        },
        async |client| {
            let long = client.put("k", vec![0; 2 << 20]).await.map(drop);
            (long, client.put("k", "v").await.map(drop))
        },
        |(long, next), connections| {
            let refused = matches!(
                long,
                Err(ClientError::Unencodable(wire::Unencodable::TooLong))
            );
            assert!(refused, "{long:?}");
            next.expect("served");
            assert_eq!(connections, 1);
        },
    );
}

#[test]
fn replies_out_of_order_and_in_pieces_find_their_requests() {
    let (address, _accepted) = server(vec![Box::new(|peer: &mut Peer| {
        peer.greet(&HELLO);
        let requests: Vec<_> = (0..20).filter_map(|_| peer.request()).collect();
        for (kind, id) in requests.into_iter().rev() {
            for piece in reply(kind, id).chunks(7) {
                peer.send(piece);
            }
        }
        peer.serve();
    })]);
    let client = BlockingClient::new([address.to_string()], options());
    let put = PutRequest {
        key: b"k",
        value: b"v",
        ..PutRequest::default()
    };
    let submitted: Vec<_> = (0..20)
        .map(|_| {
            client
                .submit(&Request::Put(put.clone()))
                .expect("there is room")
        })
        .collect();
    for one in submitted {
        assert_eq!(one.wait().expect("answered").header.revision, 7);
    }
}

#[test]
fn more_requests_than_may_be_in_flight_wait_their_turn() {
    let client_limit = ClientOptions {
        in_flight_max: 3,
        ..options()
    };
    let (address, _accepted) = server(Vec::new());
    let client = BlockingClient::new([address.to_string()], client_limit.clone());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    client.put("k", "v").expect("answered");
                }
            });
        }
    });
    let put = PutRequest {
        key: b"k",
        value: b"v",
        ..PutRequest::default()
    };
    let submit = || {
        client
            .submit(&Request::Put(put.clone()))
            .expect("there is room in time")
    };
    let submitted: Vec<_> = (0..50).map(|_| submit()).collect();
    submitted
        .into_iter()
        .for_each(|one| drop(one.wait().expect("answered")));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::new([address.to_string()], client_limit);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.put("k", "v").await })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("answered");
        }
    });
}

#[test]
fn a_slow_server_is_waited_for_until_the_deadline() {
    both(
        script!(|peer, id| {
            thread::sleep(Duration::from_millis(150));
            peer.send(&reply(Kind::Put, id));
            peer.serve();
        }),
        &options(),
        |client| client.put("k", "v").map(drop),
        async |client| client.put("k", "v").await.map(drop),
        |outcome, _| outcome.expect("slow is not gone"),
    );
}

/// A reply much longer than the first buffer, over the raw connection.
#[test]
fn a_long_reply_grows_the_buffer_with_its_bytes() {
    let mut connection = raw::Connection::new(raw::Options::default());
    connection.ping(9);
    let sent = connection.to_send().len();
    connection.sent(sent);
    assert_eq!(connection.in_flight(), 1);
    let kv = quoin::api::OwnedKeyValue {
        value: vec![5; 1 << 20],
        ..Default::default()
    };
    let range = quoin::api::RangeResponse {
        kvs: vec![kv],
        more: false,
        count: 1,
    };
    let mut bytes = wire::server_preamble(&HELLO).to_vec();
    let response = quoin::api::Response::Range(range);
    for id in [9, 10, 11] {
        wire::encode_response(&Header::default(), &response, id, &mut bytes).expect("small");
    }
    let (mut given, mut ids) = (0, Vec::new());
    while given < bytes.len() {
        let space = connection.space();
        assert!(
            space.len() <= 2 << 20,
            "no more than the frame, twice the bytes at most"
        );
        let length = space.len().min(bytes.len() - given).min(50_000);
        space[..length].copy_from_slice(&bytes[given..given + length]);
        connection.received(length);
        given += length;
        while let Some(reply) = connection.next_reply().expect("well formed") {
            ids.push(reply.id);
        }
    }
    assert_eq!(ids, [9, 10, 11]);
}
