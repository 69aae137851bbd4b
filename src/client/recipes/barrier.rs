//! A gate: closed or open.

#![forbid(unsafe_code)]

use super::ear::{Ear, changed};
use super::{RecipeError, compare, patiently, put_or_get};
use crate::api::CompareTarget;
use crate::client::async_client::Client;

/// A gate that is closed by one and waited at by many, until somebody opens it.
///
/// One key holds its state, and stays; a key that does not exist is an open gate. No lease is
/// behind it: a gate whose closer has died stays closed.
#[derive(Debug, Clone)]
pub struct Barrier {
    client: Client,
    key: Vec<u8>,
}

const CLOSED: &[u8] = b"closed";
const OPEN: &[u8] = b"open";

impl Barrier {
    /// The gate of that name, which is its key.
    pub fn new(client: &Client, name: impl AsRef<[u8]>) -> Barrier {
        Barrier {
            client: client.clone(),
            key: name.as_ref().to_vec(),
        }
    }

    /// Closes it; nothing happens if it is.
    pub async fn close(&self) -> Result<(), RecipeError> {
        self.turn(CLOSED).await
    }

    /// Opens it: all who wait go on. Nothing happens if it is open.
    pub async fn open(&self) -> Result<(), RecipeError> {
        self.turn(OPEN).await
    }

    async fn turn(&self, state: &[u8]) -> Result<(), RecipeError> {
        let turn = || async {
            loop {
                let found = self.client.get(&self.key).await?.body;
                let is = found.as_ref().map_or(OPEN, |kv| &kv.value);
                if is == state {
                    return Ok(());
                }
                // Each change expects the one before it, so one that is late cannot turn the gate
                // back.
                let changed = found.as_ref().map_or(0, |kv| kv.mod_revision);
                let unchanged = compare(&self.key, CompareTarget::Mod(changed));
                let turned = put_or_get(unchanged, &self.key, state, 0);
                if self.client.txn(turned).await?.body.succeeded {
                    return Ok(());
                }
            }
        };
        Ok(patiently(self.client.deadline(), turn).await?)
    }

    /// Waits until it is open.
    pub async fn wait(&self) -> Result<(), RecipeError> {
        let mut ear = Ear::new(&self.client);
        loop {
            let look = || async { self.client.get(&self.key).await };
            let found = patiently(self.client.deadline(), look).await?;
            if found.body.is_none_or(|kv| kv.value != CLOSED) {
                return Ok(());
            }
            let from = found.header.revision + 1;
            ear.hear([changed(&self.key, &[], from)]).await?;
        }
    }
}
