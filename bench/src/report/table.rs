//! The result for the terminal.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::{Outcome, grouped, time};

/// The result as lines of text.
pub fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    let setting = |name: &str| {
        outcome
            .settings
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    };
    let _ = writeln!(
        text,
        "{} on {} at {}: {} connections, each {} in flight, {} loop",
        setting("workload"),
        setting("target"),
        setting("endpoints"),
        setting("connections"),
        setting("in flight"),
        setting("loop"),
    );
    let _ = writeln!(
        text,
        "{} keys of {} bytes ({}), values of {} bytes\n",
        setting("keys"),
        setting("key size"),
        setting("distribution"),
        setting("value size"),
    );
    let _ = writeln!(
        text,
        "  throughput {:>12}/s   {} {} in {:.1} s",
        grouped(outcome.throughput),
        grouped(outcome.good as f64),
        outcome.noun,
        outcome.seconds
    );
    for (percentile, latency) in &outcome.percentiles {
        let name = match *percentile {
            100.0 => "max".to_string(),
            other => format!("p{other}"),
        };
        let _ = writeln!(text, "  {name:<10} {:>12}", time(*latency));
    }
    if outcome.unsent > 0 {
        let _ = writeln!(
            text,
            "  behind     {:>12}   requests were due but found no room; they count as waiting",
            grouped(outcome.unsent as f64)
        );
    }
    let _ = writeln!(
        text,
        "  failed     {:>12}",
        grouped(outcome.failed() as f64)
    );
    for (failure, count) in &outcome.errors {
        let _ = writeln!(text, "    {:>10}  {failure}", grouped(*count as f64));
    }
    for (name, value) in &outcome.beside {
        let _ = writeln!(text, "  {name:<10} {value:>12}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_names_every_figure() {
        let text = super::render(&super::super::tests::sample());
        for wanted in [
            "2 000/s",
            "p50 ",
            "p90 ",
            "p99 ",
            "p99.9 ",
            "p99.99 ",
            "max ",
            "failed",
            "timed out",
            "behind",
            "17 <of> them",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
    }
}
