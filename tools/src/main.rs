//! quoinctl, the operator's tool: looks into the data directory of a node that does not run.

mod show;

mod snapshots;

use quoin::runtime::data_dir::{DataDir, LOG_PREFIX, TREE};
use quoin_storage::disk::{Disk, RealDisk};
use quoin_storage::log::{self, LogOptions};
use quoin_storage::tree;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
quoinctl: looks into the data directory of a node that does not run, and into snapshots

  quoinctl check DIR          checks every segment of the log and every page of the tree
  quoinctl meta DIR           shows the identity and the tree's two meta pages
  quoinctl page DIR NUMBER    shows one page of the tree
  quoinctl log DIR            shows the log's segments, batches and records

  quoinctl snapshot status FILE    shows what a snapshot is of
  quoinctl snapshot check FILE     reads all of it
  quoinctl snapshot restore FILE --data-dir DIR
      [--bump-revision N] [--mark-compacted]
      [--initial-advertise-peer-urls URLS] [--initial-cluster-token TOKEN]
                                   makes a data directory of it, which must not be there yet

  quoinctl --version

DIR is what the server has as --data-dir; nothing in it is changed. FILE comes from 'etcdctl
snapshot save'.
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
        ["check", dir] => check(&Node::open(dir)?, out),
        ["meta", dir] => {
            let node = Node::open(dir)?;
            show::identity(&node.identity, out)?;
            show::metas(&node.disk, out)
        }
        ["page", dir, number] => {
            let number = number
                .parse()
                .map_err(|_| failed("the page's number is no number"))?;
            show::page(&Node::open(dir)?.disk, number, out)
        }
        ["snapshot", "status", file] => snapshots::status(file, out),
        ["snapshot", "check", file] => snapshots::check(file, out),
        ["snapshot", "restore", rest @ ..] => snapshots::restore(rest, out),
        ["log", dir] => show::log(&Node::open(dir)?.disk, out),
        ["--version" | "version"] => Ok(writeln!(out, "quoinctl {}", env!("CARGO_PKG_VERSION"))?),
        ["--help" | "-h" | "help"] => Ok(out.write_all(USAGE.as_bytes())?),
        _ => Err(failed(format_args!("this call is not known\n\n{USAGE}"))),
    }
}

/// A data directory, locked so that no server starts on it meanwhile.
struct Node {
    /// Holds the lock.
    _dir: DataDir,
    disk: RealDisk,
    identity: quoin::runtime::data_dir::Identity,
}

impl Node {
    fn open(path: &str) -> Result<Node, Stop> {
        let path = Path::new(path);
        if !path.is_dir() {
            return Err(failed(format_args!("{} is no directory", path.display())));
        }
        let dir = DataDir::open(path).map_err(failed)?;
        let disk = RealDisk::open_existing(path).map_err(failed)?;
        let identity = match dir
            .identity(&disk)
            .map_err(|e| Stop::Damaged(e.to_string()))?
        {
            Some(identity) => identity,
            None => return Err(failed(format_args!("{} is empty", path.display()))),
        };
        Ok(Node {
            _dir: dir,
            disk,
            identity,
        })
    }
}

fn check(node: &Node, out: &mut dyn Write) -> Result<(), Stop> {
    let mut damage = Vec::new();
    // The seed matters only to segments that are written.
    let options = LogOptions {
        prefix: LOG_PREFIX,
        ..LogOptions::new(node.identity.log_id, 0)
    };
    match log::check(&node.disk, &options) {
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
        .disk
        .list()
        .map_err(failed)?
        .iter()
        .any(|name| name == TREE);
    match present.then(|| tree::check(&node.disk, TREE)) {
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
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;

    fn call(arguments: &[&str]) -> Result<String, Stop> {
        let mut out = Vec::new();
        run(arguments, &mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    /// A directory as a server leaves it: some entries, a checkpointed tree.
    fn node(path: &Path) {
        let dir = DataDir::open(path).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(path).unwrap());
        let newcomer = Identity {
            cluster_id: 7,
            member_id: 8,
            boot_epoch: 0,
            log_id: 9,
            founded: false,
        };
        dir.begin_run(&*disk, newcomer).unwrap();
        let options = LogOptions {
            prefix: LOG_PREFIX,
            segment_bytes: 1 << 20,
            ..LogOptions::new(9, 1)
        };
        let (mut log, _) = LogWriter::open(Arc::clone(&disk), options).unwrap();
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
    }

    #[test]
    fn a_sound_directory_is_shown_and_a_damaged_one_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("n.etcd");
        node(&path);
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
        let Err(Stop::Damaged(what)) = call(&["check", dir]) else {
            panic!("a flipped byte was not noticed");
        };
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
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            call(&["meta", empty.path().to_str().unwrap()]),
            Err(Stop::Failed(_))
        ));
    }
}
