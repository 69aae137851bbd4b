//! The order actor: puts writes into one order, and applies them.
//!
//! Inputs come in through [`Order::step`]; once they are all in, [`Order::turn`] does the work of
//! one loop turn, in this order: clock, proposals, what the log has made durable, application,
//! answers, reads, upkeep. So all writes that gathered while the loop was away share one message
//! to the log and one transaction of the tree, without any timer.
//!
//! Answers to writes leave only after the transaction that holds them is published, and only
//! entries that are durable are applied: both follow from the order of the calls below.
#![forbid(unsafe_code)]

mod answers;
mod applying;
mod auto_compact;
mod checkpoints;
mod config;
mod counts;
mod flight;
mod leases;
mod own;
mod space;
mod store;
mod watching;

pub use self::applying::Asker;
pub use self::auto_compact::AutoCompaction;
pub use self::config::{CheckpointConfig, Fatal, OrderConfig};
pub use self::counts::OrderCounts;
pub use self::store::Durable;

use self::applying::Applying;
use self::auto_compact::AutoCompactor;
use self::checkpoints::Checkpoints;
use self::flight::Flights;
use self::leases::Leases;
use self::own::OwnCommands;
use self::space::SpaceAlarm;
use self::watching::Watchers;
use super::messages::{
    FrontId, FrontInput, OrderInput, OrderOutput, Outcome, ProposalBatch, Replies, Reply,
};
use crate::api::{AlarmKind, CompactRequest, Error, Request};
use crate::apply::{Applier, Failure, StoreTxn, is_raised, validate};
use crate::consensus::confchange::{decode_conf_state, voters};
use crate::consensus::{Core, Handled, LogEntry, ProposeError, Role, Start, StartError};
use crate::limits;
use crate::propose::command::{Batch, BatchId};
use crate::propose::reads::ReadBarriers;
use crate::propose::waiters::WaiterId;
use crate::wire;
use quoin_storage::log::{self, HardState};
use quoin_storage::mvcc::{self, Meta};

/// What the log holds at start.
#[derive(Debug, Default)]
pub struct RecoveredLog {
    /// The last hard state.
    pub hard_state: HardState,
    /// The index and term of the entry before the first; zeros for a log that is whole.
    pub base_index: u64,
    /// See `base_index`.
    pub base_term: u64,
    /// The entries.
    pub entries: Vec<LogEntry>,
}

impl From<log::Recovered> for RecoveredLog {
    fn from(recovered: log::Recovered) -> RecoveredLog {
        let entry = |entry: log::Entry| LogEntry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            data: entry.data.into(),
            context: entry.context.into(),
        };
        RecoveredLog {
            hard_state: recovered.hard_state,
            base_index: recovered.base_index,
            base_term: recovered.base_term,
            entries: recovered.entries.into_iter().map(entry).collect(),
        }
    }
}

/// When the order actor wants its next turn if no input comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// There is work left: as soon as others have had their turn.
    pub now: bool,
    /// At the latest at this time.
    pub at_ns: u64,
}

/// What fronts have been told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    local_reads: bool,
    term: u64,
    has_leader: bool,
}

/// The order actor.
#[derive(Debug)]
pub struct Order<S: Durable> {
    config: OrderConfig,
    core: Core,
    handled: Handled,
    applier: Applier<S, Asker>,
    applying: Applying,
    flights: Flights,
    leases: Leases,
    auto_compactor: AutoCompactor,
    own: OwnCommands,
    reads: ReadBarriers,
    checkpoints: Checkpoints,
    /// The term in which this member leads and has proposed.
    led_term: Option<u64>,
    told: Option<Told>,
    /// Answers of this turn, by front.
    replies: Vec<Vec<Reply>>,
    last_tick_ns: u64,
    /// What the log was last told to forget.
    cut: u64,
    /// Compaction found no space: not before this.
    purge_at_ns: u64,
    /// Who watches where, and what they have been told.
    watchers: Watchers,
    /// A purge waits for them until then.
    watch_wait_ns: u64,
    /// An append is held back for want of space.
    log_full: bool,
    space_alarm: SpaceAlarm,
    /// Since when the node drains.
    draining: Option<u64>,
    drained: bool,
    failed: bool,
    /// Commands that did not reach the log.
    refused: u64,
    leader_changes: u64,
}

