//! Clients of the HTTP fronts that do not behave: floods, half-open requests, bodies without end.
//! Whatever they do, memory stays bounded and other clients are served at once.

mod answers;

mod frames;

mod http1;

mod http2;

mod patience;

use crate::raw::{self, PUT, RANGE, connect, get, put};
use crate::server::Server;
use crate::start;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long an attack that does not end by itself goes on.
const ATTACK: Duration = Duration::from_millis(700);
/// What a read of another client may take meanwhile, on a machine that does much else.
const SLOWEST: Duration = Duration::from_millis(600);

static TURN: Mutex<()> = Mutex::new(());

/// A client that behaves: it reads and writes all the time and notes the longest that a read took.
struct Witness {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    slowest_read_ns: AtomicU64,
    /// How long one takes depends on the disk, and on who else writes to it.
    writes: AtomicU64,
}

impl Witness {
    fn start(address: SocketAddr) -> Witness {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let (over, noted) = (stop.clone(), counts.clone());
        let thread = thread::spawn(move || {
            raw::run(async {
                let (client, _) = connect(address, &h2::client::Builder::new()).await;
                let reads = async {
                    while !over.load(Relaxed) {
                        let began = Instant::now();
                        let answer = raw::call(&client, RANGE, get(b"witness")).await;
                        assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
                        let took = u64::try_from(began.elapsed().as_nanos()).expect("short");
                        noted.slowest_read_ns.fetch_max(took, Relaxed);
                        noted.reads.fetch_add(1, Relaxed);
                    }
                };
                let writes = async {
                    while !over.load(Relaxed) {
                        let answer = raw::call(&client, PUT, put(b"witness", b"v")).await;
                        assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
                        noted.writes.fetch_add(1, Relaxed);
                    }
                };
                tokio::join!(reads, writes);
            });
        });
        Witness {
            stop,
            counts,
            thread,
        }
    }

    /// How many reads and writes were served so far.
    fn served(&self) -> (u64, u64) {
        let Counts { reads, writes, .. } = &*self.counts;
        (reads.load(Relaxed), writes.load(Relaxed))
    }

    /// How many were served in all, and the longest that a read took.
    fn end(self) -> ((u64, u64), Duration) {
        self.stop.store(true, Relaxed);
        let served = self.served();
        self.thread.join().expect("it was served to the end");
        let slowest = self.counts.slowest_read_ns.load(Relaxed);
        (served, Duration::from_nanos(slowest))
    }
}

/// Sets a flag when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs an attack against a server of its own. `grows_mib` is what the memory may grow by.
fn attack(grows_mib: u64, attack: impl FnOnce(&Server)) {
    attack_within(SLOWEST, grows_mib, attack);
}

/// The same where a read of another client may take longer than usual.
fn attack_within(longest: Duration, grows_mib: u64, attack: impl FnOnce(&Server)) {
    // One at a time: what is measured is the server, not how many attackers a machine can run.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, _dir) = start();
    let witness = Witness::start(server.address);
    loop {
        let (reads, writes) = witness.served();
        if reads >= 20 && writes >= 1 {
            break;
        }
        thread::yield_now();
    }
    let before = server.resident_kib();
    let most_kib = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (reads_before, writes_before) = witness.served();
    thread::scope(|scope| {
        let memory = server.memory();
        let (done, most_kib) = (&done, &most_kib);
        scope.spawn(move || {
            while !done.load(Relaxed) {
                most_kib.fetch_max(memory.resident_kib(), Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        // Also if the attack finds a fault.
        let _over = Over(done);
        attack(&server);
        // It goes on as before.
        thread::sleep(Duration::from_millis(100));
    });
    let ((reads, writes), slowest) = witness.end();
    let (reads, writes) = (reads - reads_before, writes - writes_before);
    let grown = most_kib.into_inner().saturating_sub(before) >> 10;
    println!(
        "another client's {reads} reads, the slowest in {slowest:?}, and {writes} writes; \
         {grown} MiB more"
    );
    assert!(reads > 20, "only {reads} reads were served meanwhile");
    assert!(
        slowest < longest,
        "a read of another client took {slowest:?}"
    );
    assert!(grown <= grows_mib, "memory grew by {grown} MiB");
}

/// A connection whose client waits no longer than 20 s for anything.
fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it serves");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("a socket");
    stream.set_write_timeout(limit).expect("a socket");
    stream
}

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum Flooded {
    /// The server closed the connection.
    Closed,
    /// It took everything until the attacker had enough.
    Endured,
}

/// Sends pieces, one after the other, until the server closes or time is up, and reads whatever
/// comes if `reads`.
fn flood(mut stream: TcpStream, reads: bool, mut piece: impl FnMut() -> Vec<u8>) -> Flooded {
    let closed = Arc::new(AtomicBool::new(false));
    let reader = reads.then(|| {
        let mut socket = stream.try_clone().expect("a socket");
        let closed = closed.clone();
        thread::spawn(move || {
            let mut scratch = vec![0; 1 << 16];
            while socket.read(&mut scratch).is_ok_and(|count| count > 0) {}
            closed.store(true, Relaxed);
        })
    });
    // Who does not read may find that the server does not read either.
    let limit = Some(Duration::from_millis(200));
    stream.set_write_timeout(limit).expect("a socket");
    let began = Instant::now();
    let mut ended = Flooded::Endured;
    'attack: while began.elapsed() < ATTACK {
        // The server may close its half and pass over what still comes.
        if closed.load(Relaxed) {
            ended = Flooded::Closed;
            break;
        }
        let piece = piece();
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if began.elapsed() > ATTACK {
                        break 'attack;
                    }
                }
                Err(_) => {
                    ended = Flooded::Closed;
                    break 'attack;
                }
            }
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    if let Some(reader) = reader {
        reader.join().expect("it reads");
    }
    ended
}

/// Reads until the server closes; what came.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    bytes
}
