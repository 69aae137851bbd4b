//! The two meta pages, pages 0 and 1 of the file: each names one durable state of the tree, and
//! both the same one but for the moment between two writes at a checkpoint's end.
//!
//! ```text
//!   0  [u8; 8]  magic        "quointr\x01"
//!   8  u32      version      of the format, 1
//!  12  u32      page size    4096
//!  16  u64      generation   number of the checkpoint
//!  24  u64      txn          the transaction whose state this is
//!  32  u64      end          pages of the file in use, the free ones among them
//!  40  u64      live         pages in use by this state, metas and free-space bitmap included
//!  48  3 roots of 24 bytes: u64 page (0: empty tree), u32 CRC32 of it, u32 level,
//!                           u64 counted entries
//! 120  free-space bitmap: u64 first page, u32 CRC32, u32 bytes
//! 136  u32      user bytes
//! 140  [u8; 1024] user       opaque; zeros behind its length
//! 1164 zeros
//! 4092 u32      CRC32 of bytes 0 to 4092
//! ```
#![forbid(unsafe_code)]

use super::cell::{RUN_BYTES, Run};
use super::layout::{DIRTY, LEVEL_MAX, PAGE, PageBytes};
use rkyv::Portable;
use rkyv::bytecheck::CheckBytes;
use rkyv::primitive::{ArchivedU32, ArchivedU64};
use rkyv::rancor::Failure;
use std::fmt;

/// Version of the tree file's format.
pub const META_VERSION: u32 = 1;
/// Longest user blob.
pub const USER_MAX: usize = 1024;

const MAGIC: [u8; 8] = *b"quointr\x01";
const TREES: usize = 3;
const CRC_AT: usize = PAGE - 4;
const FILL: usize = PAGE - 140 - USER_MAX - 4;

/// The root of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Root {
    /// The root page; 0 for an empty tree, perhaps with the dirty mark inside a transaction.
    pub id: u64,
    /// CRC32 of the root page.
    pub crc: u32,
    /// Level of the root page; 0 is a leaf.
    pub level: u8,
    /// Counted entries in the tree.
    pub counted: u64,
}

/// What a meta page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Number of the checkpoint that wrote it.
    pub generation: u64,
    /// The transaction whose state this is.
    pub txn: u64,
    /// Pages of the file in use.
    pub end: u64,
    /// Pages in use by this state.
    pub live: u64,
    /// The roots of the trees.
    pub roots: [Root; TREES],
    /// The bitmap of pages in use; `len` in bytes.
    pub bitmap: Run,
    /// The user's bytes.
    pub user: Vec<u8>,
}

/// Why a meta page cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaFault {
    /// No meta page of this kind of file.
    Foreign,
    /// A version that this program does not know.
    Version(u32),
    /// The checksum does not match, or a field is out of its range.
    Damaged,
}

impl fmt::Display for MetaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaFault::Foreign => f.write_str("not a meta page of a tree file"),
            MetaFault::Version(v) => write!(f, "format version {v} is not known"),
            MetaFault::Damaged => f.write_str("damaged meta page"),
        }
    }
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct RootLayout {
    id: ArchivedU64,
    crc: ArchivedU32,
    level: ArchivedU32,
    counted: ArchivedU64,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct MetaLayout {
    magic: [u8; 8],
    version: ArchivedU32,
    page_size: ArchivedU32,
    generation: ArchivedU64,
    txn: ArchivedU64,
    end: ArchivedU64,
    live: ArchivedU64,
    roots: [RootLayout; TREES],
    bitmap: [u8; RUN_BYTES],
    user_len: ArchivedU32,
    user: [u8; USER_MAX],
    fill: [u8; FILL],
    crc: ArchivedU32,
}

const _: () = assert!(size_of::<MetaLayout>() == PAGE);

impl Meta {
    /// Reads a meta page.
    pub fn decode(bytes: &PageBytes) -> Result<Meta, MetaFault> {
        let layout = rkyv::access::<MetaLayout, Failure>(bytes).map_err(|_| MetaFault::Damaged)?;
        if layout.magic != MAGIC {
            return Err(MetaFault::Foreign);
        }
        if crc32fast::hash(&bytes[..CRC_AT]) != layout.crc.to_native() {
            return Err(MetaFault::Damaged);
        }
        if layout.version.to_native() != META_VERSION {
            return Err(MetaFault::Version(layout.version.to_native()));
        }
        let user_len = layout.user_len.to_native() as usize;
        if layout.page_size.to_native() as usize != PAGE || user_len > USER_MAX {
            return Err(MetaFault::Damaged);
        }
        let mut roots = [Root::default(); TREES];
        for (root, layout) in roots.iter_mut().zip(&layout.roots) {
            let level = u8::try_from(layout.level.to_native()).unwrap_or(u8::MAX);
            *root = Root {
                id: layout.id.to_native(),
                crc: layout.crc.to_native(),
                level,
                counted: layout.counted.to_native(),
            };
            if level > LEVEL_MAX || root.id == 1 || root.id & DIRTY != 0 {
                return Err(MetaFault::Damaged);
            }
        }
        Ok(Meta {
            generation: layout.generation.to_native(),
            txn: layout.txn.to_native(),
            end: layout.end.to_native(),
            live: layout.live.to_native(),
            roots,
            bitmap: Run::decode(&layout.bitmap),
            user: layout.user[..user_len].to_vec(),
        })
    }

    /// The page as written.
    pub fn encode(&self) -> Box<PageBytes> {
        assert!(
            self.user.len() <= USER_MAX,
            "{} user bytes",
            self.user.len()
        );
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&META_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        for field in [self.generation, self.txn, self.end, self.live] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for root in &self.roots {
            assert_eq!(root.id & DIRTY, 0, "a root without its checksum");
            bytes.extend_from_slice(&root.id.to_le_bytes());
            bytes.extend_from_slice(&root.crc.to_le_bytes());
            bytes.extend_from_slice(&u32::from(root.level).to_le_bytes());
            bytes.extend_from_slice(&root.counted.to_le_bytes());
        }
        bytes.extend_from_slice(&self.bitmap.encode());
        bytes.extend_from_slice(&(self.user.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.user);
        bytes.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
            .into_boxed_slice()
            .try_into()
            .expect("exactly one page")
    }
}
