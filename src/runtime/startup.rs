//! What can go wrong before the server serves, each with its way out. Every remedy names the
//! section of docs/OPERATIONS.md that explains it.

#![forbid(unsafe_code)]

use crate::limits::MIB;
use crate::runtime::os;
use quoin_storage::disk::{self, DiskError, DiskErrorKind, UringRefused};
use quoin_storage::log::LogError;
use quoin_storage::tree::TreeError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Oldest kernel that is served.
const KERNEL_OLDEST: (u32, u32) = (5, 15);
/// Memory that one executor or ring locks.
const LOCKED_BYTES_PER_RING: u64 = 512 * 1024;
/// Files that the server opens whatever its size, with room for the segments of a long log and a
/// few connections.
const FILES: u64 = 64;
/// Files of an executor: three rings, and what wakes it.
const FILES_PER_EXECUTOR: u64 = 4;
/// Files of an address that is listened on.
const FILES_PER_ADDRESS: u64 = 2;

/// Why the server does not start.
#[derive(Debug)]
#[expect(missing_docs, reason = "the text of each says what it is")]
pub enum StartError {
    OldKernel(String),
    NoIoUring(UringRefused),
    LockedMemory {
        limit: u64,
        needed: u64,
    },
    OpenFiles {
        limit: u64,
        needed: u64,
    },
    DataDir {
        path: PathBuf,
        error: io::Error,
    },
    Locked(PathBuf),
    NoMember(PathBuf),
    NotOwned(PathBuf),
    TooOpen {
        path: PathBuf,
        mode: u32,
    },
    Foreign {
        path: PathBuf,
        what: String,
    },
    BadIdentity {
        path: PathBuf,
        what: String,
    },
    Disk(DiskError),
    Full,
    Storage(String),
    Listen {
        url: String,
        error: io::Error,
    },
    Cores {
        asked: Vec<usize>,
        allowed: Vec<usize>,
    },
    System {
        what: &'static str,
        error: io::Error,
    },
}

impl From<DiskError> for StartError {
    fn from(error: DiskError) -> StartError {
        StartError::Disk(error)
    }
}

impl From<LogError> for StartError {
    fn from(error: LogError) -> StartError {
        match error {
            LogError::Disk(error) => StartError::Disk(error),
            LogError::NoSpace => StartError::Full,
            other => StartError::Storage(other.to_string()),
        }
    }
}

impl From<TreeError> for StartError {
    fn from(error: TreeError) -> StartError {
        match error {
            TreeError::Disk(error) => StartError::Disk(error),
            TreeError::NoSpace => StartError::Full,
            other => StartError::Storage(other.to_string()),
        }
    }
}

impl StartError {
    /// The section of docs/OPERATIONS.md that explains the remedy.
    pub fn section(&self) -> &'static str {
        match self {
            StartError::OldKernel(_) => "The kernel is too old",
            StartError::NoIoUring(_) => "io_uring is not available",
            StartError::LockedMemory { .. } => "Too little memory may be locked",
            StartError::OpenFiles { .. } => "Too few files may be open",
            StartError::DataDir { error, .. } if is_no_place(error) => {
                "The data directory cannot be made"
            }
            StartError::DataDir { error, .. } => section_of_io(error),
            StartError::Locked(_) => "The data directory is in use",
            StartError::NoMember(_) => "The data directory holds no member",
            StartError::NotOwned(_) | StartError::TooOpen { .. } => {
                "The data directory's permissions"
            }
            StartError::Foreign { .. } => "The data directory is not quoin's",
            StartError::BadIdentity { .. } | StartError::Storage(_) => "The data is damaged",
            StartError::Full => "The disk is full",
            StartError::Disk(error) => match &error.kind {
                DiskErrorKind::NoSpace => "The disk is full",
                DiskErrorKind::FileLimit => "A file may not grow",
                DiskErrorKind::NoDirectIo => "The file system does not support direct I/O",
                DiskErrorKind::NoIoUring(_) => "io_uring is not available",
                DiskErrorKind::Io(error) => section_of_io(error),
                DiskErrorKind::Latched | DiskErrorKind::BadSize(_) => "The data is damaged",
                DiskErrorKind::TooOpen(_) => "The data directory's permissions",
            },
            StartError::Listen { .. } => "The address cannot be opened",
            StartError::Cores { .. } => "Cores",
            StartError::System { .. } => "Start-up errors",
        }
    }
}

