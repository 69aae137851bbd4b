//! Churn of leases: many leases, each with a key, run out within one second, beside puts.
//!
//! Each is granted for as many whole seconds as are left until one moment, so that all of them
//! are due in the second before it. A watch sees the keys come and go; each must go once, not
//! before its lease is due, and in a revision of its own.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use crate::args::{Flag, Parsed, flag, switch};
use crate::driver::{Limits, Phase};
use crate::options::{Leases, Options};
use crate::record::{Board, Recorder};
use crate::report::{Outcome, time};
use crate::run::{self, nanos};
use crate::watching::{self, Kind, Ledger, Place, Until};

/// The flags of `lease-churn`.
pub const FLAGS: &[Flag] = &[
    flag("target", "NAME", "server to load: quoin or etcd [quoin]"),
    flag(
        "endpoints",
        "LIST",
        "addresses, host:port,... [127.0.0.1:2379]",
    ),
    flag("leases", "N", "leases, each with a key [10k]"),
    flag(
        "connections",
        "N",
        "connections that grant leases and write their keys [50]",
    ),
    flag("in-flight", "N", "requests in flight on each of them [32]"),
    flag(
        "lead",
        "TIME",
        "from the first grant until the last lease is due [15s]",
    ),
    flag(
        "writers",
        "N",
        "connections that write other keys meanwhile [64]",
    ),
    flag(
        "timeout",
        "TIME",
        "if no lease ends for so long, those left count as lost [10s]",
    ),
    flag("seed", "N", "seed of keys and values [1]"),
    flag("json", "FILE", "write the result as JSON"),
    flag(
        "html",
        "FILE",
        "write the result as one self-contained page",
    ),
    switch("quiet", "no progress line"),
    switch("help", "this text"),
];

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The leases and their keys: a registry of which one watch sees everything.
    entries: watching::Plan,
    /// The puts beside.
    puts: Options,
    /// From the first grant until the last lease is due.
    lead: Duration,
}

/// How puts went, as p99s in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Effect {
    /// Before any lease was due.
    pub before: u64,
    /// From then until all were gone.
    pub during: u64,
}

/// So long before the first lease is due everything must be written.
const CALM: Duration = Duration::from_secs(5);

/// So long after it puts go on.
const AFTER: Duration = Duration::from_secs(4);

/// Leases are due within so much time.
const SECOND: u64 = 1_000_000_000;

impl Plan {
    /// The default plan for so many leases.
    pub fn new(plain: Options, leases: u64) -> Plan {
        Plan::with(plain, leases, (50, 32), Duration::from_secs(15))
    }

    fn with(plain: Options, leases: u64, shape: (usize, usize), lead: Duration) -> Plan {
        let puts = Options {
            connections: 64,
            keys: 100_000,
            trace: true,
            quiet: true,
            ..plain.clone()
        };
        let writes = Options {
            in_flight: shape.1,
            ..plain
        };
        let keys = (shape.0, leases, leases);
        Plan {
            entries: watching::Plan::new(Kind::Registry, writes, (1, 1), keys),
            puts,
            lead,
        }
    }

    /// A plan from the command line.
    pub fn from_args(parsed: &Parsed) -> Result<Plan, String> {
        let plain = Options::plain_from_args(parsed)?;
        let shape = (
            parsed.number("connections", 50, 1, 60_000)? as usize,
            parsed.number("in-flight", 32, 1, 65_536)? as usize,
        );
        let lead = parsed.duration("lead", Duration::from_secs(15))?;
        if lead < CALM + Duration::from_secs(2) || lead > Duration::from_secs(3600) {
            return Err("--lead: must lie between 7 seconds and an hour".into());
        }
        let leases = parsed.number("leases", 10_000, 1, 1 << 24)?;
        let mut plan = Plan::with(plain, leases, shape, lead);
        plan.puts.connections = parsed.number("writers", 64, 1, 10_000)? as usize;
        Ok(plan)
    }

