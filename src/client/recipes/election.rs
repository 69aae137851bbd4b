//! Electing a leader, and knowing who it is.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::cache::Cache;
use super::line::Place;
use super::{RecipeError, folder, prefix_end};
use crate::api::{Compare, OwnedKeyValue, RangeRequest, SortOrder, SortTarget};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::LeaseLost;

/// An election by name: of those who stand for it, the one that came first leads.
///
/// What is said of a [`super::Lock`] holds for a leader, too: what it writes is to be fenced.
/// Keys are those of etcd's clients, so both may stand in one election.
#[derive(Debug, Clone)]
pub struct Election {
    client: Client,
    name: Vec<u8>,
    ttl: i64,
}

/// To lead, until resigned, dropped, or lost.
#[derive(Debug)]
#[must_use = "leadership lasts while this lives"]
pub struct Leadership {
    place: Place,
}

/// Follows who leads.
#[derive(Debug)]
pub struct Observer {
    cache: Cache,
    /// Key and change of the leader that was told last.
    told: Option<Option<(i64, i64)>>,
}

impl Election {
    /// The election of that name. Who stands for it has a lease of `ttl` seconds: so long after
    /// its leader died another one leads.
    pub fn new(client: &Client, name: impl AsRef<[u8]>, ttl: i64) -> Election {
        Election {
            client: client.clone(),
            name: name.as_ref().to_vec(),
            ttl,
        }
    }

    /// Stands for election, and waits until it is won. The value, an address perhaps, is what
    /// others are told. To drop the future is to stand no more.
    pub async fn campaign(&self, value: impl AsRef<[u8]>) -> Result<Leadership, RecipeError> {
        let place = Place::take(&self.client, &self.name, value.as_ref(), self.ttl).await?;
        place.wait().await?;
        Ok(Leadership { place })
    }

    /// The leader's key and value, if there is a leader. Its fence is `create_revision`.
    pub async fn leader(&self) -> Result<Option<OwnedKeyValue>, ClientError> {
        let folder = folder(&self.name);
        let first = RangeRequest {
            key: &folder,
            range_end: &prefix_end(&folder),
            limit: 1,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::Create,
            ..RangeRequest::default()
        };
        Ok(self.client.range(first).await?.body.kvs.pop())
    }

    /// Follows who leads, and what the leader proclaims.
    pub async fn observe(&self) -> Result<Observer, ClientError> {
        let cache = Cache::prefix(&self.client, folder(&self.name)).await?;
        Ok(Observer { cache, told: None })
    }
}

impl Leadership {
    /// Grows from leader to leader.
    pub fn fence(&self) -> i64 {
        self.place.number
    }

    /// The key that stands for the leadership; gone at the moment it is over.
    pub fn key(&self) -> &[u8] {
        &self.place.key
    }

    /// A condition for transactions: a write with it takes place only while this leads.
    pub fn held(&self) -> Compare<'_> {
        self.place.kept()
    }

    /// Changes the value that others are told; returns the revision of the change.
    pub async fn proclaim(&mut self, value: impl AsRef<[u8]>) -> Result<i64, RecipeError> {
        self.place.tell(value.as_ref()).await
    }

    /// Whether leadership is lost, as far as is known now; costs nothing to ask.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.place.session.is_lost()
    }

    /// Waits until leadership is lost.
    pub async fn lost(&self) -> LeaseLost {
        self.place.session.lost().await
    }

    /// Hands leadership on, and returns when it is over.
    pub async fn resign(self) -> Result<(), ClientError> {
        self.place.session.close().await
    }
}

impl Observer {
    /// The leader as far as is known now, without a question to the server.
    pub fn leader(&self) -> Option<Arc<OwnedKeyValue>> {
        let all = self.cache.pairs();
        all.into_iter().min_by_key(|kv| kv.create_revision)
    }

    /// Who leads, at once for the first time, and then each time that another one leads or
    /// proclaims something else; `None` while nobody does. Changes that follow fast may be told as
    /// one.
    pub async fn next(&mut self) -> Result<Option<Arc<OwnedKeyValue>>, RecipeError> {
        loop {
            let seen = self.cache.changed_at();
            let leader = self.leader();
            let now = leader
                .as_ref()
                .map(|kv| (kv.create_revision, kv.mod_revision));
            if self.told != Some(now) {
                self.told = Some(now);
                return Ok(leader);
            }
            self.cache.changed(seen).await?;
        }
    }
}
