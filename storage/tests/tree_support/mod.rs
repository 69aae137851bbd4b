#![allow(dead_code)] // every test file uses another part
//! A tree and a plain model of it, driven by the same random history.

use quoin_storage::disk::Disk;
use quoin_storage::tree::{
    Interval, Shared, Snapshot, TreeError, TreeId, TreeOptions, TreeRead, TreeWrite, Txn, Writer,
    open,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const NAME: &str = "tree";
pub const IDS: [TreeId; 3] = [TreeId::Key, TreeId::Revision, TreeId::State];

/// A small generator: the same seed, the same history.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub type Map = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

/// What the trees should hold.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Model {
    pub maps: [Map; 3],
    pub user: Vec<u8>,
}

/// What kinds of keys and values a history has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub keys: u64,
    pub long_keys: bool,
    pub large_values: bool,
    pub removes: u64,
}

impl Shape {
    pub fn key(&self, random: &mut Random) -> Vec<u8> {
        let number = random.below(self.keys);
        let mut key = format!("key-{:07}", number.wrapping_mul(7919) % 10_000_000).into_bytes();
        if self.long_keys {
            match number % 17 {
                0 => {
                    // Long keys that differ early, and some that differ late.
                    let len = 500 + (number as usize * 37) % 6000;
                    key.resize(len, b'x');
                }
                1 => {
                    let mut long = vec![b'k'; 700 + (number % 5) as usize * 1500];
                    long.extend_from_slice(&key);
                    key = long;
                }
                2 => key.truncate((number % 9) as usize),
                _ => {}
            }
        }
        key
    }

    pub fn value(&self, random: &mut Random) -> Vec<u8> {
        let len = match random.below(20) {
            0 => 0,
            1 if self.large_values => 1000 + random.below(20_000) as usize,
            2..=4 => random.below(1025) as usize,
            _ => random.below(120) as usize,
        };
        let byte = random.next() as u8;
        (0..len).map(|i| byte.wrapping_add(i as u8)).collect()
    }
}

pub fn options() -> TreeOptions {
    TreeOptions {
        reserve_bytes: if cfg!(miri) { 1 << 22 } else { 1 << 32 },
        young_bytes_max: 4 << 20,
        spare_bytes: 64 << 10,
        extent_bytes: 16 << 10,
    }
}

pub fn open_at(disk: &Arc<dyn Disk>, options: TreeOptions) -> Result<(Writer, Shared), TreeError> {
    open(Arc::clone(disk), NAME, options)
}

/// Does one random operation to both.
pub fn step(
    txn: &mut Txn<'_>,
    model: &mut Model,
    shape: &Shape,
    random: &mut Random,
) -> Result<(), TreeError> {
    let tree = IDS[random.below(3) as usize];
    let map = &mut model.maps[tree as usize];
    if tree == TreeId::Revision && random.chance(70) {
        // Ascending keys.
        let next = map.len() as u64 + 1_000_000 + random.below(1 << 40) * u64::from(map.is_empty());
        let next = match map.keys().next_back() {
            Some(last) if last.len() == 12 => u64::from_be_bytes(last[..8].try_into().unwrap()) + 1,
            _ => next,
        };
        let mut key = next.to_be_bytes().to_vec();
        key.extend_from_slice(&[0; 4]);
        let value = shape.value(random);
        txn.insert(tree, &key, &[&value], true)?;
        map.insert(key, (value, true));
        return Ok(());
    }
    if random.chance(shape.removes) {
        let key = match random.below(3) {
            0 => shape.key(random),
            _ => {
                let at = shape.key(random);
                match map.range(at..).next() {
                    Some((key, _)) => key.clone(),
                    None => return Ok(()),
                }
            }
        };
        let had = txn.remove(tree, &key)?;
        assert_eq!(had, map.remove(&key).is_some());
        return Ok(());
    }
    let key = shape.key(random);
    let value = shape.value(random);
    let counted = random.chance(70);
    let half = value.len() / 2;
    txn.insert(tree, &key, &[&value[..half], &value[half..]], counted)?;
    map.insert(key, (value, counted));
    Ok(())
}

type Entry<'m> = (&'m [u8], &'m (Vec<u8>, bool));

fn inside<'m>(map: &'m Map, interval: &Interval<'_>) -> Vec<Entry<'m>> {
    map.range(interval.start.to_vec()..)
        .take_while(|(key, _)| interval.end.is_none_or(|end| key.as_slice() < end))
        .map(|(key, entry)| (key.as_slice(), entry))
        .collect()
}

