//! One simulated file: what a read finds, and what the device has.

use super::super::mmap::Mapping;
use super::super::{AlignedBuf, BLOCK};
use super::state::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// What the device writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// What a read finds.
pub(super) enum Contents {
    /// Of log segments and small files, and of page files that nobody has mapped.
    Bytes(Vec<u8>),
    /// Of the page file: memory that its map shows, and the length of the file.
    Mapped(Arc<Mapping>, u64),
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Mapped(_, len) => *len,
        }
    }

    /// Bytes beyond the end, which no write has reached, read as zeros.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let offset = offset as usize;
        match self {
            Contents::Bytes(bytes) => {
                into.fill(0);
                let end = bytes.len().min(offset + into.len());
                if offset < end {
                    into[..end - offset].copy_from_slice(&bytes[offset..end]);
                }
            }
            Contents::Mapped(mapping, _) => mapping.read(offset, into),
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len() as usize];
        self.read(0, &mut bytes);
        bytes
    }

    fn write(&mut self, offset: u64, from: &[u8]) {
        self.set_len(self.len().max(offset + from.len() as u64));
        let offset = offset as usize;
        match self {
            Contents::Bytes(bytes) => bytes[offset..offset + from.len()].copy_from_slice(from),
            Contents::Mapped(mapping, _) => mapping.write(offset, from),
        }
    }

    fn set_len(&mut self, new: u64) {
        match self {
            Contents::Bytes(bytes) => bytes.resize(new as usize, 0),
            Contents::Mapped(mapping, len) => {
                let zeros = [0; BLOCK];
                let mut at = new;
                while at < *len {
                    let count = (*len - at).min(BLOCK as u64);
                    mapping.write(at as usize, &zeros[..count as usize]);
                    at += count;
                }
                *len = new;
            }
        }
    }
}

/// A file.
pub(super) struct SimFile {
    pub(super) contents: Contents,
    /// What the device has for certain.
    durable: Vec<u8>,
    /// Per sector, every version written since it was durable, oldest first: the device may have
    /// any of them.
    dirty: BTreeMap<u64, Vec<[u8; SECTOR]>>,
    /// The blocks that take up space.
    pub(super) blocks: BTreeSet<u64>,
}

impl SimFile {
    pub(super) fn new(bytes: Vec<u8>, durable: bool) -> SimFile {
        let blocks = (0..bytes.len().div_ceil(BLOCK) as u64).collect();
        SimFile {
            durable: if durable { bytes.clone() } else { Vec::new() },
            contents: Contents::Bytes(bytes),
            dirty: BTreeMap::new(),
            blocks,
        }
    }

    /// The memory that shows the file, of at least `reserve` bytes of addresses.
    pub(super) fn map(&mut self, reserve: usize) -> io::Result<Arc<Mapping>> {
        if let Contents::Mapped(mapping, _) = &self.contents
            && mapping.map().reserve() == reserve
        {
            return Ok(Arc::clone(mapping));
        }
        let mapping = Arc::new(Mapping::anonymous(reserve)?);
        let bytes = self.contents.to_vec();
        mapping.write(0, &bytes);
        self.contents = Contents::Mapped(Arc::clone(&mapping), bytes.len() as u64);
        Ok(mapping)
    }

