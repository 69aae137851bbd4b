//! A program over etcd's own Go client asks quoin what it asked etcd, and must hear the same.
//! `tools/lib/need.sh` builds it where Go is present.

use super::start;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What etcd 3.7.3 answered.
const ANSWERS_OF_ETCD: &str = include_str!("etcd-3.7.3.txt");

/// A program of the build folder; `None`, and a word about it, if it was not built.
pub fn program(name: &str, test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("build/bin")
        .join(name);
    if !path.exists() {
        eprintln!("{test} skipped: build/bin/{name} is not there (tools/test builds it if it can)");
        return None;
    }
    Some(path)
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

fn ask(client: &Path, address: SocketAddr, args: &[&str]) -> String {
    let output = Command::new(client)
        .arg(address.to_string())
        .args(args)
        .output()
        .expect("the client starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the client prints text")
}

fn assert_same(asked_of_etcd: &str, asked_of_quoin: &str) {
    for (etcd, quoin) in asked_of_etcd.lines().zip(asked_of_quoin.lines()) {
        assert_eq!(quoin, etcd, "quoin's answer is not etcd's");
    }
    assert_eq!(
        asked_of_quoin.lines().count(),
        asked_of_etcd.lines().count()
    );
}

#[test]
fn etcds_client_hears_from_quoin_what_it_heard_from_etcd() {
    let Some(client) = program("conformance", "the comparison with etcd's answers") else {
        return;
    };
    let (server, _dir) = start();
    let answers = ask(&client, server.address, &["script"]);
    assert!(answers.lines().count() > 90, "{answers}");
    assert_same(ANSWERS_OF_ETCD, &answers);
}

/// An etcd of its own.
struct Etcd {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Etcd {
    fn start(program: &Path) -> Etcd {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (address, peer) = (free_address(), free_address());
        let url = format!("http://{address}");
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "etcd does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        Etcd {
            child,
            address,
            _dir: dir,
        }
    }
}

#[test]
fn random_calls_are_answered_as_etcd_answers_them() {
    let what = "the comparison with a running etcd";
    let (Some(client), Some(etcd)) = (program("conformance", what), program("etcd", what)) else {
        return;
    };
    let etcd = Etcd::start(&etcd);
    let (server, _dir) = start();
    let args = ["random", "20261122", "1500"];
    let expected = ask(&client, etcd.address, &args);
    assert!(expected.lines().count() > 1500, "{expected}");
    assert_same(&expected, &ask(&client, server.address, &args));
}
