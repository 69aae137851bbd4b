//! The mathematics of a comparison, and how it is printed.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::report::{digits, grouped};

/// What the numbers of a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests per second: more is better.
    Rate,
    /// Microseconds: less is better.
    Micros,
    /// Seconds: less is better.
    Seconds,
    /// Bytes: less is better.
    Bytes,
    /// Bytes of one of many: less is better.
    Each,
}

impl Unit {
    fn less_is_better(self) -> bool {
        self != Unit::Rate
    }

    fn text(self, value: f64) -> String {
        match self {
            Unit::Rate => format!("{}/s", grouped(value)),
            Unit::Micros => crate::report::time((value * 1000.0) as u64),
            Unit::Seconds => format!("{} s", digits(value)),
            Unit::Bytes => format!("{} MiB", digits(value / f64::from(1 << 20))),
            Unit::Each => format!("{} B", digits(value)),
        }
    }
}

/// One line of the comparison.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Whom or what we are held against.
    pub peer: String,
    /// What the numbers count.
    pub unit: Unit,
    /// The ratio to reach, if there is one.
    pub bar: Option<f64>,
    /// Ours and theirs, round by round.
    pub rounds: Vec<(f64, f64)>,
    /// Why the row does not count, if it does not: a missing peer, too few flushes.
    pub invalid: Option<String>,
    /// With what the peer was driven.
    pub note: String,
}

/// Median, smallest, largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle value; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

/// The spread of the values; `None` if there are none.
pub fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    };
    Some(Spread { median, min, max })
}

impl Row {
    /// A row without figures yet.
    pub fn new(name: &str, peer: &str, unit: Unit, bar: Option<f64>) -> Row {
        Row {
            name: name.to_string(),
            peer: peer.to_string(),
            unit,
            bar,
            rounds: Vec::new(),
            invalid: None,
            note: String::new(),
        }
    }

    /// How many times better than the peer we are: each round's ratio, then their spread.
    ///
    /// Where less is better the ratio is theirs over ours, so that more is better throughout.
    pub fn ratio(&self) -> Option<Spread> {
        spread(
            self.rounds
                .iter()
                .map(|(ours, theirs)| match self.unit.less_is_better() {
                    true => theirs / ours,
                    false => ours / theirs,
                }),
        )
        .filter(|ratio| ratio.median.is_finite())
    }

    /// Whether the row's bar is reached; true without a bar.
    pub fn reached(&self) -> bool {
        match (self.bar, self.ratio()) {
            (None, _) => true,
            (Some(_), _) if self.invalid.is_some() => false,
            (Some(bar), Some(ratio)) => ratio.median >= bar,
            (Some(_), None) => false,
        }
    }

