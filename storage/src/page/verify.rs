//! The gateway for page bytes from the disk: what passes here may be read without a second look.
#![forbid(unsafe_code)]

use super::cell::{RUN_BYTES, Run};
use super::layout::{
    BRANCH, BRANCH_HEAD, COUNTED, DIRTY, HEADER, KEY_INLINE_MAX, KEY_PREFIX, KEY_RUN, LEAF,
    LEAF_HEAD, LEVEL_MAX, PAGE, Page, PageBytes, VALUE_INLINE_MAX, VALUE_RUN, u16_at,
};
use super::search::Between;
use rkyv::rancor::Failure;

/// Checks the form of a page: every slot, cell and length lies inside it, so that reading it can
/// never go out of bounds. `id` is the number under which it was found.
///
/// The order of keys is not looked at: the CRC in the parent's pointer vouches for it, and
/// `tree::check` reads it.
pub fn verify(bytes: &PageBytes, id: u64) -> Result<&Page, &'static str> {
    let page = rkyv::access::<Page, Failure>(bytes).map_err(|_| "not an archive of a page")?;
    let leaf = match page.kind {
        LEAF => true,
        BRANCH => false,
        _ => return Err("neither leaf nor branch"),
    };
    if page.id() != id {
        return Err("it names itself differently");
    }
    if leaf != (page.level == 0) || page.level > LEVEL_MAX {
        return Err("its level does not fit its kind");
    }
    let count = page.count();
    let heap = page.heap();
    if count == 0 || HEADER + 2 * count > heap || heap > PAGE {
        return Err("its slots do not fit");
    }
    let mut total = page.dead();
    for index in 0..count {
        total += verify_cell(page, index, leaf)?;
    }
    if total != PAGE - heap {
        return Err("its cells do not add up");
    }
    Ok(page)
}

/// Checks one cell and returns its size.
#[inline]
fn verify_cell(page: &Page, index: usize, leaf: bool) -> Result<usize, &'static str> {
    let offset = page.slot(index);
    let head = if leaf { LEAF_HEAD } else { BRANCH_HEAD };
    if offset < page.heap() || offset + head > PAGE {
        return Err("a slot points outside the heap");
    }
    let cell = &page.body[offset - HEADER..];
    let flags = cell[0];
    let key = u16_at(cell, 1);
    let value = if leaf { u16_at(cell, 3) } else { 0 };
    let known = if leaf {
        COUNTED | KEY_RUN | VALUE_RUN
    } else {
        KEY_RUN
    };
    if flags & !known != 0 {
        return Err("a cell has unknown flags");
    }
    if head + key + value > cell.len() {
        return Err("a cell reaches beyond the page");
    }
    if key > KEY_INLINE_MAX || value > VALUE_INLINE_MAX {
        return Err("a cell is too long");
    }
    if flags & KEY_RUN != 0 {
        if key != RUN_BYTES + KEY_PREFIX {
            return Err("a long key without its pointer");
        }
        verify_run(Run::decode(&cell[head..]), KEY_INLINE_MAX)?;
    }
    if flags & VALUE_RUN != 0 {
        if value != RUN_BYTES {
            return Err("a long value without its pointer");
        }
        verify_run(Run::decode(&cell[head + key..]), VALUE_INLINE_MAX)?;
    }
    if !leaf {
        let child = page.child(index);
        if child.id & DIRTY != 0 || child.id < 2 {
            return Err("a child pointer to no page");
        }
    }
    Ok(head + key + value)
}

fn verify_run(run: Run, above: usize) -> Result<(), &'static str> {
    if run.id < 2 || run.id >= DIRTY >> 12 || run.len as usize <= above {
        return Err("a run pointer to no run");
    }
    Ok(())
}

/// The fuzz target of page decoding: whatever passes [`verify`] can be read in every way.
pub fn fuzz_page(bytes: &[u8]) {
    let mut copy = [0; PAGE];
    let len = bytes.len().min(PAGE);
    copy[..len].copy_from_slice(&bytes[..len]);
    if let Ok(meta) = super::Meta::decode(&copy) {
        assert!(meta.user.len() <= super::USER_MAX);
    }
    let id = super::page_ref(&copy).id();
    let Ok(page) = verify(&copy, id) else { return };
    let load = |run: Run| {
        assert!(run.pages() > 0);
        Ok::<&[u8], ()>(b"the key of a run")
    };
    // Whatever the neighbours are said to be, in whatever order the keys stand.
    let between = page.between(page.count() / 2, Between::default());
    for index in 0..page.count() {
        let key = page.stored_key(index);
        assert!(page.cell(index).len() >= key.len());
        let _ = page.key_run(index);
        let _ = page.counted_before(index);
        if page.is_leaf() {
            let _ = page.stored_value(index);
            let _ = page.value_run(index);
            let _ = page.find(key, between, &load);
        } else {
            let _ = page.child(index);
            let _ = page.route(key, between, &load);
        }
    }
    let _ = page.counted();
    assert!(page.used() <= PAGE - HEADER);
}
