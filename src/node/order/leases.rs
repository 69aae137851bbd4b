//! Leases on the leader: its clock, the fronts' questions, and the commands of its own.

use super::own::OwnCommands;
use super::{Asker, OrderConfig};
use crate::api::{GrantedLease, LeaseCheckpointRequest, LeaseExpireRequest, Request};
use crate::apply::{Applier, Failure, LeaseChange, Store};
use crate::lease::{Lessor, Upkeep};
use crate::limits;
use crate::node::messages::{FrontId, FrontInput, LeaseAnswers, LeaseAsks, OrderOutput};
use crate::propose::waiters::WaiterId;

/// Who waits for a renewal.
type Waiting = (FrontId, WaiterId);

/// Everything about leases that the order actor keeps.
#[derive(Debug)]
pub(super) struct Leases {
    /// While this member leads and has applied an entry of its own term.
    lessor: Option<Lessor<Waiting>>,
    /// Answers of this turn, by front.
    answers: Vec<LeaseAnswers>,
    changes: Vec<LeaseChange>,
    /// Since the start.
    renewals: u64,
}

impl Leases {
    pub fn new(config: &OrderConfig) -> Leases {
        Leases {
            lessor: None,
            answers: (0..config.fronts)
                .map(|_| LeaseAnswers::default())
                .collect(),
            changes: Vec::new(),
            renewals: 0,
        }
    }

    /// How many leases there are, and how often one was renewed.
    pub fn counts(&self) -> (usize, u64) {
        let leases = self.lessor.as_ref().map_or(0, Lessor::len);
        (leases, self.renewals)
    }

    /// Answers what can be answered at once.
    pub fn ask(&mut self, asks: LeaseAsks, revision: i64, now_ns: u64) {
        let Some(answers) = self.answers.get_mut(usize::from(asks.front.0)) else {
            return;
        };
        answers.revision = answers.revision.max(revision);
        let Some(lessor) = &mut self.lessor else {
            let times = asks.times.iter().map(|ask| ask.waiter);
            let kept = asks.keep_alives.iter().map(|(waiter, _)| *waiter);
            answers.refused.extend(kept.chain(times).chain(asks.lists));
            return;
        };
        for (waiter, id) in asks.keep_alives {
            if let Some(ttl) = lessor.keep_alive(id, (asks.front, waiter), now_ns) {
                answers.kept.push((waiter, id, ttl));
                self.renewals += u64::from(ttl > 0);
            }
        }
        for ask in asks.times {
            let left = lessor.seconds_left(ask.id, now_ns).unwrap_or(-1);
            answers.times.push((ask, left));
        }
        answers.lists.extend(asks.lists);
    }

    /// This member leads no more, or under another term: whoever waits has waited in vain.
    pub fn lose(&mut self) {
        let Some(mut lessor) = self.lessor.take() else {
            return;
        };
        for (front, waiter) in lessor.give_up() {
            if let Some(answers) = self.answers.get_mut(usize::from(front.0)) {
                answers.refused.push(waiter);
            }
        }
    }

    /// Follows what was applied. If this member leads, and knows by now all that its predecessors
    /// have decided, it begins or goes on with the clock.
    pub fn follow<S: Store>(
        &mut self,
        leads: bool,
        applier: &mut Applier<S, Asker>,
        now_ns: u64,
    ) -> Result<(), Failure> {
        self.changes.clear();
        applier.take_lease_changes(&mut self.changes);
        if !leads {
            self.lose();
            return Ok(());
        }
        let Some(lessor) = &mut self.lessor else {
            // What has changed in this turn is part of the state.
            let mut lessor = Lessor::new(now_ns);
            applier.leases(&mut |id, record| {
                let granted_at = record.granted_at;
                let lease = GrantedLease { id, granted_at };
                lessor.add(lease, record.ttl, record.left(), now_ns);
            })?;
            self.lessor = Some(lessor);
            return Ok(());
        };
        let (answers, revision) = (&mut self.answers, applier.meta().revision);
        for change in self.changes.drain(..) {
            let id = match change {
                LeaseChange::Granted { lease, .. }
                | LeaseChange::Expired(lease)
                | LeaseChange::Written { lease, .. } => lease.id,
                LeaseChange::Revoked { id } => id,
            };
            let answer = |(front, waiter): Waiting, ttl| {
                if let Some(answers) = answers.get_mut(usize::from(front.0)) {
                    answers.revision = answers.revision.max(revision);
                    answers.kept.push((waiter, id, ttl));
                }
            };
            match change {
                LeaseChange::Granted { lease, ttl } => lessor.add(lease, ttl, ttl, now_ns),
                LeaseChange::Revoked { id } => lessor.revoked(id, answer),
                LeaseChange::Expired(lease) => lessor.expired(lease, answer),
                LeaseChange::Written { lease, remaining } => {
                    lessor.written(lease, remaining, now_ns, answer);
                }
            }
        }
        Ok(())
    }

