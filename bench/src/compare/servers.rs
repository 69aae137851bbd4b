//! The servers under comparison: found, started on a fresh data folder, stopped.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::options::{Options, Stop, Target, Workload};

/// The programs that take part, as far as they are there.
#[derive(Debug)]
pub struct Programs {
    /// The server that is compared.
    pub quoin: Option<PathBuf>,
    /// etcd.
    pub etcd: Option<PathBuf>,
    /// etcd's own load tool.
    pub benchmark: Option<PathBuf>,
    /// A load tool for HTTP/2.
    pub h2load: Option<PathBuf>,
    /// Redis.
    pub redis: Option<PathBuf>,
    /// Redis' own load tool.
    pub redis_benchmark: Option<PathBuf>,
}

impl Programs {
    /// Looks into `folder`, beside this program, and on the PATH.
    pub fn find(folder: &Path) -> Programs {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.to_path_buf()));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = [folder.to_path_buf()]
            .into_iter()
            .chain(beside)
            .chain(std::env::split_paths(&path))
            .collect();
        let find = |name: &str| {
            places
                .iter()
                .map(|place| place.join(name))
                .find(|file| file.is_file())
        };
        Programs {
            quoin: find("quoin"),
            etcd: find("etcd"),
            // A name so general that only our own build of it is trusted.
            benchmark: Some(folder.join("benchmark")).filter(|file| file.is_file()),
            h2load: find("h2load"),
            redis: find("redis-server"),
            redis_benchmark: find("redis-benchmark"),
        }
    }

    /// The server's program.
    pub fn server(&self, target: Target) -> Option<&Path> {
        match target {
            Target::Quoin => self.quoin.as_deref(),
            Target::Etcd => self.etcd.as_deref(),
            Target::Redis => self.redis.as_deref(),
        }
    }
}

/// The first line of what a program says of its version.
pub fn version(program: &Path) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match text.as_deref().map(|text| text.lines().next()) {
        Ok(Some(line)) => line.trim().to_string(),
        _ => "version unknown".to_string(),
    }
}

/// A running server; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    /// Which one it is.
    pub target: Target,
    /// Where it listens.
    pub address: SocketAddr,
    peer_port: u16,
    child: Child,
    folder: PathBuf,
    program: PathBuf,
    /// It logs what it does, too.
    debug: bool,
}

impl Server {
    /// Starts a server on an empty folder below `data`, and waits until it serves.
    pub fn start(
        target: Target,
        program: &Path,
        data: &Path,
        debug: bool,
    ) -> Result<Server, String> {
        let folder = super::folder_of(data, target);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", folder.display()));
            }
            _ => {}
        }
        let ports = (free_port()?, free_port()?);
        Server::resume(target, program, &folder, ports, debug)
    }

    /// Starts a server on the folder as it is, and waits until it serves.
    fn resume(
        target: Target,
        program: &Path,
        folder: &Path,
        (port, peer_port): (u16, u16),
        debug: bool,
    ) -> Result<Server, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Absolute, but links kept: Redis looks at the name it is called by.
        let program = std::path::absolute(program)
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = folder.join("output.log");
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output
            .try_clone()
            .map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(&program);
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        arguments(target, address, peer_port, debug, &mut command);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let folder = folder.to_path_buf();
        let mut server = Server {
            target,
            address,
            peer_port,
            child,
            folder,
            program,
            debug,
        };
        server.wait_until_it_serves(Duration::from_secs(60))?;
        Ok(server)
    }

    /// Kills the server outright and starts it again on the same data; returns it and how long
    /// it took from the start until it answered.
    pub fn kill_and_resume(mut self) -> Result<(Server, Duration), String> {
        self.kill();
        let (target, program, folder) = (self.target, self.program.clone(), self.folder.clone());
        let (ports, debug) = ((self.address.port(), self.peer_port), self.debug);
        drop(self);
        let begin = Instant::now();
        let server = Server::resume(target, &program, &folder, ports, debug)?;
        Ok((server, begin.elapsed()))
    }

    /// Asks until a write is answered.
    fn wait_until_it_serves(&mut self, limit: Duration) -> Result<(), String> {
        let begin = Instant::now();
        let mut probe = load(self.target, self.address, Workload::Put, 1, 1);
        probe.stop = Stop::Total(1);
        probe.timeout = Duration::from_secs(2);
        loop {
            let last = match crate::run::run(&probe) {
                Ok(outcome) if outcome.failed() == 0 => return Ok(()),
                Ok(outcome) => format!("{:?}", outcome.errors),
                Err(error) => error,
            };
            let name = self.target.name();
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "{name} ended at once ({status}): {}",
                    self.last_words()
                ));
            }
            if begin.elapsed() > limit {
                return Err(format!(
                    "{name} does not serve: {last}; {}",
                    self.last_words()
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The file with what it prints.
    pub fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its anonymous memory in bytes.
    pub fn anonymous_bytes(&self) -> Result<u64, String> {
        let file = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| format!("{file}: no RssAnon"))
    }

    fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> Result<u16, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

fn arguments(
    target: Target,
    address: SocketAddr,
    peer_port: u16,
    debug: bool,
    command: &mut Command,
) {
    let level = if debug { "debug" } else { "warn" };
    let client = format!("http://{address}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    match target {
        Target::Quoin => {
            command.args(["--data-dir", "data", "--log-level", level]);
            command.args(["--listen-client-urls", &client, "--listen-peer-urls", &peer]);
            command.args(["--quota-backend-bytes", "17179869184"]);
        }
        Target::Etcd => {
            command.args(["--data-dir", "data", "--log-level", "error"]);
            command.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            command.args(["--initial-cluster", &format!("default={peer}")]);
            command.args(["--quota-backend-bytes", "17179869184"]);
        }
        Target::Redis => {
            command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
            command.args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
            ]);
        }
    }
}

/// The load that every row of the comparison starts from.
pub fn load(
    target: Target,
    address: SocketAddr,
    workload: Workload,
    connections: usize,
    in_flight: usize,
) -> Options {
    Options {
        workload,
        connections,
        in_flight,
        ..Options::plain(target, address)
    }
}
