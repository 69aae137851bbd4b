//! Reading and changing several keys as if nobody else did, and exactly once.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::line::Place;
use super::{
    RecipeError, compare, get, may_pass, pairs, patiently, pause, prefix_end, put, put_or_get,
};

use crate::api::{
    CompareTarget, DeleteRangeRequest, Error, OwnedKeyValue, RangeRequest, RequestOp, TxnRequest,
};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::LeaseLost;

/// Runs transactions one after the other, each again until nothing that it read has changed
/// meanwhile, and each exactly once.
///
/// It keeps a receipt: a key of its own that each of its transactions changes and expects as the
/// last one left it. By it the outcome of a commit that was not heard of is found out, and a
/// commit that is given up can do nothing later. Tasks that are to change things at the same time
/// have one transactor each.
///
/// ```no_run
/// # async fn count(client: quoin::client::Client) -> Result<(), quoin::client::recipes::RecipeError> {
/// use quoin::client::recipes::{RecipeError, Transactor};
/// let mut transactor = Transactor::open(&client, "receipts", 10).await?;
/// let counted = transactor
///     .transact(|mut tx| async move {
///         let old = tx.get("hits").await?.unwrap_or_default();
///         let new = String::from_utf8_lossy(&old).parse().unwrap_or(0u64) + 1;
///         tx.put("hits", new.to_string());
///         Ok::<_, RecipeError>((new, tx))
///     })
///     .await?;
/// println!("{} at revision {}", counted.0, counted.1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Transactor {
    place: Place,
    /// The revision of the receipt's last change, as far as is known here.
    last: i64,
    number: u64,
}

/// What a transaction has read, and will write. All reads are of one revision, and see what was
/// written here before them.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    /// The revision that is read; 0 before the first read.
    revision: i64,
    /// It was compacted: only a new attempt helps.
    stale: Arc<AtomicBool>,
    /// Key to the revision of its last change.
    read: BTreeMap<Vec<u8>, i64>,
    /// Key to its value and lease; none to delete it.
    written: BTreeMap<Vec<u8>, Option<(Vec<u8>, i64)>>,
    /// Keys that must have been created at a revision.
    fences: Vec<(Vec<u8>, i64)>,
}

/// What became of a commit.
enum Fate {
    Committed(i64),
    /// It has not taken place, and never will.
    Void,
}

impl Transactor {
    /// A transactor whose receipt is a key below `name`, on a lease of `ttl` seconds.
    pub async fn open(
        client: &Client,
        name: impl AsRef<[u8]>,
        ttl: i64,
    ) -> Result<Transactor, RecipeError> {
        let place = Place::take(client, name.as_ref(), b"", ttl).await?;
        Ok(Transactor {
            last: place.number,
            place,
            number: 0,
        })
    }

