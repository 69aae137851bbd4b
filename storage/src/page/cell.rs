//! Pointers and cells as bytes.
#![forbid(unsafe_code)]

use super::layout::{
    BRANCH_HEAD, COUNTED, DIRTY, KEY_INLINE_MAX, KEY_PREFIX, KEY_RUN, LEAF_HEAD, PAGE, VALUE_RUN,
};

/// Bytes of a stored [`Run`].
pub const RUN_BYTES: usize = 16;

/// Points to consecutive pages that hold one long key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub id: u64,
    /// CRC32 of the bytes (not of the zeros behind them).
    pub crc: u32,
    /// How many bytes.
    pub len: u32,
}

impl Run {
    /// Reads a stored pointer; `bytes` is at least [`RUN_BYTES`] long.
    pub fn decode(bytes: &[u8]) -> Run {
        Run {
            id: u64_at(bytes, 0),
            crc: u32_at(bytes, 8),
            len: u32_at(bytes, 12),
        }
    }

    /// As stored: page u64, CRC32 u32, length u32.
    pub fn encode(self) -> [u8; RUN_BYTES] {
        let mut bytes = [0; RUN_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_le_bytes());
        bytes[12..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// How many pages it takes.
    pub fn pages(self) -> u32 {
        self.len.div_ceil(PAGE as u32).max(1)
    }
}

/// Points from a branch to a child page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Child {
    /// The child's page number, perhaps with [`DIRTY`].
    pub id: u64,
    /// CRC32 of the child page; 0 while dirty.
    pub crc: u32,
    /// Counted entries below it.
    pub counted: u64,
}

impl Child {
    pub(super) fn decode(bytes: &[u8]) -> Child {
        Child {
            id: u64_at(bytes, 0),
            crc: u32_at(bytes, 8),
            counted: u64_at(bytes, 12),
        }
    }

    pub(super) fn encode(self) -> [u8; BRANCH_HEAD - 3] {
        let mut bytes = [0; BRANCH_HEAD - 3];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_le_bytes());
        bytes[12..].copy_from_slice(&self.counted.to_le_bytes());
        bytes
    }

    /// The page number without the mark.
    #[inline(always)]
    pub fn page(self) -> u64 {
        self.id & !DIRTY
    }

    /// Whether the child was changed in the open transaction.
    #[inline(always)]
    pub fn dirty(self) -> bool {
        self.id & DIRTY != 0
    }
}

#[inline(always)]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline(always)]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// A key on its way into a cell: inline, or in a run already written.
#[derive(Debug, Clone, Copy)]
pub struct StoredKey<'k> {
    key: &'k [u8],
    run: Option<Run>,
}

impl<'k> StoredKey<'k> {
    /// `run` holds the key if and only if it is longer than [`KEY_INLINE_MAX`].
    pub fn new(key: &'k [u8], run: Option<Run>) -> StoredKey<'k> {
        assert_eq!(
            key.len() > KEY_INLINE_MAX,
            run.is_some(),
            "a key of {} bytes",
            key.len()
        );
        StoredKey { key, run }
    }
}

/// A buffer in which cells are put together before they enter a page.
#[derive(Debug, Default)]
pub struct CellBuf {
    bytes: Vec<u8>,
}

impl CellBuf {
    fn start(&mut self, head: usize) {
        self.bytes.clear();
        self.bytes.resize(head, 0);
    }

    fn put_key(&mut self, key: StoredKey<'_>) {
        let start = self.bytes.len();
        match key.run {
            None => self.bytes.extend_from_slice(key.key),
            Some(run) => {
                self.bytes[0] |= KEY_RUN;
                self.bytes.extend_from_slice(&run.encode());
                self.bytes.extend_from_slice(&key.key[..KEY_PREFIX]);
            }
        }
        let len = u16::try_from(self.bytes.len() - start).expect("a stored key fits a page");
        self.bytes[1..3].copy_from_slice(&len.to_le_bytes());
    }

    /// A leaf cell whose value lies in the cell, given in parts.
    pub fn leaf(&mut self, key: StoredKey<'_>, value: &[&[u8]], counted: bool) -> &[u8] {
        self.start(LEAF_HEAD);
        self.bytes[0] = if counted { COUNTED } else { 0 };
        self.put_key(key);
        self.put_value(value);
        &self.bytes
    }

    /// A leaf cell whose value is a run.
    pub fn leaf_run(&mut self, key: StoredKey<'_>, value: Run, counted: bool) -> &[u8] {
        self.leaf(key, &[&value.encode()], counted);
        self.mark_value_run();
        &self.bytes
    }

    /// A leaf cell with the stored key of another cell: `flags` and `key` as they stood there.
    pub fn leaf_stored(&mut self, flags: u8, key: &[u8], value: &[&[u8]], counted: bool) {
        self.start(LEAF_HEAD);
        self.bytes[0] = flags & KEY_RUN | if counted { COUNTED } else { 0 };
        let len = u16::try_from(key.len()).expect("a stored key fits a page");
        self.bytes[1..3].copy_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.put_value(value);
    }

    /// The value of the leaf cell put together last is a run pointer.
    pub fn mark_value_run(&mut self) {
        self.bytes[0] |= VALUE_RUN;
    }

    fn put_value(&mut self, value: &[&[u8]]) {
        let start = self.bytes.len();
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        let len = u16::try_from(self.bytes.len() - start).expect("an inline value fits a page");
        self.bytes[3..5].copy_from_slice(&len.to_le_bytes());
    }

    /// A branch cell.
    pub fn branch(&mut self, key: StoredKey<'_>, child: Child) -> &[u8] {
        self.start(BRANCH_HEAD);
        self.bytes[3..BRANCH_HEAD].copy_from_slice(&child.encode());
        self.put_key(key);
        &self.bytes
    }

    /// A branch cell with the stored key of another cell: `flags` and `key` as they stood there.
    pub fn branch_stored(&mut self, flags: u8, key: &[u8], child: Child) -> &[u8] {
        self.start(BRANCH_HEAD);
        self.bytes[0] = flags & KEY_RUN;
        let len = u16::try_from(key.len()).expect("a stored key fits a page");
        self.bytes[1..3].copy_from_slice(&len.to_le_bytes());
        self.bytes[3..BRANCH_HEAD].copy_from_slice(&child.encode());
        self.bytes.extend_from_slice(key);
        &self.bytes
    }

    /// The cell put together last.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
