//! The rows of the comparison, their bars, and who measures what.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::clients::{self, Found};
use super::grpc;
use super::result::Unit;
use super::servers::Programs;
use super::{Sample, Span};
use crate::options::{Target, Workload};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Ours.
    Quoin,
    /// etcd, with its own load tool and ours.
    Etcd,
    /// etcd, with h2load.
    H2load,
    /// Redis that syncs each write.
    Redis,
    /// The machine alone.
    Machine,
}

impl Side {
    /// How it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Side::Quoin => "quoin",
            Side::Etcd => "etcd",
            Side::H2load => "etcd by h2load",
            Side::Redis => "redis",
            Side::Machine => "floor",
        }
    }

    /// The server it needs.
    pub fn target(self) -> Option<Target> {
        match self {
            Side::Quoin => Some(Target::Quoin),
            Side::Etcd | Side::H2load => Some(Target::Etcd),
            Side::Redis => Some(Target::Redis),
            Side::Machine => None,
        }
    }
}

/// A load: connections, and requests in flight on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// Linearizable reads of single keys.
    Get(usize, usize),
    /// Renewals of leases.
    KeepAlive(usize, usize),
    /// So many watches on each connection, all of one key, which is written.
    FanOut(usize, usize),
    /// The same, each of a key of its own, all of which are written at [`WRITE_RATE`].
    Watch(usize, usize),
    /// Calls of gRPC, sent by one and the same client to both sides.
    Grpc(grpc::Call, grpc::Tool, usize, usize),
    /// Writes of single keys.
    Put(usize, usize),
}

/// Writes per second while the latency of watches is taken.
const WRITE_RATE: f64 = 10_000.0;

impl Load {
    /// How it is called.
    pub fn name(self) -> String {
        match self {
            Load::Get(connections, in_flight) => format!("get {connections}x{in_flight}"),
            Load::KeepAlive(connections, in_flight) => {
                format!("keepalive {connections}x{in_flight}")
            }
            Load::FanOut(connections, watches) => format!("fan-out {connections}x{watches}"),
            Load::Watch(connections, watches) => format!("watch {connections}x{watches}"),
            Load::Grpc(call, tool, connections, each) => {
                format!("{} {} {connections}x{each}", tool.short(), call.name())
            }
            Load::Put(connections, in_flight) => format!("put {connections}x{in_flight}"),
        }
    }

    /// Whether each of its requests is a write.
    pub fn writes(self) -> bool {
        matches!(self, Load::Put(..) | Load::Grpc(grpc::Call::Put, ..))
    }

    /// Connections, and requests in flight, or watches, on each.
    pub fn shape(self) -> (usize, usize) {
        match self {
            Load::Get(connections, each)
            | Load::KeepAlive(connections, each)
            | Load::FanOut(connections, each)
            | Load::Watch(connections, each)
            | Load::Grpc(_, _, connections, each)
            | Load::Put(connections, each) => (connections, each),
        }
    }

    /// The most requests that `client` keeps in flight under this load.
    pub fn in_flight(self, client: &str) -> usize {
        let (connections, in_flight) = self.shape();
        // The name of a load tool that takes other counts ends with its own: "... x1000".
        let own = client
            .rsplit_once(" x")
            .and_then(|(_, count)| count.parse().ok());
        own.unwrap_or(connections * in_flight)
    }
}

/// A row before it is measured.
#[derive(Debug, Clone, Copy)]
pub struct RowPlan {
    /// Its name.
    pub name: &'static str,
    /// Whom we are held against.
    pub peer: Side,
    /// The load of both sides.
    pub load: Load,
    /// What is compared.
    pub unit: Unit,
    /// The ratio to reach.
    pub bar: Option<f64>,
}

impl RowPlan {
    /// The figure of a sample that this row compares.
    pub fn figure(&self, sample: &Sample) -> Option<f64> {
        match self.unit {
            Unit::Micros => sample.p99_us,
            _ => Some(sample.rate),
        }
    }
}

/// A row.
pub const fn row(
    name: &'static str,
    peer: Side,
    load: Load,
    unit: Unit,
    bar: Option<f64>,
) -> RowPlan {
    RowPlan {
        name,
        peer,
        load,
        unit,
        bar,
    }
}

/// Every row that is made of loads.
pub fn rows() -> impl Iterator<Item = &'static RowPlan> {
    ROWS.iter().chain(grpc::ROWS)
}

