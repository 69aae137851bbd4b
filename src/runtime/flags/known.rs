//! The flags by name: what each takes, and what becomes of it.

#![forbid(unsafe_code)]

use super::FlagError;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A text, behind `=` or as the next argument.
    Text,
    /// A list, separated by commas; in a configuration file it must be written as one.
    List,
    /// A whole number.
    Number,
    /// A duration; in a configuration file a bare number is one in nanoseconds.
    Duration,
    /// Nothing, or `true` or `false` behind `=`.
    Switch,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has etcd's meaning, or is quoin's own.
    Served,
    /// It asks for nothing here, and the text says why. The log names it once.
    Moot(&'static str),
    /// It asks for something that is not done, and the text says what; the server runs without it
    /// and warns.
    Unmet(&'static str),
    /// It promises something that the server must not run without: the text says what is missing.
    Refused(&'static str),
}

/// A flag: its name, what it takes, its default, what becomes of it, and its help.
#[derive(Debug)]
pub(super) struct Flag {
    pub name: &'static str,
    pub takes: Takes,
    pub default: &'static str,
    pub fate: Fate,
    pub help: &'static str,
}

const fn value(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        takes: Takes::Text,
        default,
        fate: Fate::Served,
        help,
    }
}

const fn number(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        takes: Takes::Number,
        ..value(name, default, help)
    }
}

const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        takes: Takes::Duration,
        ..value(name, default, help)
    }
}

const fn switch(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        takes: Takes::Switch,
        ..value(name, default, help)
    }
}

const fn other(name: &'static str, takes: Takes, default: &'static str, fate: Fate) -> Flag {
    Flag {
        takes,
        fate,
        ..value(name, default, "")
    }
}

const ENGINE: Fate = Fate::Moot("it tunes etcd's storage engine, which is not quoin's");
const PEERS: Fate = Fate::Moot("it concerns peers, and this cluster has one member");
const USERS: Fate = Fate::Moot("there are no users yet, so nobody has a password or a token");
const DISCOVERY: Fate =
    Fate::Refused("finds other members, and clusters of several are not served by this version");
const DISCOVERY_DETAIL: Fate = Fate::Moot("nothing is discovered");
const PROTECTION: Fate = Fate::Refused(
    "asks for protection that this version does not give; it refuses to start rather than run \
     without it",
);
const TRACING: Fate = Fate::Unmet("traces are not exported");

