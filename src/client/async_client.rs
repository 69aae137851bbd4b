//! The client for tokio programs.

#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::calls::{Answer, Body, Call, Settled, calls};
use super::error::ClientError;
use super::options::{ClientOptions, address};
use super::pending::Pending;
use super::raw::Receiver;
use super::watch::WatchStream;
use crate::wire;

/// A client for tokio programs. Clones share its connections; any number of tasks may use it at
/// once, and the requests that gather during one turn of the runtime leave in one write.
///
/// Connections are opened when first needed, and opened anew, with growing pauses, after they
/// broke. A read whose connection broke is sent again (see [`ClientOptions::retry_reads`]); a
/// write that may have left never is: it ends in [`ClientError::OutcomeUnknown`]. A call that is
/// dropped before it returns may still take place.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
    deadline: Duration,
}

#[derive(Debug)]
struct Pool {
    addresses: Vec<String>,
    options: ClientOptions,
    slots: Vec<Slot>,
    next: AtomicUsize,
}

/// A place for one connection.
#[derive(Debug, Default)]
struct Slot {
    current: Mutex<Option<Arc<Link>>>,
    /// Held by the one task that opens a connection.
    opening: tokio::sync::Mutex<Opening>,
}

#[derive(Debug, Default)]
struct Opening {
    /// Connections in a row that were of no use.
    failures: u32,
    /// When the next may be tried, and what became of the last.
    pause: Option<(Instant, ClientError)>,
    /// Addresses tried so far.
    tried: usize,
}

impl Client {
    /// A client of the servers at `endpoints` (`host:port`, or `http://host:port`), which are
    /// tried in turn. Opens no connection yet.
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Client {
        let slots = (0..options.connections.max(1))
            .map(|_| Slot::default())
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
        Client {
            pool: Arc::new(pool),
            deadline,
        }
    }

    /// A stream of watches of the same servers, on a connection of its own. Opens none yet.
    pub fn watch_stream(&self) -> WatchStream {
        WatchStream::new(self.pool.addresses.clone(), self.pool.options.clone())
    }

