//! System calls that the standard library does not offer. All of the runtime's unsafe code that
//! talks to the kernel lies here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps a TCP socket from taking more once it holds so many bytes that it has not sent.
pub fn bound_unsent(socket: &impl AsRawFd, bytes: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and `bytes` lives
    // through the call, which is told its size.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    })
}

/// Has a TCP socket to a client on this machine sent without pauses. Where the system's congestion
/// control is one that paces, as BBR does, it would start a timer for nearly every packet and wait
/// for it, though between two processes of one machine there is no way that could be congested.
pub fn send_unpaced(socket: &impl AsRawFd) -> io::Result<()> {
    // Every kernel has it, and lets everybody choose it.
    const PLAIN: &[u8] = b"reno";
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the name is a constant
    // whose length the call is told.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            PLAIN.as_ptr().cast(),
            PLAIN.len() as libc::socklen_t,
        )
    })
}

/// Takes the exclusive lock of an open file or directory; `false` if another process has it.
/// The lock lives as long as the file stays open, and no longer than this process.
pub fn lock_exclusive(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match check(result) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether the file belongs to the user that this process acts as.
pub fn is_own(metadata: &std::fs::Metadata) -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    metadata.uid() == unsafe { libc::geteuid() }
}

/// Raises a soft limit to its hard limit and returns what it is then; `u64::MAX` is no limit.
fn raise_limit(which: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(which, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: `raised` is a valid limit.
        if unsafe { libc::setrlimit(which, &raised) } == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

/// Bytes of memory that may be locked.
pub fn locked_memory_limit() -> io::Result<u64> {
    raise_limit(libc::RLIMIT_MEMLOCK)
}

/// How many files may be open.
pub fn open_files_limit() -> io::Result<u64> {
    raise_limit(libc::RLIMIT_NOFILE)
}

/// The cores that this process may run on, ascending.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is a valid place of `size` bytes for the answer.
    check(unsafe { libc::sched_getaffinity(0, size, &mut set) })?;
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: every number asked for is below CPU_SETSIZE.
    Ok((0..most)
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect())
}

/// Lets the calling thread run on these cores only.
pub fn pin_thread(cores: &[usize]) -> io::Result<()> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    for core in cores.iter().filter(|core| **core < most) {
        // SAFETY: the number is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is a valid set of `size` bytes.
    check(unsafe { libc::sched_setaffinity(0, size, &set) })
}

/// Has the kernel ask a silent peer whether it is still there: after `after_s` seconds, then every
/// `every_s`; the connection ends after `tries` that were not answered.
pub fn keep_alive(
    listener: &std::net::TcpListener,
    after_s: i32,
    every_s: i32,
    tries: i32,
) -> io::Result<()> {
    let set = |level, name, value: i32| {
        // SAFETY: the value is an int that outlives the call, and its size is given.
        check(unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        })
    };
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, after_s)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, every_s)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, tries)
}

/// Lets so many clients wait to be accepted, instead of the standard library's 128.
pub fn widen_backlog(listener: &std::net::TcpListener, waiting: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `listener` is borrowed; listening again only
    // changes the bound.
    check(unsafe { libc::listen(listener.as_raw_fd(), waiting) })
}

/// Lets the calling thread stand back for all others, for processor and disk. A kernel that
/// refuses leaves it as it is.
pub fn lower_priority() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_BEST_EFFORT_LOWEST: libc::c_int = (2 << 13) | 7;
    // SAFETY: plain integers; 0 names the calling thread in both calls.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            IOPRIO_BEST_EFFORT_LOWEST,
        );
    }
}

