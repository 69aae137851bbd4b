//! The flags by name: those served, and those of etcd that are known and refused.

#![forbid(unsafe_code)]

use super::FlagError;

/// The flags served, with the text of their help.
const SERVED: &[(&str, &str, &str)] = &[
    ("name", "default", "this member's name"),
    ("data-dir", "${name}.etcd", "the data directory"),
    (
        "listen-client-urls",
        "http://localhost:2379",
        "where clients connect, separated by commas",
    ),
    (
        "advertise-client-urls",
        "as listened",
        "what clients are told to connect to",
    ),
    (
        "listen-peer-urls",
        "http://localhost:2380",
        "where peers connect (not opened: a cluster has one member yet)",
    ),
    (
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "what peers are told; the member id follows from it",
    ),
    (
        "initial-cluster",
        "${name}=${initial-advertise-peer-urls}",
        "the members to start with",
    ),
    ("initial-cluster-state", "new", "only 'new' is served yet"),
    (
        "initial-cluster-token",
        "etcd-cluster",
        "tells clusters with the same URLs apart",
    ),
    (
        "auto-compaction-mode",
        "periodic",
        "what --auto-compaction-retention counts: periodic (time) or revision",
    ),
    (
        "auto-compaction-retention",
        "0",
        "how much history to keep: hours or a duration such as 30m, or revisions; 0: all",
    ),
    (
        "quota-backend-bytes",
        "0",
        "size at which writes are refused; 0 is 2 GiB, negative is no bound",
    ),
    ("max-request-bytes", "1572864", "the largest request"),
    ("max-txn-ops", "128", "operations in one transaction"),
    (
        "snapshot-count",
        "none",
        "log entries between checkpoints, at most; bytes and time set them otherwise",
    ),
    (
        "heartbeat-interval",
        "100",
        "one Raft tick, in milliseconds",
    ),
    (
        "watch-progress-notify-interval",
        "10m",
        "how often a quiet watch that asked for it is told its progress",
    ),
    (
        "election-timeout",
        "1000",
        "election time-out, in milliseconds",
    ),
    ("log-level", "info", "debug, info, warn or error"),
    ("cores", "all", "cores to run on, for example 0-3,5"),
    (
        "fronts",
        "by cores",
        "executors that serve clients; 0 is one executor for everything",
    ),
    ("version", "", "print the version"),
    ("help", "", "print this"),
];

/// Flags of etcd that promise protection. Accepting one without keeping its promise would leave
/// data open that its owner believes closed.
const PROTECTION: &[&str] = &[
    "auth-token",
    "auth-token-ttl",
    "auto-tls",
    "bcrypt-cost",
    "cert-file",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-cert-auth",
    "client-cert-file",
    "client-crl-file",
    "client-key-file",
    "corrupt-check-time",
    "cors",
    "host-whitelist",
    "key-file",
    "memory-mlock",
    "peer-auto-tls",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-key-file",
    "peer-skip-client-san-verification",
    "peer-trusted-ca-file",
    "self-signed-cert-validity",
    "tls-max-version",
    "tls-min-version",
    "trusted-ca-file",
];

/// What a flag takes: a boolean one stands alone, or has its value behind `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, behind `=` or as the next argument.
    Value,
    /// None, or one behind `=`.
    Switch,
}

/// Flags of etcd that ask for nothing here: they tune its storage engine, its peers or its logger,
/// of which quoin has none or others. They are taken, and the log names them once.
const MOOT: &[(&str, Takes)] = &[
    ("backend-batch-interval", Takes::Value),
    ("backend-batch-limit", Takes::Value),
    ("backend-bbolt-freelist-type", Takes::Value),
    ("bootstrap-defrag-threshold-megabytes", Takes::Value),
    ("compaction-batch-limit", Takes::Value),
    ("compaction-sleep-interval", Takes::Value),
    ("downgrade-check-time", Takes::Value),
    ("initial-election-tick-advance", Takes::Switch),
    ("logger", Takes::Value),
    ("max-learners", Takes::Value),
    ("max-snapshots", Takes::Value),
    ("max-wals", Takes::Value),
    ("pre-vote", Takes::Switch),
    ("raft-read-timeout", Takes::Value),
    ("raft-write-timeout", Takes::Value),
    ("snapshot-catchup-entries", Takes::Value),
    ("strict-reconfig-check", Takes::Switch),
];

/// What a flag takes that asks for nothing here; `None` for any other.
pub(super) fn moot(name: &str) -> Option<Takes> {
    let found = MOOT.iter().find(|(moot, _)| *moot == name);
    found.map(|(_, takes)| *takes)
}

/// The names of the flags that are served and take a value.
pub(super) fn served() -> impl Iterator<Item = &'static str> {
    let values = SERVED.iter().filter(|(_, default, _)| !default.is_empty());
    values.map(|(name, ..)| *name)
}

/// Other flags of etcd that are known and not served yet.
const NOT_SERVED: &[&str] = &[
    "compact-hash-check-time",
    "config-file",
    "discovery-endpoints",
    "discovery-srv",
    "discovery-srv-name",
    "discovery-token",
    "enable-distributed-tracing",
    "enable-grpc-gateway",
    "enable-log-rotation",
    "enable-pprof",
    "feature-gates",
    "force-new-cluster",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "listen-client-http-urls",
    "listen-metrics-urls",
    "log-format",
    "log-outputs",
    "log-rotation-config-json",
    "max-concurrent-streams",
    "metrics",
    "socket-reuse-address",
    "socket-reuse-port",
    "unsafe-no-fsync",
    "wal-dir",
    "warning-apply-duration",
    "warning-unary-request-duration",
];

/// The help text.
pub fn help() -> String {
    let mut text = String::from(
        "quoin: a strongly consistent, replicated key-value store\n\n\
         Usage: quoin [flags]\n\n\
         Without flags it keeps its data in default.etcd and listens on \
         http://localhost:2379.\n\n",
    );
    for (name, default, what) in SERVED {
        let flag = if default.is_empty() {
            format!("--{name}")
        } else {
            format!("--{name} '{default}'")
        };
        text.push_str(&format!("  {flag}\n      {what}\n"));
    }
    text.push_str("\nStart-up errors and their remedies: docs/OPERATIONS.md\n");
    text
}

/// Refuses what is not served, with the nearest name that is.
pub(super) fn check(name: &str) -> Result<(), FlagError> {
    if SERVED.iter().any(|(served, ..)| *served == name) {
        return Ok(());
    }
    if PROTECTION.contains(&name) {
        return Err(FlagError(format!(
            "--{name} asks for protection that this version does not give; it refuses to start \
             rather than run without it"
        )));
    }
    if NOT_SERVED.contains(&name) {
        return Err(FlagError(format!(
            "--{name} is a flag of etcd that this version does not serve"
        )));
    }
    let nearest = SERVED
        .iter()
        .map(|(served, ..)| (edit_distance(name, served), *served))
        .min();
    match nearest {
        Some((distance, served)) if distance <= name.len().max(3) / 3 => Err(FlagError(format!(
            "unknown flag --{name}; did you mean --{served}?"
        ))),
        _ => Err(FlagError(format!(
            "unknown flag --{name}; quoin --help lists the flags"
        ))),
    }
}

/// Levenshtein's distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
