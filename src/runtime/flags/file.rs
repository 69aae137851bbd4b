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

/// The sections that etcd gives the flags of TLS, and what stands before their names as flags.
const SECTIONS: &[(&str, &str)] = &[
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
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
                match SECTIONS.iter().find(|(section, _)| *section == key) {
                    Some((_, prefix)) => contents.take_section(key, prefix, value)?,
                    None => contents.take(key, key, value)?,
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
            let flag = match key {
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
        let text = match value {
            Yaml::Null => return Ok(()),
            // A bare number is a duration in nanoseconds.
            Yaml::Integer(number) if flag.takes == Takes::Duration => format!("{number}ns"),
            Yaml::Array(items) => {
                let texts: Option<Vec<String>> = items.iter().map(scalar).collect();
                let joined = texts.map(|texts| texts.join(","));
                joined.ok_or_else(|| wrong(shown))?
            }
            other => scalar(other).ok_or_else(|| wrong(shown))?,
        };
        self.flags.push((flag.name, text));
        Ok(())
    }
}

/// Not one of those that print something or name the file itself.
fn is_key(flag: &known::Flag) -> bool {
    flag.is_setting() && flag.name != "config-file"
}

fn wrong(key: &str) -> FlagError {
    FlagError(format!(
        "--config-file: the value of '{key}' is neither a text, a number, true, false, nor a list \
         of such"
    ))
}

fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(truth) => Some(truth.to_string()),
        Yaml::Null => Some(String::new()),
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
            ("name: {a: b}", "'name' is neither"),
            ("name: [", "neither YAML nor JSON"),
            ("a: 1\n---\nb: 1", "more than one document"),
            ("client-transport-security: 3", "must hold keys"),
            ("3: 3", "not a text"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.0.contains(why), "{text}: {refused}");
        }
    }
}
