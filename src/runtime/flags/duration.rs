//! Durations as Go writes them: `300ms`, `1.5s`, `1h30m`.

#![forbid(unsafe_code)]

use super::FlagError;
use std::time::Duration;

/// Reads a duration; one below 0, as etcd takes it, is none.
pub(super) fn duration(name: &str, value: &str) -> Result<Duration, FlagError> {
    let nanos = nanos(value).ok_or_else(|| {
        FlagError(format!(
            "--{name} takes a duration such as 300ms, 5s or 1h30m, not '{value}'"
        ))
    })?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// Reads a duration of up to 292 years, either way, which is what Go's type holds.
pub(super) fn nanos(value: &str) -> Option<i64> {
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    let nanos = unsigned_nanos(unsigned)?;
    let sign = if value.starts_with('-') { -1 } else { 1 };
    Some(sign * nanos)
}

fn unsigned_nanos(value: &str) -> Option<i64> {
    if value == "0" {
        return Some(0);
    }
    let (mut rest, mut nanos) = (value, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        nanos += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = tail;
    }
    (!value.is_empty() && nanos < i64::MAX as f64).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::{duration, nanos};
    use std::time::Duration;

    #[test]
    fn go_durations_are_read_and_others_refused() {
        for (text, ms) in [
            ("0", 0),
            ("300ms", 300),
            ("5s", 5_000),
            ("1.5s", 1_500),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1000us", 1),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("+5s", 5_000),
            ("-5s", -5_000),
            ("-0", 0),
        ] {
            assert_eq!(nanos(text), Some(ms * 1_000_000), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "+-5s",
            "-",
            "5 s",
            "5x",
            "1e9s",
            "1.2.3s",
            "99999999h",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
        assert_eq!(duration("flag", "-5s"), Ok(Duration::ZERO));
        let refusal = duration("flag", "5").unwrap_err();
        assert!(refusal.0.contains("--flag") && refusal.0.contains("5s"));
    }
}
