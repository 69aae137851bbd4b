//! Starting and stopping: every way in that is not one is refused with a reason, and a stop
//! leaves nothing to recover.

use crate::link::Link;
use crate::server::{Server, command, refused};
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub fn folder() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("node");
    (parent, dir)
}

/// The refusal names what is wrong and the section that tells the way out.
#[track_caller]
pub fn assert_refused(refusal: (Option<i32>, String), what: &str, section: &str) {
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
fn a_second_signal_ends_a_stop_at_once_and_is_no_fault() {
    let (_parent, dir) = folder();
    let server = Server::start(&dir);
    let mut link = Link::open(server.address).expect("it serves");
    for number in 0..16u8 {
        let value = vec![number; 1 << 20];
        link.put(&[b'k', number], &value).expect("it is served");
    }
    // A client that does not take its answer holds the stop up.
    let mut slow = TcpStream::connect(server.address).expect("it serves");
    let body = r#"{"key":"aw==","rangeEnd":"bA=="}"#;
    let length = body.len();
    write!(
        slow,
        "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("it is read");
    let mut first = [0; 1];
    slow.read_exact(&mut first).expect("the answer begins");
    server.signal(libc::SIGTERM);
    server.says("stopping");
    server.signal(libc::SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(2), "{said:?}");
    let last = said.last().expect("it says why");
    assert!(last.contains("a second signal"), "{said:?}");
    assert!(last.contains(r#""level":"warn""#), "{said:?}");
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
    for path in [&file, &file.join("below")] {
        let refusal = refused(&mut command(path));
        let section = "'The data directory cannot be made'";
        assert_refused(refusal, "Not a directory", section);
    }
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
    for (flag, first) in [("--version", "etcd Version: 3.7."), ("-h", "quoin")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_quoin"))
            .arg(flag)
            .output()
            .expect("the program starts");
        assert!(output.status.success());
        assert!(output.stdout.starts_with(first.as_bytes()), "{output:?}");
    }
}

/// A service manager hears when the server serves, and when it stops.
#[test]
fn systemd_is_notified() {
    let (parent, dir) = folder();
    let path = parent.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let patience = Some(Duration::from_secs(30));
    manager.set_read_timeout(patience).expect("a socket");
    let heard = || {
        let mut bytes = [0; 64];
        let count = manager.recv(&mut bytes).expect("it is told");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut command = command(&dir);
    command.env("NOTIFY_SOCKET", &path);
    let server = Server::start_as(&mut command);
    assert_eq!(heard(), "READY=1");
    assert_eq!(server.terminate().0.code(), Some(0));
    assert_eq!(heard(), "STOPPING=1");
}

#[test]
fn lines_are_json_with_zaps_keys_or_text_and_go_where_they_are_asked_to() {
    let (parent, dir) = folder();
    let file = parent.path().join("log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let server = Server::start_with(&dir, &["--pre-vote", &outputs]);
    let (_, said) = server.terminate();
    let logged = fs::read_to_string(&file).expect("it was made");
    assert!(said.iter().all(|line| logged.contains(line.as_str())));
    let moot = logged.lines().find(|line| line.contains("--pre-vote"));
    assert!(moot.is_some_and(|line| line.contains("asks for nothing here")));
    for line in logged.lines() {
        let line = line.strip_prefix("{\"level\":\"info\",\"ts\":\"2");
        let line = line.expect("the keys of zap");
        assert!(line.contains("Z\",\"caller\":\"runtime/"), "{line}");
        assert!(
            line.contains("\",\"msg\":\"") && line.ends_with("\"}"),
            "{line}"
        );
    }
    let server = Server::start_with(&dir, &["--log-format=console"]);
    let (_, said) = server.terminate();
    assert!(
        said.iter().all(|line| line.contains("Z info  ")),
        "{said:?}"
    );
    let refusal = refused(command(&dir).args(["--log-outputs", "/nonexistent/log"]));
    assert!(refusal.1.contains("'/nonexistent/log'"), "{refusal:?}");
}

#[test]
fn an_existing_member_goes_on_and_a_missing_one_is_refused() {
    let (_parent, dir) = folder();
    let flags = [
        "--initial-cluster-state=existing",
        "--initial-cluster=default=http://localhost:2380",
    ];
    let refusal = refused(command(&dir).args(flags));
    assert_refused(refusal, "'existing'", "The data directory holds no member");
    assert_eq!(fs::read_dir(&dir).expect("it was made").count(), 0);
    Server::start(&dir).kill();
    Server::start_with(&dir, &flags).kill();
}

#[test]
fn a_configuration_file_sets_everything() {
    let (parent, dir) = folder();
    let file = parent.path().join("etcd.conf.yml");
    let text = format!(
        "data-dir: {}\nlisten-client-urls: http://127.0.0.1:0\n\
         listen-metrics-urls: 'http://127.0.0.1:0'\n",
        dir.display()
    );
    fs::write(&file, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quoin"));
    command
        .arg("--config-file")
        .arg(&file)
        .arg("--name=ignored");
    let server = Server::start_as(command.stderr(Stdio::piped()));
    assert!(dir.join("identity").exists());
    let metrics = server.also_serves("ready to serve metrics and health on ");
    assert_ne!(metrics, server.address);
    TcpStream::connect(metrics).expect("it serves");
    assert_eq!(server.terminate().0.code(), Some(0));
}

#[test]
fn the_log_may_have_a_directory_of_its_own() {
    let (parent, dir) = folder();
    let log = parent.path().join("log");
    let flag = format!("--wal-dir={}", log.display());
    let server = Server::start_with(&dir, &[&flag]);
    let mut link = Link::open(server.address).expect("it serves");
    link.put(b"key", b"value").expect("it is served");
    server.kill();
    let segments = |dir: &PathBuf| {
        let entries = fs::read_dir(dir).expect("it is there");
        let names = entries.map(|entry| entry.expect("it is readable").file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("log-"))
            .count()
    };
    assert!(segments(&log) > 0 && segments(&dir) == 0);
    let refusal = refused(&mut command(&dir));
    assert_eq!(refusal.0, Some(1), "a start without the log: {refusal:?}");
    let server = Server::start_with(&dir, &[&flag]);
    let mut link = Link::open(server.address).expect("it serves");
    assert_eq!(link.all(b"k").expect("it is served").0.len(), 1);
    drop(server);
    fs::write(log.join("other"), "").expect("it is ours");
    let refusal = refused(command(&dir).arg(&flag));
    assert_refused(refusal, "'other'", "The data directory is not quoin's");
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
