//! The system calls that the standard library does not offer: epoll, CPU affinity.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Waits for sockets. Edge-triggered: each readiness is told once.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Poll {
    /// A poll for about so many sockets.
    pub fn new(sockets: usize) -> io::Result<Poll> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened by us, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let none = libc::epoll_event { events: 0, u64: 0 };
        Ok(Poll {
            epoll,
            ready: vec![none; sockets.clamp(1, 1024)],
        })
    }

    /// Tells of `socket` as `token` whenever it becomes readable or writable.
    pub fn add(&self, socket: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token as u64,
        };
        // SAFETY: both descriptors are open, and `event` lives through the call, which copies it.
        let done = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &mut event,
            )
        };
        if done < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Waits until a socket is ready, at most for `timeout`; returns the tokens of those ready.
    ///
    /// The time is kept to the microsecond, which `epoll_wait` could not.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize> + '_> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `ready` holds as many events as the call is told it may write, `timeout` lives
        // through the call, and a null signal mask leaves the mask alone.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                self.ready.len() as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                size_of::<libc::c_ulong>(),
            )
        };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        Ok(self.ready[..count].iter().map(|event| event.u64 as usize))
    }
}

/// Connects over IPv4 with the smallest receive buffer that the system allows, so that what the
/// other side sends and nobody reads stays with it.
pub fn connect_narrow(server: std::net::SocketAddrV4) -> io::Result<std::net::TcpStream> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened by us, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let least: libc::c_int = 1;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: server.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(server.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: `least` and `address` live through the calls, and their sizes are passed.
    let done = unsafe {
        let set = libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const least).cast(),
            size_of_val(&least) as libc::socklen_t,
        );
        match set {
            0 => libc::connect(
                fd,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            ),
            failed => failed,
        }
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

/// Gives a socket a large receive buffer, and lets it tell its peer so: one that was connected
/// with a small buffer has bound its window to that.
pub fn widen(socket: &std::net::TcpStream) -> io::Result<()> {
    let bytes: libc::c_int = 4 << 20;
    for (level, name) in [
        (libc::SOL_SOCKET, libc::SO_RCVBUF),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    ] {
        // SAFETY: the descriptor is open as long as `socket` is borrowed, and `bytes` lives
        // through the call, which is told its size.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets timers of this thread fire on time instead of up to 50 us late.
pub fn sharpen_timers() {
    // SAFETY: this option takes a number of nanoseconds and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Raises the limit of open files as far as the system lets us; returns the limit.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through the calls; the second one only reads it.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}

/// The cores this thread may run on.
pub fn cores() -> Vec<usize> {
    // SAFETY: a `cpu_set_t` is an array of bits, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives through the call and has the size that is passed.
    let done = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    let most = if done == 0 {
        libc::CPU_SETSIZE as usize
    } else {
        0
    };
    // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
    (0..most)
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect()
}

/// Ties this thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    assert!(core < libc::CPU_SETSIZE as usize);
    // SAFETY: a `cpu_set_t` is an array of bits, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` lives through the call and has the size that is passed.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
