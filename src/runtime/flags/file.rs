//! `--config-file`: YAML or JSON whose keys are the names of flags, as etcd reads it.

#![forbid(unsafe_code)]

use super::FlagError;
use super::known::{self, Takes};
use yaml_rust2::{Yaml, YamlLoader};

/// What a file says: flags with their values, and keys that are none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub flags: Vec<(&'static str, String)>,
    pub strays: Vec<String>,
}

/// The sections that etcd gives some flags, and what stands before their names as flags.
const SECTIONS: &[(&str, &str)] = &[
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
    ("discovery-config", "discovery-"),
];

/// Reads a file's text.
pub(super) fn read(text: &str) -> Result<Contents, FlagError> {
    let refuse = |why: &str| FlagError(format!("--config-file: {why}"));
    let documents = YamlLoader::load_from_str(text)
        .map_err(|error| refuse(&format!("it is neither YAML nor JSON: {error}")))?;
    let mut contents = Contents::default();
    match documents.as_slice() {
        [] | [Yaml::Null] => Ok(contents),
        [Yaml::Hash(keys)] => {
            for (key, value) in keys {
                let key = key.as_str().ok_or_else(|| refuse("a key is not a text"))?;
                // As in etcd, capitals or not.
                let name = key.to_ascii_lowercase();
                match SECTIONS.iter().find(|(section, _)| *section == name) {
                    Some((section, prefix)) => contents.take_section(section, prefix, value)?,
                    None => contents.take(key, &name, value)?,
                }
            }
            Ok(contents)
        }
        [_] => Err(refuse("it must hold keys and values")),
        _ => Err(refuse("it holds more than one document")),
    }
}

impl Contents {
    fn take_section(&mut self, section: &str, prefix: &str, value: &Yaml) -> Result<(), FlagError> {
        let entries = match value {
            Yaml::Null => return Ok(()),
            Yaml::Hash(entries) => entries,
            _ => {
                return Err(FlagError(format!(
                    "--config-file: '{section}' must hold keys and values"
                )));
            }
        };
        for (key, value) in entries {
            let Some(key) = key.as_str() else {
                return Err(FlagError(format!(
                    "--config-file: a key in '{section}' is not a text"
                )));
            };
            let name = key.to_ascii_lowercase();
            let flag = match &*name {
                // etcd's names for these differ from their flags'.
                "allowed-cn" => format!("{prefix}cert-allowed-cn"),
                "allowed-hostname" | "allowed-hostnames" if prefix.is_empty() => {
                    "client-cert-allowed-hostname".to_owned()
                }
                "allowed-hostname" | "allowed-hostnames" => "peer-cert-allowed-hostname".to_owned(),
                "crl-file" if prefix.is_empty() => "client-crl-file".to_owned(),
                "skip-client-san-verification" => "peer-skip-client-san-verification".to_owned(),
                other => format!("{prefix}{other}"),
            };
            self.take(&format!("{section}.{key}"), &flag, value)?;
        }
        Ok(())
    }

    /// Takes one value; `shown` is how the file names it.
    fn take(&mut self, shown: &str, name: &str, value: &Yaml) -> Result<(), FlagError> {
        let Some(flag) = known::find(name).filter(|flag| is_key(flag)) else {
            self.strays.push(shown.to_owned());
            return Ok(());
        };
        if *value == Yaml::Null {
            return Ok(());
        }
        let text = match flag.takes {
            Takes::Text => text(value),
            Takes::List => list(value),
            Takes::Number => number(value).map(|number| number.to_string()),
            Takes::Duration => duration(value),
            Takes::Switch => truth(value).map(|truth| truth.to_string()),
        };
        let text = text.ok_or_else(|| {
            FlagError(format!(
                "--config-file: the value of '{shown}' must be {}",
                match flag.takes {
                    Takes::Text => "a text; a number or a truth value is one in quotes",
                    Takes::List => "a list of texts, such as [a, b]",
                    Takes::Number => "a whole number, without quotes",
                    Takes::Duration => "a whole number of nanoseconds, or a text such as 5s",
                    Takes::Switch => "true or false, without quotes",
                }
            ))
        })?;
        // An empty list says no more than none.
        if flag.takes != Takes::List || !text.is_empty() {
            self.flags.push((flag.name, text));
        }
        Ok(())
    }
}

/// Not one of those that print something or name the file itself.
fn is_key(flag: &known::Flag) -> bool {
    flag.is_setting() && flag.name != "config-file"
}

fn text(value: &Yaml) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn list(value: &Yaml) -> Option<String> {
    let items: Option<Vec<&str>> = value.as_vec()?.iter().map(Yaml::as_str).collect();
    Some(items?.join(","))
}

/// As in etcd, a whole number may be written with a point or an exponent.
fn number(value: &Yaml) -> Option<i64> {
    match value {
        Yaml::Integer(number) => Some(*number),
        Yaml::Real(_) => {
            let number = value.as_f64()?;
            let fits = number.fract() == 0.0 && number.abs() < i64::MAX as f64;
            fits.then_some(number as i64)
        }
        _ => None,
    }
}

fn duration(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) if !text.is_empty() => Some(text.clone()),
        _ => number(value).map(|number| format!("{number}ns")),
    }
}

