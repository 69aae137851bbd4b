//! `--auto-compaction-mode` and `--auto-compaction-retention`, with etcd's meanings.

#![forbid(unsafe_code)]

use super::FlagError;
use crate::node::order::AutoCompaction;

const SECOND: u64 = 1_000_000_000;

/// The shortest retention: more often would be compacting all the time.
const RETENTION_MIN_NS: u64 = SECOND;

/// What the two flags ask for together.
pub(super) fn auto_compaction(mode: &str, retention: &str) -> Result<AutoCompaction, FlagError> {
    let refuse = |text: String| Err(FlagError(text));
    match mode {
        "revision" => match retention.parse::<i64>() {
            Ok(0) => Ok(AutoCompaction::Off),
            Ok(keep) if keep > 0 => Ok(AutoCompaction::Revision(keep)),
            _ => refuse(format!(
                "--auto-compaction-retention: '{retention}' is no number of revisions"
            )),
        },
        "periodic" => {
            let hours = retention.parse::<u64>().ok();
            let ns = match hours {
                Some(hours) => hours.checked_mul(3600 * SECOND),
                None => duration_ns(retention),
            };
            match ns {
                Some(0) => Ok(AutoCompaction::Off),
                Some(ns) if ns >= RETENTION_MIN_NS => Ok(AutoCompaction::Periodic(ns)),
                Some(_) => refuse(format!(
                    "--auto-compaction-retention: '{retention}' is shorter than a second"
                )),
                None => refuse(format!(
                    "--auto-compaction-retention: '{retention}' is neither a number of hours nor a \
                     duration such as 30m or 1h30m"
                )),
            }
        }
        _ => refuse(format!(
            "--auto-compaction-mode is 'periodic' or 'revision', not '{mode}'"
        )),
    }
}

/// A duration as Go writes it: numbers with units (h, m, s, ms), largest first or not. Parts of
/// units are not known here: `1.5h` is `1h30m`.
fn duration_ns(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.len()
            - behind
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => SECOND / 1000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_are_read_as_etcd_reads_them() {
        let read = |mode, retention| auto_compaction(mode, retention).ok();
        let hours = |n: u64| Some(AutoCompaction::Periodic(n * 3600 * SECOND));
        assert_eq!(read("periodic", "0"), Some(AutoCompaction::Off));
        assert_eq!(read("revision", "0"), Some(AutoCompaction::Off));
        assert_eq!(read("periodic", "5"), hours(5));
        assert_eq!(read("periodic", "5h"), hours(5));
        assert_eq!(read("periodic", "60m3600s"), hours(2));
        let short = AutoCompaction::Periodic(1500 * SECOND / 1000);
        assert_eq!(read("periodic", "1s500ms"), Some(short));
        assert_eq!(
            read("revision", "1000"),
            Some(AutoCompaction::Revision(1000))
        );
        for (mode, retention) in [
            ("periodic", ""),
            ("periodic", "-1"),
            ("periodic", "h"),
            ("periodic", "5x"),
            ("periodic", "5h3"),
            ("periodic", "999ms"),
            ("periodic", "99999999999999999999h"),
            ("periodic", "9999999999"),
            ("revision", "1h"),
            ("revision", "-1"),
            ("sometimes", "1"),
        ] {
            assert_eq!(read(mode, retention), None, "{mode} {retention}");
        }
    }
}
