//! A copy of an interval of keys that watches keep fresh.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::follow::{Follower, SharedView};
use super::{may_pass, patiently, pause, prefix_end};
use crate::api::{OwnedKeyValue, RangeRequest};
use crate::client::async_client::Client;
use crate::client::error::ClientError;

/// One pair's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheChange {
    /// It was put, and is now so.
    Put(Arc<OwnedKeyValue>),
    /// It was deleted, and was so before.
    Deleted(Arc<OwnedKeyValue>),
}

/// A copy in memory of an interval of keys, kept fresh by a task for as long as this lives. Reading
/// it costs no request. What it shows is always the state of one revision, a little late; each
/// view is later than the one before, over reconnects and compactions.
///
/// [`Cache::at_least`] waits for what one has just written, [`Cache::fresh`] for what anybody had
/// written before the call.
#[derive(Debug)]
pub struct Cache {
    client: Client,
    view: SharedView,
    /// Told the view's revision and that of its last change.
    told: watch::Receiver<(i64, i64)>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Rung when somebody waits for a revision.
    ask: Notify,
    trouble: Mutex<Option<ClientError>>,
}

impl Shared {
    fn trouble(&self, trouble: Option<ClientError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The server passes a question about progress over in silence unless the watch is up to date.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Cache {
    /// Copies an interval; a `range_end` that is empty stands for the one key. Returns when the
    /// copy is whole.
    pub async fn open(
        client: &Client,
        key: impl AsRef<[u8]>,
        range_end: impl AsRef<[u8]>,
    ) -> Result<Cache, ClientError> {
        let mut follower = Follower::new(client, key, range_end);
        let view = follower.view();
        let revision = follower.next().await?.revision;
        let (tell, told) = watch::channel((revision, revision));
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(follow(follower, tell, shared.clone()));
        Ok(Cache {
            client: client.clone(),
            view,
            told,
            shared,
            task,
        })
    }

    /// Copies all keys that begin so.
    pub async fn prefix(client: &Client, prefix: impl AsRef<[u8]>) -> Result<Cache, ClientError> {
        let end = prefix_end(prefix.as_ref());
        Cache::open(client, prefix, end).await
    }

    /// A pair; `None` if the key does not exist.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Arc<OwnedKeyValue>> {
        self.view.read().pairs.get(key.as_ref()).cloned()
    }

    /// All pairs, by key, as of one revision.
    pub fn pairs(&self) -> Vec<Arc<OwnedKeyValue>> {
        self.view.read().pairs.values().cloned().collect()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.view.read().pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The copy is as of this revision.
    pub fn revision(&self) -> i64 {
        self.view.read().revision
    }

    /// The last revision that changed it, as far as is known here.
    pub fn changed_at(&self) -> i64 {
        self.view.read().changed_at
    }

    /// What keeps it from being fresh, if anything does: it goes on trying.
    pub fn trouble(&self) -> Option<ClientError> {
        let trouble = self.shared.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has changed after a revision; returns the revision of its last change.
    pub async fn changed(&self, after: i64) -> Result<i64, ClientError> {
        let mut told = self.told.clone();
        let changed = told.wait_for(|(_, changed_at)| *changed_at > after).await;
        changed
            .map(|told| told.1)
            .map_err(|_| ClientError::Deadline)
    }

    /// Waits until it is as of a revision or a later one: that of a write's answer, to read what
    /// one has written.
    pub async fn at_least(&self, revision: i64) -> Result<(), ClientError> {
        let mut told = self.told.clone();
        loop {
            let reached = told.wait_for(|(now, _)| *now >= revision);
            match timeout(Duration::ZERO, reached).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err(ClientError::Deadline),
                Err(_) => self.shared.ask.notify_one(),
            }
            // Either the answer comes, or it is time to ask again.
            let _ = timeout(ASK_AGAIN, told.wait_for(|(now, _)| *now >= revision)).await;
        }
    }

    /// Waits until it shows everything that was acknowledged before this call: reading it is then
    /// linearizable. Costs one small read.
    pub async fn fresh(&self) -> Result<(), ClientError> {
        let now = || async {
            let look = RangeRequest {
                key: b"\0",
                ..RangeRequest::default()
            };
            self.client.range(look).await
        };
        let now = patiently(self.client.deadline(), now).await?;
        self.at_least(now.header.revision).await
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut follower: Follower, tell: watch::Sender<(i64, i64)>, shared: Arc<Shared>) {
    let view = follower.view();
    let mut failures = 0;
    loop {
        let news = select! {
            news = follower.next() => news,
            () = shared.ask.notified() => {
                follower.ask_progress();
                continue;
            }
        };
        match news {
            Ok(_) => {
                failures = 0;
                shared.trouble(None);
                let now = {
                    let view = view.read();
                    (view.revision, view.changed_at)
                };
                // The cache holds a receiver; once it is gone, this task is too.
                let _ = tell.send(now);
            }
            Err(error) => {
                // What will not pass may be put right by an operator.
                failures = match may_pass(&error) {
                    true => failures + 1,
                    false => u32::MAX / 2,
                };
                shared.trouble(Some(error));
                tokio::time::sleep(pause(failures)).await;
            }
        }
    }
}