/// Whether the path, not the disk behind it, is to blame.
fn is_no_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidFilename
    )
}

fn section_of_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "The data directory's permissions",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "The disk is full",
        _ => "The disk fails",
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::OldKernel(release) => write!(
                f,
                "the kernel is {release}; quoin needs {}.{} or later",
                KERNEL_OLDEST.0, KERNEL_OLDEST.1
            ),
            StartError::NoIoUring(error) => write!(
                f,
                "io_uring is not available ({error}): {}",
                why_no_io_uring(&error.error)
            ),
            StartError::LockedMemory { limit, needed } => write!(
                f,
                "only {limit} bytes of memory may be locked, and {needed} are needed: raise it \
                 with 'ulimit -l {}' or LimitMEMLOCK",
                needed / 1024
            ),
            StartError::OpenFiles { limit, needed } => write!(
                f,
                "only {limit} files may be open, and {needed} are needed before the first client \
                 connects: raise it with 'ulimit -n' or LimitNOFILE"
            ),
            StartError::DataDir { path, error } if is_no_place(error) => write!(
                f,
                "the data directory {} cannot be made or opened: {error}",
                path.display()
            ),
            StartError::DataDir { path, error } => {
                write!(f, "the data directory {}: {error}", path.display())
            }
            StartError::Locked(path) => write!(
                f,
                "the data directory {} is in use by another process",
                path.display()
            ),
            StartError::NoMember(path) => write!(
                f,
                "--initial-cluster-state is 'existing', and the data directory {} is empty: \
                 joining a cluster is not served by this version",
                path.display()
            ),
            StartError::NotOwned(path) => write!(
                f,
                "the data directory {} belongs to another user: chown it, or run as its owner",
                path.display()
            ),
            StartError::TooOpen { path, mode } => write!(
                f,
                "the data directory {} is open to others (mode {mode:04o}): chmod 700 it",
                path.display()
            ),
            StartError::Foreign { path, what } => write!(
                f,
                "the data directory {} is not quoin's: {what}; give another with --data-dir",
                path.display()
            ),
            StartError::BadIdentity { path, what } => {
                write!(f, "{} cannot be trusted: {what}", path.display())
            }
            StartError::Full => f.write_str("no space is left on the data directory's file system"),
            StartError::Disk(error) => error.fmt(f),
            StartError::Storage(what) => f.write_str(what),
            StartError::Listen { url, error } => write!(f, "cannot listen on {url}: {error}"),
            StartError::Cores { asked, allowed } => write!(
                f,
                "--cores asks for {asked:?}, and this process may use {allowed:?}"
            ),
            StartError::System { what, error } => write!(f, "{what}: {error}"),
        }?;
        write!(f, " (docs/OPERATIONS.md, '{}')", self.section())
    }
}

impl std::error::Error for StartError {}

fn why_no_io_uring(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel was built without it, or a sandbox hides it",
        Some(libc::EPERM | libc::EACCES) => {
            "a container's seccomp profile or the sysctl kernel.io_uring_disabled forbids it"
        }
        Some(libc::ENOMEM) => "too little memory may be locked (ulimit -l)",
        _ => "see the section named below",
    }
}

