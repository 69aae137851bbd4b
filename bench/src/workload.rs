//! The requests of a load: one after the other, without copying values.

#![forbid(unsafe_code)]

use crate::keys::{Chooser, Distribution, Random, write_key};
use crate::options::{Leases, Options, Workload};

/// One request, as the drivers put it into their protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Write a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
        /// The lease that it hangs on; 0: none.
        lease: i64,
    },
    /// Delete a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Make a lease.
    Grant {
        /// Its id.
        id: i64,
        /// Its seconds to live.
        ttl: i64,
    },
    /// Renew a lease.
    KeepAlive {
        /// Its id.
        id: i64,
    },
    /// Read a key.
    Get {
        /// The key.
        key: &'a [u8],
        /// Without asking the quorum.
        serializable: bool,
    },
    /// Read an interval of keys.
    Range {
        /// The first key.
        key: &'a [u8],
        /// The key after the last.
        end: &'a [u8],
        /// At most so many keys.
        limit: u64,
        /// Without asking the quorum.
        serializable: bool,
    },
    /// If the key's version is not negative (which always holds): write it, then read it.
    Txn {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
}

/// The requests of one worker.
#[derive(Debug)]
pub struct Generator {
    chooser: Chooser,
    what: What,
    serializable: bool,
    keys: u64,
    range_keys: u64,
    leases: Leases,
    /// Bytes that every key begins with.
    prefix: usize,
    key: Vec<u8>,
    end: Vec<u8>,
    value: Values,
}

/// What a generator makes.
#[derive(Debug, Clone, Copy)]
enum What {
    /// The load's own requests.
    Load(Workload),
    /// Every key, once.
    Keys,
    /// Every lease, once.
    Grants,
}

/// Values: windows of random bytes.
#[derive(Debug)]
struct Values {
    pool: Vec<u8>,
    size: usize,
    /// If they begin with a time: the next one.
    stamped: Option<Vec<u8>>,
}

/// Bytes of the time that a stamped value begins with.
pub const STAMP: usize = 8;

/// The time in a stamped value.
pub fn stamp(value: &[u8]) -> Option<u64> {
    value
        .first_chunk::<STAMP>()
        .map(|time| u64::from_le_bytes(*time))
}

/// Of a registry's requests so many in a hundred list a service, change an entry, or withdraw
/// one; the others renew a lease.
const LISTS: u64 = 15;
const CHANGES: u64 = 8;
const WITHDRAWALS: u64 = 1;

/// How many different values there are.
const VALUES: usize = 4096;

impl Generator {
    /// The requests of worker `worker`.
    pub fn new(options: &Options, worker: usize) -> Generator {
        let distribution = options.distribution;
        Generator::with(options, What::Load(options.workload), distribution, worker)
    }

    /// Puts that write the whole key space once, shared out among the workers.
    pub fn keys(options: &Options, worker: usize) -> Generator {
        Generator::with(options, What::Keys, Distribution::Sequential, worker)
    }

    /// Grants of all leases, shared out among the workers.
    pub fn grants(options: &Options, worker: usize) -> Generator {
        Generator::with(options, What::Grants, Distribution::Sequential, worker)
    }

    fn with(options: &Options, what: What, distribution: Distribution, worker: usize) -> Generator {
        let workers = options.threads as u64;
        let space = match what {
            What::Grants | What::Load(Workload::KeepAlive) => options.leases.count,
            _ => options.keys,
        };
        let prefix = options.prefix.as_bytes();
        let mut key = vec![0; options.key_size];
        let mut end = vec![0; options.key_size + 1];
        key[..prefix.len()].copy_from_slice(prefix);
        end[..prefix.len()].copy_from_slice(prefix);
        Generator {
            chooser: Chooser::new(distribution, space, options.seed, worker as u64, workers),
            what,
            serializable: options.serializable,
            keys: options.keys,
            range_keys: options.range_keys,
            leases: options.leases,
            prefix: prefix.len(),
            key,
            end,
            value: Values::new(options),
        }
    }

