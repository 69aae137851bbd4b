//! The peers' own load tools, and ours, behind one face: a rate, a p99, and how many requests
//! that were.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Span;
use super::grpc::{self, Call};
use super::servers::load;
use crate::options::{Leases, Options, Stop, Target, Workload, fresh_lease_id};
use crate::report::Outcome;
use crate::watching::{Kind, Plan};

/// What a load tool found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Good answers per second.
    pub rate: f64,
    /// The 99th percentile in microseconds, if the tool tells it.
    pub p99_us: Option<f64>,
    /// All requests that were answered.
    pub requests: u64,
}

/// Runs our own tool; any failed request is an error.
pub fn ours(options: &Options) -> Result<Found, String> {
    found(&crate::run::run(options)?)
}

/// Writes all keys.
pub fn load_keys(options: &Options) -> Result<(), String> {
    let mut all = options.clone();
    (all.workload, all.preload) = (Workload::Get, true);
    (all.connections, all.in_flight, all.stop) = (16, 32, Stop::Total(1));
    ours(&all).map(|_| ())
}

/// A load with so many connections and requests in flight, for that time.
pub fn plan(
    target: Target,
    address: std::net::SocketAddr,
    workload: Workload,
    (connections, in_flight): (usize, usize),
    span: Duration,
) -> Options {
    let mut options = load(target, address, workload, connections, in_flight);
    if workload.leases() {
        options.preload = true;
        options.leases = Leases {
            first: fresh_lease_id(),
            count: 10_000,
            ttl: 600,
            until: None,
        };
    }
    options.stop = Stop::After(span);
    options
}

/// Tells many watches of one key, on some connections each, of as many writes as fit the time.
pub fn fan_out(
    target: Target,
    address: std::net::SocketAddr,
    shape: (usize, usize),
    in_flight: usize,
    span: Span,
) -> Result<Found, String> {
    let watches = (shape.0 * shape.1) as u64;
    let mut writes = load(target, address, Workload::Put, 1, in_flight);
    writes.stop = Stop::Total((span.requests(20 * watches) / watches).max(1));
    let each = (shape.0, shape.1 as u64);
    watching(&Plan::new(Kind::FanOut, writes, each, (1, 1, 1)))
}

/// Writes keys at a rate, each of which is watched, on some connections.
pub fn watch_latency(
    target: Target,
    address: std::net::SocketAddr,
    shape: (usize, usize),
    rate: f64,
    span: Span,
) -> Result<Found, String> {
    let mut writes = load(target, address, Workload::Put, 1, 32);
    (writes.rate, writes.stop) = (Some(rate), Stop::After(span.time));
    let keys = (shape.0 * shape.1) as u64;
    let each = (shape.0, shape.1 as u64);
    watching(&Plan::new(Kind::Latency, writes, each, (10, keys, 1)))
}

/// Runs a load with watches; any event that is lost, repeated or misplaced is an error.
fn watching(plan: &Plan) -> Result<Found, String> {
    found(&crate::watching::run(plan)?)
}

fn found(outcome: &Outcome) -> Result<Found, String> {
    match outcome.errors.first() {
        None => Ok(Found {
            rate: outcome.throughput,
            p99_us: Some(outcome.percentile(99.0) as f64 / 1000.0),
            requests: outcome.requests,
        }),
        Some((failure, _)) => Err(format!("{} failed: {failure}", outcome.failed())),
    }
}

/// Has etcd's own tool tell so many events to watches of one key.
pub fn etcd_fan_out(
    program: &Path,
    address: std::net::SocketAddr,
    (connections, watches): (usize, usize),
    events: u64,
) -> Result<Found, String> {
    let mut command = Command::new(program);
    let puts = (events / (connections * watches) as u64).max(1);
    command.args(["watch", "--endpoints", &address.to_string()]);
    for (flag, value) in [
        ("--conns", connections as u64),
        ("--clients", connections as u64),
        ("--streams", connections as u64),
        ("--watch-per-stream", watches as u64),
        ("--watched-key-total", 1),
        ("--put-total", puts),
    ] {
        command.args([flag, &value.to_string()]);
    }
    let text = output(&mut command)?;
    let told = text.split("Watch events received summary:").nth(1);
    let rate = told.and_then(|told| number_after(told, "Requests/sec:"));
    match rate.filter(|rate| *rate > 0.0 && !text.contains("Error distribution:")) {
        Some(rate) => Ok(Found {
            rate,
            p99_us: None,
            requests: puts * (connections * watches) as u64,
        }),
        None => Err(nonsense(program, &text)),
    }
}

