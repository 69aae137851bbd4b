//! Reading everything again, a little at a time, so that damage is found before it is needed.
//!
//! A page is checked when it is first touched, and not again while the process lives. A scrub
//! touches the pages that nobody does, and checks all of them anew. It sees what the operating
//! system's cache holds: of a page that stays there, not what the disk would give.
#![forbid(unsafe_code)]

use super::api::{TREES, TreeError};
use super::publish::Snapshot;
use super::read::{key_of, root_page};
use crate::page::{Page, Root, Run};

/// Damaged pages told by one step at most; a page that names others hides them.
const TOLD: usize = 16;

/// Where a scrub of a tree file goes on. Between two steps the trees may change: what is new since
/// was written by this process, and has its turn in the next pass.
#[derive(Debug, Default)]
pub struct Scrub {
    tree: usize,
    /// The first key that was not reached.
    from: Vec<u8>,
}

/// What a step of a scrub came to.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Pages whose bytes in the file were checked.
    pub pages: u64,
    /// What is damaged.
    pub damage: Vec<TreeError>,
    /// All has been read; the next step begins anew.
    pub whole: bool,
}

struct Walk<'s, 'r> {
    snapshot: &'s Snapshot<'r>,
    step: Scrubbed,
    /// Pages, in memory or not, that the step still reads.
    left: u64,
    /// Where the next step goes on.
    rest: Option<Vec<u8>>,
}

impl Scrub {
    /// Reads about so many pages of a state, and what they point to.
    pub fn step(&mut self, snapshot: &Snapshot<'_>, pages: u64) -> Scrubbed {
        let mut walk = Walk {
            snapshot,
            step: Scrubbed::default(),
            left: pages.max(1),
            rest: None,
        };
        walk.tree(&snapshot.roots()[self.tree], &self.from);
        match walk.rest.take() {
            Some(from) => self.from = from,
            None => {
                self.from.clear();
                self.tree = (self.tree + 1) % TREES;
                walk.step.whole = self.tree == 0;
            }
        }
        walk.step
    }
}

impl Walk<'_, '_> {
    fn tell(&mut self, damage: TreeError) {
        if self.step.damage.len() < TOLD {
            self.step.damage.push(damage);
        }
    }

    fn tree(&mut self, root: &Root, from: &[u8]) {
        if root.id == 0 || !self.check(root.id, root.crc) {
            return;
        }
        match root_page(self.snapshot, root) {
            Ok(Some(page)) => self.page(page, Some(from)),
            Ok(None) => {}
            Err(damage) => self.tell(damage),
        }
    }

    /// Whether the page may be read.
    fn check(&mut self, id: u64, crc: u32) -> bool {
        self.left = self.left.saturating_sub(1);
        match self.snapshot.check_again(id, crc) {
            Ok(in_file) => {
                self.step.pages += u64::from(in_file);
                true
            }
            Err(damage) => {
                self.tell(damage);
                false
            }
        }
    }

    /// Reads on from a key, `None` if all of the page lies behind it. Recursion is bounded by the
    /// level.
    fn page(&mut self, page: &Page, from: Option<&[u8]>) {
        if page.is_leaf() {
            self.runs(page);
            return;
        }
        let snapshot = self.snapshot;
        let first = match from.filter(|from| !from.is_empty()) {
            None => 0,
            Some(from) => match page.route(from, Default::default(), &|run| snapshot.run(run)) {
                Ok(index) => index,
                Err(damage) => return self.tell(damage),
            },
        };
        if page.level() == 1 {
            self.read_ahead(page, first);
        }
        for index in first..page.count() {
            if self.left == 0 && index > first {
                match key_of(snapshot, page, index) {
                    Ok(key) => self.rest = Some(key.to_vec()),
                    // The next pass begins in front of it; what lies behind waits for the repair.
                    Err(damage) => self.tell(damage),
                }
                return;
            }
            self.run(page.key_run(index));
            let child = page.child(index);
            if !self.check(child.page(), child.crc) {
                continue;
            }
            match snapshot.page(child.page(), child.crc, page.level() - 1) {
                Ok(below) => self.page(below, from.filter(|_| index == first)),
                Err(damage) => self.tell(damage),
            }
            if self.rest.is_some() {
                return;
            }
        }
    }

    /// Has leaves read together. One by one, each would wait for the device; and what the kernel
    /// reads ahead by itself it keeps in large pieces, into which checkpoints then write slowly.
    fn read_ahead(&self, branch: &Page, first: usize) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).max(1);
        let indexes = (first..branch.count()).take(count);
        let mut leaves: Vec<u64> = indexes.map(|index| branch.child(index).page()).collect();
        self.snapshot.will_need(&mut leaves);
    }

    /// The long keys and values of a leaf.
    fn runs(&mut self, leaf: &Page) {
        for index in 0..leaf.count() {
            for run in [leaf.key_run(index), leaf.value_run(index)] {
                self.run(run);
            }
        }
    }

    fn run(&mut self, run: Option<Run>) {
        let Some(run) = run else { return };
        self.left = self.left.saturating_sub(u64::from(run.pages()));
        match self.snapshot.check_run_again(run) {
            Ok(true) => self.step.pages += u64::from(run.pages()),
            Ok(false) => {}
            Err(damage) => self.tell(damage),
        }
    }
}