/// Every flag.
pub(super) const FLAGS: &[Flag] = &[
    value("name", "default", "this member's name"),
    value("data-dir", "${name}.etcd", "the data directory"),
    value(
        "wal-dir",
        "",
        "a directory of its own for the log, best on a disk of its own",
    ),
    value(
        "config-file",
        "",
        "a YAML or JSON file with flags as its keys; all other flags and variables are ignored",
    ),
    value(
        "listen-client-urls",
        "http://localhost:2379",
        "where clients connect, separated by commas",
    ),
    value(
        "listen-client-http-urls",
        "",
        "where HTTP/1.1 is served instead of on --listen-client-urls",
    ),
    value(
        "advertise-client-urls",
        "as listened",
        "what clients are told to connect to",
    ),
    value(
        "listen-peer-urls",
        "http://localhost:2380",
        "where peers connect (not opened: a cluster has one member yet)",
    ),
    value(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "what peers are told; the member id follows from it",
    ),
    value(
        "initial-cluster",
        "${name}=${initial-advertise-peer-urls}",
        "the members to start with: this one",
    ),
    value(
        "initial-cluster-state",
        "new",
        "'new', or 'existing' for a data directory that holds a member already",
    ),
    value(
        "initial-cluster-token",
        "etcd-cluster",
        "tells clusters with the same URLs apart",
    ),
    value(
        "auto-compaction-mode",
        "periodic",
        "what --auto-compaction-retention counts: periodic (time) or revision",
    ),
    value(
        "auto-compaction-retention",
        "0",
        "how much history to keep: hours or a duration such as 30m, or revisions; 0: all",
    ),
    number(
        "quota-backend-bytes",
        "0",
        "size at which writes are refused; 0 is 64 GiB, negative is no bound, the most is 512 GiB",
    ),
    number(
        "max-request-bytes",
        "1572864",
        "the largest request; more than 64 MiB are 64 MiB",
    ),
    number("max-txn-ops", "128", "operations in one transaction"),
    number(
        "max-concurrent-streams",
        "4096",
        "gRPC streams of one connection; 0, or more than 4096, is 4096",
    ),
    number(
        "snapshot-count",
        "none",
        "log entries between checkpoints, at most; with none, or 0, bytes and time set them",
    ),
    number(
        "heartbeat-interval",
        "100",
        "one Raft tick, in milliseconds",
    ),
    number(
        "election-timeout",
        "1000",
        "election time-out, in milliseconds",
    ),
    duration(
        "watch-progress-notify-interval",
        "10m",
        "how often a quiet watch that asked for it is told its progress; at least 100ms, 0 is 10m",
    ),
    switch(
        "enable-grpc-gateway",
        "true",
        "serve etcd's API as JSON under /v3/",
    ),
    value(
        "cors",
        "none",
        "sites whose pages may ask over HTTP/1.1, separated by commas; * is every site",
    ),
    value(
        "host-whitelist",
        "*",
        "names under which the server may be asked over HTTP/1.1, separated by commas",
    ),
    switch(
        "socket-reuse-port",
        "false",
        "share the ports with other processes (SO_REUSEPORT)",
    ),
    value(
        "feature-gates",
        "",
        "etcd's feature gates; what they switch is named in the log",
    ),
    value(
        "listen-metrics-urls",
        "",
        "where /metrics, /health, /livez and /readyz are served besides",
    ),
    value(
        "metrics",
        "basic",
        "basic, or extensive: with the times of gRPC's calls",
    ),
    duration(
        "warning-apply-duration",
        "100ms",
        "a turn of application that takes longer is named in the log",
    ),
    duration(
        "warning-unary-request-duration",
        "300ms",
        "a call that takes longer is named in the log",
    ),
    value("log-level", "info", "debug, info, warn, error or fatal"),
    value("log-format", "json", "json or console"),
    Flag {
        takes: Takes::List,
        ..value(
            "log-outputs",
            "default",
            "stderr, stdout or files, separated by commas",
        )
    },
    value("cores", "all", "cores to run on, for example 0-3,5"),
    value(
        "fronts",
        "by cores",
        "executors that serve clients; 0 is one executor for everything",
    ),
    switch("version", "", "print the version"),
    switch("help", "", "print this"),
    // What etcd has besides.
    other("backend-batch-interval", Takes::Duration, "", ENGINE),
    other("backend-batch-limit", Takes::Number, "0", ENGINE),
    other("backend-bbolt-freelist-type", Takes::Text, "map", ENGINE),
    other(
        "bootstrap-defrag-threshold-megabytes",
        Takes::Number,
        "0",
        ENGINE,
    ),
    other("compaction-batch-limit", Takes::Number, "1000", ENGINE),
    other("compaction-sleep-interval", Takes::Duration, "10ms", ENGINE),
    other("max-snapshots", Takes::Number, "5", ENGINE),
    other("max-wals", Takes::Number, "5", ENGINE),
    other("snapshot-catchup-entries", Takes::Number, "5000", ENGINE),
    other("v2-deprecation", Takes::Text, "write-only", ENGINE),
    other("corrupt-check-time", Takes::Duration, "0s", PEERS),
    other("compact-hash-check-time", Takes::Duration, "1m", PEERS),
    other("downgrade-check-time", Takes::Duration, "5s", PEERS),
    other(
        "initial-election-tick-advance",
        Takes::Switch,
        "true",
        PEERS,
    ),
    other("max-learners", Takes::Number, "1", PEERS),
    other("pre-vote", Takes::Switch, "true", PEERS),
    other("raft-read-timeout", Takes::Duration, "5s", PEERS),
    other("raft-write-timeout", Takes::Duration, "5s", PEERS),
    other("strict-reconfig-check", Takes::Switch, "true", PEERS),
    other("force-new-cluster", Takes::Switch, "false", PEERS),
    other(
        "socket-reuse-address",
        Takes::Switch,
        "false",
        Fate::Moot("a port of connections that are only being closed may always be used again"),
    ),
    other(
        "grpc-keepalive-min-time",
        Takes::Duration,
        "5s",
        Fate::Moot("a client may ask as often as it likes whether the server is there"),
    ),
    other(
        "grpc-keepalive-interval",
        Takes::Duration,
        "2h",
        Fate::Moot("TCP's keepalive finds clients that are gone, after two minutes"),
    ),
    other(
        "grpc-keepalive-timeout",
        Takes::Duration,
        "20s",
        Fate::Moot("TCP's keepalive finds clients that are gone, after two minutes"),
    ),
    other(
        "unsafe-no-fsync",
        Takes::Switch,
        "false",
        Fate::Moot("quoin syncs whatever it acknowledges"),
    ),
    other(
        "logger",
        Takes::Text,
        "zap",
        Fate::Moot("the lines have zap's form"),
    ),
    other(
        "memory-mlock",
        Takes::Switch,
        "false",
        Fate::Unmet("the system may drop pages of the store from memory"),
    ),
    other(
        "enable-pprof",
        Takes::Switch,
        "false",
        Fate::Unmet("there are no profiles under /debug; 'perf' shows them"),
    ),
    other(
        "enable-log-rotation",
        Takes::Switch,
        "false",
        Fate::Unmet("log files are not rotated; logrotate with copytruncate does it"),
    ),
    other(
        "log-rotation-config-json",
        Takes::Text,
        "",
        Fate::Moot("log files are not rotated by the server"),
    ),
    other(
        "enable-distributed-tracing",
        Takes::Switch,
        "false",
        TRACING,
    ),
    other(
        "distributed-tracing-address",
        Takes::Text,
        "localhost:4317",
        TRACING,
    ),
    other(
        "distributed-tracing-service-name",
        Takes::Text,
        "etcd",
        TRACING,
    ),
    other("distributed-tracing-instance-id", Takes::Text, "", TRACING),
    other(
        "distributed-tracing-sampling-rate",
        Takes::Number,
        "0",
        TRACING,
    ),
    other("auth-token", Takes::Text, "simple", PROTECTION),
    other("auth-token-ttl", Takes::Number, "300", USERS),
    other("bcrypt-cost", Takes::Number, "10", USERS),
    other("auto-tls", Takes::Switch, "false", PROTECTION),
    other("cert-file", Takes::Text, "", PROTECTION),
    other("key-file", Takes::Text, "", PROTECTION),
    other("client-cert-auth", Takes::Switch, "false", PROTECTION),
    other("client-cert-file", Takes::Text, "", PROTECTION),
    other("client-key-file", Takes::Text, "", PROTECTION),
    other("client-crl-file", Takes::Text, "", PROTECTION),
    other("client-cert-allowed-hostname", Takes::List, "", PROTECTION),
    other("trusted-ca-file", Takes::Text, "", PROTECTION),
    other("peer-auto-tls", Takes::Switch, "false", PROTECTION),
    other("peer-cert-file", Takes::Text, "", PROTECTION),
    other("peer-key-file", Takes::Text, "", PROTECTION),
    other("peer-client-cert-auth", Takes::Switch, "false", PROTECTION),
    other("peer-client-cert-file", Takes::Text, "", PROTECTION),
    other("peer-client-key-file", Takes::Text, "", PROTECTION),
    other("peer-crl-file", Takes::Text, "", PROTECTION),
    other("peer-cert-allowed-cn", Takes::List, "", PROTECTION),
    other("peer-cert-allowed-hostname", Takes::List, "", PROTECTION),
    other("peer-trusted-ca-file", Takes::Text, "", PROTECTION),
    other(
        "peer-skip-client-san-verification",
        Takes::Switch,
        "false",
        PEERS,
    ),
    other("self-signed-cert-validity", Takes::Number, "1", PROTECTION),
    other("cipher-suites", Takes::List, "", PROTECTION),
    other("tls-min-version", Takes::Text, "TLS1.2", PROTECTION),
    other("tls-max-version", Takes::Text, "", PROTECTION),
    other("discovery", Takes::Text, "", DISCOVERY),
    other("discovery-endpoints", Takes::List, "", DISCOVERY),
    other("discovery-token", Takes::Text, "", DISCOVERY),
    other("discovery-srv", Takes::Text, "", DISCOVERY),
    other("discovery-srv-name", Takes::Text, "", DISCOVERY),
    other("discovery-fallback", Takes::Text, "exit", DISCOVERY_DETAIL),
    other("discovery-proxy", Takes::Text, "", DISCOVERY_DETAIL),
    other(
        "discovery-dial-timeout",
        Takes::Duration,
        "2s",
        DISCOVERY_DETAIL,
    ),
    other(
        "discovery-request-timeout",
        Takes::Duration,
        "5s",
        DISCOVERY_DETAIL,
    ),
    other(
        "discovery-keepalive-time",
        Takes::Duration,
        "2s",
        DISCOVERY_DETAIL,
    ),
    other(
        "discovery-keepalive-timeout",
        Takes::Duration,
        "6s",
        DISCOVERY_DETAIL,
    ),
    other(
        "discovery-insecure-transport",
        Takes::Switch,
        "true",
        DISCOVERY_DETAIL,
    ),
    other(
        "discovery-insecure-skip-tls-verify",
        Takes::Switch,
        "false",
        DISCOVERY_DETAIL,
    ),
    other("discovery-cert", Takes::Text, "", DISCOVERY_DETAIL),
    other("discovery-key", Takes::Text, "", DISCOVERY_DETAIL),
    other("discovery-cacert", Takes::Text, "", DISCOVERY_DETAIL),
    other("discovery-user", Takes::Text, "", DISCOVERY_DETAIL),
    other("discovery-password", Takes::Text, "", DISCOVERY_DETAIL),
];

