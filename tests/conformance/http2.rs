//! The edges of gRPC over HTTP/2: what is refused, what is bounded, what must not disturb others.

use super::raw::{
    self, PUT, RANGE, WATCH, call, connect, field, finished, framed, get, open, put, request, run,
};
use super::start;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use quoin::etcd::pb::{Fields, Value};
use std::io::Write as _;
use std::time::{Duration, Instant};

const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const LOCK: &str = "/v3lockpb.Lock/Lock";

fn told(answer: &raw::Answer) -> (Option<&str>, Option<&str>) {
    (answer.status.as_deref(), answer.message.as_deref())
}

const FINE: (Option<&str>, Option<&str>) = (Some("0"), Some(""));

#[test]
fn what_is_no_call_is_refused_with_a_reason() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for (path, message) in [
            (
                "/etcdserverpb.KV/Nothing",
                "unknown method Nothing for service etcdserverpb.KV",
            ),
            ("/some.Service/Range", "unknown service some.Service"),
            (
                "/etcdserverpb.Cluster/MemberAdd",
                "this version of quoin does not serve etcdserverpb.Cluster/MemberAdd",
            ),
        ] {
            let answer = call(&client, path, get(b"k")).await;
            assert_eq!(told(&answer), (Some("12"), Some(message)));
        }
        let answer = call(&client, PUT, framed(b"\x0a\x05k")).await;
        assert_eq!(
            told(&answer),
            (
                Some("13"),
                Some(
                    "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"
                )
            )
        );
        let answer = call(&client, HEALTH, framed(b"\x0a\x01\xff")).await;
        let text = "grpc: error unmarshalling request: string field contains invalid UTF-8";
        assert_eq!(told(&answer), (Some("13"), Some(text)));
        for path in ["/etcdserverpb.Cluster/MemberList", DEFRAGMENT] {
            let answer = call(&client, path, framed(b"\x0a\x05k")).await;
            let what = "proto: cannot parse invalid wire-format data";
            let text = format!("grpc: error unmarshalling request: {what}");
            assert_eq!(told(&answer), (Some("13"), Some(&*text)), "{path}");
        }
        let on_stream = "grpc: failed to unmarshal the received message: ";
        for (path, message, text) in [
            (
                WATCH,
                b"\x0a\x05k",
                "proto: cannot parse invalid wire-format data",
            ),
            (
                KEEP_ALIVE,
                b"\x08\x80\x80",
                "proto: cannot parse invalid wire-format data",
            ),
            (
                RANGE_STREAM,
                b"\x0a\x05k",
                "proto: cannot parse invalid wire-format data",
            ),
            (
                OBSERVE,
                b"\x0a\x05k",
                "proto: cannot parse invalid wire-format data",
            ),
            (
                SNAPSHOT,
                b"\x0a\x05k",
                "proto: cannot parse invalid wire-format data",
            ),
            (
                HEALTH_WATCH,
                b"\x0a\x01\xff",
                "string field contains invalid UTF-8",
            ),
        ] {
            let answer = call(&client, path, framed(message)).await;
            let text = format!("{on_stream}{text}");
            assert_eq!(told(&answer), (Some("13"), Some(&*text)), "{path}");
        }
        // A group that nobody knows is passed over.
        let group = b"\x6b\x08\x05\x63\x64\x6c";
        let message = [&field(1, b"g")[..], group, &field(2, b"v")].concat();
        assert_eq!(told(&call(&client, PUT, framed(&message)).await), FINE);
        let answer = call(&client, RANGE, get(b"g")).await;
        assert!(answer.bytes.ends_with(b"\x2a\x01v\x20\x01"), "{answer:?}");
        // None, half a prefix, or half of a message; or one too many.
        let none =
            "cardinality violation: received no request message from non-client-streaming RPC";
        let several = "cardinality violation: received multiple request messages for \
                       non-client-streaming RPC";
        let two = get(b"k").repeat(2);
        for (path, body, code, text) in [
            (PUT, &b""[..], "2", "EOF"),
            (PUT, b"\0\0", "2", "EOF"),
            (PUT, b"\0\0\0\0\x02a", "2", "unexpected EOF"),
            (LOCK, b"", "2", "EOF"),
            (KEEP_ALIVE, b"\0\0\0\0\x02a", "13", "unexpected EOF"),
            (RANGE_STREAM, b"", "13", none),
            (OBSERVE, b"", "13", none),
            (HEALTH_WATCH, b"", "13", none),
            (RANGE_STREAM, &two, "13", several),
            (OBSERVE, &two, "13", several),
            (HEALTH_WATCH, &two, "13", several),
            (PUT, &two, "0", ""),
        ] {
            let answer = call(&client, path, body.to_vec()).await;
            assert_eq!(told(&answer), (Some(code), Some(text)), "{path} {body:?}");
        }

        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
    });
}

