//! Listening sockets: opened exclusively at start-up, accepted from by one front for all.
//!
//! The executor's own `bind` lets several processes share a port without a word. These sockets
//! are opened by the standard library instead: a port that another server has is refused. One
//! front accepts and deals the connections out in turn, which spreads a few dozen of them more
//! evenly than the kernel's hashing would.

use crate::limits;
use crate::runtime::flags::{Config, Place, Url};
use crate::runtime::os;
use crate::runtime::seat::Seat;
use crate::runtime::startup::StartError;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// After so many seconds of silence a client's machine is asked whether it is still there, then
/// every so many seconds, and after so many answers missed the connection ends.
const KEEP_ALIVE_AFTER: i32 = 60;
/// See [`KEEP_ALIVE_AFTER`].
const KEEP_ALIVE_EVERY: i32 = 15;
/// See [`KEEP_ALIVE_AFTER`].
const KEEP_ALIVE_TRIES: i32 = 4;

/// Through which door a client comes: what it may speak there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everything.
    Clients,
    /// Everything but HTTP/1.1, which has a door of its own.
    Calls,
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1, and of that metrics and health alone.
    Metrics,
}

impl Door {
    /// HTTP/1.1 is all that is spoken there.
    pub fn is_http_only(self) -> bool {
        matches!(self, Door::Http | Door::Metrics)
    }

    /// What is served there, for the log.
    fn what(self) -> &'static str {
        match self {
            Door::Clients | Door::Calls => "client requests",
            Door::Http => "client requests over HTTP/1.1",
            Door::Metrics => "metrics and health",
        }
    }
}

/// A socket that is listened on.
#[derive(Debug)]
pub struct Listener {
    /// Of whatever family; the runtime only accepts from it.
    socket: TcpListener,
    door: Door,
    /// Where clients find it.
    place: String,
}

/// Opens a socket for each URL of the settings.
pub fn open(config: &Config) -> Result<Vec<Listener>, StartError> {
    let (clients, http) = match config.listen_http.is_empty() {
        true => (Door::Clients, &[][..]),
        false => (Door::Calls, &config.listen_http[..]),
    };
    let mut listeners = Vec::new();
    for (door, urls) in [
        (clients, &config.listen_client[..]),
        (Door::Http, http),
        (Door::Metrics, &config.listen_metrics),
    ] {
        for url in urls {
            let socket = open_one(url, config.reuse_port).map_err(|error| StartError::Listen {
                url: url.to_string(),
                error,
            })?;
            let place = match &url.place {
                Place::Tcp { .. } => match socket.local_addr() {
                    Ok(address) => address.to_string(),
                    Err(_) => url.to_string(),
                },
                Place::Unix(_) => url.to_string(),
            };
            listeners.push(Listener {
                socket,
                door,
                place,
            });
        }
    }
    Ok(listeners)
}

/// Tells where clients may come from now on.
pub fn announce(listeners: &[Listener]) {
    for Listener { door, place, .. } in listeners {
        crate::log_info!("ready to serve {} on {place}", door.what());
    }
}

fn open_one(url: &Url, reuse_port: bool) -> io::Result<TcpListener> {
    let (host, port) = match &url.place {
        Place::Tcp { host, port } => (host, *port),
        Place::Unix(path) => return bind_unix(path),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    // As etcd does for names: the IPv4 address if there is one.
    let address = addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
    let listener = bind(*address, reuse_port)?;
    os::widen_backlog(&listener, BACKLOG)?;
    // Accepted sockets inherit it. A watch may be silent for ever: only this tells one whose
    // client has vanished from one that has nothing to hear.
    os::keep_alive(
        &listener,
        KEEP_ALIVE_AFTER,
        KEEP_ALIVE_EVERY,
        KEEP_ALIVE_TRIES,
    )?;
    Ok(listener)
}

/// How long a port may stay taken by a server that is already gone.
const LINGER: Duration = Duration::from_secs(1);

/// Binds, with patience for a predecessor that was killed: the kernel takes its io_uring rings
/// apart, and closes the sockets they still hold, only after the process has been reaped.
fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        let bound = match reuse_port {
            true => bind_shared(address),
            false => TcpListener::bind(address),
        };
        match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begin.elapsed() < LINGER => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Binds a Unix socket. One that a server has left behind is taken over, one that somebody serves
/// is not, and what is no socket stays.
fn bind_unix(path: &str) -> io::Result<TcpListener> {
    let begin = Instant::now();
    while std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            // As with ports: the kernel may hold it for a server that was killed.
            _ if begin.elapsed() < LINGER => std::thread::sleep(Duration::from_millis(5)),
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = TcpListener::from(OwnedFd::from(UnixListener::bind(path)?));
    os::widen_backlog(&listener, BACKLOG)?;
    Ok(listener)
}

/// Binds a port that other processes may bind, too.
fn bind_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Goes on behind every task that is ready to run.
async fn others_first() {
    let mut passed = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Accepts connections until the task is dropped.
pub fn accept(seat: &Rc<Seat>, listener: Listener) -> glommio::Task<()> {
    let seat = Rc::clone(seat);
    let Listener {
        socket: listener,
        door,
        place: _,
    } = listener;
    glommio::spawn_local(async move {
        // SAFETY: the descriptor is a listening socket, and its ownership passes on here.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        let (mut next, mut accepted) = (0, 0);
        loop {
            match listener.shared_accept().await {
                Ok(stream) => {
                    seat.place_connection(next, stream, door);
                    next = (next + 1) % seat.fronts().max(1);
                    accepted += 1;
                    if accepted == limits::ACCEPTS_PER_TURN {
                        accepted = 0;
                        others_first().await;
                    }
                }
                Err(error) => {
                    // Out of files or memory: those that are connected may free some.
                    crate::log_warn!("no connection can be accepted: {error}");
                    glommio::timer::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}
