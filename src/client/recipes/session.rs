//! A lease, and the life of what hangs on it.

#![forbid(unsafe_code)]

use std::time::Instant;

use tokio::runtime::Handle;
use tokio::select;

use super::{RecipeError, may_pass, patiently, pause};
use crate::api::Error;
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::{LeaseKeeper, LeaseLost};

/// A lease that is kept alive for as long as this lives. Keys that are put with its id go with it:
/// at once when it is closed, soon after it is dropped, and when the lease's time is over if the
/// process dies.
#[derive(Debug)]
pub struct Session {
    client: Client,
    keeper: LeaseKeeper,
    runtime: Handle,
    closed: bool,
}

impl Session {
    /// Makes a lease for so many seconds and keeps it alive, in a task of its own.
    ///
    /// A short time frees what a dead process held soon; a long one lets a living process sit out
    /// a server's restart. The server has a least (2 s by default).
    pub async fn open(client: &Client, ttl: i64) -> Result<Session, ClientError> {
        let runtime = Handle::current();
        // A lease that was granted and not heard of has no keys, and ends by itself.
        let patience = client.deadline();
        let granted = patiently(patience, || async { client.lease_grant(ttl).await }).await?;
        let keep = || async { client.keep_lease(granted.body.id).await };
        let keeper = patiently(patience, keep).await?;
        Ok(Session {
            client: client.clone(),
            keeper,
            runtime,
            closed: false,
        })
    }

    /// The lease's id, to put keys with.
    pub fn lease(&self) -> i64 {
        self.keeper.id()
    }

    /// The client that it was opened with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The lease lives at least until then; see [`LeaseKeeper::good_until`].
    pub fn good_until(&self) -> Instant {
        self.keeper.good_until()
    }

    /// Whether the lease is lost, as far as is known now: an answer from this machine's clock and
    /// memory, without a question to the server.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.keeper.is_lost()
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) -> LeaseLost {
        self.keeper.lost().await
    }

    /// Ends the lease, and with it every key that hangs on it. Once this has returned without an
    /// error the keys are gone, and no write that was on its way can put one again. Trouble is
    /// waited out for the client's deadline; after an error the lease ends by itself, when its
    /// time is over.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.closed = true;
        let (client, id) = (&self.client, self.lease());
        let revoke = || async { client.lease_revoke(id).await };
        match patiently(client.deadline(), revoke).await {
            Ok(_) | Err(ClientError::Refused(Error::LeaseNotFound)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Repeats what can be repeated without harm until it succeeds or the lease is lost.
    pub(super) async fn persist<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RecipeError> {
        let mut failures = 0;
        let trying = async {
            loop {
                match attempt().await {
                    Err(error) if may_pass(&error) => {
                        failures += 1;
                        tokio::time::sleep(pause(failures)).await;
                    }
                    Err(ClientError::Refused(Error::LeaseNotFound)) => {
                        return Err(RecipeError::Lost(LeaseLost::Gone));
                    }
                    settled => return settled.map_err(RecipeError::Client),
                }
            }
        };
        self.while_kept(trying).await
    }

    /// Does something, unless the lease is lost before it is done.
    pub(super) async fn while_kept<T>(
        &self,
        work: impl Future<Output = Result<T, RecipeError>>,
    ) -> Result<T, RecipeError> {
        select! {
            biased;
            lost = self.lost() => Err(lost.into()),
            done = work => done,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.closed && self.is_lost().is_none() {
            let (client, id) = (self.client.clone(), self.lease());
            // Whether or not it succeeds: nobody renews the lease any more.
            self.runtime
                .spawn(async move { client.lease_revoke(id).await });
        }
    }
}
