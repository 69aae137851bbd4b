//! The watches of a stream, without a socket: what to ask of a new connection, and what the
//! server's words mean.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};

use crate::api::{OwnedEvent, WatchCreate, WatchRequest};
use crate::client::error::ClientError;
use crate::client::raw::{RawReply, Receiver};
use crate::wire::{self, Reply, Unencodable};

/// The one stream of a connection.
const STREAM: u64 = 1;
/// The id of pings.
const PING: u64 = 2;
/// Watches that are asked for before the server has answered: few enough that both sides never
/// wait for each other.
const ASKED_MAX: usize = 256;

/// A watch of a stream; the same over reconnects, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(i64);

/// What a stream of watches has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchNews {
    /// A watch has begun: it will hear of every event after this revision, or from its start
    /// revision on.
    Created {
        /// Which.
        watch: WatchId,
        /// The store's revision.
        revision: i64,
    },
    /// Something happened. Events of one revision always come together.
    Events {
        /// The watches that want all of these events.
        watches: Vec<WatchId>,
        /// In the order of history; never empty.
        events: Vec<OwnedEvent>,
    },
    /// Everything up to a revision has been told to some watches.
    Progress {
        /// Which.
        watches: Vec<WatchId>,
        /// See above.
        revision: i64,
    },
    /// A watch is over; it is told nothing more.
    Ended {
        /// Which.
        watch: WatchId,
        /// Why.
        why: WatchEnd,
    },
}

/// Why a watch is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEnd {
    /// It was cancelled.
    Cancelled,
    /// History that it has not been told was compacted. What holds now must be read; a new watch
    /// may begin at this revision or later.
    Compacted {
        /// The oldest revision to begin at.
        revision: i64,
    },
    /// The server refused or ended it, and says why.
    Refused {
        /// The reason.
        reason: String,
    },
}

/// What was asked for.
#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    range_end: Vec<u8>,
    /// `key`, `range_end` and `start_revision` aside.
    create: WatchCreate<'static>,
    /// The first revision that has not been told; 0 until the server has said where it begins.
    next: i64,
    /// The server has answered on some connection.
    created: bool,
    /// The beginning of a revision whose rest is on its way.
    parts: Vec<OwnedEvent>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    entries: BTreeMap<i64, Entry>,
    last_id: i64,
    /// To be asked for on this connection.
    to_ask: VecDeque<i64>,
    /// Asked for, in this order, and not answered.
    asked: VecDeque<i64>,
    /// To be cancelled.
    to_cancel: Vec<i64>,
    ask_progress: bool,
    news: VecDeque<WatchNews>,
    /// Bytes of parts.
    held: usize,
}

impl State {
    pub fn add(&mut self, create: &WatchCreate<'_>) -> WatchId {
        self.last_id += 1;
        let id = self.last_id;
        let entry = Entry {
            key: create.key.to_vec(),
            range_end: create.range_end.to_vec(),
            next: create.start_revision,
            create: WatchCreate {
                key: &[],
                range_end: &[],
                start_revision: 0,
                watch_id: id,
                // Parts are put together here.
                fragment: true,
                ..*create
            },
            created: false,
            parts: Vec::new(),
        };
        self.entries.insert(id, entry);
        self.to_ask.push_back(id);
        WatchId(id)
    }

    pub fn cancel(&mut self, watch: WatchId) {
        if !self.entries.contains_key(&watch.0) {
            return;
        }
        if let Some(at) = self.to_ask.iter().position(|id| *id == watch.0) {
            self.to_ask.remove(at);
            self.end(watch.0, WatchEnd::Cancelled);
        } else {
            self.to_cancel.push(watch.0);
        }
    }

    pub fn ask_progress(&mut self) {
        self.ask_progress = true;
    }

    /// A connection has been opened: everything is to be asked for anew.
    pub fn connected(&mut self) {
        let cancelled = std::mem::take(&mut self.to_cancel);
        for id in cancelled {
            self.end(id, WatchEnd::Cancelled);
        }
        self.asked.clear();
        self.to_ask = self.entries.keys().copied().collect();
        self.held = 0;
        for entry in self.entries.values_mut() {
            entry.parts = Vec::new();
        }
    }

