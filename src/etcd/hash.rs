//! etcd's hash of a store's history: CRC-32C over the bytes that etcd's own store would hold.
#![forbid(unsafe_code)]

use super::message;
use super::pb::{Malformed, put_bytes, put_i64, put_message, put_u64};
use super::reply::put_header;
use super::request::two_numbers;
use crate::api::Header;

/// The name of the place where etcd keeps events; the hash begins with it.
const BUCKET: &[u8] = b"key";

/// What is kept of one change.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are those of an event")]
pub struct Change<'a> {
    pub main: i64,
    pub sub: u32,
    pub tombstone: bool,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
}

/// A hash in the making.
#[derive(Debug, Clone)]
pub struct Hasher {
    crc: u32,
    head: Vec<u8>,
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher {
            crc: crc32c::crc32c(BUCKET),
            head: Vec::new(),
        }
    }
}

impl Hasher {
    /// Adds bytes.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// Adds a change: its place as etcd writes it, and its pair in protobuf. A delete's pair is a
    /// key alone.
    pub fn add(&mut self, change: &Change<'_>) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        head.extend_from_slice(&change.main.to_be_bytes());
        head.push(b'_');
        head.extend_from_slice(&i64::from(change.sub).to_be_bytes());
        if change.tombstone {
            head.push(b't');
            put_bytes(&mut head, 1, change.key);
            self.add_bytes(&head);
        } else {
            put_bytes(&mut head, 1, change.key);
            put_i64(&mut head, 2, change.create_revision);
            put_i64(&mut head, 3, change.main);
            put_i64(&mut head, 4, change.version);
            if !change.value.is_empty() {
                super::pb::begin_message(&mut head, 5, change.value.len());
            }
            self.add_bytes(&head);
            self.add_bytes(change.value);
            head.clear();
            put_i64(&mut head, 6, change.lease);
            self.add_bytes(&head);
        }
        self.head = head;
    }

    /// The hash of what was added.
    pub fn hash(&self) -> u32 {
        self.crc
    }
}

/// What is asked: the revision.
pub fn decode_revision(message: &[u8]) -> Result<i64, Malformed> {
    Ok(two_numbers(message)?.0)
}

/// Answers `HashKV`, or, without revisions, `Hash`.
pub fn encode(header: &Header, hash: u32, revisions: Option<(i64, i64)>, out: &mut Vec<u8>) {
    let start = message::begin(out);
    put_message(out, 1, |out| put_header(out, header));
    put_u64(out, 2, u64::from(hash));
    if let Some((compacted, revision)) = revisions {
        put_i64(out, 3, compacted);
        put_i64(out, 4, revision);
    }
    message::finish(out, start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_etcds_bytes() {
        let mut hasher = Hasher::default();
        assert_eq!(hasher.hash(), crc32c::crc32c(b"key"));
        hasher.add(&Change {
            main: 2,
            sub: 0,
            tombstone: false,
            key: b"k",
            value: b"v",
            create_revision: 2,
            version: 1,
            lease: 7,
        });
        hasher.add(&Change {
            main: 3,
            sub: 1,
            tombstone: true,
            key: b"k",
            value: b"",
            create_revision: 0,
            version: 0,
            lease: 0,
        });
        let mut bytes = b"key".to_vec();
        bytes.extend_from_slice(b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0");
        bytes.extend_from_slice(b"\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x01v\x30\x07");
        bytes.extend_from_slice(b"\0\0\0\0\0\0\0\x03_\0\0\0\0\0\0\0\x01t\x0a\x01k");
        assert_eq!(hasher.hash(), crc32c::crc32c(&bytes));
    }
}
