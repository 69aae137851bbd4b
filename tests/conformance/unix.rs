//! Everything that the client port serves, over a Unix socket.

use crate::clients::program;
use crate::raw::{self, PUT, RANGE, call, get, put, run};
use crate::server::{Server, command, refused};
use h2::client::Builder;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

#[test]
fn clients_may_come_through_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = dir.path().join("client.sock");
    let url = format!("unix://{}", place.display());
    let urls = format!("http://127.0.0.1:0,{url}");
    let flags = ["--listen-client-urls", &urls];
    let server = Server::start_with(&dir.path().join("data"), &flags);

    let open = || {
        let stream = UnixStream::connect(&place).expect("it serves");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a socket");
        stream
    };
    let mut http = open();
    let health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    http.write_all(health).expect("it is read");
    let mut answer = String::new();
    http.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.contains(r#"{"health":"true""#), "{answer}");

    let mut native = open();
    let preamble = quoin::wire::client_preamble();
    native.write_all(&preamble).expect("it is read");
    let mut hello = [0; quoin::wire::SERVER_PREAMBLE_BYTES];
    native.read_exact(&mut hello).expect("it is greeted");

    run(async {
        let stream = tokio::net::UnixStream::connect(&place).await;
        let stream = stream.expect("it serves");
        let handshake = Builder::new().handshake(stream).await;
        let (client, connection) = handshake.expect("it speaks HTTP/2");
        let _connection = tokio::spawn(connection);
        let written = call(&client, PUT, put(b"unix", &vec![b'v'; 500_000])).await;
        assert_eq!(written.status.as_deref(), Some("0"), "{written:?}");
        let read = call(&client, RANGE, get(b"unix")).await;
        assert!(read.bytes.len() > 500_000, "{}", read.bytes.len());
        // It is one server.
        let (other, _) = raw::connect(server.address, &Builder::new()).await;
        let read = call(&other, RANGE, get(b"unix")).await;
        assert!(read.bytes.len() > 500_000, "{}", read.bytes.len());
    });

    if let Some(etcdctl) = program("etcdctl", "etcdctl over a Unix socket") {
        for (args, said) in [
            (&["put", "ctl", "1"][..], "OK\n"),
            (&["get", "ctl"], "ctl\n1\n"),
        ] {
            let mut command = Command::new(&etcdctl);
            let output = command.args(["--endpoints", &url]).args(args).output();
            let output = output.expect("it starts");
            assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{output:?}");
        }
    }

    // Nobody takes it away from a server that lives, and it may be left behind by one that died.
    let mut second = command(&dir.path().join("other"));
    let (code, said) = refused(second.args(flags));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&url), "{said}");
    server.kill();
    let again = Server::start_with(&dir.path().join("data"), &flags);
    let mut http = open();
    http.write_all(health).expect("it is read");
    let mut answer = String::new();
    http.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.contains(r#"{"health":"true""#), "{answer}");
    again.kill();

    // A file of somebody else stays.
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").expect("a file");
    let mut other = command(&dir.path().join("other"));
    let url = format!("unix://{}", file.display());
    let (code, _) = refused(other.args(["--listen-client-urls", &url]));
    assert_eq!(code, Some(1));
    assert_eq!(std::fs::read(&file).expect("it is there"), b"mine");
}