impl<S: Durable> Order<S> {
    /// Starts from what log and tree hold. The first outputs come with the first turn.
    pub fn new(
        config: OrderConfig,
        log: RecoveredLog,
        applier: Applier<S, Asker>,
        seed: u64,
        now_ns: u64,
    ) -> Result<Order<S>, StartError> {
        let meta = applier.meta();
        let conf_state = if meta.conf_state.is_empty() {
            voters(&config.voters)
        } else {
            decode_conf_state(&meta.conf_state).map_err(StartError::ConfState)?
        };
        let start = Start {
            hard_state: log.hard_state,
            base_index: log.base_index,
            base_term: log.base_term,
            entries: log.entries,
            applied_index: meta.applied_index,
            applied_term: meta.applied_term,
            conf_state,
            founding: config.founding,
        };
        let mut handled = Handled::default();
        let core = Core::new(config.core.clone(), start, seed, &mut handled)?;
        let member = config.core.member;
        Ok(Order {
            core,
            handled,
            applying: Applying::new(member, config.boot, config.fronts),
            leases: Leases::new(&config),
            auto_compactor: AutoCompactor::new(config.auto_compaction, now_ns),
            own: OwnCommands::new(&config),
            flights: Flights::new(config.in_flight_bytes, config.in_flight_commands),
            reads: ReadBarriers::new(
                member,
                config.boot,
                config.read_barriers,
                config.read_retry_ns,
            ),
            checkpoints: Checkpoints::new(config.checkpoint, now_ns),
            led_term: None,
            told: None,
            replies: (0..config.fronts).map(|_| Vec::new()).collect(),
            last_tick_ns: now_ns,
            cut: log.base_index,
            purge_at_ns: 0,
            watchers: Watchers::new(config.fronts),
            watch_wait_ns: 0,
            log_full: false,
            space_alarm: SpaceAlarm::default(),
            draining: None,
            drained: false,
            failed: false,
            refused: 0,
            leader_changes: 0,
            applier,
            config,
        })
    }

    /// Takes one input. Most work waits for the turn.
    pub fn step(&mut self, now_ns: u64, input: OrderInput, out: &mut Vec<OrderOutput>) {
        if self.failed {
            return;
        }
        match input {
            OrderInput::Propose(batch) => self.admit(batch),
            OrderInput::ReadBarrier { front, token } => {
                if !self.reads.push((front, token)) {
                    out.push(read_ready(front, token, false));
                }
            }
            OrderInput::Leases(asks) => {
                let revision = self.applier.meta().revision;
                self.leases.ask(asks, revision, now_ns);
            }
            OrderInput::Appended { number } => self.core.persisted(number, &mut self.handled),
            OrderInput::LogFull(full) => self.log_full = full,
            OrderInput::Checkpointed(done) => {
                if !self.applier.store_mut().checkpointed(*done) {
                    self.checkpoints.failed(now_ns);
                }
                self.cut_log(out);
            }
            // A message that the gateway refuses is dropped; its sender learns nothing.
            OrderInput::Peer(message) => {
                let _ = self.core.step(*message);
            }
            OrderInput::Watching { front, on, seen } => self.watchers.told(front, on, seen),
            OrderInput::HoldPurge { front, on } => {
                self.watchers.hold_purge(front, on, now_ns, out);
            }
            OrderInput::Reading { front, oldest } => self.watchers.reads(front, oldest),
            OrderInput::AnswersTaken { front, bytes } => self.applying.rooms.taken(front, bytes),
            OrderInput::Tick => {}
            OrderInput::Drain => {
                self.draining.get_or_insert(now_ns);
            }
        }
    }