#[test]
fn what_is_not_grpc_is_told_so_in_its_words() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let plain = Request::post("http://quoin/v3/kv/range").header("content-type", "text/plain");
        let page = Request::get("http://quoin/health");
        let got = Request::get(format!("http://quoin{RANGE}"))
            .header("content-type", "application/grpc+proto");
        // Before anything else is looked at.
        let both = plain_timed("text/plain", "1");
        for (request, http, content, code, text) in [
            (
                plain,
                415,
                "application/grpc",
                "3",
                r#"invalid gRPC request content-type "text/plain""#,
            ),
            (
                page,
                415,
                "application/grpc",
                "3",
                r#"invalid gRPC request content-type """#,
            ),
            (
                both,
                415,
                "application/grpc",
                "3",
                r#"invalid gRPC request content-type "text/plain""#,
            ),
            (
                got,
                405,
                "application/grpc+proto",
                "13",
                r#"Received a HEADERS frame with :method "GET" which should be POST"#,
            ),
        ] {
            let (response, _stream) = open(&client, request).await;
            let answer = finished(response).await;
            assert_eq!(answer.http, http);
            assert_eq!(answer.content.as_deref(), Some(content));
            assert_eq!(told(&answer), (Some(code), Some(text)));
        }
        // The kind of content that a call names is that of its answer.
        for (asked, answered) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc+", "application/grpc"),
            ("application/grpc+proto", "application/grpc+proto"),
            ("application/grpc;proto", "application/grpc+proto"),
        ] {
            for path in [PUT, "/etcdserverpb.KV/Nothing"] {
                let request =
                    Request::post(format!("http://quoin{path}")).header("content-type", asked);
                let answer = raw::ask(&client, request, put(b"k", b"v")).await;
                assert_eq!(answer.content.as_deref(), Some(answered), "{asked} {path}");
            }
        }
    });
}

/// A message that is compressed, behind its prefix.
fn packed(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).expect("memory");
    let mut out = framed(&encoder.finish().expect("memory"));
    out[0] = 1;
    out
}

#[test]
fn compressed_messages_are_read() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let encoded = |path: &str, encoding: &str| request(path).header("grpc-encoding", encoding);
        let ask = async |encoding: &str, body: Vec<u8>| {
            raw::ask(&client, encoded(PUT, encoding), body).await
        };
        let value = vec![b'z'; 100_000];
        let message = [field(1, b"z"), field(2, &value)].concat();
        assert_eq!(told(&ask("gzip", packed(&message)).await), FINE);
        let read = call(&client, RANGE, get(b"z")).await;
        assert!(read.bytes.len() > value.len());
        assert_eq!(
            told(&ask("gzip", put(b"k", b"v")).await),
            FINE,
            "it need not be"
        );
        // Streams, in which each message is for itself.
        let create = &watch_all(0)[5..];
        let both = [packed(create), watch_all(0)].concat();
        let mut watching = Watching::begin(&client, encoded(WATCH, "gzip"), both).await;
        for _ in 0..2 {
            let created = watching.message().await;
            assert!(created.ends_with(&[24, 1]), "{created:?}");
        }
        let bomb = packed(&vec![0; 64 << 20]);
        let started = Instant::now();
        for _ in 0..20 {
            let too_long = "grpc: received message after decompression larger than max 2097152";
            let answer = ask("gzip", bomb.clone()).await;
            assert_eq!(told(&answer), (Some("8"), Some(too_long)));
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        let mut odd = put(b"k", b"v");
        odd[0] = 2;
        let mut cut = packed(&message);
        cut.truncate(cut.len() - 3);
        let length = cut.len() as u32 - 5;
        cut[1..5].copy_from_slice(&length.to_be_bytes());
        let mut garbage = framed(b"garbage");
        garbage[0] = 1;
        for (encoding, body, code, text) in [
            (
                "identity",
                packed(&message),
                "13",
                "grpc: compressed flag set with identity or empty encoding",
            ),
            (
                "gzip",
                odd,
                "13",
                "grpc: received unexpected payload format 2",
            ),
            (
                "gzip",
                cut,
                "13",
                "grpc: failed to read decompressed data: unexpected EOF",
            ),
            (
                "gzip",
                garbage,
                "13",
                "grpc: failed to decompress the message: unexpected EOF",
            ),
            (
                "deflate",
                put(b"k", b"v"),
                "12",
                r#"grpc: Decompressor is not installed for grpc-encoding "deflate""#,
            ),
        ] {
            let answer = ask(encoding, body).await;
            assert_eq!(told(&answer), (Some(code), Some(text)));
        }
        let plain = call(&client, PUT, packed(&message)).await;
        assert_eq!(plain.status.as_deref(), Some("13"));
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
    });
}

