//! So many at a time.

#![forbid(unsafe_code)]

use super::RecipeError;
use super::ear::{Ear, changed, deleted};
use super::line::Place;
use super::prefix_end;
use crate::api::Compare;
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::LeaseLost;

/// A lock that `permits` may hold at a time, by name, in the order of those who came.
///
/// Each who has a permit says so in its own key. Of those who wait, only the first watches for a
/// permit that is given back; each other watches the one before it, until that one has a permit or
/// has gone.
#[derive(Debug, Clone)]
pub struct Semaphore {
    client: Client,
    name: Vec<u8>,
    permits: u32,
    ttl: i64,
}

/// A permit that is held, until released, dropped, or lost.
#[derive(Debug)]
#[must_use = "the permit is held while this lives"]
pub struct Permit {
    place: Place,
}

/// What a key says once its owner has a permit.
const HELD: &[u8] = b"held";

impl Semaphore {
    /// The semaphore of that name. All who use it must say the same number of permits, at least
    /// one. Who holds or waits has a lease of `ttl` seconds.
    pub fn new(client: &Client, name: impl AsRef<[u8]>, permits: u32, ttl: i64) -> Semaphore {
        Semaphore {
            client: client.clone(),
            name: name.as_ref().to_vec(),
            permits: permits.max(1),
            ttl,
        }
    }

    /// Waits for a permit. To drop the future is to leave the line.
    pub async fn acquire(&self) -> Result<Permit, RecipeError> {
        let mut place = Place::take(&self.client, &self.name, b"", self.ttl).await?;
        let permits = i64::from(self.permits);
        let mut ear = Ear::new(&self.client);
        loop {
            let before = place.before(permits + 1).await?;
            let holding = before.first.len() as i64;
            let Some(last) = before.last.filter(|_| holding >= permits) else {
                break;
            };
            let from = before.revision + 1;
            if holding == permits {
                // All before this one hold a permit: any that goes makes room.
                let end = prefix_end(&place.folder);
                let gone = ear.hear([deleted(&place.folder, &end, from)]);
                place.session.while_kept(gone).await?;
            } else {
                let moved = ear.hear([changed(&last.key, &[], from)]);
                place.session.while_kept(moved).await?;
            }
        }
        // Who comes behind waits for this.
        place.tell(HELD).await?;
        Ok(Permit { place })
    }

    /// Takes a permit if one is free.
    pub async fn try_acquire(&self) -> Result<Option<Permit>, RecipeError> {
        let mut place = Place::take(&self.client, &self.name, b"", self.ttl).await?;
        let permits = i64::from(self.permits);
        if place.before(permits).await?.first.len() as i64 >= permits {
            place.session.close().await?;
            return Ok(None);
        }
        place.tell(HELD).await?;
        Ok(Some(Permit { place }))
    }
}

impl Permit {
    /// The revision at which this one came into the line: differs from holder to holder.
    pub fn fence(&self) -> i64 {
        self.place.number
    }

    /// A condition for transactions: a write with it takes place only while the permit is held.
    pub fn held(&self) -> Compare<'_> {
        self.place.kept()
    }

    /// Whether the permit is lost, as far as is known now; costs nothing to ask.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.place.session.is_lost()
    }

    /// Waits until the permit is lost.
    pub async fn lost(&self) -> LeaseLost {
        self.place.session.lost().await
    }

    /// Gives the permit back, and returns when it is.
    pub async fn release(self) -> Result<(), ClientError> {
        self.place.session.close().await
    }
}
