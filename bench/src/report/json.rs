//! The result for other programs.

#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};

use super::Outcome;

/// The result as one JSON object. Times are in microseconds, rates per second.
pub fn render(outcome: &Outcome) -> Value {
    let us = |ns: u64| ns as f64 / 1000.0;
    let settings: Map<String, Value> = outcome
        .settings
        .iter()
        .map(|(name, value)| (name.replace([' ', '-'], "_"), json!(value)))
        .collect();
    let mut latency: Map<String, Value> = outcome
        .percentiles
        .iter()
        .map(|(percentile, latency)| {
            let name = match *percentile {
                100.0 => "max".to_string(),
                other => format!("p{other}"),
            };
            (name, json!(us(*latency)))
        })
        .collect();
    latency.insert("mean".into(), json!(outcome.mean / 1000.0));
    let errors: Map<String, Value> = outcome
        .errors
        .iter()
        .map(|(failure, count)| (failure.clone(), json!(count)))
        .collect();
    let intervals: Vec<Value> = outcome
        .intervals
        .iter()
        .map(|one| {
            json!({
                "at": one.at, "rate": one.rate, "p50": us(one.p50), "p99": us(one.p99),
                "errors": one.errors,
            })
        })
        .collect();
    let beside: Map<String, Value> = outcome
        .beside
        .iter()
        .map(|(name, value)| (name.replace(' ', "_"), json!(value)))
        .collect();
    json!({
        "settings": settings,
        "counted": outcome.noun,
        "beside": beside,
        "started": outcome.started(),
        "seconds": outcome.seconds,
        "good": outcome.good,
        "throughput": outcome.throughput,
        "rate": outcome.rate,
        "requests": outcome.requests,
        "latency_us": latency,
        "failed": outcome.failed(),
        "errors": errors,
        "unsent": outcome.unsent,
        "intervals": intervals,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_json_is_well_formed_and_complete() {
        let text = super::render(&super::super::tests::sample()).to_string();
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["throughput"], 2000.0);
        assert_eq!(back["failed"], 4);
        assert_eq!(back["counted"], "requests");
        assert_eq!(back["beside"]["writes"], "17 <of> them");
        assert_eq!(back["errors"]["key \"a\" <not> found"], 1);
        assert_eq!(back["settings"]["target"], "<b>&\"quoin\"");
        assert!(back["latency_us"]["p99.9"].as_f64().unwrap() > 9_900.0);
        assert_eq!(back["intervals"].as_array().unwrap().len(), 50);
    }
}
