//! The command line: etcd's names, read as Go's flag package reads them; the environment and
//! etcd's configuration file.
//!
//! Reading order: `known` has every flag and what becomes of it, `file` reads the configuration
//! file, `given` makes settings of what was given.

#![forbid(unsafe_code)]

mod duration;

mod file;

mod gates;

mod given;

mod known;

mod number;

mod retention;

mod url;

#[cfg(test)]
mod tests;

pub use known::help;
pub use url::{Place, Url};

use crate::node::order::AutoCompaction;
use crate::runtime::logger::{Format, Level, Output};
use crate::runtime::tally::Feature;
use given::Given;
use known::{Fate, Takes};
use std::fmt;
use std::path::PathBuf;

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
    /// Where the log lies, if it has a directory of its own.
    pub wal_dir: Option<PathBuf>,
    /// Where clients connect.
    pub listen_client: Vec<Url>,
    /// Where HTTP/1.1 is served; empty: where clients connect.
    pub listen_http: Vec<Url>,
    /// Where metrics and health are served besides.
    pub listen_metrics: Vec<Url>,
    /// Ports may be shared with other processes.
    pub reuse_port: bool,
    /// What clients are told to connect to.
    pub advertise_client: Vec<Url>,
    /// Where peers would connect; only a cluster of one is served yet.
    pub listen_peer: Vec<Url>,
    /// What peers would be told; the member id is computed from it.
    pub advertise_peer: Vec<Url>,
    /// The data directory must hold a member already.
    pub joins: bool,
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
    /// gRPC streams of one connection.
    pub streams_max: u32,
    /// The sites whose pages may ask; `*` is every site.
    pub cors: Vec<String>,
    /// The names under which the server may be asked over HTTP/1.1; `None` is any.
    pub host_whitelist: Option<Vec<String>>,
    /// etcd's API is served as JSON.
    pub gateway: bool,
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
    /// The form of what is logged.
    pub log_format: Format,
    /// Where it goes.
    pub log_outputs: Vec<Output>,
    /// The times of gRPC's calls are among the metrics.
    pub extensive_metrics: bool,
    /// etcd's feature gates, as they were asked for.
    pub features: Vec<Feature>,
    /// A turn of application that takes longer is told.
    pub slow_apply_ns: u64,
    /// A call with one answer that takes longer is told.
    pub slow_call_ns: u64,
    /// The cores to run on; `None` is every core that the process may use.
    pub cores: Option<Vec<usize>>,
    /// Executors that serve clients, apart from the order actor's; 0 is one executor for both.
    /// `None` leaves it to the number of cores.
    pub fronts: Option<u16>,
    /// What the log tells of the flags.
    pub notices: Vec<Notice>,
}

impl Config {
    /// Raft ticks in an election time-out.
    pub fn election_ticks(&self) -> usize {
        usize::try_from(self.election_ms / self.heartbeat_ms).unwrap_or(usize::MAX)
    }
}

/// Something that was given and does not do what it might be given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// [`Level::Warn`] if a wish is not met.
    pub level: Level,
    /// What the operator is told.
    pub text: String,
}

impl Notice {
    fn info(text: String) -> Notice {
        let level = Level::Info;
        Notice { level, text }
    }

