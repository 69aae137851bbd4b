//! Both disks keep the same promises; and the simulated one breaks what it may break.

use super::sim::{Fault, SimDisk};
use super::{AlignedBuf, BLOCK, Disk, DiskErrorKind, PageFile, RealDisk};
use std::sync::Arc;

/// The unit of the larger sizes; miri, which takes its time over each byte, has a small one.
const MIB: u64 = if cfg!(miri) { BLOCK as u64 } else { 1 << 20 };
/// What miri keeps for an address it keeps in memory.
const RESERVE: u64 = if cfg!(miri) { 256 * MIB } else { 1 << 40 };

fn filled(blocks: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::new(blocks);
    buf.fill(byte);
    buf
}

fn seen(pages: &Arc<dyn PageFile>, offset: u64, len: usize) -> Vec<u8> {
    assert!(offset + len as u64 <= pages.len().expect("length"));
    // SAFETY: inside the file, and this thread does not write meanwhile.
    unsafe { pages.map().bytes(offset, len) }.to_vec()
}

fn keeps_its_promises(disk: &dyn Disk) {
    let mut log = disk.create_log("a.log", 1 << 20).expect("created");
    log.write_durable(BLOCK as u64, &filled(2, 7))
        .expect("written");
    drop(log);
    let mut log = disk.open_log("a.log").expect("opened");
    log.sync().expect("synced");
    assert_eq!(log.len().expect("length"), 1 << 20);
    let mut read = AlignedBuf::new(4);
    log.read(0, &mut read).expect("read");
    assert!(read[..BLOCK].iter().all(|b| *b == 0));
    assert!(read[BLOCK..3 * BLOCK].iter().all(|b| *b == 7));
    assert!(read[3 * BLOCK..].iter().all(|b| *b == 0));

    let pages = disk.open_pages("tree", RESERVE).expect("opened");
    assert_eq!(pages.len().expect("length"), 0);
    let run = vec![5; 20 * MIB as usize];
    pages.allocate(0, 24 * MIB).expect("allocated");
    assert_eq!(pages.len().expect("length"), 24 * MIB);
    pages.write(MIB, &run).expect("written");
    assert!(seen(&pages, MIB, run.len()) == run);
    pages.begin_sync(MIB, 20 * MIB).expect("begun");
    pages.sync().expect("synced");
    let before = pages.allocated_bytes().expect("size");
    pages.punch(2 * MIB, 8 * MIB).expect("punched");
    let after = pages.allocated_bytes().expect("size");
    assert!(after <= before - (8 * MIB), "{before} -> {after}");
    assert!(
        seen(&pages, 2 * MIB, 8 * MIB as usize)
            .iter()
            .all(|b| *b == 0)
    );
    let mut device = AlignedBuf::new(1);
    pages.read_device(MIB, &mut device).expect("read");
    assert!(device.iter().all(|b| *b == 5));
    // Runs of all lengths, more of them than are written at a time.
    let mut runs: Vec<(u64, AlignedBuf)> = Vec::new();
    let mut at = 24 * MIB;
    let (longest, rounds) = if cfg!(miri) { (9, 1) } else { (300, 9) };
    for (number, blocks) in [1, 3, 2, 1, 5, 1, longest]
        .repeat(rounds)
        .into_iter()
        .enumerate()
    {
        runs.push((at, filled(blocks, number as u8)));
        at += (blocks + 1) as u64 * BLOCK as u64;
    }
    pages.allocate(0, at).expect("allocated");
    let slices: Vec<(u64, &[u8])> = runs.iter().map(|(at, run)| (*at, &run[..])).collect();
    pages.write_runs(&slices).expect("written");
    for (at, run) in slices {
        assert!(seen(&pages, at, run.len()) == run, "the run at {at}");
        assert_eq!(seen(&pages, at + run.len() as u64, 1), [0], "behind it");
    }
    pages.write_runs(&[]).expect("nothing to write");
    drop(pages);
    let pages = disk.open_pages("tree", RESERVE / 2).expect("opened again");
    pages.truncate(2 * MIB).expect("cut");
    assert_eq!(pages.len().expect("length"), 2 * MIB);
    assert!(seen(&pages, MIB, MIB as usize).iter().all(|b| *b == 5));
    let error = disk
        .open_pages("tree", MIB)
        .err()
        .expect("too short a reserve");
    assert!(matches!(error.kind, DiskErrorKind::BadSize(_)), "{error}");

    disk.write_small("id", b"one").expect("written");
    disk.write_small("id", b"two").expect("written");
    let id = disk.read_small("id", 3).expect("read");
    assert_eq!(id.as_deref(), Some(&b"two"[..]));
    let error = disk.read_small("id", 2).expect_err("too large");
    assert!(matches!(error.kind, DiskErrorKind::BadSize(_)), "{error}");
    assert_eq!(disk.read_small("none", 3).expect("read"), None);

    disk.rename("a.log", "b.log").expect("renamed");
    disk.remove("id").expect("removed");
    disk.sync_dir().expect("synced");
    assert_eq!(disk.list().expect("listed"), ["b.log", "tree"]);
    let error = disk.open_log("a.log").err().expect("absent");
    assert!(matches!(error.kind, DiskErrorKind::Io(_)), "{error}");
    assert!(disk.free_bytes().expect("free") > 0);
}

