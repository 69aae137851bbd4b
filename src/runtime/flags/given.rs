//! Flags as given, and the settings that follow from them.

#![forbid(unsafe_code)]

use super::duration::duration;
use super::number::number;
use super::url::{self, Url};
use super::{Config, FlagError, Notice, gates, retention, switch};
use crate::limits;
use crate::runtime::logger::{Format, Level, Output};
use std::time::Duration;

/// Default of `--warning-apply-duration`, as in etcd.
const SLOW_APPLY: Duration = Duration::from_millis(100);
/// Default of `--warning-unary-request-duration`, as in etcd.
const SLOW_CALL: Duration = Duration::from_millis(300);

/// Values as given, before defaults that depend on each other.
#[derive(Default)]
pub(super) struct Given {
    notices: Vec<Notice>,
    name: Option<String>,
    data_dir: Option<String>,
    wal_dir: Option<String>,
    listen_client: Option<Vec<Url>>,
    listen_http: Vec<Url>,
    listen_metrics: Vec<Url>,
    reuse_port: bool,
    advertise_client: Option<Vec<Url>>,
    listen_peer: Option<Vec<Url>>,
    advertise_peer: Option<Vec<Url>>,
    initial_cluster: Option<String>,
    joins: bool,
    cluster_token: Option<String>,
    quota: Option<i64>,
    compaction_mode: Option<String>,
    compaction_retention: Option<String>,
    request_bytes_max: Option<u64>,
    txn_ops_max: Option<usize>,
    streams_max: Option<u32>,
    no_gateway: bool,
    cors: Vec<String>,
    host_whitelist: Option<Vec<String>>,
    gates: Vec<gates::Set>,
    snapshot_count: Option<u64>,
    heartbeat_ms: Option<u64>,
    election_ms: Option<u64>,
    watch_progress: Option<Duration>,
    log_level: Option<Level>,
    log_format: Option<Format>,
    log_outputs: Option<Vec<Output>>,
    extensive_metrics: bool,
    slow_apply: Option<Duration>,
    slow_call: Option<Duration>,
    cores: Option<Vec<usize>>,
    fronts: Option<u16>,
}

impl Given {
    /// Has the log tell something.
    pub fn note(&mut self, notice: Notice) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// Takes the value of a flag that is served. The later of two counts.
    pub fn take(&mut self, name: &'static str, value: &str) -> Result<(), FlagError> {
        // As in etcd, an empty text says as much as none, but for the few that are told apart
        // below.
        let text = || Some(value.to_owned()).filter(|text| !text.is_empty());
        let to_listen = || match value {
            "" => Ok(None),
            value => url::to_listen(name, value).map(Some),
        };
        let to_tell = || match value {
            "" => Ok(None),
            value => url::to_tell(name, value).map(Some),
        };
        match name {
            "name" => self.name = Some(value.to_owned()),
            "data-dir" => self.data_dir = text(),
            "wal-dir" => self.wal_dir = text(),
            "config-file" => {}
            "listen-client-urls" => self.listen_client = to_listen()?,
            "listen-client-http-urls" => self.listen_http = to_listen()?.unwrap_or_default(),
            "listen-metrics-urls" => self.listen_metrics = to_listen()?.unwrap_or_default(),
            "socket-reuse-port" => self.reuse_port = switch(value) == Some(true),
            "advertise-client-urls" => self.advertise_client = to_tell()?,
            "listen-peer-urls" => self.listen_peer = to_listen()?,
            "initial-advertise-peer-urls" => self.advertise_peer = to_tell()?,
            "initial-cluster" => self.initial_cluster = text(),
            "initial-cluster-state" => self.joins = joins(value)?,
            // The empty token is one, too, and gives other ids than the default does.
            "initial-cluster-token" => self.cluster_token = Some(value.to_owned()),
            "quota-backend-bytes" => self.quota = Some(number(name, value)?),
            "auto-compaction-mode" => self.compaction_mode = Some(value.to_owned()),
            "auto-compaction-retention" => self.compaction_retention = text(),
            "max-request-bytes" => self.request_bytes_max = Some(number(name, value)?),
            "max-txn-ops" => self.txn_ops_max = Some(number(name, value)?),
            "max-concurrent-streams" => self.streams_max = Some(number(name, value)?),
            "snapshot-count" => self.snapshot_count = Some(number(name, value)?),
            "heartbeat-interval" => self.heartbeat_ms = Some(number(name, value)?),
            "election-timeout" => self.election_ms = Some(number(name, value)?),
            "watch-progress-notify-interval" => {
                self.watch_progress = Some(duration(name, value)?);
            }
            "enable-grpc-gateway" => self.no_gateway = switch(value) == Some(false),
            "cors" => self.cors = sites(value)?,
            "host-whitelist" => self.host_whitelist = hosts(value),
            "feature-gates" => {
                let set = gates::read(value)?;
                self.gates.extend(&set);
                for (gate, _, why) in set {
                    self.note(Notice::info(format!(
                        "the feature gate {gate} switches nothing here: {why}"
                    )));
                }
            }
            "log-level" => self.log_level = Some(level(value)?),
            "log-format" => self.log_format = Some(format_of(value)?),
            "log-outputs" => self.log_outputs = Some(outputs(value)?),
            "metrics" => self.extensive_metrics = is_extensive(value)?,
            "warning-apply-duration" => self.slow_apply = Some(duration(name, value)?),
            "warning-unary-request-duration" => self.slow_call = Some(duration(name, value)?),
            "cores" => self.cores = Some(cores(value)?),
            "fronts" => self.fronts = Some(number(name, value)?),
            _ => unreachable!("--{name} is served by no setting"),
        }
        Ok(())
    }

