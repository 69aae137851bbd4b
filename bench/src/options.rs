//! What to run: the options of a load, read from the command line and checked.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::args::{Flag, Parsed, flag, switch};
use crate::keys::{Distribution, shortest_key};

/// Which server is asked, in its own protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// quoin, over its native protocol.
    Quoin,
    /// etcd, or quoin, over gRPC.
    Etcd,
    /// Redis, over RESP.
    Redis,
}

impl Target {
    /// Its name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Quoin => "quoin",
            Target::Etcd => "etcd",
            Target::Redis => "redis",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// Write one key.
    Put,
    /// Read one key.
    Get,
    /// Read an interval of keys.
    Range,
    /// A condition, a write and a read in one transaction.
    Txn,
    /// Reads and writes of one key; so many reads per write.
    Mixed {
        /// The share of reads, from 0 to 1.
        reads: f64,
    },
    /// Renew leases.
    KeepAlive,
    /// What a registry of services does: instances renew their leases, change and withdraw their
    /// entries; others list the instances of a service.
    Registry,
}

impl Workload {
    /// Its name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Range => "range",
            Workload::Txn => "txn",
            Workload::Mixed { .. } => "mixed",
            Workload::KeepAlive => "keepalive",
            Workload::Registry => "registry",
        }
    }

    /// Whether it needs leases.
    pub fn leases(self) -> bool {
        matches!(self, Workload::KeepAlive | Workload::Registry)
    }

    fn reads(self) -> bool {
        matches!(
            self,
            Workload::Get | Workload::Range | Workload::Mixed { .. }
        )
    }
}

/// When the measured part of a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After that time.
    After(Duration),
    /// After so many requests.
    Total(u64),
}

/// The leases of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leases {
    /// The id of the first; the others follow.
    pub first: i64,
    /// How many.
    pub count: u64,
    /// Seconds that each is granted for.
    pub ttl: i64,
    /// If not: a time, in nanoseconds of the run, and each is granted for the whole seconds that
    /// are left until then.
    pub until: Option<u64>,
}

impl Leases {
    /// Seconds for which a lease is granted whose request counts from `start`.
    pub fn ttl_at(&self, start: u64) -> i64 {
        match self.until {
            None => self.ttl,
            Some(until) => (until.saturating_sub(start) / 1_000_000_000) as i64,
        }
    }
}

/// A load.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kind of server.
    pub target: Target,
    /// Its addresses; connections are spread over them.
    pub endpoints: Vec<SocketAddr>,
    /// What is asked.
    pub workload: Workload,
    /// Reads take the member's state as it is, without asking the quorum.
    pub serializable: bool,
    /// Connections, all workers together.
    pub connections: usize,
    /// Requests in flight on each connection, at most.
    pub in_flight: usize,
    /// Requests per second of an open loop; `None`: a closed loop.
    pub rate: Option<f64>,
    /// Number of keys.
    pub keys: u64,
    /// How keys are chosen.
    pub distribution: Distribution,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Keys that one range asks for; of a registry: instances of a service.
    pub range_keys: u64,
    /// What every key begins with.
    pub prefix: String,
    /// Values begin with the time from which their request counts.
    pub stamped: bool,
    /// The leases of a load that needs some.
    pub leases: Leases,
    /// When to stop.
    pub stop: Stop,
    /// Time before the measured part.
    pub warmup: Duration,
    /// Without an answer for so long, requests count as failed.
    pub timeout: Duration,
    /// Worker threads.
    pub threads: usize,
    /// Write every key first.
    pub preload: bool,
    /// Seed of keys and values.
    pub seed: u64,
    /// Draw no progress line.
    pub quiet: bool,
    /// Keep the latency of every request.
    pub trace: bool,
    /// Where to write the result as JSON.
    pub json: Option<PathBuf>,
    /// Where to write the result as a page.
    pub html: Option<PathBuf>,
}

