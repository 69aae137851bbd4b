//! What to watch and what to write, read from the command line and checked.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::Plan;
use crate::args::{Flag, Parsed, flag, switch};
use crate::keys::shortest_key;
use crate::options::{Leases, Options, Stop, Workload, fresh_lease_id};
use crate::workload::STAMP;

/// Which load with watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many watches of one key.
    FanOut,
    /// A watch for each key, and writes at a rate.
    Latency,
    /// A registry of services.
    Registry,
    /// A watch for each key, and nothing is written to them.
    Idle,
}

macro_rules! with_common {
    ($name:ident, $about:literal, [$($own:expr),* $(,)?]) => {
        #[doc = $about]
        pub const $name: &[Flag] = &[
            flag("target", "NAME", "server to load: quoin or etcd [quoin]"),
            flag("endpoints", "LIST", "addresses, host:port,... [127.0.0.1:2379]"),
            $($own,)*
            flag("value-size", "BYTES", "length of a value, at least 8 [256]"),
            flag("timeout", "TIME", "without any event for so long, those missing count as lost [10s]"),
            flag("seed", "N", "seed of keys and values [1]"),
            flag("json", "FILE", "write the result as JSON"),
            flag("html", "FILE", "write the result as one self-contained page"),
            switch("quiet", "no progress line"),
            switch("help", "this text"),
        ];
    };
}

with_common!(
    WATCH_FLAGS,
    "The flags of `watch` and `watch-latency`.",
    [
        flag(
            "connections",
            "N",
            "connections that watch [100; watch-latency 10]"
        ),
        flag("watches", "N", "watches on each of them [100]"),
        flag(
            "keys",
            "N",
            "keys to watch, one for each watch, in turn [1; watch-latency as many as watches]"
        ),
        flag(
            "writers",
            "N",
            "connections that write [1; watch-latency 10]"
        ),
        flag(
            "in-flight",
            "N",
            "writes in flight on each of them [1; watch-latency 32]"
        ),
        flag(
            "rate",
            "N",
            "writes per second, in an open loop [as many as there are answers for; watch-latency 10k]"
        ),
        flag(
            "total",
            "N",
            "watch: stop after N writes, when all of them have been told [1000]"
        ),
        flag(
            "duration",
            "TIME",
            "watch-latency: length of the measured part [10s]"
        ),
        flag(
            "warmup",
            "TIME",
            "watch-latency: load before the measured part [1s]"
        ),
    ]
);

with_common!(
    REGISTRY_FLAGS,
    "The flags of `registry`.",
    [
        flag("services", "N", "services; each is watched [100]"),
        flag(
            "instances",
            "N",
            "instances of each, every one with an entry and a lease [20]"
        ),
        flag("connections", "N", "connections that watch [10]"),
        flag("watches", "N", "watches of a service on each of them [100]"),
        flag(
            "writers",
            "N",
            "connections of the instances and of those who list services [50]"
        ),
        flag("in-flight", "N", "requests in flight on each of them [8]"),
        flag(
            "rate",
            "N",
            "requests per second, in an open loop [as many as there are answers for]"
        ),
        flag("ttl", "SECONDS", "what leases are granted for [600]"),
        flag("duration", "TIME", "length of the measured part [10s]"),
        flag("warmup", "TIME", "load before the measured part [1s]"),
    ]
);

/// How the load of a plan is called.
pub fn name(writes: &Options) -> &'static str {
    match (writes.workload, writes.stop) {
        (Workload::Registry, _) => "registry",
        (_, Stop::Total(_)) => "watch",
        (_, Stop::After(_)) => "watch-latency",
    }
}

