//! The client for programs made of threads.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Told, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::calls::{Answer, Body, Call, Settled, calls};
use super::error::ClientError;
use super::options::{ClientOptions, address};
use super::pending::Pending;
use super::raw::Receiver;
use super::watch::BlockingWatchStream;
use crate::api::{Request, Response};
use crate::wire;

/// A client for programs made of threads; needs no runtime. Clones share its connections; any
/// number of threads may use it at once, each connection has one thread that reads replies.
///
/// [`BlockingClient::submit`] keeps many requests in flight from a single thread. For
/// connections, pauses, repetition and unknown outcomes see [`super::Client`]: they are the same.
#[derive(Debug, Clone)]
pub struct BlockingClient {
    pool: Arc<Pool>,
    deadline: Duration,
}

#[derive(Debug)]
struct Pool {
    addresses: Vec<String>,
    options: ClientOptions,
    slots: Vec<Place>,
    next: AtomicUsize,
}

/// A slot, and where those wait for whom another thread opens its connection.
#[derive(Debug, Default)]
struct Place {
    slot: Mutex<Slot>,
    opened: Condvar,
}

/// A place for one connection. Its lock is held for moments.
#[derive(Debug, Default)]
struct Slot {
    current: Option<Arc<Link>>,
    /// A thread opens one.
    opening: bool,
    failures: u32,
    pause: Option<(Instant, ClientError)>,
    tried: usize,
}

/// A request that was submitted; see [`BlockingClient::submit`]. Dropped, it may still take
/// place.
#[derive(Debug)]
#[must_use = "the answer comes from `wait`"]
pub struct Submitted {
    link: Arc<Link>,
    told: Told<Result<Settled, ClientError>>,
    write: bool,
    asked: Instant,
    deadline: Instant,
}

impl BlockingClient {
    /// A client of the servers at `endpoints` (`host:port`, or `http://host:port`), which are
    /// tried in turn. Opens no connection yet.
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> BlockingClient {
        let slots = (0..options.connections.max(1))
            .map(|_| Place::default())
            .collect();
        let deadline = options.deadline;
        let addresses = endpoints
            .into_iter()
            .map(|at| address(at.as_ref()))
            .collect();
        let pool = Pool {
            addresses,
            options,
            slots,
            next: AtomicUsize::new(0),
        };
        BlockingClient {
            pool: Arc::new(pool),
            deadline,
        }
    }

    /// A stream of watches of the same servers, on a connection of its own. Opens none yet.
    pub fn watch_stream(&self) -> BlockingWatchStream {
        BlockingWatchStream::new(self.pool.addresses.clone(), self.pool.options.clone())
    }

    /// The same client and connections, with another deadline for each request.
    pub fn with_deadline(&self, deadline: Duration) -> BlockingClient {
        BlockingClient {
            pool: self.pool.clone(),
            deadline,
        }
    }

    /// Queues a request and returns at once, unless the connection has as many in flight as it
    /// may. Requests leave when enough have gathered, or when one is waited for. A read is not
    /// sent again if its connection breaks.
    pub fn submit(&self, request: &Request<'_>) -> Result<Submitted, ClientError> {
        let deadline = Instant::now() + self.deadline;
        let link = self.pool.link(deadline)?;
        link.submit(&Call::Request(request), deadline)
    }

    calls!([] []);

    fn send(&self, call: Call<'_>) -> Result<Answer<Body>, ClientError> {
        let deadline = Instant::now() + self.deadline;
        let write = call.is_write();
        loop {
            let link = self.pool.link(deadline)?;
            match link.submit(&call, deadline).and_then(Submitted::settle) {
                // It has not left, so sending it elsewhere is no repetition.
                Err(ClientError::NotSent { cause })
                    if cause.is_lost_connection() && Instant::now() < deadline => {}
                Err(lost)
                    if !write
                        && self.pool.options.retry_reads
                        && lost.is_lost_connection()
                        && Instant::now() < deadline => {}
                verdict => return verdict,
            }
        }
    }
}

impl Submitted {
    /// Waits for the answer, at most until the deadline that the client set on submission.
    pub fn wait(self) -> Result<Answer<Response>, ClientError> {
        let answer = self.settle()?;
        match answer.body {
            Body::Response(body) => Ok(Answer {
                header: answer.header,
                body,
            }),
            Body::Ping | Body::Status(_) => Err(ClientError::WrongReply),
        }
    }

    /// Sees to it that this request and those submitted before it leave now.
    pub fn flush(&self) {
        self.link.flush();
    }

