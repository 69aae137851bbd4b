//! What can be wrong with received bytes.

#![forbid(unsafe_code)]

use std::fmt;

/// Why received bytes are refused. The connection they came on is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The preamble does not start with the magic.
    BadMagic,
    /// The other side speaks this version, which this code does not.
    UnknownVersion(u16),
    /// Flags that this version does not know.
    UnknownFlags(u16),
    /// The checksum does not match.
    BadCrc,
    /// A frame longer than this side takes.
    TooLong {
        /// Bytes of the frame, header included.
        bytes: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// A kind that this version does not know, or that the other side may not send.
    UnknownKind(u8),
    /// Bytes that must be zero are not.
    NonZeroReserved,
    /// A request with id 0, which stands for the connection itself.
    ZeroId,
    /// The body is no archive of its kind: too short, or an offset points outside.
    BadArchive,
    /// The archive is valid, but not in the one order that is allowed; also bytes that belong
    /// to nothing.
    NotCanonical,
    /// A field has a value that does not exist; the name says which.
    BadValue(&'static str),
    /// A transaction nested too deep.
    TooDeep,
    /// A transaction with too many operations in all.
    TooManyOps,
}

impl Malformed {
    /// The number that stands for this in an error frame. All have the top bit set, which tells
    /// them from the numbers of [`crate::api::Error`].
    pub fn code(self) -> u16 {
        match self {
            Malformed::BadMagic => 0x8001,
            Malformed::UnknownVersion(_) => 0x8002,
            Malformed::UnknownFlags(_) => 0x8003,
            Malformed::BadCrc => 0x8004,
            Malformed::TooLong { .. } => 0x8005,
            Malformed::UnknownKind(_) => 0x8006,
            Malformed::NonZeroReserved => 0x8007,
            Malformed::ZeroId => 0x8008,
            Malformed::BadArchive => 0x8009,
            Malformed::NotCanonical => 0x800a,
            Malformed::BadValue(_) => 0x800b,
            Malformed::TooDeep => 0x800c,
            Malformed::TooManyOps => 0x800d,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::BadMagic => write!(f, "bad magic"),
            Malformed::UnknownVersion(version) => write!(f, "unknown version {version}"),
            Malformed::UnknownFlags(flags) => write!(f, "unknown flags {flags:#06x}"),
            Malformed::BadCrc => write!(f, "bad checksum"),
            Malformed::TooLong { bytes, limit } => {
                write!(f, "frame of {bytes} bytes, the limit is {limit}")
            }
            Malformed::UnknownKind(kind) => write!(f, "unknown kind {kind:#04x}"),
            Malformed::NonZeroReserved => write!(f, "reserved bytes are not zero"),
            Malformed::ZeroId => write!(f, "request id 0"),
            Malformed::BadArchive => write!(f, "the body is no archive of its kind"),
            Malformed::NotCanonical => write!(f, "the body is not in canonical order"),
            Malformed::BadValue(field) => write!(f, "no such value for {field}"),
            Malformed::TooDeep => write!(f, "transactions nested too deep"),
            Malformed::TooManyOps => write!(f, "too many operations in one transaction"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Why a message cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unencodable {
    /// The body would exceed the limit.
    TooLong,
    /// A transaction nested deeper than [`super::TXN_DEPTH_MAX`].
    TooDeep,
    /// A transaction with more than [`super::TXN_OPS_MAX`] compares and operations.
    TooManyOps,
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unencodable::TooLong => "the message is too long for one frame",
            Unencodable::TooDeep => "transactions nested too deep",
            Unencodable::TooManyOps => "too many operations in one transaction",
        })
    }
}

impl std::error::Error for Unencodable {}
