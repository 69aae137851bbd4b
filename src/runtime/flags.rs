//! The command line: etcd's names, read as Go's flag package reads them.

#![forbid(unsafe_code)]

mod duration;
mod known;

mod retention;

pub use known::help;

use self::duration::duration;
use crate::limits;
use crate::node::order::AutoCompaction;
use crate::runtime::logger::Level;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve(Box<Config>),
    /// Print the version.
    Version,
    /// Print the flags.
    Help,
}

/// A server's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen_client: Vec<Url>,
    /// What clients are told to connect to.
    pub advertise_client: Vec<Url>,
    /// Where peers would connect; only a cluster of one is served yet.
    pub listen_peer: Vec<Url>,
    /// What peers would be told; the member id is computed from it.
    pub advertise_peer: Vec<Url>,
    /// Tells clusters with the same URLs apart.
    pub cluster_token: String,
    /// The database size at which writes are refused; `None` is without bound.
    pub quota_bytes: Option<u64>,
    /// What history to keep.
    pub auto_compaction: AutoCompaction,
    /// The largest request.
    pub request_bytes_max: usize,
    /// Operations in one transaction.
    pub txn_ops_max: usize,
    /// Log entries between checkpoints, at most; `None` leaves it to bytes and time.
    pub snapshot_count: Option<u64>,
    /// One Raft tick.
    pub heartbeat_ms: u64,
    /// Election time-out.
    pub election_ms: u64,
    /// How often a quiet watch that asked for it is told its progress.
    pub watch_progress_ms: u64,
    /// What is logged.
    pub log_level: Level,
    /// The cores to run on; `None` is every core that the process may use.
    pub cores: Option<Vec<usize>>,
    /// Executors that serve clients, apart from the order actor's; 0 is one executor for both.
    /// `None` leaves it to the number of cores.
    pub fronts: Option<u16>,
    /// Flags of etcd that were given and ask for nothing here.
    pub moot: Vec<String>,
}

impl Config {
    /// Raft ticks in an election time-out.
    pub fn election_ticks(&self) -> usize {
        usize::try_from(self.election_ms / self.heartbeat_ms).unwrap_or(usize::MAX)
    }
}

/// `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The host as given; an IPv6 address keeps its brackets.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// A command line that cannot be followed; the text says what to do instead.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagError(pub String);

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FlagError {}

/// Reads a command line, without the program's name. What it leaves open, the environment says:
/// `ETCD_` and the flag's name in capitals, with underscores, as `variable` finds it.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, FlagError> {
    let mut raw = Raw::default();
    for name in known::served() {
        let key = format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"));
        // As in etcd, an empty one is none.
        if let Some(value) = variable(&key).filter(|value| !value.is_empty()) {
            raw.take(name, value)
                .map_err(|error| FlagError(format!("{key}: {error}")))?;
        }
    }
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Err(FlagError(format!(
                "'{arg}' is not a flag; quoin takes flags only (see quoin --help)"
            )));
        };
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "version" => return Ok(Command::Version),
            "help" | "h" => return Ok(Command::Help),
            _ => {}
        }
        if let Some(takes) = known::moot(name) {
            if takes == known::Takes::Value && inline.or_else(|| args.next()).is_none() {
                return Err(FlagError(format!("--{name} needs a value")));
            }
            raw.moot.push(name.to_owned());
            continue;
        }
        known::check(name)?;
        let value = match inline.or_else(|| args.next()) {
            Some(value) => value,
            None => return Err(FlagError(format!("--{name} needs a value"))),
        };
        raw.take(name, value)?;
    }
    Ok(Command::Serve(Box::new(raw.finish()?)))
}

/// Values as given, before defaults that depend on each other.
#[derive(Default)]
struct Raw {
    moot: Vec<String>,
    name: Option<String>,
    data_dir: Option<String>,
    listen_client: Option<Vec<Url>>,
    advertise_client: Option<Vec<Url>>,
    listen_peer: Option<Vec<Url>>,
    advertise_peer: Option<Vec<Url>>,
    initial_cluster: Option<String>,
    cluster_token: Option<String>,
    quota: Option<i64>,
    compaction_mode: Option<String>,
    compaction_retention: Option<String>,
    request_bytes_max: Option<usize>,
    txn_ops_max: Option<usize>,
    snapshot_count: Option<u64>,
    heartbeat_ms: Option<u64>,
    election_ms: Option<u64>,
    watch_progress: Option<Duration>,
    log_level: Option<Level>,
    cores: Option<Vec<usize>>,
    fronts: Option<u16>,
}