/// The rows in which each side is driven in its own protocol.
const ROWS: &[RowPlan] = &[
    row(
        "put-50x32",
        Side::Etcd,
        Load::Put(50, 32),
        Unit::Rate,
        Some(10.0),
    ),
    row(
        "put-50x32",
        Side::H2load,
        Load::Put(50, 32),
        Unit::Rate,
        None,
    ),
    row(
        "put-50x32",
        Side::Redis,
        Load::Put(50, 32),
        Unit::Rate,
        Some(0.7),
    ),
    row(
        "put-64x1",
        Side::Etcd,
        Load::Put(64, 1),
        Unit::Rate,
        Some(3.0),
    ),
    row(
        "put-64x1-p99",
        Side::Etcd,
        Load::Put(64, 1),
        Unit::Micros,
        Some(3.0),
    ),
    row(
        "put-1x1",
        Side::Etcd,
        Load::Put(1, 1),
        Unit::Rate,
        Some(1.8),
    ),
    row("put-1x1", Side::Machine, Load::Put(1, 1), Unit::Rate, None),
    row(
        "get-64x1",
        Side::Etcd,
        Load::Get(64, 1),
        Unit::Rate,
        Some(2.0),
    ),
    row(
        "get-50x32",
        Side::Etcd,
        Load::Get(50, 32),
        Unit::Rate,
        Some(8.0),
    ),
    row(
        "keepalive-50x32",
        Side::Etcd,
        Load::KeepAlive(50, 32),
        Unit::Rate,
        Some(10.0),
    ),
    row(
        "fan-out-100x100",
        Side::Etcd,
        Load::FanOut(100, 100),
        Unit::Rate,
        Some(3.0),
    ),
    row(
        "watch-10x100-p99",
        Side::Etcd,
        Load::Watch(10, 100),
        Unit::Micros,
        Some(4.0),
    ),
];

/// Rows that take minutes, run only when named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heavy {
    /// Restart and memory with many keys.
    Restart,
    /// Puts while a checkpoint runs.
    Checkpoint,
    /// Many idle watches.
    IdleWatches,
    /// Watches that take nothing while much is written.
    StalledWatches,
    /// Many live leases.
    Leases,
    /// Many leases that expire together.
    Expiry,
    /// All of many keys in one answer.
    Listing,
    /// Puts while the metrics are read.
    Scraped,
    /// The storage engine beside LMDB.
    Storage,
    /// The same with many keys.
    StorageLarge,
    /// The space of a tree that is overwritten.
    Overwrite,
}

/// The names of the heavy rows.
pub const HEAVY: &[(&str, Heavy)] = &[
    ("restart", Heavy::Restart),
    ("checkpoint", Heavy::Checkpoint),
    ("idle-watches", Heavy::IdleWatches),
    ("stalled-watches", Heavy::StalledWatches),
    ("leases", Heavy::Leases),
    ("expiry", Heavy::Expiry),
    ("listing", Heavy::Listing),
    ("scraped", Heavy::Scraped),
    ("storage", Heavy::Storage),
    ("storage-large", Heavy::StorageLarge),
    ("overwrite", Heavy::Overwrite),
];

/// The rows with those names. If none are named, all: but the heavy ones only if all bars are asked
/// for.
pub fn select(names: Option<&[&str]>, bars: bool) -> Result<(Vec<RowPlan>, Vec<Heavy>), String> {
    let Some(names) = names else {
        let heavy = HEAVY.iter().filter(|_| bars).map(|heavy| heavy.1);
        return Ok((rows().copied().collect(), heavy.collect()));
    };
    let known = || {
        rows()
            .map(|row| row.name)
            .chain(HEAVY.iter().map(|heavy| heavy.0))
    };
    for name in names {
        if !known().any(|row| row == *name) {
            let mut known: Vec<&str> = known().collect();
            known.dedup();
            return Err(format!(
                "--rows {name}: no such row; there are {}",
                known.join(", ")
            ));
        }
    }
    let rows = rows()
        .filter(|row| names.contains(&row.name))
        .copied()
        .collect();
    let heavy = HEAVY
        .iter()
        .filter(|heavy| names.contains(&heavy.0))
        .map(|heavy| heavy.1);
    Ok((rows, heavy.collect()))
}

