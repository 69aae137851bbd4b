//! The rows that take minutes: restart and memory with many keys, and puts while a checkpoint
//! runs.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::result::{Row, Unit};
use super::servers::{Programs, Server, load};
use super::{clients, folder_of};
use crate::floor::SyncedFile;
use crate::options::{Options, Stop, Target, Workload};
use crate::report::{grouped, time};

/// Serves again within so many seconds.
const RESTART_LIMIT: f64 = 2.0;

/// What the heavy rows need.
pub struct Heavy<'a> {
    /// The programs.
    pub programs: &'a Programs,
    /// The folder for data.
    pub data: &'a Path,
    /// Keys of the restart row.
    pub keys: u64,
    /// Rounds.
    pub rounds: usize,
    /// Time per measurement.
    pub span: Duration,
    /// Watches, and leases, where there are to be many.
    pub many: u64,
    /// Events written beside stalled watches.
    pub events: u64,
    /// Leases that expire together.
    pub expiring: u64,
}

impl Heavy<'_> {
    /// Starts a server on an empty folder.
    pub fn start(&self, target: Target, debug: bool) -> Result<Server, String> {
        self.start_in(self.data, target, debug)
    }

    /// Starts a second server of a kind, beside the first.
    pub fn start_beside(&self, target: Target) -> Result<Server, String> {
        self.start_in(&self.beside(), target, false)
    }

    /// Runs the rounds of some rows; one that fails makes all of them invalid.
    pub fn rounds<const N: usize>(
        &self,
        mut rows: [Row; N],
        round: impl Fn(usize) -> Result<[(f64, f64); N], String>,
    ) -> Vec<Row> {
        for number in 1..=self.rounds {
            match round(number) {
                Ok(found) => {
                    for (row, found) in rows.iter_mut().zip(found) {
                        row.rounds.push(found);
                    }
                }
                Err(why) => {
                    for row in &mut rows {
                        row.invalid = Some(format!("quoin: {why}"));
                    }
                    break;
                }
            }
        }
        self.clean();
        rows.into()
    }

    fn clean(&self) {
        // What is left over does no harm but for its space.
        for data in [self.data, &self.beside()] {
            let _ = fs::remove_dir_all(folder_of(data, Target::Quoin));
        }
    }

    /// Where the second server has its data.
    fn beside(&self) -> PathBuf {
        self.data.join("beside")
    }

    fn start_in(&self, data: &Path, target: Target, debug: bool) -> Result<Server, String> {
        let name = target.name();
        let program = self
            .programs
            .server(target)
            .ok_or_else(|| format!("{name} is missing"))?;
        Server::start(target, program, data, debug)
    }

    fn loaded(&self, target: Target) -> Result<(Server, u64), String> {
        let server = self.start(target, false)?;
        let name = target.name();
        eprintln!(
            "restart  {name}: writing {} keys",
            grouped(self.keys as f64)
        );
        let mut options = load(target, server.address, Workload::Put, 1, 1);
        (options.keys, options.quiet) = (self.keys, false);
        clients::load_keys(&options)?;
        let bytes = server.anonymous_bytes()?;
        eprintln!("restart  {name}: {} MiB of anonymous memory", bytes >> 20);
        Ok((server, bytes))
    }

    /// Fills a server with many keys; compares its anonymous memory with etcd's, kills it under
    /// load and takes the time until it serves again.
    pub fn restart(&self) -> Vec<Row> {
        let mut restart = Row::new("restart", "limit 2 s", Unit::Seconds, Some(1.0));
        let mut memory = Row::new("restart-rss", "etcd", Unit::Bytes, Some(4.0));
        match self.restart_ours(&mut restart) {
            Ok(ours) => match self.loaded(Target::Etcd) {
                Ok((_server, theirs)) => memory.rounds.push((ours as f64, theirs as f64)),
                Err(why) => memory.invalid = Some(why),
            },
            Err(why) => {
                memory.invalid = Some(format!("quoin: {why}"));
                restart.invalid = Some(format!("quoin: {why}"));
            }
        }
        restart.note = format!("{} keys, killed under load", grouped(self.keys as f64));
        memory.note = format!("RssAnon with {} keys", grouped(self.keys as f64));
        for target in [Target::Quoin, Target::Etcd] {
            // What is left over does no harm but for its space.
            let _ = fs::remove_dir_all(folder_of(self.data, target));
        }
        vec![restart, memory]
    }

    fn restart_ours(&self, row: &mut Row) -> Result<u64, String> {
        let (mut server, bytes) = self.loaded(Target::Quoin)?;
        for round in 0..self.rounds {
            let mut load = load(Target::Quoin, server.address, Workload::Put, 50, 32);
            (load.keys, load.stop) = (self.keys, Stop::After(Duration::from_secs(60)));
            let under_load = std::thread::spawn(move || crate::run::run(&load));
            std::thread::sleep(Duration::from_secs(2));
            let (fresh, took) = server.kill_and_resume()?;
            server = fresh;
            // Its connections are lost with the server: it ends with failures, as it should.
            let outcome = under_load.join().map_err(|_| "the load panicked")?;
            if outcome.is_ok_and(|outcome| outcome.failed() == 0) {
                return Err("the load did not notice that the server was killed".into());
            }
            eprintln!(
                "restart  round {}: serves after {:.2} s",
                round + 1,
                took.as_secs_f64()
            );
            row.rounds.push((took.as_secs_f64(), RESTART_LIMIT));
        }
        Ok(bytes)
    }

    /// Puts and synced writes while checkpoints run, against those between them.
    pub fn checkpoint(&self) -> Vec<Row> {
        // Within three times, and within ten times: between over during is at least that.
        let mut puts = Row::new("checkpoint-p99", "between", Unit::Micros, Some(1.0 / 3.0));
        let mut syncs = Row::new("checkpoint-sync", "between", Unit::Micros, Some(0.1));
        puts.note = "puts 64x1: p99 while a checkpoint runs, and between checkpoints".into();
        syncs.note = "4 KiB synced writes beside the server, one each 5 ms: the same p99s".into();
        for round in 0..self.rounds {
            match self.checkpoint_round() {
                Ok(Effect {
                    puts: put,
                    syncs: sync,
                    checkpoints,
                }) => {
                    let text = |pair: (f64, f64)| {
                        let us = |us: f64| time((us * 1000.0) as u64);
                        format!("{} during, {} between", us(pair.0), us(pair.1))
                    };
                    eprintln!(
                        "checkpoint  round {}: {checkpoints} checkpoints; puts {}; syncs {}",
                        round + 1,
                        text(put),
                        text(sync)
                    );
                    puts.rounds.push(put);
                    syncs.rounds.push(sync);
                }
                Err(why) => {
                    puts.invalid = Some(format!("quoin: {why}"));
                    syncs.invalid = puts.invalid.clone();
                    break;
                }
            }
        }
        let _ = fs::remove_dir_all(folder_of(self.data, Target::Quoin));
        vec![puts, syncs]
    }

    /// The p99 during and between checkpoints, of puts and of synced writes, in microseconds.
    fn checkpoint_round(&self) -> Result<Effect, String> {
        let server = self.start(Target::Quoin, true)?;
        let mut options: Options = load(Target::Quoin, server.address, Workload::Put, 64, 1);
        clients::load_keys(&options)?;
        // Checkpoints are seconds apart.
        options.stop = Stop::After(self.span.max(Duration::from_secs(20)));
        options.trace = true;
        let over = AtomicBool::new(false);
        let (outcome, windows, syncs) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| checkpoints(&server.log(), &over));
            let syncer = scope.spawn(|| synced_writes(self.data, &over));
            let outcome = crate::run::run(&options);
            over.store(true, Ordering::Relaxed);
            (outcome, watcher.join(), syncer.join())
        });
        let outcome = outcome?;
        let windows = windows.map_err(|_| "the watcher of the log panicked")??;
        let syncs = syncs.map_err(|_| "the thread of synced writes panicked")??;
        let puts = outcome.trace.iter().map(|(at, latency)| {
            let answered = outcome.began + Duration::from_nanos(*at);
            (answered, Duration::from_nanos(*latency))
        });
        Ok(Effect {
            puts: during_and_between(puts, &windows)?,
            syncs: during_and_between(syncs.into_iter(), &windows)?,
            checkpoints: windows.len(),
        })
    }
}

