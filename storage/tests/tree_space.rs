//! How full pages are, and how large the file gets.
#![cfg(feature = "sim")]

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::mvcc::{EVENT_COST, Meta, WriteTxn, compact, compact_step};
use quoin_storage::tree::{CheckReport, Inspector, TreeId, TreeOptions, TreeWrite, Writer};
use std::sync::Arc;
use tree_support::{NAME, Random, open_at, options};

fn key(n: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

fn fill(report: &CheckReport, tree: TreeId) -> f64 {
    let at = tree as usize;
    report.leaf_bytes[at] as f64 / (report.leaves[at] * 4096) as f64
}

fn fresh(options: TreeOptions) -> Writer {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    open_at(&disk, options).expect("a new file").0
}

fn revision(n: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

#[test]
fn random_inserts_leave_leaves_four_fifths_full() {
    let mut writer = fresh(options());
    for chunk in 0..300u64 {
        let mut txn = writer.begin();
        for n in chunk * 100..(chunk + 1) * 100 {
            txn.insert(TreeId::Key, &key(n), &[&[5; 20]], true)
                .expect("room");
        }
        txn.commit(b"");
        if chunk > 50 && chunk % 25 == 0 {
            let report = writer.check().expect("sound");
            assert!(fill(&report, TreeId::Key) > 0.8, "{report:?}");
        }
    }
}

#[test]
fn ascending_inserts_in_the_middle_leave_leaves_three_quarters_full() {
    let mut writer = fresh(options());
    for n in 0..6000u64 {
        let mut txn = writer.begin();
        for part in [b"a/", b"b/", b"c/"] {
            let key = [&part[..], &n.to_be_bytes()].concat();
            txn.insert(TreeId::Key, &key, &[&[5; 40]], true)
                .expect("room");
        }
        txn.commit(b"");
    }
    let report = writer.check().expect("sound");
    assert!(fill(&report, TreeId::Key) > 0.75, "{report:?}");
}

#[test]
fn random_removals_leave_history_packed() {
    let mut writer = fresh(options());
    let entries: u64 = 30_000;
    for chunk in 0..entries / 100 {
        let mut txn = writer.begin();
        for n in chunk * 100..(chunk + 1) * 100 {
            txn.insert(TreeId::Revision, &revision(n), &[&[5; 280]], true)
                .expect("room");
        }
        txn.commit(b"");
    }
    let report = writer.check().expect("sound");
    assert!(fill(&report, TreeId::Revision) > 0.95, "{report:?}");
    let mut random = Random::new(5);
    let mut left = entries;
    while left > entries / 20 {
        let mut txn = writer.begin();
        for _ in 0..200 {
            let gone = txn.remove(TreeId::Revision, &revision(random.below(entries)));
            left -= u64::from(gone.expect("sound"));
        }
        txn.commit(b"");
        let report = writer.check().expect("sound");
        assert!(fill(&report, TreeId::Revision) > 0.85, "{left} {report:?}");
    }
}

#[test]
fn sparse_leaves_of_unequal_entries_are_merged_all_the_same() {
    let mut writer = fresh(options());
    let mut random = Random::new(6);
    let mut txn = writer.begin();
    for n in 0..8000 {
        let len = [3, 40, 400][random.below(3) as usize];
        let counted = random.chance(50);
        txn.insert(TreeId::Key, &key(n), &[&vec![1; len]], counted)
            .expect("room");
    }
    txn.commit(b"");
    for n in (0..8000).filter(|n| n % 10 > 0) {
        let mut txn = writer.begin();
        assert!(txn.remove(TreeId::Key, &key(n)).expect("sound"));
        txn.commit(b"");
    }
    let report = writer.check().expect("sound");
    assert!(fill(&report, TreeId::Key) > 0.62, "{report:?}");
}

/// A store that is overwritten at random and compacted down to its live keys.
struct Store {
    writer: Writer,
    meta: Meta,
    keys: u64,
    random: Random,
    /// The most bytes of blocks that the file had since this was last reset.
    most: u64,
}

impl Store {
    fn commit(&mut self, numbers: &[u64]) {
        let mut txn = self.writer.begin();
        for &n in numbers {
            let mut put = WriteTxn::begin(&mut txn, &mut self.meta);
            put.put(&key(n), &[7; 256], 0).expect("room");
            put.finish();
        }
        compact_step(&mut txn, &mut self.meta, 2 * numbers.len()).expect("sound");
        txn.commit(&self.meta.encode());
        if !self.meta.purge_pending() && self.meta.compacted < self.meta.revision {
            let newest = self.meta.revision;
            compact(&mut self.meta, newest).expect("a newer revision");
        }
        let file = self.writer.page_file();
        self.most = self.most.max(file.allocated_bytes().expect("no fault"));
    }

    fn overwrite(&mut self, commits: usize) {
        for _ in 0..commits {
            let random = &mut self.random;
            let numbers: Vec<u64> = (0..20).map(|_| random.below(self.keys)).collect();
            self.commit(&numbers);
        }
    }

    /// A checkpoint; between each two of its writes, so many commits.
    fn checkpoint(&mut self, commits: usize) {
        let Some(job) = self.writer.checkpoint() else {
            return;
        };
        let file = self.writer.page_file();
        let done = job.run(&*file, &mut |_| self.overwrite(commits));
        assert!(self.writer.checkpointed(done.expect("no fault")));
    }
}

/// Whether all of the tree is rewritten between two checkpoints, and again while one is written,
/// or a tenth of it.
#[test]
fn steady_overwriting_keeps_the_file_within_twice_the_live_bytes() {
    for (between, meanwhile) in [(1000, 12), (300, 0), (25, 1), (3, 0)] {
        let options = TreeOptions {
            extent_bytes: 64 << 10,
            young_bytes_max: 64 << 20,
            ..options()
        };
        let mut store = Store {
            writer: fresh(options),
            meta: Meta::default(),
            keys: 6000,
            random: Random::new(9),
            most: 0,
        };
        for n in 0..300 {
            store.commit(&Vec::from_iter(n * 20..(n + 1) * 20));
        }
        let live = store.keys * (24 + 256 + EVENT_COST);
        let mut ends = Vec::new();
        for round in 0..24 {
            if round == 6 {
                store.most = 0;
            }
            store.overwrite(between);
            store.checkpoint(meanwhile);
            ends.push(store.writer.stats().file_bytes);
        }
        let ratio = store.most as f64 / live as f64;
        println!("{between}, {meanwhile}: {ratio:.2} of the live bytes; ends {ends:?}");
        assert!(ratio <= 2.0, "{ratio:.2}");
        // Holes cost nothing, but there is an end to them.
        assert!(ends[12..].iter().all(|&end| end < 7 * live), "{ends:?}");
        store.writer.check().expect("sound");
    }
}

/// The leaves and long values of a tree in the newest state of the file, by their pages.
fn pages_of(disk: &SimDisk, tree: TreeId) -> Vec<u64> {
    let inspector = Inspector::open(disk, NAME).expect("a tree file");
    let meta = inspector.metas().into_iter().flatten().flatten().next();
    let mut todo = vec![meta.expect("a whole meta page").roots[tree as usize].id];
    let mut pages = Vec::new();
    while let Some(id) = todo.pop() {
        let page = inspector.page(id).expect("a page of the file");
        assert_eq!(page.fault, None);
        if page.level == 0 {
            pages.push(id);
            let runs = page.cells.iter().filter_map(|cell| cell.value_run);
            pages.extend(runs.flat_map(|run| run.id..run.id + u64::from(run.pages())));
        }
        todo.extend(page.cells.iter().filter_map(|cell| Some(cell.child?.id)));
    }
    pages.sort();
    pages
}

#[test]
fn what_is_appended_lies_side_by_side_while_all_else_changes() {
    for (per_commit, len, pages_per_run) in [(20, 280, 4), (2, 9000, 20)] {
        let disk = SimDisk::new(3);
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = TreeOptions {
            extent_bytes: 64 << 10,
            young_bytes_max: 64 << 10,
            ..options()
        };
        let (mut writer, _) = open_at(&handle, options).expect("a new file");
        let mut random = Random::new(4);
        for commit in 0..1000u64 {
            let mut txn = writer.begin();
            for _ in 0..20 {
                let key = key(random.below(8000));
                (txn.insert(TreeId::Key, &key, &[&[5; 40]], true)).expect("room");
            }
            for n in commit * per_commit..(commit + 1) * per_commit {
                let value = vec![5; len];
                (txn.insert(TreeId::Revision, &revision(n), &[&value], true)).expect("room");
            }
            txn.commit(b"");
            if commit % 20 == 0 {
                writer.checkpoint_now().expect("no fault");
            }
        }
        writer.checkpoint_now().expect("no fault");
        writer.audit();
        let pages = pages_of(&disk, TreeId::Revision);
        let runs = 1 + pages.windows(2).filter(|two| two[1] > two[0] + 1).count();
        println!("{} pages in {runs} runs", pages.len());
        assert!(pages.len() >= pages_per_run * runs);
    }
}

#[test]
fn restarts_do_not_make_the_file_larger() {
    let disk = SimDisk::new(3);
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = TreeOptions {
        extent_bytes: 64 << 10,
        young_bytes_max: 64 << 10,
        spare_bytes: 0,
        ..options()
    };
    let mut random = Random::new(4);
    let mut most = Vec::new();
    for _ in 0..12 {
        let (mut writer, _) = open_at(&handle, options.clone()).expect("a sound file");
        for commit in 0..600 {
            let mut txn = writer.begin();
            for _ in 0..20 {
                let key = key(random.below(8000));
                (txn.insert(TreeId::Key, &key, &[&[5; 300]], true)).expect("room");
            }
            txn.commit(b"");
            if commit % 4 == 0 {
                writer.checkpoint_now().expect("no fault");
            }
        }
        writer.checkpoint_now().expect("no fault");
        let blocks = writer.page_file().allocated_bytes().expect("no fault");
        most.push(blocks as f64 / writer.stats().live_bytes as f64);
    }
    println!("{most:.2?} of the live pages");
    assert!(most.iter().all(|&ratio| ratio < 2.0), "{most:.2?}");
}
