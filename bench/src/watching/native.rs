//! Watches over quoin's native protocol: one thread, one stream on each connection.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use quoin::api::{EventKind, WatchCreate, WatchRequest};
use quoin::wire::{
    self, Decoded, FrameDecoder, HelloStatus, Reply, SERVER_PREAMBLE_BYTES, client_preamble,
    read_server_preamble,
};

use super::ledger::{Layout, Ledger, Place, Seen};
use super::{Plan, Until, Watcher};
use crate::os::Poll;

/// The stream that a connection's watches are on.
const STREAM: u64 = 1;

/// The connections and their watches.
pub struct Native {
    poll: Poll,
    connections: Vec<Connection>,
}

/// One connection with a stream of watches. A watch's id is its place on the connection.
pub struct Connection {
    socket: TcpStream,
    decoder: FrameDecoder,
    input: Vec<u8>,
    have: usize,
    out: Vec<u8>,
    sent: usize,
    /// Its first watch, by number; the others follow.
    first: u64,
    /// How many watches the server has confirmed.
    pub created: u64,
    /// Events of a frame.
    seen: Vec<Seen>,
}

/// What a connection's watches are told.
pub trait Hear {
    /// Takes a reply other than the confirmation of a watch.
    fn hear(&mut self, first: u64, reply: &Reply<'_>) -> Result<(), String>;
}

impl Native {
    /// Connects, and opens all watches.
    pub fn open(plan: &Plan) -> Result<Native, String> {
        let layout = plan.layout();
        let mut poll = Poll::new(plan.connections).map_err(|error| format!("epoll: {error}"))?;
        let mut connections = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let server = plan.writes.endpoints[number % plan.writes.endpoints.len()];
            let socket = TcpStream::connect_timeout(&server, Duration::from_secs(5))
                .map_err(|error| format!("cannot reach quoin at {server}: {error}"))?;
            let first = number as u64 * plan.watches;
            let connection = Connection::begin(socket, server, &layout, first, plan.watches)?;
            poll.add(connection.socket.as_fd(), number)
                .map_err(|error| format!("epoll: {error}"))?;
            connections.push(connection);
        }
        let limit = Instant::now() + plan.writes.timeout + Duration::from_secs(60);
        let mut waiting: usize = connections.len();
        while waiting > 0 {
            if Instant::now() > limit {
                return Err("the server does not confirm the watches".into());
            }
            let woken: Vec<usize> = poll
                .wait(Duration::from_millis(50))
                .map_err(|error| format!("epoll: {error}"))?
                .collect();
            for number in woken {
                let connection = &mut connections[number];
                let before = connection.created;
                connection.turn(&mut Nothing)?;
                if before < plan.watches && connection.created == plan.watches {
                    waiting -= 1;
                }
            }
        }
        Ok(Native { poll, connections })
    }
}

/// Expects to hear nothing.
struct Nothing;

impl Hear for Nothing {
    fn hear(&mut self, _first: u64, reply: &Reply<'_>) -> Result<(), String> {
        Err(format!("unexpected words before the load began: {reply:?}"))
    }
}

impl Watcher for Native {
    fn run(&mut self, mut ledger: Ledger, until: &Until) -> Result<Ledger, String> {
        loop {
            let now = until.now();
            ledger.turn(now);
            if until.over(&ledger, now) {
                return Ok(ledger);
            }
            let woken = self
                .poll
                .wait(Duration::from_millis(20))
                .map_err(|error| format!("epoll: {error}"))?;
            for number in woken {
                let connection = &mut self.connections[number];
                let mut seen = std::mem::take(&mut connection.seen);
                let result = connection.turn(&mut Heard {
                    ledger: &mut ledger,
                    until,
                    seen: &mut seen,
                });
                connection.seen = seen;
                result?;
            }
        }
    }
}

/// Writes events into the ledger.
struct Heard<'l> {
    ledger: &'l mut Ledger,
    until: &'l Until,
    seen: &'l mut Vec<Seen>,
}

