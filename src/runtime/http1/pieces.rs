//! A long answer through the JSON gateway: piece after piece becomes text and is sent, the next
//! when the socket has taken the last.

#![forbid(unsafe_code)]

use super::{Answered, Desk, Owed};
use crate::etcd::json::TextPieces;
use crate::etcd::json::schema::Path;
use bytes::Bytes;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

/// An answer broke off in its middle: the connection ends, and the client sees that there is no
/// end.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rest of the answer cannot be read")
    }
}

impl std::error::Error for Broken {}

/// An answer whose first piece is there.
pub struct Pieces {
    desk: Rc<Desk>,
    /// How the front knows the call.
    number: u64,
    text: TextPieces,
    /// A piece that is not written yet.
    piece: Option<Bytes>,
    /// The front counts the last piece until more is asked for: a client that takes nothing is
    /// found out by it.
    owed: Option<Owed>,
    /// There is more behind that piece.
    more: bool,
    /// The front has been asked for it.
    fed: bool,
}

impl Pieces {
    /// The answer to the call of that number, which has begun so.
    pub fn new(desk: &Rc<Desk>, path: &'static Path, number: u64, begun: Answered) -> Pieces {
        let (_, _, _, fields) = path;
        Pieces {
            desk: Rc::clone(desk),
            number,
            text: TextPieces::new(fields),
            piece: Some(begun.message),
            owed: Some(begun.owed),
            more: true,
            fed: false,
        }
    }

    /// The text of the next piece; `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.piece.is_none() {
            self.owed = None;
            if !self.more {
                return Poll::Ready(None);
            }
            match self.next() {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                Poll::Ready(Ok(())) => {}
            }
        }
        if !self.desk.may_give(cx) {
            return Poll::Pending;
        }
        let piece = self.piece.take().unwrap_or_default();
        let mut text = String::with_capacity(piece.len() * 3 / 2);
        let put = self.text.put(&mut text, &piece);
        if !self.more {
            self.text.end(&mut text);
        }
        Poll::Ready(Some(put.map(|()| text.into()).map_err(|_| Broken)))
    }

    /// Asks the front for the next piece.
    fn next(&mut self) -> Poll<Result<(), Broken>> {
        let Some(front) = &self.desk.seat().front else {
            return Poll::Ready(Err(Broken));
        };
        if !std::mem::replace(&mut self.fed, true) {
            let now_ns = self.desk.seat().clock.now_ns();
            let mut front = front.borrow_mut();
            front.feed(self.desk.place.id, self.number, now_ns);
            self.desk.seat().request_turn();
        }
        self.desk.take_answers(front);
        match self.desk.next_answer(self.number) {
            // The task is woken when the front has it.
            None => Poll::Pending,
            Some(Err(_)) => {
                self.more = false;
                Poll::Ready(Err(Broken))
            }
            Some(Ok((piece, more))) => {
                self.owed = Some(Owed {
                    desk: Rc::clone(&self.desk),
                    bytes: piece.len(),
                });
                self.piece = Some(piece);
                (self.more, self.fed) = (more, false);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.desk.forget_call(self.number);
        if self.more
            && let Some(front) = &self.desk.seat().front
        {
            front.borrow_mut().end_call(self.desk.place.id, self.number);
            self.desk.seat().request_turn();
        }
    }
}
