//! A real server behind a relay that harms connections: it cuts them, keeps answers back before it
//! does, and passes requests on late, when their client has long gone elsewhere.

use crate::server::Server;
use quoin::client::{Client, ClientOptions};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub struct World {
    server: Option<Server>,
    upstream: SocketAddr,
    data: PathBuf,
    relay: Arc<Relay>,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// What the relay does at present.
#[derive(Default)]
struct Relay {
    /// Answers are kept back.
    mute: AtomicBool,
    /// Requests are passed on so many milliseconds late, whether or not their client is there.
    late: AtomicU64,
    /// The clients' ends of what is open.
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let server = Server::start(&data);
        let upstream = server.address;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let relay = Arc::new(Relay::default());
        let accepting = relay.clone();
        thread::spawn(move || {
            for (number, client) in (0u64..).zip(listener.incoming()) {
                let Ok(client) = client else { return };
                accepting.clone().serve(number, client, upstream);
            }
        });
        World {
            server: Some(server),
            upstream,
            data,
            relay,
            address,
            _dir: dir,
        }
    }

    fn options() -> ClientOptions {
        ClientOptions {
            deadline: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_millis(100),
            ..ClientOptions::default()
        }
    }

    /// A client whose connections are harmed.
    pub fn client(&self) -> Client {
        Client::new([self.address.to_string()], World::options())
    }

    /// A client whose connections are not.
    pub fn direct(&self) -> Client {
        Client::new([self.upstream.to_string()], World::options())
    }

    /// The server is gone, without a chance to finish anything.
    pub fn kill(&mut self) {
        self.server.take().expect("it runs").kill();
    }

    /// It is back, at the same address.
    pub fn restart(&mut self) {
        let url = format!("http://{}", self.upstream);
        let flags = ["--listen-client-urls", &url];
        self.server = Some(Server::start_with(&self.data, &flags));
    }

    /// Cuts every connection through the relay.
    pub fn cut(&self) {
        self.relay.cut();
    }

    /// Harms connections until the returned value is dropped.
    pub fn harm(&self, seed: u64) -> Harm {
        let stop = Arc::new(AtomicBool::new(false));
        let (relay, stopped) = (self.relay.clone(), stop.clone());
        let thread = thread::spawn(move || relay.harm(seed, &stopped));
        Harm {
            stop,
            thread: Some(thread),
        }
    }
}

/// See [`World::harm`].
pub struct Harm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Harm {
    /// Ends it; says how often connections were cut.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("no panic")
    }
}

impl Drop for Harm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Relay {
    fn cut(&self) {
        for client in self.open.lock().expect("no panic").values() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    fn harm(&self, seed: u64, stop: &AtomicBool) -> u64 {
        let mut chance = quoin::chance::Chance::new(seed);
        let mut cuts = 0;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20 + chance.below(120)));
            self.mute.store(chance.one_in(2), Ordering::Relaxed);
            let late = match chance.one_in(2) {
                true => 10 + chance.below(60),
                false => 0,
            };
            self.late.store(late, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(chance.below(15)));
            self.cut();
            cuts += 1;
            self.mute.store(false, Ordering::Relaxed);
            self.late.store(0, Ordering::Relaxed);
        }
        cuts
    }

    fn serve(self: Arc<Self>, number: u64, client: TcpStream, upstream: SocketAddr) {
        let Ok(server) = TcpStream::connect(upstream) else {
            return;
        };
        let ends = [&client, &server].map(|end| {
            end.set_nodelay(true).expect("a socket");
            end.try_clone().expect("a descriptor")
        });
        let [client_too, server_too] = ends;
        let shown = client.try_clone().expect("a descriptor");
        let mut open = self.open.lock().expect("no panic");
        open.insert(number, shown);
        drop(open);
        let answers = self.clone();
        thread::spawn(move || {
            self.requests(client, server);
            self.open.lock().expect("no panic").remove(&number);
        });
        thread::spawn(move || answers.answers(server_too, client_too));
    }

    fn requests(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut bytes = [0; 1 << 16];
        while let Ok(read) = client.read(&mut bytes) {
            let late = self.late.load(Ordering::Relaxed);
            if late > 0 {
                thread::sleep(Duration::from_millis(late));
            }
            if read == 0 || server.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // What was written is read before the end is.
        let _ = server.shutdown(Shutdown::Write);
    }

    fn answers(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut bytes = [0; 1 << 16];
        while let Ok(read) = server.read(&mut bytes) {
            if read == 0 {
                break;
            }
            // A server that cannot get rid of its answers would stop to take requests.
            if !self.mute.load(Ordering::Relaxed) {
                let _ = client.write_all(&bytes[..read]);
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// Runs a test on a runtime of one thread.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let patience = Duration::from_secs(90);
        let done = tokio::time::timeout(patience, test).await;
        done.expect("it ends in time");
    });
}

pub async fn sleep(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
