//! What has been applied, counted by kind.
#![forbid(unsafe_code)]

use super::Outcome;
use crate::api::{Request, Response};

/// Counts since the start of the process, of commands that were not refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts, those of transactions included.
    pub puts: u64,
    /// Bytes of the keys and values of puts outside transactions.
    pub put_bytes: u64,
    /// Deletes of keys or ranges, those of transactions included.
    pub deletes: u64,
    /// Ranges of transactions that also write.
    pub ranges: u64,
    /// Transactions.
    pub txns: u64,
    /// Leases granted.
    pub leases_granted: u64,
    /// Leases revoked because somebody asked for it.
    pub leases_revoked: u64,
    /// Leases revoked because their time was over.
    pub leases_expired: u64,
}

impl Counts {
    /// Counts a command that was run.
    #[inline]
    pub fn note(&mut self, request: &Request<'_>, outcome: &Outcome) {
        match (request, outcome) {
            (_, Outcome::Failed { .. }) => {}
            (Request::Put(put), _) => {
                self.puts += 1;
                self.put_bytes += (put.key.len() + put.value.len()) as u64;
            }
            (Request::DeleteRange(_), _) => self.deletes += 1,
            (Request::Txn(_), Outcome::Done { response, .. }) => self.note_answer(response),
            (Request::LeaseGrant(_), _) => self.leases_granted += 1,
            (Request::LeaseRevoke(_), _) => self.leases_revoked += 1,
            (Request::LeaseExpire(expire), _) => {
                self.leases_expired += expire.leases.len() as u64;
            }
            _ => {}
        }
    }

    /// What ran in a transaction, its answers tell.
    fn note_answer(&mut self, response: &Response) {
        match response {
            Response::Range(_) => self.ranges += 1,
            Response::Put(_) => self.puts += 1,
            Response::DeleteRange(_) => self.deletes += 1,
            Response::Txn(txn) => {
                self.txns += 1;
                for response in &txn.responses {
                    self.note_answer(response);
                }
            }
            _ => {}
        }
    }
}
