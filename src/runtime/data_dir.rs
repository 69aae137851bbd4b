//! The data directory: made, checked, locked, and its identity file.
//!
//! ```text
//! identity (60 bytes)
//!  0  magic         8   "quoinid\n"
//!  8  version       4   of the directory's format
//! 12  founded       4   1 once log and tree exist; until then they may be made anew
//! 16  cluster id    8
//! 24  member id     8
//! 32  boot epoch    8   grows with each start; no two runs share one
//! 40  log id        8   ties the log's segments to this directory
//! 48  reserved      8   zero
//! 56  crc32         4   of the 56 bytes before it
//! ```
//! All numbers are little-endian.

#![forbid(unsafe_code)]

use crate::runtime::os;
use crate::runtime::startup::StartError;
use quoin_storage::disk::Disk;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the identity file.
pub const IDENTITY: &str = "identity";
/// Name of the tree file.
pub const TREE: &str = "tree";
/// First part of the names of the log's segments.
pub const LOG_PREFIX: &str = "log-";

const MAGIC: [u8; 8] = *b"quoinid\n";
const FORMAT_VERSION: u32 = 1;
const IDENTITY_BYTES: usize = 60;

/// Who lives in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Counts the starts.
    pub boot_epoch: u64,
    /// Ties the log's segments to this directory.
    pub log_id: u64,
    /// Log and tree have been made: should they be missing, they were lost.
    pub founded: bool,
}

impl Identity {
    fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.founded).to_le_bytes());
        let numbers = [
            self.cluster_id,
            self.member_id,
            self.boot_epoch,
            self.log_id,
        ];
        for (at, number) in (16..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Identity, String> {
        let Ok(bytes): Result<&[u8; IDENTITY_BYTES], _> = bytes.try_into() else {
            return Err(format!(
                "it has {} bytes instead of {IDENTITY_BYTES}",
                bytes.len()
            ));
        };
        if bytes[..8] != MAGIC {
            return Err("it does not start with quoin's magic".to_owned());
        }
        let crc = crc32fast::hash(&bytes[..56]);
        if bytes[56..] != crc.to_le_bytes() {
            return Err("its checksum does not match".to_owned());
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != FORMAT_VERSION {
            return Err(format!(
                "it was written in format {version}, and this program reads {FORMAT_VERSION}"
            ));
        }
        let founded = match bytes[12..16] {
            [0, 0, 0, 0] => false,
            [1, 0, 0, 0] => true,
            _ => {
                return Err("it says neither that the data was founded nor the opposite".to_owned());
            }
        };
        let number = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        Ok(Identity {
            cluster_id: number(16),
            member_id: number(24),
            boot_epoch: number(32),
            log_id: number(40),
            founded,
        })
    }
}

/// Lists what is in a directory, or says that it is not quoin's.
type Check = fn(&Path) -> Result<Vec<String>, StartError>;

/// A directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock.
    directory: File,
}

impl DataDir {
    /// Makes or checks the directory and takes its lock. Nothing in a directory that is not
    /// quoin's is touched.
    pub fn open(path: &Path) -> Result<DataDir, StartError> {
        DataDir::open_with(path, check_contents)
    }

    /// The same for a directory that holds the log alone.
    pub fn open_for_log(path: &Path) -> Result<DataDir, StartError> {
        DataDir::open_with(path, check_log_alone)
    }

    /// Takes the lock of a data directory that is there, to look into it: nothing is made, and
    /// nothing of it is changed. `None` if it is empty.
    pub fn open_to_look(path: &Path) -> Result<Option<DataDir>, StartError> {
        DataDir::lock_to_look(path, check_contents)
    }

    /// The same for a directory that holds the log alone.
    pub fn open_log_to_look(path: &Path) -> Result<Option<DataDir>, StartError> {
        DataDir::lock_to_look(path, check_log_alone)
    }

    fn lock_to_look(path: &Path, check: Check) -> Result<Option<DataDir>, StartError> {
        let (dir, names) = DataDir::lock(path, check)?;
        if names.is_empty() {
            return Ok(None);
        }
        check_access(path, &dir.directory, false)?;
        Ok(Some(dir))
    }

    fn open_with(path: &Path, check: Check) -> Result<DataDir, StartError> {
        let failed = |error: io::Error| StartError::DataDir {
            path: path.to_owned(),
            error,
        };
        let created = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(path)
                    .map_err(failed)?;
                true
            }
            Err(e) => return Err(failed(e)),
        };
        if created {
            sync_parent(path).map_err(failed)?;
        }
        let (dir, names) = DataDir::lock(path, check)?;
        check_access(path, &dir.directory, names.is_empty())?;
        Ok(dir)
    }

    /// Takes the lock of a directory whose contents pass the check; what is in it.
    fn lock(path: &Path, check: Check) -> Result<(DataDir, Vec<String>), StartError> {
        let failed = |error: io::Error| StartError::DataDir {
            path: path.to_owned(),
            error,
        };
        check(path)?;
        let directory = File::open(path).map_err(failed)?;
        if !os::lock_exclusive(&directory).map_err(failed)? {
            return Err(StartError::Locked(path.to_owned()));
        }
        // Again, now that nobody else can be at it.
        let names = check(path)?;
        let dir = DataDir {
            path: path.to_owned(),
            directory,
        };
        Ok((dir, names))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who lives here; `None` in a new directory.
    pub fn identity(&self, disk: &dyn Disk) -> Result<Option<Identity>, StartError> {
        let Some(bytes) = disk.read_small(IDENTITY, IDENTITY_BYTES)? else {
            return Ok(None);
        };
        let identity = Identity::decode(&bytes).map_err(|what| StartError::BadIdentity {
            path: self.path.join(IDENTITY),
            what,
        })?;
        Ok(Some(identity))
    }

    /// Reads who lives here, or settles `newcomer` in a new directory, and makes this start's
    /// boot epoch durable before anything can be named by it.
    pub fn begin_run(&self, disk: &dyn Disk, newcomer: Identity) -> Result<Identity, StartError> {
        let identity = self.identity(disk)?.unwrap_or(newcomer);
        let identity = Identity {
            boot_epoch: identity.boot_epoch + 1,
            ..identity
        };
        disk.write_small(IDENTITY, &identity.encode())?;
        Ok(identity)
    }

    /// Notes that log and tree exist from now on.
    pub fn found(&self, disk: &dyn Disk, identity: Identity) -> Result<(), StartError> {
        if !identity.founded {
            let founded = Identity {
                founded: true,
                ..identity
            };
            disk.write_small(IDENTITY, &founded.encode())?;
        }
        Ok(())
    }
}

