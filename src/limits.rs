//! Every bound of the server in one place: raw figures, then what follows from them, then the
//! relations between them, proved at compile time.

#![forbid(unsafe_code)]

/// One binary kilobyte.
pub const KIB: usize = 1024;
/// One binary megabyte.
pub const MIB: usize = 1024 * KIB;

// --- Requests -----------------------------------------------------------------------------

/// Default of `--max-request-bytes`: the largest request body, as in etcd.
pub const REQUEST_BYTES_DEFAULT: usize = 1536 * KIB;
/// The largest value that `--max-request-bytes` takes.
pub const REQUEST_BYTES_CEILING: usize = 64 * MIB;
/// Room for the parts of a request that are not key or value.
pub const REQUEST_OVERHEAD_BYTES: usize = 512 * KIB;
/// Default of `--max-txn-ops`: compares, and operations of a branch, in one transaction.
pub const TXN_OPS_DEFAULT: usize = 128;
/// How deep transactions may nest.
pub const TXN_DEPTH_MAX: usize = 32;
/// A request that waited longer than this is answered with a time-out (its outcome is unknown).
/// Five seconds and two election time-outs, as in etcd.
pub const REQUEST_DEADLINE_MS: u64 = 7_000;

/// Fronts of one node.
pub const FRONTS_MAX: u16 = 128;

// --- Leases -------------------------------------------------------------------------------

/// The longest time, in seconds, that a lease is granted for, as in etcd.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;
/// The least and the most seconds of a lease that pass before what it has left is written down,
/// and so about the most that a restart gives it on top; leases of the least or less simply begin
/// anew.
pub const LEASE_STEP_MIN_S: i64 = 60;
/// See [`LEASE_STEP_MIN_S`].
pub const LEASE_STEP_MAX_S: i64 = 300;
/// After the order actor's loop was away for so long, renewals may wait in sockets.
pub const LEASE_STALL_MS: u64 = 250;
/// So long after a stall no lease is over.
pub const LEASE_HOLD_MS: u64 = 500;
/// And so long after that another stall changes nothing: a loop that stalls again and again must
/// not keep leases alive.
pub const LEASE_HOLD_PAUSE_MS: u64 = 2_000;
/// Timers of leases looked at in one turn.
pub const LEASE_TIMERS_PER_TURN: usize = 4_096;
/// Leases whose end is on its way through the log.
pub const LEASES_ENDING_MAX: usize = 64;
/// Keys of ending leases that are deleted in one turn, and the keys of the last.
pub const LEASE_KEYS_PER_TURN: u64 = 1_024;
/// Leases whose time is written down in one turn.
pub const LEASE_WRITES_PER_TURN: usize = 512;

// --- Locks and elections ------------------------------------------------------------------

/// Calls of one front that wait for a lock or to lead, or observe who does; beyond it new ones are
/// refused.
pub const ERRANDS_PER_FRONT: usize = 262_144;

// --- Connections --------------------------------------------------------------------------

/// Connections accepted before those that are there have their turn: who comes in thousands waits
/// in the kernel's backlog, not in front of everybody else.
pub const ACCEPTS_PER_TURN: usize = 8;

