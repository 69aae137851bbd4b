//! Every byte of a small tree file flipped in turn: the damage is named, or has no effect.

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::{Inspector, TreeError, TreeOptions, TreeWrite, check};
use std::sync::Arc;
use tree_support::*;

/// Opened tens of thousands of times: few addresses to map.
fn few() -> TreeOptions {
    TreeOptions {
        reserve_bytes: 1 << 22,
        spare_bytes: 0,
        ..options()
    }
}

/// A file with three checkpoints; the state of the last.
fn small_file() -> (Vec<u8>, Model) {
    let disk = SimDisk::new(7);
    let mut random = Random::new(7);
    let shape = Shape {
        keys: 30,
        long_keys: false,
        large_values: false,
        removes: 20,
    };
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut writer, _shared) = open_at(&handle, few()).expect("a new file");
    let mut model = Model::default();
    for round in 0..3u8 {
        let mut txn = writer.begin();
        for _ in 0..12 {
            step(&mut txn, &mut model, &shape, &mut random).expect("a step");
        }
        txn.insert(IDS[0], &[b'k'; 600], &[&[round; 5000]], true)
            .expect("a step");
        model.maps[0].insert(vec![b'k'; 600], (vec![round; 5000], true));
        model.user = vec![round; 40];
        txn.commit(&model.user);
        writer.checkpoint_now().expect("a checkpoint");
    }
    (disk.bytes(NAME).expect("the file"), model)
}

#[test]
fn every_byte_flipped() {
    let (bytes, newest) = small_file();
    let mut named = 0;
    let mut unseen = 0;
    let stride = if cfg!(miri) { 40_009 } else { 1 };
    for at in (0..bytes.len()).step_by(stride) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let disk = SimDisk::new(1);
        disk.set_bytes(NAME, damaged);
        let page = (at / 4096) as u64;
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        match read_all(&handle, &newest) {
            Ok(()) => unseen += 1,
            Err(TreeError::Corrupt { page: found, .. }) => {
                assert!(page > 1, "byte {at}: the other meta page says the same");
                // A page is named, or the first page of its run.
                assert!(
                    found <= page && page - found < 16,
                    "byte {at}: page {found}"
                );
                named += 1;
            }
            Err(e) => panic!("byte {at}: {e}"),
        }
        if at % 8 == 0
            && let Err(e) = check(&*handle, NAME)
        {
            assert!(matches!(e, TreeError::Corrupt { .. }), "byte {at}: {e}");
        }
    }
    println!("{named} named, {unseen} without effect, of {}", bytes.len());
    assert!(named > unseen / 4);
}

/// Opens the file and reads everything.
fn read_all(disk: &Arc<dyn Disk>, newest: &Model) -> Result<(), TreeError> {
    let (_writer, shared) = open_at(disk, few())?;
    let reader = shared.reader().expect("a slot");
    let snapshot = reader.pin();
    compare_snapshot(&snapshot, newest)
}

#[test]
fn a_file_cut_short_is_refused() {
    let (bytes, newest) = small_file();
    for pages in 0..bytes.len() / 4096 {
        let disk = SimDisk::new(1);
        disk.set_bytes(NAME, bytes[..pages * 4096].to_vec());
        let handle: Arc<dyn Disk> = Arc::new(disk);
        let error = read_all(&handle, &newest).expect_err("pages are missing");
        assert!(matches!(error, TreeError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn the_inspector_shows_every_page() {
    let (bytes, newest) = small_file();
    let disk = SimDisk::new(1);
    disk.set_bytes(NAME, bytes.clone());
    let inspector = Inspector::open(&disk, NAME).expect("the file");
    let pages = bytes.len() as u64 / 4096;
    assert_eq!(inspector.pages(), pages);
    let metas = inspector
        .metas()
        .map(|meta| meta.expect("inside").expect("valid"));
    let meta = metas
        .iter()
        .max_by_key(|meta| meta.generation)
        .expect("two");
    assert_eq!(meta.user, newest.user);
    let root = inspector.page(meta.roots[0].id).expect("inside");
    assert_eq!((root.fault, root.crc), (None, meta.roots[0].crc));
    assert!(
        root.to_string()
            .starts_with(&format!("page {}: crc", root.id))
    );
    for id in 0..pages {
        let dump = inspector.page(id).expect("inside");
        assert!(!dump.to_string().is_empty());
    }
    assert!(inspector.page(pages).is_none());
}
