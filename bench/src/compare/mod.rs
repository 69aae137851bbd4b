//! Holds quoin against etcd and Redis: the same loads on the same disk, in turn, several rounds.
//!
//! In each round each server gets an empty folder, its keys, and its loads; then it is killed
//! and its folder removed. Who comes first changes from round to round. A peer's figure is the
//! best of the load tools that fit: its own, and ours. The rows about gRPC drive both sides with
//! one and the same client instead.

#![forbid(unsafe_code)]

mod clients;

mod disk;

mod grpc;

mod engines;
mod heavy;

mod listing;

mod many;

mod plan;

mod result;

mod scraped;

mod servers;

mod turns;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::{Flag, Parsed, flag, switch};
use crate::options::Target;
use crate::report::{digits, grouped, time};
use clients::Found;
use disk::{Counters, Disk, Sign};
use plan::{Load, RowPlan, Side};
use result::Row;
use servers::{Programs, Server, version};

/// The flags of `compare`.
pub const FLAGS: &[Flag] = &[
    flag("rounds", "N", "rounds [5]"),
    flag("seconds", "N", "time per measurement [5]"),
    flag(
        "rows",
        "LIST",
        "rows, by name, separated by commas [all but restart, checkpoint, idle-watches, \
         stalled-watches, leases, expiry, listing, scraped]",
    ),
    flag("restart-keys", "N", "keys of the row 'restart' [5m]"),
    flag(
        "many",
        "N",
        "rows 'idle-watches' and 'leases': how many [1m]",
    ),
    flag(
        "stalled-events",
        "N",
        "row 'stalled-watches': events written [2m]",
    ),
    flag(
        "expiring",
        "N",
        "row 'expiry': leases that expire together [100k]",
    ),
    flag(
        "clients",
        "LIST",
        "client counts of etcd's own tool [50,100,200,400,1000]",
    ),
    flag(
        "programs",
        "PATH",
        "folder of the peers' programs [build/bin]",
    ),
    flag(
        "data",
        "PATH",
        "folder for the servers' data [build/compare-data]",
    ),
    flag("json", "FILE", "write one object a line for each row"),
    switch(
        "bars",
        "exit with 1 if a bar is missed; without --rows, all rows are run, those that take minutes too",
    ),
    switch("help", "this text"),
];

/// Fewer rounds decide nothing.
const ROUNDS_LEAST: usize = 5;

/// How long a server is left alone once its keys are loaded.
const SETTLE: Duration = Duration::from_secs(6);

/// Everything a comparison needs to know.
struct Setup {
    programs: Programs,
    data: PathBuf,
    /// The device counters, or why there are none.
    disk: Result<Disk, String>,
    span: Duration,
    client_counts: Vec<usize>,
}

/// One measurement of one server.
#[derive(Debug, Clone)]
struct Sample {
    rate: f64,
    p99_us: Option<f64>,
    client: String,
    /// Durable device writes and bytes written, each per request.
    per_request: Option<(f64, f64)>,
    /// Why what was acknowledged may not have been durable, if so.
    doubt: Option<&'static str>,
}

/// All samples of a load, by round.
type Samples = BTreeMap<(Side, Load), Vec<Sample>>;

/// What cannot be measured, and why.
#[derive(Default)]
struct Failures {
    sides: BTreeMap<Side, String>,
    loads: BTreeMap<(Side, Load), String>,
}

impl Failures {
    /// Why a side is not measured under a load, if it is not.
    fn why(&self, side: Side, load: Load) -> Option<&String> {
        self.sides
            .get(&side)
            .or_else(|| self.loads.get(&(side, load)))
    }
}

