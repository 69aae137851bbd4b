//! The rows that take minutes: restart and memory with many keys, and puts while a checkpoint
//! runs.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::result::{Row, Unit};
use super::servers::{Programs, Server, load};
use super::{clients, folder_of};
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
}

impl Heavy<'_> {
    fn start(&self, target: Target, debug: bool) -> Result<Server, String> {
        let name = target.name();
        let program = self
            .programs
            .server(target)
            .ok_or_else(|| format!("{name} is missing"))?;
        Server::start(target, program, self.data, debug)
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

    /// Puts while checkpoints run, against puts between them.
    pub fn checkpoint(&self) -> Vec<Row> {
        // Within three times: idle over busy is at least a third.
        let mut row = Row::new("checkpoint-p99", "between", Unit::Micros, Some(1.0 / 3.0));
        for round in 0..self.rounds {
            match self.checkpoint_round() {
                Ok((busy, idle, note)) => {
                    eprintln!("checkpoint  round {}: {note}", round + 1);
                    row.rounds.push((busy, idle));
                    row.note = format!("puts 64x1, p99 during checkpoints; {note}");
                }
                Err(why) => {
                    row.invalid = Some(format!("quoin: {why}"));
                    break;
                }
            }
        }
        let _ = fs::remove_dir_all(folder_of(self.data, Target::Quoin));
        vec![row]
    }

    fn checkpoint_round(&self) -> Result<(f64, f64, String), String> {
        let server = self.start(Target::Quoin, true)?;
        let mut options: Options = load(Target::Quoin, server.address, Workload::Put, 64, 1);
        clients::load_keys(&options)?;
        // Checkpoints are seconds apart.
        options.stop = Stop::After(self.span.max(Duration::from_secs(20)));
        options.trace = true;
        let over = AtomicBool::new(false);
        let (outcome, windows) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| checkpoints(&server.log(), &over));
            let outcome = crate::run::run(&options);
            over.store(true, Ordering::Relaxed);
            (outcome, watcher.join())
        });
        let outcome = outcome?;
        let windows = windows.map_err(|_| "the watcher of the log panicked")??;
        let (mut busy, mut idle) = (crate::record::histogram(), crate::record::histogram());
        for (at, latency) in &outcome.trace {
            let answered = outcome.began + Duration::from_nanos(*at);
            let sent = answered - Duration::from_nanos(*latency);
            let beside = windows
                .iter()
                .any(|(from, to)| sent < *to && answered > *from);
            let side = if beside { &mut busy } else { &mut idle };
            side.saturating_record(*latency);
        }
        if busy.is_empty() || idle.is_empty() {
            return Err(format!(
                "{} checkpoints were seen; no comparison",
                windows.len()
            ));
        }
        let (busy, idle) = (busy.value_at_quantile(0.99), idle.value_at_quantile(0.99));
        let note = format!(
            "{} checkpoints, p99 {} during, {} between",
            windows.len(),
            time(busy),
            time(idle)
        );
        Ok((busy as f64 / 1000.0, idle as f64 / 1000.0, note))
    }
}

/// When checkpoints ran, as the server's log tells at their ends.
fn checkpoints(log: &Path, over: &AtomicBool) -> Result<Vec<(SystemTime, SystemTime)>, String> {
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
    fn checkpoints_are_read_from_the_log() {
        let line = "2026-01-01 DEBUG checkpoint of 123 bytes written in 45 ms";
        assert_eq!(checkpoint_time(line), Some(Duration::from_millis(45)));
        assert_eq!(checkpoint_time("checkpoint of 12 bytes failed"), None);
    }
}
