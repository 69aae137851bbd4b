//! Following the state of an interval of keys.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::ear::refusal;
use super::{CacheChange, patiently};
use crate::api::{Error, EventKind, OwnedEvent, OwnedKeyValue, RangeRequest, WatchCreate};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::watch::{WatchEnd, WatchId, WatchNews, WatchStream};

/// Pairs are listed in pages of so many.
const PAGE: i64 = 1000;

/// The pairs of the interval at one revision.
#[derive(Debug, Default)]
pub(super) struct View {
    pub pairs: BTreeMap<Vec<u8>, Arc<OwnedKeyValue>>,
    /// They are as of this revision; 0 before the first list.
    pub revision: i64,
    /// The last revision at which they changed, as far as is known here.
    pub changed_at: i64,
}

/// A view that one changes and others read.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedView(Arc<RwLock<View>>);

impl SharedView {
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the state of an interval of keys: lists it once, and then changes it as a watch tells,
/// over reconnects. If history that it has not been told is compacted, it lists again and tells the
/// difference. So the state it holds is always that of one revision, each later than the one
/// before, and every change is told; what happened between two lists is told as one step.
///
/// It is pulled, like a [`WatchStream`]: nothing happens but inside [`Follower::next`].
/// [`super::Cache`] does that in a task.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    key: Vec<u8>,
    range_end: Vec<u8>,
    view: SharedView,
    stream: WatchStream,
    /// None: the state is to be listed.
    watch: Option<WatchId>,
}

/// A step from one state to a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerNews {
    /// The state is now that of this revision.
    pub revision: i64,
    /// In the order of history, or of keys if `listed`; may be empty.
    pub changes: Vec<CacheChange>,
    /// The state was listed, at first or because history was compacted: only the difference to
    /// the state before is told.
    pub listed: bool,
}

impl Follower {
    /// Follows an interval; as in [`RangeRequest`], a `range_end` that is empty stands for the one
    /// key. Asks for nothing yet.
    pub fn new(client: &Client, key: impl AsRef<[u8]>, range_end: impl AsRef<[u8]>) -> Follower {
        Follower {
            client: client.clone(),
            key: key.as_ref().to_vec(),
            range_end: range_end.as_ref().to_vec(),
            view: SharedView::default(),
            stream: client.watch_stream(),
            watch: None,
        }
    }

    pub(super) fn view(&self) -> SharedView {
        self.view.clone()
    }

