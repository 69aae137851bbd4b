//! Reading a tree: one set of functions for snapshots and for the open transaction.
#![forbid(unsafe_code)]

use super::api::{Interval, TreeError, WARM_KEYS};
use super::publish::Snapshot;
use crate::page::{Between, Child, Page, Root, Run};
use std::cell::Cell;

/// Where pages come from.
pub(super) trait Source {
    fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError>;
    fn run(&self, run: Run) -> Result<&[u8], TreeError>;
    /// Has the processor fetch what `page` looks at first.
    fn prefetch(&self, id: u64);
}

impl Source for Snapshot<'_> {
    #[inline(always)]
    fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError> {
        Snapshot::page(self, id, crc, level)
    }

    fn run(&self, run: Run) -> Result<&[u8], TreeError> {
        Snapshot::run(self, run)
    }

    #[inline(always)]
    fn prefetch(&self, id: u64) {
        self.prefetch_entry(id);
    }
}

impl Source for super::frames::Owner {
    #[inline(always)]
    fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError> {
        super::frames::Owner::page(self, id, crc, level)
    }

    fn run(&self, run: Run) -> Result<&[u8], TreeError> {
        super::frames::Owner::run(self, run)
    }

    #[inline(always)]
    fn prefetch(&self, id: u64) {
        self.frames().prefetch_entry(id);
    }
}

/// The key of a cell, whole.
#[inline(always)]
pub(super) fn key_of<'a>(
    source: &'a impl Source,
    page: &'a Page,
    index: usize,
) -> Result<&'a [u8], TreeError> {
    match page.key_run(index) {
        None => Ok(page.stored_key(index)),
        Some(run) => source.run(run),
    }
}

/// The value of a cell, whole.
#[inline(always)]
pub(super) fn value_of<'a>(
    source: &'a impl Source,
    page: &'a Page,
    index: usize,
) -> Result<&'a [u8], TreeError> {
    match page.value_run(index) {
        None => Ok(page.stored_value(index)),
        Some(run) => source.run(run),
    }
}

/// The root page, unless the tree is empty.
pub(super) fn root_page<'a>(
    source: &'a impl Source,
    root: &Root,
) -> Result<Option<&'a Page>, TreeError> {
    let id = root.id & !crate::page::DIRTY;
    if id == 0 {
        return Ok(None);
    }
    source.page(id, root.crc, root.level).map(Some)
}

/// The child page of a branch's cell.
#[inline(always)]
pub(super) fn child_page<'a>(
    source: &'a impl Source,
    page: &Page,
    index: usize,
) -> Result<&'a Page, TreeError> {
    let child = page.child(index);
    source.page(child.page(), child.crc, page.level() - 1)
}

/// The leaf where `key` belongs, what its keys lie between, and what points to it (nothing, if it is
/// the root); `None` if the tree is empty.
#[inline(always)]
fn leaf_of<'a>(
    source: &'a impl Source,
    root: &Root,
    key: &[u8],
) -> Result<Option<(&'a Page, Between<'a>, Child)>, TreeError> {
    let load = |run| source.run(run);
    let Some(mut page) = root_page(source, root)? else {
        return Ok(None);
    };
    let (mut between, mut child) = (Between::default(), Child::default());
    while !page.is_leaf() {
        let index = page.route(key, between, &load)?;
        between = page.between(index, between);
        child = page.child(index);
        page = child_page(source, page, index)?;
    }
    Ok(Some((page, between, child)))
}

/// The value of `key`, if this leaf has it.
#[inline(always)]
fn value_in<'a>(
    source: &'a impl Source,
    leaf: &'a Page,
    key: &[u8],
    between: Between<'_>,
) -> Result<Option<&'a [u8]>, TreeError> {
    match leaf.find(key, between, &|run| source.run(run))? {
        Ok(index) => value_of(source, leaf, index).map(Some),
        Err(_) => Ok(None),
    }
}

pub(super) fn get<'a>(
    source: &'a impl Source,
    root: &Root,
    key: &[u8],
) -> Result<Option<&'a [u8]>, TreeError> {
    match leaf_of(source, root, key)? {
        Some((leaf, between, _)) => value_in(source, leaf, key, between),
        None => Ok(None),
    }
}