fn plain_timed(content: &str, timeout: &str) -> http::request::Builder {
    Request::post(format!("http://quoin{RANGE}"))
        .header("content-type", content)
        .header("grpc-timeout", timeout)
}

fn timed(path: &str, timeout: &str) -> http::request::Builder {
    request(path).header("grpc-timeout", timeout)
}

const OVER: (Option<&str>, Option<&str>) = (Some("4"), Some("context deadline exceeded"));

#[test]
fn a_call_whose_time_is_over_is_ended() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for (timeout, text) in [
            ("", r#"transport: timeout string is too short: """#),
            ("1x", r#"transport: timeout unit is not recognized: "1x""#),
            (
                "123456789m",
                r#"transport: timeout string is too long: "123456789m""#,
            ),
            ("-1S", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
        ] {
            let answer = raw::ask(&client, timed(PUT, timeout), put(b"k", b"v")).await;
            let text = format!("malformed grpc-timeout: {text}");
            assert_eq!(answer.http, 400, "{timeout}");
            assert_eq!(told(&answer), (Some("13"), Some(&*text)));
        }
        // What comes too late is not done.
        for timeout in ["0m", "1n"] {
            let answer = raw::ask(&client, timed(PUT, timeout), put(b"late", b"v")).await;
            assert_eq!(told(&answer), OVER, "{timeout}");
        }
        let read = call(&client, RANGE, get(b"late")).await;
        let found = fields(&read.bytes[5..]).any(|(number, _)| number == 2);
        assert!(!found, "{read:?}");
        let both = timed(PUT, "1n").header("grpc-timeout", "30S");
        assert_eq!(told(&raw::ask(&client, both, put(b"k", b"v")).await), FINE);
        for timeout in ["30S", "99999999H"] {
            let answer = raw::ask(&client, timed(PUT, timeout), put(b"k", b"v")).await;
            assert_eq!(told(&answer), FINE, "{timeout}");
        }
        // A message that does not come is not waited for; streams end, and others go on.
        let began = Instant::now();
        let (waiting, _keep) = open(&client, timed(PUT, "1500m")).await;
        let mut untimed = Watching::open(&client, watch_all(0)).await;
        let mut patient = Watching::begin(&client, timed(WATCH, "1M"), watch_all(0)).await;
        let mut watching = Watching::begin(&client, timed(WATCH, "2S"), watch_all(0)).await;
        let keep_alive = timed(KEEP_ALIVE, "1S");
        let mut renewing = Watching::begin(&client, keep_alive, framed(&[8, 7])).await;
        let health = timed(HEALTH_WATCH, "500m");
        let mut health = Watching::begin(&client, health, framed(b"")).await;
        for stream in [
            &mut untimed,
            &mut patient,
            &mut watching,
            &mut renewing,
            &mut health,
        ] {
            stream.message().await;
        }
        assert_eq!(health.end().await, OVER);
        assert!(began.elapsed() >= Duration::from_millis(500));
        assert_eq!(renewing.end().await, OVER);
        assert_eq!(told(&finished(waiting).await), OVER);
        assert!(began.elapsed() >= Duration::from_millis(1_500));
        assert_eq!(watching.end().await, OVER);
        assert!(began.elapsed() >= Duration::from_secs(2));
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
        assert_eq!(untimed.told(5).await, [5]);
        assert_eq!(patient.told(5).await, [5]);
    });
}

