//! How far watches have come, told in time or on request.

use super::Sink;
use super::registry::{StreamId, Watch, Watches};

impl<O: Copy> Watches<O> {
    /// Asks for a stream's progress. The next turn tells it if then all its watches are up to
    /// date; otherwise nothing is told, as in etcd, and the client asks again.
    pub fn ask_progress(&mut self, stream: StreamId) {
        let entry = &mut self.streams[stream.0 as usize];
        if !entry.asked {
            entry.asked = true;
            self.asked.push(stream.0);
        }
    }

    pub(super) fn answer_progress<S: Sink<O>>(&mut self, sink: &mut S) {
        if self.asked.is_empty() || self.live > 0 && self.head < self.seen {
            // Who asked may know of revisions that the head has yet to reach.
            return;
        }
        for stream in std::mem::take(&mut self.asked) {
            self.streams[stream as usize].asked = false;
            let entry = self.stream(stream);
            let all = entry.lagging == 0
                && !entry.ids.is_empty()
                && (entry.future <= self.head
                    || entry.ids.iter().all(|at| self.is_current(self.watch(*at))));
            // Told at the next time of asking, if the client does not keep up.
            if all && sink.room(entry.owner) > 0 {
                sink.progress(entry.owner, &[], self.head);
            }
        }
    }

    /// Whether everything up to the head has been told to a watch, and it began no later.
    fn is_current(&self, watch: &Watch) -> bool {
        let began = match watch.future {
            true => watch.next <= self.head,
            false => watch.next <= self.head + 1,
        };
        watch.live && began
    }

    /// Tells the watches whose time has come, and which were told nothing since the last time,
    /// how far they have come.
    pub fn tick<S: Sink<O>>(&mut self, now_ns: u64, sink: &mut S) {
        while let Some(&(due_ns, stream)) = self.due.first()
            && due_ns <= now_ns
        {
            self.due.remove(&(due_ns, stream));
            if self.stream(stream).progress == 0 {
                self.streams[stream as usize].due_ns = 0;
                continue;
            }
            let entry = &mut self.streams[stream as usize];
            entry.due_ns = now_ns + entry.period_ns.max(1);
            self.due.insert((entry.due_ns, stream));
            self.tell_quiet(stream, sink);
        }
    }

    fn tell_quiet<S: Sink<O>>(&mut self, stream: u32, sink: &mut S) {
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        for at in &self.stream(stream).ids {
            let watch = self.watch(*at);
            if watch.progress && watch.quiet && self.is_current(watch) {
                ids.push(watch.id);
            }
        }
        let watches = &mut self.watches;
        for at in &self.streams[stream as usize].ids {
            watches[*at as usize].quiet = true;
        }
        ids.sort_unstable();
        let owner = self.stream(stream).owner;
        if !ids.is_empty() && sink.room(owner) > 0 {
            sink.progress(owner, &ids, self.head);
        }
        self.ids = ids;
    }
}
