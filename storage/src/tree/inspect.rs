//! Looking at a tree file page by page, damaged ones included: for the offline inspector.
#![forbid(unsafe_code)]

use super::api::TreeError;
use super::frames::Frames;
use crate::disk::Disk;
use crate::page::{COUNTED, Child, Meta, MetaFault, PAGE, Run, as_bytes, verify};
use std::fmt;
use std::sync::Arc;

/// Reads single pages of a tree file that nobody has open.
pub struct Inspector {
    frames: Arc<Frames>,
}

/// One tree page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageDump {
    /// The page's place in the file.
    pub id: u64,
    /// CRC32 of its bytes, as its parent's pointer should have it.
    pub crc: u32,
    /// Why it is not a well-formed tree page; then only `id` and `crc` mean anything. Pages of
    /// long values and of the bitmap have no form.
    pub fault: Option<&'static str>,
    /// 0 for a leaf.
    pub level: u8,
    /// The transaction that made it.
    pub txn: u64,
    /// Bytes in use by cells and slots.
    pub used: usize,
    /// Its cells in the order of their keys.
    pub cells: Vec<CellDump>,
}

/// One cell of a tree page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellDump {
    /// The key as stored; a long key's prefix.
    pub key: Vec<u8>,
    /// Where a long key lies.
    pub key_run: Option<Run>,
    /// Leaf: the entry is counted.
    pub counted: bool,
    /// Leaf: the value, unless it is long.
    pub value: Vec<u8>,
    /// Leaf: where a long value lies.
    pub value_run: Option<Run>,
    /// Branch: the child pointer.
    pub child: Option<Child>,
}

impl Inspector {
    /// Opens the tree file `name` for looking; changes nothing.
    pub fn open(disk: &dyn Disk, name: &str) -> Result<Inspector, TreeError> {
        let missing = TreeError::Corrupt {
            page: 0,
            what: "there is no such file",
        };
        if !disk.list()?.iter().any(|present| present == name) {
            return Err(missing);
        }
        let file = disk.open_pages(name, super::check::RESERVE)?;
        let pages = file.len()? / PAGE as u64;
        Ok(Inspector {
            frames: Arc::new(Frames::new(file, pages)),
        })
    }

    /// Pages in the file.
    pub fn pages(&self) -> u64 {
        self.frames.file_pages()
    }

    /// Both meta pages; `None` for one beyond the end of the file.
    pub fn metas(&self) -> [Option<Result<Meta, MetaFault>>; 2] {
        [0, 1].map(|slot| {
            let bytes = self.frames.idle_page(slot)?;
            Some(Meta::decode(bytes))
        })
    }

    /// One page; `None` beyond the end of the file.
    pub fn page(&self, id: u64) -> Option<PageDump> {
        let bytes = self.frames.idle_page(id)?;
        let mut dump = PageDump {
            id,
            crc: crc32fast::hash(bytes),
            fault: None,
            level: 0,
            txn: 0,
            used: 0,
            cells: Vec::new(),
        };
        let page = match verify(bytes, id) {
            Ok(page) => page,
            Err(fault) => {
                dump.fault = Some(fault);
                return Some(dump);
            }
        };
        dump.level = page.level();
        dump.txn = page.txn();
        dump.used = page.used();
        for index in 0..page.count() {
            let key_run = page.key_run(index);
            let value_run = page.is_leaf().then(|| page.value_run(index)).flatten();
            let prefix = if key_run.is_some() {
                crate::page::RUN_BYTES
            } else {
                0
            };
            dump.cells.push(CellDump {
                key: page.stored_key(index)[prefix..].to_vec(),
                key_run,
                counted: page.flags(index) & COUNTED != 0,
                value: match value_run {
                    None if page.is_leaf() => page.stored_value(index).to_vec(),
                    _ => Vec::new(),
                },
                value_run,
                child: (!page.is_leaf()).then(|| page.child(index)),
            });
        }
        debug_assert_eq!(as_bytes(page), bytes);
        Some(dump)
    }
}

/// Bytes as text where they are, else as escapes.
struct Text<'b>(&'b [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

struct RunText(Run);

impl fmt::Display for RunText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { id, crc, len } = self.0;
        write!(f, "{len} bytes at page {id} (crc {crc:08x})")
    }
}

impl fmt::Display for PageDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: crc {:08x}, ", self.id, self.crc)?;
        if let Some(fault) = self.fault {
            return writeln!(f, "no tree page: {fault}");
        }
        let kind = if self.level == 0 { "leaf" } else { "branch" };
        let (level, txn) = (self.level, self.txn);
        let (cells, used) = (self.cells.len(), self.used);
        writeln!(
            f,
            "{kind}, level {level}, transaction {txn}, {cells} cells in {used} bytes"
        )?;
        self.cells
            .iter()
            .try_for_each(|cell| writeln!(f, "  {cell}"))
    }
}

impl fmt::Display for CellDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Text(&self.key))?;
        if let Some(run) = self.key_run {
            write!(f, "... [{}]", RunText(run))?;
        }
        if let Some(child) = self.child {
            let Child { id, crc, counted } = child;
            return write!(f, " -> page {id} (crc {crc:08x}), {counted} counted");
        }
        match self.value_run {
            Some(run) => write!(f, " = [{}]", RunText(run))?,
            None => write!(f, " = {}", Text(&self.value))?,
        }
        f.write_str(if self.counted { " counted" } else { "" })
    }
}