    /// Writes into the cache; the device gets it at some time, or with a sync.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.contents.write(offset, bytes);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let mut version = [0; SECTOR];
            version[..sector.len()].copy_from_slice(sector);
            let number = offset / SECTOR as u64 + number as u64;
            self.dirty.entry(number).or_default().push(version);
        }
    }

    /// A failed write: any part of it.
    pub(super) fn write_some(&mut self, offset: u64, bytes: &[u8], random: &mut Random) {
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            if random.below(2) == 0 {
                self.write(offset + (number * SECTOR) as u64, sector);
            }
        }
    }

    /// Grows to `len` if shorter.
    pub(super) fn grow(&mut self, len: u64) {
        self.contents.set_len(self.contents.len().max(len));
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.contents.set_len(len);
        self.dirty.split_off(&len.div_ceil(SECTOR as u64));
        self.blocks.split_off(&len.div_ceil(BLOCK as u64));
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.contents.len());
        let first = offset / BLOCK as u64;
        for block in first..end.div_ceil(BLOCK as u64) {
            if self.blocks.remove(&block) {
                self.write(block * BLOCK as u64, &[0; BLOCK]);
            }
        }
    }

    /// Makes a range durable.
    pub(super) fn settle_range(&mut self, offset: u64, len: u64) {
        let sectors = offset / SECTOR as u64..(offset + len).div_ceil(SECTOR as u64);
        let settled: Vec<u64> = self
            .dirty
            .range(sectors)
            .map(|(number, _)| *number)
            .collect();
        for number in settled {
            let versions = self.dirty.remove(&number).expect("found just now");
            let newest = versions.last().expect("a dirty sector has a version");
            put_sector(&mut self.durable, number, &newest[..]);
        }
    }

    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        self.durable.resize(self.contents.len() as usize, 0);
        self.settle_range(0, self.contents.len());
        self.dirty.clear();
    }

    /// A failed sync: the device gets any part, and the cache forgets what is missing.
    pub(super) fn lose(&mut self, random: &mut Random) {
        for (number, versions) in std::mem::take(&mut self.dirty) {
            if let Some(version) = random.pick(&versions) {
                put_sector(&mut self.durable, number, &version[..]);
            }
        }
    }

    /// As `Contents::read`, but what the cache only pretends to have is not there.
    pub(super) fn read_device(&self, offset: u64, into: &mut AlignedBuf) {
        let first = offset / SECTOR as u64;
        for (number, to) in into.chunks_mut(SECTOR).enumerate() {
            let number = first + number as u64;
            match self.dirty.get(&number).and_then(|versions| versions.last()) {
                Some(newest) => to.copy_from_slice(&newest[..]),
                None => {
                    let at = number as usize * SECTOR;
                    to.fill(0);
                    let end = self.durable.len().min(at + SECTOR);
                    if at < end {
                        to[..end - at].copy_from_slice(&self.durable[at..end]);
                    }
                }
            }
        }
    }

    pub(super) fn flip(&mut self, byte: u64, bit: u8) {
        let mut value = [0];
        self.contents.read(byte, &mut value);
        value[0] ^= 1 << bit;
        self.contents.write(byte, &value);
        if let Some(value) = self.durable.get_mut(byte as usize) {
            *value ^= 1 << bit;
        }
        if let Some(versions) = self.dirty.get_mut(&(byte / SECTOR as u64)) {
            for version in versions {
                version[byte as usize % SECTOR] ^= 1 << bit;
            }
        }
    }

    /// What is left of the file after a power cut.
    pub(super) fn crash(&self, random: &mut Random) -> SimFile {
        let mut bytes = self.durable.clone();
        // Mostly sector by sector; now and then everything or nothing.
        let mood = random.below(8);
        for (number, versions) in &self.dirty {
            let kept = match mood {
                0 => None,
                1 => versions.last(),
                _ => random.pick(versions),
            };
            if let Some(version) = kept {
                put_sector(&mut bytes, *number, &version[..]);
            }
        }
        let new = self.contents.len() as usize;
        if bytes.len() != new && (mood == 1 || random.below(2) == 0) {
            bytes.resize(new, 0);
        }
        let mut file = SimFile::new(bytes, true);
        // Holes stay holes, but for those of which the device has not heard yet.
        let full = |block: &u64| {
            let at = *block as usize * BLOCK;
            let end = file.durable.len().min(at + BLOCK);
            file.durable[at..end].iter().any(|byte| *byte != 0)
        };
        let mut blocks = std::mem::take(&mut file.blocks);
        blocks.retain(|block| self.blocks.contains(block) || full(block));
        file.blocks = blocks;
        file
    }

    /// After a crash: takes away what the file had before and gave back, as it must have reached
    /// the device if others have the blocks now.
    pub(super) fn give_back(&mut self, before: &SimFile) {
        let gone: Vec<u64> = self.blocks.difference(&before.blocks).copied().collect();
        for block in gone {
            self.punch(block * BLOCK as u64, BLOCK as u64);
        }
        self.settle();
    }

    /// What the next process finds after this one was killed.
    pub(super) fn kill(&self) -> SimFile {
        SimFile {
            contents: Contents::Bytes(self.contents.to_vec()),
            durable: self.durable.clone(),
            dirty: self.dirty.clone(),
            blocks: self.blocks.clone(),
        }
    }
}

fn put_sector(bytes: &mut Vec<u8>, number: u64, sector: &[u8]) {
    let at = number as usize * SECTOR;
    if bytes.len() < at + SECTOR {
        bytes.resize(at + SECTOR, 0);
    }
    bytes[at..at + SECTOR].copy_from_slice(sector);
}
