//! Keeping leaves full: what neighbours hold is spread anew over fewer pages, or over one more.
//!
//! Two neighbours that merge when one can take both leave leaves two thirds full on average, and
//! a leaf that splits in two leaves them as full. A window of more neighbours does better: as soon
//! as all of its leaves together could do with one less, they do; and only if none of it has room,
//! one more is made. The copies cost little, since each is paid by as many removals or inserts as
//! a page has entries.
#![forbid(unsafe_code)]

use super::api::{TreeError, TreeId};
use super::read::{child_page, key_of};
use super::space::Use;
use super::writer::Writer;
use crate::page::{
    BRANCH_HEAD, Child, DIRTY, HEADER, KEY_INLINE_MAX, KEY_RUN, LEAF_HEAD, PAGE, PageBytes, Run,
    StoredKey, as_bytes, page_ref,
};
use std::ops::Range;

/// Bytes of cells and slots that a page can hold.
const BODY: usize = PAGE - HEADER;
/// Leaves that are packed together after removals: they end up more than 7/8 full.
const PACK: usize = 8;
/// Leaves that an insert without room is spread over: they are more than 3/4 full then.
const SPREAD: usize = 3;
/// A leaf that holds less looks at its neighbours itself.
const SPARSE: usize = BODY * 2 / 3;
/// Leaves into which inserts go are filled up to here, so that the next one finds room.
const ROOMY: usize = BODY * 15 / 16;

/// How full leaves are packed: nothing is ever put between two revisions.
fn packed_max(tree: TreeId) -> usize {
    match tree {
        TreeId::Revision => BODY,
        TreeId::Key | TreeId::State => ROOMY,
    }
}

/// The fewest neighbours in `around`, `slot` among them, that together hold no more than one less
/// of them has room for.
fn find_window(
    around: Range<usize>,
    slot: usize,
    capacity: u64,
    held: impl Fn(usize) -> Result<u64, TreeError>,
) -> Result<Option<Range<usize>>, TreeError> {
    let mut sums = [0u64; 2 * PACK];
    for (number, at) in around.clone().enumerate() {
        sums[number + 1] = sums[number].saturating_add(held(at)?);
    }
    for len in 2..=PACK.min(around.len()) {
        let first = slot.saturating_sub(len - 1).max(around.start);
        let last = slot.min(around.end - len);
        for start in first..=last {
            let number = start - around.start;
            if sums[number + len] - sums[number] <= capacity * (len as u64 - 1) {
                return Ok(Some(start..start + len));
            }
        }
    }
    Ok(None)
}

/// Buffers that live as long as the writer.
#[derive(Default)]
pub(super) struct PackBuffers {
    /// Copies of the leaves.
    pages: Vec<PageBytes>,
    /// The cell that comes in.
    cell: Vec<u8>,
    /// The keys that part the new leaves, back to back, and where each ends.
    separators: Vec<u8>,
    separator_ends: Vec<usize>,
    /// Indexes of the first cell of each new leaf.
    starts: Vec<usize>,
}

/// A cell among those of a window: of a page, or the one that comes in.
#[derive(Clone, Copy)]
enum Place {
    Old { page: usize, index: usize },
    New,
}

impl PackBuffers {
    fn clear(&mut self) {
        self.pages.clear();
        self.cell.clear();
        self.separators.clear();
        self.separator_ends.clear();
        self.starts.clear();
    }

    /// The cells in order; `new` is the number of the page and the place in it of the new one.
    fn places(&self, new: Option<(usize, usize)>) -> impl Iterator<Item = Place> + '_ {
        self.pages
            .iter()
            .enumerate()
            .flat_map(move |(page, bytes)| {
                let count = page_ref(bytes).count();
                let new_at = new.filter(|&(at, _)| at == page).map(|(_, index)| index);
                (0..=count).flat_map(move |index| {
                    let new = (new_at == Some(index)).then_some(Place::New);
                    let old = (index < count).then_some(Place::Old { page, index });
                    new.into_iter().chain(old)
                })
            })
    }

    fn cell_at(&self, place: Place) -> &[u8] {
        match place {
            Place::Old { page, index } => page_ref(&self.pages[page]).cell(index),
            Place::New => &self.cell,
        }
    }

    /// Decides where each of at most `most` pages begins: filled to `full` bytes from the left
    /// or, with `even`, about equally. Says whether that is enough pages.
    fn plan(&mut self, new: Option<(usize, usize)>, most: usize, full: usize, even: bool) -> bool {
        let mut starts = std::mem::take(&mut self.starts);
        starts.clear();
        starts.push(0);
        let size = |place| self.cell_at(place).len() + 2;
        let total: usize = self.places(new).map(size).sum();
        let (mut used, mut before) = (0, 0);
        for (at, place) in self.places(new).enumerate() {
            let size = size(place);
            // The cell that crosses a border goes to the side where most of it lies.
            let crosses = even && 2 * (before + used) + size > 2 * total * starts.len() / most;
            if used + size > full || (crosses && used > 0 && starts.len() < most) {
                starts.push(at);
                before += used;
                used = 0;
            }
            used += size;
        }
        let enough = starts.len() <= most;
        self.starts = starts;
        enough
    }
}