#[test]
#[cfg_attr(miri, ignore = "io_uring, and maps of files")]
fn the_real_disk_keeps_its_promises() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    keeps_its_promises(&RealDisk::open(&dir.path().join("data")).expect("opened"));
}

#[test]
fn the_simulated_disk_keeps_its_promises() {
    keeps_its_promises(&SimDisk::new(1));
}

#[test]
fn durable_writes_survive_every_crash() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut log = disk.create_log("a.log", 8 * BLOCK as u64).expect("created");
        log.write_durable(0, &filled(2, 1)).expect("written");
        disk.cut_at(disk.operations() + 1);
        log.write_durable(2 * BLOCK as u64, &filled(2, 2))
            .expect_err("the power is gone");
        assert!(disk.is_cut());
        let bytes = disk.crash().bytes("a.log").expect("the file survives");
        assert!(bytes[..2 * BLOCK].iter().all(|b| *b == 1));
        assert!(
            bytes[2 * BLOCK..4 * BLOCK]
                .iter()
                .all(|b| matches!(b, 0 | 2))
        );
        assert!(bytes[4 * BLOCK..].iter().all(|b| *b == 0));
    }
}

#[test]
fn a_cut_tears_writes_sector_by_sector_and_in_any_order() {
    let mut outcomes = std::collections::BTreeSet::new();
    let disk = SimDisk::new(3);
    let pages = disk.open_pages("tree", 1 << 20).expect("opened");
    pages.allocate(0, 2 * BLOCK as u64).expect("allocated");
    pages.sync().expect("synced");
    pages.write(0, &[1; 2 * BLOCK]).expect("written");
    pages.write(0, &[2; BLOCK]).expect("written");
    for _ in 0..200 {
        let bytes = disk.crash().bytes("tree").expect("survives");
        outcomes.insert(
            bytes
                .chunks(512)
                .map(|sector| sector[0])
                .collect::<Vec<_>>(),
        );
    }
    assert!(outcomes.len() > 50, "only {} outcomes", outcomes.len());
    assert!(outcomes.contains(&vec![0; 16]), "nothing may be kept");
}

#[test]
fn names_are_durable_only_after_sync_dir() {
    let mut kept = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        disk.set_bytes("old", vec![1]);
        disk.rename("old", "new").expect("renamed");
        let names = disk.crash().list().expect("listed");
        assert!(names == ["new"] || names == ["old"], "{names:?}");
        kept += usize::from(names == ["new"]);
    }
    assert!((1..40).contains(&kept), "{kept} of 40");
    let disk = SimDisk::new(1);
    disk.set_bytes("old", vec![1]);
    disk.rename("old", "new").expect("renamed");
    disk.sync_dir().expect("synced");
    assert_eq!(disk.crash().list().expect("listed"), ["new"]);
}