/// As [`get`], but looks first into the leaf where the last look-up ended, which `near` keeps.
pub(super) fn get_near<'a>(
    source: &'a impl Source,
    root: &Root,
    key: &[u8],
    near: &Cell<Child>,
) -> Result<Option<&'a [u8]>, TreeError> {
    let last = near.get();
    if last.page() != 0 {
        let leaf = source.page(last.page(), last.crc, 0)?;
        let found = value_in(source, leaf, key, Between::default())?;
        if found.is_some() {
            return Ok(found);
        }
    }
    let Some((leaf, between, child)) = leaf_of(source, root, key)? else {
        return Ok(None);
    };
    near.set(child);
    value_in(source, leaf, key, between)
}

/// The leaf where a key belongs, what its keys lie between, and what points to it.
type Way<'a> = (&'a Page, Between<'a>, Child);

/// Goes down the tree with all of these keys, level by level: what one will look at is on its way
/// from memory while the others are served. Gives the leaves; nothing if a page cannot be read, as
/// whoever needs that page hears why.
#[inline(always)]
fn descend<'a>(
    source: &'a impl Source,
    root: &Root,
    keys: &[&[u8]],
) -> Option<[Way<'a>; WARM_KEYS]> {
    let top = root_page(source, root).ok()??;
    let child = Child {
        id: root.id,
        crc: root.crc,
        counted: root.counted,
    };
    let mut ways = [(top, Between::default(), child); WARM_KEYS];
    let load = |run| source.run(run);
    for level in (0..root.level).rev() {
        for ((page, between, child), key) in ways.iter_mut().zip(keys) {
            let index = page.route(key, *between, &load).ok()?;
            *between = page.between(index, *between);
            *child = page.child(index);
            source.prefetch(child.page());
        }
        for (page, _, child) in &mut ways[..keys.len()] {
            *page = source.page(child.page(), child.crc, level).ok()?;
            page.prefetch_slots();
        }
    }
    for ((page, between, _), key) in ways.iter().zip(keys) {
        page.prefetch_guess(key, *between);
    }
    Some(ways)
}

/// Has the processor fetch what looking up these keys will touch.
pub(super) fn warm(source: &impl Source, root: &Root, keys: &[&[u8]]) {
    descend(source, root, &keys[..keys.len().min(WARM_KEYS)]);
}

/// Where keys were found that are about to be looked up, in the order in which they will be: for
/// each the leaf and the cell.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Of the state in which they were found.
    version: Cell<u64>,
    found: [Cell<(Child, usize)>; WARM_KEYS],
    count: Cell<usize>,
    next: Cell<usize>,
}

impl Ahead {
    /// Looks these keys up, side by side.
    pub(super) fn look_up(&self, version: u64, source: &impl Source, root: &Root, keys: &[&[u8]]) {
        self.version.set(version);
        self.count.set(0);
        self.next.set(0);
        let keys = &keys[..keys.len().min(WARM_KEYS)];
        let Some(ways) = descend(source, root, keys) else {
            return;
        };
        let mut count = 0;
        for ((leaf, between, child), key) in ways.into_iter().zip(keys) {
            if let Ok(Ok(index)) = leaf.find(key, between, &|run| source.run(run)) {
                self.found[count].set((child, index));
                count += 1;
            }
        }
        self.count.set(count);
    }

    /// The value of `key`, if it is the next of those that were looked up. After the last comes the
    /// first again.
    #[inline(always)]
    fn take<'a>(
        &self,
        version: u64,
        source: &'a impl Source,
        key: &[u8],
    ) -> Result<Option<&'a [u8]>, TreeError> {
        if self.count.get() == 0 || self.version.get() != version {
            return Ok(None);
        }
        let next = self.next.get();
        let (child, index) = self.found[next].get();
        let leaf = source.page(child.page(), child.crc, 0)?;
        if key_of(source, leaf, index)? != key {
            return Ok(None);
        }
        self.next.set(if next + 1 == self.count.get() {
            0
        } else {
            next + 1
        });
        value_of(source, leaf, index).map(Some)
    }
}

/// As [`get`], but first looks at what `ahead` has found in the same state.
pub(super) fn get_ahead<'a>(
    source: &'a impl Source,
    root: &Root,
    key: &[u8],
    (version, ahead): (u64, &Ahead),
) -> Result<Option<&'a [u8]>, TreeError> {
    match ahead.take(version, source, key)? {
        None => get(source, root, key),
        found => Ok(found),
    }
}

