//! quoinctl, the operator's tool: looks into the data directory of a node that does not run.

mod show;

mod snapshots;

use quoin::runtime::data_dir::{DataDir, Identity, LOG_PREFIX, TREE};
use quoin::runtime::startup::StartError;
use quoin_storage::disk::{Disk, RealDisk};
use quoin_storage::log::{self, LogOptions};
use quoin_storage::tree;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
quoinctl: looks into the data directory of a node that does not run, and into snapshots

  quoinctl check DIR [--wal-dir DIR]
                              checks every segment of the log and every page of the tree
  quoinctl meta DIR           shows the identity and the tree's two meta pages
  quoinctl page DIR NUMBER    shows one page of the tree
  quoinctl log DIR [--wal-dir DIR]
                              shows the log's segments, batches and records

  quoinctl snapshot status FILE    shows what a snapshot is of
  quoinctl snapshot check FILE     reads all of it
  quoinctl snapshot restore FILE --data-dir DIR
      [--bump-revision N] [--mark-compacted]
      [--initial-advertise-peer-urls URLS] [--initial-cluster-token TOKEN]
                                   makes a data directory of it, which must not be there yet

  quoinctl --version

DIR is what the server has as --data-dir, and behind --wal-dir what it has there; nothing in them
is changed. FILE comes from 'etcdctl snapshot save'.
Exit status: 0 all is sound, 1 damage was found, 2 the call could not be carried out.
";

/// Why a call ended without success.
enum Stop {
    /// The files are damaged.
    Damaged(String),
    /// It could not be carried out.
    Failed(String),
}

