//! Tests of the log.

mod model;

mod basic;

mod crash;

mod format;

mod recovery;

mod rot;

mod speed;

use super::{Entry, HardState, LogError, LogOptions, LogWriter, Recovered};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use std::sync::Arc;

/// Small segments, so that short histories fill many.
fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 * 4096,
        ..LogOptions::new(0x1122_3344_5566_7788, 7)
    }
}

fn open(disk: &SimDisk) -> Result<(LogWriter, Recovered), LogError> {
    LogWriter::open(Arc::new(disk.clone()), options())
}

fn opened(disk: &SimDisk) -> (LogWriter, Recovered) {
    open(disk).unwrap_or_else(|error| panic!("the log does not open: {error}"))
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    Entry {
        index,
        term,
        kind: (index % 3) as u8,
        data: (0..len)
            .map(|at| (at as u64 * 31 + index * 7 + term) as u8)
            .collect(),
        context: vec![term as u8; (index % 5) as usize],
    }
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

fn append(log: &mut LogWriter, state: Option<HardState>, entries: &[Entry]) {
    log.append(state.as_ref(), entries.iter().map(Entry::as_ref))
        .unwrap_or_else(|error| panic!("the append fails: {error}"));
}

/// A copy of what is on a disk, untouched by what happens to the original.
fn copy(disk: &SimDisk) -> SimDisk {
    let fresh = SimDisk::new(1);
    for name in disk.list().expect("listed") {
        fresh.set_bytes(&name, disk.bytes(&name).expect("listed just now"));
    }
    fresh
}