/// A new directory's name must survive a power cut.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Only the owner may read what is stored.
fn check_access(path: &Path, directory: &File, new: bool) -> Result<(), StartError> {
    let failed = |error: io::Error| StartError::DataDir {
        path: path.to_owned(),
        error,
    };
    let metadata = directory.metadata().map_err(failed)?;
    if !os::is_own(&metadata) {
        return Err(StartError::NotOwned(path.to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if !new {
        return Err(StartError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// The names in the directory, without what a file system or a crash of the very first start may
/// leave behind.
fn names_in(path: &Path) -> Result<Vec<String>, StartError> {
    let failed = |error: io::Error| StartError::DataDir {
        path: path.to_owned(),
        error,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    names.retain(|name| name != "lost+found" && !name.ends_with(".tmp"));
    Ok(names)
}

/// The names in a directory for the log; refuses one that holds anything else. Whose log it is,
/// its segments say.
fn check_log_alone(path: &Path) -> Result<Vec<String>, StartError> {
    let names = names_in(path)?;
    match names.iter().find(|name| !name.starts_with(LOG_PREFIX)) {
        None => Ok(names),
        Some(other) => Err(StartError::Foreign {
            path: path.to_owned(),
            what: format!("--wal-dir is for the log alone, and '{other}' is there"),
        }),
    }
}

/// The names in the directory; refuses one whose contents are not quoin's.
fn check_contents(path: &Path) -> Result<Vec<String>, StartError> {
    let names = names_in(path)?;
    let foreign = |what: String| StartError::Foreign {
        path: path.to_owned(),
        what,
    };
    if names.iter().any(|name| name == "member") {
        return Err(foreign("it holds the data of an etcd member".to_owned()));
    }
    let has_identity = names.iter().any(|name| name == IDENTITY);
    if has_identity || names.is_empty() {
        return Ok(names);
    }
    if let Some(ours) = names.iter().find(|name| is_ours(name)) {
        return Err(StartError::BadIdentity {
            path: path.join(IDENTITY),
            what: format!("it is missing, although '{ours}' is there"),
        });
    }
    Err(foreign(format!(
        "it holds '{}', which quoin did not write",
        names[0]
    )))
}

fn is_ours(name: &str) -> bool {
    name.starts_with(TREE) || name.starts_with(LOG_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::{DataDir, IDENTITY, Identity};
    use crate::runtime::startup::StartError;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const IDENTITY_OF_TESTS: Identity = Identity {
        cluster_id: 1,
        member_id: 2,
        boot_epoch: 3,
        log_id: 4,
        founded: true,
    };

    #[test]
    fn an_identity_survives_its_file_and_no_flipped_bit() {
        let bytes = IDENTITY_OF_TESTS.encode();
        assert_eq!(Identity::decode(&bytes), Ok(IDENTITY_OF_TESTS));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&flipped).is_err(), "bit {bit}");
        }
        assert!(Identity::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn a_new_directory_is_private_and_locked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b.etcd");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.path(), path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(StartError::Locked(_))));
    }

    #[test]
    fn an_empty_open_directory_is_closed_and_a_full_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(dir.path().join(IDENTITY), IDENTITY_OF_TESTS.encode()).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let refused = DataDir::open(dir.path());
        assert!(matches!(
            refused,
            Err(StartError::TooOpen { mode: 0o750, .. })
        ));
    }

    #[test]
    fn a_look_makes_and_changes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("a");
        let refused = DataDir::open_to_look(&missing);
        assert!(matches!(refused, Err(StartError::DataDir { .. })));
        assert!(!missing.exists());
        let dir = tempfile::tempdir().unwrap();
        let opened = || fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755));
        let mode = || fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
        opened().unwrap();
        assert!(DataDir::open_to_look(dir.path()).unwrap().is_none());
        assert!(DataDir::open_log_to_look(dir.path()).unwrap().is_none());
        assert_eq!(mode(), 0o755);
        fs::write(dir.path().join(IDENTITY), IDENTITY_OF_TESTS.encode()).unwrap();
        let refused = DataDir::open_to_look(dir.path());
        assert!(matches!(refused, Err(StartError::TooOpen { .. })));
        let refused = DataDir::open_log_to_look(dir.path());
        assert!(matches!(refused, Err(StartError::Foreign { .. })));
        assert_eq!(mode(), 0o755);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let looked = DataDir::open_to_look(dir.path()).unwrap().unwrap();
        assert!(matches!(
            DataDir::open(dir.path()),
            Err(StartError::Locked(_))
        ));
        drop(looked);
    }

    #[test]
    fn foreign_directories_are_left_alone() {
        for name in ["member", "notes.txt", "tree"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "x").unwrap();
            let refused = DataDir::open(dir.path());
            assert!(
                matches!(
                    refused,
                    Err(StartError::Foreign { .. } | StartError::BadIdentity { .. })
                ),
                "{name}: {refused:?}"
            );
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