    /// The settings, once everything is taken.
    pub fn finish(mut self) -> Result<Config, FlagError> {
        let (auto_compaction, told) = retention::auto_compaction(
            self.compaction_mode.as_deref().unwrap_or("periodic"),
            self.compaction_retention.as_deref().unwrap_or("0"),
        )?;
        self.notices.extend(told.map(Notice::warn));
        let bounds = self.bounds();
        let name = self.name.unwrap_or_else(|| "default".to_owned());
        if name.is_empty() {
            return Err(FlagError("--name must not be empty".to_owned()));
        }
        let data_dir = match self.data_dir {
            Some(dir) => dir,
            None if name.contains('/') => {
                return Err(FlagError(
                    "--name holds a '/': give --data-dir too".to_owned(),
                ));
            }
            None => format!("{name}.etcd"),
        };
        let local = |port| vec![Url::local(port)];
        let listen_client = self.listen_client.unwrap_or_else(|| local(2379));
        let advertise_peer = self.advertise_peer.unwrap_or_else(|| local(2380));
        if let Some(cluster) = &self.initial_cluster {
            check_cluster(cluster, &name, &advertise_peer)?;
        }
        let config = Config {
            name,
            data_dir: data_dir.into(),
            wal_dir: self.wal_dir.map(Into::into),
            advertise_client: self
                .advertise_client
                .unwrap_or_else(|| listen_client.clone()),
            listen_client,
            listen_http: self.listen_http,
            listen_metrics: self.listen_metrics,
            reuse_port: self.reuse_port,
            joins: self.joins,
            listen_peer: self.listen_peer.unwrap_or_else(|| local(2380)),
            advertise_peer,
            cluster_token: self
                .cluster_token
                .unwrap_or_else(|| "etcd-cluster".to_owned()),
            quota_bytes: bounds.quota_bytes,
            auto_compaction,
            request_bytes_max: bounds.request_bytes_max,
            txn_ops_max: self.txn_ops_max.unwrap_or(limits::TXN_OPS_DEFAULT),
            streams_max: bounds.streams_max,
            gateway: !self.no_gateway,
            cors: self.cors,
            host_whitelist: self.host_whitelist,
            // As in etcd, 0 is the default.
            snapshot_count: self.snapshot_count.filter(|count| *count > 0),
            heartbeat_ms: self.heartbeat_ms.unwrap_or(limits::HEARTBEAT_MS_DEFAULT),
            election_ms: self.election_ms.unwrap_or(limits::ELECTION_MS_DEFAULT),
            watch_progress_ms: bounds.watch_progress_ms,
            log_level: self.log_level.unwrap_or(Level::Info),
            log_format: self.log_format.unwrap_or(Format::Json),
            log_outputs: self.log_outputs.unwrap_or(vec![Output::Error]),
            features: gates::features(&self.gates),
            extensive_metrics: self.extensive_metrics,
            slow_apply_ns: nanos(self.slow_apply.unwrap_or(SLOW_APPLY)),
            slow_call_ns: nanos(self.slow_call.unwrap_or(SLOW_CALL)),
            cores: self.cores,
            fronts: self.fronts,
            notices: self.notices,
        };
        check_ranges(&config)?;
        Ok(config)
    }