    /// Appends what is to be sent now.
    pub fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        while self.asked.len() < ASKED_MAX
            && let Some(id) = self.to_ask.pop_front()
        {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let create = WatchCreate {
                key: &entry.key,
                range_end: &entry.range_end,
                start_revision: entry.next,
                ..entry.create
            };
            self.asked.push_back(id);
            wire::encode_watch(&WatchRequest::Create(create), STREAM, out)?;
        }
        // Behind the creation, and answered behind it.
        let to_ask = &self.to_ask;
        let cancel = self.to_cancel.extract_if(.., |id| !to_ask.contains(id));
        for watch_id in cancel.collect::<Vec<_>>() {
            wire::encode_watch(&WatchRequest::Cancel { watch_id }, STREAM, out)?;
        }
        if self.ask_progress && self.to_ask.is_empty() {
            self.ask_progress = false;
            wire::encode_watch(&WatchRequest::Progress, STREAM, out)?;
        }
        Ok(())
    }

    pub fn ping(&self, out: &mut Vec<u8>) {
        wire::encode_ping(PING, out);
    }

    pub fn next_news(&mut self) -> Option<WatchNews> {
        self.news.pop_front()
    }

    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn end(&mut self, id: i64, why: WatchEnd) {
        if let Some(entry) = self.entries.remove(&id) {
            self.held -= bytes(&entry.parts);
            let watch = WatchId(id);
            self.news.push_back(WatchNews::Ended { watch, why });
        }
    }

    /// Takes what has been received until there is news; says whether there was anything.
    pub fn take(&mut self, receiver: &mut Receiver, held_max: usize) -> Result<bool, ClientError> {
        let mut heard = false;
        while !self.has_news()
            && let Some(reply) = receiver.next_reply()?
        {
            heard = true;
            self.hear(&reply, held_max)?;
        }
        Ok(heard)
    }

    /// Takes what the server said. Parts of a revision may take `held_max` bytes.
    fn hear(&mut self, reply: &RawReply<'_>, held_max: usize) -> Result<(), ClientError> {
        match &reply.body {
            Reply::Ping if reply.id == PING => return Ok(()),
            Reply::Refused(refusal) => {
                return Err(match refusal.error() {
                    Some(error) => ClientError::Refused(error),
                    None => ClientError::RefusedOther {
                        code: refusal.code,
                        message: refusal.message.to_owned(),
                    },
                });
            }
            _ if reply.id != STREAM => return Err(ClientError::WrongReply),
            _ => {}
        }
        match &reply.body {
            Reply::WatchCreated { watch_id, reason } => {
                let id = self.asked.pop_front().ok_or(ClientError::WrongReply)?;
                self.created(id, *watch_id, reason, reply.header.revision)
            }
            Reply::WatchEvents {
                watch_ids,
                events,
                fragment,
            } => self.events(
                watch_ids.iter().collect(),
                events.to_vec(),
                *fragment,
                held_max,
            ),
            Reply::WatchProgress { watch_ids } => {
                let ids: Vec<i64> = match watch_ids.is_empty() {
                    true => self.entries.keys().copied().collect(),
                    false => watch_ids.iter().collect(),
                };
                self.progress(ids, reply.header.revision);
                Ok(())
            }
            Reply::WatchCancelled {
                watch_id,
                compact_revision,
                reason,
            } => {
                let why = match (*compact_revision, *reason) {
                    (0, "") => WatchEnd::Cancelled,
                    (0, reason) => WatchEnd::Refused {
                        reason: reason.to_owned(),
                    },
                    (revision, _) => WatchEnd::Compacted { revision },
                };
                self.end(*watch_id, why);
                Ok(())
            }
            _ => Err(ClientError::WrongReply),
        }
    }

    fn created(
        &mut self,
        id: i64,
        said: i64,
        reason: &str,
        revision: i64,
    ) -> Result<(), ClientError> {
        if said == -1 {
            let reason = reason.to_owned();
            self.end(id, WatchEnd::Refused { reason });
            return Ok(());
        }
        if said != id {
            return Err(ClientError::WrongReply);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            if entry.next == 0 {
                entry.next = revision + 1;
            }
            if !std::mem::replace(&mut entry.created, true) {
                let watch = WatchId(id);
                self.news.push_back(WatchNews::Created { watch, revision });
            }
        }
        Ok(())
    }

    fn events(
        &mut self,
        ids: Vec<i64>,
        events: Vec<OwnedEvent>,
        fragment: bool,
        held_max: usize,
    ) -> Result<(), ClientError> {
        let Some(last) = events.last().map(|event| event.kv.mod_revision) else {
            return Err(ClientError::WrongReply);
        };
        let first = events[0].kv.mod_revision;
        // Watches that were cancelled meanwhile are told nothing more.
        let ids = ids.into_iter().filter(|id| self.entries.contains_key(id));
        let ids: Vec<i64> = ids.collect();
        if fragment {
            for id in &ids {
                self.held += bytes(&events);
                if self.held > held_max {
                    return Err(ClientError::Refused(crate::api::Error::ResponseTooLarge));
                }
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.parts.extend(events.iter().cloned());
                }
            }
            return Ok(());
        }
        let (mut whole, mut others) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if entry.next > first {
                return Err(ClientError::WrongReply);
            }
            entry.next = last + 1;
            let mut parts = std::mem::take(&mut entry.parts);
            if parts.is_empty() {
                whole.push(WatchId(id));
            } else {
                self.held -= bytes(&parts);
                parts.extend(events.iter().cloned());
                others.push((WatchId(id), parts));
            }
        }
        for (watch, events) in others {
            let watches = vec![watch];
            self.news.push_back(WatchNews::Events { watches, events });
        }
        if !whole.is_empty() {
            let watches = whole;
            self.news.push_back(WatchNews::Events { watches, events });
        }
        Ok(())
    }

    fn progress(&mut self, ids: Vec<i64>, revision: i64) {
        let mut watches = Vec::new();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.next = entry.next.max(revision + 1);
                watches.push(WatchId(id));
            }
        }
        if !watches.is_empty() {
            let news = WatchNews::Progress { watches, revision };
            self.news.push_back(news);
        }
    }
}

fn bytes(events: &[OwnedEvent]) -> usize {
    let pair = |kv: &crate::api::OwnedKeyValue| kv.key.len() + kv.value.len();
    let one = |event: &OwnedEvent| {
        size_of::<OwnedEvent>() + pair(&event.kv) + event.prev_kv.as_ref().map_or(0, pair)
    };
    events.iter().map(one).sum()
}
