//! Starting and stopping: every way in that is not one is refused with a reason, and a stop
//! leaves nothing to recover.

use crate::link::Link;
use crate::server::{Server, command, refused};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("node");
    (parent, dir)
}

/// The refusal names what is wrong and the section that tells the way out.
#[track_caller]
fn assert_refused(refusal: (Option<i32>, String), what: &str, section: &str) {
    let (code, said) = refusal;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(what), "'{what}' is missing: {said}");
    assert!(said.contains(section), "'{section}' is missing: {said}");
}

#[test]
fn a_stop_on_sigterm_ends_with_zero_and_keeps_everything() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    let revision = link.put(b"key", b"value").expect("it is served");
    let (status, said) = server.terminate();
    assert_eq!(status.code(), Some(0), "{said:?}");
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    let (pairs, now) = link.all(b"k").expect("it is served");
    assert_eq!(now, revision);
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].value, b"value");
    assert_eq!(pairs[0].mod_revision, revision);
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let (_parent, dir) = folder();
    fs::create_dir_all(dir.join("member/wal")).expect("a folder");
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "etcd member", "The data directory is not quoin's");
    assert_eq!(fs::read_dir(&dir).expect("it is there").count(), 1);
}

#[test]
fn a_directory_in_use_is_refused() {
    let (_parent, dir) = folder();
    let _server = Server::start(&dir);
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "in use", "The data directory is in use");
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let (_parent, dir) = folder();
    Server::start(&dir).kill();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("it is ours");
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "chmod 700", "The data directory's permissions");
}

#[test]
fn a_path_that_cannot_be_a_directory_is_refused() {
    let parent = tempfile::tempdir().expect("a folder");
    let file = parent.path().join("file");
    fs::write(&file, "text").expect("a file");
    let refusal = refused(&mut command(&file));
    assert_refused(refusal, "Not a directory", "docs/OPERATIONS.md");
    let refusal = refused(&mut command(&file.join("below")));
    assert_refused(refusal, "Not a directory", "docs/OPERATIONS.md");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_written() {
    let (_parent, dir) = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one");
    let mut command = command(&dir);
    command.arg(format!("--listen-client-urls=http://{address}"));
    assert_refused(
        refused(&mut command),
        "Address already in use",
        "The address cannot be opened",
    );
    assert_eq!(fs::read_dir(&dir).expect("it was made").count(), 0);
}

#[test]
fn a_damaged_identity_is_refused() {
    let (_parent, dir) = folder();
    Server::start(&dir).kill();
    let path = dir.join("identity");
    let mut bytes = fs::read(&path).expect("it is there");
    bytes[20] ^= 1;
    fs::write(&path, bytes).expect("it is ours");
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "checksum", "The data is damaged");
    fs::remove_file(&path).expect("it is ours");
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "missing", "The data is damaged");
}

#[test]
fn a_lost_log_is_refused_and_not_begun_anew() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    link.put(b"key", b"value").expect("it is served");
    server.kill();
    for entry in fs::read_dir(&dir).expect("it is there") {
        let path = entry.expect("it is readable").path();
        if path.extension().is_some_and(|e| e == "seg") {
            fs::remove_file(path).expect("it is ours");
        }
    }
    let (code, said) = refused(&mut command(&dir));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("The data is damaged"), "{said}");
}

#[test]
fn flags_that_cannot_be_followed_are_refused() {
    let (_parent, dir) = folder();
    for (flags, what) in [
        (
            &["--quota-backend-byte", "1"][..],
            "did you mean --quota-backend-bytes?",
        ),
        (&["--cert-file", "x"], "protection"),
        (&["--cores", "4000"], "this process may use"),
        (&["stray"], "not a flag"),
    ] {
        let (code, said) = refused(command(&dir).args(flags));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(what), "'{what}' is missing: {said}");
    }
    assert!(!dir.exists() || fs::read_dir(&dir).expect("it is ours").count() == 0);
}

#[test]
fn the_version_and_the_help_are_told() {
    for flag in ["--version", "-h"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_quoin"))
            .arg(flag)
            .output()
            .expect("the program starts");
        assert!(output.status.success());
        assert!(output.stdout.starts_with(b"quoin"), "{output:?}");
    }
}

/// The map of the tree file shows a hole in the world where the file was cut: the last message
/// names file and place, and the exit code says that going on was not safe.
#[test]
fn a_page_that_cannot_be_read_ends_the_process_by_name() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    for number in 0..500 {
        let key = format!("key{number}");
        link.put(key.as_bytes(), &[b'v'; 2_000])
            .expect("it is served");
    }
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    let tree = fs::OpenOptions::new()
        .write(true)
        .open(dir.join("tree"))
        .expect("it is ours");
    tree.set_len(8_192).expect("it can be cut");
    assert!(link.all(b"k").is_err(), "what was cut off was served");
    let (code, said) = server.ended();
    assert_eq!(code, Some(2), "{said:?}");
    let last = said.last().expect("it had last words");
    assert!(
        last.contains("SIGBUS") && last.contains("/tree at byte"),
        "{last}"
    );
}
