//! A data directory made of a snapshot.

#![forbid(unsafe_code)]

use crate::limits;
use crate::runtime::data_dir::{DataDir, Identity, TREE};
use crate::runtime::ids;
use crate::runtime::startup::StartError;
use quoin_storage::disk::{Disk, RealDisk};
use quoin_storage::mvcc::lease::{self, LeaseRecord};
use quoin_storage::mvcc::state::{self, Space};
use quoin_storage::mvcc::{self, Meta, restore_event};
use quoin_storage::snapshot::{Header, Record, SnapshotError, SnapshotReader};
use quoin_storage::tree::{self, TreeError, TreeOptions, Writer};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Bytes of records that share one transaction of the tree.
const BATCH_BYTES: usize = 4 * limits::MIB;
/// Records that do.
const BATCH_RECORDS: usize = 8_192;

/// How a store is restored.
#[derive(Debug, Clone)]
pub struct Options {
    /// By how much the newest revision grows, so that no client has seen a later one.
    pub bump_revision: i64,
    /// Everything before the newest revision counts as compacted, so that watches begin anew.
    pub mark_compacted: bool,
    /// The peer URLs of the member that will live there; they make its id.
    pub peer_urls: Vec<String>,
    /// The cluster's token; it makes the ids, too.
    pub cluster_token: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bump_revision: 0,
            mark_compacted: false,
            peer_urls: vec!["http://localhost:2380".to_owned()],
            cluster_token: "etcd-cluster".to_owned(),
        }
    }
}

/// Why a store was not restored.
#[derive(Debug)]
pub enum RestoreError {
    /// The snapshot is to blame.
    Snapshot(SnapshotError),
    /// The directory is not empty.
    NotEmpty,
    /// The directory could not be made or written.
    Directory(StartError),
    /// The tree could not be written.
    Store(mvcc::Error),
    /// The revision cannot grow by so much.
    Bump,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Snapshot(error) => error.fmt(f),
            RestoreError::NotEmpty => f.write_str("the data directory is not empty"),
            RestoreError::Directory(error) => error.fmt(f),
            RestoreError::Store(error) => error.fmt(f),
            RestoreError::Bump => f.write_str("the revision cannot grow by so much"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<SnapshotError> for RestoreError {
    fn from(error: SnapshotError) -> RestoreError {
        RestoreError::Snapshot(error)
    }
}

impl From<StartError> for RestoreError {
    fn from(error: StartError) -> RestoreError {
        RestoreError::Directory(error)
    }
}

impl From<mvcc::Error> for RestoreError {
    fn from(error: mvcc::Error) -> RestoreError {
        RestoreError::Store(error)
    }
}

impl From<TreeError> for RestoreError {
    fn from(error: TreeError) -> RestoreError {
        RestoreError::Store(error.into())
    }
}

/// Makes a data directory that a server can be started on, from a snapshot; says what is in it.
/// The directory must not exist or be empty. It is complete only when this has succeeded: until
/// then no server takes it for a store.
pub fn restore(
    input: &mut dyn Read,
    path: &Path,
    options: &Options,
) -> Result<Header, RestoreError> {
    let mut reader = SnapshotReader::open(input)?;
    let dir = DataDir::open(path)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(path).map_err(StartError::from)?);
    let occupied = disk.list().map_err(StartError::from)?;
    if dir.identity(&*disk)?.is_some() || occupied.iter().any(|name| name == TREE) {
        return Err(RestoreError::NotEmpty);
    }
    let member_id = ids::member_id(&options.peer_urls, &options.cluster_token);
    let cluster_id = ids::cluster_id(&[member_id]);
    let header = *reader.header();
    let tree_options = TreeOptions {
        young_bytes_max: limits::YOUNG_BYTES_MAX,
        ..TreeOptions::default()
    };
    let (mut writer, _shared) = tree::open(Arc::clone(&disk), TREE, tree_options)?;
    let mut meta = Meta::to_restore(header.compacted);
    meta.extra = header.extra().to_vec();
    while batch(&mut writer, &mut reader, &mut meta)? {
        if writer.young_bytes() >= limits::YOUNG_BYTES_CHECKPOINT {
            writer.checkpoint_now()?;
        }
    }
    finish(&mut meta, &header, options)?;
    writer.begin().commit(&meta.encode());
    writer.checkpoint_now()?;
    drop(writer);
    // Only now is there somebody who lives here.
    let newcomer = Identity {
        cluster_id,
        member_id,
        boot_epoch: 0,
        log_id: cluster_id.rotate_left(32) ^ member_id,
        founded: false,
    };
    dir.begin_run(&*disk, newcomer)?;
    Ok(header)
}

/// Settles the newest revision.
fn finish(meta: &mut Meta, header: &Header, options: &Options) -> Result<(), RestoreError> {
    let bumped = header.revision.checked_add(options.bump_revision);
    meta.revision = bumped
        .filter(|_| options.bump_revision >= 0)
        .ok_or(RestoreError::Bump)?;
    if options.mark_compacted && meta.compacted < meta.revision {
        mvcc::compact(meta, meta.revision)?;
    }
    Ok(())
}

/// Writes some records; says whether there may be more.
fn batch(
    writer: &mut Writer,
    reader: &mut SnapshotReader<&mut dyn Read>,
    meta: &mut Meta,
) -> Result<bool, RestoreError> {
    let mut txn = writer.begin();
    let (mut bytes, mut records) = (0, 0);
    let mut more = true;
    while bytes < BATCH_BYTES && records < BATCH_RECORDS {
        records += 1;
        match reader.next_record()? {
            None => {
                more = false;
                break;
            }
            Some(Record::Lease { id, ttl, remaining }) => {
                // No entry of the new log has granted it.
                let record = LeaseRecord {
                    ttl,
                    remaining,
                    granted_at: 0,
                };
                lease::grant(&mut txn, meta, id, &record)?;
            }
            Some(Record::Alarm(name)) => state::put(&mut txn, Space::ALARM, name, b"")?,
            Some(Record::Event(event)) => {
                bytes += event.key.len() + event.value.len();
                restore_event(&mut txn, meta, &event)?;
            }
        }
    }
    txn.commit(&meta.encode());
    Ok(more)
}
