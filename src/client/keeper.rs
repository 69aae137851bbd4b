//! Keeping a lease alive for as long as a value lives.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::async_client::Client;
use super::blocking::BlockingClient;
use super::error::ClientError;
use crate::api::Error;

/// Why a lease is kept alive no more. What hangs on it may be gone, and somebody else's.
#[derive(Debug, Clone)]
pub enum LeaseLost {
    /// The server says that there is no such lease: it has expired, or was revoked.
    Gone,
    /// For as long as the lease lives no renewal was confirmed: it may have expired.
    Unconfirmed {
        /// What became of the last attempt.
        cause: Box<ClientError>,
    },
}

impl fmt::Display for LeaseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaseLost::Gone => f.write_str("the lease is gone"),
            LeaseLost::Unconfirmed { cause } => {
                write!(
                    f,
                    "no renewal was confirmed for as long as the lease lives: {cause}"
                )
            }
        }
    }
}

impl std::error::Error for LeaseLost {}

/// When to renew, and until when the holder may rely on the lease.
#[derive(Debug, Clone)]
struct Schedule {
    ttl: Duration,
    /// The lease lives at least until then: counted from before the last confirmed renewal was
    /// sent.
    good_until: Instant,
}

impl Schedule {
    fn renewed(asked: Instant, ttl: i64) -> Schedule {
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
        // A lease that outlives the clock is good for ever; a century will do.
        let longest = Duration::from_secs(100 * 365 * 86_400);
        Schedule {
            ttl,
            good_until: asked + ttl.min(longest),
        }
    }

    /// How long a single attempt may take, and how long after a success the next is due.
    fn third(&self) -> Duration {
        (self.ttl / 3).min(Duration::from_secs(86_400))
    }

    /// How long an attempt may take that begins now: not longer than the holder may rely on the
    /// lease, so that the end is told when it comes.
    fn attempt(&self, now: Instant) -> Duration {
        let left = self.good_until.saturating_duration_since(now);
        self.third().min(left)
    }

