//! One connection without a socket: requests are encoded into a buffer, replies are read from
//! another in place. The caller moves the bytes, chooses the ids, and decides when to write.
//!
//! This is what load generators and other event loops want; [`super::Client`] and
//! [`super::BlockingClient`] are built on it.
//!
//! ```
//! # use quoin::{api, client::raw};
//! # fn moves_bytes(mut socket: std::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! use std::io::{Read, Write};
//! let mut connection = raw::Connection::new(raw::Options::default());
//! let put = api::PutRequest { key: b"key", value: b"value", ..api::PutRequest::default() };
//! connection.request(&api::Request::Put(put), 1)?;
//! while connection.in_flight() > 0 {
//!     let sent = socket.write(connection.to_send())?;
//!     connection.sent(sent);
//!     let received = socket.read(connection.space())?;
//!     connection.received(received);
//!     while let Some(reply) = connection.next_reply()? {
//!         println!("{}: {:?}", reply.id, reply.body);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

use std::fmt;

use crate::api::{Header, Request, WatchRequest};
use crate::wire::{
    self, Decoded, FRAME_HEADER_BYTES, FrameDecoder, HelloStatus, Malformed, Reply,
    SERVER_PREAMBLE_BYTES, ServerHello, Unencodable,
};

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest reply frame that is taken; the receive buffer never grows beyond it.
    pub reply_bytes_max: usize,
    /// What the receive buffer starts with, and the least that is read at once.
    pub read_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            reply_bytes_max: 256 << 20,
            read_bytes: 64 << 10,
        }
    }
}

/// Why a connection cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server sent bytes that no rule allows.
    Malformed(Malformed),
    /// The server does not serve this client.
    NotServed(HelloStatus),
    /// The server closes the connection, and says why.
    Closed {
        /// The number of the reason.
        code: u16,
        /// The reason.
        message: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(malformed) => {
                write!(f, "the server's bytes are malformed: {malformed}")
            }
            Fault::NotServed(status) => write!(f, "the server refuses the connection: {status:?}"),
            Fault::Closed { code, message } => {
                write!(
                    f,
                    "the server closes the connection: {message} ({code:#06x})"
                )
            }
        }
    }
}

impl std::error::Error for Fault {}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Fault::Malformed(malformed)
    }
}

/// A reply, still in the receive buffer.
#[derive(Debug)]
pub struct RawReply<'a> {
    /// The request's.
    pub id: u64,
    /// Who answered, and when in history.
    pub header: Header,
    /// The answer.
    pub body: Reply<'a>,
}

/// The receiving half of a connection: a buffer, and the replies in it.
#[derive(Debug)]
pub struct Receiver {
    decoder: FrameDecoder,
    read_bytes: usize,
    hello: Option<ServerHello>,
    /// Invariant: `read <= filled <= input.len()`; between the first two lie bytes that were
    /// received and not yet given out as replies.
    input: Vec<u8>,
    read: usize,
    filled: usize,
    /// How long the frame at `read` is, as far as known.
    wanted: usize,
}

impl Receiver {
    /// For a connection that has just been opened.
    pub fn new(options: &Options) -> Self {
        Receiver {
            decoder: FrameDecoder::replies(options.reply_bytes_max),
            read_bytes: options.read_bytes.max(SERVER_PREAMBLE_BYTES),
            hello: None,
            input: Vec::new(),
            read: 0,
            filled: 0,
            wanted: SERVER_PREAMBLE_BYTES,
        }
    }

    /// What the server said on connect, once it is there.
    pub fn hello(&self) -> Option<&ServerHello> {
        self.hello.as_ref()
    }

    /// Room to receive into; never empty. It grows with the bytes that come, up to the frame
    /// that is being received.
    pub fn space(&mut self) -> &mut [u8] {
        if self.read == self.filled {
            self.read = 0;
            self.filled = 0;
            if self.input.len() > 16 * self.read_bytes {
                // One huge reply has passed; its memory is not kept.
                self.input = Vec::new();
            }
        } else if self.read > 0
            && (self.input.len() - self.filled < self.read_bytes / 2
                || self.read + self.wanted > self.input.len())
        {
            self.input.copy_within(self.read..self.filled, 0);
            self.filled -= self.read;
            self.read = 0;
        }
        if self.input.is_empty() {
            self.input.resize(self.read_bytes, 0);
        } else if self.filled == self.input.len() {
            // Full of one frame's beginning: twice as much, as long as the frame needs it.
            let length = (self.input.len() * 2).min(self.wanted).max(self.filled + 1);
            self.input.resize(length, 0);
        }
        &mut self.input[self.filled..]
    }

