//! What came out of a run, and how it is shown: a table, JSON, a page.

#![forbid(unsafe_code)]

pub mod table;

pub mod json;

pub mod html;

pub mod chart;

use std::time::SystemTime;

use crate::keys::Distribution;
use crate::options::{Options, Stop};
use crate::record::{Interval, Totals};

/// The percentiles that every report shows.
pub const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// The result of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run: names and values, in the order they are shown.
    pub settings: Vec<(&'static str, String)>,
    /// What is counted: requests, or events.
    pub noun: &'static str,
    /// Other figures of the run: names and values.
    pub beside: Vec<(&'static str, String)>,
    /// When it began; the times of `trace` count from here.
    pub began: SystemTime,
    /// When each answer came and how long it took, in nanoseconds, if that was asked for.
    pub trace: Vec<(u64, u64)>,
    /// The measured time in seconds.
    pub seconds: f64,
    /// Good answers in the measured time.
    pub good: u64,
    /// Good answers per second.
    pub throughput: f64,
    /// The rate asked for, of an open loop.
    pub rate: Option<f64>,
    /// Requests in the latency figures.
    pub requests: u64,
    /// Percentile and latency in nanoseconds, for [`PERCENTILES`].
    pub percentiles: Vec<(f64, u64)>,
    /// The mean latency in nanoseconds.
    pub mean: f64,
    /// The whole curve: percentile and latency, from the histogram's own steps.
    pub curve: Vec<(f64, u64)>,
    /// Failed requests by type.
    pub errors: Vec<(String, u64)>,
    /// Open loop: requests that were due but never sent.
    pub unsent: u64,
    /// The run interval by interval.
    pub intervals: Vec<Interval>,
}

impl Outcome {
    /// The outcome of a run of `options` that measured for so many nanoseconds.
    pub fn new(
        options: &Options,
        totals: &mut Totals,
        measured_ns: u64,
        began: SystemTime,
    ) -> Outcome {
        let seconds = measured_ns as f64 / 1e9;
        let latencies = &totals.latencies;
        let at = |percentile: f64| match latencies.is_empty() {
            true => 0,
            false => latencies
                .value_at_percentile(percentile)
                .min(latencies.max()),
        };
        let curve = match latencies.is_empty() {
            true => Vec::new(),
            false => latencies
                .iter_quantiles(4)
                .map(|step| {
                    (
                        step.percentile(),
                        step.value_iterated_to().min(latencies.max()),
                    )
                })
                .collect(),
        };
        Outcome {
            settings: settings(options),
            noun: "requests",
            beside: Vec::new(),
            began,
            trace: std::mem::take(&mut totals.trace),
            seconds,
            good: totals.good,
            throughput: if seconds > 0.0 {
                totals.good as f64 / seconds
            } else {
                0.0
            },
            rate: options.rate,
            requests: latencies.len(),
            percentiles: PERCENTILES
                .map(|percentile| (percentile, at(percentile)))
                .to_vec(),
            mean: latencies.mean(),
            curve,
            errors: totals
                .errors
                .iter()
                .map(|(failure, count)| (failure.to_string(), *count))
                .collect(),
            unsent: totals.unsent,
            intervals: totals.intervals(measured_ns),
        }
    }

    /// When it began, in seconds since 1970.
    pub fn started(&self) -> u64 {
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    /// Failed requests, all types together.
    pub fn failed(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum()
    }

    /// The latency at one of [`PERCENTILES`], in nanoseconds.
    pub fn percentile(&self, percentile: f64) -> u64 {
        let found = self
            .percentiles
            .iter()
            .find(|(kept, _)| *kept == percentile);
        found.map_or(0, |(_, latency)| *latency)
    }
}

fn settings(options: &Options) -> Vec<(&'static str, String)> {
    let endpoints: Vec<String> = options.endpoints.iter().map(ToString::to_string).collect();
    let mut list = vec![
        ("workload", options.workload.name().to_string()),
        ("target", options.target.name().to_string()),
        ("endpoints", endpoints.join(",")),
        ("connections", options.connections.to_string()),
        ("in flight", options.in_flight.to_string()),
        (
            "loop",
            match options.rate {
                Some(rate) => format!("open, {rate} requests/s"),
                None => "closed".to_string(),
            },
        ),
        ("keys", options.keys.to_string()),
        (
            "distribution",
            match options.distribution {
                Distribution::Uniform => "uniform",
                Distribution::Zipfian => "zipfian",
                Distribution::Sequential => "sequential",
            }
            .to_string(),
        ),
        ("key size", options.key_size.to_string()),
        ("value size", options.value_size.to_string()),
        ("threads", options.threads.to_string()),
        ("warm-up", format!("{} s", options.warmup.as_secs_f64())),
        (
            "stop",
            match options.stop {
                Stop::After(duration) => format!("after {} s", duration.as_secs_f64()),
                Stop::Total(total) => format!("after {total} requests"),
            },
        ),
    ];
    match options.workload {
        crate::options::Workload::Put => {}
        crate::options::Workload::Range => {
            list.push(("keys per range", options.range_keys.to_string()));
        }
        crate::options::Workload::Mixed { reads } => {
            list.push(("share of reads", format!("{:.1} %", reads * 100.0)));
        }
        workload if workload.leases() => {
            list.push(("leases", options.leases.count.to_string()));
            list.push(("seconds to live", options.leases.ttl.to_string()));
        }
        _ => {}
    }
    if !matches!(
        options.workload,
        crate::options::Workload::Put | crate::options::Workload::KeepAlive
    ) {
        let consistency = if options.serializable {
            "serializable"
        } else {
            "linearizable"
        };
        list.push(("consistency", consistency.to_string()));
    }
    list
}

/// A latency for reading: three digits and a unit.
pub fn time(nanoseconds: u64) -> String {
    let ns = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0..1_000 => (ns, "ns"),
        1_000..1_000_000 => (ns / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// A number with three significant digits, more if it has more before the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count with its thousands set apart.
pub fn grouped(value: f64) -> String {
    let text = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An outcome with every field filled, for the tests of the reports.
    pub fn sample() -> Outcome {
        let mut histogram = crate::record::histogram();
        (1..=10_000u64).for_each(|i| histogram.saturating_record(i * 1000));
        Outcome {
            settings: vec![
                ("workload", "put".into()),
                ("target", "<b>&\"quoin\"".into()),
            ],
            noun: "requests",
            beside: vec![("writes", "17 <of> them".into())],
            began: SystemTime::UNIX_EPOCH,
            trace: Vec::new(),
            seconds: 5.0,
            good: 10_000,
            throughput: 2000.0,
            rate: Some(2500.0),
            requests: 10_000,
            percentiles: PERCENTILES
                .map(|p| (p, histogram.value_at_percentile(p)))
                .to_vec(),
            mean: histogram.mean(),
            curve: histogram
                .iter_quantiles(4)
                .map(|step| (step.percentile(), step.value_iterated_to()))
                .collect(),
            errors: vec![("timed out".into(), 3), ("key \"a\" <not> found".into(), 1)],
            unsent: 12,
            intervals: (0..50)
                .map(|i| Interval {
                    at: f64::from(i) / 10.0,
                    rate: 2000.0 + f64::from(i % 7) * 10.0,
                    p50: 5_000_000,
                    p99: 9_900_000,
                    errors: 0,
                })
                .collect(),
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(time(950), "950 ns");
        assert_eq!(time(1_500), "1.50 us");
        assert_eq!(time(12_345_678), "12.3 ms");
        assert_eq!(time(3_000_000_000), "3.00 s");
        assert_eq!(grouped(1_234_567.0), "1 234 567");
        assert_eq!(grouped(12.4), "12");
        assert_eq!(digits(123.4), "123");
    }
}