/// The flags of every load.
pub const FLAGS: &[Flag] = &[
    flag(
        "target",
        "NAME",
        "protocol: quoin (its own), etcd (gRPC, which quoin speaks, too) or redis [quoin]",
    ),
    flag(
        "endpoints",
        "LIST",
        "addresses, host:port,... [127.0.0.1:2379; redis 127.0.0.1:6379]",
    ),
    flag("connections", "N", "connections [50]"),
    flag("in-flight", "N", "requests in flight per connection [32]"),
    flag(
        "rate",
        "N",
        "open loop: N requests per second, latency from the intended send time",
    ),
    flag("keys", "N", "size of the key space [100k]"),
    flag(
        "distribution",
        "NAME",
        "keys: uniform, zipfian or sequential [uniform]",
    ),
    flag("key-size", "BYTES", "length of a key [24]"),
    flag("value-size", "BYTES", "length of a value [256]"),
    flag("duration", "TIME", "length of the measured part [10s]"),
    flag(
        "total",
        "N",
        "stop after N requests instead of after a time",
    ),
    flag("warmup", "TIME", "load before the measured part [1s]"),
    flag(
        "timeout",
        "TIME",
        "without any answer for so long, requests count as failed [10s]",
    ),
    flag("threads", "N", "worker threads [1]"),
    flag(
        "consistency",
        "l|s",
        "reads: l (linearizable) or s (serializable) [l]",
    ),
    flag("range-keys", "N", "range: keys per request [100]"),
    flag("rw-ratio", "N", "mixed: reads per write [1]"),
    flag("leases", "N", "keepalive: leases to renew [10k]"),
    flag(
        "ttl",
        "SECONDS",
        "keepalive: what leases are granted for [600]",
    ),
    switch(
        "no-preload",
        "do not write all keys before a load that reads",
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

impl Options {
    /// A closed loop of puts of one connection, one in flight, for a second: the load that
    /// others are made of.
    pub fn plain(target: Target, server: SocketAddr) -> Options {
        Options {
            target,
            endpoints: vec![server],
            workload: Workload::Put,
            serializable: false,
            connections: 1,
            in_flight: 1,
            rate: None,
            keys: 100_000,
            distribution: Distribution::Uniform,
            key_size: 24,
            value_size: 256,
            range_keys: 100,
            prefix: String::new(),
            stamped: false,
            leases: Leases::default(),
            stop: Stop::After(Duration::from_secs(1)),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(20),
            threads: 1,
            preload: false,
            seed: 1,
            quiet: true,
            trace: false,
            json: None,
            html: None,
        }
    }

    /// The same with what the command line says of every load that is made of others: where it
    /// goes, how patient it is, and what it reports.
    pub fn plain_from_args(parsed: &Parsed) -> Result<Options, String> {
        let targets = [("quoin", Target::Quoin), ("etcd", Target::Etcd)];
        let target = parsed.choice("target", &targets, Target::Quoin)?;
        let endpoints = endpoints(parsed.text("endpoints").unwrap_or("127.0.0.1:2379"))?;
        Ok(Options {
            timeout: parsed.duration("timeout", Duration::from_secs(10))?,
            seed: parsed.number("seed", 1, 0, u64::MAX)?,
            quiet: parsed.has("quiet"),
            json: parsed.text("json").map(PathBuf::from),
            html: parsed.text("html").map(PathBuf::from),
            endpoints: endpoints.clone(),
            ..Options::plain(target, endpoints[0])
        })
    }

    /// Reads and checks the options of `workload`.
    pub fn from_args(workload: Workload, parsed: &Parsed) -> Result<Options, String> {
        let targets = [
            ("quoin", Target::Quoin),
            ("etcd", Target::Etcd),
            ("redis", Target::Redis),
        ];
        let distributions = [
            ("uniform", Distribution::Uniform),
            ("zipfian", Distribution::Zipfian),
            ("sequential", Distribution::Sequential),
        ];
        let target = parsed.choice("target", &targets, Target::Quoin)?;
        let default = if target == Target::Redis {
            "127.0.0.1:6379"
        } else {
            "127.0.0.1:2379"
        };
        if parsed.has("total") && parsed.has("duration") {
            return Err("--total and --duration exclude each other".into());
        }
        let stop = match parsed.has("total") {
            true => Stop::Total(parsed.number("total", 0, 1, u64::MAX)?),
            false => Stop::After(parsed.duration("duration", Duration::from_secs(10))?),
        };
        let workload = mix(workload, parsed)?;
        let options = Options {
            target,
            endpoints: endpoints(parsed.text("endpoints").unwrap_or(default))?,
            workload,
            serializable: parsed.choice(
                "consistency",
                &[
                    ("l", false),
                    ("s", true),
                    ("linearizable", false),
                    ("serializable", true),
                ],
                false,
            )?,
            connections: parsed.number("connections", 50, 1, 60_000)? as usize,
            in_flight: parsed.number("in-flight", 32, 1, 65_536)? as usize,
            rate: parsed.fraction("rate", 0.001, 1e9)?,
            keys: parsed.number("keys", 100_000, 1, u64::MAX)?,
            distribution: parsed.choice("distribution", &distributions, Distribution::Uniform)?,
            key_size: parsed.number("key-size", 24, 1, 64 << 20)? as usize,
            value_size: parsed.number("value-size", 256, 0, 1 << 30)? as usize,
            range_keys: parsed.number("range-keys", 100, 1, 1 << 32)?,
            prefix: String::new(),
            stamped: false,
            leases: leases(workload, parsed)?,
            stop,
            warmup: parsed.duration("warmup", Duration::from_secs(1))?,
            timeout: parsed.duration("timeout", Duration::from_secs(10))?,
            threads: parsed.number("threads", 1, 1, 1024)? as usize,
            preload: workload.leases() || workload.reads() && !parsed.has("no-preload"),
            seed: parsed.number("seed", 1, 0, u64::MAX)?,
            quiet: parsed.has("quiet"),
            trace: false,
            json: parsed.text("json").map(PathBuf::from),
            html: parsed.text("html").map(PathBuf::from),
        };
        options.check(parsed)?;
        Ok(options)
    }

    fn check(&self, parsed: &Parsed) -> Result<(), String> {
        if self.stop == Stop::After(Duration::ZERO) {
            return Err("--duration 0: nothing would be measured".into());
        }
        if self.timeout.is_zero() {
            return Err("--timeout 0: every request would fail".into());
        }
        let shortest = shortest_key(self.keys);
        if self.key_size < shortest {
            return Err(format!(
                "--key-size {}: too short for {} different keys, which need {shortest} bytes",
                self.key_size, self.keys
            ));
        }
        if self.threads > self.connections {
            return Err(format!(
                "--threads {}: more than the {} connections to share out",
                self.threads, self.connections
            ));
        }
        let only = |flag: &str, workload: &str| match parsed.has(flag) {
            true => Err(format!("--{flag} belongs to '{workload}'")),
            false => Ok(()),
        };
        if !matches!(self.workload, Workload::Mixed { .. }) {
            only("rw-ratio", "mixed")?;
        }
        if self.workload != Workload::Range {
            only("range-keys", "range")?;
        }
        if !self.workload.leases() {
            only("leases", "keepalive")?;
            only("ttl", "keepalive")?;
        }
        if !self.workload.reads() && self.workload != Workload::Txn {
            only("consistency", "get, range, txn or mixed")?;
        }
        if self.target == Target::Redis {
            if matches!(self.workload, Workload::Range | Workload::Txn) || self.workload.leases() {
                let name = self.workload.name();
                return Err(format!(
                    "'{name}' has no counterpart in Redis; use put, get or mixed"
                ));
            }
            only("consistency", "quoin and etcd")?;
        }
        Ok(())
    }
}

fn leases(workload: Workload, parsed: &Parsed) -> Result<Leases, String> {
    if !workload.leases() {
        return Ok(Leases::default());
    }
    Ok(Leases {
        first: fresh_lease_id(),
        count: parsed.number("leases", 10_000, 1, 1 << 32)?,
        ttl: parsed.number("ttl", 600, 1, 9_000_000_000)? as i64,
        until: None,
    })
}

/// The first of a row of ids that no run before this one has used: a thousand for each
/// microsecond since 1970, and nobody grants leases faster.
pub fn fresh_lease_id() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros() as u64);
    ((micros << 10) & (i64::MAX as u64 >> 1)) as i64 + 1
}

