//! A queue that many fill and many empty.

#![forbid(unsafe_code)]

use std::future::ready;

use super::ear::Ear;
use super::lock::Lock;
use super::transactor::{Transaction, Transactor};
use super::{RecipeError, patiently, prefix_end};
use crate::api::RangeRequest;
use crate::client::async_client::Client;
use crate::client::error::ClientError;

/// A queue by name. What one call put in before another call began comes out before it, within a
/// priority; and comes out once, whatever becomes of connections and servers.
///
/// To take something out deletes it: if the taker dies, it is gone. Who needs to try again keeps
/// what it took elsewhere, or deletes it only when done, with a [`Transactor`].
///
/// Of those who wait at an empty queue only the first watches it; the others stand in line.
/// Whoever comes while something is there need not wait, also if others do.
#[derive(Debug)]
pub struct Queue {
    transactor: Transactor,
    items: Vec<u8>,
    line: Lock,
    put: u64,
}

/// The priority of [`Queue::put`].
const ORDINARY: u16 = 0x8000;

impl Queue {
    /// The queue of that name, for one who fills or empties it. Its receipt, and its place in the
    /// line if it waits, are on leases of `ttl` seconds.
    pub async fn open(
        client: &Client,
        name: impl AsRef<[u8]>,
        ttl: i64,
    ) -> Result<Queue, RecipeError> {
        let name = name.as_ref();
        let receipts = [name, b"/receipts"].concat();
        Ok(Queue {
            transactor: Transactor::open(client, receipts, ttl).await?,
            items: [name, b"/items/"].concat(),
            line: Lock::new(client, [name, b"/line"].concat(), ttl),
            put: 0,
        })
    }

    /// Puts something in; returns the revision at which it is.
    pub async fn put(&mut self, value: impl AsRef<[u8]>) -> Result<i64, RecipeError> {
        self.put_first(ORDINARY, value).await
    }

    /// Puts something in with a priority: smaller ones come out first; [`Queue::put`]'s is
    /// 32 768.
    pub async fn put_first(
        &mut self,
        priority: u16,
        value: impl AsRef<[u8]>,
    ) -> Result<i64, RecipeError> {
        self.put += 1;
        let client = self.transactor.session().client().clone();
        // What was put before this began is below this revision, and so is its key.
        let now = || async {
            let look = RangeRequest {
                key: &self.items,
                ..RangeRequest::default()
            };
            client.range(look).await
        };
        let now = patiently(client.deadline(), now).await?.header.revision;
        let (lease, put) = (self.transactor.session().lease(), self.put);
        let order = format!("{priority:05}/{now:016x}/{put:016x}-{lease:x}");
        let key = [&self.items[..], order.as_bytes()].concat();
        let put = |mut transaction: Transaction| {
            transaction.put(&key, &value);
            ready(Ok::<_, RecipeError>(((), transaction)))
        };
        Ok(self.transactor.transact(put).await?.1)
    }

    /// Takes out what is next; `None` if the queue is empty.
    pub async fn try_take(&mut self) -> Result<Option<Vec<u8>>, RecipeError> {
        Ok(self.take_or_tell().await?.ok())
    }

    /// Takes out what is next, and waits for it if the queue is empty. To drop the future may
    /// leave open whether something was taken out.
    pub async fn take(&mut self) -> Result<Vec<u8>, RecipeError> {
        if let Ok(value) = self.take_or_tell().await? {
            return Ok(value);
        }
        let client = self.transactor.session().client().clone();
        let end = prefix_end(&self.items);
        loop {
            let first = self.line.acquire().await?;
            let mut ear = Ear::new(&client);
            // Whether the place in the line is kept matters to nobody's correctness: who has lost
            // it takes another one, when it wakes.
            while first.is_lost().is_none() {
                let revision = match self.take_or_tell().await? {
                    Ok(value) => return Ok(value),
                    Err(revision) => revision,
                };
                tokio::select! {
                    put = ear.put(&self.items, &end, revision + 1) => put?,
                    _ = first.lost() => {}
                }
            }
        }
    }

    /// Takes out what is next, or tells at which revision there was nothing.
    async fn take_or_tell(&mut self) -> Result<Result<Vec<u8>, i64>, RecipeError> {
        let items = &self.items;
        let take = |mut transaction: Transaction| async {
            let first = transaction.first(items).await?;
            if let Some(first) = &first {
                transaction.delete(&first.key);
            }
            Ok::<_, RecipeError>((first.map(|kv| kv.value), transaction))
        };
        let (taken, revision) = self.transactor.transact(take).await?;
        Ok(taken.ok_or(revision))
    }

    /// Ends this use of the queue; what is in it stays.
    pub async fn close(self) -> Result<(), ClientError> {
        self.transactor.close().await
    }
}
