//! A store as one stream of bytes: all retained history up to one revision, leases and alarms.
//! docs/FORMAT.md describes it to the byte.
//!
//! Everything is written in the order of a scan and read in one pass, in bounded memory on both
//! sides. The length is known before the first event is read, because the store knows what its
//! events take.
#![forbid(unsafe_code)]

mod header;

mod read;

mod write;

#[cfg(test)]
mod tests;

pub use header::{HEADER_BYTES, Header};
pub use read::{Record, SnapshotError, SnapshotReader};
pub use write::SnapshotWriter;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// Bytes of the records that one block holds; the last may hold fewer.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes before a block: its length and its checksum.
const BLOCK_HEAD: usize = 8;

/// A file is as long as some whole number of these; etcd's tools tell the checksum that they
/// append from what is before it by this.
const FILE_UNIT: u64 = 512;

const LEASE_BYTES: usize = 24;
const ALARM_BYTES: usize = 9;
/// An event beside its key and value.
const EVENT_BYTES: usize = 45;

const TOMBSTONE: u8 = 1;

/// The checksum of a block, which also says which block it is.
fn block_crc(number: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}
