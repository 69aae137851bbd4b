//! What a watch wants to see, in few bytes.

use crate::api::{WatchCreate, WatchRefusal};

const INTERVAL: u8 = 1;
const OPEN: u8 = 2;
const PREV_KV: u8 = 4;
const NO_PUT: u8 = 8;
const NO_DELETE: u8 = 16;
const FRAGMENT: u8 = 32;

/// Keys, and which of their events in which form. Watches with the same interest share it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interest {
    /// The first key, then the end of the interval, if it has one.
    bytes: Box<[u8]>,
    /// Length of the first key.
    split: u32,
    options: u8,
}

impl Interest {
    /// The interest of a watch that is to be created.
    pub fn new(create: &WatchCreate<'_>) -> Result<Interest, WatchRefusal> {
        let key: &[u8] = match create.key {
            b"" => b"\0",
            key => key,
        };
        let (end, kind): (&[u8], u8) = match create.range_end {
            b"" => (b"", 0),
            b"\0" => (b"", INTERVAL | OPEN),
            end if key >= end => return Err(WatchRefusal::EmptyRange),
            end => (end, INTERVAL),
        };
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        Ok(Interest {
            bytes: [key, end].concat().into(),
            // Requests are bounded far below 4 GiB.
            split: key.len() as u32,
            options: kind
                | bit(create.prev_kv, PREV_KV)
                | bit(create.no_put, NO_PUT)
                | bit(create.no_delete, NO_DELETE)
                | bit(create.fragment, FRAGMENT),
        })
    }

    fn has(&self, bit: u8) -> bool {
        self.options & bit != 0
    }

    /// The first key.
    pub fn start(&self) -> &[u8] {
        &self.bytes[..self.split as usize]
    }

    /// Where the interval ends; `None`: it does not. Of a single key it means nothing.
    pub fn end(&self) -> Option<&[u8]> {
        (!self.has(OPEN)).then(|| &self.bytes[self.split as usize..])
    }

    /// It is more than a single key.
    pub fn is_interval(&self) -> bool {
        self.has(INTERVAL)
    }

    /// Whether the end lies behind a key.
    pub fn ends_after(&self, key: &[u8]) -> bool {
        self.end().is_none_or(|end| key < end)
    }

    /// Whether it has the key.
    pub fn holds(&self, key: &[u8]) -> bool {
        match self.is_interval() {
            true => self.start() <= key && self.ends_after(key),
            false => self.start() == key,
        }
    }

    /// Whether it takes events of that kind.
    pub fn takes(&self, tombstone: bool) -> bool {
        !self.has(if tombstone { NO_DELETE } else { NO_PUT })
    }

    /// Whether it wants an event of a key.
    pub fn wants(&self, key: &[u8], tombstone: bool) -> bool {
        self.takes(tombstone) && self.holds(key)
    }

    /// Whether it wants the pairs as they were before.
    pub fn prev_kv(&self) -> bool {
        self.has(PREV_KV)
    }

    /// Whether the events of one revision may be parted.
    pub fn fragment(&self) -> bool {
        self.has(FRAGMENT)
    }

    /// Bytes beside the struct.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// By start, then by end, then by options: a total order of intervals.
    pub fn order(&self, other: &Interest) -> std::cmp::Ordering {
        let open = |interest: &Interest| interest.end().is_none();
        self.start()
            .cmp(other.start())
            .then_with(|| open(self).cmp(&open(other)))
            .then_with(|| self.end().cmp(&other.end()))
            .then_with(|| self.options.cmp(&other.options))
    }
}
