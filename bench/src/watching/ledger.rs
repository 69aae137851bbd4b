//! What watches were told, held against what they must be told: each change of each of their
//! keys once, in the order of history, without a gap.
//!
//! The store numbers the versions of a key, so a gap shows in the event itself. What never came
//! shows at the end, when the store is asked for the versions that there are.

#![forbid(unsafe_code)]

use crate::record::{Failure, Recorder};
use crate::workload;

/// The place of a key in its history: its version and the revision that made it; zeros if it
/// does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its version.
    pub version: i64,
    /// The revision of its newest change.
    pub revision: i64,
}

/// One event, as far as it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number of its key.
    pub key: u64,
    /// Where the key is now; after a delete its version is 0.
    pub place: Place,
    /// The time that the value carries; none after a delete.
    pub stamp: Option<u64>,
}

/// Which watch sees which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What every key begins with.
    pub prefix: String,
    /// Bytes of a key.
    pub key_size: usize,
    /// How many keys there are.
    pub keys: u64,
    /// Keys that one watch sees.
    pub span: u64,
    /// Watches of one key are asked for as such, not as intervals.
    pub points: bool,
}

impl Layout {
    /// The first key that a watch sees. Watches go round the key space.
    pub fn first(&self, watch: u64) -> u64 {
        let groups = self.keys.div_ceil(self.span);
        watch % groups * self.span
    }

    /// The interval that a watch sees, the end exclusive; no end if it is a single key.
    pub fn interval(&self, watch: u64) -> (Vec<u8>, Vec<u8>) {
        let first = self.first(watch);
        if self.points && self.span == 1 {
            return (self.key(first), Vec::new());
        }
        let last = self.keys.min(first + self.span) - 1;
        let mut end = self.key(last);
        end.push(0);
        (self.key(first), end)
    }

    /// A key by its number.
    pub fn key(&self, number: u64) -> Vec<u8> {
        let mut key = vec![0; self.key_size];
        key[..self.prefix.len()].copy_from_slice(self.prefix.as_bytes());
        crate::keys::write_key(number, &mut key[self.prefix.len()..]);
        key
    }

