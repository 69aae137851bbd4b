//! Pages: fixed-size rkyv archives, read in place.
//!
//! Every page of the tree file is 4096 bytes. A tree page is a header of 24 bytes and a slotted
//! body: slots grow upwards behind the header, cells grow downwards from the end. A run is a
//! sequence of whole pages without any header that holds one long key or value. Two meta pages
//! at the front of the file name everything else.
//!
//! This module knows bytes of one page only; `tree` knows how pages hang together.

mod layout;

mod cell;

mod edit;

mod search;

mod verify;

mod meta;

mod cast;

pub use cast::{as_bytes, page_mut, page_ref, prefetch};
pub use cell::{CellBuf, Child, RUN_BYTES, Run, StoredKey};
pub use edit::Split;
pub use layout::{
    BRANCH_HEAD, COUNTED, DIRTY, HEADER, KEY_INLINE_MAX, KEY_PREFIX, KEY_RUN, LEAF_HEAD, LEVEL_MAX,
    PAGE, Page, PageBytes, VALUE_INLINE_MAX, VALUE_RUN,
};
pub use meta::{META_VERSION, Meta, MetaFault, Root, USER_MAX};
pub use search::Between;
pub use verify::{fuzz_page, verify};

#[cfg(test)]
mod tests;
