//! Where every byte lies: preambles, the frame header, kinds, and the sizes of archive roots.
//!
//! ```text
//! client preamble (16)          server preamble (48)             frame
//!  0  magic           8          0  magic             8           0  crc32    4  of everything after it
//!  8  version         2          8  version           2           4  length   4  bytes of the body
//! 10  flags           2         10  status            2           8  kind     1
//! 12  crc32 of 0..12  4         12  flags             2           9  flags    1  zero
//!                               14  zero              2          10  zero     2
//!                               16  frame bytes max   4          12  id       8
//!                               20  in flight max     4          20  body     length
//!                               24  cluster id        8
//!                               32  member id         8
//!                               40  zero              4
//!                               44  crc32 of 0..44    4
//! ```
//! All numbers are little-endian.

#![forbid(unsafe_code)]

use std::mem::size_of;

use super::archive;

/// The first bytes on a connection, from either side. No text protocol and no TLS record starts
/// with 0x91; the line ends show a peer that rewrites them.
pub const MAGIC: [u8; 8] = *b"\x91quoin\r\n";

/// The version of the protocol that this code speaks.
pub const VERSION: u16 = 1;

/// Length of what a client sends on connect.
pub const CLIENT_PREAMBLE_BYTES: usize = 16;

/// Length of the server's answer to it.
pub const SERVER_PREAMBLE_BYTES: usize = 48;

/// Length of what stands before each body.
pub const FRAME_HEADER_BYTES: usize = 20;

pub(crate) const CRC_AT: usize = 0;
pub(crate) const LENGTH_AT: usize = CRC_AT + 4;
pub(crate) const KIND_AT: usize = LENGTH_AT + 4;
pub(crate) const FLAGS_AT: usize = KIND_AT + 1;
pub(crate) const ZERO_AT: usize = FLAGS_AT + 1;
pub(crate) const ID_AT: usize = ZERO_AT + 2;
const _: () = assert!(ID_AT + 8 == FRAME_HEADER_BYTES);

/// No body is longer, whatever limits the two sides set: offsets inside a body are 32-bit and
/// signed, so a longer one could not point at its own start.
pub const BODY_BYTES_MAX: usize = 1 << 30;
const _: () = assert!(BODY_BYTES_MAX <= i32::MAX as usize);

/// How deep transactions may nest: a top-level one has depth 1. Decoding recurses, so this
/// bounds the stack.
pub const TXN_DEPTH_MAX: usize = 128;

/// How many compares and operations a transaction may hold in all, its nested ones included.
pub const TXN_OPS_MAX: usize = 1 << 16;

/// What a frame carries. A reply's number is its request's with the top bit set; every number
/// with the top bit is the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Read keys.
    Range = 0x01,
    /// Write one key.
    Put = 0x02,
    /// Delete keys.
    DeleteRange = 0x03,
    /// A transaction.
    Txn = 0x04,
    /// Drop history.
    Compact = 0x05,
    /// Is anybody there?
    Ping = 0x10,
    /// Who is there?
    Status = 0x11,
    /// Alarms.
    Alarm = 0x12,
    /// Make a lease.
    LeaseGrant = 0x30,
    /// End a lease.
    LeaseRevoke = 0x31,
    /// Renew a lease.
    LeaseKeepAlive = 0x32,
    /// How long a lease has left.
    LeaseTimeToLive = 0x33,
    /// Which leases there are.
    Leases = 0x34,
    /// Ends leases; a member's command, never a client's frame.
    LeaseExpire = 0x3e,
    /// Writes times down; a member's command, never a client's frame.
    LeaseCheckpoint = 0x3f,
    /// Begin a watch, and with it a watch stream if the id is new.
    WatchCreate = 0x20,
    /// End a watch.
    WatchCancel = 0x21,
    /// How far has the stream come?
    WatchProgress = 0x22,
    /// End a watch stream.
    WatchClose = 0x23,
    /// Answers [`Kind::Range`].
    RangeReply = 0x81,
    /// Answers [`Kind::Put`].
    PutReply = 0x82,
    /// Answers [`Kind::DeleteRange`].
    DeleteRangeReply = 0x83,
    /// Answers [`Kind::Txn`].
    TxnReply = 0x84,
    /// Answers [`Kind::Compact`].
    CompactReply = 0x85,
    /// Answers [`Kind::Ping`].
    PingReply = 0x90,
    /// Answers [`Kind::Status`].
    StatusReply = 0x91,
    /// Answers [`Kind::Alarm`].
    AlarmReply = 0x92,
    /// Answers [`Kind::LeaseGrant`].
    LeaseGrantReply = 0xb0,
    /// Answers [`Kind::LeaseRevoke`].
    LeaseRevokeReply = 0xb1,
    /// Answers [`Kind::LeaseKeepAlive`].
    LeaseKeepAliveReply = 0xb2,
    /// Answers [`Kind::LeaseTimeToLive`].
    LeaseTimeToLiveReply = 0xb3,
    /// Answers [`Kind::Leases`].
    LeasesReply = 0xb4,
    /// Answers [`Kind::WatchCreate`].
    WatchCreated = 0xa0,
    /// A watch is over.
    WatchCancelled = 0xa1,
    /// How far a stream has come.
    WatchProgressed = 0xa2,
    /// A watch stream is over.
    WatchClosed = 0xa3,
    /// Something happened.
    WatchEvents = 0xa4,
    /// Answers any request that was refused; with id 0, the connection as a whole.
    ErrorReply = 0xff,
}

