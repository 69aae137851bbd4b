//! LMDB, without any sync.

use super::{Failure, Side, key, value};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithTls};
use std::path::Path;

/// An LMDB environment with one table.
pub struct Lmdb {
    env: Env<WithTls>,
    table: Database<Bytes, Bytes>,
}

impl Lmdb {
    /// Opens an empty one.
    pub fn open(dir: &Path, map_bytes: usize) -> Result<Lmdb, Failure> {
        let mut options = EnvOpenOptions::new();
        options.map_size(map_bytes);
        // SAFETY: a private directory of this process, opened once; an unclean end loses only the
        // data of a benchmark.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::NO_READ_AHEAD);
            options.open(dir)?
        };
        let mut txn = env.write_txn()?;
        let table = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Lmdb { env, table })
    }
}

impl Side for Lmdb {
    fn name(&self) -> &'static str {
        "lmdb"
    }

    fn put(&mut self, keys: &[u64], stamp: u64) -> Result<(), Failure> {
        let mut txn = self.env.write_txn()?;
        for &n in keys {
            self.table.put(&mut txn, &key(n), &value(n, stamp))?;
        }
        Ok(txn.commit()?)
    }

    fn get(&mut self, keys: &[u64]) -> Result<u64, Failure> {
        let txn = self.env.read_txn()?;
        let mut sum = 0;
        for &n in keys {
            let value = self.table.get(&txn, &key(n))?.ok_or("LMDB lost a key")?;
            sum += u64::from(value[100]);
        }
        Ok(sum)
    }
}