/// Compares intervals in every way of reading.
pub fn compare_interval(
    read: &impl TreeRead,
    model: &Model,
    tree: TreeId,
    interval: Interval<'_>,
) -> Result<(), TreeError> {
    let expect = inside(&model.maps[tree as usize], &interval);
    let mut got = Vec::new();
    read.scan(tree, interval, &mut |key, value| {
        got.push((key.to_vec(), value.to_vec()));
        true
    })?;
    assert_eq!(got.len(), expect.len(), "{interval:?}");
    for (got, expect) in got.iter().zip(&expect) {
        assert_eq!(got.0, expect.0);
        assert_eq!(got.1, expect.1.0);
    }
    // One beside the other, and now and then one that is far away or missing.
    for (at, (key, (value, _))) in expect.iter().enumerate().take(200) {
        assert_eq!(read.get_near(tree, key)?, Some(&value[..]));
        let (key, (value, _)) = &expect[at * at % expect.len()];
        assert_eq!(read.get_near(tree, key)?, Some(&value[..]));
        let missing = [key, &b"\0"[..]].concat();
        let there = model.maps[tree as usize].get(&missing);
        let there = there.map(|(value, _)| &value[..]);
        assert_eq!(read.get_near(tree, &missing)?, there);
    }
    let mut back = Vec::new();
    read.scan_back(tree, interval, &mut |key, value| {
        back.push((key.to_vec(), value.to_vec()));
        back.len() < 50
    })?;
    let most = got.len().min(50);
    assert!(back.iter().eq(got.iter().rev().take(most)));
    let counted = expect.iter().filter(|(_, entry)| entry.1).count() as u64;
    assert_eq!(read.count(tree, interval)?, counted);
    Ok(())
}

/// Compares everything.
pub fn compare(read: &impl TreeRead, model: &Model) -> Result<(), TreeError> {
    for tree in IDS {
        let all = Interval {
            start: &[],
            end: None,
        };
        compare_interval(read, model, tree, all)?;
    }
    Ok(())
}

/// Looks keys up after they have been looked up together: all of them in that order, some left out,
/// some that are missing or were never spoken of.
fn look_up_together(
    read: &impl TreeRead,
    model: &Model,
    tree: TreeId,
    shape: &Shape,
    random: &mut Random,
) -> Result<(), TreeError> {
    let map = &model.maps[tree as usize];
    let step = (map.len() as u64 / 16).max(1);
    let first = random.below(step) as usize;
    let there = map.keys().skip(first).step_by(step as usize).cloned();
    let mut keys: Vec<Vec<u8>> = there.take(20).collect();
    for _ in 0..random.below(4) {
        let at = random.below(keys.len() as u64 + 1) as usize;
        keys.insert(at, shape.key(random));
    }
    let names: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    read.warm(tree, &names);
    for _ in 0..2 {
        for key in &keys {
            if random.chance(10) {
                continue;
            }
            let expect = map.get(key).map(|(value, _)| &value[..]);
            assert_eq!(read.get(tree, key)?, expect);
        }
    }
    Ok(())
}

/// Compares random keys and intervals.
pub fn probe(
    read: &impl TreeRead,
    model: &Model,
    shape: &Shape,
    random: &mut Random,
) -> Result<(), TreeError> {
    for tree in IDS {
        let (a, b) = (shape.key(random), shape.key(random));
        let expect = model.maps[tree as usize]
            .get(&a)
            .map(|(value, _)| &value[..]);
        assert_eq!(read.get(tree, &a)?, expect);
        look_up_together(read, model, tree, shape, random)?;
        let (start, end) = if random.chance(90) && a > b {
            (b, a)
        } else {
            (a, b)
        };
        let interval = Interval {
            start: &start,
            end: Some(&end).filter(|_| random.chance(80)).map(|end| &end[..]),
        };
        if interval.end.is_some_and(|end| end < interval.start) {
            assert_eq!(read.count(tree, interval)?, 0);
            continue;
        }
        compare_interval(read, model, tree, interval)?;
    }
    Ok(())
}

pub fn compare_snapshot(snapshot: &Snapshot<'_>, model: &Model) -> Result<(), TreeError> {
    assert_eq!(snapshot.user(), model.user);
    compare(snapshot, model)
}
