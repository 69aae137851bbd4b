//! A program over etcd's own Go client asks quoin what it asked etcd, and must hear the same.
//! `tools/lib/need.sh` builds it where Go is present.

use super::start;
use crate::server::Server;
use sha2::Digest as _;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

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
    if name == "conformance" {
        assert_current();
    }
    Some(path)
}

/// Fails by name if the program over etcd's client was built from other sources than these: it
/// would be asked for what it does not know.
fn assert_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = here.join("tests/conformance/go");
    let listed = std::fs::read_dir(&sources).expect("the sources are there");
    let names = listed.map(|entry| entry.expect("a file").file_name());
    let mut programs: Vec<_> = names
        .filter(|name| name.to_string_lossy().ends_with(".go"))
        .collect();
    programs.sort();
    let all = ["go.mod".into(), "go.sum".into()]
        .into_iter()
        .chain(programs);
    let text = all.flat_map(|name| std::fs::read(sources.join(name)).expect("a source"));
    let hash = sha2::Sha256::digest(text.collect::<Vec<u8>>());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let stamp = here.join("build/peers/conformance/built");
    let stamp = std::fs::read_to_string(stamp).unwrap_or_default();
    assert!(
        stamp.starts_with(&hash),
        "build/bin/conformance is outdated: its sources have changed since it was built; \
         tools/test builds it anew, or: . tools/lib/need.sh && go_client"
    );
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
pub struct Etcd {
    child: Child,
    pub address: SocketAddr,
    peer: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Etcd {
    pub fn start(program: &Path) -> Etcd {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (address, peer) = (free_address(), free_address());
        Etcd {
            child: run_etcd(program, dir.path(), address, peer),
            address,
            peer,
            dir,
        }
    }

    /// Kills it and starts it again over the same data.
    pub fn restart(&mut self, program: &Path) {
        self.kill();
        self.child = run_etcd(program, self.dir.path(), self.address, self.peer);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_etcd(program: &Path, dir: &Path, address: SocketAddr, peer: SocketAddr) -> Child {
    let url = format!("http://{address}");
    let child = Command::new(program)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &url])
        .args(["--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        // Its process is killed, not the machine.
        .arg("--unsafe-no-fsync")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "etcd does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

pub fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

/// A program over etcd's client that is given orders, a line each, and answers each with a line.
pub struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(program: &Path, args: &[&str]) -> Worker {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        Worker {
            orders: child.stdin.take(),
            says: BufReader::new(child.stdout.take().expect("stdout is piped")),
            child,
        }
    }

    /// Orders something and gives the answer; what the client finds wrong it says on stderr.
    pub fn order(&mut self, order: &str) -> String {
        let mut answer = String::new();
        let orders = self.orders.as_mut().expect("it has not been ended");
        let asked = writeln!(orders, "{order}").and_then(|()| self.says.read_line(&mut answer));
        assert!(
            asked.is_ok() && !answer.is_empty(),
            "the client found a fault"
        );
        answer
    }

    pub fn end(mut self) {
        drop(self.orders.take());
        let status = self.child.wait().expect("the process is ours");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn number(answer: &str, name: &str) -> u64 {
    answer
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

/// Runs a program that uses a server and says `ok …` for each step that holds.
fn uses(command: &mut Command, address: SocketAddr, steps: usize) {
    let mut child = command
        .arg(address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("the process is ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("the process is ours");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("the process is ours");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let held = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(held, steps, "{said}");
}

/// Uses quoin, and etcd too where it is at hand and time allows: what fails there says nothing.
fn both(command: impl Fn() -> Command, steps: usize) {
    let (server, _dir) = start();
    uses(&mut command(), server.address, steps);
    let long = std::env::var("QUOIN_TEST_BUDGET").is_ok_and(|budget| budget != "1");
    if let Some(etcd) = program("etcd", "the same with etcd").filter(|_| long) {
        uses(&mut command(), Etcd::start(&etcd).address, steps);
    }
}

/// A file of `build/clients`, or of the sources of the clients.
fn client(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(place)
}

/// Whether `tools/test` has installed a client; a word about it if not.
fn installed(name: &str) -> bool {
    let there = client("build/clients").join(name).join("built").exists();
    if !there {
        eprintln!("{name} skipped: build/clients/{name} is not there (tools/test installs it)");
    }
    there
}

fn on_the_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("{name} skipped: it is not installed");
    }
    found
}

#[test]
fn the_packages_of_etcds_client_work() {
    let Some(conformance) = program("conformance", "the packages of etcd's client") else {
        return;
    };
    // It goes to where the member says it is.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("http://{}", free_address());
    let flags = [
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let said = ask(&conformance, server.address, &["packages"]);
    assert_eq!(
        said.lines().filter(|line| line.starts_with("ok ")).count(),
        15,
        "{said}"
    );
}

#[test]
fn what_kube_apiserver_does_with_its_storage_works() {
    let Some(conformance) = program("conformance", "what kube-apiserver does") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    // As kubeadm starts it.
    let flags = [
        "--watch-progress-notify-interval=5s",
        "--snapshot-count=10000",
    ];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let said = ask(&conformance, server.address, &["apiserver"]);
    println!("{said}");
    let steps = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(steps, 5, "{said}");
}

fn etcdctl(program: &Path) {
    both(
        || {
            let mut command = Command::new("bash");
            let script = client("tests/conformance/clients/etcdctl.sh");
            command.arg(script).arg(program);
            command
        },
        8,
    );
}

#[test]
fn etcdctl_of_debian_works() {
    if let Some(program) = on_the_path("etcdctl") {
        etcdctl(&program);
    }
}

#[test]
fn etcdctl_of_this_release_works() {
    if let Some(program) = program("etcdctl", "etcdctl 3.7.3") {
        etcdctl(&program);
    }
}

#[test]
fn curl_works() {
    if on_the_path("curl").is_some() {
        both(
            || {
                let mut command = Command::new("bash");
                command.arg(client("tests/conformance/clients/curl.sh"));
                command
            },
            8,
        );
    }
}

fn python(script: &str, steps: usize) {
    if installed("python") {
        both(
            || {
                let mut command = Command::new(client("build/clients/python/bin/python"));
                command.arg(client("tests/conformance/clients").join(script));
                command
            },
            steps,
        );
    }
}

#[test]
fn a_python_client_over_grpc_works() {
    python("python_grpc.py", 8);
}

#[test]
fn a_python_client_over_the_gateway_works() {
    python("python_gateway.py", 6);
}

#[test]
fn the_client_for_node_js_works() {
    if installed("node") {
        both(
            || {
                let mut command = Command::new("node");
                command.arg(client("build/clients/node/use.js"));
                command
            },
            8,
        );
    }
}

#[test]
fn jetcd_works() {
    if installed("java") {
        let place = client("build/clients/java");
        let classes = format!("{0}:{0}/lib/*", place.display());
        both(
            || {
                let mut command = Command::new("java");
                command.args(["-cp", &classes, "Use"]);
                command
            },
            7,
        );
    }
}