    /// How long to wait after an attempt that failed.
    fn retry(&self) -> Duration {
        (self.ttl / 20).clamp(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// What follows from an attempt: how long to wait for the next, or the end.
    fn next(
        &mut self,
        asked: Instant,
        attempt: Result<i64, ClientError>,
        now: Instant,
    ) -> Result<Duration, LeaseLost> {
        match attempt {
            Ok(0) => Err(LeaseLost::Gone),
            // Those who rely on it have been told by the clock, and shall not be told otherwise.
            Ok(_) if now >= self.good_until => Err(unconfirmed()),
            Ok(ttl) => {
                *self = Schedule::renewed(asked, ttl);
                Ok(self.third())
            }
            Err(cause) if now >= self.good_until => Err(LeaseLost::Unconfirmed {
                cause: Box::new(cause),
            }),
            Err(_) => Ok(self.retry().min(self.good_until - now)),
        }
    }
}

/// How a lease stands, as its keeper tells those who rely on it.
#[derive(Debug, Clone)]
struct Standing {
    good_until: Instant,
    lost: Option<LeaseLost>,
}

impl Standing {
    /// Time counts too: a process that was stopped hears last that its lease is over.
    fn lost(&self) -> Option<LeaseLost> {
        match &self.lost {
            None if Instant::now() >= self.good_until => Some(unconfirmed()),
            lost => lost.clone(),
        }
    }
}

fn unconfirmed() -> LeaseLost {
    LeaseLost::Unconfirmed {
        cause: Box::new(ClientError::Deadline),
    }
}

fn not_found() -> ClientError {
    ClientError::Refused(Error::LeaseNotFound)
}

/// Keeps a lease alive, renewing it after each third of its time, until it is dropped or the lease
/// is lost. See [`Client::keep_lease`].
#[derive(Debug)]
#[must_use = "the lease is kept while this lives"]
pub struct LeaseKeeper {
    id: i64,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The lease lives at least until then: counted from before the last confirmed renewal was
    /// sent, on the clock of this machine, which stands still while the machine sleeps.
    pub fn good_until(&self) -> Instant {
        self.standing.borrow().good_until
    }

    /// Whether the lease is lost, as far as is known now.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        self.standing.borrow().lost()
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) -> LeaseLost {
        let mut standing = self.standing.clone();
        loop {
            let good_until = {
                let now = standing.borrow_and_update();
                if let Some(lost) = now.lost() {
                    return lost;
                }
                now.good_until
            };
            // Nobody may be left to renew: the runtime may have dropped the task.
            if let Ok(Err(_)) = timeout_at(good_until.into(), standing.changed()).await {
                return self.is_lost().unwrap_or_else(unconfirmed);
            }
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Renews a lease now, and from then on after each third of its time, in a task of its own,
    /// for as long as the returned value lives. To drop it does not revoke the lease.
    pub async fn keep_lease(&self, id: i64) -> Result<LeaseKeeper, ClientError> {
        let asked = Instant::now();
        let ttl = match self.lease_keep_alive(id).await?.body.ttl {
            0 => return Err(not_found()),
            ttl => ttl,
        };
        let mut schedule = Schedule::renewed(asked, ttl);
        let (tell, standing) = watch::channel(Standing {
            good_until: schedule.good_until,
            lost: None,
        });
        let client = self.clone();
        let task = tokio::spawn(async move {
            let mut pause = schedule.third();
            loop {
                tokio::time::sleep(pause).await;
                let asked = Instant::now();
                let renewing = client.with_deadline(schedule.attempt(asked));
                let attempt = renewing.lease_keep_alive(id).await;
                let attempt = attempt.map(|answer| answer.body.ttl);
                let next = schedule.next(asked, attempt, Instant::now());
                let lost = next.as_ref().err().cloned();
                let good_until = schedule.good_until;
                // Nobody may listen any more.
                let _ = tell.send(Standing { good_until, lost });
                match next {
                    Ok(wait) => pause = wait,
                    Err(_) => return,
                }
            }
        });
        Ok(LeaseKeeper { id, standing, task })
    }
}

/// Keeps a lease alive, as [`LeaseKeeper`] does. See [`BlockingClient::keep_lease`].
#[derive(Debug)]
#[must_use = "the lease is kept while this lives"]
pub struct BlockingLeaseKeeper {
    id: i64,
    lost: Receiver<LeaseLost>,
    /// Its end is what the thread waits for between two renewals.
    _stop: SyncSender<()>,
}

impl BlockingLeaseKeeper {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits until the lease is lost, at most so long; tells it once.
    pub fn lost(&self, timeout: Duration) -> Option<LeaseLost> {
        self.lost.recv_timeout(timeout).ok()
    }
}

impl BlockingClient {
    /// Renews a lease now, and from then on after each third of its time, on a thread of its own,
    /// for as long as the returned value lives. To drop it does not revoke the lease.
    pub fn keep_lease(&self, id: i64) -> Result<BlockingLeaseKeeper, ClientError> {
        let asked = Instant::now();
        let ttl = match self.lease_keep_alive(id)?.body.ttl {
            0 => return Err(not_found()),
            ttl => ttl,
        };
        let mut schedule = Schedule::renewed(asked, ttl);
        let (tell, lost) = sync_channel(1);
        let (stop, stopped) = sync_channel::<()>(0);
        let client = self.clone();
        let run = move || {
            let mut pause = schedule.third();
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let asked = Instant::now();
                let renewing = client.with_deadline(schedule.attempt(asked));
                let attempt = renewing.lease_keep_alive(id);
                let attempt = attempt.map(|answer| answer.body.ttl);
                match schedule.next(asked, attempt, Instant::now()) {
                    Ok(wait) => pause = wait,
                    Err(why) => {
                        // Nobody may listen any more.
                        let _ = tell.send(why);
                        return;
                    }
                }
            }
        };
        thread::Builder::new()
            .name("quoin-lease".to_owned())
            .spawn(run)?;
        Ok(BlockingLeaseKeeper {
            id,
            lost,
            _stop: stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_holder_relies_on_the_lease_from_before_the_question_left() {
        let begun = Instant::now();
        let mut schedule = Schedule::renewed(begun, 30);
        assert_eq!(schedule.third(), seconds(10));
        let failed = || Err(ClientError::Deadline);
        let wait = schedule.next(begun + seconds(10), failed(), begun + seconds(20));
        assert_eq!(wait.expect("there is time"), schedule.retry());
        // Confirmed late: counted from when it was asked for.
        let wait = schedule.next(begun + seconds(22), Ok(30), begun + seconds(29));
        assert_eq!(wait.expect("it is renewed"), seconds(10));
        assert_eq!(schedule.good_until, begun + seconds(52));
        let wait = schedule.next(
            begun + seconds(40),
            failed(),
            begun + Duration::from_millis(51_900),
        );
        assert_eq!(wait.expect("a moment is left"), Duration::from_millis(100));
        // An attempt that begins then has that moment.
        let late = begun + Duration::from_millis(51_900);
        assert_eq!(schedule.attempt(late), Duration::from_millis(100));
        assert_eq!(schedule.attempt(begun + seconds(32)), seconds(10));
        let lost = schedule.next(begun + seconds(50), failed(), begun + seconds(52));
        assert!(matches!(lost, Err(LeaseLost::Unconfirmed { .. })));
        let late = schedule.next(begun + seconds(51), Ok(30), begun + seconds(53));
        assert!(matches!(late, Err(LeaseLost::Unconfirmed { .. })));
        let gone = schedule.next(begun, Ok(0), begun);
        assert!(matches!(gone, Err(LeaseLost::Gone)));
    }
}
