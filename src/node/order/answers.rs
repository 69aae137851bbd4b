//! Room for the answers to writes, front by front: they take memory from their making until their
//! front has taken them, whatever it is busy with.
#![forbid(unsafe_code)]

use super::Asker;
use crate::apply::AnswerRoom;
use crate::limits;
use crate::node::messages::FrontId;

/// What the answers of this member may hold.
#[derive(Debug)]
pub(super) struct AnswerRooms {
    fronts: Vec<Room>,
    /// For those that nobody waits for, which are dropped within the turn.
    nobody: usize,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    left: usize,
    /// What was left when answers were sent last.
    at_last: usize,
}

impl AnswerRooms {
    pub fn new(fronts: u16) -> AnswerRooms {
        let all = Room {
            left: limits::ANSWER_BYTES_UNDER_WAY,
            at_last: limits::ANSWER_BYTES_UNDER_WAY,
        };
        AnswerRooms {
            fronts: vec![all; usize::from(fronts)],
            nobody: limits::RESPONSE_BYTES_MAX,
        }
    }

    /// Another turn: what nobody waited for in the last is gone.
    pub fn begin_turn(&mut self) {
        self.nobody = limits::RESPONSE_BYTES_MAX;
    }

    /// What the answers hold that were made for a front since the last call. To be told to it with
    /// them.
    pub fn sent(&mut self, front: usize) -> usize {
        let room = &mut self.fronts[front];
        let bytes = room.at_last - room.left;
        room.at_last = room.left;
        bytes
    }

    /// A front has taken answers that hold so much, as it was told.
    pub fn taken(&mut self, front: FrontId, bytes: usize) {
        let Some(room) = self.fronts.get_mut(usize::from(front.0)) else {
            return;
        };
        room.left += bytes;
        room.at_last += bytes;
        assert!(
            room.at_last <= limits::ANSWER_BYTES_UNDER_WAY,
            "a front has taken more answers than it was sent"
        );
    }
}

impl AnswerRoom<Asker> for AnswerRooms {
    #[inline]
    fn room(&mut self, asker: Asker) -> &mut usize {
        match self.fronts.get_mut(usize::from(asker.front())) {
            Some(room) => &mut room.left,
            None => &mut self.nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_by_front_and_comes_back_when_it_is_taken() {
        let mut rooms = AnswerRooms::new(2);
        let all = limits::ANSWER_BYTES_UNDER_WAY;
        *rooms.room(Asker::of(0)) -= 1_000;
        *rooms.room(Asker::of(1)) -= 10;
        *rooms.room(Asker::of(7)) -= 500;
        assert_eq!((rooms.sent(0), rooms.sent(1)), (1_000, 10));
        *rooms.room(Asker::of(0)) -= 50;
        rooms.taken(FrontId(0), 1_000);
        assert_eq!(*rooms.room(Asker::of(0)), all - 50);
        assert_eq!((rooms.sent(0), rooms.sent(1)), (50, 0));
        rooms.begin_turn();
        assert_eq!(*rooms.room(Asker::of(7)), limits::RESPONSE_BYTES_MAX);
    }

    #[test]
    #[should_panic(expected = "more answers than it was sent")]
    fn no_front_takes_what_it_was_not_sent() {
        let mut rooms = AnswerRooms::new(1);
        *rooms.room(Asker::of(0)) -= 1_000;
        rooms.taken(FrontId(0), 1);
    }
}