impl Kind {
    /// Every kind of this version.
    pub const ALL: [Kind; 38] = [
        Kind::Range,
        Kind::Put,
        Kind::DeleteRange,
        Kind::Txn,
        Kind::Compact,
        Kind::Ping,
        Kind::Status,
        Kind::Alarm,
        Kind::LeaseGrant,
        Kind::LeaseRevoke,
        Kind::LeaseKeepAlive,
        Kind::LeaseTimeToLive,
        Kind::Leases,
        Kind::LeaseExpire,
        Kind::LeaseCheckpoint,
        Kind::WatchCreate,
        Kind::WatchCancel,
        Kind::WatchProgress,
        Kind::WatchClose,
        Kind::RangeReply,
        Kind::PutReply,
        Kind::DeleteRangeReply,
        Kind::TxnReply,
        Kind::CompactReply,
        Kind::PingReply,
        Kind::StatusReply,
        Kind::AlarmReply,
        Kind::LeaseGrantReply,
        Kind::LeaseRevokeReply,
        Kind::LeaseKeepAliveReply,
        Kind::LeaseTimeToLiveReply,
        Kind::LeasesReply,
        Kind::WatchCreated,
        Kind::WatchCancelled,
        Kind::WatchProgressed,
        Kind::WatchClosed,
        Kind::WatchEvents,
        Kind::ErrorReply,
    ];

    /// The kind with that number, if this version has it.
    #[inline]
    pub fn from_u8(number: u8) -> Option<Kind> {
        Some(match number {
            0x01 => Kind::Range,
            0x02 => Kind::Put,
            0x03 => Kind::DeleteRange,
            0x04 => Kind::Txn,
            0x05 => Kind::Compact,
            0x10 => Kind::Ping,
            0x11 => Kind::Status,
            0x12 => Kind::Alarm,
            0x30 => Kind::LeaseGrant,
            0x31 => Kind::LeaseRevoke,
            0x32 => Kind::LeaseKeepAlive,
            0x33 => Kind::LeaseTimeToLive,
            0x34 => Kind::Leases,
            0x3e => Kind::LeaseExpire,
            0x3f => Kind::LeaseCheckpoint,
            0x20 => Kind::WatchCreate,
            0x21 => Kind::WatchCancel,
            0x22 => Kind::WatchProgress,
            0x23 => Kind::WatchClose,
            0x81 => Kind::RangeReply,
            0x82 => Kind::PutReply,
            0x83 => Kind::DeleteRangeReply,
            0x84 => Kind::TxnReply,
            0x85 => Kind::CompactReply,
            0x90 => Kind::PingReply,
            0x91 => Kind::StatusReply,
            0x92 => Kind::AlarmReply,
            0xb0 => Kind::LeaseGrantReply,
            0xb1 => Kind::LeaseRevokeReply,
            0xb2 => Kind::LeaseKeepAliveReply,
            0xb3 => Kind::LeaseTimeToLiveReply,
            0xb4 => Kind::LeasesReply,
            0xa0 => Kind::WatchCreated,
            0xa1 => Kind::WatchCancelled,
            0xa2 => Kind::WatchProgressed,
            0xa3 => Kind::WatchClosed,
            0xa4 => Kind::WatchEvents,
            0xff => Kind::ErrorReply,
            _ => return None,
        })
    }