/// What the rows want of the server of `server`: reads first, while it has only its keys.
pub fn loads(rows: &[RowPlan], server: Side) -> Vec<(Side, Load)> {
    let sides = rows
        .iter()
        .flat_map(|row| [(Side::Quoin, row.load), (row.peer, row.load)]);
    let mut wanted: Vec<(Side, Load)> = sides
        .filter(|(side, _)| *side == server || (server == Side::Etcd && *side == Side::H2load))
        .collect();
    wanted.sort_unstable_by_key(|(side, load)| (load.writes(), *load, *side));
    wanted.dedup();
    wanted
}

/// A load tool, ready to run.
pub struct Candidate {
    /// What it is.
    pub name: String,
    /// Runs it on a server for a time; the folder takes its files.
    pub run: Run,
}

type Run = Box<dyn Fn(SocketAddr, Span, &Path) -> Result<Found, String>>;

/// The load tools that may show what a side can do under a load.
pub fn candidates(
    side: Side,
    load: Load,
    programs: &Programs,
    client_counts: &[usize],
) -> Vec<Candidate> {
    let Some(target) = side.target() else {
        return Vec::new();
    };
    let shape = load.shape();
    let mut list = Vec::new();
    if let Load::Grpc(call, tool, ..) = load {
        list.extend(grpc::candidate(call, tool, shape, programs));
        return list;
    }
    if side == Side::H2load {
        for shape in [(50, 32), (100, 10), (1000, 1)] {
            list.extend(
                programs
                    .h2load
                    .clone()
                    .map(|program| h2load(program, shape)),
            );
        }
        return list;
    }
    list.extend(ours(target, load));
    if let (Side::Etcd, Some(program)) = (side, &programs.benchmark) {
        list.extend(etcds_own(program, load, client_counts));
    }
    if let (Side::Redis, Load::Put(..), Some(program)) = (side, load, &programs.redis_benchmark) {
        let program = program.clone();
        list.push(Candidate {
            name: "redis-benchmark".into(),
            run: Box::new(move |address, span, _| {
                clients::redis_benchmark(&program, address, shape, span.requests(20_000))
            }),
        });
    }
    list
}

/// Our own tool: the load as it is, and where a server may do better under another shape of it,
/// those, too.
fn ours(target: Target, load: Load) -> Vec<Candidate> {
    let plain = |workload: Workload, shape: (usize, usize)| Candidate {
        name: match load.shape() == shape {
            true => "quoin-bench".into(),
            false => format!("quoin-bench {}x{}", shape.0, shape.1),
        },
        run: Box::new(move |address, span, _| {
            clients::ours(&clients::plan(target, address, workload, shape, span.time))
        }),
    };
    let shape = load.shape();
    match load {
        Load::Get(..) => vec![plain(Workload::Get, shape)],
        Load::Put(..) => vec![plain(Workload::Put, shape)],
        Load::KeepAlive(connections, _) => [shape, (connections, 8)]
            .map(|shape| plain(Workload::KeepAlive, shape))
            .into(),
        Load::FanOut(..) => [1, 16]
            .map(|in_flight| Candidate {
                name: format!("quoin-bench, {in_flight} writes in flight"),
                run: Box::new(move |address, span, _| {
                    clients::fan_out(target, address, shape, in_flight, span)
                }),
            })
            .into(),
        Load::Watch(..) => vec![Candidate {
            name: "quoin-bench".into(),
            run: Box::new(move |address, span, _| {
                clients::watch_latency(target, address, shape, WRITE_RATE, span)
            }),
        }],
        // One client for both sides, and no other: see `grpc`.
        Load::Grpc(..) => Vec::new(),
    }
}

/// etcd's own tool. It measures no latency of watches under load: its `watch-latency` writes one
/// key at a time.
fn etcds_own(program: &Path, load: Load, client_counts: &[usize]) -> Vec<Candidate> {
    let program = program.to_path_buf();
    match load {
        // Its best at any count: the row with many in flight asks for that.
        Load::Put(_, in_flight) if in_flight > 1 => client_counts
            .iter()
            .map(|&count| benchmark(program.clone(), "put", (count, count)))
            .collect(),
        Load::Put(connections, _) => {
            vec![benchmark(program, "put", (connections, connections))]
        }
        Load::Get(connections, in_flight) => {
            let clients = connections * in_flight;
            vec![benchmark(program, "range", (connections, clients))]
        }
        Load::KeepAlive(connections, _) => {
            vec![benchmark(program, "lease-keepalive", (connections, 400))]
        }
        Load::FanOut(..) => vec![benchmark_fan_out(program, load.shape())],
        Load::Watch(..) | Load::Grpc(..) => Vec::new(),
    }
}