    /// `bytes` were received into [`Receiver::space`].
    ///
    /// # Panics
    /// If there was not that much room.
    pub fn received(&mut self, bytes: usize) {
        assert!(
            bytes <= self.input.len() - self.filled,
            "more received than there was room"
        );
        self.filled += bytes;
    }

    /// Whether the server's preamble is there; an error if it refuses the connection.
    pub fn greeted(&mut self) -> Result<bool, Fault> {
        if self.hello.is_some() {
            return Ok(true);
        }
        let Some(hello) = wire::read_server_preamble(&self.input[self.read..self.filled])? else {
            return Ok(false);
        };
        if hello.status != HelloStatus::Accepted {
            return Err(Fault::NotServed(hello.status));
        }
        self.read += SERVER_PREAMBLE_BYTES;
        self.wanted = FRAME_HEADER_BYTES;
        self.hello = Some(hello);
        Ok(true)
    }

    /// The next reply that is complete. After an error the connection is of no more use.
    #[inline]
    pub fn next_reply(&mut self) -> Result<Option<RawReply<'_>>, Fault> {
        if !self.greeted()? {
            return Ok(None);
        }
        let frame = match self.decoder.decode(&self.input[self.read..self.filled])? {
            Decoded::NeedMore { total } => {
                self.wanted = total;
                return Ok(None);
            }
            Decoded::Frame { frame, consumed } => {
                self.read += consumed;
                self.wanted = FRAME_HEADER_BYTES;
                frame
            }
        };
        let (header, body) = wire::decode_reply(&frame)?;
        match body {
            Reply::Refused(refusal) if frame.id == 0 => Err(Fault::Closed {
                code: refusal.code,
                message: refusal.message.to_owned(),
            }),
            body => Ok(Some(RawReply {
                id: frame.id,
                header,
                body,
            })),
        }
    }
}

/// Both buffers of a connection.
#[derive(Debug)]
pub struct Connection {
    receiver: Receiver,
    in_flight: usize,
    /// Bytes before `out_sent` have left.
    out: Vec<u8>,
    out_sent: usize,
}

impl Connection {
    /// A connection that has just been opened: the preamble is the first that it sends.
    pub fn new(options: Options) -> Self {
        Connection {
            receiver: Receiver::new(&options),
            in_flight: 0,
            out: wire::client_preamble().to_vec(),
            out_sent: 0,
        }
    }

    /// What the server said on connect, once it is there. Requests may be sent before.
    pub fn hello(&self) -> Option<&ServerHello> {
        self.receiver.hello()
    }

    /// Requests encoded and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Encodes a request. `id` must not be 0 nor that of a request in flight.
    #[inline]
    pub fn request(&mut self, request: &Request<'_>, id: u64) -> Result<(), Unencodable> {
        wire::encode_request(request, id, &mut self.out)?;
        self.in_flight += 1;
        Ok(())
    }

    /// Encodes a ping.
    pub fn ping(&mut self, id: u64) {
        wire::encode_ping(id, &mut self.out);
        self.in_flight += 1;
    }

    /// Encodes a request for the server's status.
    pub fn status(&mut self, id: u64) {
        wire::encode_status(id, &mut self.out);
        self.in_flight += 1;
    }

    /// Encodes a request of a watch stream, whose id must not be 0 nor that of a request in flight.
    /// What the stream says comes as replies with that id, and does not count as in flight.
    pub fn watch(&mut self, request: &WatchRequest<'_>, stream: u64) -> Result<(), Unencodable> {
        wire::encode_watch(request, stream, &mut self.out)
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub fn to_send(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    /// The first `bytes` of [`Connection::to_send`] have been sent.
    ///
    /// # Panics
    /// If there were not that many.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.to_send().len(), "more sent than there was");
        self.out_sent += bytes;
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        } else if self.out_sent > self.out.len() / 2 {
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
        }
    }

    /// As [`Receiver::space`].
    pub fn space(&mut self) -> &mut [u8] {
        self.receiver.space()
    }

    /// As [`Receiver::received`].
    ///
    /// # Panics
    /// If there was not that much room.
    pub fn received(&mut self, bytes: usize) {
        self.receiver.received(bytes);
    }

    /// As [`Receiver::next_reply`].
    #[inline]
    pub fn next_reply(&mut self) -> Result<Option<RawReply<'_>>, Fault> {
        let reply = self.receiver.next_reply()?;
        if reply.as_ref().is_some_and(|reply| !reply.body.is_watch()) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Ok(reply)
    }
}
