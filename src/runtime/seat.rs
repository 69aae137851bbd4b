//! One executor's seat: its actors, its inbox, and the turn that moves everything between them.
//!
//! All wake-ups come together here. Connection tasks hand bytes to the front and ask for a turn;
//! other threads put messages into the inbox, which asks for a turn; the turn, which runs after
//! the tasks that were ready with it, sends what has gathered: one proposal to the order actor,
//! one message to each other core, one wake-up to each connection that has something to send.

#![forbid(unsafe_code)]

use crate::etcd::Method;
use crate::limits;
use crate::node::front::{ConnectionId, Front, Notice, Watching};
use crate::node::log_driver::LogWork;
use crate::node::messages::{FrontId, FrontInput, OrderInput, OrderOutput};
use crate::runtime::access::Access;
use crate::runtime::alarms::Alarms;
use crate::runtime::checkpoint_thread::CheckpointWork;
use crate::runtime::clock::Clock;
use crate::runtime::listen::{Door, Listener};
use crate::runtime::logger;
use crate::runtime::queue::{Receiver, Sender};
use crate::runtime::server::NodeOrder;
use crate::runtime::tally::{SeatTally, Tally};
use glommio::net::AcceptedTcpStream;
use quoin_storage::disk::PageFile;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Everything that can wake a seat from another thread.
#[derive(Debug)]
pub enum SeatInput {
    /// For the order actor.
    Order(OrderInput),
    /// For the front.
    Front(FrontInput),
    /// Time has passed: see [`Seat::tick`].
    Tick,
    /// Take connections from these, and share them out among the fronts.
    Listen(Vec<Listener>),
    /// A client has connected, and it is this front's turn.
    Connection(AcceptedTcpStream, Door),
    /// The front serves nothing new from now on, and says when it is quiet.
    Stop,
}

/// What the main thread hears.
#[derive(Debug)]
pub enum Event {
    /// The order actor leads and its state is readable.
    Ready,
    /// A signal asks the process to stop.
    Signal(i32),
    /// A front owes nobody anything any more.
    Quiet(FrontId),
    /// The order actor has finished.
    Drained,
    /// An executor has ended, which none should.
    Failed(String),
}

/// The ways out of a seat.
pub struct Links {
    /// The log thread.
    pub log: Sender<LogWork>,
    /// The checkpoint thread.
    pub checkpoint: Sender<CheckpointWork>,
    /// The seat of the order actor.
    pub order: Sender<SeatInput>,
    /// The seats of the fronts, by number.
    pub fronts: Vec<Sender<SeatInput>>,
    /// The main thread.
    pub events: Sender<Event>,
}

/// Asks for a turn from within the executor.
#[derive(Default)]
struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    fn raise(&self) {
        if self.raised.replace(true) {
            return;
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut slot = self.waker.borrow_mut();
        match &*slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }
}

/// See the module.
pub struct Seat {
    /// The front that sits here.
    pub front: Option<RefCell<Front>>,
    front_id: Option<FrontId>,
    order: Option<RefCell<NodeOrder>>,
    links: Links,
    /// The time.
    pub clock: Clock,
    /// The tree's file, whose size is looked at.
    file: Arc<dyn PageFile>,
    /// What HTTP clients may ask.
    pub access: Arc<Access>,
    /// What the whole server counts.
    pub tally: Arc<Tally>,
    /// What is counted here.
    pub counted: Arc<SeatTally>,
    signal: Signal,
    /// The tasks of the connections, by slot.
    sockets: RefCell<Vec<Option<Waker>>>,
    /// What one read of a socket fills.
    pub scratch: RefCell<Vec<u8>>,
    outputs: RefCell<Vec<OrderOutput>>,
    /// Fronts that are to be told of a newer root as soon as there is room.
    published_due: RefCell<Vec<FrontId>>,
    touched: RefCell<Vec<ConnectionId>>,
    accepting: RefCell<Vec<glommio::Task<()>>>,
    /// Of this second: how many notices were told, and how many were not.
    notices: Cell<(u32, u32)>,
    tick_due: Cell<bool>,
    /// Beats of the clock that were taken.
    beats: Cell<u64>,
    /// Connections to wake at the next.
    wait_for_beat: RefCell<Vec<ConnectionId>>,
    /// Connections to wake when a call's time is over.
    alarms: RefCell<Alarms>,
    last_tick_ns: Cell<u64>,
    stopping: Cell<bool>,
    quiet: Cell<bool>,
    ready: Cell<bool>,
}