    fn settle(self) -> Result<Answer<Body>, ClientError> {
        self.link.flush();
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.told.recv_timeout(left) {
            Ok(settled) => settled?.verdict(self.write),
            // Each waiter is told before it is dropped.
            Err(RecvTimeoutError::Disconnected) => {
                let gone = ClientError::from(io::Error::from(io::ErrorKind::ConnectionAborted));
                Err(gone.for_request(self.write, true))
            }
            Err(RecvTimeoutError::Timeout) => {
                if lock(&self.link.shared.pending).heard < self.asked {
                    // Not a byte since the request: later ones shall try another connection.
                    self.link
                        .shared
                        .fail(&io::Error::from(io::ErrorKind::TimedOut).into());
                }
                match self.write {
                    true => Err(ClientError::Deadline.unknown()),
                    false => Err(ClientError::Deadline),
                }
            }
        }
    }
}

impl Pool {
    /// A connection that works, as far as known.
    fn link(&self, deadline: Instant) -> Result<Arc<Link>, ClientError> {
        if self.addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no endpoints given");
            return Err(ClientError::from(none).not_sent());
        }
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let Place {
            slot: place,
            opened,
        } = &self.slots[at];
        loop {
            let mut slot = lock(place);
            if slot.opening {
                let Ok(left) = remaining(deadline) else {
                    return Err(ClientError::Deadline.not_sent());
                };
                // Whatever woke this thread, it looks again.
                drop(opened.wait_timeout(slot, left));
                continue;
            }
            if let Some(link) = &slot.current {
                let pending = lock(&link.shared.pending);
                let Some(error) = pending.dead().cloned() else {
                    return Ok(link.clone());
                };
                let served = pending.served;
                drop(pending);
                slot.current = None;
                match served {
                    true => slot.failures = 0,
                    // It broke before it was of any use: that too asks for a pause.
                    false => slot.fail(&error, &self.options),
                }
            }
            let now = Instant::now();
            if let Some((not_before, error)) = &slot.pause
                && *not_before > now
            {
                if *not_before >= deadline {
                    return Err(error.clone().not_sent());
                }
                let pause = *not_before - now;
                // Others with an earlier deadline shall not wait for this one.
                drop(slot);
                thread::sleep(pause);
                continue;
            }
            slot.opening = true;
            let tried = slot.tried;
            slot.tried = tried.wrapping_add(1);
            drop(slot);
            let outcome = self.open(tried, deadline);
            let mut slot = lock(place);
            slot.opening = false;
            opened.notify_all();
            match outcome {
                Ok(link) => {
                    slot.pause = None;
                    let link = Arc::new(link);
                    slot.current = Some(link.clone());
                    return Ok(link);
                }
                Err(error) => {
                    slot.fail(&error, &self.options);
                    if error.is_lasting() {
                        return Err(error.not_sent());
                    }
                }
            }
        }
    }

    fn open(&self, tried: usize, deadline: Instant) -> Result<Link, ClientError> {
        let address = &self.addresses[tried % self.addresses.len()];
        let limit = deadline.min(Instant::now() + self.options.connect_timeout);
        Link::open(address, &self.options, limit)
    }
}

impl Slot {
    fn fail(&mut self, error: &ClientError, options: &ClientOptions) {
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((
            Instant::now() + options.backoff(self.failures),
            error.clone(),
        ));
    }
}

/// An open connection and the thread that reads it.
#[derive(Debug)]
struct Link {
    shared: Arc<Shared>,
    frame_bytes_max: usize,
    in_flight_max: usize,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    pending: Mutex<Pending<Waiter>>,
    /// Rung when fewer are in flight.
    room: Condvar,
    /// Held by the thread that writes; others leave their requests to it. It holds the buffer
    /// that is being written.
    writing: Mutex<Vec<u8>>,
}

type Waiter = SyncSender<Result<Settled, ClientError>>;

/// Submitted requests leave unasked when this much has gathered.
const GATHERED_BYTES: usize = 16 << 10;