#[test]
fn a_call_that_stands_still_is_reset_when_its_time_is_over() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &wide_open()).await;
        let stalled = Watching::begin(&client, timed(WATCH, "2S"), watch_all(0)).await;
        let value = vec![b'v'; 40_000];
        for _ in 0..20 {
            assert_eq!(told(&call(&client, PUT, put(b"k", &value)).await), FINE);
        }
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let mut body = stalled.body;
        let end = loop {
            match body.data().await.expect("no end by itself") {
                Ok(chunk) => drop(body.flow_control().release_capacity(chunk.len())),
                Err(error) => break error,
            }
        };
        assert_eq!(end.reason(), Some(h2::Reason::CANCEL));
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
    });
}

#[test]
fn deadlines_of_many_calls_are_kept_while_calls_come_and_go() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let mut waiting = Vec::new();
        for n in 0..150 {
            // The later the call, the earlier its deadline, and the other way round.
            let ms = if n % 2 == 0 { 1_000 - n } else { 200 + n };
            waiting.push(open(&client, timed(PUT, &format!("{ms}m"))).await);
            let answer = raw::ask(&client, timed(PUT, "20S"), put(b"k", b"v")).await;
            assert_eq!(told(&answer), FINE);
        }
        for (response, _keep) in waiting {
            assert_eq!(told(&finished(response).await), OVER);
        }
    });
}

#[test]
fn a_message_too_long_is_refused_by_its_prefix() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let (response, mut stream) = open(&client, request(PUT)).await;
        // Nothing but the prefix is sent.
        let prefix = Bytes::from_static(&[0, 0, 0x30, 0, 0]);
        stream.send_data(prefix, false).expect("it is sent");
        let answer = finished(response).await;
        assert_eq!(
            told(&answer),
            (
                Some("8"),
                Some("grpc: received message larger than max (3145728 vs. 2097152)")
            )
        );
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
    });
}

#[test]
fn a_message_may_come_in_pieces_and_others_overtake_it() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let (response, mut stream) = open(&client, request(PUT)).await;
        let message = put(b"slow", b"value");
        for byte in &message[..message.len() - 1] {
            let piece = Bytes::copy_from_slice(&[*byte]);
            stream.send_data(piece, false).expect("it is sent");
            tokio::task::yield_now().await;
        }
        assert_eq!(told(&call(&client, PUT, put(b"fast", b"v")).await), FINE);
        let last = Bytes::copy_from_slice(&message[message.len() - 1..]);
        stream.send_data(last, true).expect("it is sent");
        assert_eq!(told(&finished(response).await), FINE);
        let read = call(&client, RANGE, get(b"slow")).await;
        assert!(read.bytes.ends_with(b"\x2a\x05value\x20\x01"), "{read:?}");

        // One that is given up half way disturbs nobody, nor does one that ends too early.
        let (_response, mut stream) = open(&client, request(PUT)).await;
        let half = Bytes::from(message[..9].to_vec());
        stream.send_data(half.clone(), false).expect("it is sent");
        stream.send_reset(h2::Reason::CANCEL);
        let (response, mut stream) = open(&client, request(PUT)).await;
        stream.send_data(half, true).expect("it is sent");
        let cut = (Some("2"), Some("unexpected EOF"));
        assert_eq!(told(&finished(response).await), cut);
        assert_eq!(told(&call(&client, PUT, put(b"fast", b"w")).await), FINE);
    });
}