    /// Does the work of one loop turn.
    pub fn turn(&mut self, now_ns: u64, out: &mut Vec<OrderOutput>) -> Next {
        if self.failed {
            return Next {
                now: false,
                at_ns: u64::MAX,
            };
        }
        self.tick(now_ns);
        // Before anything new is proposed: what was proposed under an earlier leadership is lost
        // even if this member leads again by now.
        self.notice_leadership(out);
        self.propose();
        self.collect(out);
        self.notice_leadership(out);
        if let Err(fatal) = self.work(now_ns, out) {
            self.failed = true;
            out.push(OrderOutput::Fatal(Box::new(fatal)));
            return Next {
                now: false,
                at_ns: u64::MAX,
            };
        }
        self.drain(now_ns, out);
        self.next(now_ns)
    }

    fn work(&mut self, now_ns: u64, out: &mut Vec<OrderOutput>) -> Result<(), Fatal> {
        self.apply(now_ns)?;
        self.keep_house(now_ns)?;
        self.tell_fronts(out);
        self.send_replies(out);
        self.watchers.tell(&self.applier.meta().horizon(), out);
        self.serve_reads(now_ns, out);
        // What applying and asking has brought about leaves in this turn too.
        self.collect(out);
        self.checkpoint(now_ns, out)
    }

    fn admit(&mut self, batch: ProposalBatch) {
        let id = BatchId {
            member: self.config.core.member,
            boot: self.config.boot,
            front: batch.front.0,
            sequence: batch.sequence,
        };
        assert_eq!(
            Batch::head(&batch.bytes),
            Some((id, batch.count)),
            "a front's batch is not what its envelope says"
        );
        let revision = self.applier.meta().revision;
        let refused = if self.draining.is_some() {
            Err((batch, Error::Stopped))
        } else if self.log_full {
            self.space_alarm.refused();
            Err((batch, Error::NoSpace))
        } else {
            let batch = if self.applier.store().full() {
                let asked = batch.count;
                let kept = only_what_frees(&mut self.replies, batch, revision);
                if kept.as_ref().is_none_or(|kept| kept.count < asked) {
                    self.space_alarm.refused();
                }
                kept
            } else {
                Some(batch)
            };
            let Some(batch) = batch else { return };
            let taken = self.flights.take(batch);
            taken.map_err(|batch| (batch, Error::TooManyRequests))
        };
        if let Err((batch, error)) = refused {
            self.refused += u64::from(batch.count);
            refuse(&mut self.replies, &batch, revision, error);
        }
    }

    fn tick(&mut self, now_ns: u64) {
        let tick = self.config.tick_ns;
        if now_ns.saturating_sub(self.last_tick_ns) < tick {
            return;
        }
        // After a stall one tick is made up for and the others are dropped: others must not be
        // taken for dead because this loop was away.
        self.last_tick_ns = (self.last_tick_ns + tick).max(now_ns.saturating_sub(tick));
        self.core.tick();
    }

    fn propose(&mut self) {
        let gathered = self.flights.gathered();
        if gathered.is_empty() || self.log_is_behind() {
            return;
        }
        let batches = gathered.iter().map(|flight| flight.bytes.clone());
        match self.core.propose(batches) {
            Ok(()) => self.flights.proposed(),
            Err(error) => {
                let error = match error {
                    ProposeError::NotLeader => Error::NoLeader,
                    ProposeError::TooMuch | ProposeError::ChangeRefused => Error::TooManyRequests,
                };
                let (replies, revision) = (&mut self.replies, self.applier.meta().revision);
                let count = &mut self.refused;
                self.flights.refuse_gathered(|flight| {
                    *count += u64::from(flight.count);
                    refuse(replies, &flight, revision, error);
                });
            }
        }
    }

    /// Takes from consensus what it has ready, and passes on what is for others.
    fn collect(&mut self, out: &mut Vec<OrderOutput>) {
        self.core.handle(&mut self.handled);
        out.extend(self.handled.appends.drain(..).map(OrderOutput::Append));
        let messages = self.handled.messages.drain(..);
        out.extend(messages.map(|message| OrderOutput::Peer(Box::new(message))));
        for read in self.handled.reads.drain(..) {
            self.reads.answered(read.context, read.index);
        }
    }