/// etcd's own tool, with so many connections and watches on each.
pub fn benchmark_fan_out(program: PathBuf, shape: (usize, usize)) -> Candidate {
    Candidate {
        name: "etcd benchmark".into(),
        run: Box::new(move |address, span, _| {
            let events = span.requests(10 * (shape.0 * shape.1) as u64);
            clients::etcd_fan_out(&program, address, shape, events)
        }),
    }
}

/// etcd's own tool, with so many connections and clients.
pub fn benchmark(
    program: PathBuf,
    call: &'static str,
    (conns, clients): (usize, usize),
) -> Candidate {
    // More connections than that only cost etcd: its documentation uses 100 for 1000 clients.
    let conns = conns.min(100);
    Candidate {
        name: format!("etcd benchmark, {conns} connections, clients x{clients}"),
        run: Box::new(move |address, span, _| {
            let run =
                |total| clients::etcd_benchmark(&program, address, call, (conns, clients), total);
            match span.rate {
                Some(_) => run(span.requests(2 * clients as u64 + 500)),
                // A run so short is spent on connecting: its rate is a guess for the next.
                None => run(Span {
                    rate: Some(run(2 * clients as u64 + 500)?.rate),
                    ..span
                }
                .requests(500)),
            }
        }),
    }
}

fn h2load(program: PathBuf, (connections, streams): (usize, usize)) -> Candidate {
    Candidate {
        name: format!(
            "h2load -c {connections} -m {streams}, in flight x{}",
            connections * streams
        ),
        run: Box::new(move |address, span, folder| {
            let call = grpc::Call::Put;
            clients::h2load(
                &program,
                address,
                call,
                (connections, streams),
                span.time,
                folder,
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_read_are_the_flags_known() {
        let source = include_str!("mod.rs");
        for read in ["text(\"", "number(\"", "has(\""] {
            for rest in source.split(read).skip(1) {
                let name = rest.split('"').next().unwrap_or_default();
                assert!(
                    super::super::FLAGS.iter().any(|flag| flag.name == name),
                    "--{name}"
                );
            }
        }
    }

    #[test]
    fn rows_are_selected_by_name() {
        let (all, heavy) = select(None, false).unwrap();
        assert_eq!((all.len(), heavy.len()), (rows().count(), 0));
        let (all, heavy) = select(None, true).unwrap();
        assert_eq!((all.len(), heavy.len()), (rows().count(), HEAVY.len()));
        let (some, heavy) = select(Some(&["put-50x32", "restart"]), true).unwrap();
        assert_eq!((some.len(), heavy), (3, vec![Heavy::Restart]));
        assert!(
            select(Some(&["put-50x33"]), false)
                .unwrap_err()
                .contains("put-50x32, put-64x1")
        );
    }

    #[test]
    fn each_server_gets_each_load_once_and_reads_first() {
        let all = loads(ROWS, Side::Quoin);
        assert_eq!(all.len(), 8);
        let puts = all.iter().position(|(_, load)| load.writes());
        assert_eq!(puts, Some(5));
        assert!(all[5..].iter().all(|(_, load)| load.writes()));
        let etcd = loads(ROWS, Side::Etcd);
        assert!(etcd.contains(&(Side::H2load, Load::Put(50, 32))));
        assert_eq!(loads(ROWS, Side::Redis), [(Side::Redis, Load::Put(50, 32))]);
        assert_eq!(
            loads(ROWS, Side::Machine),
            [(Side::Machine, Load::Put(1, 1))]
        );
    }

    #[test]
    fn a_tool_tells_what_it_keeps_in_flight() {
        let load = Load::Put(50, 32);
        assert_eq!(load.in_flight("quoin-bench"), 1600);
        assert_eq!(
            load.in_flight("etcd benchmark, 100 connections, clients x1000"),
            1000
        );
        assert_eq!(Load::Put(1, 1).in_flight("redis-benchmark"), 1);
    }
}