    /// A pair of the state.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Arc<OwnedKeyValue>> {
        self.view.read().pairs.get(key.as_ref()).cloned()
    }

    /// All pairs of the state, by key.
    pub fn pairs(&self) -> Vec<Arc<OwnedKeyValue>> {
        self.view.read().pairs.values().cloned().collect()
    }

    /// Asks how far the state has come; see [`WatchStream::ask_progress`].
    pub fn ask_progress(&mut self) {
        self.stream.ask_progress();
    }

    /// Takes the next step; the first lists. It may be dropped at any await without loss, and
    /// called on after an error.
    pub async fn next(&mut self) -> Result<FollowerNews, ClientError> {
        loop {
            let Some(watch) = self.watch else {
                let (pairs, revision) = self.list().await?;
                self.watch = Some(self.stream.watch(&WatchCreate {
                    key: &self.key,
                    range_end: &self.range_end,
                    start_revision: revision + 1,
                    progress_notify: true,
                    ..WatchCreate::default()
                }));
                let changes = self.view.write().replace(pairs, revision);
                return Ok(FollowerNews {
                    revision,
                    changes,
                    listed: true,
                });
            };
            match self.stream.next().await? {
                WatchNews::Events { watches, events } if watches.contains(&watch) => {
                    let mut view = self.view.write();
                    let changes = view.apply(events);
                    return Ok(FollowerNews {
                        revision: view.revision,
                        changes,
                        listed: false,
                    });
                }
                WatchNews::Progress { watches, revision } if watches.contains(&watch) => {
                    let mut view = self.view.write();
                    view.revision = view.revision.max(revision);
                    return Ok(FollowerNews {
                        revision: view.revision,
                        changes: Vec::new(),
                        listed: false,
                    });
                }
                WatchNews::Ended { watch: ended, why } if ended == watch => {
                    self.watch = None;
                    if let WatchEnd::Refused { reason } = why {
                        return Err(refusal(reason));
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads the interval at one revision, page by page.
    async fn list(&self) -> Result<(Vec<OwnedKeyValue>, i64), ClientError> {
        let mut limit = PAGE;
        'anew: loop {
            let mut pairs: Vec<OwnedKeyValue> = Vec::new();
            let mut revision = 0;
            loop {
                let from = pairs.last().map(|kv| [&kv.key[..], b"\0"].concat());
                let page = || async {
                    let page = RangeRequest {
                        key: from.as_deref().unwrap_or(&self.key),
                        range_end: &self.range_end,
                        limit,
                        revision,
                        ..RangeRequest::default()
                    };
                    self.client.range(page).await
                };
                match patiently(self.client.deadline(), page).await {
                    Ok(answer) => {
                        if revision == 0 {
                            revision = answer.header.revision;
                        }
                        pairs.extend(answer.body.kvs);
                        if !answer.body.more {
                            return Ok((pairs, revision));
                        }
                    }
                    // Compacted under our feet.
                    Err(ClientError::Refused(Error::Compacted)) => continue 'anew,
                    Err(ClientError::Refused(Error::ResponseTooLarge)) if limit > 1 => limit /= 2,
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

impl View {
    fn apply(&mut self, events: Vec<OwnedEvent>) -> Vec<CacheChange> {
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            self.revision = event.kv.mod_revision;
            self.changed_at = self.revision;
            match event.kind {
                EventKind::Put => {
                    let pair = Arc::new(event.kv);
                    self.pairs.insert(pair.key.clone(), pair.clone());
                    changes.push(CacheChange::Put(pair));
                }
                EventKind::Delete => {
                    if let Some(before) = self.pairs.remove(&event.kv.key) {
                        changes.push(CacheChange::Deleted(before));
                    }
                }
            }
        }
        changes
    }

    fn replace(&mut self, pairs: Vec<OwnedKeyValue>, revision: i64) -> Vec<CacheChange> {
        let mut before = std::mem::take(&mut self.pairs);
        let mut changes = Vec::new();
        for pair in pairs {
            let pair = match before.remove(&pair.key) {
                Some(old) if old.mod_revision == pair.mod_revision => old,
                _ => {
                    let pair = Arc::new(pair);
                    changes.push(CacheChange::Put(pair.clone()));
                    pair
                }
            };
            self.pairs.insert(pair.key.clone(), pair);
        }
        changes.extend(before.into_values().map(CacheChange::Deleted));
        if !changes.is_empty() || self.revision == 0 {
            self.changed_at = revision;
        }
        self.revision = revision;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, mod_revision: i64) -> OwnedKeyValue {
        OwnedKeyValue {
            key: key.into(),
            mod_revision,
            ..OwnedKeyValue::default()
        }
    }

    #[test]
    fn a_new_list_tells_the_difference_alone() {
        let mut view = View::default();
        let put = |key, revision| CacheChange::Put(Arc::new(pair(key, revision)));
        let first = view.replace(vec![pair("a", 2), pair("b", 3), pair("c", 4)], 9);
        assert_eq!(first, [put("a", 2), put("b", 3), put("c", 4)]);
        let again = view.replace(vec![pair("a", 2), pair("b", 11), pair("d", 12)], 20);
        let gone = CacheChange::Deleted(Arc::new(pair("c", 4)));
        assert_eq!(again, [put("b", 11), put("d", 12), gone]);
        assert_eq!((view.revision, view.changed_at), (20, 20));
        let same = view.replace(vec![pair("a", 2), pair("b", 11), pair("d", 12)], 30);
        assert!(same.is_empty());
        assert_eq!((view.revision, view.changed_at), (30, 20));
    }
}
