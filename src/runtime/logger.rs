//! What the server tells its operator: one line per event, as JSON with zap's keys or as text.
//!
//! A line is handed to a thread of its own through a bounded queue, so an executor never waits
//! for a terminal, a pipe or a file; lines beyond the bound are counted and the count is told.

#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever looks into the server itself.
    Debug = 0,
    /// The course of things.
    Info = 1,
    /// Something to look at.
    Warn = 2,
    /// Something failed.
    Error = 3,
    /// The process ends.
    Fatal = 4,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// An object with the keys that zap gives etcd's lines: level, ts, caller, msg.
    Json = 0,
    /// Time, level, text.
    Console = 1,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Error,
    /// Standard output.
    Standard,
    /// The end of a file, which is made if it is missing.
    File(PathBuf),
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

/// The caller of lines that this file writes itself.
const HERE: &str = file!();

/// Lines that may wait to be written.
const LINES_WAITING: usize = 1024;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static FORMAT: AtomicU8 = AtomicU8::new(Format::Json as u8);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LINES: OnceLock<SyncSender<Line>> = OnceLock::new();
static FILES: OnceLock<Vec<Sink>> = OnceLock::new();

enum Line {
    Text(String),
    /// Everything before it has been written when the sender answers.
    Flush(SyncSender<()>),
}

/// An output that is open.
enum Sink {
    Error,
    Standard,
    File(File),
}

impl Sink {
    fn open(output: &Output) -> io::Result<Sink> {
        Ok(match output {
            Output::Error => Sink::Error,
            Output::Standard => Sink::Standard,
            Output::File(path) => {
                // Appended to, so that whoever rotates it may cut it.
                Sink::File(OpenOptions::new().create(true).append(true).open(path)?)
            }
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Error => io::stderr().lock().write_all(bytes),
            Sink::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Sink::File(file) => {
                let mut file = file;
                file.write_all(bytes)
            }
        }
    }
}

/// Opens the outputs and starts the writing thread. Before that, lines go to standard error and
/// are written by the caller. An error names the output that cannot be opened.
pub fn start(level: Level, format: Format, outputs: &[Output]) -> Result<(), String> {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
    let mut sinks = Vec::new();
    for output in outputs {
        let sink = Sink::open(output);
        sinks.push(sink.map_err(|error| match output {
            Output::File(path) => format!("the log file '{}': {error}", path.display()),
            Output::Error | Output::Standard => error.to_string(),
        })?);
    }
    // A second start keeps the outputs of the first.
    let _ = FILES.set(sinks);
    let (sender, receiver) = sync_channel(LINES_WAITING);
    let spawned = std::thread::Builder::new()
        .name("quoin-logger".to_owned())
        .spawn(move || write_lines(&receiver));
    if spawned.is_ok() {
        // A second start keeps the first thread; the new one ends with its sender.
        let _ = LINES.set(sender);
    }
    Ok(())
}

fn write_lines(lines: &Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        match line {
            Line::Text(text) => write_now(&text),
            Line::Flush(done) => {
                let _ = done.send(());
            }
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            write_now(&line_of(
                Level::Warn,
                HERE,
                format_args!("{dropped} lines were left out: the outputs of the log are too slow"),
            ));
        }
    }
}

fn write_now(text: &str) {
    // Nobody is left to tell if an output is gone.
    match FILES.get() {
        None => {
            let _ = Sink::Error.write(text.as_bytes());
        }
        Some(sinks) => {
            for sink in sinks {
                let _ = sink.write(text.as_bytes());
            }
        }
    }
}