/// An interval inside a subtree: a bound is `None` where the subtree lies inside it wholly.
#[derive(Clone, Copy)]
struct Bounds<'k> {
    start: Option<&'k [u8]>,
    end: Option<&'k [u8]>,
}

impl Bounds<'_> {
    fn is_empty(&self) -> bool {
        matches!((self.start, self.end), (Some(start), Some(end)) if start >= end)
    }
}

impl<'k> From<Interval<'k>> for Bounds<'k> {
    fn from(interval: Interval<'k>) -> Bounds<'k> {
        Bounds {
            start: Some(interval.start).filter(|start| !start.is_empty()),
            end: interval.end,
        }
    }
}

type Visit<'f, 'v> = &'f mut dyn FnMut(&'v [u8], &'v [u8]) -> bool;

/// The cells of a page that the bounds touch: `first..last`.
fn touched(
    source: &impl Source,
    page: &Page,
    bounds: Bounds<'_>,
) -> Result<(usize, usize), TreeError> {
    let load = |run| source.run(run);
    let anywhere = Between::default();
    if page.is_leaf() {
        let place = |key| {
            page.find(key, anywhere, &load)
                .map(|found| found.unwrap_or_else(|at| at))
        };
        let first = bounds.start.map_or(Ok(0), place)?;
        let last = bounds.end.map_or(Ok(page.count()), place)?;
        return Ok((first, last));
    }
    let route = |key| page.route(key, anywhere, &load);
    let first = bounds.start.map_or(Ok(0), route)?;
    let last = match bounds.end {
        None => page.count(),
        Some(key) => route(key)? + 1,
    };
    Ok((first, last))
}

pub(super) fn scan<'v>(
    source: &'v impl Source,
    root: &Root,
    interval: Interval<'_>,
    back: bool,
    visit: Visit<'_, 'v>,
) -> Result<(), TreeError> {
    let bounds = Bounds::from(interval);
    if bounds.is_empty() {
        return Ok(());
    }
    if let Some(page) = root_page(source, root)? {
        scan_page(source, page, bounds, back, visit)?;
    }
    Ok(())
}

/// Recursion is bounded by the level, which falls with each step.
fn scan_page<'v>(
    source: &'v impl Source,
    page: &'v Page,
    bounds: Bounds<'_>,
    back: bool,
    visit: Visit<'_, 'v>,
) -> Result<bool, TreeError> {
    let (first, last) = touched(source, page, bounds)?;
    for step in 0..last.saturating_sub(first) {
        let index = if back { last - 1 - step } else { first + step };
        if page.is_leaf() {
            if !visit(key_of(source, page, index)?, value_of(source, page, index)?) {
                return Ok(false);
            }
            continue;
        }
        let inner = Bounds {
            start: bounds.start.filter(|_| index == first),
            end: bounds.end.filter(|_| index + 1 == last),
        };
        let child = child_page(source, page, index)?;
        if !scan_page(source, child, inner, back, visit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn count(
    source: &impl Source,
    root: &Root,
    interval: Interval<'_>,
) -> Result<u64, TreeError> {
    let bounds = Bounds::from(interval);
    if bounds.is_empty() {
        return Ok(0);
    }
    let below_end = match bounds.end {
        None => root.counted,
        Some(key) => count_below(source, root, key)?,
    };
    let below_start = match bounds.start {
        None => 0,
        Some(key) => count_below(source, root, key)?,
    };
    Ok(below_end.saturating_sub(below_start))
}

/// Counted entries whose keys are below `key`.
fn count_below(source: &impl Source, root: &Root, key: &[u8]) -> Result<u64, TreeError> {
    let load = |run| source.run(run);
    let Some(mut page) = root_page(source, root)? else {
        return Ok(0);
    };
    let mut sum = 0u64;
    let mut between = Between::default();
    while !page.is_leaf() {
        let index = page.route(key, between, &load)?;
        sum = sum.wrapping_add(page.counted_before(index));
        between = page.between(index, between);
        page = child_page(source, page, index)?;
    }
    let index = page.find(key, between, &load)?.unwrap_or_else(|at| at);
    Ok(sum.wrapping_add(page.counted_before(index)))
}
