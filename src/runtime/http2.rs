//! gRPC over HTTP/2: one task per connection, which takes streams apart into calls for the front
//! and puts its answers back.
//!
//! Each poll is a turn: answers that are ready go to the codec, what the client has sent is read,
//! whole calls go to the front, and all that the codec has gathered leaves in one write. Large
//! answers leave as the client's windows open, each stream for itself: one that stands still holds
//! up no other, and its watches are told no more until it moves.

#![forbid(unsafe_code)]

mod call;

mod ready;

mod stream;

use crate::api;
use crate::etcd::timeout::{self, NEVER_NS};
use crate::etcd::{Code, Status, gzip};
use crate::limits;
use crate::node::front::{Answers, Front, Verdict};
use crate::runtime::http_io::Io;
use crate::runtime::socket::Place;
use bytes::Bytes;
use call::{Call, count_end, stream_number};
use glommio::net::TcpStream;
use h2::RecvStream;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use ready::Ready;
use slab::Slab;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use stream::{Asked, Incoming, Outgoing, Received, Refusal, Sent};

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

struct Session {
    place: Place,
    io: Io,
    codec: Codec,
    calls: Slab<Call>,
    generation: u32,
    /// Calls that can move again.
    ready: Ready,
    /// Calls that could move, but others come first.
    put_off: Vec<usize>,
    /// Calls of which a part of a message has come, and perhaps others.
    parts: BTreeSet<usize>,
    /// Bytes of answers that wait until the client wants more of their streams.
    waits: usize,
    /// Calls whose clients have taken what there was of a long answer.
    hungry: VecDeque<usize>,
    /// Bytes of answers that the codec has and the front still counts.
    given: usize,
    message_bytes_max: usize,
    leaving: bool,
    /// No call is over for lack of time before this.
    deadline_ns: u64,
    /// Nor is it looked for before this.
    next_scan_ns: u64,
    /// The beat of the seat in which answers to pings began to wait for others.
    pongs_since: Option<u64>,
    /// The last beat in which the seat was asked to wake this connection at the next.
    woken_after: Option<u64>,
}