impl Plan {
    /// A plan with the defaults of a kind, for these flags.
    pub fn from_args(kind: Kind, parsed: &Parsed) -> Result<Plan, String> {
        let number = |name: &str, default: u64, most: u64| parsed.number(name, default, 1, most);
        let [connections, watches, writers, in_flight] = match kind {
            Kind::FanOut => [100, 100, 1, 1],
            Kind::Latency => [10, 100, 10, 32],
            Kind::Registry => [10, 100, 50, 8],
            Kind::Idle => [100, 10_000, 1, 1],
        };
        let connections = number("connections", connections, 60_000)? as usize;
        let watches = number("watches", watches, 1 << 20)?;
        let keys = match kind {
            Kind::FanOut => number("keys", 1, 1 << 24)?,
            Kind::Latency | Kind::Idle => number("keys", connections as u64 * watches, 1 << 24)?,
            Kind::Registry => number("services", 100, 1 << 20)? * number("instances", 20, 1 << 12)?,
        };
        let span = number("instances", 20, 1 << 12)?;
        let writers = number("writers", writers, 60_000)? as usize;
        let stop = match kind {
            Kind::FanOut => Stop::Total(number("total", 1000, 1 << 40)?),
            _ => Stop::After(parsed.duration("duration", Duration::from_secs(10))?),
        };
        let rate = parsed.fraction("rate", 0.001, 1e9)?;
        let writes = Options {
            in_flight: number("in-flight", in_flight, 65_536)? as usize,
            rate: match kind {
                Kind::Latency => rate.or(Some(10_000.0)),
                _ => rate,
            },
            value_size: parsed.number("value-size", 256, STAMP as u64, 1 << 30)? as usize,
            stop,
            ..Options::plain_from_args(parsed)?
        };
        if writes.timeout.is_zero() || writes.stop == Stop::After(Duration::ZERO) {
            return Err("--timeout and --duration must be longer than nothing".into());
        }
        let warmup = match kind {
            Kind::FanOut if parsed.has("warmup") => {
                return Err("--warmup belongs to 'watch-latency'".into());
            }
            Kind::FanOut => Duration::ZERO,
            _ => parsed.duration("warmup", Duration::from_secs(1))?,
        };
        let wrong = match kind {
            Kind::FanOut => "duration",
            _ => "total",
        };
        if parsed.has(wrong) {
            return Err(format!("--{wrong} is for the other load with watches"));
        }
        let plan = Plan::new(kind, writes, (connections, watches), (writers, keys, span));
        let ttl = parsed.number("ttl", 600, 1, 9_000_000_000)? as i64;
        Ok(plan.with(warmup, ttl))
    }

    /// A plan: these writes, so many connections with so many watches each, so many connections
    /// that write, keys, and keys that one watch of a registry sees.
    pub fn new(
        kind: Kind,
        writes: Options,
        (connections, watches): (usize, u64),
        (writers, keys, span): (usize, u64, u64),
    ) -> Plan {
        let workload = match kind {
            Kind::Registry => Workload::Registry,
            _ => Workload::Put,
        };
        let first = fresh_lease_id();
        let prefix = format!("w{first:x}/");
        let leases = Leases {
            first,
            count: if kind == Kind::Registry { keys } else { 0 },
            ttl: 600,
            until: None,
        };
        let key_size = (prefix.len() + shortest_key(keys)).max(24);
        let writes = Options {
            workload,
            connections: writers,
            keys,
            range_keys: span,
            key_size,
            prefix,
            stamped: true,
            leases,
            preload: workload.leases(),
            ..writes
        };
        Plan {
            writes,
            connections,
            watches,
            points: matches!(kind, Kind::FanOut | Kind::Idle),
        }
    }

    fn with(mut self, warmup: Duration, ttl: i64) -> Plan {
        self.writes.warmup = warmup;
        self.writes.leases.ttl = ttl;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn plan(kind: Kind, text: &str) -> Result<Plan, String> {
        let args: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        let flags = match kind {
            Kind::Registry => REGISTRY_FLAGS,
            _ => WATCH_FLAGS,
        };
        Plan::from_args(kind, &parse(flags, &args)?)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let fan = plan(Kind::FanOut, "").unwrap();
        assert_eq!((fan.total(), fan.writes.keys), (10_000, 1));
        assert_eq!((fan.writes.connections, fan.writes.in_flight), (1, 1));
        assert_eq!(
            (fan.writes.stop, fan.writes.rate),
            (Stop::Total(1000), None)
        );
        let latency = plan(Kind::Latency, "").unwrap();
        assert_eq!((latency.total(), latency.writes.keys), (1000, 1000));
        assert_eq!(latency.writes.rate, Some(10_000.0));
        let registry = plan(Kind::Registry, "--services 5 --instances 3").unwrap();
        assert_eq!((registry.writes.keys, registry.layout().span), (15, 3));
        assert_eq!(registry.writes.leases.count, 15);
        assert!(registry.writes.preload && !fan.writes.preload);
    }

    #[test]
    fn no_two_runs_share_keys_or_leases() {
        let one = plan(Kind::Registry, "").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let two = plan(Kind::Registry, "").unwrap();
        assert_ne!(one.writes.prefix, two.writes.prefix);
        let apart = two.writes.leases.first - one.writes.leases.first;
        assert!(apart >= one.writes.leases.count as i64, "{apart}");
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |kind, text: &str| plan(kind, text).unwrap_err();
        assert!(refused(Kind::FanOut, "--duration 3s").contains("other load"));
        assert!(refused(Kind::Latency, "--total 3").contains("other load"));
        assert!(refused(Kind::FanOut, "--value-size 7").contains("between 8"));
        assert!(refused(Kind::Latency, "--duration 0").contains("longer than nothing"));
        assert!(refused(Kind::FanOut, "--target redis").contains("quoin, etcd"));
    }
}
