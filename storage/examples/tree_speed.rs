//! How fast the tree is by itself: `cargo run --release -p quoin-storage --example tree_speed`.
//! Arguments: number of keys (default 100 000), directory (default: a temporary one).

use quoin_storage::disk::{Disk, RealDisk};
use quoin_storage::tree::{TreeId, TreeOptions, TreeRead, TreeWrite, Writer, open};
use std::sync::Arc;
use std::time::Instant;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn key(number: u64) -> [u8; 24] {
    let mut key = *b"key-00000000000000000000";
    let text = format!("{number:020}");
    key[4..].copy_from_slice(text.as_bytes());
    key
}

/// Begins a checkpoint when it is due, finishes it when it is done, as a server does.
struct Checkpoints {
    running: Option<std::thread::JoinHandle<quoin_storage::tree::CheckpointDone>>,
    count: u64,
    longest_wait: std::time::Duration,
}

impl Checkpoints {
    fn turn(&mut self, writer: &mut Writer) {
        let full = writer.young_bytes() > 60 << 20;
        if let Some(thread) = self.running.take() {
            if !thread.is_finished() && !full {
                self.running = Some(thread);
                return;
            }
            let started = Instant::now();
            writer.checkpointed(thread.join().expect("a checkpoint"));
            self.longest_wait = self.longest_wait.max(started.elapsed());
            self.count += 1;
        }
        if writer.young_bytes() < 32 << 20 {
            return;
        }
        if let Some(job) = writer.checkpoint() {
            let file = writer.page_file();
            let run = move || job.run(&*file, &mut |_| ()).expect("a checkpoint");
            self.running = Some(std::thread::spawn(run));
        }
    }
}

/// Time on the clock, and time that this thread really ran.
struct Clock {
    wall: Instant,
    ran: u64,
}

fn ran_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|n| n.parse().ok());
    first.unwrap_or(0)
}

fn start() -> Clock {
    Clock {
        wall: Instant::now(),
        ran: ran_ns(),
    }
}

fn report(what: &str, n: u64, started: Clock) {
    let wall = started.wall.elapsed().as_nanos() as f64 / n as f64;
    let ran = (ran_ns() - started.ran) as f64 / n as f64;
    println!("{what:<40} {wall:8.0} ns, {ran:6.0} ns of this thread");
}

fn main() {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args
        .next()
        .map_or(100_000, |n| n.parse().expect("a number"));
    let temporary = tempfile::tempdir().expect("a directory");
    let path = args
        .next()
        .map_or(temporary.path().join("data"), Into::into);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&path).expect("a directory"));
    let (mut writer, shared) =
        open(Arc::clone(&disk), "tree", TreeOptions::default()).expect("a tree");
    let mut checkpoints = Checkpoints {
        running: None,
        count: 0,
        longest_wait: Default::default(),
    };
    let mut random = Random(88172645463325252);
    let value = [7u8; 60];

    let mut order: Vec<u64> = (0..keys).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, (random.next() % (i as u64 + 1)) as usize);
    }
    let started = start();
    for chunk in order.chunks(1000) {
        let mut txn = writer.begin();
        for &n in chunk {
            txn.insert(TreeId::Key, &key(n), &[&value], true)
                .expect("room");
        }
        txn.commit(b"");
        checkpoints.turn(&mut writer);
    }
    report("insert random new keys, 24 B + 60 B", keys, started);

    let rounds = 1000;
    let started = start();
    for _ in 0..rounds {
        let mut txn = writer.begin();
        for _ in 0..1000 {
            let n = random.next() % keys;
            txn.insert(TreeId::Key, &key(n), &[&value], true)
                .expect("room");
        }
        txn.commit(b"");
        checkpoints.turn(&mut writer);
    }
    report("overwrite random keys", rounds * 1000, started);

    let event = [9u8; 330];
    let started = start();
    let mut revision = 0u64;
    for _ in 0..rounds {
        let mut txn = writer.begin();
        for _ in 0..1000 {
            revision += 1;
            let mut key = [0; 12];
            key[..8].copy_from_slice(&revision.to_be_bytes());
            txn.insert(TreeId::Revision, &key, &[&event], false)
                .expect("room");
        }
        txn.commit(b"");
        checkpoints.turn(&mut writer);
    }
    report("append 12 B + 330 B", rounds * 1000, started);

    let reader = shared.reader().expect("a slot");
    let started = start();
    let snapshot = reader.pin();
    let mut found = 0;
    for _ in 0..1_000_000 {
        let n = random.next() % keys;
        found += u64::from(snapshot.get(TreeId::Key, &key(n)).expect("sound").is_some());
    }
    report("get random keys", 1_000_000, started);
    assert_eq!(found, 1_000_000);
    drop(snapshot);
    let started = start();
    for _ in 0..1_000_000 {
        std::hint::black_box(key(random.next() % keys));
    }
    report("  (making a key)", 1_000_000, started);

    if let Some(thread) = checkpoints.running.take() {
        writer.checkpointed(thread.join().expect("a checkpoint"));
    }
    writer.checkpoint_now().expect("a checkpoint");
    let started = Instant::now();
    let report_checked = writer.check().expect("a sound tree");
    println!(
        "checked in {:?}; {} checkpoints, longest wait {:?}",
        started.elapsed(),
        checkpoints.count,
        checkpoints.longest_wait
    );
    for tree in 0..2 {
        let fill = report_checked.leaf_bytes[tree] as f64
            / (4096.0 * report_checked.leaves[tree].max(1) as f64);
        println!(
            "tree {tree}: {} leaves, fill {fill:.3}",
            report_checked.leaves[tree]
        );
    }
    println!("{:?}", writer.stats());
    drop((writer, shared, reader));
    let started = Instant::now();
    let opened = open(disk, "tree", TreeOptions::default()).expect("a tree");
    println!("opened in {:?}", started.elapsed());
    drop(opened);
}
