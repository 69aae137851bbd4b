//! The edges of gRPC over HTTP/2: what is refused, what is bounded, what must not disturb others.

use super::raw::{self, PUT, RANGE, call, connect, finished, framed, get, open, put, request, run};
use super::start;
use bytes::Bytes;
use h2::client::Builder;
use http::Request;
use std::time::Duration;

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
                "/v3lockpb.Lock/Lock",
                "this version of quoin does not serve v3lockpb.Lock/Lock",
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
                Some("grpc: error unmarshalling request: proto: unexpected EOF")
            )
        );
        let answer = call(&client, PUT, Vec::new()).await;
        assert_eq!(answer.status.as_deref(), Some("13"));
        let mut packed = get(b"k");
        packed[0] = 1;
        let answer = call(&client, RANGE, packed).await;
        assert_eq!(answer.status.as_deref(), Some("12"));
        let (response, _stream) =
            open(&client, request(RANGE).header("grpc-encoding", "gzip")).await;
        assert_eq!(finished(response).await.status.as_deref(), Some("12"));

        // Not gRPC at all.
        let plain = Request::post("http://quoin/v3/kv/range").header("content-type", "text/plain");
        let (response, _stream) = open(&client, plain).await;
        assert_eq!(finished(response).await.http, 415);
        let (response, _stream) = open(&client, Request::get("http://quoin/health")).await;
        assert_eq!(finished(response).await.http, 405);
        assert_eq!(told(&call(&client, PUT, put(b"k", b"v")).await), FINE);
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
        assert_eq!(finished(response).await.status.as_deref(), Some("13"));
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