impl Flag {
    /// Not one of those that only print something.
    pub fn is_setting(&self) -> bool {
        !["help", "version"].contains(&self.name)
    }

    /// Whether a value says no more than leaving the flag out would.
    pub fn says_nothing(&self, value: &str) -> bool {
        match self.takes {
            Takes::Switch => super::switch(value) == super::switch(self.default),
            _ => value.is_empty() || value == self.default,
        }
    }
}

/// Programs that etcd's binary holds besides the server, and what does their work.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "gateway",
        "any proxy for TCP does what it does, and quoin's own clients take several endpoints",
    ),
    (
        "grpc-proxy",
        "etcd's own grpc-proxy can be put before it as it is before an etcd",
    ),
];

/// One of etcd's programs by its name, and what to use instead.
pub(super) fn program(name: &str) -> Option<(&'static str, &'static str)> {
    PROGRAMS.iter().copied().find(|(known, _)| *known == name)
}

/// The flag of that name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The help text.
pub fn help() -> String {
    let mut text = String::from(
        "quoin: a strongly consistent, replicated key-value store\n\n\
         Usage: quoin [flags]\n\n\
         Without flags it keeps its data in default.etcd and listens on \
         http://localhost:2379.\n\n",
    );
    let served = FLAGS.iter().filter(|flag| flag.fate == Fate::Served);
    for Flag {
        name,
        default,
        help,
        takes,
        ..
    } in served
    {
        let flag = match (takes, default.is_empty()) {
            (Takes::Switch, true) => format!("--{name}"),
            _ => format!("--{name} '{default}'"),
        };
        text.push_str(&format!("  {flag}\n      {help}\n"));
    }
    text.push_str(
        "\nWhat the command line leaves open, the environment may say: ETCD_DATA_DIR stands for \
         --data-dir.\netcd's other flags, and what becomes of them: docs/compatibility.md\n\
         Start-up errors and their remedies: docs/OPERATIONS.md\n",
    );
    text
}