    /// When leadership is lost, everything that waited for it is answered: a write's outcome is
    /// unknown, a read is to be asked again.
    fn notice_leadership(&mut self, out: &mut Vec<OrderOutput>) {
        let leads = (self.core.role() == Role::Leader).then(|| self.core.term());
        if leads == self.led_term {
            return;
        }
        self.leader_changes += u64::from(leads.is_some());
        if std::mem::replace(&mut self.led_term, leads).is_none() {
            // Nothing is proposed without leadership.
            return;
        }
        self.leases.lose();
        self.auto_compactor = AutoCompactor::new(self.config.auto_compaction, self.last_tick_ns);
        let (replies, revision) = (&mut self.replies, self.applier.meta().revision);
        self.flights.lose_proposed(|flight| {
            refuse(replies, &flight, revision, Error::LeaderChanged);
        });
        self.reads
            .fail_all(|(front, token)| out.push(read_ready(front, token, false)));
    }

    fn apply(&mut self, now_ns: u64) -> Result<(), Fatal> {
        let store = self.applier.store();
        let paused = self.checkpoints.pause(store);
        if !paused && !self.handled.committed.is_empty() {
            let (replies, revision) = (&mut self.replies, self.applier.meta().revision);
            let flights = &mut self.flights;
            let applied = self.applying.run(
                &mut self.handled.committed,
                &self.config,
                &mut self.core,
                &mut self.applier,
                |id| {
                    flights.applied(id, |flight| {
                        refuse(replies, &flight, revision, Error::LeaderChanged);
                    })
                },
            )?;
            self.checkpoints.applied(applied.entries, applied.bytes);
            self.core.applied(self.applier.meta().applied_index);
        }
        let horizon = self.applier.meta().horizon();
        self.watch_wait_ns = self.watchers.purge_at(&horizon, now_ns);
        if self.applier.has_background() && !paused && now_ns >= self.purge_from() {
            self.purge(now_ns)?;
        }
        self.applying.take_replies(&mut self.replies);
        Ok(())
    }

    /// Lets the leader's clocks, of leases and of compaction, go on, and proposes what follows.
    fn keep_house(&mut self, now_ns: u64) -> Result<(), Fatal> {
        let leads = self.serves_alone();
        self.leases
            .follow(leads, &mut self.applier, now_ns)
            .map_err(Fatal::Store)?;
        if self.log_full || self.draining.is_some() || self.log_is_behind() {
            return Ok(());
        }
        let (applier, own) = (&mut self.applier, &mut self.own);
        let upkeep = self.leases.upkeep(applier, now_ns, own);
        let upkeep = upkeep.map_err(Fatal::Store)?;
        let revision = applier.meta().revision;
        if leads && let Some(revision) = self.auto_compactor.look(now_ns, revision) {
            own.add(&Request::Compact(CompactRequest {
                revision,
                physical: false,
            }));
        }
        let raised = is_raised(applier.meta(), AlarmKind::NoSpace);
        if leads && self.space_alarm.due(raised, now_ns) {
            own.add(&space::raise(self.config.core.member));
        }
        if let Some(batch) = own.take()
            && self.core.propose([batch].into_iter()).is_err()
        {
            // A compaction is tried again when the next is due, an alarm a little later.
            self.leases.put_back(upkeep);
        }
        Ok(())
    }

    /// Whether what this member has applied is all that was ever acknowledged: it is the sole
    /// voter, leads, and has applied an entry of its own term.
    fn serves_alone(&self) -> bool {
        self.core.is_sole_voter()
            && self.core.role() == Role::Leader
            && self.applier.meta().applied_term == self.core.term()
    }

    /// The log has as many appends to make durable as it may: what comes now gathers for the next,
    /// which is made when it reports some of them.
    fn log_is_behind(&self) -> bool {
        self.core.appends_under_way() >= limits::LOG_QUEUE_REQUESTS
    }

    /// When compaction may go on.
    fn purge_from(&self) -> u64 {
        self.purge_at_ns.max(self.watch_wait_ns)
    }

