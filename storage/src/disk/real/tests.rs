//! What only the real disk does.

use super::*;

fn disk() -> (tempfile::TempDir, RealDisk) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = RealDisk::open(&dir.path().join("data")).expect("a fresh disk");
    (dir, disk)
}

#[test]
fn log_segments_start_zeroed_and_keep_what_is_written() {
    let (_dir, disk) = disk();
    let mut log = disk.create_log("a.log", 3 << 20).expect("created");
    let mut buf = AlignedBuf::new(2);
    buf.fill(7);
    log.write_durable(BLOCK as u64, &buf).expect("written");
    drop(log);
    let mut log = disk.open_log("a.log").expect("opened");
    log.sync().expect("synced");
    assert_eq!(log.len().expect("length"), 3 << 20);
    let mut read = AlignedBuf::new(4);
    log.read(0, &mut read).expect("read");
    assert!(read[..BLOCK].iter().all(|b| *b == 0));
    assert!(read[BLOCK..3 * BLOCK].iter().all(|b| *b == 7));
    assert!(read[3 * BLOCK..].iter().all(|b| *b == 0));
    assert_eq!(disk.list().expect("listed"), ["a.log"]);
}

#[test]
fn small_files_are_replaced_whole_and_bounded() {
    let (_dir, disk) = disk();
    assert_eq!(disk.read_small("id", 10).expect("read"), None);
    disk.write_small("id", b"one").expect("written");
    disk.write_small("id", b"two").expect("written");
    assert_eq!(
        disk.read_small("id", 3).expect("read").as_deref(),
        Some(&b"two"[..])
    );
    let error = disk.read_small("id", 2).expect_err("too large");
    assert!(matches!(error.kind, DiskErrorKind::BadSize(_)), "{error}");
    assert!(disk.free_bytes().expect("free") > 0);
}

#[test]
fn what_other_users_may_read_is_refused() {
    let (dir, disk) = disk();
    disk.create_log("a.log", 8192).expect("created");
    let path = dir.path().join("data");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("a.log")), 0o600);
    fs::set_permissions(path.join("a.log"), PermissionsExt::from_mode(0o640)).expect("chmod");
    let error = disk.open_log("a.log").err().expect("refused");
    assert!(
        matches!(error.kind, DiskErrorKind::TooOpen(0o640)),
        "{error}"
    );
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    let error = RealDisk::open(&path).err().expect("refused");
    assert!(
        matches!(error.kind, DiskErrorKind::TooOpen(0o755)),
        "{error}"
    );
}

#[test]
fn a_short_write_is_continued_on_the_block_where_it_broke_off() {
    let mut calls = Vec::new();
    let mut results = [5000, 4096, 4096].into_iter();
    let pieces = write_fully(3 * BLOCK, |from| {
        calls.push(from);
        Ok(results.next().expect("no further call"))
    });
    assert_eq!(pieces.expect("written"), 3);
    assert_eq!(calls, [0, BLOCK, 2 * BLOCK]);
}

#[test]
fn a_write_that_gets_nowhere_is_an_error() {
    let error = write_fully(BLOCK, |_| Ok(100)).expect_err("no progress");
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn a_failed_write_latches_the_file() {
    let (_dir, disk) = disk();
    drop(disk.create_log("a.log", 8192).expect("created"));
    // A descriptor without the right to write fails on the device's side of the ring.
    let file = File::open(disk.at("a.log")).expect("opened");
    let mut log = disk.log_file("a.log", file);
    let buf = AlignedBuf::new(1);
    let error = log.write_durable(0, &buf).expect_err("refused");
    assert!(matches!(error.kind, DiskErrorKind::Io(_)), "{error}");
    let error = log.write_durable(0, &buf).expect_err("latched");
    assert!(matches!(error.kind, DiskErrorKind::Latched), "{error}");
}

#[test]
fn what_will_be_needed_is_a_hint_that_changes_nothing() {
    let (dir, disk) = disk();
    let file = disk.open_pages("tree", 1 << 30).expect("created");
    file.allocate(0, 64 << 10).expect("allocated");
    let bytes: Vec<u8> = (0..64 << 10).map(|n| (n / 100) as u8).collect();
    file.write(0, &bytes).expect("written");
    file.sync().expect("synced");
    for (offset, len) in [
        (0, 64 << 10),
        (60 << 10, 64 << 10),
        (1 << 30, 4096),
        (u64::MAX - 4095, 4096),
    ] {
        file.will_need(offset, len);
    }
    assert!(fs::read(dir.path().join("data/tree")).expect("there") == bytes);
}

#[test]
fn runs_longer_than_one_write_arrive_whole_and_in_place() {
    let (dir, disk) = disk();
    let file = disk.open_pages("tree", 1 << 30).expect("created");
    file.allocate(0, 8 << 20).expect("allocated");
    let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n / 4096 % 251) as u8).collect();
    // One of many pieces, one of a piece and a page, and more small ones than go at a time.
    let mut runs = vec![0..300, 301..306];
    runs.extend((310..450).step_by(2).map(|page| page..page + 1));
    let range = |run: &std::ops::Range<usize>| run.start * BLOCK..run.end * BLOCK;
    let writes: Vec<_> = runs
        .iter()
        .map(|run| (range(run).start as u64, &bytes[range(run)]))
        .collect();
    file.write_runs(&writes).expect("written");
    let mut expected = vec![0; bytes.len()];
    for run in &runs {
        expected[range(run)].copy_from_slice(&bytes[range(run)]);
    }
    assert!(fs::read(dir.path().join("data/tree")).expect("there") == expected);
}
