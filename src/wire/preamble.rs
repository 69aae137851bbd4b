//! The first bytes of a connection: who speaks, and in what version.

#![forbid(unsafe_code)]

use super::Malformed;
use super::layout::{CLIENT_PREAMBLE_BYTES, MAGIC, SERVER_PREAMBLE_BYTES, VERSION};

/// Which protocol the first bytes of a connection belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// This protocol.
    Native,
    /// HTTP/2 with prior knowledge, as gRPC speaks it.
    Http2,
    /// A method of HTTP/1.1.
    Http1,
    /// A TLS handshake.
    Tls,
    /// Too few bytes to tell.
    NeedMore,
    /// None of these.
    Unknown,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HTTP1_METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];

/// Tells which protocol a connection speaks. At most 24 bytes are needed.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let mut undecided = false;
    let mut begins = |with: &[u8]| {
        undecided |= bytes.len() < with.len() && with.starts_with(bytes);
        bytes.starts_with(with)
    };
    if begins(&MAGIC) {
        return Sniff::Native;
    }
    if begins(HTTP2_PREFACE) {
        return Sniff::Http2;
    }
    if HTTP1_METHODS.into_iter().any(&mut begins) {
        return Sniff::Http1;
    }
    match bytes {
        // A handshake record of any version of TLS.
        [0x16, 0x03, 0..=4, ..] => Sniff::Tls,
        [0x16] | [0x16, 0x03] => Sniff::NeedMore,
        _ if undecided => Sniff::NeedMore,
        _ => Sniff::Unknown,
    }
}

/// What a server that speaks only this protocol answers to others before it closes: each is
/// told in its own words that it is not served here.
pub fn refusal(sniff: Sniff) -> &'static [u8] {
    match sniff {
        // A fatal alert: protocol_version.
        Sniff::Tls => &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70],
        _ => b"",
    }
}

/// What the server tells a client on connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello {
    /// Whether it serves the client.
    pub status: HelloStatus,
    /// The longest request frame it takes, header included.
    pub frame_bytes_max: u32,
    /// The most requests that may be without a reply on one connection.
    pub in_flight_max: u32,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The server's id.
    pub member_id: u64,
}

/// Whether a server serves a client. After anything but `Accepted` it closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloStatus {
    /// Requests may be sent.
    Accepted,
    /// The server does not speak the client's version (nor know its flags).
    VersionRefused,
    /// The server has as many connections as it takes.
    Busy,
    /// The server is stopping.
    Stopping,
    /// The client's preamble was malformed.
    Malformed,
    /// Refused for a reason that this code does not know yet.
    Other(u16),
}

impl HelloStatus {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            HelloStatus::Accepted => 0,
            HelloStatus::VersionRefused => 1,
            HelloStatus::Busy => 2,
            HelloStatus::Stopping => 3,
            HelloStatus::Malformed => 4,
            HelloStatus::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> HelloStatus {
        match number {
            0 => HelloStatus::Accepted,
            1 => HelloStatus::VersionRefused,
            2 => HelloStatus::Busy,
            3 => HelloStatus::Stopping,
            4 => HelloStatus::Malformed,
            other => HelloStatus::Other(other),
        }
    }
}

/// Which status answers a preamble that [`read_client_preamble`] refused.
pub fn refused_status(malformed: Malformed) -> HelloStatus {
    match malformed {
        Malformed::UnknownVersion(_) | Malformed::UnknownFlags(_) => HelloStatus::VersionRefused,
        _ => HelloStatus::Malformed,
    }
}

/// What a client of this version sends on connect.
pub fn client_preamble() -> [u8; CLIENT_PREAMBLE_BYTES] {
    let mut bytes = [0; CLIENT_PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Reads a client's preamble; `None` if it is not complete. It is
/// [`CLIENT_PREAMBLE_BYTES`] long.
pub fn read_client_preamble(bytes: &[u8]) -> Result<Option<()>, Malformed> {
    check_magic(bytes)?;
    let Some(bytes) = bytes.first_chunk::<CLIENT_PREAMBLE_BYTES>() else {
        return Ok(None);
    };
    check_seal(bytes)?;
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        VERSION => {}
        version => return Err(Malformed::UnknownVersion(version)),
    }
    match u16::from_le_bytes([bytes[10], bytes[11]]) {
        0 => Ok(Some(())),
        flags => Err(Malformed::UnknownFlags(flags)),
    }
}

/// The server's answer to a client's preamble.
pub fn server_preamble(hello: &ServerHello) -> [u8; SERVER_PREAMBLE_BYTES] {
    let mut bytes = [0; SERVER_PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&hello.status.number().to_le_bytes());
    bytes[16..20].copy_from_slice(&hello.frame_bytes_max.to_le_bytes());
    bytes[20..24].copy_from_slice(&hello.in_flight_max.to_le_bytes());
    bytes[24..32].copy_from_slice(&hello.cluster_id.to_le_bytes());
    bytes[32..40].copy_from_slice(&hello.member_id.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Reads the server's preamble; `None` if it is not complete. It is
/// [`SERVER_PREAMBLE_BYTES`] long.
pub fn read_server_preamble(bytes: &[u8]) -> Result<Option<ServerHello>, Malformed> {
    check_magic(bytes)?;
    let Some(bytes) = bytes.first_chunk::<SERVER_PREAMBLE_BYTES>() else {
        return Ok(None);
    };
    check_seal(bytes)?;
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u16_at(8) != VERSION {
        return Err(Malformed::UnknownVersion(u16_at(8)));
    }
    if u16_at(12) != 0 {
        return Err(Malformed::UnknownFlags(u16_at(12)));
    }
    if u16_at(14) != 0 || u32_at(40) != 0 {
        return Err(Malformed::NonZeroReserved);
    }
    Ok(Some(ServerHello {
        status: HelloStatus::from_number(u16_at(10)),
        frame_bytes_max: u32_at(16),
        in_flight_max: u32_at(20),
        cluster_id: u64_at(24),
        member_id: u64_at(32),
    }))
}

/// Refuses a wrong magic at its first wrong byte.
fn check_magic(bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic) {
        true => Ok(()),
        false => Err(Malformed::BadMagic),
    }
}

/// Writes the CRC32 of all but the last four bytes into those.
fn seal(bytes: &mut [u8]) {
    if let Some((front, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(front).to_le_bytes();
    }
}

fn check_seal(bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.split_last_chunk::<4>() {
        Some((front, crc)) if crc32fast::hash(front).to_le_bytes() == *crc => Ok(()),
        _ => Err(Malformed::BadCrc),
    }
}
