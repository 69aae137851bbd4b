//! Streams through the JSON gateway: each message of the body is a JSON text behind the one
//! before, each answer a `result` on a line of its own, written as it comes.

#![forbid(unsafe_code)]

use super::{Answers, Desk};
use crate::etcd::http as pages;
use crate::etcd::json::Splitter;
use crate::etcd::json::schema::Path;
use crate::etcd::{Code, Method, Status, message, timeout};
use crate::node::front::Front;
use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A stream of calls and answers.
pub struct Lines {
    desk: Rc<Desk>,
    path: &'static Path,
    /// How the front knows it.
    number: u64,
    /// Until when it may take.
    deadline_ns: u64,
    /// The body, as long as it goes on.
    body: Option<Incoming>,
    text: Splitter,
    /// Bytes of the text that the front counts.
    kept: usize,
    /// The oldest incomplete message began now or before.
    partial: bool,
    /// Messages without an answer.
    asked: usize,
    /// There was a message.
    begun: bool,
    /// The front has more of an answer, and is to be asked for it.
    hungry: bool,
    /// A line that was asked for and not taken.
    peeked: Option<Result<Bytes, Status>>,
    /// What is wrong with the body.
    failed: Option<Status>,
    over: bool,
    began_ns: u64,
}

impl Lines {
    /// A stream of which nothing has been read.
    pub fn new(desk: &Rc<Desk>, path: &'static Path, body: Incoming, deadline_ns: u64) -> Lines {
        let number = desk.take_number();
        desk.streams.borrow_mut().insert(number, Answers::new());
        let seat = desk.seat();
        seat.counted.calls(path.1).started.add(1);
        // As in etcd, what comes through the gateway says no version.
        seat.counted.clients[0][1].add(1);
        Lines {
            desk: Rc::clone(desk),
            path,
            number,
            deadline_ns,
            body: Some(body),
            text: Splitter::default(),
            kept: 0,
            partial: false,
            asked: 0,
            begun: false,
            hungry: false,
            peeked: None,
            failed: None,
            over: false,
            began_ns: seat.clock.now_ns(),
        }
    }

    fn method(&self) -> Method {
        self.path.1
    }

    /// Waits for the first line: the stream begins well, or is refused.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        match self.poll_line(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Err(status))) => Poll::Ready(Err(status)),
            Poll::Ready(line) => {
                self.peeked = line;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The next line; a refusal is the last.
    pub fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(line) = self.peeked.take() {
            return Poll::Ready(Some(line));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let desk = Rc::clone(&self.desk);
        let Some(front) = &desk.seat().front else {
            return Poll::Ready(None);
        };
        if desk.seat().is_stopping() {
            return self.refuse(crate::api::Error::Stopped.into());
        }
        if desk.is_over(self.deadline_ns) {
            return self.refuse(timeout::exceeded());
        }
        if self.failed.is_none()
            && let Err(status) = self.read(cx, front)
        {
            // What was asked before is answered first.
            self.failed = Some(status);
            self.body = None;
        }
        if self.hungry {
            if !desk.may_give(cx) {
                return Poll::Pending;
            }
            self.hungry = false;
            let now_ns = desk.seat().clock.now_ns();
            let mut front = front.borrow_mut();
            front.feed(desk.place.id, self.number, now_ns);
            desk.seat().request_turn();
        }
        desk.take_answers(front);
        match desk.next_answer(self.number) {
            Some(Ok((framed, more))) => {
                self.hungry = more;
                if !more && !self.method().tells() {
                    self.asked = self.asked.saturating_sub(1);
                }
                let line = pages::answer(self.path, &framed[message::PREFIX_BYTES..]);
                desk.pay(framed.len());
                match line {
                    Ok(line) => {
                        desk.seat().counted.calls(self.method()).sent.add(1);
                        Poll::Ready(Some(Ok(line.into())))
                    }
                    Err(status) => self.refuse(status),
                }
            }
            Some(Err(status)) => self.refuse(status),
            None if self.asked == 0 || self.method().tells() => match self.failed.take() {
                Some(status) => self.refuse(status),
                // Who only listens has said all, and is told on.
                None if self.body.is_some() || self.method().tells() => Poll::Pending,
                None => {
                    self.end(Code::Ok);
                    Poll::Ready(None)
                }
            },
            // The task is woken when the front has an answer.
            None => Poll::Pending,
        }
    }

    fn refuse(&mut self, status: Status) -> Poll<Option<Result<Bytes, Status>>> {
        self.end(status.code);
        Poll::Ready(Some(Err(status)))
    }

    /// It is over, and counted, once.
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            let seat = self.desk.seat();
            let took_ns = seat.clock.now_ns().saturating_sub(self.began_ns);
            seat.counted.calls(self.method()).note_end(code, took_ns);
        }
    }

    /// Reads what has come, as far as the front takes it.
    fn read(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>) -> Result<(), Status> {
        loop {
            while front.borrow().takes_calls(self.desk.place.id)
                && let Some(text) = self.text.next_message()
            {
                self.call(&text, front)?;
            }
            self.count(front)?;
            let full = !front.borrow().takes_calls(self.desk.place.id);
            let Some(body) = &mut self.body else {
                return Ok(());
            };
            if full {
                return Ok(());
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.text.push(&data);
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    return Err(Status::new(Code::Canceled, "the body is incomplete"));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    while let Some(text) = self.text.next_message() {
                        self.call(&text, front)?;
                    }
                    let rest = self.text.take_rest();
                    // No body is a message without fields.
                    let empty = !self.begun && !self.method().is_stream();
                    if !rest.is_empty() || empty {
                        self.call(&rest, front)?;
                    }
                }
            }
        }
    }

    fn call(&mut self, text: &[u8], front: &RefCell<Front>) -> Result<(), Status> {
        if !self.method().is_stream() && self.begun {
            return Ok(());
        }
        self.begun = true;
        let method = self.method();
        let bytes_max = front.borrow().message_bytes_max();
        let message = pages::message(self.path, text, bytes_max)?;
        self.asked += usize::from(method.is_asked());
        self.desk.seat().counted.calls(method).received.add(1);
        let now_ns = self.desk.seat().clock.now_ns();
        let mut front = front.borrow_mut();
        front.call(self.desk.place.id, self.number, method, &message, now_ns);
        self.desk.seat().request_turn();
        Ok(())
    }

    /// Has the front count what is kept, and know since when a message is incomplete.
    fn count(&mut self, front: &RefCell<Front>) -> Result<(), Status> {
        let keeps = self.text.len();
        let mut front = front.borrow_mut();
        // Base64 takes four bytes for three.
        if keeps > front.message_bytes_max() * 2 {
            let text = "grpc: received message larger than max";
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        if !front.keeps_input(keeps, self.kept) {
            self.kept = 0;
            return Err(crate::api::Error::TooManyRequests.into());
        }
        self.kept = keeps;
        let partial = keeps > 0;
        if partial != std::mem::replace(&mut self.partial, partial) {
            let now_ns = self.desk.seat().clock.now_ns();
            front.receives_since(self.desk.place.id, partial.then_some(now_ns));
        }
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end(Code::Canceled);
        self.desk.forget_call(self.number);
        if let Some(front) = &self.desk.seat().front {
            let mut front = front.borrow_mut();
            front.keeps_input(0, self.kept);
            if self.partial {
                front.receives_since(self.desk.place.id, None);
            }
            front.end_call(self.desk.place.id, self.number);
            self.desk.seat().request_turn();
        }
    }
}