/// Says that a flag does not exist, and which may be meant.
pub(super) fn unknown(name: &str) -> FlagError {
    FlagError(match nearest(name) {
        Some(known) => format!("unknown flag --{name}; did you mean --{known}?"),
        None => format!("unknown flag --{name}; quoin --help lists the flags"),
    })
}

/// The known name that is most like this one, if any is.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // What is far too long is like nothing, and would only take time.
    let (distance, known) = FLAGS
        .iter()
        .filter(|_| name.len() <= 64)
        .map(|flag| (edit_distance(name, flag.name), flag.name))
        .min()?;
    (distance <= name.len().max(3) / 3).then_some(known)
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
    use super::{FLAGS, Fate, edit_distance};
    use std::collections::BTreeMap;

    #[test]
    fn the_page_on_compatibility_lists_every_flag_as_it_is() {
        let page = include_str!("../../../docs/compatibility.md");
        let (_, table) = page.split_once("| flags | here |").expect("the table");
        let (table, _) = table.split_once("\n\n").expect("its end");
        let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in table.lines().skip(2) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for name in cells[1].split('`').skip(1).step_by(2) {
                // A value that a flag may have.
                if name != "jwt" {
                    listed.entry(name).or_default().push(cells[2]);
                }
            }
        }
        for flag in FLAGS {
            let said = listed.remove(flag.name);
            let said = said.unwrap_or_else(|| panic!("--{} is not listed", flag.name));
            let fits = said.iter().any(|said| match flag.fate {
                Fate::Served => !said.starts_with("not"),
                Fate::Moot(_) => said.starts_with("not needed"),
                Fate::Unmet(_) => said.starts_with("not yet: the server runs"),
                Fate::Refused(_) => said.starts_with("not yet: refused"),
            });
            assert!(
                fits,
                "--{} is {:?}, and listed as {said:?}",
                flag.name, flag.fate
            );
        }
        assert!(listed.is_empty(), "there are no such flags: {listed:?}");
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn each_flag_is_listed_once_and_stands_in_the_page() {
        let page = include_str!("../../../docs/compatibility.md");
        let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        for flag in FLAGS {
            let own = ["cores", "fronts", "help", "version"].contains(&flag.name);
            let told = page.contains(&format!("`{}`", flag.name));
            assert!(
                own || told,
                "docs/compatibility.md does not tell of --{}",
                flag.name
            );
            assert!(flag.fate != Fate::Served || !flag.help.is_empty());
            assert!(flag.says_nothing(flag.default), "{}", flag.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FLAGS.len());
    }
}
