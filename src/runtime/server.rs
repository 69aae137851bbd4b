//! Starting, running and stopping a server.

#![forbid(unsafe_code)]

use crate::apply::{Applier, BatchLimits, validate};
use crate::etcd::Member;
use crate::limits;
use crate::node::front::{Front, FrontConfig, WatchBounds};
use crate::node::messages::{FrontId, LogEntry, OrderInput};
use crate::node::order::{Order, OrderConfig, RecoveredLog};
use crate::runtime::access::Access;
use crate::runtime::checkpoint_thread::CheckpointThread;
use crate::runtime::clock::Clock;
use crate::runtime::data_dir::{self, DataDir, Identity};
use crate::runtime::flags::{Config, Url};
use crate::runtime::listen::{self, Listener};
use crate::runtime::log_thread::{self, LogThread};
use crate::runtime::placement::{Place, Placement};
use crate::runtime::queue::{self, Bounds, Receiver, Sender};
use crate::runtime::scrub_thread::ScrubThread;
use crate::runtime::seat::{Event, Links, Seat, SeatInput};
use crate::runtime::startup::{self, StartError};
use crate::runtime::tally::{SeatTally, Tally, TallySettings};
use crate::runtime::{ids, logger, notify, os};
use glommio::LocalExecutorBuilder;
use quoin_storage::disk::{Disk, RealDisk};
use quoin_storage::log::{LogOptions, LogWriter, Recovered};
use quoin_storage::tree::{self, Shared, TreeOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Read as _};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The product's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Memory that an executor registers for disk access of its own, of which there is none.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// Runs a server until it is asked to stop; an error means that it never served.
pub fn serve(config: &Config) -> Result<(), StartError> {
    let clock = Clock::start();
    os::ignore_file_size_signal();
    crate::log_info!("quoin {VERSION} starts as '{}'", config.name);
    for notice in &config.notices {
        logger::log(
            notice.level,
            concat!(file!(), ":", line!()),
            format_args!("{}", notice.text),
        );
    }
    let placement = place(config)?;
    let addresses = [
        &config.listen_client,
        &config.listen_http,
        &config.listen_metrics,
    ];
    let addresses = addresses.iter().map(|urls| urls.len()).sum();
    startup::check_machine(placement.places.len(), addresses)?;
    let dir = DataDir::open(&config.data_dir)?;
    let log_dir = match &config.wal_dir {
        Some(path) => Some(DataDir::open_for_log(path)?),
        None => None,
    };
    let listeners = listen::open(config)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(dir.path())?);
    startup::warn_of_little_space(disk.free_bytes()?);
    let log_disk: Arc<dyn Disk> = match &log_dir {
        Some(dir) => Arc::new(RealDisk::open_existing(dir.path())?),
        None => Arc::clone(&disk),
    };
    startup::warn_of_little_space(log_disk.free_bytes()?);
    if config.joins && dir.identity(&*disk)?.is_none() {
        return Err(StartError::NoMember(dir.path().to_owned()));
    }
    let identity = dir.begin_run(&*disk, newcomer(config))?;
    let disks = (disk, log_disk);
    let node = Node::open(config, &dir, disks, identity, clock, placement.fronts())?;
    let running = Running::start(node, &placement, clock)?;
    running.serve(listeners)
}

/// Shares out the cores.
fn place(config: &Config) -> Result<Placement, StartError> {
    let allowed = os::allowed_cores().map_err(|error| StartError::System {
        what: "the cores cannot be listed",
        error,
    })?;
    match &config.cores {
        None => Ok(Placement::new(&allowed, config.fronts)),
        Some(asked) if asked.iter().all(|core| allowed.contains(core)) => {
            Ok(Placement::new(asked, config.fronts))
        }
        Some(asked) => Err(StartError::Cores {
            asked: asked.clone(),
            allowed,
        }),
    }
}

/// Who settles in a new data directory.
fn newcomer(config: &Config) -> Identity {
    let urls: Vec<String> = config
        .advertise_peer
        .iter()
        .map(ToString::to_string)
        .collect();
    let member_id = ids::member_id(&urls, &config.cluster_token);
    let cluster_id = ids::cluster_id(&[member_id]);
    Identity {
        cluster_id,
        member_id,
        boot_epoch: 0,
        log_id: cluster_id.rotate_left(32) ^ member_id,
        founded: false,
    }
}

