//! Kill -9 under load, again and again: after each restart every acknowledged write is there,
//! none is invented, and the revision has not fallen.

use crate::journal::Journal;
use crate::link::{Answer, Link};
use crate::server::Server;
use quoin::api::{DeleteRangeRequest, PutRequest, Request};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const WRITERS: usize = 4;
const IN_FLIGHT: usize = 16;
const KEYS: u64 = 200;

pub fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Xorshift: enough chance for a test, and the same for the same seed.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One client: writes to its own keys until its connection breaks.
struct Writer {
    number: usize,
    journal: Journal,
    chance: Chance,
    written: u64,
}

impl Writer {
    fn prefix(&self) -> Vec<u8> {
        format!("w{}/", self.number).into_bytes()
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.chance.below(KEYS);
        format!("w{}/{number:05}", self.number).into_bytes()
    }

    /// Returns when the server is gone.
    fn run(&mut self, address: SocketAddr) {
        let Ok(mut link) = Link::open(address) else {
            return;
        };
        let mut open: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut next = 1;
        loop {
            while open.len() < IN_FLIGHT {
                let key = self.key();
                if self.journal.is_open(&key) {
                    continue;
                }
                self.write(&mut link, &key, next);
                open.insert(next, key);
                next += 1;
            }
            match link.answer() {
                Ok((id, revision, answer)) => {
                    let key = open.remove(&id).expect("an answer to a request of ours");
                    match answer {
                        Answer::Written => self.journal.acknowledged(&key, revision),
                        Answer::Refused(Some(error)) if !error.outcome_unknown() => {
                            self.journal.refused(&key);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, link: &mut Link, key: &[u8], id: u64) {
        self.written += 1;
        if self.chance.below(8) == 0 {
            let delete = DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            };
            link.request(&Request::DeleteRange(delete), id);
            self.journal.sent(key, None);
            return;
        }
        // Mostly small, sometimes over several pages.
        let padding = match self.chance.below(50) {
            0 => self.chance.below(20_000),
            _ => self.chance.below(300),
        };
        let mut value = format!("{}:{}:", self.number, self.written).into_bytes();
        value.resize(value.len() + padding as usize, b'x');
        let put = PutRequest {
            key,
            value: &value,
            ..PutRequest::default()
        };
        link.request(&Request::Put(put), id);
        self.journal.sent(key, Some(value));
    }
}

/// The server, its data and all who write to it.
struct Trial {
    _parent: TempDir,
    dir: PathBuf,
    chance: Chance,
    writers: Vec<Writer>,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let parent = tempfile::tempdir().expect("a folder");
        Trial {
            dir: parent.path().join("node"),
            _parent: parent,
            chance: Chance::new(seed),
            writers: (0..WRITERS)
                .map(|number| Writer {
                    number,
                    journal: Journal::default(),
                    chance: Chance::new(seed ^ (number as u64 + 1)),
                    written: 0,
                })
                .collect(),
        }
    }

    /// Starts the server, checks what it shows, loads it, and ends it in the middle.
    fn round(&mut self, flags: &[&str], end: impl FnOnce(Server)) {
        let server = Server::start_with(&self.dir, flags);
        self.check(&server);
        let address = server.address;
        let pause = Duration::from_millis(20 + self.chance.below(400));
        thread::scope(|scope| {
            for writer in &mut self.writers {
                scope.spawn(move || writer.run(address));
            }
            thread::sleep(pause);
            end(server);
        });
    }

    fn check(&mut self, server: &Server) {
        let mut reader = Link::open(server.address).expect("it serves");
        for writer in &mut self.writers {
            let (pairs, revision) = reader.all(&writer.prefix()).expect("it serves");
            writer.journal.check(&pairs, revision);
        }
    }

    /// Checks a last time; says how many writes were acknowledged in all.
    fn finish(mut self) -> u64 {
        let server = Server::start(&self.dir);
        self.check(&server);
        let (status, said) = server.terminate();
        assert!(status.success(), "{status}: {said:?}");
        let journals = self.writers.iter().map(|writer| &writer.journal);
        journals.map(|journal| journal.acknowledged).sum()
    }
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let rounds = from_env("QUOIN_CRASH_ROUNDS", 24);
    let seed = from_env("QUOIN_CRASH_SEED", 20_261_122);
    println!("QUOIN_CRASH_SEED={seed} QUOIN_CRASH_ROUNDS={rounds}");
    let mut trial = Trial::new(seed);
    for round in 0..rounds {
        // Checkpoints come often in half of the rounds, so that kills meet them; a third has its
        // actors on executors of their own.
        let mut flags = Vec::new();
        if round % 2 == 0 {
            flags.extend(["--snapshot-count", "100"]);
        }
        if round % 3 == 0 {
            flags.extend(["--fronts", "2"]);
        }
        trial.round(&flags, Server::kill);
    }
    let acknowledged = trial.finish();
    println!("{acknowledged} acknowledged writes survived {rounds} kills");
    assert!(
        acknowledged > rounds * 10,
        "only {acknowledged} writes in {rounds} rounds: the test tests nothing"
    );
}

#[test]
fn a_stop_under_load_answers_what_it_took_and_loses_nothing() {
    let mut trial = Trial::new(from_env("QUOIN_CRASH_SEED", 20_261_122));
    for flags in [&[][..], &["--fronts", "2"]] {
        trial.round(flags, |server| {
            let (status, said) = server.terminate();
            assert_eq!(status.code(), Some(0), "{said:?}");
        });
    }
    assert!(trial.finish() > 20);
}