/// YAML 1.1, which etcd reads, has more words for it than YAML 1.2.
fn truth(value: &Yaml) -> Option<bool> {
    match value {
        Yaml::Boolean(truth) => Some(*truth),
        Yaml::String(word) => match &*word.to_ascii_lowercase() {
            "y" | "yes" | "on" => Some(true),
            "n" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_file_of_etcds_is_read() {
        let text = "
# This is the configuration file for the etcd server.
name: 'default'
data-dir:
snapshot-count: 10000
quota-backend-bytes: 0
listen-client-urls: http://localhost:2379
max-txn-ops: 77
watch-progress-notify-interval: 600000000000
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
  key-file: /x
log-outputs: [stderr, /var/log/quoin]
no-such-key: 1
";
        let contents = read(text).unwrap();
        let flags: Vec<(&str, &str)> = contents
            .flags
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        assert_eq!(
            flags,
            [
                ("name", "default"),
                ("snapshot-count", "10000"),
                ("quota-backend-bytes", "0"),
                ("listen-client-urls", "http://localhost:2379"),
                ("max-txn-ops", "77"),
                ("watch-progress-notify-interval", "600000000000ns"),
                ("client-cert-auth", "false"),
                ("peer-key-file", "/x"),
                ("log-outputs", "stderr,/var/log/quoin"),
            ]
        );
        assert_eq!(contents.strays, ["no-such-key"]);
    }

    #[test]
    fn json_is_read_and_what_is_neither_is_refused() {
        let contents = read(r#"{"name": "a", "pre-vote": true}"#).unwrap();
        assert_eq!(contents.flags.len(), 2);
        assert_eq!(read("").unwrap().flags.len(), 0);
        for (text, why) in [
            ("- a\n- b", "keys and values"),
            ("name: {a: b}", "'name' must be a text"),
            ("name: 5", "'name' must be a text"),
            ("Name: 5", "'Name' must be a text"),
            ("cors: ['*']", "'cors' must be a text"),
            ("initial-cluster-token: true", "must be a text"),
            ("auto-compaction-retention: 1", "must be a text"),
            ("log-outputs: stderr", "'log-outputs' must be a list"),
            ("log-outputs: [5]", "must be a list"),
            ("heartbeat-interval: '100'", "must be a whole number"),
            ("max-txn-ops: ''", "must be a whole number"),
            ("max-txn-ops: true", "must be a whole number"),
            ("max-request-bytes: 1500000.5", "must be a whole number"),
            ("warning-apply-duration: ''", "nanoseconds"),
            ("warning-apply-duration: 1.5", "nanoseconds"),
            ("pre-vote: 'true'", "true or false"),
            ("pre-vote: 1", "true or false"),
            (
                "socket-options: {reuse-port: x}",
                "'socket-options.reuse-port' must be true",
            ),
            ("socket-options: 5", "must hold keys"),
            ("discovery-config: {token: 5}", "must be a text"),
            (
                "client-transport-security: {cert-file: 5}",
                "must be a text",
            ),
            (
                "client-transport-security: {client-cert-auth: 'x'}",
                "true or false",
            ),
            ("name: [", "neither YAML nor JSON"),
            ("a: 1\n---\nb: 1", "more than one document"),
            ("client-transport-security: 3", "must hold keys"),
            ("3: 3", "not a text"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.0.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn values_are_read_in_every_way_that_etcd_reads_them() {
        for (text, flag, value) in [
            ("max-request-bytes: 1.5e6", "max-request-bytes", "1500000"),
            ("election-timeout: 1000.0", "election-timeout", "1000"),
            ("max-txn-ops: 0x10", "max-txn-ops", "16"),
            ("max-txn-ops: -1", "max-txn-ops", "-1"),
            ("NAME: a", "name", "a"),
            (
                "initial-cluster-token: 2020-01-01",
                "initial-cluster-token",
                "2020-01-01",
            ),
            (
                "warning-apply-duration: 1e9",
                "warning-apply-duration",
                "1000000000ns",
            ),
            ("warning-apply-duration: 5s", "warning-apply-duration", "5s"),
            (
                "auto-compaction-retention: 1.5h",
                "auto-compaction-retention",
                "1.5h",
            ),
            ("pre-vote: yes", "pre-vote", "true"),
            ("pre-vote: TRUE", "pre-vote", "true"),
            ("pre-vote: off", "pre-vote", "false"),
            ("metrics: ''", "metrics", ""),
            (
                "socket-options: {reuse-port: true}",
                "socket-reuse-port",
                "true",
            ),
            (
                "Socket-Options: {Reuse-Address: true}",
                "socket-reuse-address",
                "true",
            ),
            ("discovery-config: {token: x}", "discovery-token", "x"),
            (
                "discovery-config: {endpoints: [a, b]}",
                "discovery-endpoints",
                "a,b",
            ),
            (
                "discovery-config: {dial-timeout: 5}",
                "discovery-dial-timeout",
                "5ns",
            ),
        ] {
            let contents = read(text).unwrap();
            assert_eq!(contents.flags, [(flag, value.to_owned())], "{text}");
            assert!(contents.strays.is_empty(), "{text}");
        }
        for text in [
            "max-txn-ops:",
            "name: ~",
            "log-outputs: []",
            "socket-options:",
        ] {
            assert_eq!(read(text).unwrap().flags, [], "{text}");
        }
        let contents = read("discovery-config: {secure: {cert: x}}").unwrap();
        assert_eq!(contents.strays, ["discovery-config.secure"]);
    }
}
