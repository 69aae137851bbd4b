//! gRPC over HTTP/2: one task per connection, which takes streams apart into calls for the front
//! and puts its answers back.
//!
//! Each poll is a turn: answers that are ready go to the codec, what the client has sent is read,
//! whole calls go to the front, and all that the codec has gathered leaves in one write. Large
//! answers leave as the client's windows open, each stream for itself.

#![forbid(unsafe_code)]

mod io;

mod stream;

use crate::api;
use crate::etcd::{Method, Status};
use crate::limits;
use crate::node::front::{Answers, Front, Verdict};
use crate::runtime::socket::Place;
use bytes::Bytes;
use glommio::net::TcpStream;
use h2::RecvStream;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use io::Io;
use slab::Slab;
use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use stream::{Asked, Incoming, Outgoing, Received, Sent};

/// Serves a connection until it is over.
pub async fn serve(place: Place, stream: TcpStream) {
    let Some(mut session) = Session::open(place, stream) else {
        return;
    };
    poll_fn(|cx| session.poll(cx)).await;
}

enum Codec {
    Greeting(Handshake<Io, Bytes>),
    Open(Connection<Io, Bytes>),
}

/// A call between its first header and its last answer.
struct Call {
    generation: u32,
    respond: SendResponse<Bytes>,
    state: State,
}

enum State {
    Incoming(Method, Incoming),
    /// The front has it.
    Asked,
    Outgoing(Outgoing),
}

struct Session {
    place: Place,
    io: Io,
    codec: Codec,
    calls: Slab<Call>,
    generation: u32,
    /// Calls of which a part has come.
    incoming: Vec<usize>,
    /// Calls whose client must take something first.
    outgoing: Vec<usize>,
    /// Bytes of answers that the codec has and the front still counts.
    given: usize,
    message_bytes_max: usize,
    leaving: bool,
}

impl Session {
    fn open(place: Place, stream: TcpStream) -> Option<Session> {
        let front = place.seat.front.as_ref()?;
        let early = front.borrow_mut().take_greeting(place.id);
        let message_bytes_max = front.borrow().message_bytes_max();
        let io = Io::new(stream, early);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
            .max_header_list_size(limits::HEADER_BYTES_MAX)
            .initial_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .data_frame_budget(limits::SMALL_FRAMES_BUDGET)
            .max_send_buffer_size(limits::STREAM_SEND_BYTES);
        let codec = Codec::Greeting(builder.handshake(io.clone()));
        Some(Session {
            place,
            io,
            codec,
            calls: Slab::new(),
            generation: 0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            given: 0,
            message_bytes_max,
            leaving: false,
        })
    }

    /// One turn.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let seat = Rc::clone(&self.place.seat);
        seat.register_socket(self.place.id, cx);
        let Some(front) = &seat.front else {
            return Poll::Ready(());
        };
        self.io.begin_turn();
        if let Codec::Greeting(handshake) = &mut self.codec {
            match Pin::new(handshake).poll(cx) {
                Poll::Ready(Ok(connection)) => self.codec = Codec::Open(connection),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let over = match self.codec {
            Codec::Open(_) => self.turn(cx, front),
            Codec::Greeting(_) => false,
        };
        match self.io.send(cx) {
            Poll::Ready(Ok(())) => {
                let given = std::mem::take(&mut self.given);
                if given > 0 {
                    let now_ns = seat.clock.now_ns();
                    front.borrow_mut().wrote(self.place.id, given, now_ns);
                }
                if over {
                    return Poll::Ready(());
                }
            }
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => {}
        }
        match front.borrow().verdict(self.place.id) {
            Verdict::Over => Poll::Ready(()),
            Verdict::Open | Verdict::Http(_) | Verdict::Finish => Poll::Pending,
        }
    }

    /// Moves everything that can move; `true` when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>) -> bool {
        let mut cost = 0;
        if self.place.seat.is_stopping() && !self.leaving {
            self.leaving = true;
            if let Codec::Open(connection) = &mut self.codec {
                connection.graceful_shutdown();
            }
        }
        loop {
            self.answer(cx, front);
            self.continue_outgoing(cx);
            if self.read(cx, front, &mut cost) {
                return true;
            }
            self.continue_incoming(cx, front, &mut cost);
            let busy = cost >= limits::TURN_COST;
            if busy {
                // There may be more; others come first.
                cx.waker().wake_by_ref();
            }
            if busy || self.io.is_full() || !front.borrow().has_answers(self.place.id) {
                break;
            }
        }
        if cost > 0 {
            self.place.seat.request_turn();
        }
        self.report_incoming(front);
        false
    }

