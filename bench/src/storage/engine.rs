//! quoin's revisions over its tree, with the checkpoint thread running as in the server.

use super::{Failure, Side, VALUE_LEN, key, value};
use quoin_storage::disk::RealDisk;
use quoin_storage::mvcc::{Horizon, Meta, View, WriteTxn, compact_step, warm_keys};
use quoin_storage::tree::{self, CheckpointDone, CheckpointJob, Reader, TreeError, TreeId};
use quoin_storage::tree::{Shared, TreeOptions, WARM_KEYS, Writer};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

/// Bytes of a put in a log, about.
const PUT_BYTES: u64 = 24 + VALUE_LEN as u64 + 48;
/// Bytes of a page of the tree.
const PAGE: usize = 4096;

/// The engine and its checkpoint thread.
pub struct Engine {
    writer: Writer,
    shared: Shared,
    reader: Reader,
    pub meta: Meta,
    /// Bytes in memory, or of a log, after which a checkpoint is due.
    checkpoint_bytes: u64,
    /// Bytes that a log would have got since the last one began.
    logged: u64,
    thread: Checkpointer,
    /// Checkpoints finished since the window began.
    checkpoints: u64,
}

/// The thread that writes checkpoints.
struct Checkpointer {
    jobs: Option<Sender<CheckpointJob>>,
    done: Receiver<Result<CheckpointDone, TreeError>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    fn start(shared: &Shared) -> Checkpointer {
        let (jobs, inbox) = channel::<CheckpointJob>();
        let (outbox, done) = channel();
        let file = shared.page_file();
        let thread = std::thread::spawn(move || {
            for job in inbox {
                let result = job.run(file.as_ref(), &mut |_| {});
                if outbox.send(result).is_err() {
                    return;
                }
            }
        });
        Checkpointer {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends with its inbox; a panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Opens an empty one.
    pub fn open(dir: &Path, checkpoint_bytes: u64) -> Result<Engine, Failure> {
        let disk = Arc::new(RealDisk::open(dir)?);
        let (writer, shared) = tree::open(
            disk,
            "tree",
            TreeOptions {
                young_bytes_max: 3 * checkpoint_bytes,
                ..TreeOptions::default()
            },
        )?;
        let reader = shared.reader().ok_or("no slot for a reader")?;
        let thread = Checkpointer::start(&shared);
        let meta = Meta::decode(writer.user())?;
        Ok(Engine {
            writer,
            shared,
            reader,
            meta,
            checkpoint_bytes,
            logged: 0,
            thread,
            checkpoints: 0,
        })
    }

    /// One commit: a revision for each key, as if each were a command of its own.
    pub fn commit(&mut self, keys: &[u64], stamp: u64, purge: usize) -> Result<(), Failure> {
        let mut txn = self.writer.begin();
        // As the server does with the commands of an entry: it looks a few ahead.
        for ahead in keys.chunks(WARM_KEYS) {
            let names: Vec<_> = ahead.iter().map(|&n| key(n)).collect();
            let keys: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
            warm_keys(&txn, &keys);
            for (&n, key) in ahead.iter().zip(&keys) {
                let mut command = WriteTxn::begin(&mut txn, &mut self.meta);
                command.put(key, &value(n, stamp), 0)?;
                command.finish();
            }
        }
        if purge > 0 {
            compact_step(&mut txn, &mut self.meta, purge)?;
        }
        self.logged += keys.len() as u64 * PUT_BYTES;
        self.meta.applied_index += 1;
        txn.commit(&self.meta.encode());
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        // As the server does: beyond twice the bytes, writing waits for the checkpoint.
        let due_bytes = self.writer.checkpoint_bytes(self.checkpoint_bytes);
        let wait = self.writer.young_bytes() >= 2 * due_bytes;
        let done = match wait && self.writer.checkpointing() {
            true => (self.thread.done.recv()).map_err(|_| TryRecvError::Disconnected),
            false => self.thread.done.try_recv(),
        };
        match done {
            Ok(done) => {
                self.writer.checkpointed(done?);
                self.checkpoints += 1;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err("the checkpoint thread is gone".into()),
        }
        let most = self.checkpoint_bytes;
        let due =
            self.logged >= most || self.writer.young_bytes() >= self.writer.checkpoint_bytes(most);
        if due
            && let Some(job) = self.writer.checkpoint()
            && let Some(jobs) = &self.thread.jobs
        {
            self.logged = 0;
            jobs.send(job)?;
        }
        Ok(())
    }

    /// What the pages of the tree file are used for.
    pub fn pages(&self) -> Result<String, Failure> {
        let stats = self.writer.stats();
        let report = self.writer.check()?;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let leaves = |tree: TreeId| {
            let (pages, bytes) = (
                report.leaves[tree as usize],
                report.leaf_bytes[tree as usize],
            );
            let of = (pages * PAGE as u64).max(1);
            format!("{:.1} ({} % full)", mib(of), 100 * bytes / of)
        };
        Ok(format!(
            "live {:.1}: key leaves {}, revision leaves {}, branches {:.1}; \
             waiting {:.1}, free {:.1}; in memory {:.1}; end {:.1}; {} checkpoints",
            mib(stats.live_bytes),
            leaves(TreeId::Key),
            leaves(TreeId::Revision),
            mib(report.branches * PAGE as u64),
            mib(stats.pending_bytes),
            mib(stats.free_bytes),
            mib(stats.young_bytes),
            mib(stats.file_bytes),
            stats.checkpoints
        ))
    }

    /// Bytes of blocks that the tree file occupies.
    pub fn file_bytes(&self) -> Result<u64, Failure> {
        Ok(self.shared.page_file().allocated_bytes()?)
    }
}

impl Side for Engine {
    fn name(&self) -> &'static str {
        "quoin"
    }

    fn put(&mut self, keys: &[u64], stamp: u64) -> Result<(), Failure> {
        self.commit(keys, stamp, 0)
    }

    fn get(&mut self, keys: &[u64]) -> Result<u64, Failure> {
        let snapshot = self.reader.pin();
        let view = View::new(&snapshot, Horizon::decode(snapshot.user())?);
        let mut sum = 0;
        // As the server does with the requests of a connection: it looks a few ahead.
        for ahead in keys.chunks(WARM_KEYS) {
            let mut names = [[0; 24]; WARM_KEYS];
            let mut keys = [&[][..]; WARM_KEYS];
            for ((name, key_of), &n) in names.iter_mut().zip(&mut keys).zip(ahead) {
                *name = key(n);
                *key_of = &name[..];
            }
            let keys = &keys[..ahead.len()];
            view.warm(keys);
            for key in keys {
                let pair = view.get(key)?.ok_or("quoin lost a key")?;
                sum += u64::from(pair.value[100]);
            }
        }
        Ok(sum)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.checkpoints = 0;
        Ok(())
    }

    fn end(&mut self) -> Result<String, Failure> {
        let mib = |bytes: u64| bytes >> 20;
        Ok(format!(
            "{} checkpoints, {} MiB of file, {} MiB live",
            self.checkpoints,
            mib(self.file_bytes()?),
            mib(self.meta.live_bytes)
        ))
    }
}