/// What is told of this member.
fn member(config: &Config, identity: &Identity) -> Member {
    let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect();
    Member {
        id: identity.member_id,
        name: config.name.clone(),
        peer_urls: texts(&config.advertise_peer),
        client_urls: texts(&config.advertise_client),
    }
}

/// The order actor over the real tree.
pub type NodeOrder = Order<tree::Writer>;

/// The parts of a node, opened and not yet running.
struct Node {
    order: NodeOrder,
    log: LogWriter,
    shared: Shared,
    front: FrontConfig,
    access: Arc<Access>,
    tally: TallySettings,
}

impl Node {
    /// Recovers what the data directory holds.
    fn open(
        config: &Config,
        dir: &DataDir,
        (disk, log_disk): (Arc<dyn Disk>, Arc<dyn Disk>),
        identity: Identity,
        clock: Clock,
        fronts: usize,
    ) -> Result<Node, StartError> {
        let started = Instant::now();
        let seed = seed_of_chance()?;
        let options = LogOptions::new(identity.log_id, seed);
        let (log, recovered) = LogWriter::open(log_disk, options)?;
        let options = TreeOptions {
            young_bytes_max: limits::YOUNG_BYTES_MAX,
            spare_bytes: limits::TREE_SPARE_BYTES,
            ..TreeOptions::default()
        };
        let (writer, shared) = tree::open(Arc::clone(&disk), data_dir::TREE, options)?;
        watch_map(&shared, dir)?;
        let applier = Applier::open(writer, BatchLimits::default())
            .map_err(|failure| StartError::Storage(failure.to_string()))?;
        let (revision, applied) = (applier.meta().revision, applier.meta().applied_index);
        crate::log_info!(
            "recovered revision {revision}, applied index {applied}, and {} log entries from {} \
             on, in {} ms",
            recovered.entries.len(),
            recovered.base_index + 1,
            started.elapsed().as_millis()
        );
        let settings = order_config(config, &identity, fronts);
        let order = Order::new(
            settings,
            recovered_log(recovered),
            applier,
            seed,
            clock.now_ns(),
        )
        .map_err(|error| StartError::Storage(error.to_string()))?;
        dir.found(&*disk, identity)?;
        Ok(Node {
            order,
            log,
            shared,
            front: FrontConfig {
                front: FrontId(0),
                cluster_id: identity.cluster_id,
                member_id: identity.member_id,
                boot: identity.boot_epoch,
                limits: validate::Limits {
                    txn_ops: config.txn_ops_max,
                    request_bytes: config.request_bytes_max,
                    lease_ttl_min: validate::lease_ttl_min(
                        config.election_ticks() as u64,
                        config.heartbeat_ms,
                    ),
                },
                quota_bytes: config.quota_bytes,
                watch_bounds: WatchBounds::default(),
                watch_progress_ns: config.watch_progress_ms.saturating_mul(1_000_000),
                // Another sequence than that of consensus.
                seed: seed.rotate_left(32),
                version: VERSION,
                member: Arc::new(member(config, &identity)),
            },
            access: Arc::new(Access::new(config)),
            tally: TallySettings {
                features: config.features.clone(),
                extensive: config.extensive_metrics,
                slow_turn_ns: config.slow_apply_ns,
                slow_call_ns: config.slow_call_ns,
            },
        })
    }
}

fn recovered_log(recovered: Recovered) -> RecoveredLog {
    let entries = recovered.entries.into_iter().map(|entry| LogEntry {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        data: entry.data.into(),
        context: entry.context.into(),
    });
    RecoveredLog {
        hard_state: recovered.hard_state,
        base_index: recovered.base_index,
        base_term: recovered.base_term,
        entries: entries.collect(),
    }
}

