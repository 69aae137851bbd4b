//! Clients of the HTTP fronts that do not behave: floods, half-open requests, bodies without end.
//! Whatever they do, memory stays bounded and other clients are served at once.

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
/// What a call of another client may take meanwhile, on a machine that does much else.
const SLOWEST: Duration = Duration::from_millis(600);

static TURN: Mutex<()> = Mutex::new(());

/// A client that behaves: it reads and writes all the time and notes the longest that a call took.
struct Witness {
    stop: Arc<AtomicBool>,
    slowest_ns: Arc<AtomicU64>,
    served: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Witness {
    fn start(address: SocketAddr) -> Witness {
        let stop = Arc::new(AtomicBool::new(false));
        let (slowest_ns, served) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (over, slowest, count) = (stop.clone(), slowest_ns.clone(), served.clone());
        let thread = thread::spawn(move || {
            raw::run(async {
                let (client, _) = connect(address, &h2::client::Builder::new()).await;
                while !over.load(Relaxed) {
                    // Mostly reads: how long a write takes depends on the disk, too.
                    let writes = count.load(Relaxed).is_multiple_of(8);
                    let (path, message) = match writes {
                        true => (PUT, put(b"witness", b"v")),
                        false => (RANGE, get(b"witness")),
                    };
                    let began = Instant::now();
                    let answer = raw::call(&client, path, message).await;
                    assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
                    let took = u64::try_from(began.elapsed().as_nanos()).expect("short");
                    slowest.fetch_max(took, Relaxed);
                    count.fetch_add(1, Relaxed);
                }
            });
        });
        Witness {
            stop,
            slowest_ns,
            served,
            thread,
        }
    }

    /// How many calls were served, and the longest that one took.
    fn end(self) -> (u64, Duration) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("it was served to the end");
        let slowest = Duration::from_nanos(self.slowest_ns.load(Relaxed));
        (self.served.load(Relaxed), slowest)
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
    // One at a time: what is measured is the server, not how many attackers a machine can run.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, _dir) = start();
    let witness = Witness::start(server.address);
    while witness.served.load(Relaxed) < 20 {
        thread::yield_now();
    }
    let before = server.resident_kib();
    let most_kib = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let served_before = witness.served.load(Relaxed);
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
    let (served, slowest) = witness.end();
    let served = served - served_before;
    let grown = most_kib.into_inner().saturating_sub(before) >> 10;
    println!("{served} calls of another client, the slowest in {slowest:?}; {grown} MiB more");
    assert!(served > 20, "only {served} calls were served meanwhile");
    assert!(
        slowest < SLOWEST,
        "a call of another client took {slowest:?}"
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