/// Connections of one front; one more is closed at once.
pub const CONNECTIONS_PER_FRONT: usize = 16_384;
/// Requests of one connection that wait for an answer; beyond it the connection is not read.
pub const REQUESTS_PER_CONNECTION: usize = 4_096;
/// Requests of one front that wait for an answer; beyond it new ones are refused.
pub const REQUESTS_PER_FRONT: usize = 262_144;
/// Bytes of requests of one front that wait for an answer; beyond it new ones are refused.
pub const REQUEST_BYTES_PER_FRONT: usize = 256 * MIB;
/// Bytes of requests of one connection that wait for an answer; beyond it the connection is
/// not read.
pub const REQUEST_BYTES_PER_CONNECTION: usize = 16 * MIB;
/// Streams of one HTTP/2 connection that may be open together; more have to wait.
pub const STREAMS_PER_CONNECTION: u32 = 4_096;
/// Bytes of one request's HTTP/2 headers.
pub const HEADER_BYTES_MAX: u32 = 16 * KIB as u32;
/// What of one HTTP/1.1 connection's requests may wait to be taken apart, and so the bytes of a
/// request's head.
pub const HTTP_BUFFER_BYTES: usize = 32 * KIB;
/// What a client may send on one HTTP/2 stream before the server has looked at it.
pub const STREAM_WINDOW_BYTES: u32 = MIB as u32;
/// The same for all streams of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * MIB as u32;
/// Small pieces in which it may send that, as bytes of overhead; see [`h2`].
pub const SMALL_FRAMES_BUDGET: usize = 16 * MIB;
/// What one HTTP/2 stream hands to the codec at a time.
pub const STREAM_SEND_BYTES: usize = 256 * KIB;
/// Bytes that wait for one HTTP/2 connection's socket; beyond it no more answers are taken.
pub const SOCKET_OUTPUT_BYTES: usize = 256 * KIB;
/// An answer to a range that is longer, where it may be, is given in pieces of about so many bytes.
pub const PIECE_BYTES: usize = 128 * KIB;
/// Entries of the tree that one slice of a long answer looks at.
pub const SLICE_ENTRIES: usize = 1_024;
/// Bytes of keys and values that it looks at.
pub const SLICE_BYTES: usize = MIB;
/// Slices of long answers that a front works at in one turn, beside those that clients wait for.
pub const LONG_SLICES_PER_TURN: usize = 2;
/// Answers of one native connection that are written aside, each until it is whole; beyond it no
/// more of its requests are served until one is.
pub const DRAFTS_PER_CONNECTION: usize = 4;
/// Bytes that one connection reads in one turn.
pub const READ_BYTES_PER_TURN: usize = 64 * KIB;
/// Frames of HTTP/2 that one connection reads in one turn; one that begins a call counts as two.
pub const FRAMES_PER_TURN: usize = 256;
/// Calls of etcd's API that one front has begun to receive and not ended, streams among them;
/// beyond it new ones are refused. Each costs some hundred bytes, whether anything comes or not.
pub const CALLS_PER_FRONT: usize = 262_144;
/// Answers of one connection that its client has not taken; beyond it no more of its requests
/// are served until it reads.
pub const OUTPUT_BYTES_PER_CONNECTION: usize = MIB;
/// The same where a connection carries streams that are read at their own pace (HTTP/2): one
/// that stands still must not hold up the others.
pub const STREAMED_BYTES_PER_CONNECTION: usize = 64 * MIB;
/// Bytes that one connection's socket holds and has not sent, before it takes no more: what waits
/// for a slow client waits here, where it is counted.
pub const SOCKET_UNSENT_BYTES: u32 = 8 * KIB as u32;
/// Answers of one front that clients have not taken, those that are being written aside included.
/// One that does not fit is refused, or, if its write has taken place, left out.
pub const OUTPUT_BYTES_PER_FRONT: usize = 512 * MIB;
/// What of that is kept from large answers, for clients that have taken what they were given: of
/// what is left, beside [`OUTPUT_BYTES_LEAST`] for every connection, each may have one
/// [`OUTPUT_PART`]th.
pub const OUTPUT_BYTES_KEPT: usize = 192 * MIB;
/// See [`OUTPUT_BYTES_KEPT`].
pub const OUTPUT_PART: usize = 16;
/// So many bytes of answers each connection may have untaken, whatever others have. When a front
/// has no room at all, and then alone, a connection that asks for more before it takes them is
/// closed.
pub const OUTPUT_BYTES_LEAST: usize = 8 * KIB;
/// The largest single answer; a larger range must be read in pages.
pub const RESPONSE_BYTES_MAX: usize = 256 * MIB;
/// What a range in another order than that of its keys may hold in memory until it is given: some
/// words per pair, and the values if the order goes by them. One that needs more is refused.
pub const SORTED_BYTES_MAX: usize = RESPONSE_BYTES_MAX;
/// From connecting to a complete preamble.
pub const PREAMBLE_DEADLINE_MS: u64 = 5_000;
/// From the first byte of a frame to its last.
pub const FRAME_DEADLINE_MS: u64 = 30_000;
/// A client that takes nothing for so long while answers wait is closed.
pub const STALLED_READER_DEADLINE_MS: u64 = 30_000;
/// How long a connection that is closed from this side waits for the client to close, too.
pub const CLOSE_DEADLINE_MS: u64 = 2_000;
/// Bytes of unfinished frames of one front; beyond it connections in the middle of a large frame
/// are closed.
pub const INPUT_BYTES_PER_FRONT: usize = 256 * MIB;
/// What one connection is served before others have their turn, in requests; 4 KiB of request or
/// 256 bytes of answer count as one more.
pub const TURN_COST: usize = 256;
/// Events of one turn that are told to the operator, and of one second.
pub const NOTICES_PER_TURN: usize = 16;
/// See [`NOTICES_PER_TURN`].
pub const NOTICES_PER_SECOND: u32 = 20;
/// A front tells the operator of damaged data no more often than this.
pub const DAMAGE_NOTICE_MS: u64 = 1_000;
/// How often deadlines are looked at.
pub const DEADLINE_SCAN_MS: u64 = 250;
/// After the open calls of an HTTP/2 connection were searched for those whose time is over, this is
/// not done again for so long per open call: a client that sets many deadlines pays for them with
/// how exactly they are kept.
pub const DEADLINE_SCAN_NS_PER_CALL: u64 = 16_000;
/// Buffers that a front keeps for reuse, and the largest one that it keeps.
pub const POOLED_BUFFERS: usize = 128;
/// See [`POOLED_BUFFERS`].
pub const POOLED_BUFFER_BYTES: usize = 64 * KIB;

