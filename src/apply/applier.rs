//! Committed log entries in, outcomes out, exactly once.

use super::store::{Store, StoreTxn};
use super::write::{Outcome, execute};
use super::{Failure, validate};
use crate::api::{Error, Request};
use quoin_storage::mvcc::{self, Meta};

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
    /// Bytes that all answers of one call of [`Applier::apply`] may take. One that does not fit
    /// any more is replaced by `ResponseTooLarge`, although its write has taken place.
    pub answer_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            commands: crate::limits::APPLY_COMMANDS_MAX,
            bytes: crate::limits::APPLY_BYTES_MAX,
            answer_bytes: crate::limits::APPLY_ANSWER_BYTES_MAX,
        }
    }
}

/// Owns the write side of a store and runs what the log has committed.
///
/// The log index up to which that was done is part of what each transaction publishes, so after
/// a crash the entries that follow the last durable root are applied again, each exactly once.
/// How entries are gathered into transactions changes no outcome.
///
/// **Space.** A store may refuse commands that would add data while only its reserve is left
/// ([`StoreTxn::has_room`]); deletes and compaction go on. A store that is applied to again after
/// a crash must not, for then its verdict could be another: there room is looked at before a
/// command enters the log.
#[derive(Debug)]
pub struct Applier<S, W> {
    store: S,
    /// As last committed, except while a transaction is open.
    meta: Meta,
    limits: BatchLimits,
    /// Compactions whose answer waits for the purge.
    purging: Vec<(W, Outcome)>,
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
        })
    }

    /// Where the store stands.
    pub fn meta(&self) -> &Meta {
        &self.meta
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
    /// After an error the applier has changed nothing since its last commit, but some outcomes
    /// may be of earlier commits of this call: the process is to stop.
    pub fn apply(
        &mut self,
        entries: &[Entry<'_, W>],
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        let applied = self.meta.applied_index;
        let mut room = self.limits.answer_bytes;
        let mut rest = &entries[entries.partition_point(|entry| entry.index <= applied)..];
        while !rest.is_empty() {
            let batch = &rest[..self.batch_len(rest)];
            self.apply_batch(batch, &mut room, outcomes)?;
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

    /// Applies entries in one transaction; over again, with another verdict, if space ran out in
    /// the middle of a command.
    fn apply_batch(
        &mut self,
        entries: &[Entry<'_, W>],
        room: &mut usize,
        outcomes: &mut Vec<(W, Outcome)>,
    ) -> Result<(), Failure> {
        let before = self.meta.clone();
        let (outcomes_before, purging_before) = (outcomes.len(), self.purging.len());
        let room_before = *room;
        let mut rule = SpaceRule::default();
        loop {
            let mut at = 0;
            let failure = match self.try_batch(entries, (room, outcomes), &rule, &mut at) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            self.meta.clone_from(&before);
            *room = room_before;
            outcomes.truncate(outcomes_before);
            self.purging.truncate(purging_before);
            match failure {
                Failure::Refused(Error::NoSpace) if rule.learn(at) => {}
                failure => return Err(failure),
            }
        }
    }

    /// `at` counts the commands, so that after an error it names the culprit.
    fn try_batch(
        &mut self,
        entries: &[Entry<'_, W>],
        (room, outcomes): (&mut usize, &mut Vec<(W, Outcome)>),
        rule: &SpaceRule,
        at: &mut usize,
    ) -> Result<(), Failure> {
        let meta = &mut self.meta;
        let mut txn = self.store.begin();
        for entry in entries {
            assert_eq!(entry.index, meta.applied_index + 1, "the log has a gap");
            for command in &entry.commands {
                let request = &command.request;
                let outcome = if rule.refuses(*at, request, &txn) {
                    Outcome::Failed {
                        revision: meta.revision,
                        error: Error::NoSpace,
                    }
                } else {
                    execute(&mut txn, meta, request, room)?
                };
                if waits_for_purge(request, &outcome) && meta.purge_pending() {
                    self.purging.push((command.waiter, outcome));
                } else {
                    outcomes.push((command.waiter, outcome));
                }
                *at += 1;
            }
            meta.applied_index = entry.index;
            meta.applied_term = entry.term;
            if let Some(conf_state) = &entry.conf_state {
                meta.conf_state.clone_from(conf_state);
            }
        }
        // A commit that has no space is none of the commands' fault; `rule` cannot learn from it.
        *at = usize::MAX;
        txn.commit(&meta.encode()).map_err(mvcc::Error::from)?;
        Ok(())
    }

    /// Whether [`Applier::background`] has something to do.
    pub fn has_background(&self) -> bool {
        self.meta.purge_pending()
    }

    /// Purges what compactions have made unreadable: at most `events` events, in a transaction
    /// of its own. To be called between batches while [`Applier::has_background`]. Pushes the
    /// outcomes of physical compactions when nothing is left to purge.
    ///
    /// If the error is [`Error::NoSpace`], nothing has happened and it may be tried again later.
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

fn waits_for_purge(request: &Request<'_>, outcome: &Outcome) -> bool {
    let physical = matches!(request, Request::Compact(compact) if compact.physical);
    physical && matches!(outcome, Outcome::Done { .. })
}

/// Which commands of a batch are refused for want of space.
///
/// Usually the question is put to the tree, command by command. But a command can need more than
/// the reserve; then the batch is run again with what was learnt from that.
#[derive(Debug, Default)]
struct SpaceRule {
    /// Commands (by their number in the batch) that ran out of space themselves, ascending:
    /// nothing before the first is ever judged anew.
    culprits: Vec<usize>,
}

/// So often is a batch run again; then everything from the first culprit on is refused.
const CULPRITS_MAX: usize = 4;

impl SpaceRule {
    /// Takes note that a command ran out of space; `false` if that cannot be helped.
    fn learn(&mut self, at: usize) -> bool {
        let useful = at != usize::MAX && self.culprits.len() <= CULPRITS_MAX;
        if useful {
            self.culprits.push(at);
        }
        useful
    }

    fn refuses(&self, at: usize, request: &Request<'_>, txn: &impl StoreTxn) -> bool {
        if matches!(request, Request::Compact(_)) {
            return false;
        }
        let adds = validate::adds_data(request);
        match self.culprits.first() {
            Some(&first) if at >= first => {
                adds || self.culprits.len() > CULPRITS_MAX || self.culprits.contains(&at)
            }
            _ => adds && !txn.has_room(),
        }
    }
}