/// Batches longer than this do not keep their memory.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Connects, and exchanges preambles.
pub(super) fn greet(
    address: &str,
    options: &ClientOptions,
    limit: Instant,
) -> Result<(TcpStream, Receiver), ClientError> {
    let mut stream = connect(address, limit)?;
    stream.set_nodelay(true)?;
    // Also later: a peer that takes not one byte for so long is gone.
    stream.set_write_timeout(Some(options.connect_timeout))?;
    stream.write_all(&wire::client_preamble())?;
    let mut receiver = Receiver::new(&options.buffers);
    while !receiver.greeted()? {
        stream.set_read_timeout(Some(remaining(limit)?))?;
        match stream.read(receiver.space()) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(bytes) => receiver.received(bytes),
            // So the system says that the time is over; the loop finds out.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((stream, receiver))
}

impl Link {
    fn open(address: &str, options: &ClientOptions, limit: Instant) -> Result<Link, ClientError> {
        let (stream, receiver) = greet(address, options, limit)?;
        stream.set_read_timeout(None)?;
        let hello = receiver.hello().copied();
        let in_flight = hello.map_or(1, |hello| hello.in_flight_max as usize);
        let frame_bytes_max = hello.map_or(0, |hello| hello.frame_bytes_max as usize);
        let shared = Arc::new(Shared {
            stream,
            pending: Mutex::new(Pending::new(Instant::now())),
            room: Condvar::new(),
            writing: Mutex::default(),
        });
        let reading = shared.clone();
        let reader = thread::Builder::new()
            .name("quoin-client".to_owned())
            .spawn(move || reading.read(receiver))?;
        let in_flight_max = in_flight.min(options.in_flight_max).max(1);
        Ok(Link {
            shared,
            frame_bytes_max,
            in_flight_max,
            reader: Some(reader),
        })
    }

    fn submit(
        self: Arc<Self>,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Result<Submitted, ClientError> {
        let asked = Instant::now();
        let (tell, told) = sync_channel(1);
        let mut pending = lock(&self.shared.pending);
        while pending.in_flight() >= self.in_flight_max && pending.dead().is_none() {
            if pending.queued() > 0 {
                drop(pending);
                self.flush();
                pending = lock(&self.shared.pending);
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Deadline.not_sent());
            }
            let waited = self.shared.room.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        pending.push(call, tell, self.frame_bytes_max)?;
        let gathered = pending.queued() >= GATHERED_BYTES;
        drop(pending);
        if gathered {
            self.flush();
        }
        Ok(Submitted {
            link: self,
            told,
            write: call.is_write(),
            asked,
            deadline,
        })
    }

    /// Sees to it that everything queued leaves: through this thread, or the one that writes now.
    fn flush(&self) {
        loop {
            let Ok(mut batch) = self.shared.writing.try_lock() else {
                // Its holder looks again after it has let go.
                return;
            };
            loop {
                let mut pending = lock(&self.shared.pending);
                if pending.queued() == 0 {
                    break;
                }
                if batch.capacity() > SPARE_BYTES_MAX {
                    *batch = Vec::new();
                }
                pending.take_batch(&mut batch);
                drop(pending);
                if let Err(error) = (&self.shared.stream).write_all(&batch) {
                    self.shared.fail(&error.into());
                    return;
                }
            }
            drop(batch);
            // A thread that found the lock held just before it was let go relies on this look.
            if lock(&self.shared.pending).queued() == 0 {
                return;
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared
            .fail(&io::Error::from(io::ErrorKind::ConnectionAborted).into());
        if let Some(reader) = self.reader.take() {
            // It ends with the socket, which has just been shut down.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn fail(&self, error: &ClientError) {
        let waiters = lock(&self.pending).fail(error);
        // An error only says that the peer was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
        for (waiter, verdict) in waiters {
            // Whoever waited may have given up.
            let _ = waiter.send(Err(verdict));
        }
        self.room.notify_all();
    }

    fn read(&self, mut receiver: Receiver) {
        let error = loop {
            match (&self.stream).read(receiver.space()) {
                Ok(0) => break io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                Ok(bytes) => receiver.received(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break error.into(),
            }
            if let Err(fault) = self.settle(&mut receiver) {
                break fault;
            }
        };
        self.fail(&error);
    }

    /// Hands every complete reply to whoever waits for it.
    fn settle(&self, receiver: &mut Receiver) -> Result<(), ClientError> {
        let mut replies = Vec::new();
        let fault = loop {
            match receiver.next_reply() {
                Ok(Some(reply)) => replies.push((reply.id, Settled::new(&reply))),
                Ok(None) => break None,
                Err(fault) => break Some(fault),
            }
        };
        let mut told = Vec::with_capacity(replies.len());
        {
            let mut pending = lock(&self.pending);
            pending.heard = Instant::now();
            for (id, settled) in replies {
                if let Some(waiter) = pending.take(id) {
                    told.push((waiter, settled));
                }
            }
        }
        self.room.notify_all();
        for (waiter, settled) in told {
            // Whoever waited may have given up; the channel has room for this one message.
            let _ = waiter.send(Ok(settled));
        }
        match fault {
            None => Ok(()),
            Some(fault) => Err(fault.into()),
        }
    }
}

fn connect(address: &str, limit: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, remaining(limit)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn remaining(limit: Instant) -> io::Result<Duration> {
    let left = limit.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// Nothing panics while holding these locks; if it did, the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
