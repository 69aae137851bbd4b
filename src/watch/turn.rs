//! One turn: the head goes on, then the laggards, then progress is told.

use super::registry::{StreamId, Watches};
use super::slice::{self, Budget, Read, Slice};
use super::{Batch, Sink, bytes_of};
use crate::api::{Event, WatchRefusal};
use crate::limits;
use quoin_storage::mvcc::{self, Error, Revision, View};
use quoin_storage::tree::TreeRead;
use std::collections::BTreeSet;

/// What became of events for watches of one stream.
enum Said {
    Yes,
    /// The client does not keep up.
    NoRoom,
    /// It does, but so much at once is not for it now.
    TooMuch,
    TooLarge,
}

impl<O: Copy> Watches<O> {
    /// Tells what the root of `view` has new, within the bounds of a turn; if
    /// [`Watches::has_work`], there is more to tell. An error names stored data that cannot be
    /// trusted; whoever would have been told of it has been told that its watch is over.
    pub fn turn<T: TreeRead, S: Sink<O>>(
        &mut self,
        view: &View<'_, T>,
        sink: &mut S,
    ) -> Result<(), Error> {
        self.seen = self.seen.max(view.horizon().revision);
        let advanced = self.advance(view, sink);
        let caught_up = self.catch_up(view, sink);
        self.answer_progress(sink);
        advanced.and(caught_up)
    }

    // ---- live watches

    fn advance<T: TreeRead, S: Sink<O>>(
        &mut self,
        view: &View<'_, T>,
        sink: &mut S,
    ) -> Result<(), Error> {
        let horizon = view.horizon();
        if self.live == 0 {
            self.head = self.head.max(horizon.revision);
        }
        if self.head >= horizon.revision {
            return Ok(());
        }
        if self.head + 1 < horizon.kept {
            self.fall_behind(horizon.compacted);
            return Ok(());
        }
        let budget = Budget {
            events: limits::WATCH_EVENTS_PER_TURN,
            bytes: limits::WATCH_BYTES_PER_TURN,
        };
        let from = self.head + 1;
        let told = match slice::read(view, from, true, budget) {
            Ok(Read::Slice(slice)) => {
                self.head = slice.through;
                self.show(view, &slice, sink)
            }
            Ok(Read::Oversized(at)) => {
                self.head = at;
                self.end_live_wanting(view, at, sink)
            }
            Err(error) => Err(error),
        };
        if told.is_err() {
            // Which of them would have been told cannot be known.
            self.head = horizon.revision;
            self.end_live(sink);
        }
        told
    }

