//! Durations as Go writes them: `300ms`, `1.5s`, `1h30m`.

#![forbid(unsafe_code)]

use super::FlagError;
use std::time::Duration;

/// Reads a duration; negative ones and ones of more than a century are refused.
pub fn duration(name: &str, value: &str) -> Result<Duration, FlagError> {
    read(value).ok_or_else(|| {
        FlagError(format!(
            "--{name} takes a duration such as 300ms, 5s or 1h30m, not '{value}'"
        ))
    })
}

fn read(value: &str) -> Option<Duration> {
    if value == "0" {
        return Some(Duration::ZERO);
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
    let century = 100.0 * 366.0 * 24.0 * 3600e9;
    (!value.is_empty() && nanos <= century).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::{duration, read};
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
        ] {
            assert_eq!(read(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "5x",
            "1e9s",
            "1.2.3s",
            "99999999h",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let refusal = duration("flag", "5").unwrap_err();
        assert!(refusal.0.contains("--flag") && refusal.0.contains("5s"));
    }
}