    fn purge(&mut self, now_ns: u64) -> Result<(), Fatal> {
        match self
            .applying
            .purge(&mut self.applier, self.config.purge_per_turn)
        {
            Ok(()) => Ok(()),
            Err(Failure::Refused(_)) => {
                self.purge_at_ns = now_ns.saturating_add(self.config.checkpoint.retry_ns);
                Ok(())
            }
            Err(failure) => Err(Fatal::Store(failure)),
        }
    }

    fn tell_fronts(&mut self, out: &mut Vec<OrderOutput>) {
        let term = self.core.term();
        let now = Told {
            local_reads: self.serves_alone(),
            term,
            has_leader: self.core.leader() != 0,
        };
        let before = self.told.replace(now);
        if before == Some(now) {
            return;
        }
        for front in (0..self.config.fronts).map(FrontId) {
            if before.is_none_or(|b| (b.term, b.has_leader) != (now.term, now.has_leader)) {
                let has_leader = now.has_leader;
                out.push(OrderOutput::Front(
                    front,
                    FrontInput::Term { term, has_leader },
                ));
            }
            if before.is_none_or(|b| b.local_reads != now.local_reads) {
                out.push(OrderOutput::Front(
                    front,
                    FrontInput::LocalReads(now.local_reads),
                ));
            }
        }
    }

    fn send_replies(&mut self, out: &mut Vec<OrderOutput>) {
        for (front, replies) in self.replies.iter_mut().enumerate() {
            if !replies.is_empty() {
                let replies = Replies {
                    list: std::mem::take(replies),
                    answer_bytes: self.applying.rooms.sent(front),
                };
                out.push(OrderOutput::Front(
                    FrontId(front as u16),
                    FrontInput::Replies(replies),
                ));
            }
        }
        self.leases.send(out);
    }

    fn serve_reads(&mut self, now_ns: u64, out: &mut Vec<OrderOutput>) {
        if self.reads.is_empty() {
            return;
        }
        if self.core.leader() == 0 {
            self.reads
                .fail_all(|(front, token)| out.push(read_ready(front, token, false)));
            return;
        }
        if let Some(context) = self.reads.ask(now_ns) {
            self.core.read_index(context);
            self.collect(out);
        }
        let applied = self.applier.meta().applied_index;
        self.reads.release(applied, |(front, token)| {
            out.push(read_ready(front, token, true))
        });
    }

    fn checkpoint(&mut self, now_ns: u64, out: &mut Vec<OrderOutput>) -> Result<(), Fatal> {
        let store = self.applier.store();
        if store.checkpointing() {
            return Ok(());
        }
        // A log that is full is waiting for a cut, and a cut follows the older of two
        // checkpoints: make one even if nothing has changed since the last.
        let relief = self.log_full && self.safe_index() < self.applier.meta().applied_index;
        if !store.changed() && !relief {
            return Ok(());
        }
        let last = self.draining.is_some() && self.flights.is_empty();
        if !last && !relief && !self.checkpoints.due(now_ns, store) {
            return Ok(());
        }
        if !self.checkpoints.allowed(now_ns) {
            return Ok(());
        }
        if !store.changed() {
            self.touch()?;
        }
        if let Some(job) = self.applier.store_mut().checkpoint() {
            self.checkpoints.begin(now_ns);
            out.push(OrderOutput::Checkpoint(Box::new(job)));
        }
        Ok(())
    }

    /// Commits the state once more as it is.
    fn touch(&mut self) -> Result<(), Fatal> {
        let store = self.applier.store_mut();
        let user = store.user().to_vec();
        let committed = store.begin().commit(&user);
        committed.map_err(|error| Fatal::Store(mvcc::Error::from(error).into()))
    }

    /// What the log may forget: what the oldest state covers to which the tree may fall back.
    fn safe_index(&self) -> u64 {
        // The blob is our own of an earlier commit, read back by the tree under its checksum.
        Meta::decode(self.applier.store().safe_user()).map_or(0, |meta| meta.applied_index)
    }