// --- Watches ------------------------------------------------------------------------------

/// Watches of one front; beyond it new ones are refused.
pub const WATCHES_PER_FRONT: usize = 4 << 20;
/// Watches of one connection; beyond it new ones are refused.
pub const WATCHES_PER_CONNECTION: usize = 1 << 20;
/// Watch streams of one connection; beyond it new ones are refused.
pub const WATCH_STREAMS_PER_CONNECTION: usize = STREAMS_PER_CONNECTION as usize;
/// Bytes of the keys that one front watches, those of equal watches counted once.
pub const WATCH_KEY_BYTES_PER_FRONT: usize = 256 * MIB;
/// Events that one turn reads for watches that are up to date, and as many for those that lag.
pub const WATCH_EVENTS_PER_TURN: usize = 2_048;
/// Bytes of keys and values after which a read of events ends with its revision.
pub const WATCH_BYTES_PER_TURN: usize = 512 * KIB;
/// The same for watches that lag. A stream that stands still holds what was read for it last.
pub const WATCH_BYTES_PER_SCAN: usize = 64 * KIB;
/// What a read for laggards costs at least, in events.
pub const WATCH_SCAN_COST: usize = 16;
/// Laggards of one stream that share a read.
pub const WATCH_LAGGARDS_PER_SCAN: usize = 128;
/// The most events of one revision that are told; more end the watches that want them.
pub const WATCH_REVISION_EVENTS_MAX: usize = 1 << 20;
/// Bytes that a client has not taken from which on its watches stop, until it has.
pub const WATCH_OUTPUT_PER_CONNECTION: usize = 256 * KIB;
/// Bytes in streams of a connection that stand still, from which on all its watches stop.
pub const WATCH_WAITING_PER_CONNECTION: usize = STREAMED_BYTES_PER_CONNECTION / 2;
/// What clients have not taken is shared: of what is left of so many bytes for a front, each may
/// have one [`WATCH_OUTPUT_PART`]th, before its watches stop.
pub const WATCH_OUTPUT_SHARED: usize = 12 * MIB;
/// See [`WATCH_OUTPUT_SHARED`].
pub const WATCH_OUTPUT_PART: usize = 16;
/// So many bytes each may have, whatever is left.
pub const WATCH_OUTPUT_LEAST: usize = 8 * KIB;
/// The same as [`WATCH_OUTPUT_PER_CONNECTION`] for all clients of a front.
pub const WATCH_OUTPUT_PER_FRONT: usize = 256 * MIB;
/// As long as clients have not taken fewer bytes than this in all, one that watches and takes
/// nothing is not closed for it.
pub const WATCH_STALLED_BYTES_PER_FRONT: usize = 64 * MIB;
/// How long the purge of a compaction waits for live watches to be told what it removes.
pub const WATCH_PURGE_WAIT_MS: u64 = 1_000;
/// How long the purge waits for long answers that were begun before the compaction: as long as a
/// client may take nothing.
pub const READ_PURGE_WAIT_MS: u64 = STALLED_READER_DEADLINE_MS;
/// How long the purge waits for a snapshot that is being streamed; one that takes longer is ended
/// by the next compaction.
pub const SNAPSHOT_HOLD_MS: u64 = 30 * 60 * 1_000;
/// Default of `--watch-progress-notify-interval`, as in etcd.
pub const WATCH_PROGRESS_MS_DEFAULT: u64 = 600_000;
/// The smallest `--watch-progress-notify-interval`, as in etcd.
pub const WATCH_PROGRESS_MS_FLOOR: u64 = 100;

