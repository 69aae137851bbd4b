//! Committed log entries in, outcomes out, exactly once.

use super::Failure;
use super::counts::Counts;
use super::lease::{LeaseChange, note_changes};
use super::store::{Store, StoreTxn};
use super::write::{Outcome, execute};
use crate::api::{GrantedLease, Request};
use quoin_storage::mvcc::lease::{self, LeaseRecord};
use quoin_storage::mvcc::{self, Meta};
use quoin_storage::tree::{TreeRead, WARM_KEYS};

/// One committed log entry.
#[derive(Debug, Clone)]
pub struct Entry<'e, W> {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// How long its data is.
    pub bytes: usize,
    /// If it has changed the voters: what they are since, as consensus encodes them.
    pub conf_state: Option<Vec<u8>>,
    /// What is to be done, in order.
    pub commands: Vec<Command<'e, W>>,
}

/// One command of an entry.
#[derive(Debug, Clone)]
pub struct Command<'e, W> {
    /// Comes back beside the outcome; the applier does not look at it.
    pub waiter: W,
    /// The request, decoded but not validated.
    pub request: Request<'e>,
}

/// When a transaction of the tree is large enough. Both are looked at between entries, so the
/// size of an entry comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Commands.
    pub commands: usize,
    /// Bytes of entries.
    pub bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            commands: crate::limits::APPLY_COMMANDS_MAX,
            bytes: crate::limits::APPLY_BYTES_MAX,
        }
    }
}

/// How many bytes of pairs the answers to commands may hold.
///
/// That is a member's own affair, and no part of what is replicated: an answer that does not fit is
/// replaced by `ResponseTooLarge`, and its write takes place all the same.
pub trait AnswerRoom<W> {
    /// What is left for those of this waiter and whoever shares its room; what an answer holds is
    /// taken off it.
    fn room(&mut self, waiter: W) -> &mut usize;
}

/// One room for all.
impl<W> AnswerRoom<W> for usize {
    fn room(&mut self, _: W) -> &mut usize {
        self
    }
}

/// Owns the write side of a store and runs what the log has committed.
///
/// The log index up to which that was done is part of what each transaction publishes, so after
/// a crash the entries that follow the last durable root are applied again, each exactly once.
/// How entries are gathered into transactions changes no outcome.
///
/// **Space.** What has entered the log is applied, on this member and all others, now and after
/// every crash: an outcome must not depend on a member's disk. So commands that add data are
/// refused for want of space before they enter the log ([`validate::adds_data`] says which they
/// are), and those that have entered it live on the reserve. If even that is used up, applying
/// ends with `NoSpace`, and with it the process.
///
/// [`validate::adds_data`]: super::validate::adds_data
#[derive(Debug)]
pub struct Applier<S, W> {
    store: S,
    /// As last committed, except while a transaction is open.
    meta: Meta,
    limits: BatchLimits,
    /// Compactions whose answer waits for the purge.
    purging: Vec<(W, Outcome)>,
    /// What has become of leases since somebody asked.
    lease_changes: Vec<LeaseChange>,
    counts: Counts,
}