/// What checkpoints do to others: p99s during and between them, in microseconds.
struct Effect {
    puts: (f64, f64),
    syncs: (f64, f64),
    checkpoints: usize,
}

/// A span of time.
type Window = (SystemTime, SystemTime);

/// The p99 of what overlaps with a window, and of what does not, in microseconds; each item is
/// its end and how long it took.
fn during_and_between(
    items: impl Iterator<Item = (SystemTime, Duration)>,
    windows: &[Window],
) -> Result<(f64, f64), String> {
    let (mut during, mut between) = (crate::record::histogram(), crate::record::histogram());
    for (end, took) in items {
        let begin = end - took;
        let inside = windows.iter().any(|(from, to)| begin < *to && end > *from);
        let side = if inside { &mut during } else { &mut between };
        side.saturating_record(took.as_nanos() as u64);
    }
    if during.is_empty() || between.is_empty() {
        return Err(format!(
            "{} checkpoints were seen; nothing to compare",
            windows.len()
        ));
    }
    let p99 = |side: &hdrhistogram::Histogram<u64>| side.value_at_quantile(0.99) as f64 / 1000.0;
    Ok((p99(&during), p99(&between)))
}

/// Writes 4 KiB durably every 5 ms: what a sync of this disk takes just now.
fn synced_writes(folder: &Path, over: &AtomicBool) -> Result<Vec<(SystemTime, Duration)>, String> {
    let mut file = SyncedFile::create(folder, 4096)?;
    let mut taken = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        file.write()?;
        taken.push((SystemTime::now(), begin.elapsed()));
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(taken)
}