// Watches stop before requests of the same connection, and of the front, are kept waiting.
const _: () = assert!(WATCH_OUTPUT_PER_CONNECTION < OUTPUT_BYTES_PER_CONNECTION);
const _: () = assert!(WATCH_OUTPUT_PER_FRONT < OUTPUT_BYTES_PER_FRONT);
// A client that takes all it is told is told a whole turn at once.
const _: () = assert!(WATCH_OUTPUT_SHARED / WATCH_OUTPUT_PART > WATCH_BYTES_PER_TURN);

// --- Between cores ------------------------------------------------------------------------

/// Commands in one log entry.
pub const BATCH_COMMANDS_MAX: usize = 4_096;
/// Bytes after which a front starts another log entry.
pub const BATCH_BYTES_MAX: usize = 4 * MIB;
/// Commands that share one transaction of the tree (and the rest of the entry of the last).
pub const APPLY_COMMANDS_MAX: usize = 16_384;
/// Bytes of entries after which apply starts another transaction of the tree.
pub const APPLY_BYTES_MAX: usize = 8 * MIB;
/// Bytes of pairs in answers to writes of one front, from their making until the front has taken
/// them. One that does not fit is left out, although its write has taken place.
pub const ANSWER_BYTES_UNDER_WAY: usize = 320 * MIB;
/// What of that is kept from answers of more than [`ANSWER_BYTES_SMALL`].
pub const ANSWER_BYTES_KEPT: usize = 32 * MIB;
/// See [`ANSWER_BYTES_KEPT`].
pub const ANSWER_BYTES_SMALL: usize = 64 * KIB;
/// A front reports what it has taken of them when it is so much.
pub const ANSWER_BYTES_TOLD: usize = MIB;
/// Messages that wait in a queue between two cores; beyond it senders keep what is not an answer.
pub const QUEUE_MESSAGES: usize = 4_096;
/// Bytes of writes that wait for the order actor beside what it has in flight; beyond it fronts
/// keep theirs.
pub const QUEUE_BYTES: usize = 64 * MIB;
/// Writes that the order actor has taken and not applied; beyond it new ones are refused.
pub const COMMANDS_IN_FLIGHT: usize = 1 << 20;
/// Bytes of them.
pub const COMMAND_BYTES_IN_FLIGHT: usize = 64 * MIB;
/// Read barriers that wait for the quorum; beyond it their reads are refused.
pub const READ_BARRIERS: usize = 1 << 16;
/// Answers that may wait in a queue between two cores: every command in flight, and everything else
/// that was asked, may have a message of its own.
pub const QUEUE_ANSWERS: usize = 2 * COMMANDS_IN_FLIGHT;
/// Appends that are not durable; while there are so many, what the order actor takes gathers for
/// the next.
pub const LOG_QUEUE_REQUESTS: usize = 1_024;
/// Messages that wait for the main thread: a few of each executor.
pub const QUEUE_EVENTS: usize = 4 * FRONTS_MAX as usize;

// --- Time ---------------------------------------------------------------------------------

/// Default of `--heartbeat-interval`, which is one tick.
pub const HEARTBEAT_MS_DEFAULT: u64 = 100;
/// Default of `--election-timeout`.
pub const ELECTION_MS_DEFAULT: u64 = 1_000;
/// The largest `--election-timeout`, as in etcd.
pub const ELECTION_MS_CEILING: u64 = 50_000;
/// How often the actors are told that time passes.
pub const TICK_MS: u64 = 25;
/// How long an executor runs tasks that are ready before it looks at its sockets and at what
/// other threads have sent.
pub const PREEMPT_US: u64 = 10_000;
/// Entries of an executor's submission queue. The kernel looks up what is to be called off, a
/// timer on each way to sleep, in a table that it sizes by this: with the usual 128 it has eight
/// lists, which thousands of connections, each waited for, make long.
pub const RING_DEPTH: usize = 2_048;
/// How long an executor with nothing to do looks for more before it sleeps. A log write takes less,
/// mostly, so a lone client's put is answered without waking the core twice; longer would take more
/// from clients on the same machine than it gives.
pub const SPIN_US: u64 = 180;
/// How long the threads on a write's way ask to run at a time, the kernel's shortest, so that they
/// run soon after they wake.
pub const SLICE_NS: u64 = 100_000;
/// Timers that keep an executor from sleeping with work to do, and their distance.
pub const GUARD_TIMERS: u64 = 8;
/// See [`GUARD_TIMERS`].
pub const GUARD_STEP_MS: u64 = 15;
/// A tick that is later than this is told to the operator.
pub const LATE_TICK_MS: u64 = 500;
/// After so long without work the log confirms its newest write.
pub const LOG_QUIET_MS: u64 = 5;
/// How often the log tries again while the disk is full.
pub const LOG_RETRY_MS: u64 = 100;
/// How long a client may take to read its last answers when the server stops.
pub const STOP_CLIENTS_MS: u64 = 5_000;
/// How long a graceful stop may take before the process gives up.
pub const STOP_DEADLINE_MS: u64 = 30_000;

