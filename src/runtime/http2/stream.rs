//! One stream: a call on its way in, and its answer on its way out.

#![forbid(unsafe_code)]

use crate::etcd::message::{self, Parsed};
use crate::etcd::{Code, Method, Status, timeout};
use crate::runtime::tally::client_version;
use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, request};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// A longer name of a call's kind of content is not kept for the answer.
const KIND_BYTES_MAX: usize = 32;

/// A call that is served, by its headers.
pub struct Asked {
    pub method: Method,
    /// Which of [`CLIENT_VERSIONS`] its client says that it is of.
    ///
    /// [`CLIENT_VERSIONS`]: crate::runtime::tally::CLIENT_VERSIONS
    pub version: usize,
    /// Its messages may be compressed.
    pub gzip: bool,
    /// How long it may take, if there is a limit.
    pub timeout_ns: Option<u64>,
    /// What kind of content its answer will be.
    pub kind: Kind,
}

/// The kind of content of a call, which is that of its answer; `None` is gRPC and no more.
pub type Kind = Option<Box<HeaderValue>>;

/// Why a request is not served, by its headers.
pub struct Refusal {
    http: StatusCode,
    kind: Kind,
    status: Status,
}

impl Refusal {
    /// Answers with it.
    pub fn send(&self, respond: &mut SendResponse<Bytes>) {
        refuse_with(respond, self.http, &self.kind, &self.status);
    }
}

/// Reads a request's headers. What is wrong with them is told in the order in which etcd looks at
/// them.
pub fn read_head(head: &request::Parts, has_leader: bool) -> Result<Asked, Refusal> {
    let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    let content = header("content-type").unwrap_or_default();
    let Some(kind) = kind(content) else {
        let content = String::from_utf8_lossy(content);
        return Err(Refusal {
            http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: None,
            status: Status::new(
                Code::InvalidArgument,
                format!("invalid gRPC request content-type {content:?}"),
            ),
        });
    };
    let refuse = |http, code, text| {
        Err(Refusal {
            http,
            kind: kind.clone(),
            status: Status::new(code, text),
        })
    };
    // Of several the last counts.
    let timeout = head.headers.get_all("grpc-timeout").iter().next_back();
    let timeout = timeout.map(|value| timeout::of_call(value.as_bytes()));
    let timeout_ns = match timeout.transpose() {
        Ok(timeout_ns) => timeout_ns,
        Err(malformed) => return refuse(StatusCode::BAD_REQUEST, Code::Internal, malformed),
    };
    if head.method != http::Method::POST {
        let text = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            head.method.as_str()
        );
        return refuse(StatusCode::METHOD_NOT_ALLOWED, Code::Internal, text);
    }
    match read_call(head, has_leader) {
        Ok((method, version, gzip)) => Ok(Asked {
            method,
            version,
            gzip,
            timeout_ns,
            kind,
        }),
        Err(status) => Err(Refusal {
            http: StatusCode::OK,
            kind,
            status,
        }),
    }
}

/// The kind of content of the answer to a call of that content; `None` if it is no call.
fn kind(content: &[u8]) -> Option<Kind> {
    let rest = content.strip_prefix(b"application/grpc")?;
    match rest {
        [] | [b'+' | b';'] => Some(None),
        [b'+' | b';', kind @ ..] if kind.len() > KIND_BYTES_MAX => Some(None),
        [b'+' | b';', kind @ ..] => {
            let kind = [b"application/grpc+", kind].concat();
            Some(HeaderValue::from_bytes(&kind).ok().map(Box::new))
        }
        _ => None,
    }
}

/// Reads the headers of what is a call of gRPC: what is called, which of the versions of clients
/// calls it, and whether its messages may be compressed.
fn read_call(head: &request::Parts, has_leader: bool) -> Result<(Method, usize, bool), Status> {
    let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    let method = Method::from_path(head.uri.path())?;
    let gzip = match header("grpc-encoding").unwrap_or_default() {
        b"" | b"identity" => false,
        b"gzip" => true,
        other => {
            let name = String::from_utf8_lossy(other);
            return Err(Status::new(
                Code::Unimplemented,
                format!("grpc: Decompressor is not installed for grpc-encoding {name:?}"),
            ));
        }
    };
    let version = header("client-api-version");
    if version.is_some_and(|version| std::str::from_utf8(version).is_err()) {
        return Err(Status::new(
            Code::InvalidArgument,
            "etcdserver: invalid client api version",
        ));
    }
    if !has_leader && header("hasleader") == Some(b"true") {
        return Err(crate::api::Error::NoLeader.into());
    }
    Ok((method, client_version(version), gzip))
}

