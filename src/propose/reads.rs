//! Reads that must ask the quorum, gathered per loop turn.
//!
//! All read barriers that arrive in one turn share one question to the quorum, named by a
//! context that is used once: an unanswered question is asked again under a new context, never
//! repeated, because the raft crate would confirm a repeated one with the index of the first.

use super::FrontId;
use std::collections::VecDeque;

/// Size of a context.
pub const CONTEXT: usize = 24;

/// A question to the quorum: its member, its boot epoch, its number. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadContext {
    /// The member that asks.
    pub member: u64,
    /// The boot epoch of its process.
    pub boot: u64,
    /// The question's number in that run.
    pub number: u64,
}

impl ReadContext {
    /// The bytes that travel: three little-endian integers.
    pub fn encode(&self) -> [u8; CONTEXT] {
        let mut bytes = [0; CONTEXT];
        bytes[..8].copy_from_slice(&self.member.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.boot.to_le_bytes());
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// The context in those bytes, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ReadContext> {
        let bytes: &[u8; CONTEXT] = bytes.try_into().ok()?;
        let at = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        Some(ReadContext {
            member: at(0),
            boot: at(8),
            number: at(16),
        })
    }
}

/// A front's barrier: who asked, and the token that it gave.
pub type Barrier = (FrontId, u64);

#[derive(Debug)]
struct Question {
    number: u64,
    asked_ns: u64,
    /// Once the quorum has answered: what must be applied before the reads may go.
    index: Option<u64>,
    barriers: Vec<Barrier>,
}

/// The read barriers of all fronts of a node.
#[derive(Debug)]
pub struct ReadBarriers {
    member: u64,
    boot: u64,
    next: u64,
    limit: usize,
    retry_ns: u64,
    waiting: usize,
    /// Arrived in this turn; not yet asked.
    gathered: Vec<Barrier>,
    /// Asked, oldest first.
    questions: VecDeque<Question>,
}

impl ReadBarriers {
    /// For one run of a member. At most `limit` barriers wait at a time; a question without an
    /// answer is asked anew after `retry_ns`.
    pub fn new(member: u64, boot: u64, limit: usize, retry_ns: u64) -> ReadBarriers {
        ReadBarriers {
            member,
            boot,
            next: 1,
            limit,
            retry_ns,
            waiting: 0,
            gathered: Vec::new(),
            questions: VecDeque::new(),
        }
    }

    /// No barrier waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Takes a barrier; `false` if too many wait already.
    pub fn push(&mut self, barrier: Barrier) -> bool {
        if self.waiting >= self.limit {
            return false;
        }
        self.waiting += 1;
        self.gathered.push(barrier);
        true
    }

    /// The question to ask for all barriers gathered in this turn and for all whose question
    /// went unanswered for too long; `None` if there are none.
    pub fn ask(&mut self, now_ns: u64) -> Option<ReadContext> {
        let mut barriers = std::mem::take(&mut self.gathered);
        // The old context is forgotten: should its answer still come, it is nobody's.
        while let Some(first) = self.questions.front() {
            if first.index.is_some() || now_ns.saturating_sub(first.asked_ns) < self.retry_ns {
                break;
            }
            if let Some(mut question) = self.questions.pop_front() {
                barriers.append(&mut question.barriers);
            }
        }
        if barriers.is_empty() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.questions.push_back(Question {
            number,
            asked_ns: now_ns,
            index: None,
            barriers,
        });
        Some(ReadContext {
            member: self.member,
            boot: self.boot,
            number,
        })
    }

    /// The quorum has confirmed the question `context` at a commit index.
    pub fn answered(&mut self, context: ReadContext, index: u64) {
        if (context.member, context.boot) != (self.member, self.boot) {
            return;
        }
        for question in &mut self.questions {
            // A later question confirms the earlier ones: they were asked before it, so its
            // index covers them.
            if question.number <= context.number && question.index.is_none() {
                question.index = Some(index);
            }
        }
    }

    /// Hands out every barrier whose index has been applied.
    pub fn release(&mut self, applied: u64, mut ready: impl FnMut(Barrier)) {
        while let Some(first) = self.questions.front() {
            if first.index.is_none_or(|index| index > applied) {
                return;
            }
            if let Some(question) = self.questions.pop_front() {
                self.waiting -= question.barriers.len();
                question.barriers.into_iter().for_each(&mut ready);
            }
        }
    }