impl Raw {
    fn take(&mut self, name: &str, value: String) -> Result<(), FlagError> {
        match name {
            "name" => self.name = Some(value),
            "data-dir" => self.data_dir = Some(value),
            "listen-client-urls" => self.listen_client = Some(urls(name, &value)?),
            "advertise-client-urls" => self.advertise_client = Some(urls(name, &value)?),
            "listen-peer-urls" => self.listen_peer = Some(urls(name, &value)?),
            "initial-advertise-peer-urls" => self.advertise_peer = Some(urls(name, &value)?),
            "initial-cluster" => self.initial_cluster = Some(value),
            "initial-cluster-state" => check_state(&value)?,
            "initial-cluster-token" => self.cluster_token = Some(value),
            "quota-backend-bytes" => self.quota = Some(number(name, &value)?),
            "auto-compaction-mode" => self.compaction_mode = Some(value),
            "auto-compaction-retention" => self.compaction_retention = Some(value),
            "max-request-bytes" => self.request_bytes_max = Some(number(name, &value)?),
            "max-txn-ops" => self.txn_ops_max = Some(number(name, &value)?),
            "snapshot-count" => self.snapshot_count = Some(number(name, &value)?),
            "heartbeat-interval" => self.heartbeat_ms = Some(number(name, &value)?),
            "election-timeout" => self.election_ms = Some(number(name, &value)?),
            "watch-progress-notify-interval" => {
                self.watch_progress = Some(duration(name, &value)?);
            }
            "log-level" => self.log_level = Some(level(&value)?),
            "cores" => self.cores = Some(cores(&value)?),
            "fronts" => self.fronts = Some(number(name, &value)?),
            _ => unreachable!("known::check let --{name} through"),
        }
        Ok(())
    }

    fn finish(self) -> Result<Config, FlagError> {
        let name = self.name.unwrap_or_else(|| "default".to_owned());
        if name.is_empty() {
            return Err(FlagError("--name must not be empty".to_owned()));
        }
        let data_dir = match self.data_dir {
            Some(dir) if dir.is_empty() => {
                return Err(FlagError("--data-dir must not be empty".to_owned()));
            }
            Some(dir) => dir,
            None if name.contains('/') => {
                return Err(FlagError(
                    "--name holds a '/': give --data-dir too".to_owned(),
                ));
            }
            None => format!("{name}.etcd"),
        };
        let local = |port| {
            vec![Url {
                host: "localhost".to_owned(),
                port,
            }]
        };
        let listen_client = self.listen_client.unwrap_or_else(|| local(2379));
        let advertise_peer = self.advertise_peer.unwrap_or_else(|| local(2380));
        if let Some(cluster) = &self.initial_cluster {
            check_cluster(cluster, &name, &advertise_peer)?;
        }
        let config = Config {
            name,
            data_dir: data_dir.into(),
            advertise_client: self
                .advertise_client
                .unwrap_or_else(|| listen_client.clone()),
            listen_client,
            listen_peer: self.listen_peer.unwrap_or_else(|| local(2380)),
            advertise_peer,
            cluster_token: self
                .cluster_token
                .unwrap_or_else(|| "etcd-cluster".to_owned()),
            quota_bytes: match self.quota.unwrap_or(0) {
                0 => Some(limits::QUOTA_BYTES_DEFAULT),
                quota => u64::try_from(quota).ok(),
            },
            auto_compaction: retention::auto_compaction(
                self.compaction_mode.as_deref().unwrap_or("periodic"),
                self.compaction_retention.as_deref().unwrap_or("0"),
            )?,
            request_bytes_max: self
                .request_bytes_max
                .unwrap_or(limits::REQUEST_BYTES_DEFAULT),
            txn_ops_max: self.txn_ops_max.unwrap_or(limits::TXN_OPS_DEFAULT),
            snapshot_count: self.snapshot_count,
            heartbeat_ms: self.heartbeat_ms.unwrap_or(limits::HEARTBEAT_MS_DEFAULT),
            election_ms: self.election_ms.unwrap_or(limits::ELECTION_MS_DEFAULT),
            watch_progress_ms: self
                .watch_progress
                .map_or(limits::WATCH_PROGRESS_MS_DEFAULT, |interval| {
                    u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
                }),
            log_level: self.log_level.unwrap_or(Level::Info),
            cores: self.cores,
            fronts: self.fronts,
            moot: self.moot,
        };
        check_ranges(&config)?;
        Ok(config)
    }
}

