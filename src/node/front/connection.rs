//! What a front remembers of one connection: little, so that thousands may idle.
#![forbid(unsafe_code)]

use super::answer::Answer;
use super::desk::{ErrandId, Long};
use crate::limits;
use crate::node::front::Verdict;
use crate::watch::StreamId;
use std::collections::BTreeMap;

/// Names a connection of one front; never reused for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    pub(super) fn new(slot: usize, generation: u32) -> ConnectionId {
        ConnectionId {
            // The slab holds at most CONNECTIONS_PER_FRONT.
            slot: slot as u32,
            generation,
        }
    }

    /// Its place among the front's connections; small, and free again after it is gone.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }
}

/// A version of HTTP, which the runtime takes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The preamble is not complete.
    Greeting,
    /// Requests are served.
    Serving,
    /// The runtime speaks this version of HTTP with the client, and hands in calls.
    Http(HttpVersion),
    /// Nothing is served any more; what waits is still answered.
    Closing,
}

/// What a connection that speaks HTTP has besides.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Finished calls whose messages lie in the connection's output.
    pub answers: Vec<Answer>,
    /// Bytes of messages that the runtime has taken and not yet sent.
    pub taken: usize,
    /// Those of them that wait until the client wants more of their own streams.
    pub waiting: usize,
    /// When the oldest message began of which a part has come, and not all.
    pub receives_since_ns: Option<u64>,
}

/// A watch stream of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchStream {
    pub id: StreamId,
    /// Its client has not taken what it was told, and is told no more until it has.
    pub stalled: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub generation: u32,
    pub phase: Phase,
    /// Received and not yet used: the beginning of a frame, or whole frames while `held`.
    pub input: Vec<u8>,
    /// When the phase, or the frame in `input`, began.
    pub since_ns: u64,
    /// Serving stopped at a bound, with whole frames possibly in `input`.
    pub held: bool,
    /// It stands in the list of those that may go on.
    pub resumable: bool,
    /// The client has closed its sending half.
    pub input_over: bool,
    /// There if the connection speaks HTTP: the answers are then messages of etcd's API.
    pub calls: Option<Box<Calls>>,
    /// To send; the first `sent` bytes are gone.
    pub output: Vec<u8>,
    pub sent: usize,
    /// When the client last took something, or when there was first something to take.
    pub output_since_ns: u64,
    /// Requests without an answer, and their bytes.
    pub in_flight: usize,
    pub in_flight_bytes: usize,
    /// Room that is set aside for the answers to some of them.
    pub reserved: usize,
    /// It stands in the list of those that the runtime should look at.
    pub touched: bool,
    /// Answers that are not finished.
    pub long: Vec<Long>,
    /// Its watch streams, by the id that their frames carry.
    pub streams: BTreeMap<u64, WatchStream>,
    /// Its calls that take several steps.
    pub errands: BTreeMap<u64, ErrandId>,
    /// Watches wait until the client has taken more.
    pub watch_blocked: bool,
    /// The client broke a deadline: nothing is sent or waited for any more.
    pub abandoned: bool,
}

impl Connection {
    pub fn new(generation: u32, now_ns: u64) -> Connection {
        Connection {
            generation,
            phase: Phase::Greeting,
            input: Vec::new(),
            since_ns: now_ns,
            held: false,
            resumable: false,
            input_over: false,
            calls: None,
            output: Vec::new(),
            sent: 0,
            output_since_ns: now_ns,
            in_flight: 0,
            in_flight_bytes: 0,
            reserved: 0,
            touched: false,
            long: Vec::new(),
            streams: BTreeMap::new(),
            errands: BTreeMap::new(),
            watch_blocked: false,
            abandoned: false,
        }
    }

    /// It has as much under way as it may have.
    pub fn is_full(&self) -> bool {
        self.in_flight >= limits::REQUESTS_PER_CONNECTION
            || self.in_flight_bytes >= limits::REQUEST_BYTES_PER_CONNECTION
            || self.owed() >= self.owed_max()
            || self.phase == Phase::Serving && self.long.len() >= limits::DRAFTS_PER_CONNECTION
    }