impl Writer {
    /// After a removal from the child leaf at `slot` of a branch: packs it and its neighbours into
    /// fewer leaves, if they could do with fewer.
    pub(super) fn pack_leaves(
        &mut self,
        tree: TreeId,
        branch: u64,
        slot: usize,
    ) -> Result<bool, TreeError> {
        let full = packed_max(tree);
        let Some(window) = self.sparse_window(branch, slot, full)? else {
            return Ok(false);
        };
        let most = window.len() - 1;
        self.spread(branch, window, None, most, full, false)
    }

    /// Makes room for the cell in `work.cell` at `index` of the full child leaf at `slot`: with
    /// its neighbours, or if they are full, too, with one more leaf. Says `false`, and changes
    /// nothing, if that needs more room in the branch.
    pub(super) fn spread_leaves(
        &mut self,
        branch: u64,
        slot: usize,
        index: usize,
    ) -> Result<bool, TreeError> {
        let parent = self.owner.page(branch, 0, 1)?;
        let size = self.work.cell.bytes().len() + 2;
        let count = parent.count();
        let first = slot.saturating_sub(1).min(count.saturating_sub(SPREAD));
        let window = first..count.min(first + SPREAD);
        let mut used = size;
        for at in window.clone() {
            used += child_page(&self.owner, parent, at)?.used();
        }
        let new = Some((slot, index));
        if used <= window.len() * ROOMY {
            let most = window.len();
            if self.spread(branch, window.clone(), new, most, BODY, true)? {
                return Ok(true);
            }
        }
        let most = window.len() + 1;
        self.spread(branch, window, new, most, BODY, true)
    }

    /// Children around `slot` that could do with one page less.
    ///
    /// The counts in the branch tell without a look at the other pages, if their entries are
    /// counted and much like those of this one. A page that got sparse although they did not tell
    /// looks for itself.
    fn sparse_window(
        &self,
        branch: u64,
        slot: usize,
        full: usize,
    ) -> Result<Option<Range<usize>>, TreeError> {
        let parent = self.owner.page(branch, 0, 1)?;
        let leaf = child_page(&self.owner, parent, slot)?;
        let around = slot.saturating_sub(PACK - 1)..parent.count().min(slot + PACK);
        // Cells that fit a page, if all are like this page's.
        let capacity = full / (leaf.used() / leaf.count().max(1)).max(1);
        let counted = |at| Ok(parent.child(at).counted);
        let window = find_window(around.clone(), slot, capacity as u64, counted)?;
        if window.is_some() || leaf.used() >= SPARSE {
            return Ok(window);
        }
        let used = |at| Ok(child_page(&self.owner, parent, at)?.used() as u64);
        find_window(around, slot, full as u64, used)
    }

    /// Spreads the cells of the children in `window`, and the cell in `work.cell` if `new` says
    /// where it comes in (child, place in it), over at most `most` new leaves. Says `false`, and
    /// changes nothing, if they do not suffice, or the branch has no room for their keys.
    fn spread(
        &mut self,
        branch: u64,
        window: Range<usize>,
        new: Option<(usize, usize)>,
        most: usize,
        full: usize,
        even: bool,
    ) -> Result<bool, TreeError> {
        let mut buffers = std::mem::take(&mut self.work.pack);
        buffers.clear();
        let done = self.spread_with(&mut buffers, branch, window, new, most, full, even);
        self.work.pack = buffers;
        done
    }

