//! Frames: finding them in received bytes, and closing them over bytes to send.

#![forbid(unsafe_code)]

use super::Malformed;
use super::Unencodable;
use super::layout::{
    BODY_BYTES_MAX, CRC_AT, FLAGS_AT, FRAME_HEADER_BYTES, ID_AT, KIND_AT, Kind, LENGTH_AT, ZERO_AT,
};

/// A frame found in a buffer, its checksum verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: Kind,
    /// Chosen by the client, returned in the reply.
    pub id: u64,
    /// The archive, not yet checked: see [`super::decode_request`] and [`super::decode_reply`].
    pub body: &'a [u8],
}

/// What stands at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A frame; the next begins `consumed` bytes further.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its length, header included.
        consumed: usize,
    },
    /// The frame is not complete.
    NeedMore {
        /// How long the buffer must at least be for the next try to get further: the length of
        /// the header, or of the whole frame once the header is there. Within the limit, so a
        /// receiver may grow its buffer to it, but should let the bytes come first.
        total: usize,
    },
}

/// Finds frames in a growing buffer. Keeps no state: the caller drops consumed bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameDecoder {
    replies: bool,
    frame_bytes_max: usize,
}

impl FrameDecoder {
    /// For a server: takes requests only, none longer than `frame_bytes_max`, header included.
    pub fn requests(frame_bytes_max: usize) -> Self {
        Self::new(false, frame_bytes_max)
    }

    /// For a client: takes replies only.
    pub fn replies(frame_bytes_max: usize) -> Self {
        Self::new(true, frame_bytes_max)
    }

    fn new(replies: bool, frame_bytes_max: usize) -> Self {
        FrameDecoder {
            replies,
            frame_bytes_max: frame_bytes_max.min(BODY_BYTES_MAX + FRAME_HEADER_BYTES),
        }
    }

    /// Looks at the front of `bytes`. A frame that breaks a rule is refused as soon as its
    /// header is there, before any of its body is waited for.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Malformed> {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Decoded::NeedMore {
                total: FRAME_HEADER_BYTES,
            });
        };
        let length = u32_at(header, LENGTH_AT);
        let total = FRAME_HEADER_BYTES as u64 + u64::from(length);
        if total > self.frame_bytes_max as u64 {
            let limit = self.frame_bytes_max as u64;
            return Err(Malformed::TooLong {
                bytes: total,
                limit,
            });
        }
        let total = total as usize;
        let Some(frame) = bytes.get(..total) else {
            return Ok(Decoded::NeedMore { total });
        };
        if crc32fast::hash(&frame[LENGTH_AT..]) != u32_at(header, CRC_AT) {
            return Err(Malformed::BadCrc);
        }
        let number = header[KIND_AT];
        let kind = match Kind::from_u8(number) {
            Some(kind) if kind.is_reply() == self.replies => kind,
            _ => return Err(Malformed::UnknownKind(number)),
        };
        if header[FLAGS_AT] != 0 {
            return Err(Malformed::UnknownFlags(u16::from(header[FLAGS_AT])));
        }
        if header[ZERO_AT..ID_AT] != [0, 0] {
            return Err(Malformed::NonZeroReserved);
        }
        let id = u64_at(header, ID_AT);
        if id == 0 && kind != Kind::ErrorReply {
            return Err(Malformed::ZeroId);
        }
        let body = &frame[FRAME_HEADER_BYTES..];
        Ok(Decoded::Frame {
            frame: Frame { kind, id, body },
            consumed: total,
        })
    }
}

/// The bodies of the requests of this kind with which `bytes` begin, as far as they are whole.
/// Nothing of these is checked, not even their checksums: they show what is about to be asked, no
/// more.
pub fn ahead(bytes: &[u8], kind: Kind) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<FRAME_HEADER_BYTES>()?;
        if header[KIND_AT] != kind.number() {
            return None;
        }
        let body_end = FRAME_HEADER_BYTES.saturating_add(u32_at(header, LENGTH_AT) as usize);
        let body = rest.get(FRAME_HEADER_BYTES..body_end)?;
        rest = &rest[body_end..];
        Some(body)
    })
}

fn u32_at(header: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn u64_at(header: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}

/// Leaves room for a header at the end of `out`; returns where the frame starts.
#[inline]
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    start
}

/// Fills in the header of the frame that [`begin`] started at `start`. If its body is longer
/// than `body_max`, takes the whole frame out of `out` again.
#[inline]
pub(super) fn finish(
    out: &mut Vec<u8>,
    start: usize,
    kind: Kind,
    id: u64,
    body_max: usize,
) -> Result<(), Unencodable> {
    debug_assert!(
        out.len() >= start + FRAME_HEADER_BYTES,
        "a frame was begun at {start}"
    );
    let length = out.len() - start - FRAME_HEADER_BYTES;
    if length > body_max.min(BODY_BYTES_MAX) {
        out.truncate(start);
        return Err(Unencodable::TooLong);
    }
    let frame = &mut out[start..];
    frame[LENGTH_AT..KIND_AT].copy_from_slice(&(length as u32).to_le_bytes());
    frame[KIND_AT] = kind.number();
    frame[ID_AT..FRAME_HEADER_BYTES].copy_from_slice(&id.to_le_bytes());
    let crc = crc32fast::hash(&frame[LENGTH_AT..]);
    frame[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}
