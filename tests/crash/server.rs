//! One server process and the port that it chose.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to serve, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped, by its own process id.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Where it serves.
    pub address: SocketAddr,
}

/// The program with a data directory and a free port.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quoin"));
    command
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen-client-urls", "http://127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command that is expected to refuse: its exit code and what it said.
pub fn refused(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.spawn().expect("the server program starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("the process is ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("the process is ours");
            panic!("the server serves instead of refusing");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the process is ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

impl Server {
    /// Starts a server and waits until it serves.
    pub fn start(dir: &Path) -> Server {
        Server::start_with(dir, &[])
    }

    /// The same with more flags.
    pub fn start_with(dir: &Path, flags: &[&str]) -> Server {
        Server::start_as(command(dir).args(flags))
    }

    /// The same as a command that leads standard error into a pipe.
    pub fn start_as(command: &mut Command) -> Server {
        let mut child = command.spawn().expect("the server program starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    let ready = address_in(&line, "ready to serve client requests on ");
                    if let Some(address) = ready {
                        return Server {
                            child,
                            lines,
                            address,
                        };
                    }
                    said.push(line);
                }
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server does not serve; it said:\n{}", said.join("\n"));
                }
            }
        }
    }

    /// Another address that it logs once it serves: what stands behind `what`.
    pub fn also_serves(&self, what: &str) -> SocketAddr {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.expect("the address is logged");
            if let Some(address) = address_in(&line, what) {
                return address;
            }
        }
    }

    /// Waits for a line that it logs.
    pub fn says(&self, what: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("it is logged");
            if line.contains(what) {
                return;
            }
        }
    }

    /// SIGKILL: no chance to finish anything.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: sends a signal to the child, which has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for an end that nobody asked for: exit code, and what was said.
    pub fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let (status, said) = self.wait();
        (status.code(), said)
    }

    fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return (status, self.lines.iter().collect());
            }
            assert!(
                Instant::now() < deadline,
                "the server does not stop; it said:\n{}",
                self.lines.try_iter().collect::<Vec<_>>().join("\n")
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The size of its memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory().resident_kib()
    }

    /// Looks at its memory, from another thread if need be.
    pub fn memory(&self) -> Memory {
        Memory(self.child.id())
    }
}

/// The memory of a process that runs.
#[derive(Clone, Copy)]
pub struct Memory(u32);

impl Memory {
    /// Its size in KiB.
    pub fn resident_kib(self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0)).expect("the process runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("the kernel tells RssAnon")
    }
}

/// The address that stands in a line behind `what`.
fn address_in(line: &str, what: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(what)?;
    let over = address.find(|c: char| !c.is_ascii_hexdigit() && !".:[]".contains(c));
    let address = &address[..over.unwrap_or(address.len())];
    Some(address.parse().expect("an address is logged"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
