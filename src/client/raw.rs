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

use crate::api::{Header, Request};
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

/// The two buffers of a connection and what is known of the server.
#[derive(Debug)]
pub struct Connection {
    decoder: FrameDecoder,
    read_bytes: usize,
    hello: Option<ServerHello>,
    in_flight: usize,
    /// Bytes before `out_sent` have left.
    out: Vec<u8>,
    out_sent: usize,
    /// Invariant: `input_read <= input_filled <= input.len()`; between the first two lie bytes
    /// that were received and not yet given out as replies.
    input: Vec<u8>,
    input_read: usize,
    input_filled: usize,
    /// How long the frame at `input_read` is, as far as known.
    wanted: usize,
}

impl Connection {
    /// A connection that has just been opened: the preamble is the first that it sends.
    pub fn new(options: Options) -> Self {
        Connection {
            decoder: FrameDecoder::replies(options.reply_bytes_max),
            read_bytes: options.read_bytes.max(SERVER_PREAMBLE_BYTES),
            hello: None,
            in_flight: 0,
            out: wire::client_preamble().to_vec(),
            out_sent: 0,
            input: Vec::new(),
            input_read: 0,
            input_filled: 0,
            wanted: SERVER_PREAMBLE_BYTES,
        }
    }

    /// What the server said on connect, once it is there. Requests may be sent before.
    pub fn hello(&self) -> Option<&ServerHello> {
        self.hello.as_ref()
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

    /// Room to receive into; never empty. It grows with the bytes that come, up to the frame
    /// that is being received.
    pub fn space(&mut self) -> &mut [u8] {
        if self.input_read == self.input_filled {
            self.input_read = 0;
            self.input_filled = 0;
        } else if self.input_read > 0
            && (self.input.len() - self.input_filled < self.read_bytes / 2
                || self.input_read + self.wanted > self.input.len())
        {
            self.input
                .copy_within(self.input_read..self.input_filled, 0);
            self.input_filled -= self.input_read;
            self.input_read = 0;
        }
        if self.input.is_empty() {
            self.input.resize(self.read_bytes, 0);
        } else if self.input_filled == self.input.len() {
            // Full of one frame's beginning: twice as much, as long as the frame needs it.
            let length = (self.input.len() * 2)
                .min(self.wanted)
                .max(self.input_filled + 1);
            self.input.resize(length, 0);
        }
        &mut self.input[self.input_filled..]
    }

    /// `bytes` were received into [`Connection::space`].
    ///
    /// # Panics
    /// If there was not that much room.
    pub fn received(&mut self, bytes: usize) {
        assert!(
            bytes <= self.input.len() - self.input_filled,
            "more received than there was room"
        );
        self.input_filled += bytes;
    }

    /// The next reply that is complete. After an error the connection is of no more use.
    #[inline]
    pub fn next_reply(&mut self) -> Result<Option<RawReply<'_>>, Fault> {
        if self.hello.is_none() && !self.read_hello()? {
            return Ok(None);
        }
        let bytes = &self.input[self.input_read..self.input_filled];
        let frame = match self.decoder.decode(bytes)? {
            Decoded::NeedMore { total } => {
                self.wanted = total;
                return Ok(None);
            }
            Decoded::Frame { frame, consumed } => {
                self.input_read += consumed;
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
            body => {
                self.in_flight = self.in_flight.saturating_sub(1);
                Ok(Some(RawReply {
                    id: frame.id,
                    header,
                    body,
                }))
            }
        }
    }

    fn read_hello(&mut self) -> Result<bool, Fault> {
        let bytes = &self.input[self.input_read..self.input_filled];
        let Some(hello) = wire::read_server_preamble(bytes)? else {
            return Ok(false);
        };
        if hello.status != HelloStatus::Accepted {
            return Err(Fault::NotServed(hello.status));
        }
        self.input_read += SERVER_PREAMBLE_BYTES;
        self.wanted = FRAME_HEADER_BYTES;
        self.hello = Some(hello);
        Ok(true)
    }
}