    #[allow(clippy::too_many_arguments)]
    fn spread_with(
        &mut self,
        buffers: &mut PackBuffers,
        branch: u64,
        mut window: Range<usize>,
        new: Option<(usize, usize)>,
        mut most: usize,
        full: usize,
        even: bool,
    ) -> Result<bool, TreeError> {
        let parent = self.owner.page(branch, 0, 1)?;
        // A long separator lies in pages of its own: such neighbours stay as they are.
        let long = |at: usize| parent.flags(at) & KEY_RUN != 0;
        if window.clone().skip(1).any(long) {
            return Ok(false);
        }
        if !even {
            // Leaves at the front that take nothing from the next stay as they are.
            while window.len() > 2 {
                let leaf = child_page(&self.owner, parent, window.start)?;
                let next = child_page(&self.owner, parent, window.start + 1)?;
                if leaf.used() + next.cell(0).len() + 2 <= full {
                    break;
                }
                window.start += 1;
                most -= 1;
            }
        }
        let mut used = 0;
        for at in window.clone() {
            used += child_page(&self.owner, parent, at)?.used();
        }
        if used > most * full {
            return Ok(false);
        }
        for at in window.clone() {
            let leaf = child_page(&self.owner, parent, at)?;
            buffers.pages.push(*as_bytes(leaf));
        }
        let new = new.map(|(child, index)| (child - window.start, index));
        if new.is_some() {
            buffers.cell.extend_from_slice(self.work.cell.bytes());
        }
        if !buffers.plan(new, most, full, even) || !self.part(buffers, branch, &window, new)? {
            return Ok(false);
        }
        self.replace_children(buffers, branch, window, new);
        Ok(true)
    }

    /// Finds the keys that part the new leaves; says whether the branch has room for them.
    fn part(
        &self,
        buffers: &mut PackBuffers,
        branch: u64,
        window: &Range<usize>,
        new: Option<(usize, usize)>,
    ) -> Result<bool, TreeError> {
        let parent = self.owner.page(branch, 0, 1)?;
        let mut room = parent.room();
        for at in window.clone().skip(1) {
            room += parent.cell(at).len() + 2;
        }
        let places: Vec<Place> = buffers.places(new).collect();
        let key = |place: Place| match place {
            Place::Old { page, index } => {
                key_of(&self.owner, page_ref(&buffers.pages[page]), index)
            }
            Place::New => self.new_key(&buffers.cell),
        };
        let mut separators = Vec::new();
        let mut ends = Vec::new();
        for &start in &buffers.starts[1..] {
            let (below, above) = (key(places[start - 1])?, key(places[start])?);
            let same = below.iter().zip(above).take_while(|(a, b)| a == b).count();
            let len = same + 1;
            let needed = BRANCH_HEAD + len + 2;
            if len > KEY_INLINE_MAX || needed > room {
                return Ok(false);
            }
            room -= needed;
            separators.extend_from_slice(&above[..len]);
            ends.push(separators.len());
        }
        (buffers.separators, buffers.separator_ends) = (separators, ends);
        Ok(true)
    }

    /// The key of a leaf cell that is in no page yet.
    fn new_key<'a>(&'a self, cell: &'a [u8]) -> Result<&'a [u8], TreeError> {
        let len = usize::from(u16::from_le_bytes([cell[1], cell[2]]));
        let stored = &cell[LEAF_HEAD..][..len];
        match cell[0] & KEY_RUN {
            0 => Ok(stored),
            _ => self.owner.run(Run::decode(stored)),
        }
    }

    /// Puts new leaves in the place of the children in `window`, as planned.
    fn replace_children(
        &mut self,
        buffers: &PackBuffers,
        branch: u64,
        window: Range<usize>,
        new: Option<(usize, usize)>,
    ) {
        for at in window.clone() {
            let child = self.owner.change(branch).child(at);
            self.free_page(child.page(), child.dirty());
        }
        for at in window.clone().skip(1).rev() {
            self.owner.change(branch).remove(at);
        }
        let mut places = buffers.places(new);
        for (number, &start) in buffers.starts.iter().enumerate() {
            let end = buffers.starts.get(number + 1).copied();
            let id = self.take_page(Use::Change);
            let leaf = self.owner.new_page(id, 0);
            let cells = end.map_or(usize::MAX, |end| end - start);
            for place in places.by_ref().take(cells) {
                let done = leaf.insert(leaf.count(), buffers.cell_at(place));
                assert!(done, "the room was measured");
            }
            let child = Child {
                id: id | DIRTY,
                crc: 0,
                counted: leaf.counted(),
            };
            if number == 0 {
                self.owner.change(branch).set_child(window.start, child);
                continue;
            }
            let from = match number {
                1 => 0,
                _ => buffers.separator_ends[number - 2],
            };
            let key = &buffers.separators[from..buffers.separator_ends[number - 1]];
            let cell = &mut self.work.cell;
            cell.branch(StoredKey::new(key, None), child);
            let page = self.owner.change(branch);
            let done = page.insert(window.start + number, self.work.cell.bytes());
            assert!(done, "the room was measured");
        }
    }
}