impl Session {
    fn open(place: Place, stream: TcpStream) -> Option<Session> {
        let front = place.seat.front.as_ref()?;
        let early = front.borrow_mut().take_greeting(place.id);
        let message_bytes_max = front.borrow().message_bytes_max();
        let io = Io::framed(stream, early);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(place.seat.access.streams_max)
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
            ready: Ready::default(),
            put_off: Vec::new(),
            parts: BTreeSet::new(),
            waits: 0,
            hungry: VecDeque::new(),
            given: 0,
            message_bytes_max,
            leaving: false,
            deadline_ns: NEVER_NS,
            next_scan_ns: 0,
            pongs_since: None,
            woken_after: None,
        })
    }

    /// One turn.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let seat = Rc::clone(&self.place.seat);
        seat.register_socket(self.place.id, cx);
        let Some(front) = &seat.front else {
            return Poll::Ready(());
        };
        let now_ns = seat.clock.now_ns();
        self.io.begin_turn(now_ns);
        self.ready.begin(cx.waker());
        if now_ns >= self.deadline_ns.max(self.next_scan_ns) {
            self.end_overdue(now_ns);
        }
        if let Codec::Greeting(handshake) = &mut self.codec {
            match Pin::new(handshake).poll(cx) {
                Poll::Ready(Ok(connection)) => self.codec = Codec::Open(connection),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let over = match self.codec {
            Codec::Open(_) => self.turn(cx, front),
            Codec::Greeting(_) => {
                let since_ns = self.io.unfinished_since();
                front.borrow_mut().receives_since(self.place.id, since_ns);
                false
            }
        };
        self.ready.end();
        if !over && self.pongs_wait() {
            return self.verdict(front);
        }
        let was_full = self.io.is_full();
        match self.io.send(cx) {
            Poll::Ready(Ok(())) => {
                if was_full {
                    // What stopped for that goes on.
                    cx.waker().wake_by_ref();
                }
                let given = std::mem::take(&mut self.given);
                if given > 0 {
                    let now_ns = seat.clock.now_ns();
                    let mut front = front.borrow_mut();
                    front.wrote(self.place.id, given, now_ns);
                    if front.has_work() {
                        // Watches waited for that.
                        seat.request_turn();
                    }
                }
                if over {
                    return Poll::Ready(());
                }
            }
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => {}
        }
        self.verdict(front)
    }

    /// Whether the connection is over by what the front says.
    fn verdict(&self, front: &RefCell<Front>) -> Poll<()> {
        match front.borrow().verdict(self.place.id) {
            Verdict::Over => Poll::Ready(()),
            Verdict::Open | Verdict::Http(_) | Verdict::Finish => Poll::Pending,
        }
    }

    /// Whether there are only answers to pings to send, and they may wait for others: until the
    /// seat's next beat.
    fn pongs_wait(&mut self) -> bool {
        if self.leaving || !self.io.may_wait() {
            self.pongs_since = None;
            return false;
        }
        let beat = self.place.seat.beat();
        if self.woken_after.replace(beat) != Some(beat) {
            self.place.seat.wake_at_beat(self.place.id);
        }
        let waits = *self.pongs_since.get_or_insert(beat) == beat;
        if !waits {
            self.pongs_since = None;
        }
        waits
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
            self.answer(front);
            self.feed(front, &mut cost);
            if self.read(cx, front, &mut cost) {
                return true;
            }
            self.go_on(front, &mut cost);
            let busy = cost >= limits::TURN_COST;
            if busy {
                // There may be more; others come first.
                cx.waker().wake_by_ref();
            }
            let more = front.borrow().has_answers(self.place.id) || !self.ready.is_empty();
            let more = more || !self.hungry.is_empty();
            if busy || self.io.is_full() || !more {
                break;
            }
        }
        front.borrow_mut().waits(self.place.id, self.waits);
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
                    self.begin(asked, body, respond, front, cost);
                }
                Poll::Ready(Some(Err(_)) | None) => return true,
            }
        }
    }

    fn begin(
        &mut self,
        asked: Result<Asked, Refusal>,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
        front: &RefCell<Front>,
        cost: &mut usize,
    ) {
        let Asked {
            method,
            version,
            gzip,
            timeout_ns,
            kind,
        } = match asked {
            Ok(asked) => asked,
            Err(refusal) => return refusal.send(&mut respond),
        };
        if !front.borrow_mut().opens_call() {
            let status = api::Error::TooManyRequests.into();
            return stream::refuse(&mut respond, &kind, &status);
        }
        self.generation = self.generation.wrapping_add(1);
        let now_ns = self.place.seat.clock.now_ns();
        let incoming = Incoming::new(body, gzip, now_ns);
        let deadline_ns =
            timeout_ns.map_or(NEVER_NS, |timeout_ns| now_ns.saturating_add(timeout_ns));
        if deadline_ns < self.deadline_ns {
            self.deadline_ns = deadline_ns;
            self.wake_at_deadline();
        }
        let counted = &self.place.seat.counted;
        counted.calls(method).started.add(1);
        let streams = method.is_stream() || method.gives_many();
        counted.clients[version][usize::from(streams)].add(1);
        let key = self.calls.insert(Call {
            generation: self.generation,
            method,
            began_ns: now_ns,
            deadline_ns,
            kind,
            ended: false,
            respond,
            incoming: Some(incoming),
            begun: false,
            asked: 0,
            outgoing: None,
            nudge: None,
            waits: 0,
            put_off: false,
            more: false,
        });
        self.receive(key, front, cost);
    }

    /// Ends the calls whose time is over. Which these are is looked for when the earliest deadline
    /// of the calls that came since has passed, so that a deadline costs a call next to nothing;
    /// and the more calls are open, the longer that is not done again.
    #[cold]
    fn end_overdue(&mut self, now_ns: u64) {
        let calls = self.calls.len() as u64;
        self.next_scan_ns = now_ns + calls * limits::DEADLINE_SCAN_NS_PER_CALL;
        self.deadline_ns = NEVER_NS;
        let mut overdue = Vec::new();
        for (key, call) in &self.calls {
            match call.deadline_ns {
                // What is left of it is the client's to take.
                _ if call.ended => {}
                deadline_ns if deadline_ns <= now_ns => overdue.push(key),
                deadline_ns => self.deadline_ns = self.deadline_ns.min(deadline_ns),
            }
        }
        self.wake_at_deadline();
        for key in overdue {
            let call = &mut self.calls[key];
            match &mut call.outgoing {
                // The client would have to take the rest first.
                Some(outgoing) if !outgoing.is_between_messages() => {
                    outgoing.cancel();
                    count_end(call, Code::DeadlineExceeded, &self.place.seat);
                    self.forget(key);
                }
                _ => self.end(key, Err(timeout::exceeded())),
            }
        }
    }

    fn wake_at_deadline(&self) {
        if self.deadline_ns != NEVER_NS {
            let at_ns = self.deadline_ns.max(self.next_scan_ns);
            self.place.seat.wake_at(self.place.id, at_ns);
        }
    }

    /// Reads what has come of a call.
    fn receive(&mut self, key: usize, front: &RefCell<Front>, cost: &mut usize) {
        loop {
            let Some(call) = self.calls.get_mut(key) else {
                return;
            };
            let Some(incoming) = &mut call.incoming else {
                return;
            };
            let kept = incoming.buffer.len();
            let mut cx = Context::from_waker(Waker::noop());
            let mut received = incoming.poll(&mut cx, self.message_bytes_max);
            if let Received::Part = received {
                // Most calls come whole and never have to be woken.
                let waker = call.waker(key, &self.ready);
                let Some(incoming) = &mut call.incoming else {
                    return;
                };
                let mut cx = Context::from_waker(&waker);
                received = incoming.poll(&mut cx, self.message_bytes_max);
            }
            let Some(incoming) = &mut call.incoming else {
                return;
            };
            let keeps = match received {
                Received::Part => incoming.buffer.len(),
                _ => 0,
            };
            if kept == 0 && keeps > 0 {
                incoming.since_ns = self.place.seat.clock.now_ns();
            }
            let fits = front.borrow_mut().keeps_input(keeps, kept);
            if keeps == 0 || !fits {
                // It is counted no more.
                incoming.buffer = Vec::new();
            }
            let message = match received {
                Received::Part if fits => {
                    // A stream of messages may be silent before each of them, another call may
                    // not.
                    if keeps > 0 || !call.method.is_stream() {
                        self.parts.insert(key);
                    }
                    return;
                }
                Received::Part => {
                    return self.end(key, Err(api::Error::TooManyRequests.into()));
                }
                Received::Gone => return self.forget(key),
                Received::Refused(status) => return self.end(key, Err(status)),
                Received::Cut => {
                    let status = stream::ended_early(call.method, true);
                    return self.end(key, Err(status));
                }
                Received::End if !call.method.takes_many() && !call.begun => {
                    let status = stream::ended_early(call.method, false);
                    return self.end(key, Err(status));
                }
                // Who only listens may close this half; the call ends when the client resets it.
                Received::End if !call.method.is_asked() => return self.listen(key),
                Received::End => {
                    call.incoming = None;
                    if call.asked == 0 {
                        self.end(key, Ok(()));
                    }
                    return;
                }
                Received::Whole(message) => message,
                Received::Packed(packed) => match gzip::unpack(&packed, self.message_bytes_max) {
                    Ok(message) => message.into(),
                    Err(status) => {
                        // As much as it may have cost.
                        *cost += self.message_bytes_max / 4096;
                        return self.end(key, Err(status));
                    }
                },
            };
            let now_ns = self.place.seat.clock.now_ns();
            if now_ns >= call.deadline_ns {
                return self.end(key, Err(timeout::exceeded()));
            }
            let (method, number) = (call.method, stream_number(key, call.generation));
            if !method.takes_many()
                && method.gives_many()
                && (call.begun
                    || !method.is_stream() && incoming.has_another(self.message_bytes_max))
            {
                return self.end(key, Err(stream::given_several()));
            }
            call.begun = true;
            let streams = method.is_stream();
            if !streams {
                call.incoming = None;
            }
            call.asked += usize::from(method.is_asked());
            let counted = &self.place.seat.counted;
            counted.received_bytes.add(message.len() as u64);
            counted.calls(method).received.add(1);
            let mut front = front.borrow_mut();
            *cost += front.call(self.place.id, number, method, &message, now_ns);
            if !streams {
                drop(front);
                if method.lingers() {
                    self.listen(key);
                }
                return;
            }
            if *cost >= limits::TURN_COST || !front.takes_calls(self.place.id) {
                return self.put_off(key);
            }
        }
    }

    /// Has a call that the codec has nothing more for woken when its client resets it.
    fn listen(&mut self, key: usize) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let waker = call.waker(key, &self.ready);
        let mut cx = Context::from_waker(&waker);
        let gone = match &mut call.outgoing {
            Some(outgoing) => outgoing.poll_gone(&mut cx),
            None => call.respond.poll_reset(&mut cx).is_ready(),
        };
        if gone {
            self.forget(key);
        }
    }

    /// Others come before this call.
    fn put_off(&mut self, key: usize) {
        if let Some(call) = self.calls.get_mut(key)
            && !std::mem::replace(&mut call.put_off, true)
        {
            self.put_off.push(key);
        }
    }

    /// Moves the calls that can move again.
    fn go_on(&mut self, front: &RefCell<Front>, cost: &mut usize) {
        let mut keys = std::mem::take(&mut self.put_off);
        self.ready.take(&mut keys);
        for key in keys {
            // A key may have passed to another call, which it does no harm to look at.
            let Some(call) = self.calls.get_mut(key) else {
                continue;
            };
            call.put_off = false;
            if let Some(nudge) = &call.nudge {
                nudge.look();
            }
            let (sends, receives) = (call.waits > 0, call.incoming.is_some());
            let listens = !receives && call.method.lingers();
            if sends {
                match self.io.is_full() {
                    true => self.put_off(key),
                    false => self.send(key),
                }
            }
            if receives {
                // A message that is complete waits like a stream that is not accepted yet.
                match *cost >= limits::TURN_COST || !front.borrow().takes_calls(self.place.id) {
                    true => self.put_off(key),
                    false => self.receive(key, front, cost),
                }
            }
            if listens {
                self.listen(key);
            }
        }
    }

    /// Tells the front how long the oldest incomplete message, or frame, has taken.
    fn report_incoming(&mut self, front: &RefCell<Front>) {
        let calls = &self.calls;
        let mut oldest = self.io.unfinished_since();
        self.parts.retain(|key| {
            let Some(call) = calls.get(*key) else {
                return false;
            };
            let Some(incoming) = &call.incoming else {
                return false;
            };
            let waits = !incoming.buffer.is_empty() || !call.method.is_stream();
            if waits {
                let since_ns = oldest.map_or(incoming.since_ns, |at| at.min(incoming.since_ns));
                oldest = Some(since_ns);
            }
            waits
        });
        front.borrow_mut().receives_since(self.place.id, oldest);
    }

    /// Hands finished calls to the codec.
    fn answer(&mut self, front: &RefCell<Front>) {
        if self.io.is_full() {
            return;
        }
        let mut answers = Answers::default();
        front.borrow_mut().take_answers(self.place.id, &mut answers);
        let bytes = answers.bytes.len();
        for (answer, message) in answers.into_messages() {
            let key = (answer.stream & u64::from(u32::MAX)) as usize;
            let call = self.calls.get_mut(key);
            let call = call.filter(|call| stream_number(key, call.generation) == answer.stream);
            let Some(call) = call else {
                self.given += message.len();
                continue;
            };
            call.more = answer.more;
            if !answer.unasked && !answer.more {
                call.asked = call.asked.saturating_sub(1);
            }
            if let Some(status) = answer.refused {
                self.given += message.len();
                self.end(key, Err(status));
                continue;
            }
            if call.outgoing.is_none() {
                call.outgoing = Outgoing::begin(&mut call.respond, &call.kind);
            }
            let Some(outgoing) = &mut call.outgoing else {
                self.given += message.len();
                self.forget(key);
                continue;
            };
            let counted = &self.place.seat.counted;
            counted.sent_bytes.add(message.len() as u64);
            counted.calls(call.method).sent.add(1);
            outgoing.push(message, bytes);
            if call.is_answered() {
                self.end(key, Ok(()));
            } else {
                self.send(key);
            }
        }
    }

    /// Reads no more of a call.
    fn stop_receiving(&mut self, key: usize) {
        if let Some(incoming) = self.calls[key].incoming.take()
            && let Some(front) = &self.place.seat.front
        {
            front.borrow_mut().keeps_input(0, incoming.buffer.len());
        }
    }

    /// Ends a call, behind what is on its way out.
    fn end(&mut self, key: usize, how: Result<(), Status>) {
        self.stop_receiving(key);
        let call = &mut self.calls[key];
        let code = how.as_ref().err().map_or(Code::Ok, |status| status.code);
        count_end(call, code, &self.place.seat);
        if call.outgoing.is_none() {
            match &how {
                Err(status) => stream::refuse(&mut call.respond, &call.kind, status),
                Ok(()) => call.outgoing = Outgoing::begin(&mut call.respond, &call.kind),
            }
        }
        match &mut call.outgoing {
            Some(outgoing) => {
                outgoing.end(how);
                self.send(key);
            }
            None => self.forget(key),
        }
    }

    /// Sends what can be sent of a call's answers.
    fn send(&mut self, key: usize) {
        let call = &mut self.calls[key];
        let Some(outgoing) = &mut call.outgoing else {
            return;
        };
        let nudge = &mut call.nudge;
        let mut waker = || {
            let nudge = nudge.get_or_insert_with(|| self.ready.nudge(key));
            nudge.waker.clone()
        };
        let waits = match outgoing.poll(&mut waker, &mut self.given) {
            Sent::All => return self.forget(key),
            Sent::Idle if std::mem::take(&mut call.more) => {
                self.hungry.push_back(key);
                0
            }
            Sent::Idle => 0,
            Sent::Part(waits) => waits,
        };
        let before = std::mem::replace(&mut call.waits, waits);
        self.waits = self.waits - before + waits;
        let stalls = waits > 0;
        if stalls != (before > 0)
            && call.method.tells()
            && let Some(front) = &self.place.seat.front
        {
            let number = stream_number(key, call.generation);
            front.borrow_mut().stalls(self.place.id, number, stalls);
            if !stalls {
                self.place.seat.request_turn();
            }
        }
    }

    /// Forgets a call.
    fn forget(&mut self, key: usize) {
        self.stop_receiving(key);
        let mut call = self.calls.remove(key);
        count_end(&mut call, Code::Canceled, &self.place.seat);
        self.waits -= call.waits;
        if let Some(front) = &self.place.seat.front {
            front.borrow_mut().closes_calls(1);
        }
        let open = call.asked > 0 || call.method.lingers();
        if let (true, Some(front)) = (open, &self.place.seat.front) {
            let number = stream_number(key, call.generation);
            front.borrow_mut().end_call(self.place.id, number);
            self.place.seat.request_turn();
        }
        if let Some(mut outgoing) = call.outgoing {
            outgoing.give_up(&mut self.given);
        }
    }

    /// Asks the front for more of long answers whose clients have taken what there was.
    fn feed(&mut self, front: &RefCell<Front>, cost: &mut usize) {
        while *cost < limits::TURN_COST && !self.io.is_full() {
            let Some(key) = self.hungry.pop_front() else {
                break;
            };
            // A key may have passed to another call; the front knows nothing of it to go on with.
            let Some(call) = self.calls.get(key) else {
                continue;
            };
            let number = stream_number(key, call.generation);
            let now_ns = self.place.seat.clock.now_ns();
            *cost += front.borrow_mut().feed(self.place.id, number, now_ns);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(front) = &self.place.seat.front else {
            return;
        };
        for (_, call) in &mut self.calls {
            count_end(call, Code::Canceled, &self.place.seat);
        }
        let incoming = self
            .calls
            .iter()
            .filter_map(|(_, call)| call.incoming.as_ref());
        let kept = incoming.map(|incoming| incoming.buffer.len());
        let mut front = front.borrow_mut();
        front.keeps_input(0, kept.sum());
        front.closes_calls(self.calls.len());
    }
}