/// Runs the comparison; false if a bar was missed.
pub fn main(parsed: &Parsed) -> Result<bool, String> {
    let rounds = parsed.number("rounds", 5, 1, 1000)? as usize;
    if parsed.has("bars") && rounds < ROUNDS_LEAST {
        return Err(format!(
            "--rounds {rounds}: bars are held against the median of at least {ROUNDS_LEAST} rounds"
        ));
    }
    let names = parsed
        .text("rows")
        .map(|list| list.split(',').collect::<Vec<_>>());
    let (rows, heavy) = plan::select(names.as_deref(), parsed.has("bars"))?;
    let data = PathBuf::from(parsed.text("data").unwrap_or("build/compare-data"));
    fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let setup = Setup {
        programs: Programs::find(Path::new(parsed.text("programs").unwrap_or("build/bin"))),
        disk: Disk::under(&data),
        data,
        span: Duration::from_secs(parsed.number("seconds", 5, 1, 3600)?),
        client_counts: counts(parsed.text("clients").unwrap_or("50,100,200,400,1000"))?,
    };
    setup.introduce();
    let mut samples = Samples::new();
    let mut failures = setup.missing(&rows);
    for round in 0..rounds {
        setup.round(round, rounds, &rows, &mut samples, &mut failures);
    }
    let mut rows: Vec<Row> = rows
        .iter()
        .map(|row| finish(row, &samples, &failures))
        .collect();
    let slow = heavy::Heavy {
        programs: &setup.programs,
        data: &setup.data,
        keys: parsed.number("restart-keys", 5_000_000, 1000, 1 << 40)?,
        rounds,
        span: setup.span,
        many: parsed.number("many", 1_000_000, 1000, 1 << 24)?,
        events: parsed.number("stalled-events", 2_000_000, 1000, 1 << 40)?,
        expiring: parsed.number("expiring", 100_000, 100, 1 << 24)?,
    };
    for kind in heavy {
        rows.extend(match kind {
            plan::Heavy::Restart => slow.restart(),
            plan::Heavy::Checkpoint => slow.checkpoint(),
            plan::Heavy::IdleWatches => slow.idle_watches(),
            plan::Heavy::StalledWatches => slow.stalled_watches(),
            plan::Heavy::Leases => slow.leases(),
            plan::Heavy::Expiry => slow.expiry(),
            plan::Heavy::Listing => slow.listing(),
            plan::Heavy::Scraped => slow.scraped(),
            plan::Heavy::Storage => slow.storage(),
            plan::Heavy::StorageLarge => slow.storage_large(),
            plan::Heavy::Overwrite => slow.overwrite(),
        });
    }
    println!("\n{}", result::table(&rows));
    print_disk(&samples, &setup.disk);
    if let Some(file) = parsed.text("json") {
        let lines: String = rows
            .iter()
            .map(|row| format!("{}\n", row.as_json()))
            .collect();
        fs::write(file, lines).map_err(|error| format!("--json {file}: {error}"))?;
    }
    Ok(!parsed.has("bars") || rows.iter().all(Row::reached))
}

/// Where a server keeps its data.
fn folder_of(data: &Path, target: Target) -> PathBuf {
    data.join(target.name())
}

fn counts(list: &str) -> Result<Vec<usize>, String> {
    list.split(',')
        .map(|text| match text.parse() {
            Ok(count @ 1..=10_000) => Ok(count),
            _ => Err(format!(
                "--clients {text}: not a number between 1 and 10000"
            )),
        })
        .collect()
}

impl Setup {
    /// Prints who takes part.
    fn introduce(&self) {
        let list = [
            ("quoin", &self.programs.quoin, true),
            ("etcd", &self.programs.etcd, true),
            ("etcd's benchmark tool", &self.programs.benchmark, false),
            ("h2load", &self.programs.h2load, true),
            ("redis-server", &self.programs.redis, true),
            ("redis-benchmark", &self.programs.redis_benchmark, true),
        ];
        for (name, program, tells) in list {
            match program {
                Some(file) if tells => {
                    println!("{name:<22} {} ({})", version(file), file.display())
                }
                Some(file) => println!("{name:<22} {}", file.display()),
                None => println!("{name:<22} MISSING"),
            }
        }
        match &self.disk {
            Ok(disk) if disk.sign == Sign::Flushes => println!("disk: its flushes are counted"),
            Ok(_) => println!(
                "disk: without a volatile cache, or with FUA writes; writes are counted as syncs"
            ),
            Err(why) => println!("disk: no counters, so rows of writes do not count: {why}"),
        }
    }

    /// The sides and clients that cannot take part, and why.
    fn missing(&self, rows: &[RowPlan]) -> Failures {
        let mut failures = Failures::default();
        let missing = &mut failures.sides;
        for (side, target) in [
            (Side::Quoin, Target::Quoin),
            (Side::Etcd, Target::Etcd),
            (Side::Redis, Target::Redis),
        ] {
            if self.programs.server(target).is_none() {
                missing.insert(side, format!("{} is missing", target.name()));
            }
        }
        if self.programs.h2load.is_none() {
            missing.insert(Side::H2load, "h2load is missing".into());
        } else if let Some(why) = missing.get(&Side::Etcd) {
            missing.insert(Side::H2load, why.clone());
        }
        for row in rows {
            if let Load::Grpc(_, tool, ..) = row.load
                && let Some(why) = tool.missing(&self.programs)
            {
                for side in [Side::Quoin, row.peer] {
                    failures.loads.insert((side, row.load), why.clone());
                }
            }
        }
        failures
    }

