//! Data directories as text.

use crate::{Stop, failed};
use quoin::runtime::data_dir::{Identity, LOG_PREFIX};
use quoin_storage::disk::Disk;
use quoin_storage::log::{self, Inspected};
use quoin_storage::mvcc;
use quoin_storage::page::{self, COUNTED, Meta, PAGE, Page, PageBytes};
use quoin_storage::tree::CheckReport;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

const TREES: [&str; 3] = ["key tree", "revision tree", "state tree"];

/// Bytes of a key that are shown.
const KEY_SHOWN: usize = 64;

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

fn read_page(tree: &Path, number: u64) -> Result<Box<PageBytes>, Stop> {
    let file = File::open(tree).map_err(|e| failed(format_args!("{}: {e}", tree.display())))?;
    let mut bytes: Box<PageBytes> = Box::new([0; PAGE]);
    let offset = number
        .checked_mul(PAGE as u64)
        .ok_or_else(|| failed("there is no such page"))?;
    file.read_exact_at(&mut bytes[..], offset)
        .map_err(|e| failed(format_args!("page {number} of {}: {e}", tree.display())))?;
    Ok(bytes)
}

pub fn metas(tree: &Path, out: &mut dyn Write) -> Result<(), Stop> {
    if !tree.exists() {
        return Ok(writeln!(
            out,
            "there is no tree file yet; the log holds all"
        )?);
    }
    for slot in 0..2 {
        match Meta::decode(&*read_page(tree, slot)?) {
            Ok(meta) => one_meta(slot, &meta, out)?,
            Err(fault) => writeln!(out, "meta page {slot}: {fault}")?,
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

pub fn page(tree: &Path, number: u64, out: &mut dyn Write) -> Result<(), Stop> {
    let bytes = read_page(tree, number)?;
    if number < 2 {
        let meta = Meta::decode(&bytes).map_err(|fault| Stop::Damaged(fault.to_string()))?;
        return one_meta(number, &meta, out);
    }
    let page = page::verify(&bytes, number).map_err(|what| {
        Stop::Damaged(format!(
            "page {number}: {what} (or it is free, or part of a long value)"
        ))
    })?;
    let kind = if page.is_leaf() { "leaf" } else { "branch" };
    writeln!(
        out,
        "page {number}: {kind}, level {}, transaction {}, {} cells in {} bytes, crc {:08x}",
        page.level(),
        page.txn(),
        page.count(),
        page.used(),
        crc32fast::hash(&bytes[..])
    )?;
    for index in 0..page.count() {
        cell(page, index, out)?;
    }
    Ok(())
}

fn cell(page: &Page, index: usize, out: &mut dyn Write) -> Result<(), Stop> {
    write!(out, "  {index:3} ")?;
    match page.key_run(index) {
        Some(run) => write!(out, "key of {} bytes at page {}", run.len, run.id)?,
        None => write!(out, "key {}", shown(page.stored_key(index)))?,
    }
    if !page.is_leaf() {
        let child = page.child(index);
        let (id, crc, counted) = (child.page(), child.crc, child.counted);
        return Ok(writeln!(
            out,
            " -> page {id}, crc {crc:08x}, {counted} counted"
        )?);
    }
    match page.value_run(index) {
        Some(run) => write!(out, ", value of {} bytes at page {}", run.len, run.id)?,
        None => write!(out, ", value of {} bytes", page.stored_value(index).len())?,
    }
    let counted = if page.flags(index) & COUNTED != 0 {
        ", counted"
    } else {
        ""
    };
    Ok(writeln!(out, "{counted}")?)
}

/// The start of a key, printable.
fn shown(key: &[u8]) -> String {
    let dots = if key.len() > KEY_SHOWN { "..." } else { "" };
    format!(
        "\"{}\"{dots}",
        key[..key.len().min(KEY_SHOWN)].escape_ascii()
    )
}

pub fn log(disk: &dyn Disk, out: &mut dyn Write) -> Result<(), Stop> {
    let mut written = Ok(());
    log::inspect(disk, LOG_PREFIX, &mut |found| {
        if written.is_ok() {
            written = record(&found, out);
        }
    })
    .map_err(|e| Stop::Damaged(e.to_string()))?;
    written
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
