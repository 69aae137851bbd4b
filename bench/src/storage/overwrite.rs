//! The space that steady overwriting takes, with compaction down to the live keys.

use super::engine::Engine;
use super::{Failure, Options, VALUE_LEN};
use crate::args::Parsed;
use crate::keys::Random;
use quoin_storage::mvcc::compact;
use std::path::Path;
use std::time::Instant;

/// The bar: the file's bytes over the live bytes.
pub const BAR: f64 = 2.0;

/// Commits between two looks at the file.
const LOOK: u64 = 8;

/// Overwrites random keys, a compaction to the newest revision every few commits, and reports
/// the most blocks that the tree file took beside the live bytes; `false` if the bar was asked
/// for and is missed.
pub fn overwrite(args: &Parsed) -> Result<bool, Failure> {
    let options = Options::from_args(args)?;
    let (most, live) = space_of(&options)?;
    let worst = most as f64 / live as f64;
    let met = worst <= BAR;
    println!(
        "worst {worst:.2}, bar {BAR}: {}",
        if met { "met" } else { "missed" }
    );
    Ok(met || !options.bars)
}

/// The most bytes of blocks that the tree file took meanwhile, and the live bytes, in a directory
/// that it makes under `dir`.
pub fn space(rounds: usize, dir: &Path) -> Result<(u64, u64), Failure> {
    space_of(&Options {
        rounds,
        dir: Some(dir.to_path_buf()),
        ..Options::default()
    })
}

fn space_of(options: &Options) -> Result<(u64, u64), Failure> {
    let dir = options.dir()?;
    let mut engine = Engine::open(dir.path(), options.checkpoint_bytes)?;
    let keys: Vec<u64> = (0..options.keys).collect();
    for batch in keys.chunks(options.batch) {
        engine.commit(batch, 0, 0)?;
    }
    // Key, value, and what an event costs beside them: what the quota counts.
    let live = options.keys * (24 + VALUE_LEN as u64 + quoin_storage::mvcc::EVENT_COST);
    let plain = options.keys * (24 + VALUE_LEN as u64);
    let mut random = Random::new(7);
    let mut worst = 0;
    let mut batch = Vec::with_capacity(options.batch);
    println!("live bytes: {:.1} MiB", live as f64 / (1 << 20) as f64);
    println!("    puts   puts/s  blocks MiB (most)  of live  of keys+values  all sizes in MiB");
    let mut commits = 0;
    for round in 1..=options.rounds {
        let mut left = options.puts;
        let mut most = 0;
        let started = Instant::now();
        while left > 0 {
            batch.clear();
            let size = left.min(options.batch as u64);
            batch.extend((0..size).map(|_| random.below(options.keys)));
            // The purge keeps up: each step looks at more events than a commit makes.
            engine.commit(&batch, round as u64, 2 * options.batch)?;
            if !engine.meta.purge_pending() {
                let newest = engine.meta.revision;
                compact(&mut engine.meta, newest)?;
            }
            left -= size;
            commits += 1;
            if commits % LOOK == 0 || left == 0 {
                most = most.max(engine.file_bytes()?);
            }
        }
        let rate = options.puts as f64 / started.elapsed().as_secs_f64();
        let ratio = most as f64 / live as f64;
        println!(
            "{:>8} {rate:>8.0} {:>18.1} {ratio:>8.2} {:>15.2}  {}",
            round as u64 * options.puts,
            most as f64 / (1 << 20) as f64,
            most as f64 / plain as f64,
            engine.pages()?
        );
        worst = worst.max(most);
    }
    Ok((worst, live))
}
