//! A blocking connection over the client library's socketless one.

use quoin::api::{Error, OwnedKeyValue, PutRequest, RangeRequest, Request};
use quoin::client::raw::{Connection, Options};
use quoin::wire::Reply;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A put or delete took place.
    Written,
    /// The pairs read, and the count.
    Pairs(Vec<OwnedKeyValue>, i64),
    /// Refused, with the error if it is a known one.
    Refused(Option<Error>),
    /// Anything else.
    Other,
}

/// See the module.
pub struct Link {
    stream: TcpStream,
    connection: Connection,
}

impl Link {
    /// Connects; the first exchange is the greeting.
    pub fn open(address: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Link {
            stream,
            connection: Connection::new(Options::default()),
        })
    }

    /// Queues a request.
    pub fn request(&mut self, request: &Request<'_>, id: u64) {
        self.connection
            .request(request, id)
            .expect("a request of these tests can be encoded");
    }

    /// Sends what is queued.
    pub fn send(&mut self) -> io::Result<()> {
        while !self.connection.to_send().is_empty() {
            let sent = self.stream.write(self.connection.to_send())?;
            self.connection.sent(sent);
        }
        Ok(())
    }

    /// The next answer: request id, revision of the header, answer.
    pub fn answer(&mut self) -> io::Result<(u64, i64, Answer)> {
        self.send()?;
        loop {
            if let Some(reply) = self.connection.next_reply().map_err(io::Error::other)? {
                let answer = match reply.body {
                    Reply::Put { .. } | Reply::DeleteRange { .. } => Answer::Written,
                    Reply::Range { kvs, count, .. } => Answer::Pairs(kvs.to_vec(), count),
                    Reply::Refused(refusal) => Answer::Refused(refusal.error()),
                    _ => Answer::Other,
                };
                return Ok((reply.id, reply.header.revision, answer));
            }
            let received = self.stream.read(self.connection.space())?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.connection.received(received);
        }
    }

    /// One put, answered.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<i64> {
        let put = PutRequest {
            key,
            value,
            ..PutRequest::default()
        };
        self.request(&Request::Put(put), 1);
        match self.answer()? {
            (1, revision, Answer::Written) => Ok(revision),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Every pair with the prefix, and the store's revision.
    pub fn all(&mut self, prefix: &[u8]) -> io::Result<(Vec<OwnedKeyValue>, i64)> {
        let mut end = prefix.to_vec();
        *end.last_mut().expect("a prefix is not empty") += 1;
        let range = RangeRequest {
            key: prefix,
            range_end: &end,
            ..RangeRequest::default()
        };
        self.request(&Request::Range(range), 1);
        match self.answer()? {
            (1, revision, Answer::Pairs(pairs, count)) => {
                assert_eq!(pairs.len() as i64, count, "nothing is left out");
                Ok((pairs, revision))
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }
}
