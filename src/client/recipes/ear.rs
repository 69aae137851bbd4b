//! Waiting for one thing to happen.

#![forbid(unsafe_code)]

use super::{RecipeError, may_pass, pause};
use crate::api::{Error, WatchCreate};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::watch::{WatchEnd, WatchId, WatchNews, WatchStream};

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

/// A key of the interval is put or deleted, from `revision` on.
pub(super) fn changed<'k>(key: &'k [u8], range_end: &'k [u8], revision: i64) -> WatchCreate<'k> {
    WatchCreate {
        key,
        range_end,
        start_revision: revision,
        ..WatchCreate::default()
    }
}

/// The same, but it is put.
pub(super) fn put<'k>(key: &'k [u8], range_end: &'k [u8], revision: i64) -> WatchCreate<'k> {
    WatchCreate {
        no_delete: true,
        ..changed(key, range_end, revision)
    }
}

/// The same, but it is deleted.
pub(super) fn deleted<'k>(key: &'k [u8], range_end: &'k [u8], revision: i64) -> WatchCreate<'k> {
    WatchCreate {
        no_put: true,
        ..changed(key, range_end, revision)
    }
}

impl Ear {
    pub fn new(client: &Client) -> Ear {
        Ear {
            stream: client.watch_stream(),
        }
    }

    /// Waits until one of these is heard. May return early: who waits looks again in any case.
    pub async fn hear<const N: usize>(
        &mut self,
        sounds: [WatchCreate<'_>; N],
    ) -> Result<(), RecipeError> {
        let watches = sounds.map(|sound| self.stream.watch(&sound));
        let heard = self.hear_one(&watches).await;
        watches.iter().for_each(|watch| self.stream.cancel(*watch));
        heard
    }

    async fn hear_one(&mut self, expected: &[WatchId]) -> Result<(), RecipeError> {
        let mut failures = 0;
        loop {
            let trouble = match self.stream.next().await {
                Ok(WatchNews::Events { watches, .. })
                    if watches.iter().any(|watch| expected.contains(watch)) =>
                {
                    return Ok(());
                }
                Ok(WatchNews::Ended { watch, why }) if expected.contains(&watch) => match why {
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