#[test]
fn a_client_that_does_not_take_one_answer_gets_the_others() {
    let (server, _dir) = start();
    run(async {
        let mut builder = Builder::new();
        builder
            .initial_window_size(20_000)
            .initial_connection_window_size(8 << 20);
        let (client, _) = connect(server.address, &builder).await;
        let value = vec![b'v'; 1 << 20];
        // More than the server lets wait for a connection's socket, and than one window.
        let big = put(b"big", &value);
        let (response, mut stream) = open(&client, request(PUT)).await;
        let mut rest = Bytes::from(big);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let room = room.expect("open").expect("open").min(rest.len());
            let last = room == rest.len();
            stream.send_data(rest.split_to(room), last).expect("open");
        }
        assert_eq!(told(&finished(response).await), FINE);

        let mut stalled = Vec::new();
        for _ in 0..5 {
            let (response, mut stream) = open(&client, request(RANGE)).await;
            stream.send_data(get(b"big").into(), true).expect("open");
            stalled.push(response.await.expect("headers"));
        }
        for _ in 0..50 {
            assert_eq!(told(&call(&client, PUT, put(b"small", b"v")).await), FINE);
        }
        // And each of them is whole once it is taken.
        for response in stalled {
            let mut body = response.into_body();
            let mut bytes = 0;
            while let Some(chunk) = body.data().await {
                let chunk = chunk.expect("open");
                bytes += chunk.len();
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            assert!(bytes > value.len(), "{bytes}");
            let trailers = body.trailers().await.expect("open").expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

/// A watch of everything: a field that holds the key and the end, both a zero byte.
fn watch_all(start_revision: u8) -> Vec<u8> {
    let create = [field(1, b"\0"), field(2, b"\0"), vec![24, start_revision]].concat();
    framed(&field(1, &create))
}

/// A stream of watches as its client sees it.
struct Watching {
    body: RecvStream,
    _requests: SendStream<Bytes>,
    kept: Vec<u8>,
    trailers: Option<http::HeaderMap>,
}

impl Watching {
    async fn open(client: &SendRequest<Bytes>, message: Vec<u8>) -> Watching {
        Watching::begin(client, request(WATCH), message).await
    }

    /// Begins any stream with a message.
    async fn begin(
        client: &SendRequest<Bytes>,
        request: http::request::Builder,
        message: Vec<u8>,
    ) -> Watching {
        let (response, mut requests) = open(client, request).await;
        requests.send_data(message.into(), false).expect("open");
        Watching {
            body: response.await.expect("headers").into_body(),
            _requests: requests,
            kept: Vec::new(),
            trailers: None,
        }
    }

    /// Takes the next message.
    async fn message(&mut self) -> Vec<u8> {
        loop {
            if let Some(prefix) = self.kept.first_chunk::<5>() {
                let [_, length @ ..] = *prefix;
                let end = 5 + u32::from_be_bytes(length) as usize;
                if self.kept.len() >= end {
                    let message = self.kept[5..end].to_vec();
                    self.kept.drain(..end);
                    return message;
                }
            }
            let chunk = self.body.data().await.expect("it goes on").expect("open");
            let _ = self.body.flow_control().release_capacity(chunk.len());
            self.kept.extend_from_slice(&chunk);
        }
    }

    /// What is told at the end, which comes behind no other message.
    async fn end(&mut self) -> (Option<&str>, Option<&str>) {
        assert!(self.body.data().await.is_none() && self.kept.is_empty());
        let trailers = self.body.trailers().await.expect("open");
        let trailers = self.trailers.insert(trailers.expect("trailers"));
        let of = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        (of("grpc-status"), of("grpc-message"))
    }

    /// Takes what is told until a revision has come, and returns the revisions of the events.
    async fn told(&mut self, last: u64) -> Vec<u64> {
        let mut revisions = Vec::new();
        while revisions.last() != Some(&last) {
            let message = self.message().await;
            revisions.extend(fields(&message).filter_map(|(number, event)| {
                let (_, pair) = fields(event.bytes()?).find(|(number, _)| *number == 2)?;
                let (_, revision) = fields(pair.bytes()?).find(|(number, _)| *number == 3)?;
                (number == 11).then_some(revision.number()?)
            }));
        }
        revisions
    }
}

/// The fields of a message.
fn fields(message: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(move || fields.field().expect("a message"))
}

fn wide_open() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(64 << 10)
        .initial_connection_window_size(64 << 20);
    builder
}

#[test]
fn a_watch_stream_that_stands_still_holds_up_no_other() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &wide_open()).await;
        let mut stalled = Watching::open(&client, watch_all(0)).await;
        let mut other = Watching::open(&client, watch_all(0)).await;
        let value = vec![b'v'; 40_000];
        let first = stalled.message().await;
        assert!(first.ends_with(&[24, 1]), "created: {first:?}");
        // Far more than a stream's window, and than what a connection is told ahead.
        for n in 0..200u8 {
            let key = [b'k', n];
            assert_eq!(told(&call(&client, PUT, put(&key, &value)).await), FINE);
        }
        let all: Vec<u64> = (2..=201).collect();
        assert_eq!(other.told(201).await, all);
        let mut late = Watching::open(&client, watch_all(100)).await;
        assert_eq!(late.told(201).await, all[98..]);
        // What it did not take it gets when it takes again, without a gap.
        assert_eq!(stalled.told(201).await, all);
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
        assert_eq!(stalled.told(202).await, [202]);
        assert_eq!(other.told(202).await, [202]);
    });
}