/// Messages on their way in.
pub struct Incoming {
    body: RecvStream,
    /// Received and not looked at: what stood behind a message.
    rest: Bytes,
    /// Messages may be compressed.
    gzip: bool,
    /// What has come of a message that is not complete.
    pub buffer: Vec<u8>,
    /// When it began.
    pub since_ns: u64,
}

/// What has come.
pub enum Received {
    /// A message.
    Whole(Bytes),
    /// A message that is compressed.
    Packed(Bytes),
    /// More is to come.
    Part,
    /// Nothing more will come.
    End,
    /// Nothing more will come of a message that is not complete.
    Cut,
    /// Something that is answered with this.
    Refused(Status),
    /// The client has given up.
    Gone,
}

impl Incoming {
    /// A stream of which nothing has been read.
    pub fn new(body: RecvStream, gzip: bool, now_ns: u64) -> Incoming {
        Incoming {
            body,
            rest: Bytes::new(),
            gzip,
            buffer: Vec::new(),
            since_ns: now_ns,
        }
    }

    /// Whether a message has come behind the one that was read last.
    pub fn has_another(&mut self, bytes_max: usize) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let next = self.poll(&mut cx, bytes_max);
        matches!(next, Received::Whole(_) | Received::Packed(_))
    }

    /// Reads the next message.
    pub fn poll(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Received {
        loop {
            let chunk = match std::mem::take(&mut self.rest) {
                rest if !rest.is_empty() => rest,
                _ => match self.body.poll_data(cx) {
                    Poll::Pending => return Received::Part,
                    Poll::Ready(Some(Ok(chunk))) => {
                        // The client may send as much again. What is kept is counted.
                        let _ = self.body.flow_control().release_capacity(chunk.len());
                        chunk
                    }
                    Poll::Ready(Some(Err(_))) => return Received::Gone,
                    // As in etcd, a part of a prefix is nothing.
                    Poll::Ready(None) if self.buffer.len() < message::PREFIX_BYTES => {
                        return Received::End;
                    }
                    Poll::Ready(None) => return Received::Cut,
                },
            };
            // A message in one piece is not copied.
            let kept = !self.buffer.is_empty();
            let bytes = if kept {
                self.buffer.extend_from_slice(&chunk);
                &self.buffer[..]
            } else {
                &chunk[..]
            };
            match message::parse(bytes, bytes_max) {
                Ok(Parsed::Message { packed: true, .. }) if !self.gzip => {
                    return Received::Refused(Status::new(
                        Code::Internal,
                        "grpc: compressed flag set with identity or empty encoding",
                    ));
                }
                Ok(Parsed::Message {
                    consumed, packed, ..
                }) => {
                    let mut whole = match kept {
                        true => Bytes::from(std::mem::take(&mut self.buffer)),
                        false => chunk,
                    };
                    self.rest = whole.split_off(consumed);
                    whole.advance(message::PREFIX_BYTES);
                    return match packed {
                        false => Received::Whole(whole),
                        true => Received::Packed(whole),
                    };
                }
                Ok(Parsed::NeedMore { .. }) if kept => {}
                Ok(Parsed::NeedMore { .. }) => self.buffer.extend_from_slice(&chunk),
                Err(status) => return Received::Refused(status),
            }
        }
    }
}

/// What is told on a call that ends before its message has begun, or inside it.
pub fn ended_early(method: Method, cut: bool) -> Status {
    match (method.is_stream() || method.gives_many(), cut) {
        (false, false) => Status::new(Code::Unknown, "EOF"),
        (false, true) => Status::new(Code::Unknown, "unexpected EOF"),
        (true, true) => Status::new(Code::Internal, "unexpected EOF"),
        (true, false) => Status::new(
            Code::Internal,
            "cardinality violation: received no request message from non-client-streaming RPC",
        ),
    }
}

/// What is told on a call that takes one message and is given another.
pub fn given_several() -> Status {
    Status::new(
        Code::Internal,
        "cardinality violation: received multiple request messages for non-client-streaming RPC",
    )
}

/// Refuses a call: headers alone. What fails here fails because the client is gone.
pub fn refuse(respond: &mut SendResponse<Bytes>, kind: &Kind, status: &Status) {
    refuse_with(respond, StatusCode::OK, kind, status);
}

fn refuse_with(respond: &mut SendResponse<Bytes>, http: StatusCode, kind: &Kind, status: &Status) {
    let mut response = Response::new(());
    *response.status_mut() = http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content(kind));
    put_status(headers, status);
    let _ = respond.send_response(response, true);
}

