//! A call as its connection keeps it.

#![forbid(unsafe_code)]

use super::ready::{Nudged, Ready};
use super::stream::{Incoming, Kind, Outgoing};
use crate::etcd::{Code, Method};
use crate::runtime::seat::Seat;
use bytes::Bytes;
use h2::server::SendResponse;
use std::task::Waker;

/// A call between its first header and its last answer.
pub struct Call {
    pub generation: u32,
    pub method: Method,
    pub began_ns: u64,
    /// What kind of content the answer is said to be.
    pub kind: Kind,
    /// Until when it may take.
    pub deadline_ns: u64,
    /// How it ends is decided, and counted.
    pub ended: bool,
    pub respond: SendResponse<Bytes>,
    /// Messages on their way in, while more may come.
    pub incoming: Option<Incoming>,
    /// A message has come.
    pub begun: bool,
    /// Messages that the front has and has not answered.
    pub asked: usize,
    /// Answers on their way out, once there was one.
    pub outgoing: Option<Outgoing>,
    /// Wakes it, once it had to wait.
    pub nudge: Option<Nudged>,
    /// Bytes of answers that wait until the client wants more.
    pub waits: usize,
    /// It stands among those that were put off.
    pub put_off: bool,
    /// The front has more of the answer.
    pub more: bool,
}

impl Call {
    /// Nothing more will come, and everything that came is answered.
    pub fn is_answered(&self) -> bool {
        self.asked == 0 && self.incoming.is_none()
    }

    /// What the codec wakes when this call can move.
    pub fn waker(&mut self, key: usize, ready: &Ready) -> Waker {
        let nudge = self.nudge.get_or_insert_with(|| ready.nudge(key));
        nudge.waker.clone()
    }
}

/// Counts how a call ended, once.
pub fn count_end(call: &mut Call, code: Code, seat: &Seat) {
    if std::mem::replace(&mut call.ended, true) {
        return;
    }
    let took_ns = seat.clock.now_ns().saturating_sub(call.began_ns);
    seat.counted.calls(call.method).note_end(code, took_ns);
    if !call.method.is_stream() && !call.method.lingers() {
        seat.note_slow_call(call.method, took_ns);
    }
}

/// How the front knows a call: its place, and the generation that took it.
pub fn stream_number(key: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | key as u64
}