fn check_ranges(config: &Config) -> Result<(), FlagError> {
    let refuse = |text: String| Err(FlagError(text));
    if config.request_bytes_max == 0 || config.request_bytes_max > limits::REQUEST_BYTES_CEILING {
        return refuse(format!(
            "--max-request-bytes must lie between 1 and {}",
            limits::REQUEST_BYTES_CEILING
        ));
    }
    if config
        .quota_bytes
        .is_some_and(|quota| quota > limits::QUOTA_BYTES_CEILING)
    {
        return refuse(format!(
            "--quota-backend-bytes is at most {} (512 GiB)",
            limits::QUOTA_BYTES_CEILING
        ));
    }
    if config.txn_ops_max == 0 || config.snapshot_count == Some(0) {
        return refuse("--max-txn-ops and --snapshot-count must be at least 1".to_owned());
    }
    if config
        .fronts
        .is_some_and(|fronts| fronts > limits::FRONTS_MAX)
    {
        return refuse(format!("--fronts is at most {}", limits::FRONTS_MAX));
    }
    if config.watch_progress_ms < limits::WATCH_PROGRESS_MS_FLOOR {
        return refuse(format!(
            "--watch-progress-notify-interval is at least {} ms",
            limits::WATCH_PROGRESS_MS_FLOOR
        ));
    }
    if config.heartbeat_ms == 0
        || config.election_ms < 5 * config.heartbeat_ms
        || config.election_ms > limits::ELECTION_MS_CEILING
    {
        return refuse(format!(
            "--election-timeout ({}) must be at least five times --heartbeat-interval ({}) and \
             at most {}",
            config.election_ms,
            config.heartbeat_ms,
            limits::ELECTION_MS_CEILING
        ));
    }
    Ok(())
}

fn check_state(value: &str) -> Result<(), FlagError> {
    match value {
        "new" => Ok(()),
        "existing" => Err(FlagError(
            "--initial-cluster-state existing: joining a cluster is not served by this version"
                .to_owned(),
        )),
        _ => Err(FlagError(format!(
            "--initial-cluster-state is 'new' or 'existing', not '{value}'"
        ))),
    }
}

