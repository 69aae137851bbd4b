//! Bytes that changed on the disk while the server was stopped: what cannot be trusted is named
//! by file and place, to the client as an error and to the operator in the log.

use crate::link::{Answer, Link};
use crate::server::{Server, command, refused};
use crate::startup::{assert_refused, folder};
use quoin::api::{Error, PutRequest, RangeRequest, Request};
use quoin_storage::disk::RealDisk;
use quoin_storage::log::{Inspected, inspect};
use quoin_storage::page::PAGE;
use quoin_storage::tree::Inspector;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const KEYS: usize = 2_000;

fn key(n: usize) -> Vec<u8> {
    format!("key{n:06}").into_bytes()
}

/// Turns all bits of a range of a file.
fn flip(path: &Path, at: u64, bytes: usize) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("it is ours");
    let mut range = vec![0; bytes];
    file.read_exact_at(&mut range, at).expect("it is so long");
    range.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&range, at).expect("it is ours");
}

/// The first leaf of the key tree, in the newest checkpoint: its page, and how many pages above
/// it lead there.
fn first_leaf(dir: &Path) -> (u64, usize) {
    let disk = RealDisk::open_existing(dir).expect("it is ours");
    let inspector = Inspector::open(&disk, "tree").expect("there was a checkpoint");
    let metas = inspector.metas().into_iter().flatten();
    let newest = metas.filter_map(Result::ok).max_by_key(|m| m.generation);
    let (mut page, mut above) = (newest.expect("it is sound").roots[0].id, 0);
    loop {
        let dump = inspector.page(page).expect("it is in the file");
        match dump.cells[0].child {
            Some(child) => (page, above) = (child.id, above + 1),
            None => return (page, above),
        }
    }
}

#[test]
fn a_damaged_leaf_is_an_error_to_the_client_and_named_in_the_log() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    for n in 0..KEYS {
        let put = PutRequest {
            key: &key(n),
            value: b"value",
            ..PutRequest::default()
        };
        link.request(&Request::Put(put), n as u64 + 1);
    }
    for _ in 0..KEYS {
        let (_, _, answer) = link.answer().expect("it is answered");
        assert_eq!(answer, Answer::Written);
    }
    // The stop ends with a checkpoint, so that the next start has nothing to write there.
    assert_eq!(server.terminate().0.code(), Some(0));
    let (page, above) = first_leaf(&dir);
    assert!(above > 0, "a start looks at the roots");
    flip(&dir.join("tree"), page * PAGE as u64 + 3_000, 8);

    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    let first = key(0);
    let started = Instant::now();
    for id in 1..=50 {
        let range = RangeRequest {
            key: &first,
            ..RangeRequest::default()
        };
        link.request(&Request::Range(range), id);
        let (_, _, answer) = link.answer().expect("it is answered");
        assert_eq!(answer, Answer::Refused(Some(Error::Corrupt)));
    }
    let seconds = started.elapsed().as_secs() as usize;
    // What lies on sound pages is served as before.
    let last = key(KEYS - 1);
    assert_eq!(link.all(&last).expect("it is served").0.len(), 1);
    let (status, said) = server.terminate();
    assert_eq!(status.code(), Some(0), "{said:?}");
    let named = format!("a read met damaged data: the tree file is damaged at page {page}: ");
    let lines = said.iter().filter(|line| line.contains(&named)).count();
    assert!((1..=seconds + 1).contains(&lines), "{said:?}");
}

/// A segment of the log, how many bytes of it are in use, and the place of some bytes there.
fn segment_with(dir: &Path, needle: &[u8]) -> (String, u64, Option<u64>) {
    let disk = RealDisk::open_existing(dir).expect("it is ours");
    let mut ends = Vec::new();
    inspect(&disk, "log-", &mut |found| {
        if let Inspected::End { file, byte, .. } = found {
            ends.push((file.to_owned(), byte));
        }
    })
    .expect("it is readable");
    assert_eq!(ends.len(), 1, "so little fits one segment");
    let (file, end) = ends.remove(0);
    let bytes = fs::read(dir.join(&file)).expect("it is ours");
    let found = bytes.windows(needle.len()).position(|w| w == needle);
    (file, end, found.map(|at| at as u64))
}

#[test]
fn a_damaged_record_of_the_log_is_refused_by_file_and_place() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    for value in [&b"a needle in a log"[..], b"2", b"3"] {
        link.put(b"key", value).expect("it is served");
    }
    server.kill();
    let (file, _, at) = segment_with(&dir, b"a needle in a log");
    let at = at.expect("it was acknowledged");
    flip(&dir.join(&file), at, 4);
    for _ in 0..2 {
        let (code, said) = refused(&mut command(&dir));
        let (_, place) = said
            .split_once(&format!("the log is damaged: {file} at byte "))
            .unwrap_or_else(|| panic!("file and place are missing: {said}"));
        let (byte, what) = place.split_once(": ").expect("what is wrong");
        let byte: u64 = byte.parse().expect("a place");
        assert!(byte <= at && at - byte < 1_000, "{at} is damaged: {said}");
        assert!(what.starts_with("an acknowledged record"), "{said}");
        assert_refused((code, said), "", "'The data is damaged'");
    }
    // With the bytes as they were nothing is lost: a refusal changes nothing.
    flip(&dir.join(&file), at, 4);
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    assert_eq!(link.all(b"key").expect("it is served").0[0].value, b"3");
}

#[test]
fn a_write_to_the_log_that_was_broken_off_costs_nothing() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    for n in 0..20 {
        link.put(&key(n), b"value").expect("it is served");
    }
    server.kill();
    let (file, end, _) = segment_with(&dir, b"value");
    // Blocks that never became a batch.
    flip(&dir.join(&file), end, 8_192);
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    assert_eq!(link.all(b"key").expect("it is served").0.len(), 20);
    link.put(&key(20), b"value").expect("it is served");
    server.kill();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    assert_eq!(link.all(b"key").expect("it is served").0.len(), 21);
}