impl Seat {
    /// Seats the actors of one executor.
    pub fn new(
        front: Option<(FrontId, Front)>,
        order: Option<NodeOrder>,
        links: Links,
        clock: Clock,
        file: Arc<dyn PageFile>,
        access: Arc<Access>,
        (tally, counted): (Arc<Tally>, Arc<SeatTally>),
    ) -> Seat {
        let seat = Seat {
            front_id: front.as_ref().map(|(id, _)| *id),
            front: front.map(|(_, front)| RefCell::new(front)),
            order: order.map(RefCell::new),
            links,
            clock,
            file,
            access,
            tally,
            counted,
            signal: Signal::default(),
            sockets: RefCell::new(Vec::new()),
            scratch: RefCell::new(vec![0; limits::READ_BYTES_PER_TURN]),
            outputs: RefCell::new(Vec::new()),
            published_due: RefCell::new(Vec::new()),
            touched: RefCell::new(Vec::new()),
            accepting: RefCell::new(Vec::new()),
            notices: Cell::new((0, 0)),
            tick_due: Cell::new(false),
            beats: Cell::new(0),
            wait_for_beat: RefCell::new(Vec::new()),
            alarms: RefCell::new(Alarms::default()),
            last_tick_ns: Cell::new(0),
            stopping: Cell::new(false),
            quiet: Cell::new(false),
            ready: Cell::new(false),
        };
        seat.measure_store();
        seat
    }

    /// Tells the front how much the store takes: its file, and the pages that are not there yet.
    fn measure_store(&self) {
        if let (Some(front), Ok(bytes)) = (&self.front, self.file.allocated_bytes()) {
            let seats = self.tally.seats.iter();
            let young_bytes: u64 = seats.map(|seat| seat.order().young_bytes).sum();
            front.borrow_mut().store_takes(bytes + young_bytes);
        }
    }

    /// The seat has been asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Beats of the clock so far, one every [`limits::TICK_MS`] while the executor runs.
    pub fn beat(&self) -> u64 {
        self.beats.get()
    }

    /// Wakes a connection's task at the next beat.
    pub fn wake_at_beat(&self, id: ConnectionId) {
        self.wait_for_beat.borrow_mut().push(id);
    }

    /// Wakes a connection's task at that time, or up to a beat later, and not at the time that it
    /// has asked for before.
    pub fn wake_at(&self, id: ConnectionId, at_ns: u64) {
        self.alarms.borrow_mut().set(id.slot(), at_ns);
    }

    /// Asks for a turn once the tasks that are ready now have run.
    pub fn request_turn(&self) {
        self.signal.raise();
    }

    /// Remembers how to wake a connection's task.
    pub fn register_socket(&self, id: ConnectionId, cx: &Context<'_>) {
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() <= id.slot() {
            sockets.resize_with(id.slot() + 1, || None);
        }
        let slot = &mut sockets[id.slot()];
        match slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }

    /// Forgets a connection.
    pub fn close_socket(&self, id: ConnectionId) {
        if let Some(slot) = self.sockets.borrow_mut().get_mut(id.slot()) {
            *slot = None;
        }
        self.alarms.borrow_mut().clear(id.slot());
        if let Some(front) = &self.front {
            let mut front = front.borrow_mut();
            front.disconnect(id);
            if front.has_work() {
                self.request_turn();
            }
        }
        if self.stopping.get() {
            self.request_turn();
        }
    }

    /// Gives a new connection to one of the fronts.
    pub fn place_connection(self: &Rc<Seat>, front: usize, stream: AcceptedTcpStream, door: Door) {
        let own = self.front_id.map(|id| usize::from(id.0));
        match self.links.fronts.get(front) {
            // A front that is so far behind takes no more: the stream is closed with the message.
            Some(other) if own != Some(front) => {
                let _ = other.try_send(SeatInput::Connection(stream, door));
            }
            _ => super::socket::open(self, stream, door),
        }
    }