/// Asks the kernel to run the calling thread in slices of so many nanoseconds: it gets no more of
/// the processor than others, but gets it sooner when it wakes beside threads that have just been
/// given a long slice. Kernels before 6.12 know no such wish, and one that refuses leaves the
/// thread as it is.
pub fn prefer_short_slices(slice_ns: u64) {
    const SCHED_OTHER: u32 = 0;
    // SAFETY: all zeros is a valid value of this struct of plain integers.
    let mut wish: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: `wish` is a valid place of `size` bytes for the answer; 0 names the calling thread.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wish, size, 0) };
    if known != 0 || wish.sched_policy != SCHED_OTHER {
        return;
    }
    wish.sched_runtime = slice_ns;
    // SAFETY: `wish` is complete, and tells its own size.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
}

/// Has a write beyond the limit on the size of files (RLIMIT_FSIZE) fail, so that it can be told
/// of, instead of ending the process without a word.
pub fn ignore_file_size_signal() {
    // SAFETY: no handler is installed; a failure would leave the signal as it is.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// What the handler of a bus error says: set once, before the handler is installed.
static MAP_START: AtomicUsize = AtomicUsize::new(0);
static MAP_LEN: AtomicUsize = AtomicUsize::new(0);
static MAP_FILE: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Names the page file in the last message, should a read through its map fail: the disk could
/// not deliver a page, or the file was cut from outside.
pub fn report_bus_errors(map_start: usize, map_len: usize, file: String) -> io::Result<()> {
    MAP_START.store(map_start, Ordering::Relaxed);
    MAP_LEN.store(map_len, Ordering::Relaxed);
    // Never freed: the handler may run until the process ends.
    MAP_FILE.store(Box::into_raw(Box::new(file)), Ordering::Release);
    // SAFETY: all zeros is an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = on_bus_error as *const () as usize;
    // SAFETY: `action` is complete, and the handler does only what a handler may.
    check(unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) })
}

/// Only writes to standard error and ends the process: both are allowed in a handler.
extern "C" fn on_bus_error(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes valid information with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let start = MAP_START.load(Ordering::Relaxed);
    let inside = address
        .checked_sub(start)
        .filter(|offset| *offset < MAP_LEN.load(Ordering::Relaxed));
    // SAFETY: either null or the string leaked by `report_bus_errors`.
    let file = unsafe { MAP_FILE.load(Ordering::Acquire).as_ref() };
    say(b"fatal: the system could not deliver a page of memory (SIGBUS)");
    if let (Some(offset), Some(file)) = (inside, file) {
        say(b": ");
        say(file.as_bytes());
        say(b" at byte ");
        say_number(offset);
        say(b"; the disk failed or the file was cut from outside");
    }
    say(b". See docs/OPERATIONS.md, 'The disk fails'.\n");
    // SAFETY: ends the process at once, which is the purpose.
    unsafe { libc::_exit(2) }
}

fn say(text: &[u8]) {
    // SAFETY: writes from a valid slice; a failure leaves nothing to be done.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

fn say_number(mut number: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    say(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::{allowed_cores, lock_exclusive, prefer_short_slices};
    use std::fs::File;

    #[test]
    fn a_directory_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = File::open(dir.path()).unwrap();
        let second = File::open(dir.path()).unwrap();
        assert!(lock_exclusive(&first).unwrap());
        assert!(!lock_exclusive(&second).unwrap());
        drop(first);
        assert!(lock_exclusive(&second).unwrap());
    }

    #[test]
    fn a_wish_for_short_slices_changes_nothing_else() {
        // SAFETY: getpriority takes plain integers; 0 names the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = (nice(), allowed_cores().unwrap());
        prefer_short_slices(100_000);
        assert_eq!((nice(), allowed_cores().unwrap()), before);
        let name = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
        // Kernels that know the wish show it there.
        if let Some(line) = name.lines().find(|line| line.starts_with("se.slice")) {
            assert!(line.ends_with(" 100000"), "{line}");
        }
    }

    #[test]
    fn this_machine_can_run_the_server() {
        assert!(!allowed_cores().unwrap().is_empty());
        quoin_storage::disk::probe_io_uring().unwrap();
    }
}
