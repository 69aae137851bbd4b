//! The rows about the storage engine alone: beside LMDB, and the space that it takes.

#![forbid(unsafe_code)]

use super::heavy::Heavy;
use super::result::{Row, Unit};
use crate::report::grouped;
use crate::storage;

/// Keys of the usual row, and of the one with many.
const KEYS: u64 = 100_000;
const MANY_KEYS: u64 = 10_000_000;

impl Heavy<'_> {
    /// Puts and gets beside LMDB, with as many keys as other rows have.
    pub fn storage(&self) -> Vec<Row> {
        self.beside_lmdb(KEYS, ("storage-put", "storage-get"))
    }

    /// The same with many keys.
    pub fn storage_large(&self) -> Vec<Row> {
        self.beside_lmdb(MANY_KEYS, ("storage-large-put", "storage-large-get"))
    }

    fn beside_lmdb(&self, keys: u64, (put, get): (&str, &str)) -> Vec<Row> {
        let (put_bar, get_bar) = storage::bars(keys);
        let mut puts = Row::new(put, "LMDB", Unit::Rate, Some(put_bar));
        let mut gets = Row::new(get, "LMDB", Unit::Rate, Some(get_bar));
        puts.note = format!("{} keys, 1000 puts a commit, no sync", grouped(keys as f64));
        gets.note = "random keys of the newest state".into();
        match storage::beside_lmdb(keys, self.rounds, self.data) {
            Ok(rounds) => (puts.rounds, gets.rounds) = (rounds.puts, rounds.gets),
            Err(why) => {
                puts.invalid = Some(why.to_string());
                gets.invalid = Some(why.to_string());
            }
        }
        vec![puts, gets]
    }

    /// The space of a tree whose keys are overwritten again and again.
    pub fn overwrite(&self) -> Vec<Row> {
        let bar = Some(1.0 / storage::SPACE_BAR);
        let mut row = Row::new("overwrite", "live bytes", Unit::Bytes, bar);
        row.note = "the most blocks of the tree file; compacted down to the live keys".into();
        match storage::space(self.rounds, self.data) {
            Ok((most, live)) => row.rounds.push((most as f64, live as f64)),
            Err(why) => row.invalid = Some(why.to_string()),
        }
        vec![row]
    }
}
