//! `--auto-compaction-mode` and `--auto-compaction-retention`, with etcd's meanings.

#![forbid(unsafe_code)]

use super::{FlagError, duration};
use crate::node::order::AutoCompaction;

const SECOND: i64 = 1_000_000_000;

/// The shortest retention: more often would be compacting all the time.
const RETENTION_MIN_NS: i64 = SECOND;

/// What the two flags ask for together, and what the log should tell of it.
pub(super) fn auto_compaction(
    mode: &str,
    retention: &str,
) -> Result<(AutoCompaction, Option<String>), FlagError> {
    let refuse = |text: String| Err(FlagError(text));
    // As in etcd, a bare number is one of hours or of revisions, and a duration is one in either
    // mode: as a number of revisions its nanoseconds count.
    let bare = retention.parse::<i64>().ok().filter(|number| *number >= 0);
    let Some(number) = bare.or_else(|| duration::nanos(retention)) else {
        return refuse(format!(
            "--auto-compaction-retention: '{retention}' is neither a number of hours (with \
             --auto-compaction-mode revision: of revisions) nor a duration such as 30m or 1h30m"
        ));
    };
    if number < 0 {
        return refuse(format!(
            "--auto-compaction-retention: '{retention}' is below 0"
        ));
    }
    match mode {
        "revision" | "periodic" if number == 0 => Ok((AutoCompaction::Off, None)),
        "revision" => {
            let told = bare.is_none().then(|| {
                format!(
                    "--auto-compaction-retention: {retention} is no number of revisions; as in \
                     etcd {number} are kept"
                )
            });
            Ok((AutoCompaction::Revision(number), told))
        }
        "periodic" => {
            let ns = match bare {
                // What no clock reaches is never compacted.
                Some(hours) => hours.saturating_mul(3600 * SECOND),
                None => number,
            };
            let told = (ns < RETENTION_MIN_NS).then(|| {
                format!("--auto-compaction-retention: {retention} is raised to a second, the least")
            });
            let ns = ns.max(RETENTION_MIN_NS).unsigned_abs();
            Ok((AutoCompaction::Periodic(ns), told))
        }
        _ => refuse(format!(
            "--auto-compaction-mode is 'periodic' or 'revision', not '{mode}'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_are_read_as_etcd_reads_them() {
        let read = |mode, retention| Some(auto_compaction(mode, retention).ok()?.0);
        let second = SECOND.unsigned_abs();
        let hours = |n: u64| Some(AutoCompaction::Periodic(n * 3600 * second));
        assert_eq!(read("periodic", "0"), Some(AutoCompaction::Off));
        assert_eq!(read("revision", "0"), Some(AutoCompaction::Off));
        assert_eq!(read("periodic", "5"), hours(5));
        assert_eq!(read("periodic", "5h"), hours(5));
        assert_eq!(read("periodic", "60m3600s"), hours(2));
        let short = AutoCompaction::Periodic(1500 * second / 1000);
        assert_eq!(read("periodic", "1s500ms"), Some(short));
        let half_more = AutoCompaction::Periodic(5400 * second);
        assert_eq!(read("periodic", "1.5h"), Some(half_more));
        let least = Some(AutoCompaction::Periodic(second));
        assert_eq!(read("periodic", "100ms"), least);
        let most = Some(AutoCompaction::Periodic(i64::MAX.unsigned_abs()));
        assert_eq!(read("periodic", "9999999999"), most);
        assert_eq!(
            read("revision", "1000"),
            Some(AutoCompaction::Revision(1000))
        );
        let of_an_hour = Some(AutoCompaction::Revision(3600 * SECOND));
        assert_eq!(read("revision", "1h"), of_an_hour);
        for (mode, retention, is_told) in [
            ("periodic", "1h", false),
            ("periodic", "100ms", true),
            ("revision", "5", false),
            ("revision", "1h", true),
        ] {
            let (_, told) = auto_compaction(mode, retention).unwrap();
            assert_eq!(told.is_some(), is_told, "{mode} {retention}");
        }
        for (mode, retention) in [
            ("periodic", ""),
            ("periodic", "-1"),
            ("periodic", "h"),
            ("periodic", "5x"),
            ("periodic", "5h3"),
            ("periodic", "1.5"),
            ("periodic", "-1h"),
            ("periodic", "99999999999999999999h"),
            ("revision", "-1"),
            ("sometimes", "1"),
        ] {
            let refused = auto_compaction(mode, retention);
            assert!(refused.is_err(), "{mode} {retention}");
        }
    }
}
