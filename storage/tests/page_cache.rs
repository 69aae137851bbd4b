//! What it costs to write single pages into what the page cache holds in large pieces. A
//! measurement: run it alone, on a real disk, with
//! `cargo test --release -p quoin-storage --test page_cache -- --ignored --nocapture`.
//! `QUOIN_SPEED_DIR` names the directory to use.

use quoin_storage::disk::{Disk, PageFile, RealDisk};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const PAGE: u64 = 4096;
const PAGES: u64 = 1 << 19;
const RUNS: u64 = 3500;
/// Pages written and then sent together, as in a checkpoint.
const TOGETHER: usize = 256;

/// Writes runs of one, two and four pages in the order of their places; says how long it took to
/// copy them and to send them to the device.
fn checkpoint(file: &dyn PageFile, round: u64) -> (u128, u128) {
    let bytes = vec![round as u8; 4 * PAGE as usize];
    let every = PAGES / RUNS;
    let runs = (0..RUNS).map(|n| (n * every + round * 8 % (every - 4), 1 << (n % 3)));
    let runs: Vec<(u64, u64)> = runs.collect();
    let (mut copied, mut sent) = (0, 0);
    for runs in runs.chunks(TOGETHER / 2) {
        let part = |&(page, pages): &(u64, u64)| (page * PAGE, &bytes[..(pages * PAGE) as usize]);
        let writes: Vec<_> = runs.iter().map(part).collect();
        let start = Instant::now();
        file.write_runs(&writes).expect("written");
        copied += start.elapsed().as_micros();
        let (first, last) = (runs[0], runs[runs.len() - 1]);
        let start = Instant::now();
        file.begin_sync(first.0 * PAGE, (last.0 + last.1 - first.0) * PAGE)
            .expect("begun");
        sent += start.elapsed().as_micros();
    }
    file.sync().expect("synced");
    (copied / 1000, sent / 1000)
}

fn report(what: &str, file: &dyn PageFile) {
    let mut rounds: Vec<_> = (0..5).map(|round| checkpoint(file, round)).collect();
    rounds.sort();
    let (copied, sent) = rounds[2];
    println!("{what}: {copied} ms to copy, {sent} ms to send");
}

/// A file that was filled in pieces of so many bytes.
fn filled(dir: &Path, piece: u64) -> Arc<dyn PageFile> {
    let file = (RealDisk::open(dir)
        .expect("a fresh disk")
        .open_pages("tree", PAGES * PAGE))
    .expect("created");
    let raw = File::options()
        .write(true)
        .open(dir.join("tree"))
        .expect("there");
    let bytes = vec![1; piece as usize];
    for at in (0..PAGES * PAGE).step_by(piece as usize) {
        raw.write_all_at(&bytes, at).expect("written");
    }
    file.sync().expect("synced");
    file
}

/// Has the kernel forget what it holds of the file.
fn forget(dir: &Path) {
    let of = format!("of={}", dir.join("tree").display());
    let status = Command::new("dd")
        .args([
            &of,
            "oflag=nocache",
            "conv=notrunc,fdatasync",
            "count=0",
            "status=none",
        ])
        .status();
    assert!(status.expect("dd is there").success());
}

#[test]
#[ignore = "a measurement"]
fn small_writes_into_large_pieces() {
    let dir = || match std::env::var_os("QUOIN_SPEED_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).expect("a temporary directory"),
        None => tempfile::tempdir().expect("a temporary directory"),
    };
    for kib in [1024, 64, 16, 4] {
        let dir = dir();
        let file = filled(&dir.path().join("data"), kib << 10);
        report(&format!("written in {kib} KiB"), &*file);
    }
    let dir = dir();
    let data = dir.path().join("data");
    let file = filled(&data, 16 << 10);
    forget(&data);
    let start = Instant::now();
    let mut buffer = vec![0; 128 << 10];
    let mut raw = File::open(data.join("tree")).expect("there");
    while raw.read(&mut buffer).expect("read") > 0 {}
    let took = start.elapsed().as_millis();
    report(&format!("read from end to end in {took} ms"), &*file);
    forget(&data);
    let start = Instant::now();
    for at in (0..PAGES * PAGE).step_by(32 * PAGE as usize) {
        file.will_need(at, 32 * PAGE);
    }
    raw = File::open(data.join("tree")).expect("there");
    while raw.read(&mut buffer).expect("read") > 0 {}
    let took = start.elapsed().as_millis();
    report(&format!("read by number in {took} ms"), &*file);
}
