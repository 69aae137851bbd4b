//! A place in a line: who came first, and waiting for the one before.
//!
//! Each who comes puts a key of its own below the line's name, hanging on a lease of its own; the
//! revision that created the key is its number. Names and numbers are those of etcd's clients, so
//! that both may stand in one line.

#![forbid(unsafe_code)]

use super::ear::{Ear, deleted};
use super::session::Session;
use super::{RecipeError, compare, folder, pairs, prefix_end, put_or_get};
use crate::api::{
    Compare, CompareTarget, OwnedKeyValue, RangeRequest, RequestOp, SortOrder, SortTarget,
    TxnRequest,
};
use crate::client::async_client::Client;
use crate::client::error::ClientError;

/// A place in the line of a name, kept for as long as its session.
#[derive(Debug)]
pub(super) struct Place {
    pub session: Session,
    /// What all places of the line begin with.
    pub folder: Vec<u8>,
    pub key: Vec<u8>,
    /// The revision that created the key: grows from place to place.
    pub number: i64,
    /// The revision of its last change, as far as is known here.
    changed: i64,
}

/// What a place sees of those before it.
#[derive(Debug)]
pub(super) struct Before {
    /// The first of the line, as many as were asked for.
    pub first: Vec<OwnedKeyValue>,
    /// The one right before.
    pub last: Option<OwnedKeyValue>,
    /// The revision of this view.
    pub revision: i64,
}

impl Place {
    /// Takes the next place.
    pub async fn take(
        client: &Client,
        name: &[u8],
        value: &[u8],
        ttl: i64,
    ) -> Result<Place, RecipeError> {
        let session = Session::open(client, ttl).await?;
        let folder = folder(name);
        let key = [&folder[..], format!("{:x}", session.lease()).as_bytes()].concat();
        let lease = session.lease();
        // The key is this session's alone, so to repeat this is to ask what became of it. What is
        // left on its way when the session ends finds its lease gone.
        let take = || async {
            let absent = compare(&key, CompareTarget::Create(0));
            let answer = client.txn(put_or_get(absent, &key, value, lease)).await?;
            if answer.body.succeeded {
                return Ok(answer.header.revision);
            }
            let found = pairs(answer.body.responses.into_iter().next())?;
            let own = found.first().filter(|kv| kv.lease == lease);
            own.map(|kv| kv.create_revision)
                .ok_or(ClientError::WrongReply)
        };
        let number = session.persist(take).await?;
        Ok(Place {
            session,
            folder,
            key,
            number,
            changed: number,
        })
    }

    /// A condition of transactions: this place is still kept.
    pub fn kept(&self) -> Compare<'_> {
        compare(&self.key, CompareTarget::Create(self.number))
    }

    /// Who is before this place; the first `most` of them, and the one right before.
    pub async fn before(&self, most: i64) -> Result<Before, RecipeError> {
        let end = prefix_end(&self.folder);
        let range = |sort_order, limit| {
            RequestOp::Range(RangeRequest {
                key: &self.folder,
                range_end: &end,
                limit,
                sort_order,
                sort_target: SortTarget::Create,
                max_create_revision: self.number - 1,
                keys_only: true,
                ..RangeRequest::default()
            })
        };
        let ask = || async {
            let ask = TxnRequest {
                compare: vec![self.kept()],
                success: vec![range(SortOrder::Ascend, most), range(SortOrder::Descend, 1)],
                failure: Vec::new(),
            };
            let answer = self.session.client().txn(ask).await?;
            if !answer.body.succeeded {
                return Ok(None);
            }
            let mut responses = answer.body.responses.into_iter();
            let first = pairs(responses.next())?;
            let last = pairs(responses.next())?.pop();
            let revision = answer.header.revision;
            Ok(Some(Before {
                first,
                last,
                revision,
            }))
        };
        let before = self.session.persist(ask).await?;
        before.ok_or(RecipeError::Removed)
    }

    /// Waits until nobody is before this place. Only the one right before is watched.
    pub async fn wait(&self) -> Result<(), RecipeError> {
        let mut ear = Ear::new(self.session.client());
        loop {
            let before = self.before(1).await?;
            let Some(last) = before.last else {
                return Ok(());
            };
            let gone = ear.hear([deleted(&last.key, &[], before.revision + 1)]);
            self.session.while_kept(gone).await?;
        }
    }

    /// Puts another value, at the cost of its own key's line only.
    pub async fn tell(&mut self, value: &[u8]) -> Result<i64, RecipeError> {
        let lease = self.session.lease();
        loop {
            let tell = || async {
                let unchanged = compare(&self.key, CompareTarget::Mod(self.changed));
                let told = put_or_get(unchanged, &self.key, value, lease);
                let answer = self.session.client().txn(told).await?;
                let revision = answer.header.revision;
                match answer.body.succeeded {
                    true => Ok((Some(revision), None)),
                    false => Ok((None, pairs(answer.body.responses.into_iter().next())?.pop())),
                }
            };
            let (told, found) = self.session.persist(tell).await?;
            if let Some(revision) = told {
                self.changed = revision;
                return Ok(revision);
            }
            let own = found.filter(|kv| kv.create_revision == self.number);
            let own = own.ok_or(RecipeError::Removed)?;
            // Nobody else puts this key: an attempt that was not heard of has taken place.
            self.changed = own.mod_revision;
            if own.value == value {
                return Ok(self.changed);
            }
        }
    }
}