    /// The number on the wire.
    #[inline]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether members alone propose it, so that no client may send it.
    #[inline]
    pub fn is_internal(self) -> bool {
        matches!(self, Kind::LeaseExpire | Kind::LeaseCheckpoint)
    }

    /// Whether a server sends it.
    #[inline]
    pub fn is_reply(self) -> bool {
        self.number() & 0x80 != 0
    }
}

// Sizes of the archive roots, as PROTOCOL.md states them: alignment is 1, there is no padding.
pub(crate) const RANGE_ROOT: usize = 67;
pub(crate) const PUT_ROOT: usize = 25;
pub(crate) const DELETE_RANGE_ROOT: usize = 17;
pub(crate) const COMPARE: usize = 34;
pub(crate) const OP: usize = 9;
pub(crate) const TXN_ROOT: usize = 24;
pub(crate) const COMPACT_ROOT: usize = 9;
pub(crate) const HEADER: usize = 32;
pub(crate) const KV: usize = 48;
pub(crate) const RANGE_RESULT: usize = 17;
pub(crate) const PUT_RESULT: usize = 8;
pub(crate) const DELETE_RANGE_RESULT: usize = 16;
pub(crate) const TXN_RESULT: usize = 9;
pub(crate) const STATUS_RESULT: usize = 8;
pub(crate) const ERROR_RESULT: usize = 10;
pub(crate) const LEASE_GRANT_ROOT: usize = 16;
pub(crate) const LEASE_ID_ROOT: usize = 8;
pub(crate) const LEASE_TIME_TO_LIVE_ROOT: usize = 25;
pub(crate) const GRANTED_LEASE: usize = 16;
pub(crate) const LEASE_EXPIRE_ROOT: usize = 8;
pub(crate) const LEASE_REMAINING: usize = 24;
pub(crate) const LEASE_CHECKPOINT_ROOT: usize = 8;
pub(crate) const LEASE_GRANT_RESULT: usize = 16;
pub(crate) const LEASE_KEEP_ALIVE_RESULT: usize = 16;
pub(crate) const NAME: usize = 8;
pub(crate) const LEASE_TIME_TO_LIVE_RESULT: usize = 33;
pub(crate) const LEASES_RESULT: usize = 8;
pub(crate) const WATCH_CREATE_ROOT: usize = 33;
pub(crate) const WATCH_CANCEL_ROOT: usize = 8;
pub(crate) const WATCH_CREATED_RESULT: usize = 16;
pub(crate) const WATCH_CANCELLED_RESULT: usize = 24;
pub(crate) const WATCH_PROGRESS_RESULT: usize = 8;
pub(crate) const EVENT: usize = 57;
pub(crate) const WATCH_EVENTS_RESULT: usize = 17;
pub(crate) const ALARM_ROOT: usize = 10;
pub(crate) const ALARM_OF: usize = 9;
pub(crate) const ALARM_RESULT: usize = 8;