    /// How many fronts the node has.
    pub fn fronts(&self) -> usize {
        self.links.fronts.len()
    }

    /// Takes turns for the life of the executor.
    pub async fn run(self: Rc<Seat>, inbox: Receiver<SeatInput>) {
        let mut inputs = Vec::new();
        poll_fn(|cx| {
            self.signal.register(cx);
            inbox.take(&mut inputs);
            self.signal.raised.set(false);
            self.turn(&mut inputs);
            if inbox.poll_take(cx, &mut inputs).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Hands everything on that has gathered.
    fn turn(self: &Rc<Seat>, inputs: &mut Vec<SeatInput>) {
        let now_ns = self.clock.now_ns();
        for input in inputs.drain(..) {
            self.take(input, now_ns);
        }
        // However many beats a stall has gathered, they are one.
        if self.tick_due.take() {
            self.tick(now_ns);
        }
        self.propose(now_ns);
        self.dispatch(now_ns);
        self.show(now_ns);
        self.wake_sockets();
        self.report_quiet();
    }

    fn take(self: &Rc<Seat>, input: SeatInput, now_ns: u64) {
        match input {
            SeatInput::Order(input) => self.step_order(input, now_ns),
            SeatInput::Front(input) => self.step_front(input, now_ns),
            SeatInput::Tick => self.tick_due.set(true),
            SeatInput::Connection(stream, door) => super::socket::open(self, stream, door),
            SeatInput::Listen(listeners) => {
                let mut accepting = self.accepting.borrow_mut();
                for listener in listeners {
                    accepting.push(super::listen::accept(self, listener));
                }
            }
            SeatInput::Stop => {
                self.stopping.set(true);
                // A task that is dropped is cancelled, and its listener closed.
                self.accepting.borrow_mut().clear();
                if let Some(front) = &self.front {
                    front.borrow_mut().stop(now_ns);
                }
            }
        }
    }

    /// Hands a message to the order actor, which must sit here.
    pub fn step_order(&self, input: OrderInput, now_ns: u64) {
        let order = self.order.as_ref();
        let order = order.expect("order messages are sent to the order actor's seat");
        let mut outputs = self.outputs.borrow_mut();
        order.borrow_mut().step(now_ns, input, &mut outputs);
    }

    fn step_front(&self, input: FrontInput, now_ns: u64) {
        let front = self.front.as_ref();
        let front = front.expect("front messages are sent to the front's seat");
        let mut front = front.borrow_mut();
        if let FrontInput::Replies(replies) = &input
            && let Some(waited_ns) = front.has_waited_ns(&replies.list, now_ns)
        {
            self.counted.answered.note(waited_ns);
        }
        front.step(input, now_ns);
    }

    /// Sends the front's writes and read barriers to the order actor.
    fn propose(&self, now_ns: u64) {
        let Some(front) = &self.front else {
            return;
        };
        let mut front = front.borrow_mut();
        front.resume(now_ns);
        // What there is no room for stays with the front, which counts it.
        if !self.order_has_room() {
            return;
        }
        if let (Some(bytes), Some(front)) = (front.take_answers_taken(), self.front_id) {
            self.to_order(OrderInput::AnswersTaken { front, bytes }, now_ns);
        }
        while self.order_has_room()
            && let Some(batch) = front.take_batch()
        {
            self.to_order(OrderInput::Propose(batch), now_ns);
        }
        if let Some(asks) = front.take_lease_asks() {
            self.to_order(OrderInput::Leases(asks), now_ns);
        }
        if let (Some(token), Some(id)) = (front.take_barrier(), self.front_id) {
            self.to_order(OrderInput::ReadBarrier { front: id, token }, now_ns);
        }
        if let (Some(on), Some(front)) = (front.take_hold(), self.front_id) {
            self.to_order(OrderInput::HoldPurge { front, on }, now_ns);
        }
        if let (Some(oldest), Some(front)) = (front.take_oldest_read(), self.front_id) {
            self.to_order(OrderInput::Reading { front, oldest }, now_ns);
        }
        if let (Some(watching), Some(front)) = (front.take_watching(), self.front_id) {
            let Watching { on, seen } = watching;
            self.to_order(OrderInput::Watching { front, on, seen }, now_ns);
        }
    }

    /// Tells watches what the turn has published.
    fn show(&self, now_ns: u64) {
        if let Some(front) = &self.front {
            let mut front = front.borrow_mut();
            front.show(now_ns);
            if let Some(since_ns) = front.take_told_since() {
                let told_ns = self.clock.now_ns();
                self.counted.told.note(told_ns.saturating_sub(since_ns));
            }
        }
    }

    fn order_has_room(&self) -> bool {
        self.order.is_some() || self.links.order.has_room()
    }

    fn to_order(&self, input: OrderInput, now_ns: u64) {
        if self.order.is_some() {
            self.step_order(input, now_ns);
        } else {
            let bytes = match &input {
                OrderInput::Propose(batch) => batch.bytes.len(),
                _ => 0,
            };
            let input = SeatInput::Order(input);
            self.links.order.answer_weighing(input, bytes);
        }
    }

    /// Carries the order actor's wishes out.
    fn dispatch(&self, now_ns: u64) {
        let Some(order) = &self.order else {
            return;
        };
        self.tell_published();
        let mut outputs = self.outputs.borrow_mut();
        let began_ns = self.clock.now_ns();
        let next = order.borrow_mut().turn(now_ns, &mut outputs);
        if next.now || !outputs.is_empty() {
            self.note_turn(self.clock.now_ns().saturating_sub(began_ns));
        }
        if next.now {
            self.request_turn();
        }
        for output in outputs.drain(..) {
            match output {
                // Bounded by the order actor, see `limits::LOG_QUEUE_REQUESTS`.
                OrderOutput::Append(request) => self.links.log.answer(LogWork::Append(request)),
                OrderOutput::CutLog { index } => self.links.log.answer(LogWork::Cut(index)),
                OrderOutput::Checkpoint(job) => self.links.checkpoint.answer(CheckpointWork(job)),
                OrderOutput::Front(id, input) => self.to_front(id, input, now_ns),
                // A sole member has no peers.
                OrderOutput::Peer(_) => {}
                OrderOutput::Drained => self.links.events.answer(Event::Drained),
                OrderOutput::Fatal(fatal) => {
                    logger::fatal(format_args!("the node cannot go on: {fatal}"))
                }
            }
        }
    }

    /// A turn of the order actor took so long.
    fn note_turn(&self, took_ns: u64) {
        self.counted.turns.note(took_ns);
        if took_ns > self.tally.settings.slow_turn_ns {
            self.counted.slow_turns.add(1);
            if self.may_tell() {
                crate::log_warn!(
                    "a turn of the order actor took {} ms, longer than --warning-apply-duration",
                    took_ns / 1_000_000
                );
            }
        }
    }

    /// A call that has one answer took so long.
    pub fn note_slow_call(&self, method: Method, took_ns: u64) {
        if took_ns > self.tally.settings.slow_call_ns && self.may_tell() {
            let (service, name) = method.name();
            crate::log_warn!(
                "a call of {service}/{name} took {} ms, longer than \
                 --warning-unary-request-duration",
                took_ns / 1_000_000
            );
        }
    }

    /// Whether an event more may be told in this second; if not, it is counted.
    fn may_tell(&self) -> bool {
        let (told, left_out) = self.notices.get();
        let may = told < limits::NOTICES_PER_SECOND;
        self.notices.set(match may {
            true => (told + 1, left_out),
            false => (told, left_out + 1),
        });
        may
    }

    /// Shows what the actors here have counted to whoever asks for metrics.
    pub fn show_counts(&self) {
        if let Some(front) = &self.front {
            self.counted.show_front(&front.borrow().counts());
        }
        if let Some(order) = &self.order {
            self.counted.show_order(&order.borrow().counts());
        }
    }

    fn to_front(&self, id: FrontId, input: FrontInput, now_ns: u64) {
        if matches!(input, FrontInput::LocalReads(true)) && !self.ready.replace(true) {
            self.links.events.answer(Event::Ready);
        }
        if self.front_id == Some(id) {
            self.step_front(input, now_ns);
        } else if let Some(front) = self.links.fronts.get(usize::from(id.0)) {
            if matches!(input, FrontInput::Published) && !front.has_room() {
                // Nobody has asked for it, and one is as good as many.
                self.published_due.borrow_mut().push(id);
                return;
            }
            // An answer, and its pairs are counted by the order actor.
            front.answer(SeatInput::Front(input));
        }
    }

    /// Tells fronts of newer roots that there was no room to tell of.
    fn tell_published(&self) {
        let mut due = self.published_due.borrow_mut();
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        due.dedup();
        due.retain(|id| {
            let front = self.links.fronts.get(usize::from(id.0));
            let Some(front) = front.filter(|front| front.has_room()) else {
                return true;
            };
            front.answer(SeatInput::Front(FrontInput::Published));
            false
        });
    }

    /// Wakes the connections that have something to send, or may be read again.
    fn wake_sockets(&self) {
        let Some(front) = &self.front else {
            return;
        };
        let mut touched = self.touched.borrow_mut();
        let mut front = front.borrow_mut();
        front.take_touched(&mut touched);
        let sockets = self.sockets.borrow();
        for id in touched.drain(..) {
            if let Some(Some(waker)) = sockets.get(id.slot()) {
                waker.wake_by_ref();
            }
        }
        for notice in front.take_notices() {
            if self.may_tell() {
                tell(notice);
            }
        }
        if front.has_work() {
            self.signal.raise();
        }
    }

    fn report_quiet(&self) {
        let (Some(front), Some(id)) = (&self.front, self.front_id) else {
            return;
        };
        if self.stopping.get() && !self.quiet.get() && front.borrow().is_quiet() {
            self.quiet.set(true);
            self.links.events.answer(Event::Quiet(id));
        }
    }

    /// Time has passed.
    fn tick(&self, now_ns: u64) {
        self.beats.set(self.beats.get().wrapping_add(1));
        let sockets = self.sockets.borrow();
        for id in self.wait_for_beat.borrow_mut().drain(..) {
            // Another that has the slot by now is woken for nothing.
            if let Some(Some(waker)) = sockets.get(id.slot()) {
                waker.wake_by_ref();
            }
        }
        let mut alarms = self.alarms.borrow_mut();
        while let Some(slot) = alarms.take_due(now_ns) {
            if let Some(Some(waker)) = sockets.get(slot) {
                waker.wake_by_ref();
            }
        }
        drop((sockets, alarms));
        let last_ns = self.last_tick_ns.replace(now_ns);
        let late_ms = now_ns.saturating_sub(last_ns) / 1_000_000;
        if last_ns != 0 {
            let due_ns = limits::TICK_MS * 1_000_000;
            let late_ns = now_ns.saturating_sub(last_ns).saturating_sub(due_ns);
            self.counted.late.note(late_ns);
        }
        self.show_counts();
        if last_ns != 0 && late_ms > limits::TICK_MS + limits::LATE_TICK_MS {
            crate::log_warn!("an executor's loop stood still for {late_ms} ms");
        }
        if now_ns / 1_000_000_000 != last_ns / 1_000_000_000 {
            let (_, left_out) = self.notices.take();
            if left_out > 0 {
                crate::log_warn!("{left_out} more events of clients were not listed");
            }
            self.measure_store();
        }
        if let Some(front) = &self.front {
            front.borrow_mut().tick(now_ns);
        }
        if self.order.is_some() {
            self.step_order(OrderInput::Tick, now_ns);
        }
    }
}

fn tell(notice: Notice) {
    match notice {
        Notice::NotServed(sniff) => {
            crate::log_warn!("a client that speaks {sniff:?} was refused: it is not served here");
        }
        Notice::Malformed(what) => crate::log_warn!("a client broke the protocol: {what}"),
        Notice::TooSlow(what) => crate::log_info!("a connection was closed: {what}"),
        Notice::Corrupt(what) => crate::log_error!(
            "a read met damaged data: {what}; check the data directory with quoinctl \
             (docs/OPERATIONS.md, 'The data is damaged')"
        ),
    }
}