#[test]
fn a_watch_stream_that_stood_still_too_long_is_told_of_the_compaction() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &wide_open()).await;
        let mut stalled = Watching::open(&client, watch_all(0)).await;
        let value = vec![b'v'; 40_000];
        for _ in 0..50 {
            assert_eq!(told(&call(&client, PUT, put(b"k", &value)).await), FINE);
        }
        let compact = framed(&[8, 40]);
        let answer = call(&client, "/etcdserverpb.KV/Compact", compact).await;
        assert_eq!(told(&answer), FINE);
        let mut revisions = Vec::new();
        let compacted = loop {
            let message = stalled.message().await;
            if let Some((_, revision)) = fields(&message).find(|(number, _)| *number == 5) {
                break revision.number();
            }
            revisions.extend(
                fields(&message)
                    .filter(|(number, _)| *number == 11)
                    .map(|_| ()),
            );
        };
        assert_eq!(compacted, Some(40));
        assert!((1..20).contains(&revisions.len()), "{}", revisions.len());
    });
}

#[test]
fn streams_that_stand_still_cost_little_memory() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &wide_open()).await;
        let mut stalled = Vec::new();
        for _ in 0..500 {
            stalled.push(Watching::open(&client, watch_all(0)).await);
        }
        let value = vec![b'v'; 20_000];
        let before = server.resident_kib();
        let mut other = Watching::open(&client, watch_all(0)).await;
        for _ in 0..100 {
            assert_eq!(told(&call(&client, PUT, put(b"k", &value)).await), FINE);
        }
        assert_eq!(other.told(101).await.len(), 100);
        // Each would hold 2 MB if its events were queued, 1 GB in all.
        let grown = server.resident_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "memory grew by {grown} KiB");
        let all: Vec<u64> = (2..=101).collect();
        for mut stream in stalled.drain(..20) {
            assert_eq!(stream.told(101).await, all);
        }
    });
}

#[test]
fn pings_and_many_streams_are_welcome() {
    let (server, _dir) = start();
    run(async {
        let stream = tokio::net::TcpStream::connect(server.address)
            .await
            .expect("it serves");
        let (client, mut connection) = Builder::new()
            .handshake::<_, Bytes>(stream)
            .await
            .expect("it speaks HTTP/2");
        let mut pings = connection.ping_pong().expect("the first to ask");
        let task = tokio::spawn(connection);
        for _ in 0..100 {
            pings.ping(h2::Ping::opaque()).await.expect("a pong");
        }
        for wave in 0..20u32 {
            let mut waiting = Vec::new();
            for n in 0..100 {
                let (response, mut stream) = open(&client, request(PUT)).await;
                let body = put(format!("k{}", wave * 50 + n).as_bytes(), b"v");
                stream.send_data(body.into(), true).expect("open");
                waiting.push(response);
            }
            for response in waiting {
                assert_eq!(told(&finished(response).await), FINE);
            }
        }
        assert!(!task.is_finished());
    });
}

#[test]
fn a_stop_takes_leave_of_the_connection() {
    let (server, _dir) = start();
    run(async {
        let (client, connection) = connect(server.address, &Builder::new()).await;
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
        let stop = tokio::task::spawn_blocking(|| server.terminate());
        let ended = tokio::time::timeout(Duration::from_secs(10), connection);
        let ended = ended
            .await
            .expect("the connection ends")
            .expect("its task ends");
        ended.expect("it ends with a word of leave");
        let (status, _) = stop.await.expect("it stops");
        assert!(status.success());
    });
}