fn mix(workload: Workload, parsed: &Parsed) -> Result<Workload, String> {
    Ok(match workload {
        Workload::Mixed { .. } => {
            let ratio = parsed.fraction("rw-ratio", 0.0, 1e9)?.unwrap_or(1.0);
            Workload::Mixed {
                reads: ratio / (ratio + 1.0),
            }
        }
        other => other,
    })
}

/// Reads a list of addresses.
pub fn endpoints(list: &str) -> Result<Vec<SocketAddr>, String> {
    let mut found = Vec::new();
    for text in list.split(',') {
        if text.starts_with("https://") {
            return Err(format!("--endpoints {text}: TLS is not supported here"));
        }
        let place = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let address = place
            .to_socket_addrs()
            .map_err(|error| format!("--endpoints {text}: {error} (wanted: host:port)"))?
            .next()
            .ok_or_else(|| format!("--endpoints {text}: the name has no address"))?;
        found.push(address);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn options(workload: Workload, text: &str) -> Result<Options, String> {
        let args: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        Options::from_args(workload, &parse(FLAGS, &args)?)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let put = options(Workload::Put, "").unwrap();
        assert_eq!((put.connections, put.in_flight, put.threads), (50, 32, 1));
        assert_eq!((put.keys, put.key_size, put.value_size), (100_000, 24, 256));
        assert_eq!(
            put.endpoints,
            ["127.0.0.1:2379".parse::<SocketAddr>().unwrap()]
        );
        assert!(!put.preload && options(Workload::Get, "").unwrap().preload);
        assert!(!options(Workload::Get, "--no-preload").unwrap().preload);
        let redis = options(Workload::Put, "--target redis").unwrap();
        assert_eq!(
            redis.endpoints,
            ["127.0.0.1:6379".parse::<SocketAddr>().unwrap()]
        );
    }

    #[test]
    fn a_ratio_becomes_a_share() {
        let mixed = options(Workload::Mixed { reads: 0.0 }, "--rw-ratio 3").unwrap();
        assert_eq!(mixed.workload, Workload::Mixed { reads: 0.75 });
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let refused = |workload, text: &str, what: &str| {
            let error = options(workload, text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        };
        refused(
            Workload::Put,
            "--total 5 --duration 3s",
            "exclude each other",
        );
        refused(Workload::Put, "--duration 0", "nothing would be measured");
        refused(Workload::Put, "--timeout 0", "every request would fail");
        refused(Workload::Put, "--key-size 3", "need 5 bytes");
        refused(
            Workload::Put,
            "--threads 4 --connections 2",
            "more than the 2 connections",
        );
        refused(Workload::Put, "--rw-ratio 2", "belongs to 'mixed'");
        refused(Workload::Get, "--range-keys 2", "belongs to 'range'");
        refused(Workload::Put, "--consistency s", "belongs to");
        refused(Workload::Get, "--consistency x", "must be one of l, s");
        refused(Workload::Txn, "--target redis", "no counterpart in Redis");
        refused(
            Workload::Put,
            "--target mysql",
            "must be one of quoin, etcd, redis",
        );
        refused(Workload::Put, "--endpoints https://a:1", "TLS");
        refused(Workload::Put, "--endpoints nowhere", "wanted: host:port");
        refused(Workload::Put, "--rate 0", "must lie between");
    }
}
