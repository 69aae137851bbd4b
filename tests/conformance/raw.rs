//! A gRPC client in small: HTTP/2 by the h2 crate, messages by hand.

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use std::net::SocketAddr;
use tokio::net::TcpStream;

pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// An answer: the messages' bytes with their prefixes, and gRPC's word on how it went.
#[derive(Debug)]
pub struct Answer {
    pub http: u16,
    /// The kind of content.
    pub content: Option<String>,
    pub bytes: Vec<u8>,
    pub status: Option<String>,
    pub message: Option<String>,
}

/// Runs a test on a runtime of its own.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let limit = std::time::Duration::from_secs(30);
        let in_time = tokio::time::timeout(limit, test).await;
        in_time.expect("it takes no longer than 30 s");
    });
}

/// Connects; the second value ends with the connection.
pub async fn connect(
    address: SocketAddr,
    builder: &Builder,
) -> (
    SendRequest<Bytes>,
    tokio::task::JoinHandle<Result<(), h2::Error>>,
) {
    let stream = TcpStream::connect(address).await.expect("it serves");
    // Two calls at once do not wait for each other to be acknowledged.
    stream.set_nodelay(true).expect("a socket");
    let (client, connection) = builder.handshake(stream).await.expect("it speaks HTTP/2");
    (client, tokio::spawn(connection))
}

pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A field that holds a number.
pub fn number(field: u8, mut value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A message behind its prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    out.extend_from_slice(message);
    out
}

pub fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    framed(&[field(1, key), field(2, value)].concat())
}

pub fn get(key: &[u8]) -> Vec<u8> {
    framed(&field(1, key))
}

pub fn request(path: &str) -> http::request::Builder {
    Request::post(format!("http://quoin{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Sends a request's headers.
pub async fn open(
    client: &SendRequest<Bytes>,
    request: http::request::Builder,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("the connection lives");
    let request = request.body(()).expect("a request");
    client.send_request(request, false).expect("it is sent")
}

pub async fn call(client: &SendRequest<Bytes>, path: &str, body: Vec<u8>) -> Answer {
    ask(client, request(path), body).await
}

/// Sends a request, headers and body.
pub async fn ask(
    client: &SendRequest<Bytes>,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Answer {
    let (response, mut stream) = open(client, request).await;
    stream.send_data(body.into(), true).expect("it is sent");
    finished(response).await
}

pub async fn finished(response: ResponseFuture) -> Answer {
    let response = response.await.expect("an answer");
    let (head, mut body) = response.into_parts();
    let bytes = read_all(&mut body).await;
    let trailers = body.trailers().await.expect("the end");
    let of = |name: &str| {
        let from = |headers: &HeaderMap| {
            let value = headers.get(name)?.to_str().expect("text");
            Some(value.to_owned())
        };
        trailers
            .as_ref()
            .and_then(from)
            .or_else(|| from(&head.headers))
    };
    Answer {
        http: head.status.as_u16(),
        content: of("content-type"),
        bytes,
        status: of("grpc-status"),
        message: of("grpc-message"),
    }
}

async fn read_all(body: &mut RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.expect("an answer");
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    bytes
}