    /// Settings that etcd takes in a wider range: what is beyond quoin's is brought into it, and
    /// the log tells so.
    fn bounds(&mut self) -> Bounds {
        let mut notices = Vec::new();
        let mut lowered = |name: &str, given: u64, most: u64| {
            notices.push(Notice::warn(format!(
                "--{name}: {given} is lowered to {most}, the most that is served"
            )));
        };
        let mut quota_bytes = match self.quota.unwrap_or(0) {
            0 => Some(limits::QUOTA_BYTES_DEFAULT),
            quota => u64::try_from(quota).ok(),
        };
        if let Some(quota) = quota_bytes.filter(|quota| *quota > limits::QUOTA_BYTES_CEILING) {
            lowered("quota-backend-bytes", quota, limits::QUOTA_BYTES_CEILING);
            quota_bytes = Some(limits::QUOTA_BYTES_CEILING);
        }
        let asked = self.request_bytes_max;
        let asked = asked.unwrap_or(limits::REQUEST_BYTES_DEFAULT as u64);
        let most = limits::REQUEST_BYTES_CEILING as u64;
        if asked > most {
            lowered("max-request-bytes", asked, most);
        }
        let request_bytes_max = usize::try_from(asked.min(most)).unwrap_or(usize::MAX);
        // As in etcd, 0 is no bound; and so is what etcd has without the flag.
        let most = limits::STREAMS_PER_CONNECTION;
        let streams_max = match self.streams_max.unwrap_or(u32::MAX) {
            0 | u32::MAX => most,
            asked if asked > most => {
                lowered("max-concurrent-streams", asked.into(), most.into());
                most
            }
            asked => asked,
        };
        // As in etcd, 0 is the default.
        let interval = self.watch_progress.filter(|interval| !interval.is_zero());
        let least = Duration::from_millis(limits::WATCH_PROGRESS_MS_FLOOR);
        if let Some(interval) = interval.filter(|interval| *interval < least) {
            notices.push(Notice::warn(format!(
                "--watch-progress-notify-interval: {interval:?} is raised to {least:?}, the least"
            )));
        }
        let watch_progress_ms = interval.map_or(limits::WATCH_PROGRESS_MS_DEFAULT, |interval| {
            u64::try_from(interval.max(least).as_millis()).unwrap_or(u64::MAX)
        });
        self.notices.extend(notices);
        Bounds {
            quota_bytes,
            request_bytes_max,
            streams_max,
            watch_progress_ms,
        }
    }
}

/// See [`Given::bounds`].
struct Bounds {
    quota_bytes: Option<u64>,
    request_bytes_max: usize,
    streams_max: u32,
    watch_progress_ms: u64,
}

fn check_ranges(config: &Config) -> Result<(), FlagError> {
    let refuse = |text: String| Err(FlagError(text));
    if config.request_bytes_max == 0 {
        // etcd starts, and waits for ever: its own first entry does not fit.
        return refuse(
            "--max-request-bytes must be at least 1: no write would be taken".to_owned(),
        );
    }
    if config
        .fronts
        .is_some_and(|fronts| fronts > limits::FRONTS_MAX)
    {
        return refuse(format!("--fronts is at most {}", limits::FRONTS_MAX));
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

/// Whether `--initial-cluster-state` says that there is a member already.
fn joins(value: &str) -> Result<bool, FlagError> {
    match value {
        "" | "new" => Ok(false),
        "existing" => Ok(true),
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
        listed.extend(url::to_tell("initial-cluster", url)?);
    }
    // As in etcd, their order says nothing.
    let in_order = |urls: &[Url]| {
        let mut texts: Vec<String> = urls.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    };
    if in_order(&listed) != in_order(advertised) {
        return Err(FlagError(
            "--initial-cluster and --initial-advertise-peer-urls name different URLs for this \
             member"
                .to_owned(),
        ));
    }
    Ok(())
}

fn level(value: &str) -> Result<Level, FlagError> {
    match value {
        "debug" => Ok(Level::Debug),
        "" | "info" => Ok(Level::Info),
        "warn" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        "dpanic" | "panic" | "fatal" => Ok(Level::Fatal),
        _ => Err(FlagError(format!(
            "--log-level is debug, info, warn, error or fatal, not '{value}'"
        ))),
    }
}

fn format_of(value: &str) -> Result<Format, FlagError> {
    match value {
        "" | "json" => Ok(Format::Json),
        "console" => Ok(Format::Console),
        _ => Err(FlagError(format!(
            "--log-format is json or console, not '{value}'"
        ))),
    }
}

/// Sites as a browser names them, `scheme://host` and perhaps a port, or `*`.
fn sites(value: &str) -> Result<Vec<String>, FlagError> {
    let parts = value.split(',').map(str::trim);
    let mut sites = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let host = part
            .strip_prefix("http://")
            .or_else(|| part.strip_prefix("https://"));
        let fine = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
        if part != "*" && !fine {
            return Err(FlagError(format!(
                "--cors takes sites such as https://example.org:8443, or *, not '{part}'"
            )));
        }
        sites.push(part.to_owned());
    }
    Ok(sites)
}

/// The names in a list; `None` if any name will do.
fn hosts(value: &str) -> Option<Vec<String>> {
    let names = value.split(',').map(str::trim);
    let names: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    (!names.is_empty() && !names.iter().any(|name| name == "*")).then_some(names)
}

fn is_extensive(value: &str) -> Result<bool, FlagError> {
    match value {
        "" | "basic" => Ok(false),
        "extensive" => Ok(true),
        _ => Err(FlagError(format!(
            "--metrics is basic or extensive, not '{value}'"
        ))),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where lines go. A service's standard error is the journal, so that is where lines for the
/// journal go, too.
fn outputs(value: &str) -> Result<Vec<Output>, FlagError> {
    let mut outputs = Vec::new();
    for part in value.split(',').map(str::trim) {
        let output = match part {
            "default" | "stderr" | "systemd/journal" => Output::Error,
            "stdout" => Output::Standard,
            "" => return Err(FlagError("--log-outputs names nothing".to_owned())),
            path => Output::File(path.into()),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(outputs)
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