const _: () = {
    assert!(size_of::<archive::ArchivedRange>() == RANGE_ROOT);
    assert!(size_of::<archive::ArchivedPut>() == PUT_ROOT);
    assert!(size_of::<archive::ArchivedDeleteRange>() == DELETE_RANGE_ROOT);
    assert!(size_of::<archive::ArchivedCompare>() == COMPARE);
    assert!(size_of::<archive::ArchivedOp>() == OP);
    assert!(size_of::<archive::ArchivedTxn>() == TXN_ROOT);
    assert!(size_of::<archive::ArchivedCompact>() == COMPACT_ROOT);
    assert!(size_of::<archive::ArchivedHeader>() == HEADER);
    assert!(size_of::<archive::ArchivedKv>() == KV);
    assert!(size_of::<archive::ArchivedRangeResult>() == RANGE_RESULT);
    assert!(size_of::<archive::ArchivedPutResult>() == PUT_RESULT);
    assert!(size_of::<archive::ArchivedDeleteRangeResult>() == DELETE_RANGE_RESULT);
    assert!(size_of::<archive::ArchivedTxnResult>() == TXN_RESULT);
    assert!(size_of::<archive::ArchivedStatusResult>() == STATUS_RESULT);
    assert!(size_of::<archive::ArchivedErrorResult>() == ERROR_RESULT);
    assert!(size_of::<archive::ArchivedLeaseGrant>() == LEASE_GRANT_ROOT);
    assert!(size_of::<archive::ArchivedLeaseId>() == LEASE_ID_ROOT);
    assert!(size_of::<archive::ArchivedLeaseTimeToLive>() == LEASE_TIME_TO_LIVE_ROOT);
    assert!(size_of::<archive::ArchivedGranted>() == GRANTED_LEASE);
    assert!(size_of::<archive::ArchivedLeaseExpire>() == LEASE_EXPIRE_ROOT);
    assert!(size_of::<archive::ArchivedRemaining>() == LEASE_REMAINING);
    assert!(size_of::<archive::ArchivedLeaseCheckpoint>() == LEASE_CHECKPOINT_ROOT);
    assert!(size_of::<archive::ArchivedLeaseGrantReply>() == HEADER + LEASE_GRANT_RESULT);
    assert!(size_of::<archive::ArchivedLeaseKeepAliveReply>() == HEADER + LEASE_KEEP_ALIVE_RESULT);
    assert!(size_of::<archive::ArchivedName>() == NAME);
    assert!(size_of::<archive::ArchivedLeaseTimeToLiveResult>() == LEASE_TIME_TO_LIVE_RESULT);
    assert!(size_of::<archive::ArchivedLeasesReply>() == HEADER + LEASES_RESULT);
    assert!(size_of::<archive::ArchivedAlarm>() == ALARM_ROOT);
    assert!(size_of::<archive::ArchivedAlarmOf>() == ALARM_OF);
    assert!(size_of::<archive::ArchivedAlarmReply>() == HEADER + ALARM_RESULT);
    assert!(size_of::<archive::ArchivedRangeReply>() == HEADER + RANGE_RESULT);
    assert!(size_of::<archive::ArchivedErrorReply>() == HEADER + ERROR_RESULT);
    assert!(size_of::<archive::ArchivedWatchCreate>() == WATCH_CREATE_ROOT);
    assert!(size_of::<archive::ArchivedWatchCancel>() == WATCH_CANCEL_ROOT);
    assert!(size_of::<archive::ArchivedWatchCreated>() == WATCH_CREATED_RESULT);
    assert!(size_of::<archive::ArchivedWatchCancelled>() == WATCH_CANCELLED_RESULT);
    assert!(size_of::<archive::ArchivedWatchProgress>() == WATCH_PROGRESS_RESULT);
    assert!(size_of::<archive::ArchivedEvent>() == EVENT);
    assert!(size_of::<archive::ArchivedWatchEvents>() == WATCH_EVENTS_RESULT);
    assert!(size_of::<archive::ArchivedWatchEventsReply>() == HEADER + WATCH_EVENTS_RESULT);
};

// Option bits; all others are zero.
pub(crate) const RANGE_SERIALIZABLE: u8 = 1;
pub(crate) const RANGE_KEYS_ONLY: u8 = 2;
pub(crate) const RANGE_COUNT_ONLY: u8 = 4;
pub(crate) const PUT_PREV_KV: u8 = 1;
pub(crate) const PUT_IGNORE_VALUE: u8 = 2;
pub(crate) const PUT_IGNORE_LEASE: u8 = 4;
pub(crate) const DELETE_PREV_KV: u8 = 1;
pub(crate) const COMPACT_PHYSICAL: u8 = 1;
pub(crate) const LEASE_KEYS: u8 = 1;
pub(crate) const WATCH_PREV_KV: u8 = 1;
pub(crate) const WATCH_PROGRESS_NOTIFY: u8 = 2;
pub(crate) const WATCH_FRAGMENT: u8 = 4;
pub(crate) const WATCH_NO_PUT: u8 = 8;
pub(crate) const WATCH_NO_DELETE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn each_number_names_its_own_kind() {
        for number in 0..=u8::MAX {
            let listed = Kind::ALL.into_iter().find(|kind| kind.number() == number);
            assert_eq!(Kind::from_u8(number), listed);
        }
    }
}