impl<S: Store, W: Copy> Applier<S, W> {
    /// Takes over a store where its last commit (or, after a crash, its last checkpoint) left it.
    pub fn open(mut store: S, limits: BatchLimits) -> Result<Applier<S, W>, Failure> {
        let user = store.user().to_vec();
        let meta = Meta::open(&store.begin(), &user)?;
        Ok(Applier {
            store,
            meta,
            limits,
            purging: Vec::new(),
            lease_changes: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Where the store stands.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What was applied since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for checkpoints. What is written through it is lost on the next commit's view
    /// of things: data changes only in [`Applier::apply`].
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Applies entries, which must follow those applied before without a gap; the ones that were
    /// applied already are skipped, and have no outcomes. The outcomes are pushed in the order of
    /// the commands when all is published; a physical compaction's comes later, from
    /// [`Applier::background`].
    ///
    /// After an error everything up to [`Meta::applied_index`] is applied, `outcomes` holds what
    /// came of it, and the rest has left no trace. The process is to stop.
    pub fn apply(
        &mut self,
        entries: &[Entry<'_, W>],
        room: &mut impl AnswerRoom<W>,
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        let applied = self.meta.applied_index;
        let mut rest = &entries[entries.partition_point(|entry| entry.index <= applied)..];
        while !rest.is_empty() {
            let batch = &rest[..self.batch_len(rest)];
            self.apply_batch(batch, room, outcomes)?;
            rest = &rest[batch.len()..];
        }
        Ok(())
    }

    /// How many of the entries, at least one, share the next transaction of the tree.
    fn batch_len(&self, entries: &[Entry<'_, W>]) -> usize {
        let (mut commands, mut bytes) = (0, 0);
        let full = entries.iter().position(|entry| {
            let full = commands >= self.limits.commands || bytes >= self.limits.bytes;
            commands += entry.commands.len();
            bytes += entry.bytes;
            full
        });
        full.unwrap_or(entries.len()).max(1)
    }

    /// Applies entries in one transaction, or does nothing at all.
    fn apply_batch(
        &mut self,
        entries: &[Entry<'_, W>],
        room: &mut impl AnswerRoom<W>,
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        let before = self.meta.clone();
        let (outcomes_before, purging_before) = (outcomes.len(), self.purging.len());
        let changes_before = self.lease_changes.len();
        let applied = self.try_batch(entries, room, outcomes);
        if applied.is_err() {
            self.meta = before;
            outcomes.truncate(outcomes_before);
            self.purging.truncate(purging_before);
            self.lease_changes.truncate(changes_before);
        }
        applied
    }

    fn try_batch(
        &mut self,
        entries: &[Entry<'_, W>],
        room: &mut impl AnswerRoom<W>,
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        let meta = &mut self.meta;
        let mut txn = self.store.begin();
        for entry in entries {
            assert_eq!(entry.index, meta.applied_index + 1, "the log has a gap");
            for (at, Command { waiter, request }) in entry.commands.iter().enumerate() {
                if at % WARM_KEYS == 0 {
                    warm(&txn, &entry.commands[at..]);
                }
                let outcome = execute(&mut txn, meta, request, room.room(*waiter))?;
                self.counts.note(request, &outcome);
                if !matches!(outcome, Outcome::Failed { .. }) {
                    note_changes(request, entry.index, &mut self.lease_changes);
                }
                if waits_for_purge(request, &outcome) && meta.purge_pending() {
                    self.purging.push((*waiter, outcome));
                } else {
                    outcomes.push((*waiter, outcome));
                }
            }
            meta.applied_index = entry.index;
            meta.applied_term = entry.term;
            if let Some(conf_state) = &entry.conf_state {
                meta.conf_state.clone_from(conf_state);
            }
        }
        txn.commit(&meta.encode()).map_err(mvcc::Error::from)?;
        Ok(())
    }

    /// Visits every lease there is.
    pub fn leases(&mut self, visit: &mut dyn FnMut(i64, LeaseRecord)) -> Result<(), Failure> {
        Ok(lease::all(&self.store.begin(), visit)?)
    }

    /// How many of these leases, at least one if there is one, have together no more than so many
    /// keys.
    pub fn leases_with_keys(
        &mut self,
        leases: &[GrantedLease],
        keys_max: u64,
    ) -> Result<usize, Failure> {
        if leases.len() <= 1 {
            return Ok(leases.len());
        }
        let txn = self.store.begin();
        let mut keys = 0;
        for (at, of) in leases.iter().enumerate() {
            keys += lease::key_count(&txn, of.id)?;
            if keys > keys_max {
                return Ok(at.max(1));
            }
        }
        Ok(leases.len())
    }

    /// Moves what has become of leases since the last call to the end of `into`, in order. To be
    /// called after each [`Applier::apply`].
    pub fn take_lease_changes(&mut self, into: &mut Vec<LeaseChange>) {
        into.append(&mut self.lease_changes);
    }

    /// Whether [`Applier::background`] has something to do.
    pub fn has_background(&self) -> bool {
        self.meta.purge_pending()
    }

    /// Purges what compactions have made unreadable: at most `events` events, in a transaction
    /// of its own. To be called between batches while [`Applier::has_background`]. Pushes the
    /// outcomes of physical compactions when nothing is left to purge.
    ///
    /// If it is refused for want of space, nothing has happened and it may be tried again later.
    pub fn background(
        &mut self,
        events: usize,
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        if !self.meta.purge_pending() {
            return Ok(());
        }
        let before = self.meta.clone();
        match self.purge(events) {
            Ok(true) => outcomes.append(&mut self.purging),
            Ok(false) => {}
            Err(error) => {
                self.meta = before;
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn purge(&mut self, events: usize) -> Result<bool, mvcc::Error> {
        let mut txn = self.store.begin();
        let done = mvcc::compact_step(&mut txn, &mut self.meta, events)?;
        txn.commit(&self.meta.encode())?;
        Ok(done)
    }
}

/// Has the processor fetch what the next commands will touch first, as far as that is plain.
fn warm<W>(tree: &impl TreeRead, commands: &[Command<'_, W>]) {
    let mut keys: [&[u8]; WARM_KEYS] = [b""; WARM_KEYS];
    let mut found = 0;
    for command in commands.iter().take(WARM_KEYS) {
        keys[found] = match &command.request {
            Request::Put(put) => put.key,
            Request::DeleteRange(delete) => delete.key,
            Request::Txn(txn) => match &txn.compare[..] {
                [first, ..] => first.key,
                [] => continue,
            },
            _ => continue,
        };
        found += 1;
    }
    // One alone has nobody to share the wait with.
    if found > 1 {
        mvcc::warm_keys(tree, &keys[..found]);
    }
}

fn waits_for_purge(request: &Request<'_>, outcome: &Outcome) -> bool {
    let physical = matches!(request, Request::Compact(compact) if compact.physical);
    physical && matches!(outcome, Outcome::Done { .. })
}
