//! Waiting for one thing to happen.

#![forbid(unsafe_code)]

use super::{RecipeError, may_pass, pause};
use crate::api::{Error, WatchCreate};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::watch::{WatchEnd, WatchNews, WatchStream};

/// One connection that waits, for one thing after the other.
#[derive(Debug)]
pub(super) struct Ear {
    stream: WatchStream,
}

/// The error that a server's reason to end a watch stands for.
pub(super) fn refusal(reason: String) -> ClientError {
    match Error::ALL.iter().find(|error| error.message() == reason) {
        Some(error) => ClientError::Refused(*error),
        None => ClientError::RefusedOther {
            code: 0,
            message: reason,
        },
    }
}

impl Ear {
    pub fn new(client: &Client) -> Ear {
        Ear {
            stream: client.watch_stream(),
        }
    }

    /// Waits until a key of the interval is deleted, from `revision` on. May return early: who
    /// waits looks again in any case.
    pub async fn deleted(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        revision: i64,
    ) -> Result<(), RecipeError> {
        self.hear(&WatchCreate {
            key,
            range_end,
            start_revision: revision,
            no_put: true,
            ..WatchCreate::default()
        })
        .await
    }

    /// Waits until a key of the interval is put, from `revision` on; as [`Ear::deleted`].
    pub async fn put(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        revision: i64,
    ) -> Result<(), RecipeError> {
        self.hear(&WatchCreate {
            key,
            range_end,
            start_revision: revision,
            no_delete: true,
            ..WatchCreate::default()
        })
        .await
    }

    /// Waits until a key of the interval is put or deleted, from `revision` on; as
    /// [`Ear::deleted`].
    pub async fn changed(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        revision: i64,
    ) -> Result<(), RecipeError> {
        self.hear(&WatchCreate {
            key,
            range_end,
            start_revision: revision,
            ..WatchCreate::default()
        })
        .await
    }

    async fn hear(&mut self, create: &WatchCreate<'_>) -> Result<(), RecipeError> {
        let watch = self.stream.watch(create);
        let mut failures = 0;
        loop {
            let trouble = match self.stream.next().await {
                Ok(WatchNews::Events { watches, .. }) if watches.contains(&watch) => {
                    self.stream.cancel(watch);
                    return Ok(());
                }
                Ok(WatchNews::Ended { watch: ended, why }) if ended == watch => match why {
                    WatchEnd::Compacted { .. } | WatchEnd::Cancelled => return Ok(()),
                    WatchEnd::Refused { reason } => match refusal(reason) {
                        error if may_pass(&error) => {
                            tokio::time::sleep(pause(1)).await;
                            return Ok(());
                        }
                        error => error,
                    },
                },
                Ok(_) => continue,
                Err(error) => error,
            };
            if !may_pass(&trouble) {
                return Err(trouble.into());
            }
            failures += 1;
            tokio::time::sleep(pause(failures)).await;
        }
    }
}
