//! Counting the keys of an interval at a revision, in parts, between which nothing is pinned.

use super::read::{Direction, event_at, try_scan};
use super::record::{EventView, LatestView};
use super::{Error, Revision, View};
use crate::tree::{Interval, TreeId, TreeRead};

/// A count that is being found; exact.
///
/// At the newest revision the tree's own counts answer. At an older one, every event since tells
/// whether it created or deleted a key of the interval, so that the count now can be corrected; if
/// the interval has fewer keys than there were events, its keys are walked.
#[derive(Debug, Clone)]
pub struct CountWalk {
    revision: i64,
    /// The newest revision when it began: what comes later does not matter.
    through: i64,
    /// Keys of the interval at that revision.
    now: u64,
    way: Way,
    /// Steps taken.
    steps: u64,
}

#[derive(Debug, Clone)]
enum Way {
    /// Key by key, from this one on. It is given up after so many steps more, since entries of
    /// deleted keys and walks into the past may make it longer than the count of live keys
    /// promises.
    Keys {
        next: Vec<u8>,
        count: u64,
        left: u64,
    },
    /// Event by event, from this one on.
    Events {
        next: Revision,
        created: u64,
        deleted: u64,
    },
    /// It is known.
    Known(u64),
}

impl CountWalk {
    /// Begins to count the keys of an interval at a revision.
    pub fn new<T: TreeRead>(
        view: &View<'_, T>,
        interval: Interval<'_>,
        revision: i64,
    ) -> Result<CountWalk, Error> {
        let revision = view.resolve(revision)?;
        let (tree, through) = (view.tree(), view.horizon().revision);
        let mut walk = CountWalk {
            revision,
            through,
            now: tree.count(TreeId::Key, interval)?,
            way: Way::Known(0),
            steps: 0,
        };
        if revision == through {
            walk.way = Way::Known(walk.now);
            return Ok(walk);
        }
        let first_since = Revision::first(revision + 1).to_key();
        let since = Interval {
            start: &first_since,
            end: None,
        };
        let events = tree.count(TreeId::Revision, since)?;
        match walk.now < events {
            true => walk.go_by_keys(interval, events),
            false => walk.go_by_events(),
        }
        Ok(walk)
    }

    pub(super) fn go_by_keys(&mut self, interval: Interval<'_>, steps_max: u64) {
        self.way = Way::Keys {
            next: interval.start.to_vec(),
            count: 0,
            left: steps_max,
        };
    }

    pub(super) fn go_by_events(&mut self) {
        self.way = Way::Events {
            next: Revision::first(self.revision + 1),
            created: 0,
            deleted: 0,
        };
    }

    /// How many steps it has taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Counts on, in about `steps_max` steps (at least one), each a look at an entry of a tree; the
    /// count, once it is known. The view may be of a later root, and the interval must be the same.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        interval: Interval<'_>,
        steps_max: u64,
    ) -> Result<Option<u64>, Error> {
        view.resolve(self.revision)?;
        match self.way {
            Way::Known(count) => return Ok(Some(count)),
            Way::Keys { .. } => self.walk_keys(view, interval, steps_max.max(1))?,
            Way::Events { .. } => self.walk_events(view, interval, steps_max.max(1))?,
        }
        match self.way {
            Way::Known(count) => Ok(Some(count)),
            Way::Keys { .. } | Way::Events { .. } => Ok(None),
        }
    }

    fn walk_keys<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        interval: Interval<'_>,
        steps_max: u64,
    ) -> Result<(), Error> {
        let Way::Keys { next, count, left } = &mut self.way else {
            return Ok(());
        };
        let (tree, revision) = (view.tree(), self.revision);
        let rest = Interval {
            start: next,
            end: interval.end,
        };
        let (mut steps, mut beyond) = (0, None);
        try_scan(
            tree,
            TreeId::Key,
            rest,
            Direction::Ascending,
            |key, entry| {
                if steps >= steps_max.min(*left) {
                    beyond = Some(key.to_vec());
                    return Ok(false);
                }
                steps += 1;
                let entry = LatestView::decode(key, entry)?;
                let live = if entry.fields.latest.main <= revision {
                    !entry.fields.tombstone
                } else {
                    event_at(tree, key, &entry, revision, &mut steps)?.is_some()
                };
                *count += u64::from(live);
                Ok(true)
            },
        )?;
        *left = left.saturating_sub(steps);
        self.steps += steps;
        match beyond {
            None => self.way = Way::Known(*count),
            Some(_) if *left == 0 => self.go_by_events(),
            Some(key) => *next = key,
        }
        Ok(())
    }

    fn walk_events<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        interval: Interval<'_>,
        steps_max: u64,
    ) -> Result<(), Error> {
        let Way::Events {
            next,
            created,
            deleted,
        } = &mut self.way
        else {
            return Ok(());
        };
        let (start, end) = (next.to_key(), Revision::first(self.through + 1).to_key());
        let rest = Interval {
            start: &start,
            end: Some(&end),
        };
        let (mut steps, mut beyond) = (0, None);
        let tree = view.tree();
        try_scan(
            tree,
            TreeId::Revision,
            rest,
            Direction::Ascending,
            |at, event| {
                let at = Revision::from_key(at)?;
                if steps == steps_max {
                    beyond = Some(at);
                    return Ok(false);
                }
                steps += 1;
                let event = EventView::decode(at, event)?;
                if contains(interval, event.key) {
                    *created += u64::from(event.creates());
                    *deleted += u64::from(event.fields.tombstone);
                }
                Ok(true)
            },
        )?;
        self.steps += steps;
        if let Some(at) = beyond {
            *next = at;
            return Ok(());
        }
        let count = (self.now + *deleted).checked_sub(*created);
        self.way = Way::Known(count.ok_or_else(|| {
            let what = "fewer keys than the events created";
            Error::corrupt(TreeId::Key, interval.start, what)
        })?);
        Ok(())
    }
}

/// Whether a key lies in an interval.
fn contains(interval: Interval<'_>, key: &[u8]) -> bool {
    interval.start <= key && interval.end.is_none_or(|end| key < end)
}
