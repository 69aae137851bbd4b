//! Reading, in one pass. Nothing is believed that a checksum does not cover, and no memory is
//! taken for what has not been read.

use super::{
    ALARM_BYTES, BLOCK_BYTES, BLOCK_HEAD, EVENT_BYTES, HEADER_BYTES, Header, LEASE_BYTES,
    TOMBSTONE, block_crc,
};
use crate::mvcc::{Event, Revision};
use std::fmt;
use std::io::{self, Read};

/// Why a snapshot could not be read.
#[derive(Debug)]
pub enum SnapshotError {
    /// The file could not be.
    Io(io::Error),
    /// It is damaged.
    Damaged {
        /// The byte of the file at which the damage was found.
        at: u64,
        /// What is wrong there.
        what: String,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Io(error) => write!(f, "the snapshot could not be read: {error}"),
            SnapshotError::Damaged { at, what } => {
                write!(f, "the snapshot is damaged at byte {at}: {what}")
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A lease.
    Lease {
        /// Its id.
        id: i64,
        /// The seconds that it was granted for.
        ttl: i64,
        /// The seconds that it had left when that was last written down; 0: all of them.
        remaining: i64,
    },
    /// An alarm, by its name.
    Alarm(&'a [u8]),
    /// A change. What it followed is not told.
    Event(Event<'a>),
}

/// Reads a snapshot.
pub struct SnapshotReader<R> {
    input: R,
    header: Header,
    /// Bytes of the file that were read.
    at: u64,
    block: u64,
    /// Records of the blocks read; the first `used` bytes are done with.
    buffer: Vec<u8>,
    used: usize,
    /// Bytes of records that no block read so far holds.
    left: u64,
    leases: u64,
    alarms: u64,
    events: u64,
    last_lease: Option<i64>,
    last: Revision,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<SnapshotReader<R>, SnapshotError> {
        let mut bytes = [0; HEADER_BYTES];
        read_exact(&mut input, &mut bytes, 0)?;
        let header =
            Header::decode(&bytes).map_err(|what| SnapshotError::Damaged { at: 0, what })?;
        Ok(SnapshotReader {
            input,
            header,
            at: HEADER_BYTES as u64,
            block: 0,
            buffer: Vec::new(),
            used: 0,
            left: header.record_bytes,
            leases: 0,
            alarms: 0,
            events: 0,
            last_lease: None,
            last: Revision::NONE,
        })
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the bytes come from.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn damaged(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged {
            at: self.at,
            what: what.into(),
        }
    }

    /// The next record; `None` at the end, behind which the padding was checked.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, SnapshotError> {
        if self.leases < self.header.leases {
            self.need(LEASE_BYTES)?;
            self.leases += 1;
            return self.lease().map(Some);
        }
        if self.alarms < self.header.alarms {
            self.need(ALARM_BYTES)?;
            self.alarms += 1;
            return Ok(Some(Record::Alarm(self.take(ALARM_BYTES))));
        }
        if self.events < self.header.events {
            self.need(EVENT_BYTES)?;
            self.events += 1;
            return self.event().map(Some);
        }
        self.finish()?;
        Ok(None)
    }

    fn lease(&mut self) -> Result<Record<'_>, SnapshotError> {
        let bytes = self.take(LEASE_BYTES);
        let (id, ttl, remaining) = (long(bytes, 0), long(bytes, 8), long(bytes, 16));
        if ttl < 1 || !(0..ttl).contains(&remaining) {
            return Err(self.damaged(format!("lease {id} has impossible times")));
        }
        // Their names order like numbers without a sign.
        if self.last_lease.is_some_and(|last| last as u64 >= id as u64) {
            return Err(self.damaged(format!("lease {id} is out of order")));
        }
        self.last_lease = Some(id);
        Ok(Record::Lease { id, ttl, remaining })
    }

    fn event(&mut self) -> Result<Record<'_>, SnapshotError> {
        let head = &self.buffer[self.used..self.used + EVENT_BYTES];
        let revision = Revision {
            main: long(head, 0),
            sub: word(head, 8),
        };
        let (flags, create, version, lease) =
            (head[12], long(head, 13), long(head, 21), long(head, 29));
        let (key_len, value_len) = (word(head, 37) as usize, word(head, 41) as usize);
        let place = format!("event {}.{}", revision.main, revision.sub);
        if revision <= self.last || revision.main > self.header.revision || revision.main < 1 {
            return Err(self.damaged(format!("{place} is out of order")));
        }
        let tombstone = flags == TOMBSTONE;
        let fits = match flags {
            TOMBSTONE => (create, version, lease, value_len) == (0, 0, 0, 0),
            0 => version >= 1 && (1..=revision.main).contains(&create),
            _ => false,
        };
        if !fits || key_len == 0 {
            return Err(self.damaged(format!("{place} is none that a store could hold")));
        }
        self.last = revision;
        self.need(EVENT_BYTES + key_len + value_len)?;
        let bytes = self.take(EVENT_BYTES + key_len + value_len);
        let (key, value) = bytes[EVENT_BYTES..].split_at(key_len);
        Ok(Record::Event(Event {
            revision,
            tombstone,
            key,
            value,
            create_revision: create,
            version,
            lease,
            prev: Revision::NONE,
        }))
    }

    fn take(&mut self, bytes: usize) -> &[u8] {
        let from = self.used;
        self.used += bytes;
        &self.buffer[from..self.used]
    }

    /// Reads blocks until so many bytes of records are there.
    fn need(&mut self, bytes: usize) -> Result<(), SnapshotError> {
        while self.buffer.len() - self.used < bytes {
            if self.left == 0 {
                return Err(self.damaged("the records end in the middle of one"));
            }
            let mut head = [0; BLOCK_HEAD];
            read_exact(&mut self.input, &mut head, self.at)?;
            let expected = self.left.min(BLOCK_BYTES as u64) as usize;
            if word(&head, 0) as usize != expected {
                let number = self.block;
                return Err(self.damaged(format!("block {number} has an impossible length")));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            let from = self.buffer.len();
            self.buffer.resize(from + expected, 0);
            let payload = &mut self.buffer[from..];
            read_exact(&mut self.input, payload, self.at + BLOCK_HEAD as u64)?;
            if block_crc(self.block, payload) != word(&head, 4) {
                let number = self.block;
                return Err(self.damaged(format!("the checksum of block {number} does not match")));
            }
            self.at += (BLOCK_HEAD + expected) as u64;
            self.left -= expected as u64;
            self.block += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SnapshotError> {
        if self.left > 0 || self.used < self.buffer.len() {
            return Err(self.damaged("there are more records than the header says"));
        }
        let mut padding = vec![0; (self.header.file_bytes() - self.at) as usize];
        read_exact(&mut self.input, &mut padding, self.at)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("what fills up the file is not empty"));
        }
        self.at = self.header.file_bytes();
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, into: &mut [u8], at: u64) -> Result<(), SnapshotError> {
    input.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged {
            at,
            what: "the file ends too early".to_owned(),
        },
        _ => SnapshotError::Io(error),
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn long(bytes: &[u8], at: usize) -> i64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    i64::from_le_bytes(raw)
}