fn order_config(config: &Config, identity: &Identity, fronts: usize) -> OrderConfig {
    let fronts = u16::try_from(fronts).unwrap_or(u16::MAX);
    let mut settings = OrderConfig::sole(
        identity.cluster_id,
        identity.member_id,
        identity.boot_epoch,
        fronts,
    );
    settings.founding = !identity.founded;
    settings.core.election_ticks = config.election_ticks();
    settings.checkpoint.entries = config.snapshot_count.unwrap_or(u64::MAX);
    settings.tick_ns = config.heartbeat_ms * 1_000_000;
    settings.auto_compaction = config.auto_compaction;
    settings
}

/// A number that no other start has: from the kernel's pool.
fn seed_of_chance() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut pool| pool.read_exact(&mut bytes))
        .map_err(|error| StartError::System {
            what: "/dev/urandom cannot be read",
            error,
        })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Has failed reads through the tree's map reported by name.
fn watch_map(shared: &Shared, dir: &DataDir) -> Result<(), StartError> {
    let file = shared.page_file();
    let path = dir.path().join(data_dir::TREE).display().to_string();
    os::report_bus_errors(file.map().address(), file.map().reserve(), path).map_err(|error| {
        StartError::System {
            what: "the handler of bus errors cannot be installed",
            error,
        }
    })
}

/// A running server, seen from the main thread.
struct Running {
    events: Receiver<Event>,
    order: Sender<SeatInput>,
    fronts: Vec<Sender<SeatInput>>,
}

impl Running {
    /// Starts all threads.
    fn start(node: Node, placement: &Placement, clock: Clock) -> Result<Running, StartError> {
        let one_each = Bounds::items(limits::QUEUE_EVENTS, limits::QUEUE_EVENTS);
        let (event_sender, events) = queue::bounded(one_each);
        watch_signals(event_sender.clone())?;
        let (log_sender, log_work) = queue::bounded(Bounds::items(
            limits::LOG_QUEUE_REQUESTS,
            limits::LOG_QUEUE_REQUESTS,
        ));
        // One of them is under way at a time.
        let (checkpoint_sender, checkpoints) = queue::bounded(Bounds::items(0, 1));
        let (segment_sender, segments) = queue::bounded(Bounds::items(0, 1));
        let inbox = Bounds {
            questions: limits::QUEUE_MESSAGES,
            bytes: limits::QUEUE_BYTES,
            answers: limits::QUEUE_ANSWERS,
        };
        let mut inboxes: Vec<_> = placement
            .places
            .iter()
            .map(|_| queue::bounded(inbox))
            .collect();
        let order = sender_of(placement, &inboxes, |place| place.order);
        let fronts: Vec<_> = (0..placement.fronts())
            .map(|front| {
                sender_of(placement, &inboxes, |place| {
                    place.front.is_some_and(|id| usize::from(id.0) == front)
                })
            })
            .collect();
        let helpers = placement.helpers.clone();
        let cores = placement.places.iter().map(|place| place.core);
        let tally = Arc::new(Tally::new(cores, node.tally));
        let log = LogThread::new(
            node.log,
            log_work,
            order.clone(),
            segment_sender,
            Arc::clone(&tally),
        );
        start_thread("quoin-log", &helpers, move || {
            os::prefer_short_slices(limits::SLICE_NS);
            log.run();
        })?;
        let log = log_sender.clone();
        start_thread("quoin-segments", &helpers, move || {
            log_thread::make_segments(&segments, &log);
        })?;
        let thread = CheckpointThread {
            work: checkpoints,
            file: node.shared.page_file(),
            order: order.clone(),
            tally: Arc::clone(&tally),
        };
        start_thread("quoin-checkpt", &helpers, move || thread.run())?;
        let thread = ScrubThread {
            reader: (node.shared.reader()).expect("the first readers have slots"),
            tally: Arc::clone(&tally),
        };
        start_thread("quoin-scrub", &helpers, move || thread.run())?;
        let seats: Vec<_> = inboxes.iter().map(|(sender, _)| sender.clone()).collect();
        start_thread("quoin-clock", &[], move || beat(&seats))?;
        let mut order_actor = Some(node.order);
        let places = placement.places.iter().zip(&tally.seats);
        for ((place, counted), (_, inbox)) in places.zip(inboxes.drain(..)) {
            let links = Links {
                log: log_sender.clone(),
                checkpoint: checkpoint_sender.clone(),
                order: order.clone(),
                fronts: fronts.clone(),
                events: event_sender.clone(),
            };
            let parts = SeatParts {
                front: place.front.map(|id| FrontConfig {
                    front: id,
                    ..node.front.clone()
                }),
                order: if place.order {
                    order_actor.take()
                } else {
                    None
                },
                shared: node.shared.clone(),
                access: Arc::clone(&node.access),
                tally: (Arc::clone(&tally), Arc::clone(counted)),
                inbox,
                links,
                clock,
            };
            start_executor(place, placement.is_alone(place), parts)?;
        }
        Ok(Running {
            events,
            order,
            fronts,
        })
    }