fn failed(what: impl Display) -> Stop {
    Stop::Failed(what.to_string())
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        failed(format_args!("the output could not be written: {error}"))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let ended = run(&arguments, &mut out).and_then(|()| Ok(out.flush()?));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Damaged(what)) => {
            eprintln!("damaged: {what}");
            ExitCode::from(1)
        }
        Err(Stop::Failed(what)) => {
            eprintln!("quoinctl: {what}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str], out: &mut dyn Write) -> Result<(), Stop> {
    match arguments {
        ["check", rest @ ..] => check(&Node::open_with_log(rest)?, out),
        ["meta", dir] => {
            let node = Node::open(dir)?;
            show::identity(&node.identity, out)?;
            show::metas(node.disk(), out)
        }
        ["page", dir, number] => {
            let number = number
                .parse()
                .map_err(|_| failed("the page's number is no number"))?;
            show::page(Node::open(dir)?.disk(), number, out)
        }
        ["snapshot", "status", file] => snapshots::status(file, out),
        ["snapshot", "check", file] => snapshots::check(file, out),
        ["snapshot", "restore", rest @ ..] => snapshots::restore(rest, out),
        ["log", rest @ ..] => {
            let node = Node::open_with_log(rest)?;
            match show::log(node.log_disk(), out)? {
                0 if node.identity.founded => Err(Stop::Damaged(node.without_log())),
                _ => Ok(()),
            }
        }
        ["--version" | "version"] => Ok(writeln!(out, "quoinctl {}", env!("CARGO_PKG_VERSION"))?),
        ["--help" | "-h" | "help"] => Ok(out.write_all(USAGE.as_bytes())?),
        _ => Err(failed(format_args!("this call is not known\n\n{USAGE}"))),
    }
}

/// A directory, locked so that no server starts on it meanwhile.
struct Directory {
    /// Holds the lock.
    dir: DataDir,
    disk: RealDisk,
}

impl Directory {
    /// `look` takes the lock; `empty` is what it means if there is nothing.
    fn open(
        path: &str,
        look: fn(&Path) -> Result<Option<DataDir>, StartError>,
        empty: &str,
    ) -> Result<Directory, Stop> {
        let path = Path::new(path);
        if !path.is_dir() {
            return Err(failed(format_args!("{} is no directory", path.display())));
        }
        let dir = look(path).map_err(failed)?;
        let nothing = || failed(format_args!("{} is empty: {empty}", path.display()));
        let dir = dir.ok_or_else(nothing)?;
        let disk = RealDisk::open_existing(path).map_err(failed)?;
        Ok(Directory { dir, disk })
    }
}

/// What an empty data directory means.
const NOT_STARTED: &str = "no server has written anything there";
/// What an empty directory for the log means.
const NO_LOG: &str = "it is another than the server's --wal-dir, or the log is lost, and with it \
                      what was written since the last checkpoint: restore a backup";

/// What a node has written.
struct Node {
    data: Directory,
    /// Where the log is, if it has a directory of its own.
    log: Option<Directory>,
    identity: Identity,
}

impl Node {
    fn open(path: &str) -> Result<Node, Stop> {
        let data = Directory::open(path, DataDir::open_to_look, NOT_STARTED)?;
        let identity = data.dir.identity(&data.disk);
        let identity = identity.map_err(|e| Stop::Damaged(e.to_string()))?;
        let identity = identity.ok_or_else(|| failed(format_args!("{path} is empty")))?;
        Ok(Node {
            data,
            log: None,
            identity,
        })
    }

    /// Opens what the arguments name: a data directory, and with `--wal-dir` the log's.
    fn open_with_log(arguments: &[&str]) -> Result<Node, Stop> {
        let (mut path, mut log) = (None, None);
        let mut rest = arguments.iter().copied();
        while let Some(argument) = rest.next() {
            if argument == "--wal-dir" {
                let value = rest.next();
                log = Some(value.ok_or_else(|| failed("--wal-dir needs a value"))?);
            } else if let Some(value) = argument.strip_prefix("--wal-dir=") {
                log = Some(value);
            } else if argument.starts_with("--") {
                return Err(failed(format_args!("{argument} is not known")));
            } else if path.replace(argument).is_some() {
                return Err(failed(format_args!(
                    "'{argument}' is one argument too many"
                )));
            }
        }
        let path = path.ok_or_else(|| failed("which data directory?"))?;
        let log = log.map(|path| Directory::open(path, DataDir::open_log_to_look, NO_LOG));
        Ok(Node {
            log: log.transpose()?,
            ..Node::open(path)?
        })
    }

    fn disk(&self) -> &RealDisk {
        &self.data.disk
    }

    /// Where the log's segments are.
    fn log_disk(&self) -> &RealDisk {
        &self.log.as_ref().unwrap_or(&self.data).disk
    }

    /// The node has served, so that it has a log: here is none.
    fn without_log(&self) -> String {
        let path = self.log_disk().path().display();
        match self.log {
            None => format!(
                "{path} holds no segment of the log, and this node has one: if its server has \
                 --wal-dir, say so here, too; if not, the log is lost, and with it what was \
                 written since the last checkpoint: restore a backup"
            ),
            Some(_) => format!(
                "{path} holds no segment of this node's log: it is another directory than the \
                 server's --wal-dir, or the log is lost, and with it what was written since the \
                 last checkpoint: restore a backup"
            ),
        }
    }
}

fn check(node: &Node, out: &mut dyn Write) -> Result<(), Stop> {
    let mut damage = Vec::new();
    // The seed matters only to segments that are written.
    let options = LogOptions {
        prefix: LOG_PREFIX,
        ..LogOptions::new(node.identity.log_id, 0)
    };
    match log::check(node.log_disk(), &options) {
        Ok(report) if report.fresh && node.identity.founded => damage.push(node.without_log()),
        Ok(report) => {
            writeln!(
                out,
                "log: sound, {} segments, {} batches",
                report.segments, report.batches
            )?;
            if let Some((file, byte)) = &report.cut {
                writeln!(
                    out,
                    "     {file} ends at byte {byte} in a write that was broken off"
                )?;
            }
            for file in &report.healed {
                writeln!(out, "     {file}: one of two header copies is damaged")?;
            }
        }
        Err(error) => damage.push(error.to_string()),
    }
    // A node that stopped before its first checkpoint has no tree file; its log holds all.
    let present = node
        .disk()
        .list()
        .map_err(failed)?
        .iter()
        .any(|name| name == TREE);
    match present.then(|| tree::check(node.disk(), TREE)) {
        None => writeln!(out, "tree: no file yet")?,
        Some(Ok(report)) => show::tree_report(&report, out)?,
        Some(Err(error)) => damage.push(error.to_string()),
    }
    match damage.is_empty() {
        true => Ok(()),
        false => {
            out.flush()?;
            Err(Stop::Damaged(damage.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Stop, run};
    use quoin::runtime::data_dir::{DataDir, Identity, LOG_PREFIX, TREE};
    use quoin_storage::disk::{Disk, RealDisk};
    use quoin_storage::log::{EntryRef, HardState, LogOptions, LogWriter};
    use quoin_storage::tree::{self, TreeId, TreeOptions, TreeWrite};
    use std::fs::OpenOptions;
    use std::os::unix::fs::{FileExt, PermissionsExt};
    use std::path::Path;
    use std::sync::Arc;

    fn call(arguments: &[&str]) -> Result<String, Stop> {
        let mut out = Vec::new();
        run(arguments, &mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    /// A directory as a server leaves it: some entries, a checkpointed tree. The log may lie in
    /// a directory of its own.
    fn node(path: &Path, log: Option<&Path>) {
        let dir = DataDir::open(path).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(path).unwrap());
        let newcomer = Identity {
            cluster_id: 7,
            member_id: 8,
            boot_epoch: 0,
            log_id: 9,
            founded: false,
        };
        let identity = dir.begin_run(&*disk, newcomer).unwrap();
        let log_dir = log.map(|path| DataDir::open_for_log(path).unwrap());
        let log_disk = match &log_dir {
            Some(dir) => Arc::new(RealDisk::open_existing(dir.path()).unwrap()),
            None => Arc::clone(&disk),
        };
        let options = LogOptions {
            prefix: LOG_PREFIX,
            segment_bytes: 1 << 20,
            ..LogOptions::new(9, 1)
        };
        let (mut log, _) = LogWriter::open(log_disk, options).unwrap();
        let state = HardState {
            term: 1,
            vote: 8,
            commit: 1,
        };
        let entry = EntryRef {
            index: 1,
            term: 1,
            kind: 0,
            data: b"data",
            context: b"",
        };
        log.append(Some(&state), [entry].into_iter()).unwrap();
        log.idle().unwrap();
        let (mut writer, _shared) =
            tree::open(Arc::clone(&disk), TREE, TreeOptions::default()).unwrap();
        let mut txn = writer.begin();
        for n in 0..1000u32 {
            txn.insert(TreeId::Key, &n.to_be_bytes(), &[b"value"], true)
                .unwrap();
        }
        txn.commit(b"user");
        assert!(writer.checkpoint_now().unwrap());
        dir.found(&*disk, identity).unwrap();
    }

    fn damage(arguments: &[&str]) -> String {
        match call(arguments) {
            Err(Stop::Damaged(what)) => what,
            Err(Stop::Failed(what)) => panic!("{arguments:?}: not carried out: {what}"),
            Ok(said) => panic!("{arguments:?}: called sound: {said}"),
        }
    }

    fn failure(arguments: &[&str]) -> String {
        match call(arguments) {
            Err(Stop::Failed(what)) => what,
            Err(Stop::Damaged(what)) => panic!("{arguments:?}: called damaged: {what}"),
            Ok(said) => panic!("{arguments:?}: carried out: {said}"),
        }
    }

    #[test]
    fn a_log_in_a_directory_of_its_own_is_found_or_missed() {
        let parent = tempfile::tempdir().unwrap();
        let (path, log) = (parent.path().join("n.etcd"), parent.path().join("log"));
        node(&path, Some(&log));
        let (dir, log) = (path.to_str().unwrap(), log.to_str().unwrap());
        let joined = format!("--wal-dir={log}");
        for arguments in [
            &["check", dir, "--wal-dir", log][..],
            &["check", &joined, dir],
        ] {
            let sound = call(arguments).ok().expect("sound");
            assert!(sound.contains("log: sound, 1 segments"), "{sound}");
        }
        let shown = call(&["log", dir, &joined]).ok().expect("sound");
        assert!(shown.contains("index 1 term 1"), "{shown}");
        // The node has a log, and it is not here.
        for command in ["check", "log"] {
            let what = damage(&[command, dir]);
            assert!(
                what.contains("no segment") && what.contains("--wal-dir"),
                "{what}"
            );
        }
        std::fs::rename(parent.path().join("log"), parent.path().join("gone")).unwrap();
        let gone = parent.path().join("gone");
        std::fs::create_dir(log).unwrap();
        for command in ["check", "log"] {
            let what = failure(&[command, dir, &joined]);
            assert!(what.contains("log is empty"), "{what}");
        }
        std::fs::remove_dir(log).unwrap();
        std::fs::rename(gone, log).unwrap();
        assert!(call(&["check", dir, &joined]).is_ok());
        let what = failure(&["check", dir, "--wal-dir", dir]);
        assert!(what.contains("for the log alone"), "{what}");
    }

    #[test]
    fn nothing_of_a_directory_is_changed_and_what_is_none_of_ours_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, open).unwrap();
        for command in ["check", "log", "meta"] {
            let what = failure(&[command, path]);
            assert!(what.contains("is empty"), "{what}");
        }
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        for command in ["check", "log", "meta"] {
            let what = failure(&[command, path]);
            assert!(
                what.contains("not quoin's") && what.contains("'notes.txt'"),
                "{what}"
            );
        }
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1);
    }

    #[test]
    fn a_sound_directory_is_shown_and_a_damaged_one_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("n.etcd");
        node(&path, None);
        let dir = path.to_str().unwrap();
        let sound = call(&["check", dir]).ok().expect("sound");
        assert!(sound.contains("log: sound, 1 segments"), "{sound}");
        assert!(sound.contains("1000 entries"), "{sound}");
        let meta = call(&["meta", dir]).ok().expect("sound");
        assert!(meta.contains("member id     0000000000000008"), "{meta}");
        let root: u64 = meta
            .lines()
            .find_map(|l| l.trim().strip_prefix("key tree: root page "))
            .and_then(|l| l.split(',').next()?.parse().ok())
            .expect("a root page");
        let page = call(&["page", dir, &root.to_string()]).ok().expect("sound");
        assert!(page.contains("branch"), "{page}");
        let log = call(&["log", dir]).ok().expect("sound");
        assert!(log.contains("index 1 term 1"), "{log}");

        let tree = OpenOptions::new()
            .write(true)
            .open(path.join(TREE))
            .unwrap();
        tree.write_all_at(b"!", root * 4096 + 4000).unwrap();
        let what = damage(&["check", dir]);
        assert!(what.contains(&format!("page {root}")), "{what}");
    }

    #[test]
    fn wrong_calls_are_refused() {
        assert!(matches!(call(&["check"]), Err(Stop::Failed(_))));
        assert!(matches!(call(&["check", "/nowhere"]), Err(Stop::Failed(_))));
        assert!(matches!(
            call(&["page", "/nowhere", "x"]),
            Err(Stop::Failed(_))
        ));
        for arguments in [
            &["log", "/nowhere", "--wal-dir"][..],
            &["log", "/nowhere", "/nowhere"],
            &["check", "/nowhere", "--data-dir"],
            &["meta", "/nowhere", "--wal-dir", "/nowhere"],
        ] {
            failure(arguments);
        }
    }
}
