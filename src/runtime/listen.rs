//! Listening sockets: opened exclusively at start-up, accepted from by one front for all.
//!
//! The executor's own `bind` lets several processes share a port without a word. These sockets
//! are opened by the standard library instead: a port that another server has is refused. One
//! front accepts and deals the connections out in turn, which spreads a few dozen of them more
//! evenly than the kernel's hashing would.

use crate::runtime::flags::Url;
use crate::runtime::os;
use crate::runtime::seat::Seat;
use crate::runtime::startup::StartError;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
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

/// Opens a socket for each URL.
pub fn open(urls: &[Url]) -> Result<Vec<TcpListener>, StartError> {
    urls.iter()
        .map(|url| {
            open_one(url).map_err(|error| StartError::Listen {
                url: url.to_string(),
                error,
            })
        })
        .collect()
}

fn open_one(url: &Url) -> io::Result<TcpListener> {
    let host = url.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = (host, url.port).to_socket_addrs()?.collect();
    // As etcd does for names: the IPv4 address if there is one.
    let address = addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
    let listener = bind(*address)?;
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
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begin.elapsed() < LINGER => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Accepts connections until the task is dropped.
pub fn accept(seat: &Rc<Seat>, listener: TcpListener) -> glommio::Task<()> {
    let seat = Rc::clone(seat);
    glommio::spawn_local(async move {
        // SAFETY: the descriptor is a listening socket, and its ownership passes on here.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        let mut next = 0;
        loop {
            match listener.shared_accept().await {
                Ok(stream) => {
                    seat.place_connection(next, stream);
                    next = (next + 1) % seat.fronts().max(1);
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
