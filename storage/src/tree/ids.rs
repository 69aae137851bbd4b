//! Sets of page numbers, as bitmaps.
#![forbid(unsafe_code)]

use std::ops::Range;

/// A set of page numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct IdSet {
    words: Vec<u64>,
    len: u64,
}

fn place(id: u64) -> (usize, u64) {
    ((id / 64) as usize, 1 << (id % 64))
}

/// The first id at or above `from` whose bit in the words is as `present` says.
fn next(len: usize, word_at: impl Fn(usize) -> u64, from: u64, present: bool) -> Option<u64> {
    let mut word = (from / 64) as usize;
    let mut mask = u64::MAX << (from % 64);
    while word < len {
        let bits = word_at(word);
        let bits = if present { bits } else { !bits } & mask;
        if bits != 0 {
            return Some(word as u64 * 64 + u64::from(bits.trailing_zeros()));
        }
        mask = u64::MAX;
        word += 1;
    }
    (!present).then_some((len as u64 * 64).max(from))
}

/// The first run of consecutive ids in the words that begins at or above `from`.
fn run_of(len: usize, word_at: impl Fn(usize) -> u64, from: u64) -> Option<Range<u64>> {
    let start = next(len, &word_at, from, true)?;
    let end = next(len, &word_at, start, false).expect("a run ends");
    Some(start..end)
}

/// As [`run_of`], but looks at nothing outside `within`.
fn run_within(
    len: usize,
    word_at: impl Fn(usize) -> u64,
    within: Range<u64>,
) -> Option<Range<u64>> {
    let len = len.min(within.end.div_ceil(64) as usize);
    let run = run_of(len, word_at, within.start)?;
    (run.start < within.end).then(|| run.start..run.end.min(within.end))
}

fn find(
    within: Range<u64>,
    pages: u64,
    run_from: impl Fn(u64) -> Option<Range<u64>>,
) -> Option<Range<u64>> {
    let mut from = within.start;
    loop {
        let run = run_from(from)?;
        let end = run.end.min(within.end);
        if run.start >= within.end {
            return None;
        }
        if end - run.start >= pages {
            return Some(run.start..end);
        }
        from = run.end;
    }
}

impl IdSet {
    pub(super) fn new() -> IdSet {
        IdSet::default()
    }

    /// How many ids it has.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        let (word, bit) = place(id);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Adds an id; says whether it is new.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        let (word, bit) = place(id);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Removes an id; says whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let (word, bit) = place(id);
        let Some(word) = self.words.get_mut(word) else {
            return false;
        };
        let had = *word & bit != 0;
        *word &= !bit;
        self.len -= u64::from(had);
        had
    }

    pub(super) fn insert_run(&mut self, ids: Range<u64>) {
        for id in ids {
            self.insert(id);
        }
    }

    pub(super) fn remove_run(&mut self, ids: Range<u64>) {
        for id in ids {
            self.remove(id);
        }
    }

    /// The first run of consecutive ids that begins at or above `from`.
    pub(super) fn run_from(&self, from: u64) -> Option<Range<u64>> {
        run_of(self.words.len(), |at| self.words[at], from)
    }

    /// As [`IdSet::run_from`], of the ids that are in `other`, too.
    pub(super) fn common_run_from(&self, other: &IdSet, from: u64) -> Option<Range<u64>> {
        let len = self.words.len().min(other.words.len());
        run_of(len, |at| self.words[at] & other.words[at], from)
    }

    /// The first run of consecutive ids in `within`, as far as it lies there.
    pub(super) fn first_run(&self, within: Range<u64>) -> Option<Range<u64>> {
        run_within(self.words.len(), |at| self.words[at], within)
    }

    /// As [`IdSet::first_run`], of the ids that are in `other`, too.
    pub(super) fn first_common_run(&self, other: &IdSet, within: Range<u64>) -> Option<Range<u64>> {
        let len = self.words.len().min(other.words.len());
        run_within(len, |at| self.words[at] & other.words[at], within)
    }

    /// All runs, ascending.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let run = self.run_from(from)?;
            from = run.end;
            Some(run)
        })
    }

    /// The first run of at least `pages` ids that lies in `within`.
    pub(super) fn find_run(&self, within: Range<u64>, pages: u64) -> Option<Range<u64>> {
        find(within, pages, |from| self.run_from(from))
    }

    /// The highest id.
    pub(super) fn last(&self) -> Option<u64> {
        let (word, bits) = self
            .words
            .iter()
            .enumerate()
            .rev()
            .find(|&(_, &bits)| bits != 0)?;
        Some(word as u64 * 64 + 63 - u64::from(bits.leading_zeros()))
    }

    /// The bitmap of the ids below `end`: bit i of byte j is id 8 j + i.
    pub(super) fn to_bytes(&self, end: u64) -> Vec<u8> {
        let len = end.div_ceil(8) as usize;
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.resize(len.max(1), 0);
        bytes
    }

    /// Reads a bitmap.
    pub(super) fn from_bytes(bytes: &[u8]) -> IdSet {
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        IdSet::from_words(words)
    }

    /// The ids from 2 up to `end` that are not in the set.
    pub(super) fn complement(&self, end: u64) -> IdSet {
        let mut words: Vec<u64> = self.words.iter().map(|word| !word).collect();
        words.resize(end.div_ceil(64) as usize, u64::MAX);
        if let Some(first) = words.first_mut() {
            *first &= !3;
        }
        if !end.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (end % 64)) - 1;
        }
        IdSet::from_words(words)
    }

    /// The ids that are not in `other`.
    pub(super) fn minus(&self, other: &IdSet) -> IdSet {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        let words = self.words.iter().zip(theirs);
        IdSet::from_words(words.map(|(mine, theirs)| mine & !theirs).collect())
    }

    /// How many ids are in `other`, too.
    pub(super) fn common(&self, other: &IdSet) -> u64 {
        let words = self.words.iter().zip(&other.words);
        words
            .map(|(mine, theirs)| u64::from((mine & theirs).count_ones()))
            .sum()
    }

    fn from_words(words: Vec<u64>) -> IdSet {
        let len = words.iter().map(|word| u64::from(word.count_ones())).sum();
        IdSet { words, len }
    }

    /// Adds all ids of `other`.
    pub(super) fn union(&mut self, other: &IdSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
        self.len = self.words.iter().map(|w| u64::from(w.count_ones())).sum();
    }
}
