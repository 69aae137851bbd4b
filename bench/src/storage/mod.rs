//! The storage engine alone: quoin's revisions over its tree beside LMDB, in one process, neither
//! of them synced at commit; and the space that steady overwriting takes.

#[cfg(feature = "lmdb")]
mod lmdb;

mod engine;

mod overwrite;

use crate::args::{Flag, Parsed, flag, switch};
use crate::keys::Random;
use engine::Engine;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use overwrite::{BAR as SPACE_BAR, overwrite, space};

/// Why a run failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The flags of both commands.
pub const FLAGS: &[Flag] = &[
    flag("keys", "N", "keys in the store (100000)"),
    flag(
        "puts",
        "N",
        "puts in each measured window (800000; 500000 from a million keys on)",
    ),
    flag("gets", "N", "gets in each measured window (500000)"),
    flag("rounds", "N", "rounds, in which the sides take turns (5)"),
    flag("batch", "N", "puts in one commit (1000)"),
    flag(
        "dir",
        "PATH",
        "where the files go (a new directory under the working directory)",
    ),
    flag(
        "checkpoint-mib",
        "N",
        "new pages after which a checkpoint is due (64)",
    ),
    flag("only", "SIDE", "quoin or lmdb alone, for a profile"),
    switch("bars", "exit with 1 if a bar is missed"),
];

/// Bytes of a value.
const VALUE_LEN: usize = 256;

/// The key with that number: 24 bytes, scattered over the key space.
fn key(n: u64) -> [u8; 24] {
    let mut random = Random::new(n.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let mut key = [0; 24];
    for part in key.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_be_bytes());
    }
    key
}

fn value(n: u64, stamp: u64) -> [u8; VALUE_LEN] {
    let mut value = [n as u8; VALUE_LEN];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value[8..16].copy_from_slice(&stamp.to_le_bytes());
    value
}

/// One of the stores that are compared.
trait Side {
    fn name(&self) -> &'static str;
    /// Puts these keys in one commit.
    fn put(&mut self, keys: &[u64], stamp: u64) -> Result<(), Failure>;
    /// Reads these keys in one snapshot; returns something that depends on every value.
    fn get(&mut self, keys: &[u64]) -> Result<u64, Failure>;
    /// Called when a window of puts begins.
    fn begin(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// Called when it ends; says what there is to say about it.
    fn end(&mut self) -> Result<String, Failure> {
        Ok(String::new())
    }
}

/// What the command line asks for.
struct Options {
    keys: u64,
    puts: u64,
    gets: u64,
    rounds: usize,
    batch: usize,
    dir: Option<PathBuf>,
    checkpoint_bytes: u64,
    only: Option<&'static str>,
    bars: bool,
}

/// So many puts that three checkpoints at least fall into the window: puts of few keys share pages.
fn usual_puts(keys: u64) -> u64 {
    match keys < 1_000_000 {
        true => 800_000,
        false => 500_000,
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            keys: 100_000,
            puts: usual_puts(100_000),
            gets: 500_000,
            rounds: 5,
            batch: 1000,
            dir: None,
            checkpoint_bytes: 64 << 20,
            only: None,
            bars: false,
        }
    }
}

impl Options {
    fn from_args(parsed: &Parsed) -> Result<Options, String> {
        let usual = Options::default();
        let number = |name, default| parsed.number(name, default, 1, u32::MAX.into());
        let only = parsed.choice(
            "only",
            &[("quoin", Some("quoin")), ("lmdb", Some("lmdb"))],
            None,
        )?;
        let keys = number("keys", usual.keys)?;
        Ok(Options {
            keys,
            puts: number("puts", usual_puts(keys))?,
            gets: number("gets", usual.gets)?,
            rounds: number("rounds", usual.rounds as u64)? as usize,
            batch: number("batch", usual.batch as u64)? as usize,
            dir: parsed.text("dir").map(PathBuf::from),
            checkpoint_bytes: number("checkpoint-mib", usual.checkpoint_bytes >> 20)? << 20,
            only,
            bars: parsed.has("bars"),
        })
    }

    fn dir(&self) -> Result<tempfile::TempDir, Failure> {
        let parent = self.dir.as_deref().unwrap_or(Path::new("."));
        let ours = std::fs::Permissions::from_mode(0o700);
        Ok(tempfile::Builder::new()
            .permissions(ours)
            .tempdir_in(parent)?)
    }
}

/// Puts and gets a second of one side, one figure for each round.
#[derive(Default)]
struct Figures {
    puts: Vec<f64>,
    gets: Vec<f64>,
}

/// What must be reached beside LMDB with so many keys: of its puts, and of its gets.
pub fn bars(keys: u64) -> (f64, f64) {
    (if keys >= 5_000_000 { 1.5 } else { 0.8 }, 0.5)
}

/// Puts, and gets, a second: quoin's and LMDB's of each round.
pub struct Rounds {
    /// Puts.
    pub puts: Vec<(f64, f64)>,
    /// Gets.
    pub gets: Vec<(f64, f64)>,
}

/// Measures both with so many keys, in a directory that it makes under `dir`.
pub fn beside_lmdb(keys: u64, rounds: usize, dir: &Path) -> Result<Rounds, Failure> {
    let figures = measure(&Options {
        keys,
        puts: usual_puts(keys),
        rounds,
        dir: Some(dir.to_path_buf()),
        ..Options::default()
    })?;
    let [ours, theirs] = &figures[..] else {
        return Err("one side was not measured".into());
    };
    Ok(Rounds {
        puts: std::iter::zip(ours.puts.clone(), theirs.puts.clone()).collect(),
        gets: std::iter::zip(ours.gets.clone(), theirs.gets.clone()).collect(),
    })
}