    fn warn(text: String) -> Notice {
        let level = Level::Warn;
        Notice { level, text }
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

/// What stands before the name of a flag in the environment.
const PREFIX: &str = "ETCD_";

/// Variables with that prefix that are no flags and known all the same.
const NO_FLAGS: &[&str] = &["ETCD_UNSUPPORTED_ARCH", "ETCD_VERSION"];

fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Reads a command line, without the program's name. What it leaves open, the environment says:
/// `ETCD_` and the flag's name in capitals, with underscores. If either names a configuration
/// file, `read_file` gives its text, and nothing else counts.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variables: &[(String, String)],
    read_file: impl Fn(&str) -> std::io::Result<String>,
) -> Result<Command, FlagError> {
    let mut given = Given::default();
    let command_line = match read_args(args)? {
        Args::Prints(command) => return Ok(command),
        Args::Flags(flags) => flags,
    };
    let is_set = |name: &str| command_line.iter().any(|(set, _)| *set == name);
    // As in etcd, an empty variable is none.
    let variable = |name: &str| {
        let key = variable_of(name);
        let found = variables.iter().find(|(known, _)| *known == key);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    };
    let file = command_line
        .iter()
        .rev()
        .find(|(name, _)| *name == "config-file");
    let file = file.map(|(_, path)| path).filter(|path| !path.is_empty());
    if let Some(path) = file.or_else(|| variable("config-file")) {
        let text = read_file(path)
            .map_err(|error| FlagError(format!("--config-file: '{path}': {error}")))?;
        let contents = file::read(&text)?;
        given.note(Notice::info(format!(
            "settings come from '{path}' alone: flags and variables are ignored"
        )));
        for stray in contents.strays {
            given.note(Notice::warn(format!(
                "'{stray}' in the configuration file is no setting, and is ignored"
            )));
        }
        take_all(&mut given, &contents.flags)?;
        return Ok(Command::Serve(Box::new(given.finish()?)));
    }
    let left_open = |flag: &&known::Flag| flag.is_setting() && !is_set(flag.name);
    for flag in known::FLAGS.iter().filter(left_open) {
        if let Some(value) = variable(flag.name) {
            take(&mut given, flag.name, value)
                .map_err(|error| FlagError(format!("{}: {error}", variable_of(flag.name))))?;
        }
    }
    for (key, _) in variables.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        let is_flag = known::FLAGS
            .iter()
            .any(|flag| variable_of(flag.name) == *key);
        if !is_flag && !NO_FLAGS.contains(&&**key) {
            given.note(Notice::warn(format!(
                "the variable {key} stands for no flag, and is ignored"
            )));
        }
    }
    take_all(&mut given, &command_line)?;
    Ok(Command::Serve(Box::new(given.finish()?)))
}

/// What a command line holds.
enum Args {
    Prints(Command),
    Flags(Vec<(&'static str, String)>),
}

fn read_args(args: impl IntoIterator<Item = String>) -> Result<Args, FlagError> {
    let mut flags = Vec::new();
    let mut args = args.into_iter().peekable();
    if let Some((name, instead)) = args.peek().and_then(|first| known::program(first)) {
        return Err(FlagError(format!(
            "'{name}' is a program of etcd's that is not part of quoin: {instead} \
             (docs/compatibility.md, 'Flags')"
        )));
    }
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
            "version" => return Ok(Args::Prints(Command::Version)),
            "help" | "h" => return Ok(Args::Prints(Command::Help)),
            _ => {}
        }
        let flag = known::find(name).ok_or_else(|| known::unknown(name))?;
        let value = match (flag.takes, inline) {
            (_, Some(value)) => value,
            (Takes::Switch, None) => "true".to_owned(),
            (_, None) => match args.next() {
                Some(value) => value,
                None => return Err(FlagError(format!("--{name} needs a value"))),
            },
        };
        flags.push((flag.name, value));
    }
    Ok(Args::Flags(flags))
}

fn take_all(given: &mut Given, flags: &[(&'static str, String)]) -> Result<(), FlagError> {
    for (name, value) in flags {
        take(given, name, value)?;
    }
    Ok(())
}

/// Takes one flag, as its fate is.
fn take(given: &mut Given, name: &'static str, value: &str) -> Result<(), FlagError> {
    let flag = known::find(name).ok_or_else(|| known::unknown(name))?;
    // What has a type has to be of it whether it does anything here or not, as in etcd: an empty
    // value is no number, duration or truth.
    match flag.takes {
        Takes::Switch if switch(value).is_none() => {
            return Err(FlagError(format!(
                "--{name} is true or false, not '{value}'"
            )));
        }
        Takes::Duration => {
            duration::duration(name, value)?;
        }
        Takes::Number => {
            number::check(name, value)?;
        }
        _ => {}
    }
    match flag.fate {
        Fate::Served => return given.take(name, value),
        Fate::Refused(why) if !flag.says_nothing(value) => {
            return Err(FlagError(format!("--{name} {why}")));
        }
        Fate::Moot(why) => given.note(Notice::info(format!(
            "--{name} asks for nothing here: {why}"
        ))),
        Fate::Unmet(what) if !flag.says_nothing(value) => {
            given.note(Notice::warn(format!("--{name} is not followed: {what}")));
        }
        Fate::Refused(_) | Fate::Unmet(_) => {}
    }
    Ok(())
}

/// A truth value as Go reads it, and as YAML 1.1 writes it besides.
fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "yes" | "on" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "no" | "off" => Some(false),
        _ => None,
    }
}