    /// The term or the leader has changed, or the node stops: no question will be answered.
    /// Hands out every barrier that was asked or gathered.
    pub fn fail_all(&mut self, mut failed: impl FnMut(Barrier)) {
        self.waiting = 0;
        for question in self.questions.drain(..) {
            question.barriers.into_iter().for_each(&mut failed);
        }
        self.gathered.drain(..).for_each(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: FrontId = FrontId(1);

    fn barriers() -> ReadBarriers {
        ReadBarriers::new(7, 8, 100, 1000)
    }

    fn released(reads: &mut ReadBarriers, applied: u64) -> Vec<u64> {
        let mut out = Vec::new();
        reads.release(applied, |(_, token)| out.push(token));
        out
    }

    #[test]
    fn one_context_serves_all_of_a_turn() {
        let mut reads = barriers();
        assert_eq!(reads.ask(0), None);
        assert!(reads.push((FRONT, 1)) && reads.push((FRONT, 2)));
        let context = reads.ask(0).unwrap();
        assert_eq!(
            context,
            ReadContext {
                member: 7,
                boot: 8,
                number: 1
            }
        );
        assert_eq!(reads.ask(0), None, "asked once");
        assert!(
            released(&mut reads, 100).is_empty(),
            "not before the quorum has answered"
        );
        reads.answered(context, 50);
        assert!(
            released(&mut reads, 49).is_empty(),
            "not before its index is applied"
        );
        assert_eq!(released(&mut reads, 50), [1, 2]);
        assert!(reads.is_empty());
    }

    #[test]
    fn an_unanswered_question_gets_a_new_context_and_its_old_answer_is_nobodys() {
        let mut reads = barriers();
        reads.push((FRONT, 1));
        let first = reads.ask(0).unwrap();
        assert_eq!(reads.ask(999), None);
        let second = reads.ask(1000).unwrap();
        assert_ne!(first.encode(), second.encode());
        // The answer to the first question may carry an index from before reads that have
        // joined since; it must not release them.
        reads.answered(first, 10);
        assert!(released(&mut reads, 10).is_empty());
        reads.answered(second, 20);
        assert_eq!(released(&mut reads, 20), [1]);
    }

    #[test]
    fn contexts_never_repeat() {
        let mut reads = barriers();
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..1000 {
            reads.push((FRONT, turn));
            let context = reads.ask(turn * 100).unwrap();
            assert!(seen.insert(context.encode()));
            if turn % 7 == 0 {
                reads.fail_all(|_| {});
            }
        }
    }

    #[test]
    fn a_later_answer_covers_earlier_questions_only() {
        let mut reads = barriers();
        reads.push((FRONT, 1));
        reads.ask(0).unwrap();
        reads.push((FRONT, 2));
        let second = reads.ask(1).unwrap();
        reads.push((FRONT, 3));
        reads.ask(2).unwrap();
        reads.answered(second, 5);
        assert_eq!(released(&mut reads, 5), [1, 2]);
        assert!(!reads.is_empty());
    }

    #[test]
    fn answers_of_another_run_or_member_are_ignored() {
        let mut reads = barriers();
        reads.push((FRONT, 1));
        let context = reads.ask(0).unwrap();
        reads.answered(ReadContext { boot: 9, ..context }, 5);
        reads.answered(
            ReadContext {
                member: 9,
                ..context
            },
            5,
        );
        assert!(released(&mut reads, 5).is_empty());
    }

    #[test]
    fn a_change_of_leader_fails_all_and_the_number_waiting_is_bounded() {
        let mut reads = ReadBarriers::new(1, 1, 2, 1000);
        assert!(reads.push((FRONT, 1)));
        reads.ask(0).unwrap();
        assert!(reads.push((FRONT, 2)));
        assert!(!reads.push((FRONT, 3)));
        let mut failed = Vec::new();
        reads.fail_all(|(_, token)| failed.push(token));
        assert_eq!(failed, [1, 2]);
        assert!(reads.push((FRONT, 4)));
    }

    #[test]
    fn contexts_travel_as_bytes() {
        let context = ReadContext {
            member: 1,
            boot: 2,
            number: 3,
        };
        assert_eq!(ReadContext::decode(&context.encode()), Some(context));
        assert_eq!(ReadContext::decode(&[0; 23]), None);
        assert_eq!(ReadContext::decode(&[0; 25]), None);
    }
}
