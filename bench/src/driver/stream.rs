//! Drives a protocol of bytes over many sockets from one thread.
//!
//! No task and no allocation per request: each turn of the loop reads what has come, hands the
//! answers to the recorder, encodes the next requests of each connection into one buffer, and
//! writes that buffer with one call.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::{Phase, Task, Worker, share};
use crate::options::Options;
use crate::os::{Poll, sharpen_timers};
use crate::record::Failure;
use crate::workload::Op;

/// A protocol: one value per connection.
pub trait Codec: Default + Send {
    /// What the server is called in errors.
    const NAME: &'static str;

    /// What a client sends first.
    fn greeting(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads the server's answer to the greeting at the front of `input`: its length, or `None`
    /// if it is not complete.
    fn welcome(&mut self, _input: &[u8]) -> Result<Option<usize>, String> {
        Ok(Some(0))
    }

    /// The most requests in flight that the server takes on one connection.
    fn in_flight_max(&self) -> usize {
        usize::MAX
    }

    /// Puts a request at the end of `out`; its answer will carry `id`.
    fn encode(&mut self, id: u32, op: &Op<'_>, out: &mut Vec<u8>) -> Result<(), String>;

    /// Takes the complete answers at the front of `input`; returns their length.
    fn decode(
        &mut self,
        input: &[u8],
        done: &mut dyn FnMut(u32, Result<(), Failure>),
    ) -> Result<usize, String>;
}

/// Marks a slot without a request.
const FREE: u64 = u64::MAX;

/// How often a waiting loop looks up, at least.
const TURN: Duration = Duration::from_millis(50);

/// Requests in flight per connection while the keys are loaded, at least.
const PRELOAD_IN_FLIGHT: usize = 32;

struct Connection<C> {
    socket: TcpStream,
    codec: C,
    /// Bytes to send, of which `sent` have gone.
    out: Vec<u8>,
    sent: usize,
    /// Received bytes are `input[..have]`.
    input: Vec<u8>,
    have: usize,
    /// Per slot the time its request counts from, or `FREE`.
    started: Vec<u64>,
    free: Vec<u32>,
    /// In the queue of connections that can take a request.
    queued: bool,
    /// In the list of connections with new bytes to send.
    dirty: bool,
    lost: bool,
}

/// One worker's connections.
pub struct Stream<C> {
    poll: Poll,
    connections: Vec<Connection<C>>,
    server: SocketAddr,
}

impl<C: Codec> Stream<C> {
    /// Connects worker `worker`'s part of the connections.
    pub fn connect(options: &Options, worker: usize) -> Result<Stream<C>, String> {
        let count = share(options.connections as u64, worker, options.threads) as usize;
        let limit = options.timeout.min(Duration::from_secs(5));
        let poll = Poll::new(count).map_err(|error| format!("epoll: {error}"))?;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let place = number * options.threads + worker;
            let server = options.endpoints[place % options.endpoints.len()];
            let connection = Connection::<C>::open(server, limit)?;
            let most = connection.codec.in_flight_max();
            if options.in_flight > most {
                return Err(format!(
                    "--in-flight {}: {} at {server} takes at most {most} on one connection",
                    options.in_flight,
                    C::NAME
                ));
            }
            poll.add(connection.socket.as_fd(), number)
                .map_err(|error| format!("epoll: {error}"))?;
            connections.push(connection);
        }
        Ok(Stream {
            poll,
            connections,
            server: options.endpoints[0],
        })
    }
}

impl<C: Codec> Connection<C> {
    fn open(server: SocketAddr, limit: Duration) -> Result<Connection<C>, String> {
        let unreachable =
            |error: io::Error| format!("cannot reach {} at {server}: {error}", C::NAME);
        let socket = TcpStream::connect_timeout(&server, limit).map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        socket.set_read_timeout(Some(limit)).map_err(unreachable)?;
        let mut connection = Connection {
            socket,
            codec: C::default(),
            out: Vec::new(),
            sent: 0,
            input: vec![0; 64 << 10],
            have: 0,
            started: Vec::new(),
            free: Vec::new(),
            queued: false,
            dirty: false,
            lost: false,
        };
        connection
            .greet()
            .map_err(|why| format!("{} at {server}: {why}", C::NAME))?;
        connection
            .socket
            .set_nonblocking(true)
            .map_err(unreachable)?;
        Ok(connection)
    }