    /// The row as a JSON object.
    pub fn as_json(&self) -> Value {
        let ours = spread(self.rounds.iter().map(|round| round.0));
        let theirs = spread(self.rounds.iter().map(|round| round.1));
        let ratio = self.ratio();
        json!({
            "row": self.name,
            "peer": self.peer,
            "unit": match self.unit {
                Unit::Rate => "per_second",
                Unit::Micros => "us",
                Unit::Seconds => "s",
                Unit::Bytes | Unit::Each => "bytes",
            },
            "ours": ours.map(|ours| ours.median),
            "theirs": theirs.map(|theirs| theirs.median),
            "ratio": ratio.map(|ratio| ratio.median),
            "ratio_min": ratio.map(|ratio| ratio.min),
            "ratio_max": ratio.map(|ratio| ratio.max),
            "bar": self.bar,
            "reached": self.reached(),
            "rounds": self.rounds.len(),
            "invalid": self.invalid,
            "note": self.note,
        })
    }
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<20} {:<16} {:>12} {:>12} {:>8} {:>17} {:>6}",
        "row", "peer", "ours", "theirs", "ratio", "spread", "bar"
    );
    for row in rows {
        let middle = |side: fn(&(f64, f64)) -> f64| {
            let value = spread(row.rounds.iter().map(side));
            value.map_or("-".to_string(), |value| row.unit.text(value.median))
        };
        let (ratio, range) = match row.ratio() {
            Some(ratio) => (
                format!("{}x", digits(ratio.median)),
                format!("{} to {}", digits(ratio.min), digits(ratio.max)),
            ),
            None => ("-".into(), "-".into()),
        };
        let bar = row.bar.map_or("-".to_string(), digits);
        let verdict = match (&row.invalid, row.bar) {
            (Some(why), _) => format!("INVALID: {why}"),
            (None, None) => String::new(),
            (None, Some(_)) if row.reached() => "reached".to_string(),
            (None, Some(_)) => "MISSED".to_string(),
        };
        let line = format!(
            "{:<20} {:<16} {:>12} {:>12} {:>8} {:>17} {:>6}  {verdict}",
            row.name,
            row.peer,
            middle(|round| round.0),
            middle(|round| round.1),
            ratio,
            range,
            bar
        );
        let _ = writeln!(text, "{}", line.trim_end());
        if !row.note.is_empty() {
            let _ = writeln!(text, "    {}", row.note);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, bar: Option<f64>, rounds: &[(f64, f64)]) -> Row {
        let mut row = Row::new("put", "etcd", unit, bar);
        row.rounds = rounds.to_vec();
        row
    }

    #[test]
    fn the_median_of_the_ratios_decides() {
        let rate = row(
            Unit::Rate,
            Some(3.0),
            &[(30.0, 10.0), (10.0, 10.0), (90.0, 10.0)],
        );
        let expected = Spread {
            median: 3.0,
            min: 1.0,
            max: 9.0,
        };
        assert_eq!(rate.ratio(), Some(expected));
        assert!(rate.reached());
        // The ratio of the medians would be another number: 40/20 against ratios 4, 0.5, 2.
        let crossed = row(
            Unit::Rate,
            None,
            &[(40.0, 10.0), (10.0, 20.0), (80.0, 40.0)],
        );
        assert_eq!(crossed.ratio().unwrap().median, 2.0);
    }

    #[test]
    fn less_is_better_for_times() {
        let p99 = row(Unit::Micros, Some(3.0), &[(100.0, 300.0), (100.0, 290.0)]);
        assert_eq!(p99.ratio().unwrap().median, 2.95);
        assert!(!p99.reached());
    }

    #[test]
    fn an_even_number_takes_the_mean_of_the_middle_two() {
        let found = spread([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(
            found,
            Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            }
        );
        assert_eq!(spread(std::iter::empty()), None);
    }

    #[test]
    fn rows_without_figures_miss_their_bars_and_say_so() {
        let mut missing = row(Unit::Rate, Some(3.0), &[]);
        missing.invalid = Some("etcd is missing".into());
        assert!(!missing.reached());
        assert!(table(&[missing.clone()]).contains("INVALID: etcd is missing"));
        assert!(missing.as_json()["ratio"].is_null());
        let mut lazy = row(Unit::Rate, Some(3.0), &[(90.0, 10.0)]);
        lazy.invalid = Some("too few flushes".into());
        assert!(!lazy.reached());
        assert!(row(Unit::Rate, None, &[]).reached());
        // A peer that did nothing gives no ratio, not an infinite one.
        assert!(!row(Unit::Rate, Some(3.0), &[(90.0, 0.0)]).reached());
    }

    #[test]
    fn the_json_has_the_agreed_fields() {
        let value = row(Unit::Rate, Some(3.0), &[(30.0, 10.0)]).as_json();
        for field in [
            "row",
            "peer",
            "ours",
            "theirs",
            "ratio",
            "ratio_min",
            "ratio_max",
            "bar",
        ] {
            assert!(!value[field].is_null(), "{field}");
        }
        let line = value.to_string();
        assert!(!line.contains('\n'));
    }
}
