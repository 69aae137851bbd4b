//! Lists of watches that need no memory of their own: each watch is in one list at a time, and
//! carries the links.

/// No watch.
pub(super) const NONE: u32 = u32::MAX;

/// The neighbours of a watch in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub next: u32,
    pub prev: u32,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            next: NONE,
            prev: NONE,
        }
    }
}

/// Where the links are.
pub(super) trait Lists {
    fn link(&mut self, watch: u32) -> &mut Link;
}

/// A list of watches.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
        }
    }
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// The first watch.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Adds a watch that is in no list to the end.
    pub fn push(&mut self, watch: u32, links: &mut impl Lists) {
        *links.link(watch) = Link {
            next: NONE,
            prev: self.last,
        };
        match self.last {
            NONE => self.first = watch,
            last => links.link(last).next = watch,
        }
        self.last = watch;
    }

    /// Takes a watch out that is in this list.
    pub fn remove(&mut self, watch: u32, links: &mut impl Lists) {
        let link = std::mem::take(links.link(watch));
        match link.prev {
            NONE => self.first = link.next,
            prev => links.link(prev).next = link.next,
        }
        match link.next {
            NONE => self.last = link.prev,
            next => links.link(next).prev = link.prev,
        }
    }
}