    /// The number of a key; none if it is none of these.
    pub fn number(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_bytes())?;
        if key.len() != self.key_size {
            return None;
        }
        digits.iter().try_fold(0u64, |sum, digit| {
            let digit = digit.wrapping_sub(b'0');
            (digit < 10).then_some(())?;
            sum.checked_mul(10)?.checked_add(u64::from(digit))
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    /// Of each watch each of its keys.
    places: Vec<Place>,
    /// The newest revision that each watch was told of.
    newest: Vec<i64>,
    recorder: Recorder,
    /// Before this time no key may be deleted, and deletes count from it.
    due: Option<u64>,
    /// The revision of the newest delete, and how many revisions deleted something.
    deleted: (i64, u64),
    /// When something was told last.
    heard: u64,
}

impl Ledger {
    /// A ledger of so many watches, whose keys all have that version.
    pub fn new(layout: Layout, watches: u64, version: i64, recorder: Recorder) -> Ledger {
        let start = Place {
            version,
            revision: 0,
        };
        Ledger {
            places: vec![start; (watches * layout.span) as usize],
            newest: vec![0; watches as usize],
            layout,
            recorder,
            due: None,
            deleted: (0, 0),
            heard: 0,
        }
    }

    /// The same ledger, but keys are deleted from `due` on, not before.
    pub fn due(self, due: u64) -> Ledger {
        Ledger {
            due: Some(due),
            ..self
        }
    }

    /// How many revisions deleted something.
    pub fn deletes(&self) -> u64 {
        self.deleted.1
    }

    /// Reads what an event says.
    pub fn read(&self, key: &[u8], place: Place, value: Option<&[u8]>) -> Result<Seen, Failure> {
        let number = self.layout.number(key);
        let key = number.ok_or("an event of a key that nobody watches")?;
        let stamp = match value {
            None => None,
            Some(value) => Some(workload::stamp(value).ok_or("an event without its time")?),
        };
        Ok(Seen { key, place, stamp })
    }

    /// An event came at `now` for some watches.
    pub fn told(&mut self, watches: impl Iterator<Item = u64>, seen: &Seen, now: u64) {
        let mut good = 0;
        for watch in watches {
            match self.check(watch, seen) {
                Ok(()) => good += 1,
                Err(wrong) => self.recorder.bad(now, wrong.into()),
            }
        }
        self.heard = now;
        if seen.stamp.is_none() && self.deleted.0 != seen.place.revision {
            self.deleted = (seen.place.revision, self.deleted.1 + 1);
        }
        match (seen.stamp, self.due) {
            (Some(start), _) => self.recorder.good_many(start, now, good),
            (None, Some(due)) if now < due => {
                let early = "a key was deleted before its lease was due".into();
                self.recorder.bad(now, early);
            }
            (None, Some(due)) => self.recorder.good_many(due, now, good),
            (None, None) => self.recorder.counted(now, good),
        }
    }

    /// Something that cannot be an event of these watches.
    pub fn wrong(&mut self, now: u64, what: Failure) {
        self.recorder.bad(now, what);
    }

    fn check(&mut self, watch: u64, seen: &Seen) -> Result<(), &'static str> {
        let offset = seen.key.wrapping_sub(self.layout.first(watch));
        let newest = self.newest.get_mut(watch as usize);
        let newest = newest.ok_or("an event of a watch that does not exist")?;
        if offset >= self.layout.span {
            return Err("an event of another watch's key");
        }
        let place = &mut self.places[(watch * self.layout.span + offset) as usize];
        let verdict = match (seen.stamp.is_some(), place.version) {
            _ if seen.place.revision < *newest => Err("an event out of order"),
            _ if seen.place.revision == place.revision => Err("an event came twice"),
            (false, 0) => Err("a delete of a key that did not exist: an event is missing"),
            (true, before) if seen.place.version <= before => Err("a version came twice"),
            (true, before) if seen.place.version > before + 1 => Err("an event is missing"),
            _ => Ok(()),
        };
        // One missing event is told once.
        *place = seen.place;
        *newest = seen.place.revision.max(*newest);
        verdict
    }

    /// Watched keys of which something has not been told, given where they all are, by number.
    pub fn behind(&self, finals: &[Place]) -> u64 {
        let span = self.layout.span;
        let behind = |watch: u64| {
            let first = self.layout.first(watch);
            let keys = (0..span).filter(|offset| first + offset < self.layout.keys);
            keys.filter(|offset| {
                let is = self.places[(watch * span + offset) as usize];
                let must = finals[(first + offset) as usize];
                // Nothing need have been told of a key that has not changed; and the store does
                // not know any more when it lost a key.
                let untold = is.revision == 0 || must.version == 0;
                is != must && !(untold && is.version == must.version)
            })
            .count() as u64
        };
        (0..self.newest.len() as u64).map(behind).sum()
    }

    /// When something was told last.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Keeps the records going.
    pub fn turn(&mut self, now: u64) {
        self.recorder.turn(now);
    }

    /// Ends the records; `behind` keys' last events never came.
    pub fn end(&mut self, now: u64, behind: u64) {
        for _ in 0..behind {
            self.recorder
                .bad(now, "the last event of a key never came".into());
        }
        self.recorder.flush(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Board;

    fn layout(keys: u64, span: u64) -> Layout {
        Layout {
            prefix: "p/".into(),
            key_size: 8,
            keys,
            span,
            points: false,
        }
    }

    fn ledger(keys: u64, span: u64, watches: u64) -> (Ledger, std::sync::Arc<Board>) {
        let board = Board::new(1_000_000);
        let recorder = Recorder::new(board.clone(), 0, u64::MAX);
        (Ledger::new(layout(keys, span), watches, 0, recorder), board)
    }

    fn put(key: u64, version: i64, revision: i64) -> Seen {
        let place = Place { version, revision };
        Seen {
            key,
            place,
            stamp: Some(1),
        }
    }

    fn deleted(key: u64, revision: i64) -> Seen {
        Seen {
            stamp: None,
            ..put(key, 0, revision)
        }
    }

    fn failures(events: &[Seen]) -> Vec<String> {
        let (mut ledger, board) = ledger(2, 2, 1);
        for seen in events {
            ledger.told([0].into_iter(), seen, 5);
        }
        ledger.end(6, 0);
        let totals = board.totals();
        totals.errors.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_have_numbers_and_watches_intervals() {
        let layout = layout(5, 2);
        assert_eq!(layout.key(42), b"p/000042");
        assert_eq!(layout.number(b"p/000042"), Some(42));
        for other in [&b"q/000042"[..], b"p/00042", b"p/0000420", b"p/00004x"] {
            assert_eq!(layout.number(other), None);
        }
        let firsts: Vec<u64> = (0..4).map(|watch| layout.first(watch)).collect();
        assert_eq!(firsts, [0, 2, 4, 0]);
        let last = (b"p/000004".to_vec(), b"p/000004\0".to_vec());
        assert_eq!(layout.interval(2), last);
        let points = Layout {
            points: true,
            ..super::tests::layout(5, 1)
        };
        assert_eq!(points.interval(3), (b"p/000003".to_vec(), Vec::new()));
    }

    #[test]
    fn a_history_without_gaps_is_good() {
        let history = [
            put(0, 1, 5),
            put(1, 1, 6),
            put(0, 2, 8),
            deleted(0, 9),
            deleted(1, 9),
            put(0, 1, 12),
        ];
        assert_eq!(failures(&history), [""; 0]);
    }

    #[test]
    fn every_kind_of_wrong_history_is_found() {
        let found = |events: &[Seen], what: &str| {
            let failures = failures(events);
            assert!(
                failures.len() == 1 && failures[0].contains(what),
                "{failures:?}"
            );
        };
        found(&[put(0, 2, 5)], "missing");
        found(&[put(0, 1, 5), put(0, 3, 6)], "missing");
        found(&[put(0, 1, 5), put(0, 1, 5)], "twice");
        found(&[put(0, 1, 5), put(0, 1, 6)], "twice");
        found(&[put(0, 1, 5), put(1, 1, 4)], "out of order");
        found(&[deleted(0, 5)], "missing");
        found(&[put(0, 1, 5), deleted(0, 6), deleted(0, 7)], "missing");
        found(&[put(2, 1, 5)], "another watch's key");
    }

    #[test]
    fn what_never_came_is_found_at_the_end() {
        let (mut ledger, _board) = ledger(3, 1, 4);
        ledger.told([0, 3].into_iter(), &put(0, 1, 5), 1);
        let place = |version, revision| Place { version, revision };
        let finals = [place(1, 5), place(1, 6), place(0, 0)];
        assert_eq!(ledger.behind(&finals), 1);
        ledger.told([1].into_iter(), &put(1, 1, 6), 1);
        assert_eq!(ledger.behind(&finals), 0);
        // Versions alone could be those of a key that was deleted and made again.
        assert_eq!(ledger.behind(&[place(1, 9), place(1, 6), place(0, 0)]), 2);
    }

    #[test]
    fn events_are_read_with_their_times() {
        let (ledger, _board) = ledger(3, 1, 1);
        let place = Place::default();
        let seen = ledger.read(b"p/000002", place, Some(&[7, 0, 0, 0, 0, 0, 0, 0, 9]));
        let expected = Seen {
            key: 2,
            place,
            stamp: Some(7),
        };
        assert_eq!(seen, Ok(expected));
        assert!(ledger.read(b"p/000002", place, Some(b"short")).is_err());
        assert!(ledger.read(b"elsewhere", place, None).is_err());
    }
}
