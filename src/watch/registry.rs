//! Streams and their watches: made, found, ended.

use super::groups::Groups;
use super::interest::Interest;
use super::lists::{Link, List, Lists};
use crate::api::{WatchCreate, WatchRefusal};
use crate::chance::Chance;
use crate::limits;
use hashbrown::HashTable;
use slab::Slab;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};

/// A stream of a front's watches. The number is free again after [`Watches::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(pub(super) u32);

/// How much a front takes on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Watches.
    pub watches: usize,
    /// Bytes of their keys, those of equal interests counted once.
    pub key_bytes: usize,
}

impl Default for Bounds {
    /// Those of a server.
    fn default() -> Bounds {
        Bounds {
            watches: limits::WATCHES_PER_FRONT,
            key_bytes: limits::WATCH_KEY_BYTES_PER_FRONT,
        }
    }
}

/// How the watches of a front behave.
#[derive(Debug, Clone, Copy)]
pub struct WatchConfig {
    /// How often a quiet watch that asked for it is told its progress; up to a tenth comes on
    /// top, by chance, for each stream.
    pub progress_interval_ns: u64,
    /// How much there may be.
    pub bounds: Bounds,
    /// For chance, and to keep clients from choosing keys that fall together.
    pub seed: u64,
}

/// One watch. Small: there may be millions.
#[derive(Debug)]
pub(super) struct Watch {
    pub id: i64,
    /// Events before this revision are not for it: they have been told, or it began later.
    pub next: i64,
    pub stream: u32,
    pub group: u32,
    link: Link,
    /// It is up to date and shares the head; otherwise it stands in its stream's list.
    pub live: bool,
    /// It asked to be told its progress.
    pub progress: bool,
    /// Nothing was told since progress was last looked at.
    pub quiet: bool,
    /// It began at a revision that did not exist yet.
    pub future: bool,
}