    /// One round: each server once, each time another one first.
    fn round(
        &self,
        round: usize,
        rounds: usize,
        rows: &[RowPlan],
        samples: &mut Samples,
        failures: &mut Failures,
    ) {
        let mut order = [Side::Quoin, Side::Etcd, Side::Redis, Side::Machine];
        let first = round % order.len();
        order.rotate_left(first);
        for server in order {
            let wanted = plan::loads(rows, server);
            let wanted: Vec<_> = wanted
                .into_iter()
                .filter(|(side, load)| failures.why(*side, *load).is_none())
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let mut take = |side: Side, load: Load, sample: Result<Sample, String>| match sample {
                Ok(sample) => {
                    eprintln!(
                        "round {}/{rounds}  {}",
                        round + 1,
                        describe(side, load, &sample)
                    );
                    samples.entry((side, load)).or_default().push(sample);
                }
                Err(why) => {
                    eprintln!(
                        "round {}/{rounds}  {} {}: {why}",
                        round + 1,
                        side.name(),
                        load.name()
                    );
                    failures.loads.entry((side, load)).or_insert(why);
                }
            };
            if let Err(why) = self.visit(server, &wanted, &mut take) {
                eprintln!("round {}/{rounds}  {}: {why}", round + 1, server.name());
                for (side, _) in wanted {
                    failures.sides.entry(side).or_insert(why.clone());
                }
            }
        }
    }

    /// Starts a server, loads its keys, runs its loads, removes it.
    fn visit(
        &self,
        server: Side,
        wanted: &[(Side, Load)],
        take: &mut dyn FnMut(Side, Load, Result<Sample, String>),
    ) -> Result<(), String> {
        let Some(target) = server.target() else {
            let limit = crate::floor::synced_write(&self.data, 4096, self.span)?;
            let sample = Sample {
                rate: limit.rate,
                p99_us: Some(limit.latencies.value_at_quantile(0.99) as f64 / 1000.0),
                client: "serial synced writes of 4 KiB".into(),
                per_request: None,
                doubt: None,
            };
            take(Side::Machine, Load::Put(1, 1), Ok(sample));
            return Ok(());
        };
        let program = self
            .programs
            .server(target)
            .ok_or("its program is missing")?;
        let running = Server::start(target, program, &self.data, false)?;
        clients::load_keys(&servers::load(
            target,
            running.address,
            crate::options::Workload::Put,
            1,
            1,
        ))?;
        // What the keys set off (a checkpoint, a snapshot, a rewrite) is not the loads' cost.
        std::thread::sleep(SETTLE);
        for &(side, load) in wanted {
            take(side, load, self.measure(&running, side, load));
        }
        drop(running);
        let folder = folder_of(&self.data, target);
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // What this server left in the page cache must not disturb the next one.
        match std::process::Command::new("sync")
            .arg("-f")
            .arg(&self.data)
            .status()
        {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("sync: {error}")),
        }
    }

    /// The best that the fitting load tools get out of the server.
    fn measure(&self, server: &Server, side: Side, load: Load) -> Result<Sample, String> {
        let mut best: Option<Sample> = None;
        for candidate in plan::candidates(side, load, &self.programs, &self.client_counts) {
            let sample = self.sample(load, &candidate.name, &|span| {
                (candidate.run)(server.address, span, &self.data)
            })?;
            best = Some(match best {
                None => sample,
                Some(kept) => better(kept, sample),
            });
        }
        best.ok_or_else(|| "no load tool fits".into())
    }

    /// Warms up, then measures between two readings of the device counters.
    fn sample(
        &self,
        load: Load,
        client: &str,
        run: &dyn Fn(Span) -> Result<Found, String>,
    ) -> Result<Sample, String> {
        let warm = run(Span {
            time: Duration::from_millis(500),
            rate: None,
        })?;
        let read = || self.disk.as_ref().ok().map(Disk::read).transpose();
        let before = read()?;
        let found = run(Span {
            time: self.span,
            rate: Some(warm.rate),
        })?;
        let used: Option<Counters> = match (read()?, before) {
            (Some(after), Some(before)) => Some(after.since(before)),
            _ => None,
        };
        let requests = found.requests.max(1);
        // No sync can stand for more requests than may be in flight at once.
        let least = requests / load.in_flight(client) as u64;
        Ok(Sample {
            rate: found.rate,
            p99_us: found.p99_us,
            client: client.to_string(),
            per_request: used.filter(|_| load.writes()).map(|used| {
                (
                    used.syncs as f64 / requests as f64,
                    used.bytes as f64 / requests as f64,
                )
            }),
            doubt: match used {
                None if load.writes() => Some("syncs cannot be counted"),
                Some(used) if load.writes() && used.syncs < least => {
                    Some("fewer syncs than batches")
                }
                _ => None,
            },
        })
    }
}