/// Whether an event of that level is logged.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Logs one event. Never blocks once [`start`] was called.
pub fn log(level: Level, caller: &'static str, what: fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let text = line_of(level, caller, what);
    match LINES.get() {
        None => write_now(&text),
        Some(lines) => {
            if lines.try_send(Line::Text(text)).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits, for a moment at most, until what was logged has been written.
pub fn flush() {
    let Some(lines) = LINES.get() else {
        return;
    };
    let (done, written) = sync_channel(1);
    if lines.try_send(Line::Flush(done)).is_ok() {
        let _ = written.recv_timeout(Duration::from_secs(1));
    }
}

/// Ends the process on a failed sync or a broken invariant: nothing more is acknowledged.
pub fn fatal(what: fmt::Arguments<'_>) -> ! {
    end(Level::Fatal, what)
}

/// Ends the process at once because somebody insists, which is no fault of its own.
pub fn leave(what: fmt::Arguments<'_>) -> ! {
    end(Level::Warn, what)
}

fn end(level: Level, what: fmt::Arguments<'_>) -> ! {
    // Two threads may fail at once; one last message is clearer than two interleaved ones.
    static LAST_WORDS: Mutex<()> = Mutex::new(());
    let _only_one = LAST_WORDS.lock();
    flush();
    if enabled(level) {
        write_now(&line_of(level, HERE, what));
    }
    std::process::exit(2);
}

/// One line for one event.
fn line_of(level: Level, caller: &'static str, what: fmt::Arguments<'_>) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut text = String::with_capacity(192);
    if FORMAT.load(Ordering::Relaxed) == Format::Console as u8 {
        console_line(&mut text, now, level, what);
    } else {
        json_line(&mut text, now, level, caller, what);
    }
    text
}

/// `2026-01-31T12:00:00.000000Z info  text`, with line breaks in the text made harmless.
fn console_line(text: &mut String, now: Duration, level: Level, what: fmt::Arguments<'_>) {
    write_time(text, now);
    // Writing to a string does not fail, here and below.
    let _ = write!(text, " {:<5} ", level.name());
    let start = text.len();
    let _ = text.write_fmt(what);
    if text[start..].contains(['\n', '\r']) {
        let clean = text[start..].replace(['\n', '\r'], " | ");
        text.truncate(start);
        text.push_str(&clean);
    }
    text.push('\n');
}

/// `{"level":"info","ts":"2026-01-31T12:00:00.000000Z","caller":"runtime/server.rs:1","msg":"text"}`
fn json_line(
    text: &mut String,
    now: Duration,
    level: Level,
    caller: &'static str,
    what: fmt::Arguments<'_>,
) {
    let _ = write!(text, "{{\"level\":\"{}\",\"ts\":\"", level.name());
    write_time(text, now);
    let caller = caller.strip_prefix("src/").unwrap_or(caller);
    let message = crate::etcd::json::quoted(&what.to_string());
    let _ = writeln!(text, "\",\"caller\":\"{caller}\",\"msg\":{message}}}");
}

/// RFC 3339 in UTC, by the civil-from-days computation of the proleptic Gregorian calendar.
fn write_time(text: &mut String, now: Duration) {
    let seconds = now.as_secs();
    let days = seconds / 86_400;
    let of_day = seconds % 86_400;
    // Days since 0000-03-01, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        now.subsec_micros()
    );
}

/// Logs what only whoever looks into the server wants to know.
#[macro_export]
#[doc(hidden)]
macro_rules! log_debug {
    ($($arg:tt)*) => {
        $crate::runtime::logger::log(
            $crate::runtime::logger::Level::Debug,
            concat!(file!(), ":", line!()),
            format_args!($($arg)*),
        )
    };
}

/// Logs the course of things.
#[macro_export]
#[doc(hidden)]
macro_rules! log_info {
    ($($arg:tt)*) => {
        $crate::runtime::logger::log(
            $crate::runtime::logger::Level::Info,
            concat!(file!(), ":", line!()),
            format_args!($($arg)*),
        )
    };
}

/// Logs something to look at.
#[macro_export]
#[doc(hidden)]
macro_rules! log_warn {
    ($($arg:tt)*) => {
        $crate::runtime::logger::log(
            $crate::runtime::logger::Level::Warn,
            concat!(file!(), ":", line!()),
            format_args!($($arg)*),
        )
    };
}

/// Logs a failure.
#[macro_export]
#[doc(hidden)]
macro_rules! log_error {
    ($($arg:tt)*) => {
        $crate::runtime::logger::log(
            $crate::runtime::logger::Level::Error,
            concat!(file!(), ":", line!()),
            format_args!($($arg)*),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::{Level, console_line, json_line, write_time};
    use std::time::Duration;

    #[test]
    fn times_are_civil() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_772_323_199, "2026-02-28T23:59:59.000000Z"),
            (1_772_323_200, "2026-03-01T00:00:00.000000Z"),
        ] {
            let mut text = String::new();
            write_time(&mut text, Duration::from_secs(seconds));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn one_event_is_one_line() {
        let mut line = String::new();
        let what = format_args!("a\nb\r\nc");
        console_line(&mut line, Duration::ZERO, Level::Warn, what);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("warn  a | b |  | c\n"), "{line}");
    }

    #[test]
    fn json_has_the_keys_of_zap() {
        let mut line = String::new();
        let what = format_args!("a \"b\"\nc");
        json_line(&mut line, Duration::ZERO, Level::Info, "src/x.rs:7", what);
        let expected = r#"{"level":"info","ts":"1970-01-01T00:00:00.000000Z","caller":"x.rs:7","msg":"a \"b\"\nc"}"#;
        assert_eq!(line, format!("{expected}\n"));
    }
}