    /// Lets time pass, and adds what is to be proposed to the commands of this turn. Returns what
    /// they say, for [`Leases::put_back`].
    pub fn upkeep<S: Store>(
        &mut self,
        applier: &mut Applier<S, Asker>,
        now_ns: u64,
        commands: &mut OwnCommands,
    ) -> Result<Upkeep, Failure> {
        let Some(lessor) = &mut self.lessor else {
            return Ok(Upkeep::default());
        };
        lessor.look(now_ns);
        let mut upkeep = lessor.take_upkeep();
        let fits = applier.leases_with_keys(&upkeep.expire, limits::LEASE_KEYS_PER_TURN)?;
        if fits < upkeep.expire.len() {
            let expire = upkeep.expire.split_off(fits);
            lessor.put_back(Upkeep {
                expire,
                write: Vec::new(),
            });
        }
        if !upkeep.write.is_empty() {
            let leases = upkeep.write.clone();
            let request = Request::LeaseCheckpoint(LeaseCheckpointRequest { leases });
            commands.add(&request);
        }
        if !upkeep.expire.is_empty() {
            let leases = upkeep.expire.clone();
            commands.add(&Request::LeaseExpire(LeaseExpireRequest { leases }));
        }
        Ok(upkeep)
    }

    /// What could not be proposed is for a later turn.
    pub fn put_back(&mut self, upkeep: Upkeep) {
        if let Some(lessor) = &mut self.lessor {
            lessor.put_back(upkeep);
        }
    }

    /// When the clock must be looked at.
    pub fn next_ns(&self) -> u64 {
        self.lessor.as_ref().map_or(u64::MAX, Lessor::next_ns)
    }

    /// Sends the answers of this turn.
    pub fn send(&mut self, out: &mut Vec<OrderOutput>) {
        for (front, slot) in self.answers.iter_mut().enumerate() {
            if slot.is_empty() {
                continue;
            }
            let mut answers = std::mem::take(slot);
            if !answers.lists.is_empty()
                && let Some(lessor) = &self.lessor
            {
                answers.deadlines = lessor.deadlines();
            }
            let front = FrontId(front as u16);
            out.push(OrderOutput::Front(front, FrontInput::Leases(answers)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::messages::LeaseTimeAsk;

    const FRONT: FrontId = FrontId(1);

    fn asks(keep: &[(u64, i64)], times: &[u64], lists: &[u64]) -> LeaseAsks {
        let ask = |waiter: &u64| LeaseTimeAsk {
            waiter: WaiterId(*waiter),
            id: 7,
            body: Vec::new(),
        };
        LeaseAsks {
            front: FRONT,
            keep_alives: keep.iter().map(|(who, id)| (WaiterId(*who), *id)).collect(),
            times: times.iter().map(ask).collect(),
            lists: lists.iter().copied().map(WaiterId).collect(),
        }
    }

    /// What is sent at the end of a turn: who was refused, and how many were answered.
    fn sent(leases: &mut Leases) -> (Vec<u64>, usize) {
        let mut out = Vec::new();
        leases.send(&mut out);
        match out.pop() {
            None => (Vec::new(), 0),
            Some(OrderOutput::Front(FRONT, FrontInput::Leases(answers))) => {
                let refused = answers.refused.iter().map(|waiter| waiter.0).collect();
                let answered = answers.kept.len() + answers.times.len() + answers.lists.len();
                (refused, answered)
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn whoever_asks_in_vain_is_told_so() {
        let mut leases = Leases {
            lessor: None,
            answers: (0..3).map(|_| LeaseAnswers::default()).collect(),
            changes: Vec::new(),
            renewals: 0,
        };
        leases.ask(asks(&[(1, 7)], &[2], &[3]), 5, 0);
        assert_eq!(sent(&mut leases), (vec![1, 2, 3], 0));

        let mut lessor = Lessor::new(0);
        let lease = GrantedLease {
            id: 7,
            granted_at: 1,
        };
        // What is on record is struck out before a renewal is answered.
        lessor.add(lease, 100, 50, 0);
        leases.lessor = Some(lessor);
        leases.ask(asks(&[(1, 7), (2, 8)], &[3], &[4]), 5, 0);
        assert_eq!(sent(&mut leases), (vec![], 3));
        assert_eq!(sent(&mut leases), (vec![], 0));
        leases.lose();
        assert_eq!(sent(&mut leases), (vec![1], 0), "who waited");
    }
}