// --- Storage ------------------------------------------------------------------------------

/// Bytes of pages in memory alone at which a checkpoint begins.
pub const YOUNG_BYTES_CHECKPOINT: u64 = 64 * MIB as u64;
/// While a checkpoint is under way, apply waits for it when there are so many.
pub const YOUNG_BYTES_PAUSE: u64 = 128 * MIB as u64;
/// Above so many, a transaction writes its pages to the file as it goes.
pub const YOUNG_BYTES_MAX: u64 = 192 * MIB as u64;
/// Disk space held in reserve, so that checkpoints go on when the disk is full.
pub const TREE_SPARE_BYTES: u64 = 192 * MIB as u64;
/// Bytes a second of the tree that are read after the start, so that later reads find them in
/// memory: what a disk gives without keeping the log's writes waiting.
pub const WARM_UP_BYTES_PER_SECOND: u64 = 512 * MIB as u64;
/// How long it takes to read all of the tree again, in search of damage.
pub const SCRUB_PASS_MS: u64 = 24 * 3_600_000;
/// What a write counts against the quota beside its bytes, as in etcd.
pub const QUOTA_COST_PER_WRITE: u64 = 256;
/// Default of `--quota-backend-bytes` (given as 0): see docs/decisions/quota.md.
pub const QUOTA_BYTES_DEFAULT: u64 = 64 << 30;
/// The largest quota: the file of the tree, which is larger than what it holds, has addresses for
/// a tebibyte.
pub const QUOTA_BYTES_CEILING: u64 = 512 << 30;
/// An alarm that was proposed and not raised is proposed again after this.
pub const ALARM_RETRY_MS: u64 = 1_000;

// A turn's pages come on top of what lets apply go on. If that were enough to make transactions
// write pages themselves, every one of them would do so, on the order core, while a checkpoint
// is under way.
const _: () = assert!(YOUNG_BYTES_PAUSE + 16 * BATCH_BYTES_MAX as u64 <= YOUNG_BYTES_MAX);
const _: () = assert!(YOUNG_BYTES_CHECKPOINT < YOUNG_BYTES_PAUSE);
// A checkpoint may have to write every page that is in memory. If the reserve were smaller, one on
// a full disk could fail again and again, and no compaction could ever free the space.
const _: () = assert!(YOUNG_BYTES_MAX <= TREE_SPARE_BYTES);

// A front that is at one connection's limits still serves others.
const _: () = assert!(REQUESTS_PER_CONNECTION * 8 <= REQUESTS_PER_FRONT);
const _: () = assert!(REQUEST_BYTES_PER_CONNECTION * 8 <= REQUEST_BYTES_PER_FRONT);
// Otherwise a request of a legal size could wait for room that never comes.
const _: () = assert!(REQUEST_BYTES_DEFAULT + REQUEST_OVERHEAD_BYTES < BATCH_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_DEFAULT < REQUEST_BYTES_PER_CONNECTION);
const _: () = assert!(STREAMED_BYTES_PER_CONNECTION * 8 <= OUTPUT_BYTES_PER_FRONT);
// One answer fits into the front's budget, so a lone client is never refused for size alone.
const _: () = assert!(RESPONSE_BYTES_MAX < OUTPUT_BYTES_PER_FRONT - OUTPUT_BYTES_KEPT);
// What every connection may have fits beside what large answers take.
const _: () = assert!(CONNECTIONS_PER_FRONT * OUTPUT_BYTES_LEAST < OUTPUT_BYTES_KEPT);
// Otherwise an answer of a legal size would never come.
const _: () =
    assert!(ANSWER_BYTES_UNDER_WAY - ANSWER_BYTES_KEPT - ANSWER_BYTES_TOLD >= RESPONSE_BYTES_MAX);
// What answers the order actor's own questions, and what each front may send beyond the bound, is
// little beside.
const _: () = assert!(
    READ_BARRIERS + QUEUE_MESSAGES + LOG_QUEUE_REQUESTS + 16 * FRONTS_MAX as usize
        <= QUEUE_ANSWERS - COMMANDS_IN_FLIGHT
);
// Deadlines are found late by one scan; that must stay small beside the shortest of them.
const _: () = assert!(DEADLINE_SCAN_MS * 4 <= PREAMBLE_DEADLINE_MS);
