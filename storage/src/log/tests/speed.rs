//! How close the log comes to the bare device. Run it alone, where files lie on a real disk:
//! `cargo test --release -p quoin-storage log_over_raw -- --ignored --nocapture`.
//! `QUOIN_SPEED_DIR` names the directory to use.

use super::*;
use crate::disk::{AlignedBuf, RealDisk};
use crate::log::EntryRef;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

const WRITES: u64 = 1000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn log_over_raw() {
    let dir = match std::env::var_os("QUOIN_SPEED_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a temporary directory");
    let disk = Arc::new(RealDisk::open(&dir.path().join("data")).expect("opened"));
    drop(disk.create_log("raw", 32 << 20).expect("created"));
    let raw = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(dir.path().join("data/raw"))
        .expect("opened");
    let (mut log, _) = LogWriter::open(disk, LogOptions::new(1, 2)).expect("opened");
    let mut block = AlignedBuf::new(1);
    block.fill(0x5a);
    let entry = entry(1, 1, 3900);
    let mut place = 0;
    for round in 0..5 {
        let mut raw_times = Vec::new();
        let mut log_times = Vec::new();
        for _ in 0..WRITES {
            let start = Instant::now();
            raw.write_all_at(&block, place % 8192 * 4096)
                .expect("written");
            raw_times.push(start.elapsed());
            let start = Instant::now();
            let next = EntryRef {
                index: place + 1,
                ..entry.as_ref()
            };
            log.append(None, std::iter::once(next)).expect("written");
            log_times.push(start.elapsed());
            place += 1;
        }
        let (raw, log) = (median(raw_times), median(log_times));
        let ratio = log.as_secs_f64() / raw.as_secs_f64();
        println!("round {round}: raw {raw:?}, log {log:?}, log/raw {ratio:.2}");
    }
}