    fn greet(&mut self) -> Result<(), String> {
        self.socket
            .write_all(&self.codec.greeting())
            .map_err(|error| format!("cannot greet: {error}"))?;
        loop {
            if let Some(length) = self.codec.welcome(&self.input[..self.have])? {
                self.input.copy_within(length..self.have, 0);
                self.have -= length;
                return Ok(());
            }
            match self.socket.read(&mut self.input[self.have..]) {
                Ok(0) => return Err("it closed the connection at once".into()),
                Ok(more) => self.have += more,
                Err(error) => return Err(format!("no answer to the greeting: {error}")),
            }
        }
    }

    fn reset(&mut self, in_flight: usize) {
        self.started.clear();
        self.started.resize(in_flight, FREE);
        self.free = (0..in_flight as u32).rev().collect();
        self.queued = false;
    }

    /// Writes what is waiting; what the socket does not take stays for its next readiness.
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
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads all that has come and tells `done` of each answer and the time its request counts
    /// from.
    fn receive(&mut self, done: &mut dyn FnMut(u64, Result<(), Failure>)) -> Result<(), String> {
        loop {
            if self.have == self.input.len() {
                self.input.resize(self.have * 2, 0);
            }
            let more = match self.socket.read(&mut self.input[self.have..]) {
                Ok(0) => return Err("closed by the server".into()),
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.kind().to_string()),
            };
            self.have += more;
            // Less than was asked for: the socket is drained, and the next bytes will tell.
            let drained = self.have < self.input.len();
            self.take_answers(done)?;
            if drained {
                return Ok(());
            }
        }
    }

    fn take_answers(
        &mut self,
        done: &mut dyn FnMut(u64, Result<(), Failure>),
    ) -> Result<(), String> {
        let Connection {
            codec,
            input,
            have,
            started,
            free,
            ..
        } = self;
        let mut stranger = None;
        let used = codec.decode(&input[..*have], &mut |id, outcome| match started
            .get_mut(id as usize)
        {
            Some(start) if *start != FREE => {
                done(std::mem::replace(start, FREE), outcome);
                free.push(id);
            }
            _ => stranger = Some(id),
        })?;
        if let Some(id) = stranger {
            return Err(format!("an answer to request {id}, which is not in flight"));
        }
        input.copy_within(used..*have, 0);
        *have -= used;
        Ok(())
    }
}

/// The state of one phase.
struct Phased<'s, C> {
    task: Task,
    connections: &'s mut [Connection<C>],
    /// Connections that can take a request.
    ready: VecDeque<usize>,
    dirty: Vec<usize>,
    in_flight: usize,
    alive: usize,
    /// When the last answer came.
    heard: u64,
}

impl<C: Codec> Worker for Stream<C> {
    fn run(&mut self, task: Task, phase: Phase) -> Result<(), String> {
        sharpen_timers();
        let depth = match phase {
            Phase::Load => task.options.in_flight,
            Phase::Keys | Phase::Leases => task.options.in_flight.max(PRELOAD_IN_FLIGHT),
        };
        for connection in &mut self.connections {
            connection.reset(depth.min(connection.codec.in_flight_max()));
        }
        let now = task.now();
        let mut phased = Phased {
            task,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            in_flight: 0,
            alive: self.connections.iter().filter(|one| !one.lost).count(),
            heard: now,
            connections: &mut self.connections,
        };
        if phased.alive == 0 {
            return Err(format!(
                "every connection to {} at {} is lost",
                C::NAME,
                self.server
            ));
        }
        for number in 0..phased.connections.len() {
            phased.enqueue(number);
        }
        let result = phased.run(&mut self.poll);
        let now = phased.task.now();
        phased.task.recorder.flush(now);
        result
    }
}

