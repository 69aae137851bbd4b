//! Data directories as text.

use crate::{Stop, failed};
use quoin::runtime::data_dir::{Identity, LOG_PREFIX, TREE};
use quoin_storage::disk::Disk;
use quoin_storage::log::{self, Inspected};
use quoin_storage::mvcc;
use quoin_storage::page::{Meta, PAGE};
use quoin_storage::tree::{CheckReport, Inspector};
use std::io::Write;

const TREES: [&str; 3] = ["key tree", "revision tree", "state tree"];

pub fn identity(identity: &Identity, out: &mut dyn Write) -> Result<(), Stop> {
    writeln!(out, "cluster id    {:016x}", identity.cluster_id)?;
    writeln!(out, "member id     {:016x}", identity.member_id)?;
    writeln!(out, "starts so far {}", identity.boot_epoch)?;
    Ok(writeln!(out, "log id        {:016x}", identity.log_id)?)
}

pub fn tree_report(report: &CheckReport, out: &mut dyn Write) -> Result<(), Stop> {
    writeln!(
        out,
        "tree: sound, checkpoint {}, {} pages in use, {} free",
        report.generation, report.live_pages, report.free_pages
    )?;
    for (at, name) in TREES.iter().enumerate() {
        writeln!(
            out,
            "     {name}: {} entries ({} counted), {} levels, {} leaves filled to {}%",
            report.entries[at],
            report.counted[at],
            report.levels[at],
            report.leaves[at],
            100 * report.leaf_bytes[at] / (report.leaves[at] * PAGE as u64).max(1)
        )?;
    }
    if !report.both_metas {
        writeln!(out, "     one of the two meta pages is not valid")?;
    }
    Ok(())
}

/// The tree file, for looking.
fn inspector(disk: &dyn Disk) -> Result<Inspector, Stop> {
    Inspector::open(disk, TREE).map_err(failed)
}

pub fn metas(disk: &dyn Disk, out: &mut dyn Write) -> Result<(), Stop> {
    if !disk.list().map_err(failed)?.iter().any(|name| name == TREE) {
        return Ok(writeln!(
            out,
            "there is no tree file yet; the log holds all"
        )?);
    }
    for (slot, meta) in inspector(disk)?.metas().into_iter().enumerate() {
        match meta {
            Some(Ok(meta)) => one_meta(slot as u64, &meta, out)?,
            Some(Err(fault)) => writeln!(out, "meta page {slot}: {fault}")?,
            None => writeln!(out, "meta page {slot}: beyond the end of the file")?,
        }
    }
    Ok(())
}

fn one_meta(slot: u64, meta: &Meta, out: &mut dyn Write) -> Result<(), Stop> {
    writeln!(
        out,
        "meta page {slot}: checkpoint {}, transaction {}",
        meta.generation, meta.txn
    )?;
    writeln!(out, "  pages: {} in use of {}", meta.live, meta.end)?;
    for (root, name) in meta.roots.iter().zip(TREES) {
        writeln!(
            out,
            "  {name}: root page {}, crc {:08x}, level {}, {} counted",
            root.id, root.crc, root.level, root.counted
        )?;
    }
    match mvcc::Meta::decode(&meta.user) {
        Ok(state) => {
            writeln!(
                out,
                "  revision {}, compacted {}",
                state.revision, state.compacted
            )?;
            let (index, term) = (state.applied_index, state.applied_term);
            writeln!(out, "  applied index {index}, term {term}")?;
        }
        Err(_) if meta.user.is_empty() => writeln!(out, "  nothing was ever written")?,
        Err(error) => writeln!(out, "  the store's own record: {error}")?,
    }
    Ok(())
}

pub fn page(disk: &dyn Disk, number: u64, out: &mut dyn Write) -> Result<(), Stop> {
    let inspector = inspector(disk)?;
    if number < 2 {
        return match &inspector.metas()[number as usize] {
            Some(Ok(meta)) => one_meta(number, meta, out),
            Some(Err(fault)) => Err(Stop::Damaged(fault.to_string())),
            None => Err(failed("there is no such page")),
        };
    }
    let dump = inspector
        .page(number)
        .ok_or_else(|| failed("there is no such page"))?;
    if let Some(what) = dump.fault {
        return Err(Stop::Damaged(format!(
            "page {number}: {what} (or it is free, or part of a long value)"
        )));
    }
    Ok(write!(out, "{dump}")?)
}

/// Shows what is in the log's files; how many segments are in use.
pub fn log(disk: &dyn Disk, out: &mut dyn Write) -> Result<usize, Stop> {
    let mut written = Ok(());
    let mut segments = 0;
    log::inspect(disk, LOG_PREFIX, &mut |found| {
        segments += usize::from(matches!(found, Inspected::Segment { .. }));
        if written.is_ok() {
            written = record(&found, out);
        }
    })
    .map_err(|e| Stop::Damaged(e.to_string()))?;
    written.map(|()| segments)
}

fn record(found: &Inspected<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    match found {
        Inspected::Segment {
            file,
            bytes,
            sequence,
            oldest,
            last_index,
            damaged_copies,
            ..
        } => {
            writeln!(
                out,
                "{file}: segment {sequence}, {bytes} bytes, begins after index {last_index}, \
                 oldest segment needed {oldest}, {damaged_copies} header copies damaged"
            )?;
        }
        Inspected::NoSegment { file, bytes, zeros } => {
            let what = if *zeros {
                "spare, never used"
            } else {
                "no readable header"
            };
            writeln!(out, "{file}: {bytes} bytes, {what}")?;
        }
        Inspected::Batch {
            byte,
            bytes,
            records,
            ..
        } => {
            writeln!(
                out,
                "  byte {byte}: batch of {bytes} bytes, {records} records"
            )?;
        }
        Inspected::State {
            byte,
            hard_state,
            cut_index,
            ..
        } => {
            let log::HardState { term, vote, commit } = hard_state;
            writeln!(
                out,
                "    byte {byte}: state: term {term}, vote {vote:x}, commit {commit}, \
                 cut to index {cut_index}"
            )?;
        }
        Inspected::Entry { byte, entry, .. } => {
            writeln!(
                out,
                "    byte {byte}: entry: index {} term {}, kind {}, {} bytes",
                entry.index,
                entry.term,
                entry.kind,
                entry.data.len()
            )?;
        }
        Inspected::End {
            byte,
            bad,
            found,
            acknowledged,
            behind,
            ..
        } => {
            let durable = if *acknowledged {
                "all before it confirmed"
            } else {
                "the last batch unconfirmed"
            };
            writeln!(out, "  byte {byte}: end ({found} at byte {bad}), {durable}")?;
            if !behind.is_empty() {
                writeln!(out, "  more batches behind it, at {behind:?}")?;
            }
        }
    }
    Ok(())
}