/// Runs etcd's own benchmark tool: so many requests of `call` ("put", "range" of one key, or
/// "lease-keepalive").
pub fn etcd_benchmark(
    program: &Path,
    address: std::net::SocketAddr,
    call: &str,
    (connections, clients): (usize, usize),
    total: u64,
) -> Result<Found, String> {
    let mut command = Command::new(program);
    command.arg(call);
    match call {
        "put" => {
            command.args(["--key-size", "24", "--val-size", "256"]);
            command.args(["--key-space-size", "100000"]);
        }
        "lease-keepalive" => {}
        _ => {
            command.arg(grpc::KEY).arg("--consistency=l");
        }
    }
    command.args([
        "--endpoints",
        &address.to_string(),
        "--total",
        &total.to_string(),
    ]);
    command.args([
        "--conns",
        &connections.to_string(),
        "--clients",
        &clients.to_string(),
    ]);
    let text = output(&mut command)?;
    let rate = number_after(&text, "Requests/sec:").ok_or_else(|| nonsense(program, &text))?;
    let errors = text.contains("Error distribution:");
    if errors || rate <= 0.0 {
        return Err(format!("etcd's benchmark tool reports errors: {text}"));
    }
    let p99 = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("99% in "));
    let p99 = p99.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    Ok(Found {
        rate,
        p99_us: p99.map(|seconds| seconds * 1e6),
        requests: total,
    })
}

/// Runs h2load, which knows nothing of gRPC but sends one prepared message again and again.
pub fn h2load(
    program: &Path,
    address: std::net::SocketAddr,
    call: Call,
    (connections, streams): (usize, usize),
    span: Duration,
    folder: &Path,
) -> Result<Found, String> {
    let body = folder.join("h2load.grpc");
    fs::write(&body, call.message()).map_err(|error| format!("{}: {error}", body.display()))?;
    let seconds = span.as_secs().max(1).to_string();
    let mut command = h2load_command(program, &body);
    command.args(["-c", &connections.to_string(), "-m", &streams.to_string()]);
    command.args(["-D", &seconds]);
    command.arg(format!("http://{address}{}", call.path()));
    let told = run_h2load(program, &mut command)?;
    told.check(call.least_answer())?;
    Ok(told.found)
}

/// h2load with the headers of gRPC and that body.
pub fn h2load_command(program: &Path, body: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-t", "1", "-H", "content-type: application/grpc"]);
    command.args(["-H", "te: trailers"]).arg("-d").arg(body);
    command
}

/// What h2load tells.
#[derive(Debug, Clone, PartialEq)]
pub struct H2load {
    /// Requests and their rate.
    pub found: Found,
    /// Bytes of all answers, without headers.
    pub bytes: u64,
}

impl H2load {
    /// h2load takes an answer of headers alone, as a refused call has, for a good one: each must
    /// have so many bytes.
    pub fn check(&self, each: u64) -> Result<(), String> {
        match self.bytes >= each * self.found.requests {
            true => Ok(()),
            false => Err(format!(
                "{} answers had {} bytes: not all calls were served",
                self.found.requests, self.bytes
            )),
        }
    }
}

/// Runs a prepared h2load.
pub fn run_h2load(program: &Path, command: &mut Command) -> Result<H2load, String> {
    let text = output(command)?;
    parse_h2load(&text).ok_or_else(|| nonsense(program, &text))
}