/// One member only, and it must be this one.
fn check_cluster(cluster: &str, name: &str, advertised: &[Url]) -> Result<(), FlagError> {
    let mut listed = Vec::new();
    for part in cluster.split(',') {
        let Some((member, url)) = part.split_once('=') else {
            return Err(FlagError(format!(
                "--initial-cluster: '{part}' is not NAME=URL"
            )));
        };
        if member != name {
            return Err(FlagError(format!(
                "--initial-cluster lists '{member}', and this member is '{name}' (--name): \
                 clusters of several members are not served by this version"
            )));
        }
        listed.push(url_of("initial-cluster", url)?);
    }
    if listed != advertised {
        return Err(FlagError(
            "--initial-cluster and --initial-advertise-peer-urls name different URLs for this \
             member"
                .to_owned(),
        ));
    }
    Ok(())
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, FlagError> {
    value
        .parse()
        .map_err(|_| FlagError(format!("--{name} takes a whole number, not '{value}'")))
}

fn level(value: &str) -> Result<Level, FlagError> {
    match value {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" => Ok(Level::Warn),
        "error" | "dpanic" | "panic" | "fatal" => Ok(Level::Error),
        _ => Err(FlagError(format!(
            "--log-level is debug, info, warn or error, not '{value}'"
        ))),
    }
}

/// `0-3,5` as a sorted list without doubles.
fn cores(value: &str) -> Result<Vec<usize>, FlagError> {
    let refuse = || {
        FlagError(format!(
            "--cores takes core numbers and spans such as 0-3,5, not '{value}'"
        ))
    };
    let mut cores = Vec::new();
    for part in value.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| refuse())?;
        let last: usize = last.trim().parse().map_err(|_| refuse())?;
        if first > last || last > 4095 {
            return Err(refuse());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

fn urls(name: &str, value: &str) -> Result<Vec<Url>, FlagError> {
    value.split(',').map(|url| url_of(name, url)).collect()
}

fn url_of(name: &str, value: &str) -> Result<Url, FlagError> {
    let refuse = |why: &str| Err(FlagError(format!("--{name}: '{value}' {why}")));
    let Some((scheme, rest)) = value.split_once("://") else {
        return refuse("is not a URL such as http://127.0.0.1:2379");
    };
    match scheme {
        "http" => {}
        "https" => return refuse("asks for TLS, which this version does not serve"),
        "unix" | "unixs" => {
            return refuse("names a Unix socket, which this version does not serve");
        }
        _ => return refuse("has a scheme other than http"),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some((host, port)) = rest.rsplit_once(':') else {
        return refuse("names no port");
    };
    if host.is_empty() || rest.contains('/') || (host.contains(':') && !host.starts_with('[')) {
        return refuse("is not scheme://host:port");
    }
    match port.parse() {
        Ok(port) => Ok(Url {
            host: host.to_owned(),
            port,
        }),
        Err(_) => refuse("has a port that is not a number up to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Config, parse};
    use crate::limits;

    fn config(args: &[&str]) -> Config {
        match parse(args.iter().map(|a| (*a).to_owned()), |_| None) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn refusal(args: &[&str]) -> String {
        match parse(args.iter().map(|a| (*a).to_owned()), |_| None) {
            Err(e) => e.0,
            other => panic!("{args:?} was taken: {other:?}"),
        }
    }

    #[test]
    fn no_flags_give_the_defaults_of_etcd() {
        let config = config(&[]);
        assert_eq!(config.name, "default");
        assert_eq!(config.data_dir.to_str(), Some("default.etcd"));
        assert_eq!(config.listen_client[0].to_string(), "http://localhost:2379");
        assert_eq!(config.advertise_client, config.listen_client);
        assert_eq!(config.quota_bytes, Some(limits::QUOTA_BYTES_DEFAULT));
        assert_eq!(config.election_ticks(), 10);
    }

    #[test]
    fn every_spelling_of_a_flag_is_read() {
        for args in [
            &["--name", "a"][..],
            &["--name=a"],
            &["-name", "a"],
            &["-name=a"],
        ] {
            assert_eq!(config(args).name, "a");
        }
        let interval = config(&["--watch-progress-notify-interval", "5s"]);
        assert_eq!(interval.watch_progress_ms, 5_000);
        assert_eq!(config(&["--name", "a"]).data_dir.to_str(), Some("a.etcd"));
        assert_eq!(
            config(&["--cores", "0-2,5,1"]).cores,
            Some(vec![0, 1, 2, 5])
        );
        assert_eq!(config(&["--quota-backend-bytes=-1"]).quota_bytes, None);
        assert_eq!(
            parse(["--version".to_owned()], |_| None),
            Ok(Command::Version)
        );
        assert_eq!(parse(["-h".to_owned()], |_| None), Ok(Command::Help));
        let six = config(&["--listen-client-urls", "http://[::1]:0,http://127.0.0.1:1/"]);
        assert_eq!(six.listen_client[0].host, "[::1]");
        assert_eq!(six.listen_client[1].port, 1);
    }

    #[test]
    fn flags_that_ask_for_nothing_are_taken() {
        let config = config(&[
            "--pre-vote",
            "--max-wals",
            "5",
            "--logger=zap",
            "--name",
            "a",
        ]);
        assert_eq!(config.moot, ["pre-vote", "max-wals", "logger"]);
        assert_eq!(config.name, "a");
        assert!(refusal(&["--max-wals"]).contains("needs a value"));
    }

    #[test]
    fn the_environment_says_what_the_command_line_leaves_open() {
        let variable = |key: &str| match key {
            "ETCD_NAME" => Some("of-the-environment".to_owned()),
            "ETCD_MAX_TXN_OPS" => Some("77".to_owned()),
            "ETCD_DATA_DIR" => Some(String::new()),
            _ => None,
        };
        let given = ["--name".to_owned(), "given".to_owned()];
        let Ok(Command::Serve(config)) = parse(given, variable) else {
            panic!("it is refused");
        };
        assert_eq!((&*config.name, config.txn_ops_max), ("given", 77));
        assert_eq!(config.data_dir.to_str(), Some("given.etcd"));
        let broken = |key: &str| (key == "ETCD_MAX_TXN_OPS").then(|| "x".to_owned());
        let refused = parse([], broken).unwrap_err();
        assert!(refused.0.starts_with("ETCD_MAX_TXN_OPS: "), "{refused}");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_a_way_out() {
        assert!(refusal(&["--data-dri", "x"]).contains("did you mean --data-dir?"));
        assert!(refusal(&["--zzzzzzzz"]).contains("--help"));
        assert!(refusal(&["--cert-file", "x"]).contains("protection"));
        assert!(refusal(&["--wal-dir", "x"]).contains("does not serve"));
        assert!(refusal(&["--listen-client-urls", "https://a:1"]).contains("TLS"));
        assert!(refusal(&["--listen-client-urls", "http://a"]).contains("port"));
        assert!(refusal(&["--max-txn-ops", "many"]).contains("whole number"));
        assert!(refusal(&["--name"]).contains("needs a value"));
        assert!(refusal(&["serve"]).contains("not a flag"));
        assert!(refusal(&["--election-timeout", "200"]).contains("five times"));
        assert!(refusal(&["--initial-cluster-state", "existing"]).contains("not served"));
        assert!(
            refusal(&[
                "--initial-cluster",
                "default=http://localhost:2380,b=http://b:1"
            ])
            .contains("several members")
        );
        assert!(refusal(&["--watch-progress-notify-interval", "9ms"]).contains("100 ms"));
        assert!(refusal(&["--cores", "3-1"]).contains("0-3,5"));
    }
}