    /// A compaction has overtaken the head: who began no later than it has missed something.
    fn fall_behind(&mut self, compacted: i64) {
        let next = self.head + 1;
        let missed: Vec<(u32, i64)> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.live && watch.next < compacted)
            .map(|(watch, entry)| (watch as u32, entry.next.max(next)))
            .collect();
        for (watch, next) in missed {
            self.lag(watch, next);
            self.wake(StreamId(self.watch(watch).stream));
        }
        self.head = compacted - 1;
    }

    /// Moves a live watch to the laggards.
    fn lag(&mut self, watch: u32, next: i64) {
        self.unlist(watch);
        self.set_lagging(watch, next);
    }

    /// Tells live watches of a slice.
    fn show<'v, T: TreeRead, S: Sink<O>>(
        &mut self,
        view: &View<'v, T>,
        slice: &Slice<'v>,
        sink: &mut S,
    ) -> Result<(), Error> {
        let mut wanted: Vec<(u32, u32)> = Vec::new();
        let events = slice.events.iter();
        let events = events.map(|event| (event.key, event.tombstone));
        self.groups
            .wanting_each(events, &mut |group, at| wanted.push((group, at)));
        // By group; the events of each stay in their order.
        wanted.sort_by_key(|(group, _)| *group);
        let mut batch: Vec<Event<'v>> = Vec::new();
        for wanted in wanted.chunk_by(|a, b| a.0 == b.0) {
            let group = wanted[0].0;
            let prev_kv = self.groups.interest(group).prev_kv();
            batch.clear();
            for (_, at) in wanted {
                batch.push(slice::told(view, &slice.events[*at as usize], prev_kv)?);
            }
            self.show_group(group, &batch, sink);
        }
        Ok(())
    }

    /// Tells the live watches of a group of events, at least one.
    fn show_group<S: Sink<O>>(&mut self, group: u32, events: &[Event<'_>], sink: &mut S) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let (first, last) = (first.kv.mod_revision, last.kv.mod_revision);
        let fragment = self.groups.interest(group).fragment();
        let mut members = std::mem::take(&mut self.members);
        let mut late = Vec::new();
        members.clear();
        let mut at = self.groups.live(group).first();
        while let Some(watch) = at {
            let entry = self.watch(watch);
            if entry.next <= first {
                members.push((entry.stream, watch));
            } else if entry.next <= last {
                late.push((entry.stream, watch));
            }
            at = self.after(watch);
        }
        members.sort_by_key(|(stream, _)| *stream);
        let batch = Batch {
            events,
            revision: last,
            fragment,
            bytes: bytes_of(events),
        };
        sink.next_batch();
        for members in members.chunk_by(|a, b| a.0 == b.0) {
            self.show_members(members, &batch, sink);
        }
        // Watches that begin inside this slice.
        for member in late {
            let next = self.watch(member.1).next;
            let from = events.partition_point(|event| event.kv.mod_revision < next);
            let events = &events[from..];
            let bytes = bytes_of(events);
            sink.next_batch();
            let batch = Batch {
                events,
                bytes,
                ..batch
            };
            self.show_members(&[member], &batch, sink);
        }
        self.members = members;
    }

    fn show_members<S: Sink<O>>(
        &mut self,
        members: &[(u32, u32)],
        batch: &Batch<'_>,
        sink: &mut S,
    ) {
        match self.say(members, batch, sink) {
            Said::Yes => {}
            said @ (Said::NoRoom | Said::TooMuch) => {
                let next = batch.events[0].kv.mod_revision;
                for (_, watch) in members {
                    self.lag(*watch, next);
                }
                // What is too much at once is read again in slices that fit.
                if matches!(said, Said::TooMuch) {
                    self.wake(StreamId(members[0].0));
                }
            }
            Said::TooLarge => self.end(members, WatchRefusal::TooLarge, sink),
        }
    }

    /// Says events to watches of one stream.
    fn say<S: Sink<O>>(&mut self, members: &[(u32, u32)], batch: &Batch<'_>, sink: &mut S) -> Said {
        let owner = self.stream(members[0].0).owner;
        let room = sink.room(owner);
        if room == 0 {
            return Said::NoRoom;
        }
        if room < batch.bytes {
            return Said::TooMuch;
        }
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        for (_, watch) in members {
            let entry = &mut self.watches[*watch as usize];
            entry.quiet = false;
            ids.push(entry.id);
        }
        let said = sink.events(owner, &ids, batch);
        self.ids = ids;
        match said {
            Ok(()) => Said::Yes,
            Err(super::TooLarge) => Said::TooLarge,
        }
    }

    fn end<S: Sink<O>>(&mut self, members: &[(u32, u32)], why: WatchRefusal, sink: &mut S) {
        for (stream, watch) in members {
            let (owner, id) = (self.stream(*stream).owner, self.watch(*watch).id);
            sink.ended(owner, id, why);
            self.remove(*watch);
        }
    }

    /// Ends every live watch.
    fn end_live<S: Sink<O>>(&mut self, sink: &mut S) {
        let live = self.watches.iter().filter(|(_, watch)| watch.live);
        let live: Vec<_> = live.map(|(at, watch)| (watch.stream, at as u32)).collect();
        self.end(&live, WatchRefusal::Corrupt, sink);
    }

    /// Ends the live watches that want an event of a revision that is too large to be told.
    fn end_live_wanting<T: TreeRead, S: Sink<O>>(
        &mut self,
        view: &View<'_, T>,
        revision: i64,
        sink: &mut S,
    ) -> Result<(), Error> {
        let mut wanting = BTreeSet::new();
        view.kept_events(Revision::first(revision), &mut |event| {
            if event.revision.main == revision {
                let mut want = |group| {
                    wanting.insert(group);
                };
                self.groups.wanting(event.key, event.tombstone, &mut want);
            }
            Ok(event.revision.main == revision)
        })?;
        let live = self.watches.iter().filter(|(_, watch)| {
            watch.live && watch.next <= revision && wanting.contains(&watch.group)
        });
        let live: Vec<_> = live.map(|(at, watch)| (watch.stream, at as u32)).collect();
        self.end(&live, WatchRefusal::TooLarge, sink);
        Ok(())
    }

    // ---- laggards

    /// Goes round the streams whose laggards may go on.
    fn catch_up<T: TreeRead, S: Sink<O>>(
        &mut self,
        view: &View<'_, T>,
        sink: &mut S,
    ) -> Result<(), Error> {
        let mut left = limits::WATCH_EVENTS_PER_TURN;
        let mut result = Ok(());
        while left > 0
            && let Some(stream) = self.queue.pop_front()
        {
            self.streams[stream as usize].queued = false;
            let room = sink.room(self.stream(stream).owner);
            if room == 0 {
                // It is woken when there is.
                continue;
            }
            let budget = Budget {
                events: left,
                bytes: room.min(limits::WATCH_BYTES_PER_SCAN),
            };
            match self.catch_up_stream(stream, view, sink, budget) {
                // A read costs something even if it finds nothing.
                Ok(cost) => left = left.saturating_sub(cost + limits::WATCH_SCAN_COST),
                Err(error) => {
                    left = 0;
                    result = Err(error);
                }
            }
            self.wake(StreamId(stream));
        }
        result
    }

    /// Reads on for some laggards of a stream; returns what it cost of the turn, in events.
    fn catch_up_stream<T: TreeRead, S: Sink<O>>(
        &mut self,
        stream: u32,
        view: &View<'_, T>,
        sink: &mut S,
        budget: Budget,
    ) -> Result<usize, Error> {
        let horizon = view.horizon();
        let mut group = self.take_laggards(stream, horizon.compacted, sink);
        let Some(from) = group.first().map(|watch| self.watch(*watch).next) else {
            return Ok(0);
        };
        let read = match from > horizon.revision {
            true => Ok(Read::Slice(Slice {
                events: Vec::new(),
                through: from - 1,
                bytes: 0,
            })),
            false => slice::read(view, from, false, budget),
        };
        let told = match read {
            Ok(Read::Slice(slice)) => {
                // Those that are further on wait until the others have come to them.
                group.retain(|watch| {
                    let next = self.watch(*watch).next;
                    (from..=slice.through + 1).contains(&next)
                });
                self.tell_laggards(stream, &mut group, view, &slice, sink)
            }
            Ok(Read::Oversized(at)) => {
                group.retain(|watch| self.watch(*watch).next == at);
                self.end_laggards_wanting(&group, view, at, sink)
            }
            Err(error) => Err(error),
        };
        if told.is_err() {
            let members: Vec<_> = group
                .iter()
                .filter(|watch| self.watches.contains(**watch as usize))
                .map(|watch| (stream, *watch))
                .collect();
            self.end(&members, WatchRefusal::Corrupt, sink);
        }
        told
    }

    /// The laggards of a stream whose turn it is; those that a compaction has overtaken are ended.
    fn take_laggards<S: Sink<O>>(&mut self, stream: u32, compacted: i64, sink: &mut S) -> Vec<u32> {
        let owner = self.stream(stream).owner;
        let mut taken = Vec::new();
        let mut at = self.stream(stream).laggards.first();
        for _ in 0..limits::WATCH_LAGGARDS_PER_SCAN {
            let Some(watch) = at else { break };
            at = self.after(watch);
            if self.watch(watch).next < compacted {
                sink.compacted(owner, self.watch(watch).id, compacted);
                self.remove(watch);
            } else {
                taken.push(watch);
            }
        }
        taken
    }

    /// Tells laggards of what they want of a slice; they go on behind it.
    fn tell_laggards<'v, T: TreeRead, S: Sink<O>>(
        &mut self,
        stream: u32,
        laggards: &mut [u32],
        view: &View<'v, T>,
        slice: &Slice<'v>,
        sink: &mut S,
    ) -> Result<usize, Error> {
        let place = |watches: &Watches<O>, watch: u32| {
            let entry = watches.watch(watch);
            (entry.group, entry.next)
        };
        laggards.sort_by_key(|watch| place(self, *watch));
        let alike: Vec<&[u32]> = laggards
            .chunk_by(|a, b| place(self, *a) == place(self, *b))
            .collect();
        for alike in alike {
            let (group, next) = place(self, alike[0]);
            let batch = self.wanted(group, next, view, slice)?;
            if !batch.is_empty() {
                let members: Vec<_> = alike.iter().map(|watch| (stream, *watch)).collect();
                let batch = Batch {
                    events: &batch,
                    revision: view.horizon().revision,
                    fragment: self.groups.interest(group).fragment(),
                    // The slice was read to fit.
                    bytes: 0,
                };
                sink.next_batch();
                match self.say(&members, &batch, sink) {
                    Said::Yes => {}
                    Said::NoRoom | Said::TooMuch => break,
                    Said::TooLarge => {
                        self.end(&members, WatchRefusal::TooLarge, sink);
                        continue;
                    }
                }
            }
            for watch in alike {
                self.go_on(*watch, slice.through + 1);
            }
        }
        // Long events cost what as many bytes of short ones do.
        const USUAL: usize = limits::WATCH_BYTES_PER_TURN / limits::WATCH_EVENTS_PER_TURN;
        Ok(slice.events.len().max(slice.bytes / USUAL))
    }

    /// The events of a slice that a group wants from a revision on.
    fn wanted<'v, T: TreeRead>(
        &self,
        group: u32,
        next: i64,
        view: &View<'v, T>,
        slice: &Slice<'v>,
    ) -> Result<Vec<Event<'v>>, Error> {
        let interest = self.groups.interest(group);
        let wants = |event: &&mvcc::Event<'_>| {
            event.revision.main >= next && interest.wants(event.key, event.tombstone)
        };
        let wanted = slice.events.iter().filter(wants);
        wanted
            .map(|event| slice::told(view, event, interest.prev_kv()))
            .collect()
    }

    /// A laggard has been told everything before `next`.
    fn go_on(&mut self, watch: u32, next: i64) {
        self.unlist(watch);
        if next > self.head {
            self.watches[watch as usize].next = next;
            self.set_live(watch);
        } else {
            // Behind the other laggards.
            self.set_lagging(watch, next);
        }
    }

    fn end_laggards_wanting<T: TreeRead, S: Sink<O>>(
        &mut self,
        laggards: &[u32],
        view: &View<'_, T>,
        revision: i64,
        sink: &mut S,
    ) -> Result<usize, Error> {
        let mut ended = BTreeSet::new();
        view.events(Revision::first(revision), &mut |event| {
            for watch in laggards {
                let interest = self.groups.interest(self.watch(*watch).group);
                if event.revision.main == revision && interest.wants(event.key, event.tombstone) {
                    ended.insert(*watch);
                }
            }
            Ok(event.revision.main == revision)
        })?;
        for watch in laggards {
            match ended.contains(watch) {
                true => {
                    let members = [(self.watch(*watch).stream, *watch)];
                    self.end(&members, WatchRefusal::TooLarge, sink);
                }
                false => self.go_on(*watch, revision + 1),
            }
        }
        Ok(limits::WATCH_EVENTS_PER_TURN)
    }
}