    /// Waits until the node leads, serves, and stops when asked to.
    fn serve(self, listeners: Vec<Listener>) -> Result<(), StartError> {
        let mut listeners = Some(listeners);
        let mut arrived = Vec::new();
        loop {
            self.events.wait_take(&mut arrived, None);
            for event in arrived.drain(..) {
                match event {
                    Event::Ready => {
                        if let Some(listeners) = listeners.take() {
                            listen::announce(&listeners);
                            self.fronts[0].answer(SeatInput::Listen(listeners));
                            notify::tell(notify::READY);
                        }
                    }
                    Event::Signal(signal) => {
                        crate::log_info!("signal {signal}: stopping");
                        notify::tell(notify::STOPPING);
                        self.stop();
                        return Ok(());
                    }
                    // Nobody was served yet, so that there is nothing to fear for.
                    Event::Failed(what) if listeners.is_some() => {
                        return Err(StartError::System {
                            what: "an executor ended",
                            error: io::Error::other(what),
                        });
                    }
                    Event::Failed(what) => logger::fatal(format_args!("an executor ended: {what}")),
                    Event::Quiet(_) | Event::Drained => {}
                }
            }
        }
    }

    /// Answers what waits, checkpoints, and returns; or ends the process if that takes too long.
    fn stop(&self) {
        let started = Instant::now();
        for front in &self.fronts {
            front.answer(SeatInput::Stop);
        }
        let mut loud = self.fronts.len();
        let clients = Duration::from_millis(limits::STOP_CLIENTS_MS);
        self.wait(started, clients, |event| {
            loud -= usize::from(matches!(event, Event::Quiet(_)));
            loud == 0
        });
        if loud > 0 {
            crate::log_warn!("clients that did not take their answers are left behind");
        }
        self.order.answer(SeatInput::Order(OrderInput::Drain));
        let limit = Duration::from_millis(limits::STOP_DEADLINE_MS);
        if !self.wait(started, limit, |event| matches!(event, Event::Drained)) {
            logger::fatal(format_args!(
                "the stop took longer than {} s; what was acknowledged is safe in the log",
                limit.as_secs()
            ));
        }
        crate::log_info!("stopped after {} ms", started.elapsed().as_millis());
    }

    /// Takes events until `done` says so; `false` if that did not happen in time.
    fn wait(
        &self,
        started: Instant,
        limit: Duration,
        mut done: impl FnMut(&Event) -> bool,
    ) -> bool {
        let mut arrived = Vec::new();
        loop {
            let Some(left) = limit.checked_sub(started.elapsed()) else {
                return false;
            };
            self.events.wait_take(&mut arrived, Some(left));
            for event in arrived.drain(..) {
                if matches!(event, Event::Signal(_)) {
                    logger::leave(format_args!("a second signal ends the stop at once"));
                }
                if done(&event) {
                    return true;
                }
            }
        }
    }
}

/// Tells all executors that time passes, for the life of the process.
fn beat(seats: &[Sender<SeatInput>]) {
    loop {
        thread::sleep(Duration::from_millis(limits::TICK_MS));
        for seat in seats {
            // One that is so far behind has beats enough.
            let _ = seat.try_send(SeatInput::Tick);
        }
    }
}

fn sender_of(
    placement: &Placement,
    inboxes: &[(Sender<SeatInput>, Receiver<SeatInput>)],
    belongs: impl Fn(&Place) -> bool,
) -> Sender<SeatInput> {
    let mut seats = placement.places.iter().zip(inboxes);
    let seat = seats.find(|(place, _)| belongs(place));
    let (_, (sender, _)) = seat.expect("a placement has every actor");
    sender.clone()
}