/// Runs the comparison; `false` if a bar that was asked for is missed.
pub fn compare(args: &Parsed) -> Result<bool, Failure> {
    let options = Options::from_args(args)?;
    let figures = measure(&options)?;
    let [ours, theirs] = &figures[..] else {
        return Ok(true);
    };
    let (put_bar, get_bar) = bars(options.keys);
    let puts = ratio("put", &ours.puts, &theirs.puts, put_bar);
    let gets = ratio("get", &ours.gets, &theirs.gets, get_bar);
    Ok(!options.bars || (puts && gets))
}

/// Measures the sides in turn; ours first.
fn measure(options: &Options) -> Result<Vec<Figures>, Failure> {
    let (ours_dir, theirs_dir) = (options.dir()?, options.dir()?);
    let mut sides: Vec<Box<dyn Side>> = Vec::new();
    if options.only != Some("lmdb") {
        sides.push(Box::new(Engine::open(
            ours_dir.path(),
            options.checkpoint_bytes,
        )?));
    }
    if options.only != Some("quoin") {
        sides.push(lmdb(theirs_dir.path(), options)?);
    }
    println!(
        "{} keys of 24 bytes, values of {VALUE_LEN}, {} puts a commit, no sync at commit",
        options.keys, options.batch
    );
    for side in &mut sides {
        load(side.as_mut(), options)?;
    }
    let mut figures: Vec<Figures> = sides.iter().map(|_| Figures::default()).collect();
    for round in 0..options.rounds {
        for turn in 0..sides.len() {
            // Who goes first changes with every round.
            let at = (turn + round) % sides.len();
            let seed = 1 + round as u64;
            let figures = &mut figures[at];
            let side = sides[at].as_mut();
            let before = cpu_ns();
            let (puts, note) = put_window(side, options, seed)?;
            let between = cpu_ns();
            let gets = get_window(side, options, seed)?;
            let put_us = per_op_us(before, between, options.puts);
            let get_us = per_op_us(between, cpu_ns(), options.gets);
            println!(
                "round {round} {:>6}: {puts:>9.0} puts/s {gets:>9.0} gets/s, \
                 cpu {put_us} us a put, {get_us} us a get  {note}",
                side.name()
            );
            figures.puts.push(puts);
            figures.gets.push(gets);
        }
    }
    Ok(figures)
}

#[cfg(feature = "lmdb")]
fn lmdb(dir: &Path, options: &Options) -> Result<Box<dyn Side>, Failure> {
    let map_bytes = usize::try_from(options.keys * 4096 + (4 << 30))?;
    Ok(Box::new(lmdb::Lmdb::open(dir, map_bytes)?))
}

#[cfg(not(feature = "lmdb"))]
fn lmdb(_: &Path, _: &Options) -> Result<Box<dyn Side>, Failure> {
    Err("built without LMDB (--features lmdb); --only quoin measures quoin alone".into())
}

/// Writes every key once, in a scattered order.
fn load(side: &mut dyn Side, options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let keys: Vec<u64> = (0..options.keys).collect();
    for batch in keys.chunks(options.batch) {
        side.put(batch, 0)?;
    }
    let rate = options.keys as f64 / started.elapsed().as_secs_f64();
    println!("load    {:>6}: {rate:>9.0} puts/s", side.name());
    Ok(())
}

fn put_window(side: &mut dyn Side, o: &Options, seed: u64) -> Result<(f64, String), Failure> {
    let mut random = Random::new(seed);
    let mut batch = Vec::with_capacity(o.batch);
    side.begin()?;
    let started = Instant::now();
    let mut left = o.puts;
    while left > 0 {
        batch.clear();
        batch.extend((0..left.min(o.batch as u64)).map(|_| random.below(o.keys)));
        side.put(&batch, seed)?;
        left -= batch.len() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok((o.puts as f64 / seconds, side.end()?))
}

fn get_window(side: &mut dyn Side, o: &Options, seed: u64) -> Result<f64, Failure> {
    let mut random = Random::new(!seed);
    let mut batch = Vec::with_capacity(o.batch);
    let (mut sum, mut expected) = (0, 0);
    let started = Instant::now();
    let mut left = o.gets;
    while left > 0 {
        batch.clear();
        batch.extend((0..left.min(o.batch as u64)).map(|_| random.below(o.keys)));
        sum += side.get(&batch)?;
        expected += batch.iter().map(|&n| u64::from(n as u8)).sum::<u64>();
        left -= batch.len() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    if sum != expected {
        return Err(format!("{} returned other values than were put", side.name()).into());
    }
    Ok(o.gets as f64 / seconds)
}

/// Time that this thread has spent on a core, if the kernel tells: unlike the clock's, it does not
/// count the time of others on a busy machine.
fn cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn per_op_us(from: Option<u64>, to: Option<u64>, operations: u64) -> String {
    match (from, to) {
        (Some(from), Some(to)) => {
            let ns = to.saturating_sub(from) as f64;
            format!("{:.2}", ns / 1000.0 / operations as f64)
        }
        _ => "?".to_string(),
    }
}

/// Prints the ratio of the medians and the spread of the rounds' ratios; says whether the bar is
/// met.
fn ratio(what: &str, ours: &[f64], theirs: &[f64], bar: f64) -> bool {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let met = median >= bar;
    println!(
        "{what}: {:.0} quoin, {:.0} lmdb; ratio {median:.2} ({:.2} to {:.2}), bar {bar}: {}",
        middle(ours),
        middle(theirs),
        ratios[0],
        ratios[ratios.len() - 1],
        if met { "met" } else { "missed" }
    );
    met
}

fn middle(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
