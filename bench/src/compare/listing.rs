//! The rows about listings: all of many keys in one answer, and in the messages of a stream. The
//! same client asks both servers; what counts is how fast it has everything, and how much memory
//! the server takes meanwhile.

#![forbid(unsafe_code)]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::grpc::{Call, Tool};
use super::heavy::Heavy;
use super::result::{Row, Unit};
use super::servers::{Server, load};
use super::{SETTLE, clients, folder_of};
use crate::options::{Target, Workload};
use crate::report::{digits, grouped};

/// Keys, and bytes of each value.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 1024;

/// How often a list is asked for, one after the other.
const LISTINGS: u64 = 8;

/// How often a server's memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Speeds and memory of a way to list.
struct Pair {
    call: Call,
    speed: Row,
    memory: Row,
}

impl Pair {
    fn new(call: Call, (speed, memory): (&str, &str), how: &str) -> Pair {
        let mut pair = Pair {
            call,
            speed: Row::new(speed, "etcd", Unit::Rate, Some(2.0)),
            memory: Row::new(memory, "etcd", Unit::Bytes, Some(10.0)),
        };
        let keys = grouped(KEYS as f64);
        pair.speed.note = format!("both: h2load, lists of {keys} keys of {VALUE_BYTES} B {how}");
        pair.memory.note = "growth of RssAnon meanwhile, from a fresh start to its peak".into();
        pair
    }
}

impl Heavy<'_> {
    /// Lists all keys of both servers, in turn.
    pub fn listing(&self) -> Vec<Row> {
        let unary = ("listing-unary", "listing-unary-rss");
        let stream = ("listing-stream", "listing-stream-rss");
        let mut pairs = [
            Pair::new(Call::List, unary, "in one message"),
            Pair::new(Call::ListStream, stream, "by RangeStream"),
        ];
        let mut invalid = Tool::H2load.missing(self.programs);
        for round in 0..self.rounds {
            if invalid.is_some() {
                break;
            }
            let mut order = [Target::Quoin, Target::Etcd];
            order.rotate_left(round % 2);
            let mut found = Vec::new();
            for target in order {
                let name = target.name();
                match self.lists_of(target, &pairs) {
                    Ok(lists) => found.push((target, lists)),
                    Err(why) => invalid = Some(format!("{name}: {why}")),
                }
            }
            // Ours first.
            found.sort_by_key(|(target, _)| *target != Target::Quoin);
            let [(_, ours), (_, theirs)] = &found[..] else {
                break;
            };
            for (pair, (ours, theirs)) in pairs.iter_mut().zip(ours.iter().zip(theirs)) {
                eprintln!(
                    "{}  round {}: {}/s and {} MiB, etcd {}/s and {} MiB",
                    pair.speed.name,
                    round + 1,
                    digits(ours.0),
                    digits(ours.1 / f64::from(1 << 20)),
                    digits(theirs.0),
                    digits(theirs.1 / f64::from(1 << 20)),
                );
                pair.speed.rounds.push((ours.0, theirs.0));
                pair.memory.rounds.push((ours.1, theirs.1));
            }
        }
        for target in [Target::Quoin, Target::Etcd] {
            // What is left over does no harm but for its space.
            let _ = fs::remove_dir_all(folder_of(self.data, target));
        }
        let rows = pairs.into_iter().flat_map(|pair| [pair.speed, pair.memory]);
        rows.map(|row| Row {
            invalid: invalid.clone(),
            ..row
        })
        .collect()
    }

    /// For each way: lists per second, and bytes that the server grew by.
    fn lists_of(&self, target: Target, pairs: &[Pair]) -> Result<Vec<(f64, f64)>, String> {
        let mut server = self.start(target, false)?;
        let mut options = load(target, server.address, Workload::Put, 1, 1);
        (options.keys, options.value_size) = (KEYS, VALUE_BYTES);
        clients::load_keys(&options)?;
        let mut found = Vec::new();
        for pair in pairs {
            // Each way begins with a server that holds nothing from before.
            std::thread::sleep(SETTLE);
            (server, _) = server.kill_and_resume()?;
            std::thread::sleep(SETTLE);
            found.push(self.list(&server, pair.call)?);
        }
        Ok(found)
    }

    fn list(&self, server: &Server, call: Call) -> Result<(f64, f64), String> {
        let h2load = self.programs.h2load.as_ref().ok_or("h2load is missing")?;
        let body = self.data.join("list.grpc");
        fs::write(&body, call.message()).map_err(|error| format!("{}: {error}", body.display()))?;
        let mut command = clients::h2load_command(h2load, &body);
        // Windows of 1 GiB: the client's pace is to be no matter.
        command.args(["-c", "1", "-m", "1", "-w", "30", "-W", "30"]);
        command.args(["-n", &LISTINGS.to_string()]);
        command.arg(format!("http://{}{}", server.address, call.path()));
        let before = server.anonymous_bytes()?;
        let over = AtomicBool::new(false);
        let (told, peak) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| peak(server, &over));
            let told = clients::run_h2load(h2load, &mut command);
            over.store(true, Ordering::Relaxed);
            (told, watcher.join())
        });
        let peak = peak.map_err(|_| "the watcher of memory panicked")??;
        let told = told?;
        told.check(KEYS * (24 + VALUE_BYTES as u64))?;
        // A page at least: nothing is no figure to divide by.
        let grown = peak.saturating_sub(before).max(4096);
        Ok((told.found.rate, grown as f64))
    }
}

/// The most anonymous memory that a server has until the end.
fn peak(server: &Server, over: &AtomicBool) -> Result<u64, String> {
    let mut peak = server.anonymous_bytes()?;
    while !over.load(Ordering::Relaxed) {
        peak = peak.max(server.anonymous_bytes()?);
        std::thread::sleep(LOOK);
    }
    Ok(peak)
}
