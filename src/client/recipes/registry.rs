//! A registry of services: who serves what, and where, now.

#![forbid(unsafe_code)]

use tokio::select;
use tokio::sync::{mpsc, oneshot};

use super::cache::Cache;
use super::session::Session;
use super::{RecipeError, compare, put_or_get};
use crate::api::CompareTarget;
use crate::client::async_client::Client;
use crate::client::error::ClientError;

/// A registry below a name: each instance of a service puts a key `name/service/instance` on a
/// lease of its own, and each who wants to call the service keeps a copy of its instances.
#[derive(Debug, Clone)]
pub struct Registry {
    client: Client,
    name: Vec<u8>,
}

/// An instance that is registered, until withdrawn or dropped. If its lease is lost, because the
/// server was away for longer than it lives, it is registered anew as soon as can be.
#[derive(Debug)]
#[must_use = "the instance is registered while this lives"]
pub struct Registration {
    asks: mpsc::Sender<Ask>,
}

#[derive(Debug)]
enum Ask {
    Update(Vec<u8>, oneshot::Sender<Result<(), RecipeError>>),
    Withdraw(oneshot::Sender<Result<(), ClientError>>),
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The instance's name.
    pub instance: Vec<u8>,
    /// What it says of itself: its address, and what else its callers need.
    pub value: Vec<u8>,
    /// The revision of its last change.
    pub revision: i64,
}

/// The instances of a service, as far as is known now.
#[derive(Debug)]
pub struct Endpoints {
    cache: Cache,
    folder: Vec<u8>,
}

impl Registry {
    /// The registry below that name.
    pub fn new(client: &Client, name: impl AsRef<[u8]>) -> Registry {
        Registry {
            client: client.clone(),
            name: name.as_ref().to_vec(),
        }
    }

    fn folder(&self, service: &[u8]) -> Vec<u8> {
        [&self.name[..], b"/", service, b"/"].concat()
    }

    /// Registers an instance, and returns when it is. Its lease is of `ttl` seconds: so long after
    /// it died it is listed no more. One that is there under the same name, as after a quick
    /// restart, is taken over.
    pub async fn register(
        &self,
        service: impl AsRef<[u8]>,
        instance: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: i64,
    ) -> Result<Registration, RecipeError> {
        let key = [&self.folder(service.as_ref())[..], instance.as_ref()].concat();
        let value = value.as_ref().to_vec();
        let session = Session::open(&self.client, ttl).await?;
        put(&session, &key, &value).await?;
        let (asks, asked) = mpsc::channel(1);
        tokio::spawn(keep(session, key, value, ttl, asked));
        Ok(Registration { asks })
    }

    /// The instances of a service; returns when they are known.
    pub async fn endpoints(&self, service: impl AsRef<[u8]>) -> Result<Endpoints, ClientError> {
        let folder = self.folder(service.as_ref());
        let cache = Cache::prefix(&self.client, &folder).await?;
        Ok(Endpoints { cache, folder })
    }
}

/// Puts the key on the session's lease. Each attempt expects the last change, so that one that is
/// late cannot undo a later one.
async fn put(session: &Session, key: &[u8], value: &[u8]) -> Result<(), RecipeError> {
    let (client, lease) = (session.client(), session.lease());
    let put = || async {
        loop {
            let found = client.get(key).await?.body;
            let there = |kv: &crate::api::OwnedKeyValue| kv.lease == lease && kv.value == value;
            if found.as_ref().is_some_and(there) {
                return Ok(());
            }
            let changed = found.map_or(0, |kv| kv.mod_revision);
            let unchanged = compare(key, CompareTarget::Mod(changed));
            let put = put_or_get(unchanged, key, value, lease);
            if client.txn(put).await?.body.succeeded {
                return Ok(());
            }
        }
    };
    session.persist(put).await
}

/// Keeps an instance registered until told otherwise, or until nobody is left to tell.
async fn keep(
    mut session: Session,
    key: Vec<u8>,
    mut value: Vec<u8>,
    ttl: i64,
    mut asked: mpsc::Receiver<Ask>,
) {
    loop {
        let ask = select! {
            ask = asked.recv() => ask,
            _ = session.lost() => {
                let client = session.client().clone();
                let anew = async {
                    loop {
                        if let Ok(session) = Session::open(&client, ttl).await
                            && put(&session, &key, &value).await.is_ok()
                        {
                            return session;
                        }
                        tokio::time::sleep(super::pause(8)).await;
                    }
                };
                select! {
                    anew = anew => {
                        session = anew;
                        continue;
                    }
                    // Taken only once the instance is registered anew, unless nobody asks any
                    // more.
                    () = gone(&asked) => None,
                }
            }
        };
        match ask {
            Some(Ask::Update(new, answer)) => {
                value = new;
                // Whoever asked may have given up.
                let _ = answer.send(put(&session, &key, &value).await);
            }
            Some(Ask::Withdraw(answer)) => {
                let _ = answer.send(session.close().await);
                return;
            }
            None => return,
        }
    }
}

async fn gone(asked: &mpsc::Receiver<Ask>) {
    while !asked.is_closed() {
        tokio::time::sleep(super::pause(8)).await;
    }
}

impl Registration {
    /// Changes what the instance says of itself. After an error of kind [`RecipeError::Lost`] the
    /// instance is registered anew, with the new value, as soon as can be.
    pub async fn update(&self, value: impl AsRef<[u8]>) -> Result<(), RecipeError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Update(value.as_ref().to_vec(), answer);
        // Only the end of the runtime ends the task before this.
        let ended = || RecipeError::Client(ClientError::Deadline);
        self.asks.send(ask).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Takes the instance from the registry, and returns when it is gone.
    pub async fn withdraw(self) -> Result<(), ClientError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.asks.send(Ask::Withdraw(answer)).await;
        asked.map_err(|_| ClientError::Deadline)?;
        answered.await.map_err(|_| ClientError::Deadline)?
    }
}

impl Endpoints {
    /// The instances that are registered, by name.
    pub fn list(&self) -> Vec<Endpoint> {
        let pairs = self.cache.pairs();
        let one = |kv: &std::sync::Arc<crate::api::OwnedKeyValue>| Endpoint {
            instance: kv.key[self.folder.len()..].to_vec(),
            value: kv.value.clone(),
            revision: kv.mod_revision,
        };
        pairs.iter().map(one).collect()
    }

    /// The last revision that changed the list, as far as is known here.
    pub fn changed_at(&self) -> i64 {
        self.cache.changed_at()
    }

    /// Waits until the list has changed after a revision; returns that of its last change.
    pub async fn changed(&self, after: i64) -> Result<i64, ClientError> {
        self.cache.changed(after).await
    }

    /// The copy behind it.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}
