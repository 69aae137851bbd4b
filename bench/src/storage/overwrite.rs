//! The space that steady overwriting takes, with compaction down to the live keys.

use super::engine::Engine;
use super::{Failure, Options, VALUE_LEN};
use crate::args::Parsed;
use crate::keys::Random;
use quoin_storage::mvcc::compact;

/// The bar: the file's bytes over the live bytes.
const BAR: f64 = 2.0;

/// Overwrites random keys, a compaction to the newest revision every few commits, and reports
/// the tree file's size beside the live bytes; `false` if the bar was asked for and is missed.
pub fn overwrite(args: &Parsed) -> Result<bool, Failure> {
    let options = Options::from_args(args)?;
    let dir = options.dir()?;
    let mut engine = Engine::open(dir.path(), options.checkpoint_bytes)?;
    let keys: Vec<u64> = (0..options.keys).collect();
    for batch in keys.chunks(options.batch) {
        engine.commit(batch, 0, 0)?;
    }
    // Key, value, and what an event costs beside them.
    let live = options.keys * (24 + VALUE_LEN as u64 + quoin_storage::mvcc::EVENT_COST);
    let plain = options.keys * (24 + VALUE_LEN as u64);
    let mut random = Random::new(7);
    let mut worst: f64 = 0.0;
    let mut batch = Vec::with_capacity(options.batch);
    println!("   puts     file MiB   file/live   file/(keys+values)");
    for round in 1..=options.rounds {
        let mut left = options.puts;
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
        }
        let file = engine.file_bytes()?;
        let ratio = file as f64 / live as f64;
        println!(
            "{:>8} {:>11} {ratio:>11.2} {:>12.2}   ({})",
            round as u64 * options.puts,
            file >> 20,
            file as f64 / plain as f64,
            engine.pages()
        );
        worst = worst.max(ratio);
    }
    let met = worst <= BAR;
    println!(
        "worst {worst:.2}, bar {BAR}: {}",
        if met { "met" } else { "missed" }
    );
    Ok(met || !options.bars)
}