fn parse_h2load(text: &str) -> Option<H2load> {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    let rate = line("finished in ")?
        .split(", ")
        .find_map(|part| part.strip_suffix(" req/s"))?
        .trim()
        .parse()
        .ok()?;
    let requests = line("requests: ")?;
    let count = |what: &str| {
        requests.split(", ").find_map(|part| {
            let (number, word) = part.trim_start_matches("requests: ").split_once(' ')?;
            (word.trim() == what).then(|| number.parse::<u64>().ok())?
        })
    };
    let data = line("traffic: ")?
        .split(", ")
        .find(|part| part.ends_with(" data"))?;
    let bytes = data.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
    let good = count("succeeded").filter(|good| *good > 0)?;
    (count("failed") == Some(0) && count("errored") == Some(0)).then_some(H2load {
        found: Found {
            rate,
            p99_us: None,
            requests: good,
        },
        bytes,
    })
}

/// Runs redis-benchmark with the same keys, values, connections and pipeline as ours.
pub fn redis_benchmark(
    program: &Path,
    address: std::net::SocketAddr,
    (connections, in_flight): (usize, usize),
    total: u64,
) -> Result<Found, String> {
    let mut command = Command::new(program);
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &address.port().to_string(),
        "--csv",
    ]);
    command.args(["-c", &connections.to_string(), "-P", &in_flight.to_string()]);
    command.args(["-n", &total.to_string(), "-r", "100000"]);
    // The placeholder becomes 12 digits.
    command.args(["SET", "000000000000__rand_int__", &"v".repeat(256)]);
    let text = output(&mut command)?;
    parse_redis(&text, total).ok_or_else(|| nonsense(program, &text))
}

fn parse_redis(text: &str, total: u64) -> Option<Found> {
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let names: Vec<&str> = lines.next()?.split("\",\"").collect();
    // The command itself is the first field and may hold anything: count from the end.
    let last = lines.next_back()?.trim_end_matches('"');
    let values: Vec<&str> = last.rsplit("\",\"").collect();
    let value = |name: &str| {
        let from_end = names
            .iter()
            .rev()
            .position(|field| field.trim_matches('"') == name)?;
        values.get(from_end)?.parse::<f64>().ok()
    };
    let rate = value("rps")?;
    Some(Found {
        rate,
        p99_us: value("p99_latency_ms").map(|ms| ms * 1000.0),
        requests: total,
    })
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let tail: Vec<&str> = errors.lines().rev().take(3).collect();
    Err(format!(
        "{name} failed ({}): {}",
        output.status,
        tail.join(" / ")
    ))
}

fn number_after(text: &str, mark: &str) -> Option<f64> {
    let rest = text.split(mark).nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn nonsense(program: &Path, text: &str) -> String {
    format!(
        "{} printed nothing that can be read: {text}",
        program.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2load_is_read() {
        let text = "finished in 3.00s, 12345.67 req/s, 1.2MB/s\n\
             requests: 37037 total, 37100 started, 37037 done, 37037 succeeded, 0 failed, \
             0 errored, 0 timeout\nstatus codes: 37037 2xx, 0 3xx, 0 4xx, 0 5xx\n\
             traffic: 1.20MB (1200000) total, 28B (28) headers (space savings 90.79%), \
             361.69KB (370370) data\n";
        let told = parse_h2load(text).unwrap();
        assert_eq!((told.found.rate, told.found.requests), (12345.67, 37_037));
        assert!(told.check(10).is_ok());
        assert!(told.check(11).is_err());
        assert_eq!(parse_h2load(&text.replace("0 failed", "3 failed")), None);
        assert_eq!(parse_h2load("usage"), None);
    }

    #[test]
    fn redis_benchmark_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
             \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
             \"SET \",\" k\",\"178041.55\",\"8.761\",\"2.544\",\"6.295\",\"20.015\",\"40.895\",\
             \"67.199\"\n";
        let found = parse_redis(text, 5).unwrap();
        assert_eq!((found.rate, found.p99_us), (178_041.55, Some(40_895.0)));
        assert_eq!(parse_redis("", 5), None);
    }

    #[test]
    fn etcds_benchmark_is_read() {
        let text = "Summary:\n  Requests/sec:\t2297.6784\n\n  99% in 0.1180 secs.\n";
        assert_eq!(number_after(text, "Requests/sec:"), Some(2297.6784));
        assert_eq!(number_after(text, "nothing"), None);
    }
}