/// Checks what the machine must offer, before anything is touched, to so many executors and
/// addresses that are listened on.
pub fn check_machine(executors: usize, addresses: usize) -> Result<(), StartError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| {
        StartError::System {
            what: "the kernel's version cannot be read",
            error,
        }
    })?;
    let release = release.trim();
    // A release that cannot be read is left to the ring's own probe.
    if version_of(release).is_some_and(|version| version < KERNEL_OLDEST) {
        return Err(StartError::OldKernel(release.to_owned()));
    }
    disk::probe_io_uring().map_err(StartError::NoIoUring)?;
    let limit = os::locked_memory_limit().map_err(|error| StartError::System {
        what: "the limit of locked memory cannot be read",
        error,
    })?;
    let executors = executors as u64;
    // The log thread has a ring, too.
    let needed = (executors + 1) * LOCKED_BYTES_PER_RING;
    if limit < needed {
        return Err(StartError::LockedMemory { limit, needed });
    }
    let files = os::open_files_limit().map_err(|error| StartError::System {
        what: "the limit of open files cannot be read",
        error,
    })?;
    // Whoever started the server may have left it some more than the standard streams.
    let open = std::fs::read_dir("/proc/self/fd").map_or(3, |entries| entries.count() as u64);
    let needed =
        open + FILES + executors * FILES_PER_EXECUTOR + addresses as u64 * FILES_PER_ADDRESS;
    if files < needed {
        return Err(StartError::OpenFiles {
            limit: files,
            needed,
        });
    }
    if files < 1024 {
        crate::log_warn!("only {files} files may be open, connections included (ulimit -n)");
    }
    Ok(())
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Warns about a disk that will soon be full.
pub fn warn_of_little_space(free: u64) {
    if free < 512 * MIB as u64 {
        crate::log_warn!(
            "only {} MiB are free on the data directory's file system",
            free / MIB as u64
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{StartError, version_of};
    use quoin_storage::disk::{DiskError, DiskErrorKind, UringRefused};
    use std::io;
    use std::path::PathBuf;

    #[test]
    fn every_remedy_is_in_the_operations_page() {
        let page = include_str!("../../docs/OPERATIONS.md");
        let path = PathBuf::from("d");
        let io = |kind| io::Error::from(kind);
        let disk = |kind| {
            StartError::Disk(DiskError {
                file: "f".to_owned(),
                call: "write",
                offset: None,
                kind,
            })
        };
        let what = String::new;
        for error in [
            StartError::OldKernel(what()),
            StartError::NoIoUring(UringRefused {
                call: "io_uring_enter",
                error: io(io::ErrorKind::PermissionDenied),
            }),
            StartError::LockedMemory {
                limit: 0,
                needed: 1,
            },
            StartError::OpenFiles {
                limit: 0,
                needed: 1,
            },
            StartError::DataDir {
                path: path.clone(),
                error: io(io::ErrorKind::NotFound),
            },
            StartError::DataDir {
                path: path.clone(),
                error: io(io::ErrorKind::Other),
            },
            StartError::DataDir {
                path: path.clone(),
                error: io(io::ErrorKind::PermissionDenied),
            },
            StartError::Locked(path.clone()),
            StartError::NoMember(path.clone()),
            StartError::NotOwned(path.clone()),
            StartError::TooOpen {
                path: path.clone(),
                mode: 0o755,
            },
            StartError::Foreign {
                path: path.clone(),
                what: what(),
            },
            StartError::BadIdentity { path, what: what() },
            disk(DiskErrorKind::NoSpace),
            disk(DiskErrorKind::NoDirectIo),
            disk(DiskErrorKind::FileLimit),
            disk(DiskErrorKind::Latched),
            StartError::Storage(what()),
            StartError::Full,
            StartError::Listen {
                url: what(),
                error: io(io::ErrorKind::AddrInUse),
            },
            StartError::Cores {
                asked: vec![9],
                allowed: vec![0],
            },
            StartError::System {
                what: "w",
                error: io(io::ErrorKind::NotFound),
            },
        ] {
            let section = error.section();
            let found = page.lines().any(|line| {
                line.trim_start_matches('#').trim() == section && line.starts_with('#')
            });
            assert!(found, "{error}: no section '{section}'");
        }
    }

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version_of("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version_of("5.15.0"), Some((5, 15)));
        assert_eq!(version_of("5.4"), Some((5, 4)));
        assert_eq!(version_of("unknown"), None);
    }
}