fn content(kind: &Kind) -> HeaderValue {
    kind.as_deref().cloned().unwrap_or(GRPC)
}

/// Messages on their way out.
pub struct Outgoing {
    stream: SendStream<Bytes>,
    /// What is left of each message, and whether it holds much more memory than it needs.
    queue: VecDeque<(Bytes, bool)>,
    /// Bytes in the queue.
    queued: usize,
    /// Messages at the end of the queue that came since the client last made the others wait.
    fresh: usize,
    /// How the call ended, if it has.
    end: Option<Result<(), Status>>,
    /// What is left of the message whose pieces come.
    left: usize,
}

/// How far the messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All of them, and the trailers, are with the codec, or the client is gone.
    All,
    /// All of them so far.
    Idle,
    /// The client must take some of them first: so many bytes.
    Part(usize),
}

impl Outgoing {
    /// Begins to answer a call; `None` if the client is gone.
    pub fn begin(respond: &mut SendResponse<Bytes>, kind: &Kind) -> Option<Outgoing> {
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, content(kind));
        let stream = respond.send_response(response, false).ok()?;
        Some(Outgoing {
            stream,
            queue: VecDeque::new(),
            queued: 0,
            fresh: 0,
            end: None,
            left: 0,
        })
    }

    /// Adds a message, which is a piece of so many bytes of memory.
    pub fn push(&mut self, message: Bytes, shared: usize) {
        self.queued += message.len();
        self.fresh += 1;
        self.left = message::left(&message, self.left);
        let shares = shared / 2 > message.len();
        self.queue.push_back((message, shares));
    }

    /// Whether the client has given up; `cx` is woken when it does.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_reset(cx).is_ready()
    }

    /// Whether the client has been given all messages so far, and each of them whole.
    pub fn is_between_messages(&self) -> bool {
        self.queue.is_empty() && self.left == 0
    }

    /// Ends the call at once, wherever the answer stands.
    pub fn cancel(&mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }

    /// Ends the call behind the messages added so far.
    pub fn end(&mut self, how: Result<(), Status>) {
        self.end.get_or_insert(how);
    }

    /// Hands on what the client's windows allow; `given` counts the bytes. `waker` is woken when
    /// more is allowed.
    pub fn poll(&mut self, waker: &mut impl FnMut() -> Waker, given: &mut usize) -> Sent {
        while let Some((message, _)) = self.queue.front_mut() {
            self.stream.reserve_capacity(message.len());
            let room = self.stream.capacity().min(message.len());
            if room == 0 && !message.is_empty() {
                let waker = waker();
                match self.stream.poll_capacity(&mut Context::from_waker(&waker)) {
                    Poll::Pending => {
                        self.keep();
                        return Sent::Part(self.queued);
                    }
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(_)) | None) => return self.give_up(given),
                }
            }
            let piece = message.split_to(room);
            if message.is_empty() {
                self.queue.pop_front();
            }
            *given += piece.len();
            self.queued -= piece.len();
            if self.stream.send_data(piece, false).is_err() {
                return self.give_up(given);
            }
        }
        let Some(end) = &self.end else {
            return Sent::Idle;
        };
        if end.is_err() && self.left > 0 {
            // Behind a part of a message no status is looked at: clients would tell of a broken
            // answer. This they take for what is worth another try.
            self.stream.send_reset(Reason::REFUSED_STREAM);
            return Sent::All;
        }
        let mut trailers = HeaderMap::with_capacity(2);
        match end {
            Ok(()) => {
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(""));
            }
            Err(status) => put_status(&mut trailers, status),
        }
        let _ = self.stream.send_trailers(trailers);
        Sent::All
    }

    /// What may have to wait for long must not hold more memory than it needs.
    fn keep(&mut self) {
        let fresh = std::mem::take(&mut self.fresh).min(self.queue.len());
        let from = self.queue.len() - fresh;
        for (message, shares) in self.queue.range_mut(from..) {
            if std::mem::take(shares) {
                *message = Bytes::copy_from_slice(message);
            }
        }
    }

    /// Nobody will take the rest.
    pub fn give_up(&mut self, given: &mut usize) -> Sent {
        self.queue.clear();
        *given += std::mem::take(&mut self.queued);
        Sent::All
    }
}

fn put_status(headers: &mut HeaderMap, status: &Status) {
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code as u16));
    if let Ok(text) = HeaderValue::try_from(status.percent_encoded()) {
        headers.insert(GRPC_MESSAGE, text);
    }
}
