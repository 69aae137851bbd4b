//! Command-line flags: a table of what exists, and a parser that explains what is wrong.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// One flag a command understands.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name without the two dashes.
    pub name: &'static str,
    /// What its value is called in the help; `None` for a switch.
    pub value: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
}

/// A flag that takes a value.
pub const fn flag(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        value: Some(value),
        help,
    }
}

/// A flag that is there or not.
pub const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        value: None,
        help,
    }
}

/// The flags that were given.
#[derive(Debug, Default)]
pub struct Parsed {
    values: BTreeMap<&'static str, String>,
}

/// Reads `args` (`--name value`, `--name=value`) against the table of known flags.
pub fn parse(known: &[Flag], args: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(body) = arg.strip_prefix("--") else {
            return Err(format!("unexpected argument '{arg}'; flags start with --"));
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (body, None),
        };
        let Some(flag) = known.iter().find(|flag| flag.name == name) else {
            return Err(unknown_flag(known, name));
        };
        let value = match (flag.value, inline) {
            (None, None) => String::new(),
            (None, Some(_)) => return Err(format!("--{name} takes no value")),
            (Some(_), Some(value)) => value,
            (Some(what), None) => match args.next() {
                Some(value) if !value.starts_with("--") => value.clone(),
                _ => return Err(format!("--{name} needs a value: --{name} {what}")),
            },
        };
        if parsed.values.insert(flag.name, value).is_some() {
            return Err(format!("--{name} is given twice"));
        }
    }
    Ok(parsed)
}

fn unknown_flag(known: &[Flag], name: &str) -> String {
    let nearest = known
        .iter()
        .map(|flag| flag.name)
        .min_by_key(|flag| distance(flag, name));
    match nearest {
        Some(flag) if distance(flag, name) <= 3 => {
            format!("unknown flag --{name}; did you mean --{flag}?")
        }
        _ => format!("unknown flag --{name}; --help lists the flags"),
    }
}

/// How many letters must be inserted, dropped or replaced to turn one word into the other.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The help text of a table of flags.
pub fn help(known: &[Flag]) -> String {
    let mut text = String::new();
    for flag in known {
        let head = match flag.value {
            Some(value) => format!("--{} {value}", flag.name),
            None => format!("--{}", flag.name),
        };
        let _ = writeln!(text, "  {head:<30} {}", flag.help);
    }
    text
}

impl Parsed {
    /// Whether the flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of a flag as it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of a flag as one of the named choices.
    pub fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(format!(
                    "--{name} {text}: must be one of {}",
                    words.join(", ")
                ))
            }
        }
    }

    /// The value of a flag as a whole number within bounds.
    pub fn number(&self, name: &str, default: u64, min: u64, max: u64) -> Result<u64, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number = parse_number(text)
            .ok_or_else(|| format!("--{name} {text}: not a whole number (such as 1000 or 10k)"))?;
        if number < min || number > max {
            return Err(format!("--{name} {text}: must lie between {min} and {max}"));
        }
        Ok(number)
    }

    /// The value of a flag as a number that may have a fraction.
    pub fn fraction(&self, name: &str, min: f64, max: f64) -> Result<Option<f64>, String> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number: Option<f64> = parse_number(text)
            .map(|whole| whole as f64)
            .or_else(|| text.parse().ok());
        match number {
            Some(number) if number >= min && number <= max => Ok(Some(number)),
            Some(_) => Err(format!("--{name} {text}: must lie between {min} and {max}")),
            None => Err(format!("--{name} {text}: not a number")),
        }
    }

    /// The value of a flag as a span of time.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        parse_duration(text)
            .ok_or_else(|| format!("--{name} {text}: not a time span (such as 500ms, 10s, 2m)"))
    }
}

/// A whole number; `k`, `m` and `g` stand for thousands, millions and thousands of millions.
fn parse_number(text: &str) -> Option<u64> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'm' => (&text[..text.len() - 1], 1_000_000),
        b'g' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A span of time; a bare number counts seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        flag("keys", "N", "size"),
        flag("duration", "TIME", "how long"),
        switch("quiet", "hush"),
    ];

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn flags_are_read_in_both_forms() {
        let parsed = parse(KNOWN, &args("--keys 10k --duration=250ms --quiet")).unwrap();
        assert_eq!(parsed.number("keys", 1, 1, u64::MAX), Ok(10_000));
        assert_eq!(
            parsed.duration("duration", Duration::ZERO),
            Ok(Duration::from_millis(250))
        );
        assert!(parsed.has("quiet"));
        assert_eq!(parsed.number("absent", 7, 1, 10), Ok(7));
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |text: &str| parse(KNOWN, &args(text)).unwrap_err();
        assert_eq!(
            error("--kyes 5"),
            "unknown flag --kyes; did you mean --keys?"
        );
        assert_eq!(
            error("--zzzzzzzzzz"),
            "unknown flag --zzzzzzzzzz; --help lists the flags"
        );
        assert_eq!(error("--keys"), "--keys needs a value: --keys N");
        assert_eq!(error("--keys --quiet"), "--keys needs a value: --keys N");
        assert_eq!(error("--quiet=yes"), "--quiet takes no value");
        assert_eq!(error("--keys 1 --keys 2"), "--keys is given twice");
        assert_eq!(
            error("put"),
            "unexpected argument 'put'; flags start with --"
        );
    }

    #[test]
    fn values_are_checked() {
        let parsed = parse(KNOWN, &args("--keys 12x --duration soon")).unwrap();
        assert!(
            parsed
                .number("keys", 1, 1, 10)
                .unwrap_err()
                .contains("not a whole number")
        );
        assert!(
            parsed
                .duration("duration", Duration::ZERO)
                .unwrap_err()
                .contains("time span")
        );
        let parsed = parse(KNOWN, &args("--keys 0 --duration -1s")).unwrap();
        assert!(
            parsed
                .number("keys", 1, 1, 10)
                .unwrap_err()
                .contains("between 1 and 10")
        );
        assert!(parsed.duration("duration", Duration::ZERO).is_err());
        assert!(parsed.fraction("keys", 0.5, 2.0).is_err());
    }

    #[test]
    fn numbers_and_times() {
        assert_eq!(parse_number("100_000"), Some(100_000));
        assert_eq!(parse_number("5m"), Some(5_000_000));
        assert_eq!(parse_number(""), None);
        assert_eq!(parse_number("99999999999999999999"), None);
        assert_eq!(parse_number("99999999999999g"), None);
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("3d"), None);
    }
}