    fn cut_log(&mut self, out: &mut Vec<OrderOutput>) {
        let safe = self.safe_index();
        if safe > self.cut {
            self.cut = safe;
            out.push(OrderOutput::CutLog { index: safe });
        }
    }

    fn drain(&mut self, now_ns: u64, out: &mut Vec<OrderOutput>) {
        let Some(since) = self.draining else {
            return;
        };
        let out_of_time = now_ns.saturating_sub(since) >= self.config.drain_ns;
        if out_of_time && !self.flights.is_empty() {
            let (replies, revision) = (&mut self.replies, self.applier.meta().revision);
            self.flights.lose_proposed(|flight| {
                refuse(replies, &flight, revision, Error::Stopped);
            });
            self.send_replies(out);
        }
        let store = self.applier.store();
        let settled = self.flights.is_empty()
            && self.handled.committed.is_empty()
            && self.core.is_durable()
            && !store.checkpointing()
            && (!store.changed() || out_of_time);
        if settled && !self.drained {
            self.drained = true;
            self.reads
                .fail_all(|(front, token)| out.push(read_ready(front, token, false)));
            out.push(OrderOutput::Drained);
        }
    }

    fn next(&self, now_ns: u64) -> Next {
        let store = self.applier.store();
        let paused = self.checkpoints.pause(store);
        let purging = self.applier.has_background();
        let mut at_ns = self.last_tick_ns + self.config.tick_ns;
        if store.changed() && !store.checkpointing() {
            at_ns = at_ns.min(self.checkpoints.due_at(store.full()));
        }
        if self.draining.is_none() && !self.log_full && !self.log_is_behind() {
            let clocks = self.leases.next_ns().min(self.auto_compactor.next_ns());
            at_ns = at_ns.min(clocks);
        }
        if purging {
            at_ns = at_ns.min(self.purge_from().max(now_ns));
        }
        let waiting =
            !self.handled.committed.is_empty() || (purging && now_ns >= self.purge_from());
        Next {
            now: waiting && !paused,
            at_ns: at_ns.max(now_ns),
        }
    }

    /// Consensus, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The state machine, to look at.
    pub fn applier(&self) -> &Applier<S, Asker> {
        &self.applier
    }
}

fn read_ready(front: FrontId, token: u64, ok: bool) -> OrderOutput {
    OrderOutput::Front(front, FrontInput::ReadReady { token, ok })
}

/// Answers every command of a batch with the same error.
fn refuse(replies: &mut [Vec<Reply>], flight: &ProposalBatch, revision: i64, error: Error) {
    let Some(replies) = replies.get_mut(usize::from(flight.front.0)) else {
        return;
    };
    // Fronts build batches with the builder alone; one that is no batch has nobody waiting.
    let Ok(batch) = Batch::decode(&flight.bytes) else {
        return;
    };
    replies.extend(batch.commands().map(|command| Reply {
        waiter: WaiterId(command.waiter),
        outcome: Outcome::Failed { revision, error },
    }));
}

/// On a full disk: refuses the commands of a batch that would add data, and leaves the others.
///
/// This is the one place where space is judged. Once a command is in the log it is applied, now
/// and after every crash, whatever the disk says then: outcomes must not depend on it.
fn only_what_frees(
    replies: &mut [Vec<Reply>],
    batch: ProposalBatch,
    revision: i64,
) -> Option<ProposalBatch> {
    let decoded = Batch::decode(&batch.bytes).ok()?;
    let built = decoded.keep(|command| {
        let request = wire::decode_request(command.kind.wire_kind(), command.body);
        let frees = request.is_ok_and(|request| !validate::adds_data(&request));
        if !frees && let Some(replies) = replies.get_mut(usize::from(batch.front.0)) {
            let outcome = Outcome::Failed {
                revision,
                error: Error::NoSpace,
            };
            replies.push(Reply {
                waiter: WaiterId(command.waiter),
                outcome,
            });
        }
        frees
    })?;
    Some(ProposalBatch {
        front: batch.front,
        sequence: built.sequence,
        count: built.count,
        bytes: built.bytes,
    })
}
