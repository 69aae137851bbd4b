//! A full disk, a full file, large transactions, readers on threads, space given back.

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::{Interval, TreeError, TreeId, TreeOptions, TreeRead, TreeWrite, check};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tree_support::*;

const ALL: Interval<'static> = Interval {
    start: &[],
    end: None,
};

fn key(n: u64) -> [u8; 24] {
    let mut key = *b"key-00000000000000000000";
    key[4..].copy_from_slice(format!("{n:020}").as_bytes());
    key
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn a_full_disk_refuses_inserts_and_lets_removals_free_it() {
    let disk = SimDisk::new(3);
    disk.set_capacity(8 << 20);
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = TreeOptions {
        young_bytes_max: 1 << 20,
        spare_bytes: 2 << 20,
        ..options()
    };
    let (mut writer, shared) = open_at(&handle, options.clone()).expect("a new file");
    let mut n = 0;
    'fill: loop {
        let mut txn = writer.begin();
        for _ in 0..100 {
            match txn.insert(TreeId::Key, &key(n), &[&[1; 300]], true) {
                Ok(()) => n += 1,
                Err(TreeError::NoSpace) => break 'fill,
                Err(e) => panic!("{e}"),
            }
        }
        txn.commit(&n.to_le_bytes());
        if writer.young_bytes() > 800 << 10 {
            writer.checkpoint_now().expect("a full disk is no error");
        }
        assert!(n < 100_000, "8 MiB never fill");
    }
    assert!(writer.full());
    let before = u64::from_le_bytes(writer.user().try_into().expect("eight bytes"));
    assert!(before > 5000, "{before} entries in 8 MiB");
    // Reads go on; removals do, and bring the space back.
    let reader = shared.reader().expect("a slot");
    assert_eq!(reader.pin().count(TreeId::Key, ALL).expect("sound"), before);
    let mut gone = 0;
    while gone < before * 3 / 4 {
        let mut txn = writer.begin();
        txn.use_reserve();
        for _ in 0..200 {
            assert!(txn.remove(TreeId::Key, &key(gone)).expect("removals go on"));
            txn.insert(TreeId::State, b"cursor", &[&gone.to_le_bytes()], false)
                .expect("what removals need goes on");
            gone += 1;
        }
        txn.commit(&(before - gone).to_le_bytes());
        writer.checkpoint_now().expect("checkpoints go on");
    }
    for _ in 0..3 {
        let mut txn = writer.begin();
        txn.use_reserve();
        txn.insert(TreeId::State, b"cursor", &[b"end"], false)
            .expect("room");
        let user = txn.user().to_vec();
        txn.commit(&user);
        assert!(writer.checkpoint_now().expect("no error"));
    }
    assert!(
        !writer.full(),
        "three quarters are gone: {:?}",
        writer.stats()
    );
    let mut txn = writer.begin();
    txn.insert(TreeId::Key, &key(n), &[&[1; 300]], true)
        .expect("room again");
    let user = txn.user().to_vec();
    txn.commit(&user);
    writer.checkpoint_now().expect("no error");
    writer.check().expect("sound");
    drop((writer, shared, reader));
    check(&*handle, NAME).expect("sound");
    let (writer, _) = open_at(&handle, options).expect("sound");
    assert!(!writer.full());
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_end_of_the_addresses_is_no_space() {
    let handle: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let options = TreeOptions {
        reserve_bytes: 4 << 20,
        ..options()
    };
    let (mut writer, _shared) = open_at(&handle, options).expect("a new file");
    let mut n = 0;
    let error = 'fill: loop {
        let mut txn = writer.begin();
        for _ in 0..100 {
            if let Err(e) = txn.insert(TreeId::Key, &key(n), &[&[1; 300]], true) {
                break 'fill e;
            }
            n += 1;
        }
        txn.commit(b"");
        writer.checkpoint_now().expect("room for the checkpoint");
        assert!(n < 100_000);
    };
    assert!(matches!(error, TreeError::NoSpace), "{error}");
    assert!(n > 2000, "{n} entries in 4 MiB");
    writer.check().expect("sound");
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn values_and_keys_of_several_mebibytes() {
    let handle: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let (mut writer, shared) = open_at(&handle, options()).expect("a new file");
    let big = |n: u8| -> Vec<u8> { (0..5_000_000u32).map(|i| (i * 31) as u8 ^ n).collect() };
    let mut expect = Model::default();
    for n in 0..6u8 {
        let (mut key, value) = (big(0), big(n));
        key.push(n % 3);
        let mut txn = writer.begin();
        txn.insert(TreeId::Key, &key, &[&value], true)
            .expect("room");
        for small in 0..30u8 {
            let mut key = key.clone();
            key.truncate(600_000);
            key.extend_from_slice(&[small; 20]);
            txn.insert(TreeId::Key, &key, &[&[small]], true)
                .expect("room");
            expect.maps[0].insert(key, (vec![small], true));
        }
        txn.commit(b"");
        expect.maps[0].insert(key, (value, true));
        if n % 2 == 1 {
            writer.checkpoint_now().expect("a checkpoint");
        }
    }
    compare_snapshot(&shared.reader().expect("a slot").pin(), &expect).expect("sound");
    writer.check().expect("sound");
    drop((writer, shared));
    check(&*handle, NAME).expect("sound");
    let (mut writer, shared) = open_at(&handle, options()).expect("sound");
    compare_snapshot(&shared.reader().expect("a slot").pin(), &expect).expect("sound");
    let mut txn = writer.begin();
    for key in expect.maps[0].keys() {
        assert!(txn.remove(TreeId::Key, key).expect("sound"));
    }
    txn.commit(b"");
    let report = writer.check().expect("sound");
    assert_eq!((report.run_pages, report.entries), (0, [0; 3]));
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn space_comes_back_online() {
    let disk = SimDisk::new(3);
    let handle: Arc<dyn Disk> = Arc::new(disk);
    let (mut writer, _shared) = open_at(&handle, options()).expect("a new file");
    let entries = if cfg!(miri) { 200 } else { 40_000 };
    let mut txn = writer.begin();
    for n in 0..entries {
        txn.insert(TreeId::Key, &key(n), &[&[3; 200]], true)
            .expect("room");
    }
    txn.commit(b"");
    writer.checkpoint_now().expect("a checkpoint");
    let full = writer.page_file().allocated_bytes().expect("no fault");
    let mut txn = writer.begin();
    for n in 0..entries {
        txn.remove(TreeId::Key, &key(n)).expect("sound");
    }
    txn.commit(b"");
    for _ in 0..4 {
        writer.checkpoint_now().expect("a checkpoint");
        let txn = writer.begin();
        txn.commit(b"");
    }
    let empty = writer.page_file().allocated_bytes().expect("no fault");
    assert!(
        empty < full / 10 || cfg!(miri),
        "{full} bytes, then {empty}"
    );
    writer.check().expect("sound");
}

#[test]
fn readers_on_threads_see_whole_states() {
    let handle: Arc<dyn Disk> = Arc::new(SimDisk::new(11));
    let options = TreeOptions {
        young_bytes_max: 256 << 10,
        ..options()
    };
    let (mut writer, shared) = open_at(&handle, options).expect("a new file");
    let keys: u64 = if cfg!(miri) { 20 } else { 2000 };
    let rounds: u64 = if cfg!(miri) { 3 } else { 400 };
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..if cfg!(miri) { 2 } else { 3 } {
            let (shared, stop, reads) = (shared.clone(), &stop, &reads);
            scope.spawn(move || {
                let reader = shared.reader().expect("a slot");
                let mut random = Random::new(thread);
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = reader.pin();
                    let round = snapshot.user().to_vec();
                    // All values of one state are of one round.
                    let mut seen = 0;
                    let visit = &mut |_: &[u8], value: &[u8]| {
                        assert_eq!(&value[..8], &round[..], "a mixed state");
                        seen += 1;
                        true
                    };
                    snapshot.scan(TreeId::Key, ALL, visit).expect("sound");
                    let counted = snapshot.count(TreeId::Key, ALL).expect("sound");
                    assert_eq!(seen, counted);
                    let n = random.below(keys);
                    if let Some(value) = snapshot.get(TreeId::Key, &key(n)).expect("sound") {
                        assert_eq!(&value[..8], &round[..], "a mixed state");
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = Random::new(99);
        let mut running: Option<std::thread::ScopedJoinHandle<'_, _>> = None;
        for round in 0..rounds {
            let mut txn = writer.begin();
            for n in 0..keys {
                let mut value = vec![0u8; 8 + random.below(200) as usize];
                if n % 97 == 0 {
                    value.resize(5000, 0);
                }
                value[..8].copy_from_slice(&round.to_le_bytes());
                txn.insert(TreeId::Key, &key(n), &[&value], true)
                    .expect("room");
            }
            txn.commit(&round.to_le_bytes());
            if running.as_ref().is_some_and(|thread| thread.is_finished()) {
                let done = running.take().expect("looked at").join().expect("no panic");
                writer.checkpointed(done);
            }
            if running.is_none()
                && let Some(job) = writer.checkpoint()
            {
                let file = writer.page_file();
                let run = move || job.run(&*file, &mut |_| ()).expect("no fault");
                running = Some(scope.spawn(run));
            }
        }
        stop.store(true, Ordering::Relaxed);
        if let Some(thread) = running {
            writer.checkpointed(thread.join().expect("no panic"));
        }
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    writer.check().expect("sound");
}

/// A reader pinned over many checkpoints keeps its state, although pages are used again.
#[test]
fn a_reader_pinned_over_many_checkpoints_keeps_its_state() {
    let handle: Arc<dyn Disk> = Arc::new(SimDisk::new(11));
    let (mut writer, shared) = open_at(&handle, options()).expect("a new file");
    let mut expect = Model::default();
    let write = |writer: &mut quoin_storage::tree::Writer, round: u8, model: &mut Model| {
        let mut txn = writer.begin();
        for n in 0..400 {
            let value = vec![round; 100];
            txn.insert(TreeId::Key, &key(n), &[&value], true)
                .expect("room");
            model.maps[0].insert(key(n).to_vec(), (value, true));
        }
        model.user = vec![round];
        txn.commit(&[round]);
        assert!(writer.checkpoint_now().expect("no fault"));
    };
    write(&mut writer, 0, &mut expect);
    let reader = shared.reader().expect("a slot");
    let pinned = reader.pin();
    let mut newer = Model::default();
    for round in 1..12 {
        write(&mut writer, round, &mut newer);
        compare_snapshot(&pinned, &expect).expect("the pinned state");
    }
    drop(pinned);
    compare_snapshot(&reader.pin(), &newer).expect("the newest state");
    let txn = writer.begin();
    txn.commit(b"");
    writer.check().expect("sound");
}

/// On a full disk others take at once what becomes free. What a checkpoint needs of the reserve it
/// gets; the rest stays in reserve.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn on_a_full_disk_others_do_not_take_the_reserve() {
    let disk = SimDisk::new(8);
    disk.set_capacity(8 << 20);
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = TreeOptions {
        spare_bytes: 1 << 20,
        young_bytes_max: 1 << 20,
        extent_bytes: 64 << 10,
        ..options()
    };
    let (mut writer, _shared) = open_at(&handle, options).expect("a new file");
    let other = handle.open_pages("other", 64 << 20).expect("a file");
    let mut taken = 0;
    let mut take_all = || {
        while other.allocate(taken, 4096).is_ok() {
            taken += 4096;
        }
    };
    let mut written = 0;
    while !writer.full() {
        let mut txn = writer.begin();
        for _ in 0..50 {
            let inserted = txn.insert(TreeId::Key, &key(written), &[&[1; 300]], true);
            inserted.expect("the reserve is whole");
            written += 1;
        }
        txn.commit(b"");
        writer.checkpoint_now().expect("a full disk is no error");
        if written > 5000 {
            take_all();
        }
        assert!(written < 100_000, "8 MiB never fill");
    }
    take_all();
    let random_half = |n: &u64| n.wrapping_mul(0x9e37_79b9) & 1 == 0;
    for chunk in Vec::from_iter((0..written).filter(random_half)).chunks(100) {
        let mut txn = writer.begin();
        txn.use_reserve();
        for &n in chunk {
            assert!(txn.remove(TreeId::Key, &key(n)).expect("removals go on"));
        }
        txn.commit(b"");
        assert!(
            writer.checkpoint_now().expect("no error"),
            "no space for it"
        );
        take_all();
    }
    writer.check().expect("sound");
    disk.set_capacity(64 << 20);
    let txn = writer.begin();
    txn.commit(b"");
    assert!(writer.checkpoint_now().expect("no error"));
    assert!(!writer.full());
}