/// When checkpoints ran, as the server's log tells at their ends.
fn checkpoints(log: &Path, over: &AtomicBool) -> Result<Vec<Window>, String> {
    let describe = |error: std::io::Error| format!("{}: {error}", log.display());
    let mut file = fs::File::open(log).map_err(describe)?;
    file.seek(SeekFrom::End(0)).map_err(describe)?;
    let (mut windows, mut text) = (Vec::new(), String::new());
    while !over.load(Ordering::Relaxed) {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(describe)?;
        let now = SystemTime::now();
        text += &String::from_utf8_lossy(&bytes);
        while let Some(end) = text.find('\n') {
            if let Some(took) = checkpoint_time(&text[..end]) {
                windows.push((now - took, now));
            }
            text.drain(..=end);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(windows)
}

/// How long a checkpoint took, if the line tells of one.
fn checkpoint_time(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("checkpoint of ")?;
    let (_, rest) = rest.split_once(" bytes written in ")?;
    let millis = rest.split(' ').next()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_with_a_window_is_told_apart() {
        let second = |at: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        let took = Duration::from_secs;
        let items = [
            (second(5), took(1)),
            (second(12), took(3)),
            (second(20), took(2)),
        ];
        let (during, between) =
            during_and_between(items.into_iter(), &[(second(10), second(11))]).unwrap();
        assert!((2.9e6..3.1e6).contains(&during), "{during}");
        assert!((1.9e6..2.1e6).contains(&between), "{between}");
        assert!(during_and_between(items.into_iter(), &[]).is_err());
    }

    #[test]
    fn checkpoints_are_read_from_the_log() {
        let line = "2026-01-01 DEBUG checkpoint of 123 bytes written in 45 ms";
        assert_eq!(checkpoint_time(line), Some(Duration::from_millis(45)));
        assert_eq!(checkpoint_time("checkpoint of 12 bytes failed"), None);
    }
}