impl<C: Codec> Phased<'_, C> {
    fn run(&mut self, poll: &mut Poll) -> Result<(), String> {
        let mut woken = Vec::new();
        loop {
            let now = self.task.now();
            self.task.recorder.turn(now);
            self.send(now)?;
            if self.task.pace.over(now) && self.in_flight == 0 || self.alive == 0 {
                break;
            }
            if self.silent(now) {
                break;
            }
            let due = self
                .task
                .pace
                .next_due(now)
                .filter(|_| !self.ready.is_empty());
            let wait = due.map_or(TURN, |due| Duration::from_nanos(due.saturating_sub(now)));
            woken.clear();
            woken.extend(
                poll.wait(wait.min(TURN))
                    .map_err(|error| format!("epoll: {error}"))?,
            );
            let now = self.task.now();
            for &number in &woken {
                self.receive(number, now);
            }
        }
        let now = self.task.now();
        for due in self.task.pace.unsent(now) {
            self.task.recorder.unsent(due, now);
        }
        Ok(())
    }

    /// Fails what is in flight if nothing has been answered for too long.
    fn silent(&mut self, now: u64) -> bool {
        let timeout = self.task.options.timeout.as_nanos() as u64;
        if self.in_flight == 0 {
            self.heard = now;
        }
        let silent = now.saturating_sub(self.heard) > timeout;
        if silent {
            for number in 0..self.connections.len() {
                self.lose(number, now, "timed out".into());
            }
        }
        silent
    }

    /// Hands out all requests that may be sent now, and writes each connection's once.
    fn send(&mut self, now: u64) -> Result<(), String> {
        let open = self.task.options.rate.is_some();
        while let Some(&number) = self.ready.front() {
            let connection = &mut self.connections[number];
            if connection.lost || connection.free.is_empty() {
                connection.queued = false;
                self.ready.pop_front();
                continue;
            }
            let Some(start) = self.task.pace.take(now) else {
                break;
            };
            let Some(slot) = connection.free.pop() else {
                break;
            };
            connection.started[slot as usize] = start;
            let op = self.task.generator.next(start);
            connection.codec.encode(slot, &op, &mut connection.out)?;
            self.in_flight += 1;
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(number);
            }
            if open {
                // Spread an open loop over the connections; a closed one fills each.
                self.ready.rotate_left(1);
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            self.connections[number].dirty = false;
            if let Err(error) = self.connections[number].flush() {
                self.lose(
                    number,
                    now,
                    format!("connection lost: {}", error.kind()).into(),
                );
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn receive(&mut self, number: usize, now: u64) {
        let connection = &mut self.connections[number];
        if connection.lost {
            return;
        }
        let recorder = &mut self.task.recorder;
        let mut answered = 0;
        let result = connection
            .flush()
            .map_err(|error| error.kind().to_string())
            .and_then(|()| {
                connection.receive(&mut |start, outcome| {
                    answered += 1;
                    match outcome {
                        Ok(()) => recorder.good(start, now),
                        Err(failure) => recorder.bad(now, failure),
                    }
                })
            });
        if answered > 0 {
            self.in_flight -= answered;
            self.heard = now;
            self.enqueue(number);
        }
        if let Err(why) = result {
            self.lose(number, now, format!("connection lost: {why}").into());
        }
    }

    fn enqueue(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if !connection.queued && !connection.lost && !connection.free.is_empty() {
            connection.queued = true;
            self.ready.push_back(number);
        }
    }

    /// Gives a connection up: each request on it has failed, or if there is none, the
    /// connection itself counts as one failure.
    fn lose(&mut self, number: usize, now: u64, why: Failure) {
        let connection = &mut self.connections[number];
        if connection.lost {
            return;
        }
        connection.lost = true;
        self.alive -= 1;
        let busy = connection
            .started
            .iter()
            .filter(|start| **start != FREE)
            .count();
        connection.started.fill(FREE);
        self.in_flight -= busy;
        for _ in 0..busy.max(1) {
            self.task.recorder.bad(now, why.clone());
        }
    }
}