    /// The same client and connections, with another deadline for each request.
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client {
            pool: self.pool.clone(),
            deadline,
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    calls!([async] [.await]);

    async fn send(&self, call: Call<'_>) -> Result<Answer<Body>, ClientError> {
        let deadline = Instant::now() + self.deadline;
        let write = call.is_write();
        loop {
            let link = self.pool.link(deadline).await?;
            match link.call(&call, write, deadline).await {
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

impl Pool {
    /// A connection that works, as far as known.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, ClientError> {
        if self.addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no endpoints given");
            return Err(ClientError::from(none).not_sent());
        }
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let slot = &self.slots[at];
        if let Some(link) = slot.working() {
            return Ok(link);
        }
        let opening = timeout_at(deadline, slot.opening.lock()).await;
        let mut opening = opening.map_err(|_| ClientError::Deadline.not_sent())?;
        loop {
            if let Some(link) = slot.working() {
                return Ok(link);
            }
            let broken = lock(&slot.current).take();
            if let Some(broken) = broken {
                opening.broke(&lock(&broken.shared.pending), &self.options);
            }
            if let Some((not_before, error)) = &opening.pause {
                if *not_before >= deadline {
                    return Err(error.clone().not_sent());
                }
                sleep_until(*not_before).await;
            }
            match self.open(&mut opening, deadline).await {
                Ok(link) => {
                    let link = Arc::new(link);
                    *lock(&slot.current) = Some(link.clone());
                    opening.pause = None;
                    return Ok(link);
                }
                Err(error) => {
                    opening.fail(&error, &self.options);
                    if error.is_lasting() {
                        return Err(error.not_sent());
                    }
                }
            }
        }
    }

    async fn open(&self, opening: &mut Opening, deadline: Instant) -> Result<Link, ClientError> {
        let at = opening.tried % self.addresses.len();
        opening.tried = opening.tried.wrapping_add(1);
        let limit = deadline.min(Instant::now() + self.options.connect_timeout);
        match timeout_at(limit, Link::open(&self.addresses[at], &self.options)).await {
            Ok(link) => link,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Opening {
    fn fail(&mut self, error: &ClientError, options: &ClientOptions) {
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((
            Instant::now() + options.backoff(self.failures),
            error.clone(),
        ));
    }

    /// A connection that had been opened broke. If it did so before it was of any use, that too
    /// asks for a pause.
    fn broke<W>(&mut self, pending: &Pending<W>, options: &ClientOptions) {
        match pending.dead() {
            Some(error) if !pending.served => self.fail(error, options),
            _ => self.failures = 0,
        }
    }
}

impl Slot {
    fn working(&self) -> Option<Arc<Link>> {
        let link = lock(&self.current).clone()?;
        let dead = lock(&link.shared.pending).dead().is_some();
        (!dead).then_some(link)
    }
}

/// An open connection and the two tasks that serve it.
#[derive(Debug)]
struct Link {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    frame_bytes_max: usize,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending<Waiter>>,
    /// Rung when there is something to write.
    bell: Notify,
}

/// Who waits for a reply, and the right to be in flight, which ends with the reply.
#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Result<Settled, ClientError>>,
    _permit: OwnedSemaphorePermit,
}

/// Connects, and exchanges preambles.
pub(super) async fn greet(
    address: &str,
    options: &ClientOptions,
) -> Result<(TcpStream, Receiver), ClientError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::client_preamble()).await?;
    let mut receiver = Receiver::new(&options.buffers);
    while !receiver.greeted()? {
        match stream.read(receiver.space()).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            bytes => receiver.received(bytes),
        }
    }
    Ok((stream, receiver))
}

impl Link {
    async fn open(address: &str, options: &ClientOptions) -> Result<Link, ClientError> {
        let (stream, receiver) = greet(address, options).await?;
        let hello = receiver.hello().copied();
        let in_flight = hello.map_or(1, |hello| hello.in_flight_max as usize);
        let frame_bytes_max = hello.map_or(0, |hello| hello.frame_bytes_max as usize);
        let permits = in_flight
            .min(options.in_flight_max)
            .clamp(1, Semaphore::MAX_PERMITS);
        let pending = Pending::new(Instant::now().into_std());
        let shared = Arc::new(Shared {
            pending: Mutex::new(pending),
            bell: Notify::new(),
        });
        let (input, output) = stream.into_split();
        let tasks = [
            tokio::spawn(read(Ending(shared.clone()), input, receiver)),
            tokio::spawn(write(Ending(shared.clone()), output)),
        ];
        Ok(Link {
            shared,
            permits: Arc::new(Semaphore::new(permits)),
            frame_bytes_max,
            tasks,
        })
    }

    async fn call(
        &self,
        call: &Call<'_>,
        write: bool,
        deadline: Instant,
    ) -> Result<Answer<Body>, ClientError> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match timeout_at(deadline, self.permits.clone().acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                // The semaphore is never closed.
                Ok(Err(_)) | Err(_) => return Err(ClientError::Deadline.not_sent()),
            },
        };
        let (tell, told) = oneshot::channel();
        let asked = Instant::now().into_std();
        let waiter = Waiter {
            tell,
            _permit: permit,
        };
        lock(&self.shared.pending).push(call, waiter, self.frame_bytes_max)?;
        self.shared.bell.notify_one();
        match timeout_at(deadline, told).await {
            Ok(Ok(settled)) => settled?.verdict(write),
            // The tasks ended without a word: their runtime was shut down.
            Ok(Err(_)) => {
                let gone = ClientError::from(io::Error::from(io::ErrorKind::ConnectionAborted));
                Err(gone.for_request(write, true))
            }
            Err(_) => {
                if lock(&self.shared.pending).heard < asked {
                    // Not a byte since the request: later ones shall try another connection.
                    self.shared
                        .fail(&io::Error::from(io::ErrorKind::TimedOut).into());
                }
                match write {
                    true => Err(ClientError::Deadline.unknown()),
                    false => Err(ClientError::Deadline),
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn fail(&self, error: &ClientError) {
        let waiters = lock(&self.pending).fail(error);
        for (waiter, verdict) in waiters {
            // Whoever waited may have given up.
            let _ = waiter.tell.send(Err(verdict));
        }
        self.bell.notify_one();
    }
}

/// Marks the connection as broken when a task ends, for whatever reason.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0
            .fail(&io::Error::from(io::ErrorKind::ConnectionAborted).into());
    }
}

async fn read(ending: Ending, mut input: OwnedReadHalf, mut receiver: Receiver) {
    let shared = &ending.0;
    let mut replies = Vec::new();
    loop {
        let error: ClientError = match input.read(receiver.space()).await {
            Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Ok(bytes) => {
                receiver.received(bytes);
                match settle(shared, &mut receiver, &mut replies) {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error.into(),
        };
        shared.fail(&error);
        return;
    }
}

/// Hands every complete reply to whoever waits for it.
fn settle(
    shared: &Shared,
    receiver: &mut Receiver,
    replies: &mut Vec<(u64, Settled)>,
) -> Result<(), ClientError> {
    let fault = loop {
        match receiver.next_reply() {
            Ok(Some(reply)) => replies.push((reply.id, Settled::new(&reply))),
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        }
    };
    let mut told = Vec::with_capacity(replies.len());
    {
        let mut pending = lock(&shared.pending);
        pending.heard = Instant::now().into_std();
        for (id, settled) in replies.drain(..) {
            if let Some(waiter) = pending.take(id) {
                told.push((waiter, settled));
            }
        }
    }
    for (waiter, settled) in told {
        // Whoever waited may have given up.
        let _ = waiter.tell.send(Ok(settled));
    }
    match fault {
        None => Ok(()),
        Some(fault) => Err(fault.into()),
    }
}

/// Batches longer than this do not keep their memory.
const SPARE_BYTES_MAX: usize = 1 << 20;

async fn write(ending: Ending, mut output: OwnedWriteHalf) {
    let shared = &ending.0;
    let mut batch = Vec::new();
    loop {
        shared.bell.notified().await;
        // Tasks that are ready now may have something to say as well.
        tokio::task::yield_now().await;
        loop {
            {
                let mut pending = lock(&shared.pending);
                if pending.dead().is_some() {
                    return;
                }
                if pending.queued() == 0 {
                    break;
                }
                if batch.capacity() > SPARE_BYTES_MAX {
                    batch = Vec::new();
                }
                pending.take_batch(&mut batch);
            }
            if let Err(error) = output.write_all(&batch).await {
                shared.fail(&error.into());
                return;
            }
        }
    }
}

/// Nothing panics while holding these locks; if it did, the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