impl Hear for Heard<'_> {
    fn hear(&mut self, first: u64, reply: &Reply<'_>) -> Result<(), String> {
        let now = self.until.now();
        let Reply::WatchEvents {
            watch_ids, events, ..
        } = reply
        else {
            return Err(format!("a watch is over, or worse: {reply:?}"));
        };
        self.seen.clear();
        for event in events.iter() {
            let put = event.kind == EventKind::Put;
            let place = Place {
                version: if put { event.kv.version } else { 0 },
                revision: event.kv.mod_revision,
            };
            let value = put.then_some(event.kv.value);
            match self.ledger.read(event.kv.key, place, value) {
                Ok(seen) => self.seen.push(seen),
                Err(wrong) => self.ledger.wrong(now, wrong),
            }
        }
        for seen in self.seen.iter() {
            let watches = watch_ids.iter().map(|id| first.wrapping_add(id as u64));
            self.ledger.told(watches, seen, now);
        }
        Ok(())
    }
}

impl Connection {
    /// Greets, and asks for `watches` watches, of which the first has that number.
    pub fn begin(
        mut socket: TcpStream,
        server: SocketAddr,
        layout: &Layout,
        first: u64,
        watches: u64,
    ) -> Result<Connection, String> {
        greet(&mut socket).map_err(|why| format!("quoin at {server}: {why}"))?;
        let mut out = Vec::new();
        for watch in first..first + watches {
            let (key, range_end) = layout.interval(watch);
            let create = WatchCreate {
                key: &key,
                range_end: &range_end,
                ..WatchCreate::default()
            };
            wire::encode_watch(&WatchRequest::Create(create), STREAM, &mut out)
                .map_err(|error| format!("the request cannot be encoded: {error}"))?;
        }
        Ok(Connection {
            socket,
            decoder: FrameDecoder::replies(usize::MAX),
            input: vec![0; 4096],
            have: 0,
            out,
            sent: 0,
            first,
            created: 0,
            seen: Vec::new(),
        })
    }

    /// The socket, to wait for.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Writes what the socket takes, reads all that it has.
    pub fn turn(&mut self, hear: &mut impl Hear) -> Result<(), String> {
        self.flush().map_err(|error| format!("lost: {error}"))?;
        loop {
            if self.have == self.input.len() {
                self.input.resize(self.have * 2, 0);
            }
            match self.socket.read(&mut self.input[self.have..]) {
                Ok(0) => return Err("the server closed a connection with watches".into()),
                Ok(more) => self.have += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("a connection with watches is lost: {error}")),
            }
            let drained = self.have < self.input.len();
            self.take(hear)?;
            if drained {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => self.sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
        Ok(())
    }

    fn take(&mut self, hear: &mut impl Hear) -> Result<(), String> {
        let malformed = |error| format!("a malformed reply: {error}");
        let mut at = 0;
        loop {
            let decoded = self.decoder.decode(&self.input[at..self.have]);
            let (frame, consumed) = match decoded.map_err(malformed)? {
                Decoded::NeedMore { .. } => break,
                Decoded::Frame { frame, consumed } => (frame, consumed),
            };
            at += consumed;
            let (_, reply) = wire::decode_reply(&frame).map_err(malformed)?;
            match &reply {
                Reply::WatchCreated {
                    watch_id: -1,
                    reason,
                } => {
                    return Err(format!("a watch was refused: {reason}"));
                }
                Reply::WatchCreated { watch_id, .. } if *watch_id == self.created as i64 => {
                    self.created += 1;
                }
                Reply::Refused(refusal) => {
                    return Err(format!("refused by the server: {}", refusal.message));
                }
                reply => hear.hear(self.first, reply)?,
            }
        }
        self.input.copy_within(at..self.have, 0);
        self.have -= at;
        Ok(())
    }
}

/// Speaks the preambles; from then on the socket does not block.
fn greet(socket: &mut TcpStream) -> Result<(), String> {
    let describe = |error: io::Error| error.to_string();
    socket.set_nodelay(true).map_err(describe)?;
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(describe)?;
    socket.write_all(&client_preamble()).map_err(describe)?;
    let mut hello = [0; SERVER_PREAMBLE_BYTES];
    socket.read_exact(&mut hello).map_err(describe)?;
    let hello = read_server_preamble(&hello).map_err(|error| error.to_string())?;
    match hello.map(|hello| hello.status) {
        Some(HelloStatus::Accepted) => socket.set_nonblocking(true).map_err(describe),
        other => Err(format!("it refuses the connection: {other:?}")),
    }
}
