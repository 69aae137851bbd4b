//! This machine's own limits: what no server on it can beat.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::args::{Flag, Parsed, flag, switch};
use crate::os::{cores, pin};
use crate::record::histogram;
use crate::report::{grouped, time};

/// The flags of `floor`.
pub const FLAGS: &[Flag] = &[
    flag("dir", "PATH", "folder whose disk is measured [.]"),
    flag("seconds", "N", "time per measurement [2]"),
    flag(
        "block",
        "BYTES",
        "bytes of a synced write, a multiple of 4096 [4096]",
    ),
    flag("json", "FILE", "write the result as JSON"),
    switch("help", "this text"),
];

/// A limit: how long one round of something takes.
pub struct Limit {
    /// What was done.
    pub name: &'static str,
    /// How long each took, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// How often a second, one after the other.
    pub rate: f64,
}

impl Limit {
    /// The median in nanoseconds.
    pub fn median(&self) -> u64 {
        self.latencies.value_at_quantile(0.5)
    }
}

/// Measures everything and prints it.
pub fn main(parsed: &Parsed) -> Result<(), String> {
    let dir = PathBuf::from(parsed.text("dir").unwrap_or("."));
    let span = Duration::from_secs(parsed.number("seconds", 2, 1, 3600)?);
    let block = parsed.number("block", 4096, 4096, 16 << 20)? as usize;
    if !block.is_multiple_of(4096) {
        return Err(format!("--block {block}: not a multiple of 4096"));
    }
    let mut limits = vec![synced_write(&dir, block, span)?];
    let cores = cores();
    match cores[..] {
        [] => return Err("cannot tell which cores this process may use".into()),
        [only] => limits.push(round_trip("loopback, same core", only, only, span)?),
        [first, second, ..] => {
            limits.push(round_trip("loopback, same core", first, first, span)?);
            limits.push(round_trip("loopback, other core", first, second, span)?);
        }
    }
    println!(
        "{:<22} {:>10} {:>10} {:>10} {:>12}",
        "", "p50", "p99", "max", "serial rate"
    );
    for limit in &limits {
        println!(
            "{:<22} {:>10} {:>10} {:>10} {:>10}/s",
            limit.name,
            time(limit.median()),
            time(limit.latencies.value_at_quantile(0.99)),
            time(limit.latencies.max()),
            grouped(limit.rate)
        );
    }
    println!(
        "\nsynced write: {block} bytes over zeroed blocks in {}, O_DIRECT | O_DSYNC",
        { dir.display() }
    );
    match parsed.text("json") {
        None => Ok(()),
        Some(file) => std::fs::write(file, format!("{}\n", as_json(&limits)))
            .map_err(|error| format!("--json {file}: {error}")),
    }
}

fn as_json(limits: &[Limit]) -> Value {
    let list = limits.iter().map(|limit| {
        json!({
            "name": limit.name,
            "rate": limit.rate,
            "p50_us": limit.median() as f64 / 1e3,
            "p99_us": limit.latencies.value_at_quantile(0.99) as f64 / 1e3,
            "max_us": limit.latencies.max() as f64 / 1e3,
        })
    });
    Value::Array(list.collect())
}

/// Overwrites zeroed blocks of a file one by one, each write durable before the next.
pub fn synced_write(dir: &Path, block: usize, span: Duration) -> Result<Limit, String> {
    let mut file = SyncedFile::create(dir, block)?;
    let mut latencies = histogram();
    let begin = Instant::now();
    let mut last = begin;
    let mut count = 0u64;
    while last - begin < span {
        file.write()?;
        let now = Instant::now();
        latencies.saturating_record((now - last).as_nanos() as u64);
        (last, count) = (now, count + 1);
    }
    let rate = count as f64 / (last - begin).as_secs_f64().max(1e-9);
    Ok(Limit {
        name: "synced write",
        latencies,
        rate,
    })
}

/// A file of zeroed blocks for synced overwrites; removed in the end.
pub struct SyncedFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    block: usize,
    blocks: usize,
    next: usize,
}