    /// The options that the reports are written for.
    pub fn options(&self) -> &Options {
        &self.entries.writes
    }
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Result<(Outcome, Effect), String> {
    let entries = &plan.entries;
    let count = entries.writes.keys;
    let origin = Instant::now();
    let last = nanos(plan.lead);
    let due = last - SECOND;
    let writes = Options {
        leases: Leases {
            until: Some(last),
            ..entries.writes.leases
        },
        ..entries.writes.clone()
    };
    crate::os::raise_open_files();
    let mut writers = run::connect(&writes)?;
    let mut putters = run::connect(&plan.puts)?;
    let mut watcher = watching::open(entries)?;
    let (gone, aside) = (Board::new(SECOND / 10), Board::new(SECOND));
    let recorder = Recorder::new(gone.clone(), due, u64::MAX);
    let ledger = Ledger::new(entries.layout(), 1, 0, recorder).due(due);
    let until = Until::new(origin, nanos(writes.timeout));
    let began = SystemTime::now();
    let puts = Board::new(SECOND);
    let ledger = std::thread::scope(|scope| {
        let listener = scope.spawn(|| watcher.run(ledger, &until));
        let ran = (|| {
            for phase in [Phase::Leases, Phase::Keys] {
                run::phase(&writes, &mut writers, phase, all(count), &aside, origin)?;
            }
            if let Some((failure, _)) = aside.totals().errors.iter().next() {
                return Err(format!("granting leases: {failure}"));
            }
            let calm = plan.lead - CALM - Duration::from_nanos(SECOND);
            if origin.elapsed() > calm {
                return Err("granting the leases took too long; give a longer --lead".into());
            }
            std::thread::sleep(calm.saturating_sub(origin.elapsed()));
            let limits = Limits {
                warm: nanos(calm) + SECOND,
                end: Some(due + nanos(AFTER)),
                total: None,
                paced: true,
            };
            run::phase(&plan.puts, &mut putters, Phase::Load, limits, &puts, origin).map(|_| ())
        })();
        until.end(vec![Place::default(); count as usize]);
        let listened = listener.join().map_err(|_| "the watcher panicked")?;
        ran.and(listened)
    })?;
    let revisions = ledger.deletes();
    let mut ledger = ledger;
    let behind = ledger.behind(&vec![Place::default(); count as usize]);
    ledger.end(until.now(), behind);
    if behind == 0 && revisions != count {
        return Err(format!("{count} leases ended in {revisions} revisions"));
    }
    watching::none_left(&writes, entries)?;
    let mut totals = gone.totals();
    let over = totals.last.max(due + 1);
    let mut puts = puts.totals();
    for (failure, count) in &puts.errors {
        *totals.errors.entry(failure.clone()).or_insert(0) += count;
    }
    let effect = effect(&std::mem::take(&mut puts.trace), due, over)?;
    let mut outcome = Outcome::new(&writes, &mut totals, over - due, began);
    outcome.noun = "leases";
    outcome.settings[0].1 = "lease-churn".into();
    outcome.beside = vec![
        ("puts before, p99", time(effect.before)),
        ("puts meanwhile, p99", time(effect.during)),
    ];
    Ok((outcome, effect))
}

fn all(count: u64) -> Limits {
    Limits {
        warm: 0,
        end: None,
        total: Some(count),
        paced: false,
    }
}

/// The p99s of what was answered before `due`, and from then until `over`.
fn effect(trace: &[(u64, u64)], due: u64, over: u64) -> Result<Effect, String> {
    let p99 = |from: u64, to: u64| {
        let mut histogram = crate::record::histogram();
        for (at, latency) in trace {
            if (from..to).contains(at) {
                histogram.saturating_record(*latency);
            }
        }
        match histogram.is_empty() {
            true => Err("no put was answered; nothing to compare".to_string()),
            false => Ok(histogram.value_at_quantile(0.99)),
        }
    };
    Ok(Effect {
        before: p99(0, due)?,
        during: p99(due, over)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_parts_the_puts() {
        let trace = [
            (5, 1_000_000),
            (9, 2_000_000),
            (10, 9_000_000),
            (19, 8_000_000),
            (20, 700_000_000),
        ];
        let effect = effect(&trace, 10, 20).unwrap();
        assert!(
            (1_990_000..=2_010_000).contains(&effect.before),
            "{effect:?}"
        );
        assert!(
            (8_990_000..=9_010_000).contains(&effect.during),
            "{effect:?}"
        );
        assert!(super::effect(&trace, 30, 40).is_err());
    }

    #[test]
    fn flags_are_read_and_checked() {
        let plan = |text: &str| {
            let args: Vec<String> = text.split_whitespace().map(str::to_string).collect();
            Plan::from_args(&crate::args::parse(FLAGS, &args)?)
        };
        let plain = plan("--leases 50 --writers 3").unwrap();
        assert_eq!((plain.entries.writes.keys, plain.puts.connections), (50, 3));
        assert_eq!(plain.entries.layout().span, 50);
        assert!(plan("--lead 3s").unwrap_err().contains("between 7"));
        assert!(plan("--target redis").is_err());
    }
}
