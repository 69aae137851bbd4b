//! Long ranges over bare HTTP/2: in pieces, at the client's pace.

use super::raw::{self, connect, field, finished, framed, open, put, request, run};
use super::start;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use quoin::etcd::pb::Fields;
use quoin::limits;
use std::net::SocketAddr;

const STREAM: &str = "/etcdserverpb.KV/RangeStream";

/// Pairs, and the bytes of their values.
const PAIRS: usize = 400;
const VALUE: usize = 20_000;

async fn fill(client: &SendRequest<Bytes>) {
    let value = vec![b'v'; VALUE];
    let mut waiting = Vec::new();
    for n in 0..PAIRS {
        let message = put(format!("k{n:04}").as_bytes(), &value);
        let (response, mut stream) = open(client, request(raw::PUT)).await;
        stream.send_data(message.into(), true).expect("open");
        waiting.push(response);
    }
    for response in waiting {
        assert_eq!(finished(response).await.status.as_deref(), Some("0"));
    }
}

fn everything() -> Vec<u8> {
    framed(&[field(1, b"k"), field(2, b"l")].concat())
}

fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes")) as usize;
        all.push(&bytes[5..5 + length]);
        bytes = &bytes[5 + length..];
    }
    all
}

fn pairs_in(message: &[u8]) -> usize {
    message
        .windows(4)
        .filter(|key| key == b"\x0a\x05k0")
        .count()
}

/// A client that takes little at a time, of a server that has all pairs.
async fn filled(address: SocketAddr) -> SendRequest<Bytes> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(50_000)
        .initial_connection_window_size(1 << 20);
    let (client, _) = connect(address, &builder).await;
    fill(&client).await;
    client
}

#[test]
fn a_long_range_comes_whole_or_as_a_stream_and_nobody_waits_for_it() {
    let (server, _dir) = start();
    run(async {
        let client = filled(server.address).await;

        let whole = raw::call(&client, raw::RANGE, everything()).await;
        assert_eq!(whole.status.as_deref(), Some("0"));
        let all = messages(&whole.bytes);
        assert_eq!((all.len(), pairs_in(all[0])), (1, PAIRS));

        // In another order it is as long, and in that order.
        let newest_first = [raw::number(5, 2), raw::number(6, 3)].concat();
        let sorted = [field(1, b"k"), field(2, b"l"), newest_first].concat();
        let sorted = raw::call(&client, raw::RANGE, framed(&sorted)).await;
        assert_eq!(sorted.status.as_deref(), Some("0"));
        assert_eq!(sorted.bytes.len(), whole.bytes.len());
        let all = messages(&sorted.bytes);
        assert_eq!((all.len(), pairs_in(all[0])), (1, PAIRS));
        let place = |key: &[u8]| all[0].windows(key.len()).position(|found| found == key);
        assert!(place(b"k0399") < place(b"k0000"));

        // A stream that nobody reads, while others are served and the store goes on.
        let (response, mut sending) = open(&client, request(STREAM)).await;
        sending.send_data(everything().into(), true).expect("open");
        let response = response.await.expect("headers");
        for n in 0..20 {
            let other = put(format!("k{n:04}").as_bytes(), b"later");
            assert_eq!(
                raw::call(&client, raw::PUT, other).await.status.as_deref(),
                Some("0")
            );
        }
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.expect("open");
            bytes.extend_from_slice(&chunk);
            let _ = body.flow_control().release_capacity(chunk.len());
        }
        let trailers = body.trailers().await.expect("open").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        let streamed = messages(&bytes);
        let sizes: Vec<usize> = streamed.iter().map(|message| pairs_in(message)).collect();
        // As many pairs as fill a piece, and in the last what is left.
        let full = limits::PIECE_BYTES.div_ceil(VALUE);
        let (last, others) = sizes.split_last().expect("a message");
        assert!(others.iter().all(|size| *size == full), "{sizes:?}");
        assert!(*last <= full, "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), PAIRS);
        assert!(!bytes.windows(5).any(|value| value == b"later"));
    });
}