    /// Accepts calls, as many as the front takes; `true` when the connection is over.
    fn read(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>, cost: &mut usize) -> bool {
        loop {
            let takes = *cost < limits::TURN_COST
                && !self.io.is_full()
                && front.borrow().takes_calls(self.place.id);
            let Codec::Open(connection) = &mut self.codec else {
                return false;
            };
            if !takes {
                // What is under way moves on all the same.
                return connection.poll_closed(cx).is_ready();
            }
            match connection.poll_accept(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    *cost += 1;
                    let (head, body) = request.into_parts();
                    let has_leader = front.borrow().has_leader();
                    let asked = stream::read_head(&head, has_leader);
                    self.begin(asked, body, respond, cx, front, cost);
                }
                Poll::Ready(Some(Err(_)) | None) => return true,
            }
        }
    }

    fn begin(
        &mut self,
        asked: Result<Asked, Status>,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
        front: &RefCell<Front>,
        cost: &mut usize,
    ) {
        let method = match asked {
            Ok(Asked::Call(method)) => method,
            Ok(Asked::NotGrpc(code)) => return stream::refuse_plainly(&mut respond, code),
            Err(status) => return stream::refuse(&mut respond, &status),
        };
        self.generation = self.generation.wrapping_add(1);
        let incoming = Incoming::new(body, self.place.seat.clock.now_ns());
        let key = self.calls.insert(Call {
            generation: self.generation,
            respond,
            state: State::Incoming(method, incoming),
        });
        if self.receive(key, cx, front, cost) {
            self.incoming.push(key);
        }
    }

    /// Reads what has come of a call; `true` if more is to come.
    fn receive(
        &mut self,
        key: usize,
        cx: &mut Context<'_>,
        front: &RefCell<Front>,
        cost: &mut usize,
    ) -> bool {
        let call = &mut self.calls[key];
        let State::Incoming(method, incoming) = &mut call.state else {
            return false;
        };
        let kept = incoming.buffer.len();
        let received = incoming.poll(cx, self.message_bytes_max);
        let keeps = match received {
            Received::Part => incoming.buffer.len(),
            _ => 0,
        };
        let fits = front.borrow_mut().keeps_input(keeps, kept);
        match received {
            Received::Part if fits => return true,
            Received::Part => {
                incoming.buffer = Vec::new();
                stream::refuse(&mut call.respond, &api::Error::TooManyRequests.into());
                self.calls.remove(key);
            }
            Received::Gone => {
                self.calls.remove(key);
            }
            Received::Refused(status) => {
                stream::refuse(&mut call.respond, &status);
                self.calls.remove(key);
            }
            Received::Whole(message) => {
                let (method, stream) = (*method, stream_number(key, call.generation));
                call.state = State::Asked;
                let now_ns = self.place.seat.clock.now_ns();
                let mut front = front.borrow_mut();
                *cost += front.call(self.place.id, stream, method, &message, now_ns);
            }
        }
        false
    }

    fn continue_incoming(
        &mut self,
        cx: &mut Context<'_>,
        front: &RefCell<Front>,
        cost: &mut usize,
    ) {
        let mut at = 0;
        while at < self.incoming.len() {
            // A message that is complete waits like a stream that is not accepted yet.
            if *cost >= limits::TURN_COST || !front.borrow().takes_calls(self.place.id) {
                return;
            }
            if self.receive(self.incoming[at], cx, front, cost) {
                at += 1;
            } else {
                self.incoming.swap_remove(at);
            }
        }
    }

    /// Tells the front how long the oldest incomplete message has taken.
    fn report_incoming(&mut self, front: &RefCell<Front>) {
        let since = self
            .incoming
            .iter()
            .filter_map(|key| match &self.calls[*key].state {
                State::Incoming(_, incoming) => Some(incoming.since_ns),
                State::Asked | State::Outgoing(_) => None,
            });
        let oldest = since.min();
        front.borrow_mut().receives_since(self.place.id, oldest);
    }

    /// Hands finished calls to the codec.
    fn answer(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>) {
        if self.io.is_full() {
            return;
        }
        let mut answers = Answers::default();
        front.borrow_mut().take_answers(self.place.id, &mut answers);
        let bytes = Bytes::from(answers.bytes);
        let mut begin = 0;
        for answer in answers.list {
            let message = bytes.slice(begin..answer.end);
            begin = answer.end;
            let key = (answer.stream & u64::from(u32::MAX)) as usize;
            let call = self.calls.get_mut(key);
            let call = call.filter(|call| stream_number(key, call.generation) == answer.stream);
            let Some(call) = call else {
                self.given += message.len();
                continue;
            };
            if let Some(status) = answer.refused {
                stream::refuse(&mut call.respond, &status);
                self.given += message.len();
                self.calls.remove(key);
                continue;
            }
            let length = message.len();
            let Some(mut outgoing) = Outgoing::begin(&mut call.respond, message) else {
                self.given += length;
                self.calls.remove(key);
                continue;
            };
            match outgoing.poll(cx, &mut self.given) {
                Sent::All => {
                    self.calls.remove(key);
                }
                Sent::Part => {
                    call.state = State::Outgoing(outgoing);
                    self.outgoing.push(key);
                }
            }
        }
    }

    fn continue_outgoing(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while at < self.outgoing.len() && !self.io.is_full() {
            let key = self.outgoing[at];
            let sent = match &mut self.calls[key].state {
                State::Outgoing(outgoing) => outgoing.poll(cx, &mut self.given),
                State::Incoming(..) | State::Asked => Sent::All,
            };
            match sent {
                Sent::All => {
                    self.calls.remove(key);
                    self.outgoing.swap_remove(at);
                }
                Sent::Part => at += 1,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(front) = &self.place.seat.front else {
            return;
        };
        let kept = self.calls.iter().map(|(_, call)| match &call.state {
            State::Incoming(_, incoming) => incoming.buffer.len(),
            State::Asked | State::Outgoing(_) => 0,
        });
        front.borrow_mut().keeps_input(0, kept.sum());
    }
}

/// How the front knows a call: its place, and the generation that took it.
fn stream_number(key: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | key as u64
}