/// A thread beside the executors.
fn start_thread(
    name: &'static str,
    cores: &[usize],
    run: impl FnOnce() + Send + 'static,
) -> Result<(), StartError> {
    let cores = cores.to_vec();
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        if !cores.is_empty()
            && let Err(error) = os::pin_thread(&cores)
        {
            crate::log_warn!("{name} cannot be pinned: {error}");
        }
        run();
    });
    match spawned {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::System {
            what: "a thread cannot be started",
            error,
        }),
    }
}

/// Tells the main thread of signals that ask to stop.
fn watch_signals(events: Sender<Event>) -> Result<(), StartError> {
    let failed = |error: io::Error| StartError::System {
        what: "signals cannot be watched",
        error,
    };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    start_thread("quoin-signals", &[], move || {
        for signal in signals.forever() {
            // Of so many that nobody has taken one more says nothing.
            let _ = events.try_send(Event::Signal(signal));
        }
    })
}

/// What an executor needs; its actors come to life on its own thread.
struct SeatParts {
    front: Option<FrontConfig>,
    order: Option<NodeOrder>,
    shared: Shared,
    access: Arc<Access>,
    tally: (Arc<Tally>, Arc<SeatTally>),
    inbox: Receiver<SeatInput>,
    links: Links,
    clock: Clock,
}

/// `alone`: no other thread of ours runs on its core, so that it may wait awake.
fn start_executor(place: &Place, alone: bool, parts: SeatParts) -> Result<(), StartError> {
    let events = parts.links.events.clone();
    let name = match (place.front, place.order) {
        (Some(_), true) => "quoin-node",
        (Some(_), false) => "quoin-front",
        (None, _) => "quoin-order",
    };
    let spin_us = if alone { limits::SPIN_US } else { 0 };
    let executor = LocalExecutorBuilder::new(glommio::Placement::Fixed(place.core))
        .name(name)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(limits::RING_DEPTH)
        .preempt_timer(Duration::from_micros(limits::PREEMPT_US))
        .spin_before_park(Duration::from_micros(spin_us))
        .spawn(move || run_seat(parts))
        .map_err(|error| StartError::System {
            what: "an executor cannot be started",
            error: io::Error::other(error.to_string()),
        })?;
    // An executor runs for the life of the process: one that ends has failed.
    start_thread("quoin-watch", &[], move || {
        let what = match executor.join() {
            Ok(()) => "without a word".to_owned(),
            Err(error) => error.to_string(),
        };
        events.answer(Event::Failed(what));
    })
}

async fn run_seat(parts: SeatParts) {
    os::prefer_short_slices(limits::SLICE_NS);
    let now_ns = parts.clock.now_ns();
    let front = parts.front.map(|config| {
        let reader = parts.shared.reader();
        let reader = reader.expect("there are more slots for readers than fronts");
        (config.front, Front::new(config, reader, now_ns))
    });
    let file = parts.shared.page_file();
    let seat = Rc::new(Seat::new(
        front,
        parts.order,
        parts.links,
        parts.clock,
        file,
        parts.access,
        parts.tally,
    ));
    for number in 1..=limits::GUARD_TIMERS {
        glommio::spawn_local(guard(number)).detach();
    }
    seat.run(parts.inbox).await;
}

/// Keeps a timer armed, so that the executor never sleeps long.
///
/// glommio 0.9 may park with tasks ready to run: when its preemption timer fires just before they
/// would be, `run_task_queues` reports that nothing was run. It then sleeps until some socket
/// stirs, and wake-ups of tasks that are ready already do not count. A timer does, as long as one
/// is armed: so there are several, and while the task of one may be among those that wait, the
/// next ends the sleep.
async fn guard(number: u64) {
    let period_ms = limits::GUARD_TIMERS * limits::GUARD_STEP_MS;
    glommio::timer::sleep(Duration::from_millis(number * limits::GUARD_STEP_MS)).await;
    loop {
        glommio::timer::sleep(Duration::from_millis(period_ms)).await;
    }
}
