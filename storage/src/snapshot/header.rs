//! What stands before the records.

use super::{BLOCK_BYTES, BLOCK_HEAD, FILE_UNIT, FORMAT};

/// The first bytes of a file.
const MAGIC: [u8; 8] = *b"quoinsnp";

/// Bytes of a header.
pub const HEADER_BYTES: usize = 128;

/// Bytes of small state that fit a header.
const EXTRA_ROOM: usize = 24;

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The newest revision.
    pub revision: i64,
    /// The oldest readable revision; -1 if there was no compaction.
    pub compacted: i64,
    /// Events.
    pub events: u64,
    /// Leases.
    pub leases: u64,
    /// Alarms.
    pub alarms: u64,
    /// Bytes of all records.
    pub record_bytes: u64,
    /// The cluster that it was taken from.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Small state that changes with the store; the first `extra_len` bytes.
    pub extra: [u8; EXTRA_ROOM],
    /// See [`Header::extra`].
    pub extra_len: u8,
}

impl Header {
    /// Notes small state; `false` if it does not fit.
    pub fn set_extra(&mut self, extra: &[u8]) -> bool {
        let Some(place) = self.extra.get_mut(..extra.len()) else {
            return false;
        };
        place.copy_from_slice(extra);
        self.extra_len = extra.len() as u8;
        true
    }

    /// Small state.
    pub fn extra(&self) -> &[u8] {
        &self.extra[..usize::from(self.extra_len).min(EXTRA_ROOM)]
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        let blocks = self.record_bytes.div_ceil(BLOCK_BYTES as u64);
        let bytes = HEADER_BYTES as u64 + blocks * BLOCK_HEAD as u64 + self.record_bytes;
        bytes.next_multiple_of(FILE_UNIT)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.extra_len).to_le_bytes());
        let numbers = [
            self.revision as u64,
            self.compacted as u64,
            self.events,
            self.leases,
            self.alarms,
            self.record_bytes,
            self.cluster_id,
            self.member_id,
        ];
        for (place, number) in bytes[16..80].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[80..80 + EXTRA_ROOM].copy_from_slice(&self.extra);
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; the error says what is wrong with it.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, String> {
        if bytes[..8] != MAGIC {
            return Err("it is not a snapshot of quoin".to_owned());
        }
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        if bytes[HEADER_BYTES - 4..] != crc.to_le_bytes() {
            return Err("the checksum of the header does not match".to_owned());
        }
        let word = |at: usize| {
            let mut raw = [0; 4];
            raw.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(raw)
        };
        if word(8) != FORMAT {
            return Err(format!(
                "it has format {}, and this program reads {FORMAT}",
                word(8)
            ));
        }
        let number = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let mut extra = [0; EXTRA_ROOM];
        extra.copy_from_slice(&bytes[80..80 + EXTRA_ROOM]);
        let header = Header {
            revision: number(16) as i64,
            compacted: number(24) as i64,
            events: number(32),
            leases: number(40),
            alarms: number(48),
            record_bytes: number(56),
            cluster_id: number(64),
            member_id: number(72),
            extra,
            extra_len: u8::try_from(word(12)).unwrap_or(u8::MAX),
        };
        let fits = header.revision >= 1
            && (-1..=header.revision).contains(&header.compacted)
            && usize::from(header.extra_len) <= EXTRA_ROOM
            && header.record_bytes < 1 << 60;
        match fits {
            true => Ok(header),
            false => Err("the numbers of the header contradict each other".to_owned()),
        }
    }
}