    /// Runs a transaction until it has taken place. `body` is given an empty one and gives it back
    /// with what else it found out, which is returned with the revision: of the commit, or of the
    /// read if nothing was written. An error of `body` ends it without a trace.
    ///
    /// `body` runs again whenever a key that it read has changed before the commit. If the error
    /// is [`ClientError::OutcomeUnknown`], the lease was lost before the outcome could be found
    /// out. To drop the future leaves open whether it takes place.
    pub async fn transact<T, E, F>(
        &mut self,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<(T, i64), E>
    where
        E: From<RecipeError>,
        F: Future<Output = Result<(T, Transaction), E>>,
    {
        let mut conflicts = 0;
        loop {
            let stale = Arc::new(AtomicBool::new(false));
            let transaction = Transaction::new(self.place.session.client(), stale.clone());
            let made = body(transaction).await;
            if !stale.load(Ordering::Relaxed) {
                let (made, transaction) = made?;
                if transaction.written.is_empty() && transaction.fences.is_empty() {
                    return Ok((made, transaction.revision));
                }
                if let Fate::Committed(revision) = self.commit(&transaction).await? {
                    return Ok((made, revision));
                }
            }
            conflicts += 1;
            yield_to_others(conflicts).await;
        }
    }

    /// Changes one key by a function of its value; `None` stands for no key. Returns the revision.
    pub async fn update(
        &mut self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<i64, RecipeError> {
        let mut conflicts = 0;
        loop {
            let mut transaction = Transaction::new(self.place.session.client(), Arc::default());
            let old = transaction.get(&key).await?;
            match change(old) {
                Some(new) => transaction.put(&key, new),
                None => transaction.delete(&key),
            }
            if let Fate::Committed(revision) = self.commit(&transaction).await? {
                return Ok(revision);
            }
            conflicts += 1;
            yield_to_others(conflicts).await;
        }
    }

    /// Ends it, and deletes the receipt.
    pub async fn close(self) -> Result<(), ClientError> {
        self.place.session.close().await
    }

    /// The session behind it.
    pub fn session(&self) -> &super::Session {
        &self.place.session
    }

    async fn commit(&mut self, transaction: &Transaction) -> Result<Fate, RecipeError> {
        self.number += 1;
        let receipt = self.number.to_string();
        let mut failures = 0;
        loop {
            if let Some(lost) = self.place.session.is_lost() {
                return Err(lost.into());
            }
            let request = self.request(transaction, receipt.as_bytes());
            let error = match self.place.session.client().txn(request).await {
                Ok(answer) if answer.body.succeeded => {
                    self.last = answer.header.revision;
                    return Ok(Fate::Committed(self.last));
                }
                Ok(answer) => {
                    let mut responses = answer.body.responses.into_iter();
                    let own = pairs(responses.next())?.pop();
                    // Later than this knows: a transaction that was given up by its caller.
                    self.last = own.ok_or(RecipeError::Removed)?.mod_revision;
                    for (_, created) in &transaction.fences {
                        let fence = pairs(responses.next())?.pop();
                        if fence.is_none_or(|kv| kv.create_revision != *created) {
                            return Err(RecipeError::Removed);
                        }
                    }
                    return Ok(Fate::Void);
                }
                Err(error) => error,
            };
            match error {
                ClientError::OutcomeUnknown { .. } => return self.settle(&receipt, error).await,
                ClientError::Refused(Error::LeaseNotFound) => return Err(LeaseLost::Gone.into()),
                // It has not taken place.
                error if may_pass(&error) => {
                    failures += 1;
                    tokio::time::sleep(pause(failures)).await;
                }
                error => return Err(error.into()),
            }
        }
    }

    fn request<'a>(&'a self, transaction: &'a Transaction, receipt: &'a [u8]) -> TxnRequest<'a> {
        let (key, lease) = (&self.place.key[..], self.place.session.lease());
        let mut compares = vec![compare(key, CompareTarget::Mod(self.last))];
        let mut failure = vec![get(key)];
        for (key, changed) in &transaction.read {
            compares.push(compare(key, CompareTarget::Mod(*changed)));
        }
        for (key, created) in &transaction.fences {
            compares.push(compare(key, CompareTarget::Create(*created)));
            failure.push(get(key));
        }
        let mut success = vec![put(key, receipt, lease)];
        for (key, written) in &transaction.written {
            success.push(match written {
                Some((value, lease)) => put(key, value, *lease),
                None => RequestOp::DeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
            });
        }
        TxnRequest {
            compare: compares,
            success,
            failure,
        }
    }

    /// Finds out what became of a commit, and sees to it that nothing becomes of it later: either
    /// its receipt is there, or one that says it is void takes its place.
    async fn settle(&mut self, receipt: &str, error: ClientError) -> Result<Fate, RecipeError> {
        let void = format!("{receipt} is void");
        let (session, key) = (&self.place.session, &self.place.key);
        let settle = || async {
            let unchanged = compare(key, CompareTarget::Mod(self.last));
            let voided = put_or_get(unchanged, key, void.as_bytes(), session.lease());
            let answer = session.client().txn(voided).await?;
            if answer.body.succeeded {
                return Ok(Some((answer.header.revision, false)));
            }
            let found = pairs(answer.body.responses.into_iter().next())?.pop();
            Ok(found.map(|kv| (kv.mod_revision, kv.value == receipt.as_bytes())))
        };
        // Without a receipt nobody can tell.
        let settled = session.persist(settle).await.ok().flatten();
        let (last, committed) = settled.ok_or(RecipeError::Client(error))?;
        self.last = last;
        Ok(match committed {
            true => Fate::Committed(last),
            false => Fate::Void,
        })
    }
}