impl SyncedFile {
    /// A fresh file in `dir`, written in blocks of that many bytes.
    pub fn create(dir: &Path, block: usize) -> Result<SyncedFile, String> {
        const FILE_BYTES: usize = 16 << 20;
        let path = dir.join(format!(".quoin-bench-floor.{}", std::process::id()));
        let blocks = (FILE_BYTES / block).max(1);
        let opened = zeroed(&path, block, blocks).and_then(|()| {
            let flags = libc::O_DIRECT | libc::O_DSYNC;
            OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&path)
        });
        match opened {
            Ok(file) => {
                let buffer = vec![0xA5; block + 4096];
                Ok(SyncedFile {
                    path,
                    file,
                    buffer,
                    block,
                    blocks,
                    next: 0,
                })
            }
            Err(error) => {
                // Half a file, if any: the error that led here is the one to tell.
                let _ = std::fs::remove_file(&path);
                Err(match error.kind() {
                    io::ErrorKind::InvalidInput => {
                        format!("{}: this file system refuses O_DIRECT", path.display())
                    }
                    _ => format!("{}: {error}", path.display()),
                })
            }
        }
    }

    /// Overwrites the next block; returns once it is durable.
    pub fn write(&mut self) -> Result<(), String> {
        // O_DIRECT wants the memory aligned as the disk's sectors.
        let from = self.buffer.as_ptr().align_offset(4096);
        let data = &self.buffer[from..from + self.block];
        let at = (self.next % self.blocks * self.block) as u64;
        self.next += 1;
        self.file
            .write_all_at(data, at)
            .map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

impl Drop for SyncedFile {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes zeros out, so that an overwrite changes no metadata of the file.
fn zeroed(path: &Path, block: usize, blocks: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let zeros = vec![0; block];
    for at in 0..blocks {
        file.write_all_at(&zeros, (at * block) as u64)?;
    }
    file.sync_all()
}

/// Sends one byte back and forth over loopback TCP, blocking, between two threads tied to cores.
pub fn round_trip(
    name: &'static str,
    near: usize,
    far: usize,
    span: Duration,
) -> Result<Limit, String> {
    bounce(name, near, far, span).map_err(|error| format!("{name}: {error}"))
}

fn bounce(name: &'static str, near: usize, far: usize, span: Duration) -> io::Result<Limit> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        pin(far)?;
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut byte = [0];
        while socket.read(&mut byte)? == 1 {
            socket.write_all(&byte)?;
        }
        Ok(())
    });
    // A thread of its own here too, so that the caller's affinity stays as it was.
    let ping = std::thread::spawn(move || -> io::Result<Limit> {
        pin(near)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut latencies = histogram();
        let begin = Instant::now();
        let mut last = begin;
        let mut count = 0u64;
        let mut byte = [7];
        while last - begin < span {
            socket.write_all(&byte)?;
            socket.read_exact(&mut byte)?;
            let now = Instant::now();
            latencies.saturating_record((now - last).as_nanos() as u64);
            (last, count) = (now, count + 1);
        }
        let rate = count as f64 / (last - begin).as_secs_f64();
        Ok(Limit {
            name,
            latencies,
            rate,
        })
    });
    let panicked = |_| io::Error::other("a thread panicked");
    let limit = ping.join().map_err(panicked)?;
    echo.join().map_err(panicked)??;
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_measured_and_leaves_no_file() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let span = Duration::from_millis(50);
        let write = synced_write(dir.path(), 8192, span).unwrap();
        assert!(write.rate > 0.0 && write.median() > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let core = cores()[0];
        let trip = round_trip("loopback", core, core, span).unwrap();
        assert!(trip.rate > 0.0);
        assert!(as_json(&[write, trip]).as_array().unwrap().len() == 2);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = synced_write(Path::new("/no/such/place"), 4096, Duration::ZERO);
        assert!(error.err().unwrap().contains("/no/such/place"));
    }
}