/// The revision in the header of an answer.
fn revision_of(bytes: &[u8]) -> u64 {
    let mut fields = Fields::of(&bytes[5..]);
    let header = fields
        .field()
        .expect("a message")
        .and_then(|(_, value)| value.bytes());
    let mut fields = Fields::of(header.expect("a header"));
    loop {
        let field = fields.field().expect("a message").expect("a revision");
        if let (3, value) = field {
            return value.number().expect("a number");
        }
    }
}

#[test]
fn a_compaction_in_the_middle_of_a_long_answer_leaves_it_whole() {
    let (server, _dir) = start();
    run(async {
        let client = filled(server.address).await;
        // What is changed, and from what: every tenth pair.
        for (path, old, new, count) in [
            (raw::RANGE, b'v', b'w', PAIRS),
            (STREAM, b'w', b'x', PAIRS / 10),
        ] {
            let (response, mut sending) = open(&client, request(path)).await;
            sending.send_data(everything().into(), true).expect("open");
            let response = response.await.expect("headers");
            let mut revision = 0;
            for n in (0..PAIRS).step_by(10) {
                let other = put(format!("k{n:04}").as_bytes(), &vec![new; VALUE]);
                let answer = raw::call(&client, raw::PUT, other).await;
                assert_eq!(answer.status.as_deref(), Some("0"));
                revision = revision_of(&answer.bytes);
            }
            let compact = framed(&raw::number(1, revision));
            let answer = raw::call(&client, "/etcdserverpb.KV/Compact", compact).await;
            assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let mut body = response.into_body();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.expect("open");
                bytes.extend_from_slice(&chunk);
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            let trailers = body.trailers().await.expect("open").expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
            let all = messages(&bytes);
            let pairs = all.iter().map(|message| pairs_in(message));
            assert_eq!(pairs.sum::<usize>(), PAIRS);
            let values = bytes.windows(100).filter(|part| **part == [old; 100]);
            assert_eq!(values.count(), count * (VALUE - 99));
        }
    });
}

#[test]
fn what_cannot_be_streamed_is_refused_as_etcd_refuses_it() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let sorted = [field(1, b"k"), vec![0x28, 2]].concat();
        let filtered = [field(1, b"k"), vec![0x50, 2]].concat();
        for (message, code, text) in [
            (
                &sorted[..],
                "12",
                "RangeStream does not support custom sort orders",
            ),
            (
                &filtered,
                "12",
                "RangeStream does not support revision filters",
            ),
            (b"", "3", "etcdserver: key is not provided"),
            (b"\x0a\x01k\x28\x09", "3", "etcdserver: invalid sort option"),
            (
                b"\x0a\x01k\x12\x01l\x20\x63",
                "11",
                "etcdserver: mvcc: required revision is a future revision",
            ),
        ] {
            let answer = raw::call(&client, STREAM, framed(message)).await;
            let told = (answer.status.as_deref(), answer.message.as_deref());
            assert_eq!(told, (Some(code), Some(text)));
        }
        // A target without an order is none; one key, and a count, are one message.
        assert_eq!(
            raw::call(&client, raw::PUT, put(b"k", b"v"))
                .await
                .status
                .as_deref(),
            Some("0")
        );
        let header = b"\x0a\x14";
        for message in [&b"\x0a\x01k\x30\x03"[..], b"\x0a\x01k\x12\x01l\x48\x01"] {
            let (response, mut sending) = open(&client, request(STREAM)).await;
            sending
                .send_data(framed(message).into(), true)
                .expect("open");
            let answer = finished(response).await;
            let all = messages(&answer.bytes);
            assert_eq!(all.len(), 1);
            assert!(all[0].ends_with(b"\x20\x01"), "{answer:?}");
            assert!(all[0][2..].starts_with(&header[..1]), "{answer:?}");
        }
    });
}