/// After conflicts with others: at once for the first time.
async fn yield_to_others(conflicts: u32) {
    if conflicts > 1 {
        let longest = Duration::from_millis(100);
        tokio::time::sleep(pause(conflicts - 1).min(longest)).await;
    }
}

impl Transaction {
    fn new(client: &Client, stale: Arc<AtomicBool>) -> Transaction {
        Transaction {
            client: client.clone(),
            revision: 0,
            stale,
            read: BTreeMap::new(),
            written: BTreeMap::new(),
            fences: Vec::new(),
        }
    }

    /// The value of a key; `None` if it does not exist.
    pub async fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, RecipeError> {
        let key = key.as_ref();
        if let Some(written) = self.written.get(key) {
            return Ok(written.as_ref().map(|(value, _)| value.clone()));
        }
        let found = self.range(key, &[], 1).await?.pop();
        let changed = found.as_ref().map_or(0, |kv| kv.mod_revision);
        self.expect(key, changed);
        Ok(found.map(|kv| kv.value))
    }

    /// The smallest key that begins so, as it was before this transaction. That it is still there
    /// and unchanged is checked at the commit; not, that no smaller one has come.
    pub async fn first(
        &mut self,
        prefix: impl AsRef<[u8]>,
    ) -> Result<Option<OwnedKeyValue>, RecipeError> {
        let prefix = prefix.as_ref();
        let found = self.range(prefix, &prefix_end(prefix), 1).await?.pop();
        if let Some(kv) = &found {
            self.expect(&kv.key, kv.mod_revision);
        }
        Ok(found)
    }

    /// At the commit the key must be as it was left by that revision; 0: it must not exist.
    pub(super) fn expect(&mut self, key: &[u8], changed: i64) {
        self.read.insert(key.to_vec(), changed);
    }

    /// Writes a key, at the commit.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_with_lease(key, value, 0);
    }

    /// Writes a key that hangs on a lease, at the commit.
    pub fn put_with_lease(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, lease: i64) {
        let written = Some((value.as_ref().to_vec(), lease));
        self.written.insert(key.as_ref().to_vec(), written);
    }

    /// Deletes a key, at the commit.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.written.insert(key.as_ref().to_vec(), None);
    }

    /// Lets it take place only while a lock, a leadership or a permit is held, given by its key
    /// and fence; otherwise it ends in [`RecipeError::Removed`].
    pub fn while_held(&mut self, key: impl AsRef<[u8]>, fence: i64) {
        self.fences.push((key.as_ref().to_vec(), fence));
    }

    /// Reads the first keys of an interval, at the revision of this transaction. Nothing of it is
    /// checked at the commit.
    pub(super) async fn range(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        limit: i64,
    ) -> Result<Vec<OwnedKeyValue>, RecipeError> {
        let revision = self.revision;
        let range = || async {
            let range = RangeRequest {
                key,
                range_end,
                limit,
                revision,
                ..RangeRequest::default()
            };
            self.client.range(range).await
        };
        match patiently(self.client.deadline(), range).await {
            Ok(answer) => {
                if self.revision == 0 {
                    self.revision = answer.header.revision;
                }
                Ok(answer.body.kvs)
            }
            Err(error) => {
                let stale = matches!(error, ClientError::Refused(Error::Compacted));
                self.stale.fetch_or(stale, Ordering::Relaxed);
                Err(error.into())
            }
        }
    }
}
