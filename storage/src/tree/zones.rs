//! Zones of a file by the longest run that each has to give, so that runs are found without a
//! search through the whole file, however large it is and however short they are.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Pages of a zone.
pub(super) const ZONE: u64 = 256;

/// Shelves: one for each power of two, the last for runs of so many pages or more.
pub(super) const LONGEST: u64 = 64;
const SHELVES: usize = LONGEST.ilog2() as usize + 1;

/// No zone.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Zone {
    /// The one after it on its shelf, and the one before.
    next: u32,
    prev: u32,
    /// The shelf on which it stands.
    shelf: Option<u8>,
    /// Its runs may have changed since it was put there.
    stale: bool,
}

#[derive(Clone, Copy)]
struct Shelf {
    first: u32,
    last: u32,
}

/// The zones, each on the shelf of its longest run. Those that came first go first: the later a
/// zone's turn comes, the more of its pages are free.
pub(super) struct Zones {
    zones: Vec<Zone>,
    shelves: [Shelf; SHELVES],
    stale: Vec<u32>,
}

/// The zone of a page.
fn zone_of(id: u64) -> usize {
    (id / ZONE) as usize
}

/// The pages of a zone.
fn pages_of(zone: u32) -> Range<u64> {
    let start = u64::from(zone) * ZONE;
    start..start + ZONE
}

/// The shelf of runs of this length; there is none for no pages.
fn shelf_of(pages: u64) -> Option<u8> {
    Some(pages.min(LONGEST).checked_ilog2()? as u8)
}

impl Zones {
    pub(super) fn new() -> Zones {
        let empty = Shelf {
            first: NONE,
            last: NONE,
        };
        Zones {
            zones: Vec::new(),
            shelves: [empty; SHELVES],
            stale: Vec::new(),
        }
    }

    /// The runs among these pages have changed.
    pub(super) fn changed(&mut self, ids: Range<u64>) {
        if ids.is_empty() {
            return;
        }
        let (first, last) = (zone_of(ids.start), zone_of(ids.end - 1));
        if last >= self.zones.len() {
            let new = Zone {
                next: NONE,
                prev: NONE,
                shelf: None,
                stale: false,
            };
            self.zones.resize(last + 1, new);
        }
        for at in first..=last {
            if !std::mem::replace(&mut self.zones[at].stale, true) {
                self.stale.push(at as u32);
            }
        }
    }

    /// The pages of a zone with a run of at least `pages`, or of [`LONGEST`] if that is less;
    /// among several one with the shortest of the longest runs. `longest` says how long a zone's
    /// longest run is. What it does grows with how many zones have changed.
    pub(super) fn find(
        &mut self,
        pages: u64,
        longest: impl Fn(Range<u64>) -> u64,
    ) -> Option<Range<u64>> {
        while let Some(zone) = self.stale.pop() {
            self.zones[zone as usize].stale = false;
            self.put(zone, shelf_of(longest(pages_of(zone))));
        }
        let least = shelf_of(pages.min(LONGEST).next_power_of_two())?;
        let shelves = &self.shelves[usize::from(least)..];
        let shelf = shelves.iter().find(|shelf| shelf.first != NONE)?;
        Some(pages_of(shelf.first))
    }

    /// Moves a zone to the end of a shelf, if it does not stand there already.
    fn put(&mut self, zone: u32, shelf: Option<u8>) {
        let Zone {
            next,
            prev,
            shelf: from,
            ..
        } = self.zones[zone as usize];
        if from == shelf {
            return;
        }
        if let Some(from) = from {
            let from = &mut self.shelves[usize::from(from)];
            match prev {
                NONE => from.first = next,
                prev => self.zones[prev as usize].next = next,
            }
            match next {
                NONE => from.last = prev,
                next => self.zones[next as usize].prev = prev,
            }
        }
        let mut prev = NONE;
        if let Some(to) = shelf {
            let to = &mut self.shelves[usize::from(to)];
            prev = std::mem::replace(&mut to.last, zone);
            match prev {
                NONE => to.first = zone,
                prev => self.zones[prev as usize].next = zone,
            }
        }
        let at = &mut self.zones[zone as usize];
        (at.next, at.prev, at.shelf) = (NONE, prev, shelf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_zone_is_found_exactly_if_one_has_a_run_as_long(
            changes in prop::collection::vec((0u64..40, 0u64..=ZONE, 1u64..=2 * LONGEST), 1..200)
        ) {
            let mut zones = Zones::new();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for (zone, longest, wanted) in changes {
                model.insert(zone, longest);
                zones.changed(zone * ZONE + 3..zone * ZONE + 4);
                let found = zones.find(wanted, |pages| {
                    assert_eq!(pages.end - pages.start, ZONE);
                    model.get(&(pages.start / ZONE)).copied().unwrap_or(0)
                });
                let least = wanted.min(LONGEST).next_power_of_two();
                let shelf = |run: u64| run.min(LONGEST).ilog2();
                let best = model.values().filter(|&&run| run >= least).map(|&run| shelf(run)).min();
                let found = found.map(|pages| shelf(model[&(pages.start / ZONE)]));
                prop_assert_eq!(found, best);
            }
        }
    }

    #[test]
    fn of_zones_with_equal_runs_the_first_to_have_one_goes_first() {
        let mut zones = Zones::new();
        for zone in [5, 3, 9] {
            zones.changed(zone * ZONE..zone * ZONE + 1);
            let _ = zones.find(1, |_| 4);
        }
        assert_eq!(zones.find(2, |_| 4), Some(5 * ZONE..6 * ZONE));
        zones.changed(5 * ZONE..5 * ZONE + 1);
        assert_eq!(zones.find(2, |_| 1), Some(3 * ZONE..4 * ZONE));
        assert_eq!(zones.find(1, |_| 4), Some(5 * ZONE..6 * ZONE));
    }
}
