//! The requests of a load: one after the other, without copying values.

#![forbid(unsafe_code)]

use crate::keys::{Chooser, Distribution, Random, write_key};
use crate::options::{Options, Workload};

/// One request, as the drivers put it into their protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Write a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
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
    workload: Workload,
    serializable: bool,
    keys: u64,
    range_keys: u64,
    key: Vec<u8>,
    end: Vec<u8>,
    /// Random bytes; each value is a window of it.
    pool: Vec<u8>,
    value_size: usize,
}

/// The pool is so much longer than a value: so many different values.
const VALUES: usize = 4096;

impl Generator {
    /// The requests of worker `worker`.
    pub fn new(options: &Options, worker: usize) -> Generator {
        Generator::with(options, options.workload, options.distribution, worker)
    }

    /// Puts that write the whole key space once, shared out among the workers.
    pub fn preload(options: &Options, worker: usize) -> Generator {
        Generator::with(options, Workload::Put, Distribution::Sequential, worker)
    }

    fn with(
        options: &Options,
        workload: Workload,
        distribution: Distribution,
        worker: usize,
    ) -> Generator {
        let workers = options.threads as u64;
        let mut random = Random::new(options.seed ^ 0x5EED);
        let pool = (0..options.value_size + VALUES)
            .map(|_| random.next() as u8)
            .collect::<Vec<_>>();
        Generator {
            chooser: Chooser::new(
                distribution,
                options.keys,
                options.seed,
                worker as u64,
                workers,
            ),
            workload,
            serializable: options.serializable,
            keys: options.keys,
            range_keys: options.range_keys,
            key: vec![0; options.key_size],
            end: vec![0; options.key_size + 1],
            pool,
            value_size: options.value_size,
        }
    }

    /// The next request.
    pub fn next(&mut self) -> Op<'_> {
        let number = self.chooser.next();
        write_key(number, &mut self.key);
        let workload = match self.workload {
            Workload::Mixed { reads } if self.chooser.random().unit() < reads => Workload::Get,
            Workload::Mixed { .. } => Workload::Put,
            other => other,
        };
        match workload {
            Workload::Get => Op::Get {
                key: &self.key,
                serializable: self.serializable,
            },
            Workload::Range => {
                let first = number.min(self.keys.saturating_sub(self.range_keys));
                let last = self.keys.min(first.saturating_add(self.range_keys)) - 1;
                write_key(first, &mut self.key);
                // The end is exclusive: the last key with a zero byte behind it.
                let digits = self.end.len() - 1;
                write_key(last, &mut self.end[..digits]);
                Op::Range {
                    key: &self.key,
                    end: &self.end,
                    limit: self.range_keys,
                    serializable: self.serializable,
                }
            }
            Workload::Put => Op::Put {
                key: &self.key,
                value: value(&mut self.chooser, &self.pool, self.value_size),
            },
            Workload::Txn | Workload::Mixed { .. } => Op::Txn {
                key: &self.key,
                value: value(&mut self.chooser, &self.pool, self.value_size),
            },
        }
    }
}

fn value<'a>(chooser: &mut Chooser, pool: &'a [u8], size: usize) -> &'a [u8] {
    let at = chooser.random().below(VALUES as u64) as usize;
    &pool[at..at + size]
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
            let Op::Put { key, value } = puts.next() else {
                panic!("not a put")
            };
            assert_eq!((key.len(), value.len()), (7, 33));
            assert!(key.starts_with(b"000000"));
        }
        let mut empty = generator(Workload::Put, "--value-size 0");
        assert!(matches!(empty.next(), Op::Put { value: b"", .. }));
    }

    #[test]
    fn ranges_stay_inside_the_key_space() {
        let mut ranges = generator(Workload::Range, "--keys 12 --key-size 2 --range-keys 5");
        for _ in 0..100 {
            let Op::Range {
                key, end, limit, ..
            } = ranges.next()
            else {
                panic!("no range")
            };
            let number = |key: &[u8]| std::str::from_utf8(key).unwrap().parse::<u64>().unwrap();
            assert_eq!(number(&end[..2]) - number(key) + 1, limit);
            assert!(number(&end[..2]) < 12 && end[2] == 0);
        }
        let mut all = generator(Workload::Range, "--keys 3 --key-size 1 --range-keys 5");
        assert!(matches!(
            all.next(),
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
            .filter(|_| matches!(mixed.next(), Op::Get { .. }))
            .count();
        assert!((7200..7800).contains(&reads), "{reads}");
    }
}
