//! A queue that many fill and many empty.

#![forbid(unsafe_code)]

use std::future::ready;

use super::ear::{Ear, deleted, put};
use super::lock::Lock;
use super::transactor::{Transaction, Transactor};
use super::{RecipeError, patiently, prefix_end};
use crate::api::{OwnedKeyValue, RangeRequest};
use crate::client::async_client::Client;
use crate::client::error::ClientError;

/// A queue by name. What one call put in before another call began comes out before it, within a
/// priority; whatever becomes of connections and servers.
///
/// What comes out may be *taken* or *claimed*:
/// - [`Queue::take`] deletes it: it comes out once, and if the taker dies, it is gone.
/// - [`Queue::claim`] keeps it for this use of the queue, until it is [`Queue::done`] or given
///   back. If the claimant dies or is away for longer than its lease, it comes out again, for
///   somebody else and before what came later: at least once. What is to be done exactly once, in
///   the store, is done with [`Queue::done_with`].
///
/// Of those who wait at an empty queue only the first watches it; the others stand in line.
/// Whoever comes while something is there need not wait, also if others do.
#[derive(Debug)]
pub struct Queue {
    transactor: Transactor,
    items: Vec<u8>,
    claims: Vec<u8>,
    line: Lock,
    put: u64,
}

/// Something that was claimed from a queue. To drop it alone does not give it back.
#[derive(Debug)]
#[must_use = "it comes out again only when it is given back, or its queue closed"]
pub struct Claim {
    value: Vec<u8>,
    item: Vec<u8>,
    key: Vec<u8>,
    fence: i64,
}

impl Claim {
    /// What was put in.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Grows from claim to claim: of two who work at the same thing because the first was lost
    /// for a while, the second has the larger one.
    pub fn fence(&self) -> i64 {
        self.fence
    }
}

/// How a thing leaves the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Taken,
    Claimed,
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
            claims: [name, b"/claims/"].concat(),
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
        let next = self.next_or_tell(Way::Taken).await?.ok();
        Ok(next.map(|claim| claim.value))
    }

    /// Takes out what is next, and waits for it if the queue is empty. To drop the future may
    /// leave open whether something was taken out.
    pub async fn take(&mut self) -> Result<Vec<u8>, RecipeError> {
        Ok(self.next(Way::Taken).await?.value)
    }

    /// Claims what is next and not claimed; `None` if there is nothing.
    pub async fn try_claim(&mut self) -> Result<Option<Claim>, RecipeError> {
        Ok(self.next_or_tell(Way::Claimed).await?.ok())
    }

    /// Claims what is next and not claimed, and waits for it. To drop the future may leave
    /// something claimed until this use of the queue is closed.
    pub async fn claim(&mut self) -> Result<Claim, RecipeError> {
        self.next(Way::Claimed).await
    }

    /// What was claimed is done, and does not come out again; returns the revision. If the claim
    /// was lost, that is the error: [`RecipeError::Lost`] or [`RecipeError::Removed`].
    pub async fn done(&mut self, claim: &Claim) -> Result<i64, RecipeError> {
        let nothing = |transaction| ready(Ok::<_, RecipeError>(((), transaction)));
        Ok(self.done_with(claim, nothing).await?.1)
    }

    /// The same in one transaction with what came of it, see [`Transactor::transact`]: of all who
    /// have claimed a thing one at most does this, once.
    pub async fn done_with<T, E, F>(
        &mut self,
        claim: &Claim,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<(T, i64), E>
    where
        E: From<RecipeError>,
        F: Future<Output = Result<(T, Transaction), E>>,
    {
        let end = |transaction| {
            let made = body(transaction);
            async {
                let (made, mut transaction) = made.await?;
                transaction.while_held(&claim.key, claim.fence);
                transaction.delete(&claim.key);
                transaction.delete(&claim.item);
                Ok((made, transaction))
            }
        };
        self.transactor.transact(end).await
    }

    /// Gives back what was claimed: it comes out again.
    pub async fn give_back(&mut self, claim: Claim) -> Result<(), RecipeError> {
        let give = |mut transaction: Transaction| {
            transaction.while_held(&claim.key, claim.fence);
            transaction.delete(&claim.key);
            ready(Ok::<_, RecipeError>(((), transaction)))
        };
        self.transactor.transact(give).await.map(|_| ())
    }

    async fn next(&mut self, way: Way) -> Result<Claim, RecipeError> {
        if let Ok(next) = self.next_or_tell(way).await? {
            return Ok(next);
        }
        let client = self.transactor.session().client().clone();
        let (items, claims) = (prefix_end(&self.items), prefix_end(&self.claims));
        loop {
            let first = self.line.acquire().await?;
            let mut ear = Ear::new(&client);
            // Whether the place in the line is kept matters to nobody's correctness: who has lost
            // it takes another one, when it wakes.
            while first.is_lost().is_none() {
                let from = match self.next_or_tell(way).await? {
                    Ok(next) => return Ok(next),
                    Err(revision) => revision + 1,
                };
                let more = [
                    put(&self.items, &items, from),
                    deleted(&self.claims, &claims, from),
                ];
                tokio::select! {
                    heard = ear.hear(more) => heard?,
                    _ = first.lost() => {}
                }
            }
        }
    }

    /// Takes or claims what is next, or tells at which revision there was nothing.
    async fn next_or_tell(&mut self, way: Way) -> Result<Result<Claim, i64>, RecipeError> {
        let (items, claims) = (&self.items, &self.claims);
        let lease = self.transactor.session().lease();
        let next = |mut transaction: Transaction| async move {
            let Some((item, claim)) = first_free(&mut transaction, items, claims).await? else {
                return Ok::<_, RecipeError>((None, transaction));
            };
            match way {
                Way::Taken => transaction.delete(&item.key),
                Way::Claimed => transaction.put_with_lease(&claim, b"", lease),
            }
            Ok((Some((item, claim)), transaction))
        };
        let (next, revision) = self.transactor.transact(next).await?;
        let next = next.map(|(item, key)| Claim {
            value: item.value,
            item: item.key,
            key,
            fence: revision,
        });
        Ok(next.ok_or(revision))
    }

    /// Ends this use of the queue; what is in it stays, and what was claimed comes out again.
    pub async fn close(self) -> Result<(), ClientError> {
        self.transactor.close().await
    }
}

/// Pairs that are looked at in one read.
const PAGE: i64 = 32;

/// The first item that nobody has claimed, and the key that a claim of it has. Both are checked at
/// the commit.
async fn first_free(
    transaction: &mut Transaction,
    items: &[u8],
    claims: &[u8],
) -> Result<Option<(OwnedKeyValue, Vec<u8>)>, RecipeError> {
    let claim_of = |item: &[u8]| [claims, &item[items.len()..]].concat();
    let end = prefix_end(items);
    // Mostly the first is free.
    let (mut from, mut limit) = (items.to_vec(), 1);
    loop {
        let page = transaction.range(&from, &end, limit).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(None);
        };
        let begin = claim_of(&first.key);
        from = [&last.key[..], b"\0"].concat();
        let taken = transaction.range(&begin, &claim_of(&from), limit).await?;
        let is_free = |item: &OwnedKeyValue| {
            let claim = claim_of(&item.key);
            taken.iter().all(|kv| kv.key != claim)
        };
        if let Some(item) = page.into_iter().find(is_free) {
            let claim = claim_of(&item.key);
            transaction.expect(&item.key, item.mod_revision);
            transaction.expect(&claim, 0);
            return Ok(Some((item, claim)));
        }
        limit = PAGE;
    }
}