    /// The next request; it counts from `start`, in nanoseconds of the run.
    pub fn next(&mut self, start: u64) -> Op<'_> {
        let number = self.chooser.next();
        let workload = match self.what {
            What::Grants => {
                let (id, ttl) = (self.lease(number), self.leases.ttl_at(start));
                return Op::Grant { id, ttl };
            }
            What::Keys => return self.put(number, start),
            What::Load(workload) => workload,
        };
        match workload {
            Workload::Mixed { reads } if self.chooser.random().unit() < reads => self.get(number),
            Workload::Put | Workload::Mixed { .. } => self.put(number, start),
            Workload::Get => self.get(number),
            Workload::Range => {
                let first = number.min(self.keys.saturating_sub(self.range_keys));
                self.range(first)
            }
            Workload::Txn => {
                write_key(number, &mut self.key[self.prefix..]);
                Op::Txn {
                    key: &self.key,
                    value: self.value.next(&mut self.chooser, start),
                }
            }
            Workload::KeepAlive => Op::KeepAlive {
                id: self.lease(number),
            },
            Workload::Registry => self.registry(number, start),
        }
    }

    fn registry(&mut self, instance: u64, start: u64) -> Op<'_> {
        match self.chooser.random().below(100) {
            0..LISTS => self.range(instance - instance % self.range_keys),
            dice if dice < LISTS + CHANGES => self.put(instance, start),
            dice if dice < LISTS + CHANGES + WITHDRAWALS => {
                write_key(instance, &mut self.key[self.prefix..]);
                Op::Delete { key: &self.key }
            }
            _ => Op::KeepAlive {
                id: self.lease(instance),
            },
        }
    }

    fn lease(&self, number: u64) -> i64 {
        self.leases.first + number as i64
    }

    fn put(&mut self, number: u64, start: u64) -> Op<'_> {
        write_key(number, &mut self.key[self.prefix..]);
        let lease = match self.leases.count {
            0 => 0,
            count => self.lease(number % count),
        };
        Op::Put {
            key: &self.key,
            value: self.value.next(&mut self.chooser, start),
            lease,
        }
    }

    fn get(&mut self, number: u64) -> Op<'_> {
        write_key(number, &mut self.key[self.prefix..]);
        Op::Get {
            key: &self.key,
            serializable: self.serializable,
        }
    }

    /// The keys from `first` on, as many as a range takes.
    fn range(&mut self, first: u64) -> Op<'_> {
        let last = self.keys.min(first.saturating_add(self.range_keys)) - 1;
        write_key(first, &mut self.key[self.prefix..]);
        // The end is exclusive: the last key with a zero byte behind it.
        let digits = self.end.len() - 1;
        write_key(last, &mut self.end[self.prefix..digits]);
        Op::Range {
            key: &self.key,
            end: &self.end,
            limit: self.range_keys,
            serializable: self.serializable,
        }
    }
}

impl Values {
    fn new(options: &Options) -> Values {
        let mut random = Random::new(options.seed ^ 0x5EED);
        let size = options.value_size;
        Values {
            // So much longer than a value: so many different values.
            pool: (0..size + VALUES).map(|_| random.next() as u8).collect(),
            size,
            stamped: options.stamped.then(|| vec![0; size.max(STAMP)]),
        }
    }

    fn next(&mut self, chooser: &mut Chooser, start: u64) -> &[u8] {
        let at = chooser.random().below(VALUES as u64) as usize;
        let value = &self.pool[at..at + self.size];
        match &mut self.stamped {
            None => value,
            Some(stamped) => {
                stamped[..self.size].copy_from_slice(value);
                stamped[..STAMP].copy_from_slice(&start.to_le_bytes());
                stamped
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;
    use crate::options::FLAGS;

    fn generator(workload: Workload, text: &str) -> Generator {
        let args: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        let options = Options::from_args(workload, &parse(FLAGS, &args).unwrap()).unwrap();
        Generator::new(&options, 0)
    }

    #[test]
    fn keys_and_values_have_their_sizes() {
        let mut puts = generator(Workload::Put, "--keys 10 --key-size 7 --value-size 33");
        for _ in 0..100 {
            let Op::Put { key, value, .. } = puts.next(0) else {
                panic!("not a put")
            };
            assert_eq!((key.len(), value.len()), (7, 33));
            assert!(key.starts_with(b"000000"));
        }
        let mut empty = generator(Workload::Put, "--value-size 0");
        assert!(matches!(empty.next(0), Op::Put { value: b"", .. }));
    }

    #[test]
    fn ranges_stay_inside_the_key_space() {
        let mut ranges = generator(Workload::Range, "--keys 12 --key-size 2 --range-keys 5");
        for _ in 0..100 {
            let Op::Range {
                key, end, limit, ..
            } = ranges.next(0)
            else {
                panic!("no range")
            };
            let number = |key: &[u8]| std::str::from_utf8(key).unwrap().parse::<u64>().unwrap();
            assert_eq!(number(&end[..2]) - number(key) + 1, limit);
            assert!(number(&end[..2]) < 12 && end[2] == 0);
        }
        let mut all = generator(Workload::Range, "--keys 3 --key-size 1 --range-keys 5");
        assert!(matches!(
            all.next(0),
            Op::Range {
                key: b"0",
                end: b"2\0",
                ..
            }
        ));
    }

    #[test]
    fn a_mix_keeps_its_ratio() {
        let mut mixed = generator(Workload::Mixed { reads: 0.0 }, "--rw-ratio 3");
        let reads = (0..10_000)
            .filter(|_| matches!(mixed.next(0), Op::Get { .. }))
            .count();
        assert!((7200..7800).contains(&reads), "{reads}");
    }
}
