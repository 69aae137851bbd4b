//! A lock that at most one holds at a time.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::RecipeError;
use super::line::Place;
use crate::api::Compare;
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::LeaseLost;

/// A lock by name, handed on in the order of those who came.
///
/// No lock of this kind can stop a holder that has lost it without noticing yet: a process that
/// was paused, or whose packets are under way. What it guards must check. Inside the store a write
/// is guarded by [`LockGuard::held`] as one of its conditions; any other resource by
/// [`LockGuard::fence`], which it compares with the largest that it has seen.
///
/// Keys are those of etcd's clients (`name/lease`), so both may share a lock.
/// A name must not be another's followed by a slash.
///
/// ```no_run
/// # async fn locked(client: quoin::client::Client) -> Result<(), quoin::client::recipes::RecipeError> {
/// use quoin::client::recipes::Lock;
/// let guard = Lock::new(&client, "jobs/nightly", 10).acquire().await?;
/// println!("held, with fence {}", guard.fence());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Lock {
    client: Client,
    name: Vec<u8>,
    ttl: i64,
}

/// A lock that is held, until released, dropped, or lost.
#[derive(Debug)]
#[must_use = "the lock is held while this lives"]
pub struct LockGuard {
    place: Place,
}

impl Lock {
    /// The lock of that name. Who holds it, and who waits for it, has a lease of `ttl` seconds:
    /// so long after its holder died it goes to the next.
    pub fn new(client: &Client, name: impl AsRef<[u8]>, ttl: i64) -> Lock {
        Lock {
            client: client.clone(),
            name: name.as_ref().to_vec(),
            ttl,
        }
    }

    /// Waits for the lock. To drop the future is to leave the line.
    pub async fn acquire(&self) -> Result<LockGuard, RecipeError> {
        let place = Place::take(&self.client, &self.name, b"", self.ttl).await?;
        place.wait().await?;
        Ok(LockGuard { place })
    }

    /// Takes the lock if nobody holds it.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, RecipeError> {
        let place = Place::take(&self.client, &self.name, b"", self.ttl).await?;
        if place.before(1).await?.last.is_some() {
            place.session.close().await?;
            return Ok(None);
        }
        Ok(Some(LockGuard { place }))
    }
}

impl LockGuard {
    /// Grows from holder to holder: the revision at which this one came into the line.
    pub fn fence(&self) -> i64 {
        self.place.number
    }

    /// The key that stands for the lock while it is held; gone at the moment it is not.
    pub fn key(&self) -> &[u8] {
        &self.place.key
    }

    /// A condition for transactions: a write with it takes place only while the lock is held,
    /// whatever the holder believes.
    pub fn held(&self) -> Compare<'_> {
        self.place.kept()
    }

    /// Held at least until then, unless somebody revokes the lease or deletes the key.
    pub fn good_until(&self) -> Instant {
        self.place.session.good_until()
    }

    /// Whether the lock is lost, as far as is known now; costs nothing to ask.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.place.session.is_lost()
    }

    /// Waits until the lock is lost: to be awaited beside the work, which is then to stop.
    pub async fn lost(&self) -> LeaseLost {
        self.place.session.lost().await
    }

    /// Releases the lock, and returns when it is.
    pub async fn release(self) -> Result<(), ClientError> {
        self.place.session.close().await
    }
}
