//! Beginning together, and ending together.

#![forbid(unsafe_code)]

use super::ear::{Ear, changed, deleted};
use super::line::Place;
use super::{RecipeError, compare, get, pairs, patiently, prefix_end, put};
use crate::api::{
    CompareTarget, DeleteRangeRequest, OwnedKeyValue, RangeRequest, RequestOp, SortOrder,
    SortTarget, TxnRequest,
};
use crate::client::async_client::Client;
use crate::client::error::ClientError;
use crate::client::keeper::LeaseLost;

/// A meeting of so many parties: all wait until the last has come, and again until the last has
/// gone. May be used again and again.
///
/// A party that dies while others wait for it to come is not there; one that dies later has gone.
/// Whoever has come when a round begins takes part, also if there are more than asked for; who
/// comes later waits for the next round.
#[derive(Debug, Clone)]
pub struct DoubleBarrier {
    client: Client,
    name: Vec<u8>,
    parties: u32,
    ttl: i64,
}

/// To take part in a round, until left, dropped, or lost.
#[derive(Debug)]
#[must_use = "others wait until this is left"]
pub struct Together {
    place: Place,
    ready: Vec<u8>,
    /// The revision that began the round; those whose number is smaller take part.
    begun: i64,
}

/// What one who has come sees.
struct View {
    ready: Option<OwnedKeyValue>,
    /// As many as are asked for, if as many have come.
    come: usize,
    revision: i64,
}

impl DoubleBarrier {
    /// The meeting of that name. Each party has a lease of `ttl` seconds.
    pub fn new(client: &Client, name: impl AsRef<[u8]>, parties: u32, ttl: i64) -> DoubleBarrier {
        DoubleBarrier {
            client: client.clone(),
            name: name.as_ref().to_vec(),
            parties: parties.max(1),
            ttl,
        }
    }

    /// Comes, and waits until all have. To drop the future is not to have come.
    pub async fn enter(&self) -> Result<Together, RecipeError> {
        let parties = [&self.name[..], b"/parties"].concat();
        let ready = [&self.name[..], b"/ready"].concat();
        let place = Place::take(&self.client, &parties, b"", self.ttl).await?;
        let mut ear = Ear::new(&self.client);
        loop {
            let view = self.look(&place, &ready).await?;
            let from = view.revision + 1;
            match view.ready.map(|kv| kv.create_revision) {
                Some(begun) if begun > place.number => {
                    return Ok(Together {
                        place,
                        ready,
                        begun,
                    });
                }
                // A round without this one: it ends when all who take part have gone.
                Some(begun) => {
                    let end = end(&mut ear, &self.client, &place.folder, &ready, begun);
                    place.session.while_kept(end).await?;
                }
                None if view.come >= self.parties as usize => {
                    let begin = || async {
                        self.client
                            .txn(TxnRequest {
                                compare: vec![
                                    compare(&ready, CompareTarget::Create(0)),
                                    place.kept(),
                                ],
                                success: vec![put(&ready, b"", 0)],
                                failure: Vec::new(),
                            })
                            .await
                    };
                    place.session.persist(begin).await?;
                }
                None => {
                    let begun = ear.hear([changed(&ready, &[], from)]);
                    place.session.while_kept(begun).await?;
                }
            }
        }
    }

    async fn look(&self, place: &Place, ready: &[u8]) -> Result<View, RecipeError> {
        let all = prefix_end(&place.folder);
        let look = || async {
            let come = RangeRequest {
                key: &place.folder,
                range_end: &all,
                limit: i64::from(self.parties),
                keys_only: true,
                ..RangeRequest::default()
            };
            let look = TxnRequest {
                compare: vec![place.kept()],
                success: vec![get(ready), RequestOp::Range(come)],
                failure: Vec::new(),
            };
            let answer = self.client.txn(look).await?;
            if !answer.body.succeeded {
                return Ok(None);
            }
            let mut responses = answer.body.responses.into_iter();
            Ok(Some(View {
                ready: pairs(responses.next())?.pop(),
                come: pairs(responses.next())?.len(),
                revision: answer.header.revision,
            }))
        };
        let view = place.session.persist(look).await?;
        view.ok_or(RecipeError::Removed)
    }
}

/// Waits until nobody is left who takes part in the round that began at that revision, and ends
/// it, if nobody has yet.
async fn end(
    ear: &mut Ear,
    client: &Client,
    folder: &[u8],
    ready: &[u8],
    begun: i64,
) -> Result<(), RecipeError> {
    let all = prefix_end(folder);
    loop {
        let left = || async {
            let left = RangeRequest {
                key: folder,
                range_end: &all,
                limit: 1,
                sort_order: SortOrder::Descend,
                sort_target: SortTarget::Create,
                max_create_revision: begun - 1,
                keys_only: true,
                ..RangeRequest::default()
            };
            client.range(left).await
        };
        let mut left = patiently(client.deadline(), left).await?;
        match left.body.kvs.pop() {
            Some(party) => {
                let from = left.header.revision + 1;
                ear.hear([deleted(&party.key, &[], from)]).await?;
            }
            None => {
                // The next round's has another revision: that one stays.
                let over = || async {
                    let delete = DeleteRangeRequest {
                        key: ready,
                        ..DeleteRangeRequest::default()
                    };
                    client
                        .txn(TxnRequest {
                            compare: vec![compare(ready, CompareTarget::Create(begun))],
                            success: vec![RequestOp::DeleteRange(delete)],
                            failure: Vec::new(),
                        })
                        .await
                };
                patiently(client.deadline(), over).await?;
                return Ok(());
            }
        }
    }
}

impl Together {
    /// The revision that began the round: the same for all who take part.
    pub fn round(&self) -> i64 {
        self.begun
    }

    /// Whether this has gone without leaving, as far as is known now.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.place.session.is_lost()
    }

    /// Goes, and waits until all have gone.
    pub async fn leave(self) -> Result<(), RecipeError> {
        let client = self.place.session.client().clone();
        let folder = self.place.folder;
        let closed: Result<(), ClientError> = self.place.session.close().await;
        closed?;
        let mut ear = Ear::new(&client);
        end(&mut ear, &client, &folder, &self.ready, self.begun).await
    }
}