/// For how long a load tool runs; one that counts requests instead needs a rate to expect.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The time.
    pub time: Duration,
    /// Requests per second, as far as known.
    pub rate: Option<f64>,
}

impl Span {
    /// How many requests fill the time.
    pub fn requests(self, guess: u64) -> u64 {
        match self.rate {
            None => guess,
            Some(rate) => ((rate * self.time.as_secs_f64()) as u64).max(guess),
        }
    }
}

/// The faster of two, with the lower p99 of both: a peer's figures are its best.
fn better(a: Sample, b: Sample) -> Sample {
    let p99 = [a.p99_us, b.p99_us].into_iter().flatten().reduce(f64::min);
    let mut best = if a.rate >= b.rate { a } else { b };
    best.p99_us = p99;
    best
}

fn describe(side: Side, load: Load, sample: &Sample) -> String {
    let p99 = sample.p99_us.map_or(String::new(), |us| {
        format!("  p99 {}", time((us * 1000.0) as u64))
    });
    let disk = sample.per_request.map_or(String::new(), |(syncs, bytes)| {
        format!(
            "  {} syncs and {} bytes per put",
            digits(syncs),
            grouped(bytes)
        )
    });
    let rate = grouped(sample.rate);
    format!(
        "{:<14} {:<16} {rate:>10}/s{p99}{disk}  [{}]",
        side.name(),
        load.name(),
        sample.client
    )
}

/// Makes a row of the samples of both sides.
fn finish(plan: &RowPlan, samples: &Samples, failures: &Failures) -> Row {
    let none = Vec::new();
    let of = |side: Side| samples.get(&(side, plan.load)).unwrap_or(&none);
    let (ours, theirs) = (of(Side::Quoin), of(plan.peer));
    let rounds = ours
        .iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| Some((plan.figure(ours)?, plan.figure(theirs)?)))
        .collect();
    let doubt = |side: Side| {
        let why = of(side).iter().find_map(|sample| sample.doubt)?;
        Some(format!("{}: {why}", side.name()))
    };
    let why = |side| failures.why(side, plan.load).cloned();
    let invalid = why(Side::Quoin)
        .or_else(|| why(plan.peer))
        .or_else(|| doubt(Side::Quoin))
        .or_else(|| doubt(plan.peer));
    let mut clients: Vec<&str> = theirs.iter().map(|sample| sample.client.as_str()).collect();
    clients.sort_unstable();
    clients.dedup();
    Row {
        name: plan.name.to_string(),
        peer: plan.peer.name().to_string(),
        unit: plan.unit,
        bar: plan.bar,
        rounds,
        invalid,
        note: match clients.is_empty() {
            true => String::new(),
            false if matches!(plan.load, Load::Grpc(..)) => {
                format!("both: {}", clients.join("; "))
            }
            false => format!("peer: {}", clients.join("; ")),
        },
    }
}

/// Prints what each put cost the disk.
fn print_disk(samples: &Samples, disk: &Result<Disk, String>) {
    let Ok(disk) = disk else { return };
    let name = match disk.sign {
        Sign::Flushes => "flushes",
        Sign::Writes => "writes",
    };
    for ((side, load), list) in samples {
        let middle = |of: fn(&(f64, f64)) -> f64| {
            result::spread(
                list.iter()
                    .filter_map(|sample| Some(of(&sample.per_request?))),
            )
        };
        if let (Some(syncs), Some(bytes)) = (middle(|both| both.0), middle(|both| both.1)) {
            println!(
                "{:<14} {:<16} {:>8} {name} per put  {:>8} bytes written per put",
                side.name(),
                load.name(),
                format!("{:.4}", syncs.median),
                grouped(bytes.median)
            );
        }
    }
}