impl Lists for Slab<Watch> {
    fn link(&mut self, watch: u32) -> &mut Link {
        &mut self[watch as usize].link
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream<O> {
    pub owner: O,
    /// By the watches' ids.
    pub ids: HashTable<u32>,
    next_id: i64,
    /// Watches that lag, and how many.
    pub laggards: List,
    pub lagging: usize,
    /// It stands in the queue of streams whose laggards may go on.
    pub queued: bool,
    /// Its progress was asked for.
    pub asked: bool,
    /// Watches that asked for progress.
    pub progress: usize,
    /// The latest start that did not exist yet.
    pub future: i64,
    /// When quiet watches are told their progress next; 0: never.
    pub due_ns: u64,
    pub period_ns: u64,
}

/// All watches of a front; see the module.
#[derive(Debug)]
pub struct Watches<O> {
    pub(super) watches: Slab<Watch>,
    pub(super) streams: Slab<Stream<O>>,
    pub(super) groups: Groups,
    /// Live watches have been told everything up to here.
    pub(super) head: i64,
    /// The newest revision that a turn has met.
    pub(super) seen: i64,
    pub(super) live: usize,
    /// Streams whose laggards may go on.
    pub(super) queue: VecDeque<u32>,
    /// Streams whose progress was asked for.
    pub(super) asked: Vec<u32>,
    /// Streams by the time at which their watches are told their progress.
    pub(super) due: BTreeSet<(u64, u32)>,
    config: WatchConfig,
    chance: Chance,
    pub(super) members: Vec<(u32, u32)>,
    pub(super) ids: Vec<i64>,
}

impl<O: Copy> Watches<O> {
    /// No watches.
    pub fn new(config: WatchConfig) -> Watches<O> {
        Watches {
            watches: Slab::new(),
            streams: Slab::new(),
            groups: Groups::new(config.seed),
            head: 0,
            seen: 0,
            live: 0,
            queue: VecDeque::new(),
            asked: Vec::new(),
            due: BTreeSet::new(),
            chance: Chance::new(config.seed),
            config,
            members: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// How many streams and watches there are, and how many of the watches lag.
    pub fn counts(&self) -> (usize, usize, usize) {
        let watches = self.watches.len();
        (
            self.streams.len(),
            watches,
            watches - self.live.min(watches),
        )
    }

    /// How many watches there are.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether there is no watch.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// How many watches a stream has.
    pub fn watches_of(&self, stream: StreamId) -> usize {
        self.stream(stream.0).ids.len()
    }

    /// Every live watch has been told everything up to this revision.
    pub fn head(&self) -> i64 {
        self.head
    }

    /// Bytes of memory, what the allocator adds aside.
    pub fn memory(&self) -> usize {
        let ids: usize = self
            .streams
            .iter()
            .map(|(_, stream)| stream.ids.allocation_size())
            .sum();
        self.watches.capacity() * size_of::<Option<Watch>>()
            + self.streams.capacity() * size_of::<Option<Stream<O>>>()
            + self.groups.memory()
            + ids
    }

    /// Opens a stream. How many there may be is for the front to say.
    pub fn open(&mut self, owner: O) -> StreamId {
        let interval_ns = self.config.progress_interval_ns;
        let jitter = self.chance.below((interval_ns / 10).max(1));
        let stream = self.streams.insert(Stream {
            owner,
            ids: HashTable::new(),
            next_id: 0,
            laggards: List::default(),
            lagging: 0,
            queued: false,
            asked: false,
            progress: 0,
            future: 0,
            due_ns: 0,
            period_ns: interval_ns + jitter,
        });
        // Fronts bound their streams far below 2^32.
        StreamId(stream as u32)
    }

    /// Ends a stream and all its watches.
    pub fn close(&mut self, stream: StreamId) {
        let ids: Vec<u32> = self.stream(stream.0).ids.iter().copied().collect();
        for watch in ids {
            self.remove(watch);
        }
        let entry = self.streams.remove(stream.0 as usize);
        if entry.queued {
            self.queue.retain(|queued| *queued != stream.0);
        }
        if entry.asked {
            self.asked.retain(|asked| *asked != stream.0);
        }
        self.due.remove(&(entry.due_ns, stream.0));
    }

    /// Begins a watch and returns its id. `revision` is the store's, of a root not older than any
    /// that a turn has met; it belongs into the header of the answer, which the caller must send
    /// before the next turn.
    pub fn create(
        &mut self,
        stream: StreamId,
        create: &WatchCreate<'_>,
        revision: i64,
        now_ns: u64,
    ) -> Result<i64, WatchRefusal> {
        if create.start_revision < 0 {
            return Err(WatchRefusal::Compacted);
        }
        let interest = Interest::new(create)?;
        let bounds = self.config.bounds;
        if self.watches.len() >= bounds.watches
            || self.groups.key_bytes() + interest.bytes() > bounds.key_bytes
        {
            return Err(WatchRefusal::TooMany);
        }
        let id = self.choose_id(stream.0, create.watch_id)?;
        let group = self.groups.join(interest);
        if self.live == 0 {
            self.head = self.head.max(revision);
        }
        let future = create.start_revision > revision;
        let next = match create.start_revision {
            0 => revision + 1,
            start => start,
        };
        let watch = self.watches.insert(Watch {
            id,
            next,
            stream: stream.0,
            group,
            link: Link::default(),
            live: false,
            progress: create.progress_notify,
            quiet: true,
            future,
        });
        // Bounded by the bounds.
        let watch = watch as u32;
        let (seed, watches) = (self.config.seed, &self.watches);
        let rehash = |watch: &u32| hash(seed, watches[*watch as usize].id);
        let entry = &mut self.streams[stream.0 as usize];
        entry.ids.insert_unique(hash(seed, id), watch, rehash);
        if future {
            entry.future = entry.future.max(next);
        }
        if create.progress_notify {
            entry.progress += 1;
            if entry.due_ns == 0 {
                entry.due_ns = now_ns + entry.period_ns;
                self.due.insert((entry.due_ns, stream.0));
            }
        }
        if next > self.head {
            self.set_live(watch);
        } else {
            self.set_lagging(watch, next);
            self.wake(stream);
        }
        Ok(id)
    }

    fn choose_id(&mut self, stream: u32, wanted: i64) -> Result<i64, WatchRefusal> {
        if wanted != 0 {
            return match self.find(stream, wanted) {
                Some(_) => Err(WatchRefusal::DuplicateId),
                None => Ok(wanted),
            };
        }
        let mut id = self.stream(stream).next_id;
        while self.find(stream, id).is_some() {
            id += 1;
        }
        self.streams[stream as usize].next_id = id + 1;
        Ok(id)
    }

    fn find(&self, stream: u32, id: i64) -> Option<u32> {
        let same = |watch: &u32| self.watches[*watch as usize].id == id;
        let ids = &self.stream(stream).ids;
        ids.find(hash(self.config.seed, id), same).copied()
    }

    /// Ends a watch; says whether there was one.
    pub fn cancel(&mut self, stream: StreamId, id: i64) -> bool {
        let found = self.find(stream.0, id);
        if let Some(watch) = found {
            self.remove(watch);
        }
        found.is_some()
    }

    /// The client of a stream keeps up again.
    pub fn wake(&mut self, stream: StreamId) {
        let entry = &mut self.streams[stream.0 as usize];
        if entry.lagging > 0 && !entry.queued {
            entry.queued = true;
            self.queue.push_back(stream.0);
        }
    }

    /// As [`Watches::wake`], for every stream.
    pub fn wake_all(&mut self) {
        for (stream, entry) in &mut self.streams {
            if entry.lagging > 0 && !entry.queued {
                entry.queued = true;
                self.queue.push_back(stream as u32);
            }
        }
    }

    /// Whether a turn would find something to do that it could not finish before.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.asked.is_empty() || self.live > 0 && self.head < self.seen
    }

    // ---- for the turn

    pub(super) fn stream(&self, stream: u32) -> &Stream<O> {
        &self.streams[stream as usize]
    }

    pub(super) fn watch(&self, watch: u32) -> &Watch {
        &self.watches[watch as usize]
    }

    /// Puts a watch that is in no list among the live ones.
    pub(super) fn set_live(&mut self, watch: u32) {
        let entry = &mut self.watches[watch as usize];
        entry.live = true;
        let group = entry.group;
        self.groups.enlist(group, watch, &mut self.watches);
        self.live += 1;
    }

    /// Puts a watch that is in no list among its stream's laggards.
    pub(super) fn set_lagging(&mut self, watch: u32, next: i64) {
        let entry = &mut self.watches[watch as usize];
        entry.live = false;
        entry.next = next;
        let stream = &mut self.streams[entry.stream as usize];
        stream.laggards.push(watch, &mut self.watches);
        stream.lagging += 1;
    }

    /// Takes a watch out of its list.
    pub(super) fn unlist(&mut self, watch: u32) {
        let entry = self.watch(watch);
        let (live, group, stream) = (entry.live, entry.group, entry.stream);
        if live {
            self.groups.delist(group, watch, &mut self.watches);
            self.live -= 1;
        } else {
            let stream = &mut self.streams[stream as usize];
            stream.laggards.remove(watch, &mut self.watches);
            stream.lagging -= 1;
        }
    }

    /// Ends a watch.
    pub(super) fn remove(&mut self, watch: u32) {
        self.unlist(watch);
        let entry = self.watches.remove(watch as usize);
        let stream = &mut self.streams[entry.stream as usize];
        let hash = hash(self.config.seed, entry.id);
        let place = stream.ids.find_entry(hash, |other| *other == watch);
        place.expect("a watch is in its stream's table").remove();
        stream.progress -= usize::from(entry.progress);
        self.groups.leave(entry.group);
    }

    /// The live watch behind this one in its group's list.
    pub(super) fn after(&mut self, watch: u32) -> Option<u32> {
        let next = self.watches.link(watch).next;
        (next != super::lists::NONE).then_some(next)
    }
}

fn hash(seed: u64, id: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write_i64(id);
    hasher.finish()
}