    fn owed_max(&self) -> usize {
        match self.calls {
            Some(_) => limits::STREAMED_BYTES_PER_CONNECTION,
            None => limits::OUTPUT_BYTES_PER_CONNECTION,
        }
    }

    /// Bytes of answers that have not left.
    pub fn owed(&self) -> usize {
        let taken = self.calls.as_ref().map_or(0, |calls| calls.taken);
        self.output.len() - self.sent + taken
    }

    /// Its client does not keep up with its watches. What waits until the client wants more of a
    /// stream holds up that stream alone, as long as there is not too much of it.
    pub fn blocks_watches(&self) -> bool {
        let waiting = self.calls.as_ref().map_or(0, |calls| calls.waiting);
        waiting >= limits::WATCH_WAITING_PER_CONNECTION
            || self.unheard() >= limits::WATCH_OUTPUT_PER_CONNECTION
    }

    /// Bytes of answers that have not left, without those that wait for their own streams.
    pub fn unheard(&self) -> usize {
        let waiting = self.calls.as_ref().map_or(0, |calls| calls.waiting);
        self.owed().saturating_sub(waiting)
    }

    /// Its client has taken nothing of what is there for it since the last scan.
    pub fn stands_still(&self, now_ns: u64) -> bool {
        let waited_ns = now_ns.saturating_sub(self.output_since_ns);
        !self.unsent().is_empty() && waited_ns >= limits::DEADLINE_SCAN_MS * 1_000_000
    }

    /// Nothing is left to be sent.
    fn is_said(&self) -> bool {
        let calls = self.calls.as_ref();
        self.owed() == 0 && calls.is_none_or(|calls| calls.answers.is_empty())
    }

    /// The watch stream whose frames carry that id.
    pub fn stream(&self, id: u64) -> Option<StreamId> {
        self.streams.get(&id).map(|stream| stream.id)
    }

    pub fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Serves nothing more.
    pub fn close(&mut self, now_ns: u64) {
        self.phase = Phase::Closing;
        self.since_ns = now_ns;
        self.held = false;
        self.input = Vec::new();
    }

    /// Ends it now.
    pub fn abandon(&mut self) {
        self.phase = Phase::Closing;
        self.abandoned = true;
    }

    pub fn verdict(&self) -> Verdict {
        if self.abandoned {
            return Verdict::Over;
        }
        if let Phase::Http(version) = self.phase {
            return Verdict::Http(version);
        }
        if self.in_flight > 0 || !self.is_said() || self.held {
            return Verdict::Open;
        }
        match (self.phase, self.input_over) {
            (_, true) => Verdict::Over,
            (Phase::Closing, false) => Verdict::Finish,
            (_, false) => Verdict::Open,
        }
    }

    /// The deadline that it has broken, if any. `patient`: it may leave its answers where they
    /// are.
    pub fn overdue(&self, now_ns: u64, patient: bool) -> Option<&'static str> {
        if self.abandoned {
            return None;
        }
        let waited =
            |since: u64, limit_ms: u64| now_ns.saturating_sub(since) > limit_ms * 1_000_000;
        if self.owed() > 0 {
            let stalled = waited(self.output_since_ns, limits::STALLED_READER_DEADLINE_MS);
            return (stalled && !patient).then_some("answers were not taken");
        }
        match self.phase {
            Phase::Greeting => waited(self.since_ns, limits::PREAMBLE_DEADLINE_MS)
                .then_some("the preamble was not completed"),
            Phase::Serving if !self.input.is_empty() && !self.held => {
                waited(self.since_ns, limits::FRAME_DEADLINE_MS)
                    .then_some("a frame was not completed")
            }
            Phase::Closing if self.in_flight == 0 => waited(
                self.since_ns.max(self.output_since_ns),
                limits::CLOSE_DEADLINE_MS,
            )
            .then_some("the connection was not closed"),
            Phase::Http(_) => {
                let since = self.calls.as_ref()?.receives_since_ns?;
                waited(since, limits::FRAME_DEADLINE_MS).then_some("a message was not completed")
            }
            Phase::Serving | Phase::Closing => None,
        }
    }
}