#[test]
fn after_a_failed_sync_the_cache_shows_what_the_device_has_not() {
    let mut differs = false;
    for seed in 0..10 {
        let disk = SimDisk::new(seed);
        let pages = disk.open_pages("tree", 1 << 20).expect("opened");
        pages.allocate(0, BLOCK as u64).expect("allocated");
        pages.sync().expect("synced");
        pages.write(0, &[1; BLOCK]).expect("written");
        disk.fail_at(disk.operations() + 1, Fault::FailedSync);
        pages.sync().expect_err("fails");
        let error = pages.write(0, &[2; BLOCK]).expect_err("latched");
        assert!(matches!(error.kind, DiskErrorKind::Latched), "{error}");
        // Another process, the same machine: a sync says yes, the map shows it, yet ...
        let next = disk.kill();
        let pages = next.open_pages("tree", 1 << 20).expect("opened");
        pages.sync().expect("reports success");
        assert_eq!(seen(&pages, 0, BLOCK), [1; BLOCK]);
        let mut device = AlignedBuf::new(1);
        pages.read_device(0, &mut device).expect("read");
        assert_eq!(next.crash().bytes("tree").expect("there"), device[..]);
        differs |= device.contains(&0);
    }
    assert!(differs, "ten failed syncs lost nothing");
}

#[test]
fn a_full_disk_is_an_error_value_and_takes_nothing() {
    let disk = SimDisk::new(1);
    disk.set_capacity(10 * BLOCK as u64);
    disk.create_log("a.log", 8 * BLOCK as u64).expect("fits");
    let error = disk
        .create_log("b.log", 8 * BLOCK as u64)
        .err()
        .expect("full");
    assert!(matches!(error.kind, DiskErrorKind::NoSpace), "{error}");
    assert_eq!(disk.list().expect("listed"), ["a.log"]);
    let pages = disk.open_pages("tree", 1 << 20).expect("opened");
    let error = pages.allocate(0, 3 * BLOCK as u64).expect_err("full");
    assert!(matches!(error.kind, DiskErrorKind::NoSpace), "{error}");
    pages.allocate(0, 2 * BLOCK as u64).expect("fits");
    pages.punch(0, BLOCK as u64).expect("punched");
    assert_eq!(disk.free_bytes().expect("free"), BLOCK as u64);
}

#[test]
fn faults_hit_their_operation_and_latch_the_file() {
    for fault in [
        Fault::Eio,
        Fault::ShortWrite,
        Fault::FailedSync,
        Fault::NoSpace,
    ] {
        let disk = SimDisk::new(9);
        let mut log = disk.create_log("a.log", 8 * BLOCK as u64).expect("created");
        disk.fail_at(disk.operations() + 2, fault);
        log.write_durable(0, &filled(1, 1)).expect("not yet");
        log.write_durable(BLOCK as u64, &filled(2, 2))
            .expect_err("now");
        let error = log.write_durable(0, &filled(1, 1)).expect_err("latched");
        assert!(matches!(error.kind, DiskErrorKind::Latched), "{error}");
        let bytes = disk.crash().bytes("a.log").expect("there");
        assert!(bytes[..BLOCK].iter().all(|b| *b == 1), "{fault:?}");
    }
    let disk = SimDisk::new(9);
    disk.write_small("id", b"x").expect("written");
    disk.fail_read_at(disk.reads() + 1);
    disk.read_small("id", 9).expect_err("fails");
    disk.read_small("id", 9).expect("only once");
    disk.flip_bit("id", 0, 1);
    assert_eq!(
        disk.read_small("id", 9).expect("read").as_deref(),
        Some(&b"z"[..])
    );
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let pages = disk.open_pages("tree", 1 << 20).expect("opened");
        pages.write(0, &[1; 4 * BLOCK]).expect("written");
        disk.crash().bytes("tree")
    };
    assert_eq!(run(5), run(5));
}
