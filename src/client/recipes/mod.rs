//! What services build on a store of this kind, ready to use: a [`Lock`], an [`Election`], a
//! [`Semaphore`], a [`Barrier`] and a [`DoubleBarrier`], a [`Queue`], a [`Registry`] of services, a
//! [`Transactor`] for updates of several keys, and a [`Cache`] that watches keep fresh.
//!
//! docs/RECIPES.md tells how each works and what it promises. What holds for all of them:
//!
//! - What is held is held by a lease (a [`Session`]) that is kept alive as long as the value that
//!   stands for it. A holder that cannot reach the server for as long as the lease lives has lost
//!   it, is told so by its own clock, and is an error of kind [`RecipeError::Lost`] to every later
//!   call. To drop a value releases what it stands for soon, without waiting.
//! - A write whose outcome is unknown is found out about: repeated where repeating it can change
//!   nothing more, and asked after otherwise. A write that is left behind can do nothing later:
//!   the lease that it names, or the revision that it expects, is gone by then.
//! - Who waits watches the one that it waits for, and nobody else.
//! - Trouble that may pass (no connection, no leader, too many requests) is waited out: while the
//!   lease lives if there is one, and for [`super::ClientOptions::deadline`] otherwise.
//!
//! Threads without a runtime use them through [`BlockingRecipes`].

#![forbid(unsafe_code)]

mod barrier;

mod blocking;

mod cache;

mod double_barrier;

mod ear;

mod election;

mod follow;

mod line;

mod lock;

mod queue;

mod registry;

mod semaphore;

mod session;

mod transactor;

use std::fmt;
use std::time::{Duration, Instant};

pub use barrier::Barrier;
pub use blocking::BlockingRecipes;
pub use cache::{Cache, CacheChange};
pub use double_barrier::{DoubleBarrier, Together};
pub use election::{Election, Leadership, Observer};
pub use follow::{Follower, FollowerNews};
pub use lock::{Lock, LockGuard};
pub use queue::{Claim, Queue};
pub use registry::{Endpoint, Endpoints, Registration, Registry};
pub use semaphore::{Permit, Semaphore};
pub use session::Session;
pub use transactor::{Transaction, Transactor};

use super::error::ClientError;
use super::keeper::LeaseLost;
use crate::api::{
    Compare, CompareResult, CompareTarget, Error, OwnedKeyValue, PutRequest, RangeRequest,
    RequestOp, Response, TxnRequest,
};

/// Why a recipe did not succeed.
#[derive(Debug, Clone)]
pub enum RecipeError {
    /// A request failed, and to repeat it would not help, or did not help for long enough.
    Client(ClientError),
    /// The lease is lost, and with it what was held or waited for.
    Lost(LeaseLost),
    /// Somebody has deleted the key by which it was held, or waited for: an operator, perhaps.
    Removed,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecipeError::Client(error) => write!(f, "{error}"),
            RecipeError::Lost(lost) => write!(f, "{lost}"),
            RecipeError::Removed => f.write_str("the key by which it was held was deleted"),
        }
    }
}

impl std::error::Error for RecipeError {}

impl From<ClientError> for RecipeError {
    fn from(error: ClientError) -> Self {
        RecipeError::Client(error)
    }
}

impl From<LeaseLost> for RecipeError {
    fn from(lost: LeaseLost) -> Self {
        RecipeError::Lost(lost)
    }
}

/// Whether the same request may fare better after a while.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::OutcomeUnknown { cause } | ClientError::NotSent { cause } => {
            may_pass(cause) || matches!(**cause, ClientError::Deadline)
        }
        ClientError::Refused(error) => matches!(
            error,
            Error::TooManyRequests
                | Error::NoLeader
                | Error::LeaderChanged
                | Error::Stopped
                | Error::Timeout
        ),
        // No endpoint at all is for good.
        ClientError::Io(error) => error.kind() != std::io::ErrorKind::InvalidInput,
        ClientError::Deadline => true,
        other => other.is_lost_connection(),
    }
}

/// The pause before an attempt is repeated; the number of those before it. Random, so that many
/// clients do not return at one time.
fn pause(failures: u32) -> Duration {
    let options = super::ClientOptions {
        backoff_max: Duration::from_millis(500),
        ..super::ClientOptions::default()
    };
    options.backoff(failures)
}

/// Repeats what can be repeated without harm until it succeeds, or trouble lasts so long.
async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let give_up = Instant::now() + patience;
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(error) if may_pass(&error) && Instant::now() < give_up => {
                failures += 1;
                tokio::time::sleep(pause(failures)).await;
            }
            settled => return settled,
        }
    }
}

/// The end of the interval of all keys that begin so.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Every key.
    vec![0]
}

/// `name` and a slash: what the keys of a recipe begin with.
fn folder(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

fn compare<'a>(key: &'a [u8], target: CompareTarget<'a>) -> Compare<'a> {
    Compare {
        key,
        range_end: &[],
        result: CompareResult::Equal,
        target,
    }
}

fn get(key: &[u8]) -> RequestOp<'_> {
    RequestOp::Range(RangeRequest {
        key,
        ..RangeRequest::default()
    })
}

fn put<'a>(key: &'a [u8], value: &'a [u8], lease: i64) -> RequestOp<'a> {
    RequestOp::Put(PutRequest {
        key,
        value,
        lease,
        ..PutRequest::default()
    })
}

/// Writes if the compare holds, and reads the key otherwise.
fn put_or_get<'a>(
    holds: Compare<'a>,
    key: &'a [u8],
    value: &'a [u8],
    lease: i64,
) -> TxnRequest<'a> {
    TxnRequest {
        compare: vec![holds],
        success: vec![put(key, value, lease)],
        failure: vec![get(key)],
    }
}

/// The pairs of a range that stands in a transaction's answer.
fn pairs(response: Option<Response>) -> Result<Vec<OwnedKeyValue>, ClientError> {
    match response {
        Some(Response::Range(range)) => Ok(range.kvs),
        _ => Err(ClientError::WrongReply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_behind_all_that_begin_so() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }

    #[test]
    fn only_trouble_that_may_pass_is_waited_out() {
        let broken = ClientError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(may_pass(&broken.clone().unknown()));
        assert!(may_pass(&broken.not_sent()));
        assert!(may_pass(&ClientError::Deadline.unknown()));
        assert!(may_pass(&ClientError::Refused(Error::NoLeader)));
        assert!(!may_pass(&ClientError::Refused(Error::NoSpace)));
        assert!(!may_pass(&ClientError::WrongReply));
        assert!(!may_pass(
            &ClientError::Refused(Error::ResponseTooLarge).unknown()
        ));
    }
}
